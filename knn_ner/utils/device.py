"""The device of tensors, and the precision of matrix products."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from knn_ner.utils.errors import UserError

# Products of unit vectors with a larger error are not computed in float32: ten times the error of float32, and a
# fiftieth of that of bfloat16.
FLOAT32_PRODUCT_ERROR = 1e-6


def choose_device(name: str) -> torch.device:
    """Return the device `cpu` or `cuda`; `auto` chooses CUDA if a CUDA device is found.

    Raises:
        UserError: if `name` is `cuda` and no CUDA device is found.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device found; use --device cpu or auto")
    return torch.device(name)


@contextmanager
def full_precision(device: torch.device, fastest: bool = False) -> Iterator[None]:
    """Multiply float32 matrices in float32, never in TF32 or bfloat16, even if the encoder runs in mixed precision.

    Args:
        device: the device of the matrices.
        fastest: multiply with the faster of the two matrix libraries of PyTorch. The rounding of a row may then
            depend on the number of rows.
    """
    before = torch.get_float32_matmul_precision()
    fast = fastest and device.type == "cpu" and _medium_is_float32()
    torch.set_float32_matmul_precision("medium" if fast else "highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _medium_is_float32() -> bool:
    """Whether PyTorch multiplies in float32 at the precision "medium", which permits bfloat16.

    Then oneDNN multiplies, which is often faster than the library that "highest" selects.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.nn.functional.normalize(torch.randn(rows, 768, generator=generator), dim=1)
        for rows in (256, 1024)
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", enabled=False):
            error = (left @ right.T - left.double() @ right.double().T).abs().max()
    finally:
        torch.set_float32_matmul_precision(before)
    return bool(error < FLOAT32_PRODUCT_ERROR)
