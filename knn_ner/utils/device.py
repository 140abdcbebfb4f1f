"""Where tensors are computed, and how exactly."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from knn_ner.utils.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device of a name; `auto` is CUDA where there is any.

    Raises:
        UserError: if CUDA is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device found; use --device cpu or auto")
    return torch.device(name)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices in float32, not in TF32 or bfloat16, whatever the tagger runs in."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
