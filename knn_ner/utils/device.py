"""The device of tensors, and the precision of matrix products."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from knn_ner.utils.errors import UserError


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
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices in float32, never in TF32 or bfloat16, even if the encoder runs in mixed precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
