"""What is peculiar to the library FAISS: loading it, its errors, its threads, and the parts of an index."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from knn_ner.utils.errors import UserError

# An index is not moved to a GPU but copied there, and finds no more neighbours there, unless FAISS was
# built with cuVS.
LARGEST_GPU_K = 2048

# What holds a part of an index: a transform or an id map, a refinement, inverted lists, a graph.
_NESTED = ("index", "base_index", "quantizer", "storage")


def load_faiss() -> ModuleType:
    """The library, imported when it is first needed: commands without an index start without it.

    Raises `UserError` when it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            f"faiss cannot be loaded ({error}); run `python -m pip install -r requirements.txt` (with "
            "CUDA: requirements-gpu.txt), or search exactly"
        ) from None
    # The setting is the calling thread's; without it FAISS takes every core, whatever torch was told.
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


@contextmanager
def faiss_errors(what: str, advice: str = "") -> Iterator[None]:
    """Turn the errors of FAISS, C++ source lines or an empty assertion, into one line about `what`."""
    try:
        yield
    except AssertionError as error:
        reason = str(error) or "vectors of another width"
    except RuntimeError as error:
        reason = reason_of(error)
        if reason.startswith("computation interrupted"):
            raise KeyboardInterrupt from None
    except MemoryError:
        reason = "memory ran out"
    else:
        return
    raise UserError(f"{what}: {reason}{advice and f'; {advice}'}")


def reason_of(error: Exception) -> str:
    """What a C++ error says, without function, source line and failed condition."""
    text = re.split(r"\.(?:cpp|h|cu|cuh):\d+: ", str(error))[-1]
    return re.sub(r"^Error: '.*' failed:?\s*", "", text, flags=re.DOTALL).strip().splitlines()[0]


def parts(index: Any) -> list[Any]:
    """An index and all that is nested in it, outermost first, each as its own class."""
    found = [load_faiss().downcast_index(index)]
    for name in _NESTED:
        nested = getattr(found[0], name, None)
        if nested is not None:
            found += parts(nested)
    return found


def transforms(index: Any) -> tuple[list[Any], Any]:
    """The transforms (PCA, OPQ, ...) that come first in an index, and the index under them."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if not isinstance(index, faiss.IndexPreTransform):
        return [], index
    chain = [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
    further, under = transforms(index.index)
    return chain + further, under


def lists_of(index: Any) -> Any | None:
    """The part with inverted lists, which has `nprobe`; None if there is none."""
    return next((part for part in parts(index) if hasattr(part, "nprobe")), None)


def graphs_of(index: Any) -> list[Any]:
    """The parts that are HNSW graphs, which have `hnsw.efSearch`."""
    return [part for part in parts(index) if hasattr(part, "hnsw")]


def keeps_whole_values(index: Any) -> bool:
    """Whether the index stores every value as a number of at least 16 bits: little or nothing is lost."""
    faiss = load_faiss()
    chain, under = transforms(index)
    stored = parts(under)
    whole = (faiss.IndexFlat, faiss.IndexIVFFlat)
    halves = (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
    # What comes last holds the values: of a graph its storage; of lists, the lists and not the quantiser.
    last = lists_of(under) or stored[-1]
    return not chain and (
        isinstance(last, whole) or (hasattr(last, "sq") and last.sq.qtype in halves)
    )


def to_gpu(index: Any, device: torch.device) -> tuple[Any, int | None, Any]:
    """Copy an index to a GPU, vectors as float16.

    Returns: the copy, the most neighbours that it finds (None: any number), and what has to be kept as
    long as it. Raises RuntimeError for an index that FAISS has no GPU version of.
    """
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True
    copied = faiss.index_cpu_to_gpu(resources, device.index or 0, index, options)
    unlimited = getattr(options, "use_cuvs", False)
    return copied, None if unlimited else LARGEST_GPU_K, resources
