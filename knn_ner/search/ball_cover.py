"""Balls over the keys of a datastore, each of one label: what a vote comes to without searching.

Keys of a ball with centre c and radius r are at least |q - c| - r and at most |q - c| + r away from a
query q, by the triangle inequality. Put each key that has the label y as far away as that allows, and
each other key as near: the vote for y in that store is no larger than in the true one, for every k
and temperature. (Moving a key of label y away, or one of another label near, never raises the share of
y among the k nearest: see `Cover.least_share`.) In the space of a trained tagger most tokens lie deep
among keys of their own label, and so the bound alone settles their tag.

For cosine the vectors are scaled to length 1, where |q - k|^2 = 2 - 2 cos(q, k).
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from knn_ner.datastore.reader import Datastore
from knn_ner.search.candidates import order_of_best
from knn_ner.search.similarity import check_similarity, product_error
from knn_ner.search.vote import vote_weights
from knn_ner.utils.device import full_precision
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import atomic_writer

# Entries to a ball, on average, and balls at most.
ENTRIES_PER_BALL = 128
MOST_BALLS = 4096
# The keys that lie farthest from the centres of their balls are balls of radius 0: this share of each
# label's, and so many at most. The first cover is quick and settles most, the second more of the rest.
SINGLES = ((0.02, 4096), (0.08, 16384))
# A cover is built if it spares more than this times what it costs.
WORTH = 2
# Rounds of k-means; more make the balls hardly smaller.
ROUNDS = 2
BLOCK_KEYS = 8192
# Rounding in radii: relative, and of vectors of length 1.
RADIUS_ERROR = 1e-5
# Queries that are bounded at once.
QUERIES = 256
# The nearest balls that are looked at one by one where a vote is not unanimous.
NEAREST_BALLS = 512


ARRAYS = ("centres", "radii", "counts", "labels")


@dataclass(frozen=True)
class Cover:
    """Balls that together hold each entry of a datastore once; made by `build_covers`.

    Attributes:
        similarity: "cosine" or "l2".
        centres: (m, dim) float32, by label.
        radii: (m,) float32, Euclidean.
        counts: (m,) float32, how many entries vote from the ball (in a pruned store, what they stand for).
        labels: (m,) int64, ascending.
    """

    similarity: str
    centres: Tensor
    radii: Tensor
    counts: Tensor
    labels: Tensor

    @cached_property
    def _squares(self) -> Tensor:
        return self.centres.square().sum(dim=1)

    def least_share(self, queries: Tensor, labels: Tensor, k: int, temperature: float) -> Tensor:
        """What the vote for a label is at least.

        That holds since the share of label y, M_y / (M_y + M_other) with M the sums of exp(similarity / T)
        over the k nearest, does not rise when a key of another label comes nearer: if it is among the
        k nearest, M_other grows; if it comes to be, it takes the place of the worst of these, so that
        M_other grows or stays and M_y falls or stays. Likewise when a key of label y moves away.

        Args:
            queries: (q, dim) float32, finite.
            labels: (q,) int64, for each query one label of the store; -1 for a label it does not have.
            k: number of neighbours, or -1 for all.
            temperature: above 0.

        Returns: (q,) float32, 0 where nothing is known.
        """
        return self._of_each(queries, labels, partial(self._share_of, k=k, temperature=temperature))

    def unanimous(self, queries: Tensor, labels: Tensor, k: int) -> Tensor:
        """Whether all of the k nearest are known to have a label: (q,) bool.

        Args: as for `least_share`, k at least 1.
        """

        def certain(own: slice, bounds: Tensor) -> Tensor:
            return self._unanimous(own, bounds, k).float()

        return self._of_each(queries, labels, certain) > 0

    def _of_each(
        self, queries: Tensor, labels: Tensor, bound: Callable[[slice, Tensor], Tensor]
    ) -> Tensor:
        """What `bound` says of queries that ask for one label, given its balls; 0 where it has none."""
        values = queries.new_zeros(len(queries))
        if self.similarity == "cosine":
            norms = queries.norm(dim=1, keepdim=True)
            queries = queries / norms.where(norms > 0, 1)
            labels = labels.where(norms[:, 0] > 0, -1)
        with full_precision(queries.device):
            for label in labels[labels >= 0].unique().tolist():
                own = slice(
                    *torch.searchsorted(self.labels, torch.tensor([label, label + 1])).tolist()
                )
                signs = torch.full_like(self.radii, -1)
                signs[own] = 1
                for rows in (labels == label).nonzero()[:, 0].split(QUERIES):
                    values[rows] = bound(own, self._bounds(queries[rows], signs))
        return values

    def _share_of(self, own: slice, bounds: Tensor, k: int, temperature: float) -> Tensor:
        if k == -1:
            return self._share_of_all(own, bounds, temperature)
        share = self._unanimous(own, bounds, k).float()
        left = (share == 0).nonzero()[:, 0]
        if len(left):
            share[left] = self._share_of_mixed(own, bounds[left], k, temperature)
        return share

    def _unanimous(self, own: slice, bounds: Tensor, k: int) -> Tensor:
        nearest_other = torch.full((len(bounds),), torch.inf, device=bounds.device)
        for others in (slice(0, own.start), slice(own.stop, bounds.shape[1])):
            if others.start < others.stop:
                nearest_other = nearest_other.minimum(bounds[:, others].amin(dim=1))
        nearer = (bounds[:, own] < nearest_other[:, None]).float()
        return nearer @ self.counts[own] >= k

    def _bounds(self, queries: Tensor, signs: Tensor) -> Tensor:
        """(q, m): how far the keys of each ball are away at most, where the sign is 1, else at least.

        What is below 0 stands for 0.
        """
        norms = queries.norm(dim=1)
        largest = float(self._squares.max().sqrt())
        error = product_error(norms.max()[None], largest, queries.shape[1], "l2")
        bias = self._squares + signs * error
        # A vector of length 1 needs no pass for itself.
        unit = self.similarity == "cosine"
        bounds = torch.addmm(bias + 1 if unit else bias, queries, self.centres.T, alpha=-2)
        if not unit:
            bounds += norms.square()[:, None]
        return bounds.clamp_(min=0).sqrt_().add_(signs * self.radii)

    def _share_of_all(self, own: slice, bounds: Tensor, temperature: float) -> Tensor:
        weights = self._weights(bounds, bounds.amin(dim=1), temperature)
        return weights[:, own] @ self.counts[own] / (weights @ self.counts)

    def _share_of_mixed(self, own: slice, bounds: Tensor, k: int, temperature: float) -> Tensor:
        """The share of the balls `own` among the k nearest keys, if these are as far away as `bounds`."""
        count = min(NEAREST_BALLS, bounds.shape[1])
        balls = order_of_best(-bounds, count)
        bounds, order = bounds.gather(1, balls).sort(dim=1)
        balls = balls.gather(1, order)
        counts = self.counts[balls]
        before = counts.cumsum(dim=1) - counts
        weights = self._weights(bounds, bounds[:, 0], temperature)
        mass = weights * (k - before).clamp(min=0).minimum(counts)
        ours = (mass * ((balls >= own.start) & (balls < own.stop))).sum(dim=1)
        # What votes from farther balls may all be others.
        missing = (k - counts.sum(dim=1)).clamp(min=0) * weights[:, -1]
        return ours / (mass.sum(dim=1) + missing)

    def _weights(self, bounds: Tensor, nearest: Tensor, temperature: float) -> Tensor:
        half = 0.5 if self.similarity == "cosine" else 1.0
        behind = nearest.clamp(min=0).square()[:, None] - bounds.clamp(min=0).square_()
        return vote_weights(behind.mul_(half), temperature)


def build_covers(store: Datastore, similarity: str = "cosine", seed: int = 0) -> list[Cover]:
    """Cover a store with balls, by a few rounds of k-means within each label.

    Args:
        similarity: "cosine" or "l2".
        seed: of the first centres.

    Returns: covers, each finer than the one before; none for cosine if a key is zero, which has no place
    on the sphere.
    """
    check_similarity(similarity)
    if similarity == "cosine" and not store.norms.all():
        return []
    generator = np.random.default_rng(seed)
    share = min(1 / ENTRIES_PER_BALL, MOST_BALLS / store.entries)
    centres: dict[int, Tensor] = {}
    for label in np.unique(store.label_ids).tolist():
        entries = np.flatnonzero(store.label_ids == label)
        chosen = generator.choice(entries, max(1, int(len(entries) * share)), replace=False)
        centres[label] = _vectors(store, np.sort(chosen), similarity)
    ball_of = np.zeros(store.entries, np.int32)
    distance = np.zeros(store.entries, np.float32)
    total = (ROUNDS + 1) * store.entries
    with (
        full_precision(torch.device("cpu")),
        tqdm(total=total, unit="entry", unit_scale=True, desc="cover", delay=2) as progress,
    ):
        for round_ in range(ROUNDS + 1):
            sums = {label: torch.zeros_like(own) for label, own in centres.items()}
            sizes = {label: torch.zeros(len(own)) for label, own in centres.items()}
            for start, vectors, labels in _blocks(store, similarity):
                for label in np.unique(labels).tolist():
                    rows = np.flatnonzero(labels == label)
                    own = vectors[torch.from_numpy(rows)]
                    balls, distances = _nearest_centre(own, centres[label])
                    sums[label].index_add_(0, balls, own)
                    sizes[label].index_add_(0, balls, torch.ones(len(balls)))
                    ball_of[start + rows] = balls.numpy()
                    distance[start + rows] = distances.numpy()
                progress.update(len(vectors))
            if round_ < ROUNDS:
                for label, size in sizes.items():
                    filled = size > 0
                    centres[label] = sums[label][filled] / size[filled, None]
    shares = [min(share, most / store.entries) for share, most in SINGLES]
    return [_assemble(store, similarity, centres, ball_of, distance, share) for share in shares]


def _assemble(
    store: Datastore,
    similarity: str,
    centres: dict[int, Tensor],
    ball_of: np.ndarray,
    distance: np.ndarray,
    share: float,
) -> Cover:
    """The cover in which the farthest keys, a share of each label's, are balls of their own."""
    weights = np.ones(store.entries, np.float32) if store.weights is None else store.weights
    parts: list[tuple[Tensor, np.ndarray, np.ndarray, int]] = []
    for label, own_centres in centres.items():
        entries = np.flatnonzero(store.label_ids == label)
        far = int(len(entries) * share)
        order = np.argsort(-distance[entries], kind="stable")
        alone, rest = np.sort(entries[order[:far]]), entries[order[far:]]
        radii = np.zeros(len(own_centres), np.float32)
        np.maximum.at(radii, ball_of[rest], distance[rest])
        counts = np.bincount(ball_of[rest], weights[rest], len(own_centres))
        filled = np.bincount(ball_of[rest], minlength=len(own_centres)) > 0
        radii = radii[filled] * (1 + RADIUS_ERROR) + RADIUS_ERROR
        parts.append((own_centres[torch.from_numpy(filled)], radii, counts[filled], label))
        if far:
            vectors = _vectors(store, alone, similarity)
            parts.append((vectors, np.full(far, RADIUS_ERROR, np.float32), weights[alone], label))
    return Cover(
        similarity,
        torch.cat([centre for centre, *_ in parts]),
        torch.from_numpy(np.concatenate([radii for _, radii, *_ in parts])),
        torch.from_numpy(np.concatenate([counts for *_, counts, _ in parts])).float(),
        torch.tensor([label for centre, *_, label in parts for _ in range(len(centre))]),
    )


