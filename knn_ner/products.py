"""Matrix products in float32, as fast as the hardware gives them without losing a digit."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# Largest error of a float32 product of unit vectors that passes as one: ten times what it is, a
# fiftieth of what TF32 and bfloat16 make.
UNIT_ERROR = 1e-6


@contextmanager
def full_precision(device: torch.device, dim: int) -> Iterator[None]:
    """Products of float32 in float32, not TF32 or bfloat16, whatever the tagger runs in.

    dim: the length of the vectors that will be multiplied.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_quickest(dim) if device.type == "cpu" else "highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _quickest(dim: int) -> str:
    """The setting of PyTorch that multiplies in float32, and soonest on this CPU.

    `medium` permits bfloat16. Where the CPU has no unit that gains by it, oneDNN multiplies in float32
    all the same, and twice as fast as the library that `highest` goes to. So it is tried out.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator), dim=1)
        for rows in (256, 1024)
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", enabled=False):
            error = (left @ right.T - left.double() @ right.double().T).abs().max()
    finally:
        torch.set_float32_matmul_precision(before)
    return "medium" if error < UNIT_ERROR else "highest"
