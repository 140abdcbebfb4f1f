"""Counts, ids and names as text."""

from collections.abc import Iterable, Sequence


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 entry`, `2 entries`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def show_ids(ids: Iterable[int]) -> str:
    """Return ids in the format of `--ids`: `3 17 20-30`."""
    runs: list[list[int]] = []
    for sentence_id in ids:
        if runs and sentence_id == runs[-1][1] + 1:
            runs[-1][1] = sentence_id
        else:
            runs.append([sentence_id, sentence_id])
    return " ".join(f"{a}-{b}" if a < b else str(a) for a, b in runs)


def some(names: Sequence[str], shown: int = 8) -> str:
    """Return the first `shown` names, with `...` if there are more."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