def _nearest_centre(vectors: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each vector, and its distance."""
    balls = torch.addmm(centres.square().sum(dim=1) / -2, vectors, centres.T).argmax(dim=1)
    return balls, (vectors - centres[balls]).norm(dim=1)


def _blocks(store: Datastore, similarity: str) -> Iterator[tuple[int, Tensor, np.ndarray]]:
    for start, block in store.blocks(BLOCK_KEYS):
        part = slice(start, start + len(block))
        vectors = torch.from_numpy(np.array(block)).float()
        if similarity == "cosine":
            vectors /= torch.from_numpy(store.norms[part])[:, None]
        yield start, vectors, store.label_ids[part]


def _vectors(store: Datastore, entries: np.ndarray, similarity: str) -> Tensor:
    vectors = torch.from_numpy(store.gather(entries)).float()
    if similarity == "cosine":
        vectors /= torch.from_numpy(store.norms[entries])[:, None]
    return vectors


def covers_of(store: Datastore, similarity: str, expected: float) -> list[Cover]:
    """The covers of a store: those kept beside it, if they are of what it holds now, or new ones.

    New ones are kept, in place of those of other contents, if the store can be written.

    expected: how many queries they are for; where these are too few for covers to be worth making, what
        is not there is not built, and the answer is none.
    """
    # In numbers of keys that are multiplied.
    cost = (ROUNDS + 1) * min(store.entries // ENTRIES_PER_BALL, MOST_BALLS)
    build = expected > WORTH * cost
    file = store.path / f"cover-{similarity}.npz"
    kept = _read(file, store, similarity)
    if kept is not None or not build:
        return kept or []
    covers = build_covers(store, similarity)
    arrays: dict[str, np.ndarray] = {"content_id": np.array(_identity(store))}
    for number, cover in enumerate(covers):
        arrays |= {f"{name}_{number}": getattr(cover, name).numpy() for name in ARRAYS}
    # A store that many share need not be anyone's to write to.
    with suppress(UserError, OSError), atomic_writer(file, binary=True) as stream:
        np.savez(stream, **arrays)
    return covers


def _read(file: Path, store: Datastore, similarity: str) -> list[Cover] | None:
    """The covers in a file; None if it is not there, not whole, or of other contents."""
    try:
        with np.load(file) as arrays:
            if arrays["content_id"] != _identity(store):
                return None
            count = sum(name.startswith(f"{ARRAYS[0]}_") for name in arrays)
            return [
                Cover(
                    similarity,
                    *(torch.from_numpy(arrays[f"{name}_{number}"]) for name in ARRAYS),
                )
                for number in range(count)
            ]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return None


def _identity(store: Datastore) -> str:
    """Names the contents of a store, and the way in which this version covers them."""
    settings = [ENTRIES_PER_BALL, MOST_BALLS, SINGLES, ROUNDS]
    return hashlib.sha256(json.dumps([store.content_id, settings]).encode()).hexdigest()
