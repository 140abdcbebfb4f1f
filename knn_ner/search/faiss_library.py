"""Access to the library FAISS: loading, errors, threads, and the parts of an index."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from knn_ner.utils.errors import UserError

# The attributes that hold a part of an index: of a transform or an id map, a refinement, inverted lists, a graph.
_NESTED = ("index", "base_index", "quantizer", "storage")


def load_faiss() -> ModuleType:
    """Import the library at its first use, so that commands without an index start without it.

    Raises:
        UserError: if FAISS is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            f"faiss cannot be loaded ({error}); run `python -m pip install -r requirements.txt` (with "
            "CUDA: requirements-gpu.txt), or search exactly"
        ) from None
    import torch

    # FAISS has a setting for each thread, and takes all cores by default.
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


@contextmanager
def faiss_errors(subject: str, advice: str = "") -> Iterator[None]:
    """Turn the errors of FAISS, which are C++ source lines or an empty assertion, into one line.

    Raises:
        UserError: "SUBJECT: reason; advice" for an error of FAISS.
    """
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
    raise UserError(f"{subject}: {reason}{advice and f'; {advice}'}")


def reason_of(error: Exception) -> str:
    """The message of a C++ error without function, source line and failed condition."""
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
    """The transforms (PCA, OPQ, ...) at the start of an index, and the index under them."""
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


def stores_whole_values(index: Any) -> bool:
    """Whether the index stores every value of a key in at least 16 bits."""
    faiss = load_faiss()
    chain, under = transforms(index)
    halves = (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
    # The values lie in the inverted lists, or in the innermost part: the storage of a graph.
    last = lists_of(under) or parts(under)[-1]
    return not chain and (
        isinstance(last, (faiss.IndexFlat, faiss.IndexIVFFlat))
        or (hasattr(last, "sq") and last.sq.qtype in halves)
    )
