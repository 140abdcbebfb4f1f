"""Balls that cover the keys of a datastore, each of one label: bounds of the vote without a search.

By the triangle inequality, the keys of a ball with centre c and radius r are at least |q - c| - r and at most
|q - c| + r away from a query q. Assume the largest distance for the keys of label y and the smallest for all other
keys. The vote for y is then no larger than the true one, for every k and temperature (see `Cover.least_share`). In
the space of a trained tagger most tokens lie deep among keys of their own label, so this bound alone makes their tag
certain.

For cosine, vectors are scaled to length 1, where |q - k|^2 = 2 - 2 cos(q, k).
"""

import hashlib
import json
import zipfile
from collections.abc import Callable
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
from knn_ner.search.faiss_library import load_faiss
from knn_ner.search.similarity import (
    SMALLEST_NORMAL,
    check_similarity,
    has_bounded_rounding,
    product_error,
    rounding_error,
)
from knn_ner.search.vote import limited_temperature, vote_weights
from knn_ner.utils.device import full_precision
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import atomic_writer

# Mean number of entries in a ball, and the largest number of balls.
ENTRIES_PER_BALL = 128
MAX_BALLS = 4096
# Each cover has the keys that lie farthest from the centres of their balls as balls of radius 0: this share of the
# keys of each label, and at most so many keys. The first cover is quick and settles most tags, the second more of
# the rest.
SINGLE_KEYS = ((0.02, 4096), (0.08, 16384))
# A cover is built if it is expected to save more than this times its cost.
SAVING_PER_COST = 2
# Rounds of k-means; more make the balls hardly smaller. Keys of a label that k-means is trained on, at most.
KMEANS_ROUNDS = 2
KMEANS_KEYS = 1 << 18
BLOCK_KEYS = 8192
# Rounding of radii: relative, and absolute for vectors of length 1.
RADIUS_ERROR = 1e-5
# Queries whose vote is bounded at once.
BLOCK_QUERIES = 256
# The nearest balls, whose keys are sorted by distance if the vote may not be unanimous.
NEAREST_BALLS = 512

ARRAYS = ("centres", "radii", "counts", "labels")


@dataclass(frozen=True)
class Cover:
    """Balls that together hold each entry of a datastore once; made by `build_covers`.

    Attributes:
        similarity: "cosine" or "l2".
        centres: (m, dim) float32, sorted by label.
        radii: (m,) float32, Euclidean.
        counts: (m,) float32, the number of entries of each ball (in a pruned store, of entries that they stand for).
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
        """A lower bound of the share of the vote that a label has.

        The share of label y is M_y / (M_y + M_other), with M the sums of exp(similarity / T) over the k nearest
        keys. When a key of another label comes nearer, this share does not rise: a key that is already among the
        k nearest increases M_other, and a key that joins them replaces the farthest one, so that M_other does not
        fall and M_y does not rise. The same holds when a key of label y moves away.

        Args:
            queries: (q, dim) float32, finite.
            labels: (q,) int64, one label of the store for each query; -1 for a label that the store lacks.
            k: number of neighbours, or -1 for all.
            temperature: T, above 0.

        Returns:
            (q,) float32, 0 where nothing is known.
        """
        share = partial(self._share, k=k, temperature=limited_temperature(temperature))
        return self._bound(queries, labels, k, share)

    def unanimous(self, queries: Tensor, labels: Tensor, k: int) -> Tensor:
        """Which queries are known to have k nearest neighbours of one given label.

        Args:
            queries: (q, dim) float32, finite.
            labels: (q,) int64, as for `least_share`.
            k: number of neighbours, at least 1.

        Returns:
            (q,) bool.
        """
        return self._bound(queries, labels, k, partial(self._unanimous, k=k)) > 0

    def _bound(
        self, queries: Tensor, labels: Tensor, k: int, bound: Callable[[slice, Tensor], Tensor]
    ) -> Tensor:
        """The values of `bound`, given the balls of a query's label and `_gaps`; 0 where nothing is known."""
        values = queries.new_zeros(len(queries))
        norms = queries.norm(dim=1)
        largest = float((self._squares.sqrt() + self.radii).max())
        dim = queries.shape[1]
        # The largest absolute rounding error of the similarities that vote.
        error = torch.full_like(norms, dim * SMALLEST_NORMAL)
        if k == -1:
            error = product_error(norms, largest, dim, self.similarity)
        elif self.similarity == "cosine":
            error += rounding_error(dim)
        if self.similarity == "cosine":
            known = (norms > 0) & has_bounded_rounding(norms)
            queries = queries / norms.where(known, 1)[:, None]
            labels = labels.where(known, -1)
        with full_precision(queries.device):
            for label in labels[labels >= 0].unique():
                borders = torch.searchsorted(self.labels, torch.stack([label, label + 1]))
                own = slice(*borders.tolist())
                if own.start == own.stop:
                    continue
                signs = torch.full_like(self.radii, -1)
                signs[own] = 1
                for rows in (labels == label).nonzero()[:, 0].split(BLOCK_QUERIES):
                    values[rows] = bound(own, self._gaps(queries[rows], signs, error[rows])).float()
        return values

    def _gaps(self, queries: Tensor, signs: Tensor, error: Tensor) -> Tensor:
        """How far the similarity of a ball's keys can be below that of a key equal to the query.

        Args:
            queries: (q, dim), of length 1 for cosine.
            signs: (m,), 1 for the largest gap of a ball's keys, -1 for the smallest.
            error: (q,) largest absolute rounding error of the similarities.

        Returns:
            (q, m) bounds that include rounding.
        """
        norms = queries.norm(dim=1)
        largest, dim = float(self._squares.max().sqrt()), queries.shape[1]
        bias = self._squares + signs * product_error(norms.max()[None], largest, dim, "l2")
        unit = self.similarity == "cosine"
        gaps = torch.addmm(bias + 1 if unit else bias, queries, self.centres.T, alpha=-2)
        if not unit:
            gaps += norms.square()[:, None]
        gaps = gaps.clamp_(min=0).sqrt_().add_(signs * self.radii).clamp_(min=0).square_()
        scale = (1 + signs * rounding_error(dim)) * (0.5 if unit else 1)
        return gaps.mul_(scale).addcmul_(signs[None], error[:, None])

    def _share(self, own: slice, gaps: Tensor, k: int, temperature: float) -> Tensor:
        if k == -1:
            return self._share_of_all(own, gaps, temperature)
        share = self._unanimous(own, gaps, k)
        mixed = (share == 0).nonzero()[:, 0]
        if len(mixed):
            share[mixed] = self._share_of_mixed(own, gaps[mixed], k, temperature)
        return share

    def _unanimous(self, own: slice, gaps: Tensor, k: int) -> Tensor:
        """1 where k keys of the balls `own` are nearer than all other keys, else 0."""
        nearer = (gaps[:, own] < self._nearest_other(own, gaps)[:, None]).float()
        return (nearer @ self.counts[own] >= k).float()

    def _nearest_other(self, own: slice, gaps: Tensor) -> Tensor:
        nearest = gaps.new_full((len(gaps),), torch.inf)
        for others in (gaps[:, : own.start], gaps[:, own.stop :]):
            if others.shape[1]:
                nearest = nearest.minimum(others.amin(dim=1))
        return nearest

    def _share_of_all(self, own: slice, gaps: Tensor, temperature: float) -> Tensor:
        """The share of the balls `own` in the vote of all keys with these gaps; overwrites `gaps`."""
        # The weights of each side are relative to its own nearest ball, so that they do not vanish.
        nearest, other = gaps[:, own].amin(dim=1), self._nearest_other(own, gaps)
        ours = torch.zeros(gaps.shape[1], dtype=torch.bool)
        ours[own] = True
        gaps -= nearest[:, None].where(ours, other[:, None])
        weights = vote_weights(gaps.neg_(), temperature)
        mass, other_mass = (weights @ (self.counts * side) for side in (ours, ~ours))
        return (mass.log() - other_mass.log() + (other - nearest).double() / temperature).sigmoid()

    def _share_of_mixed(self, own: slice, gaps: Tensor, k: int, temperature: float) -> Tensor:
        """The share of the balls `own` among the k nearest keys, for keys with these gaps."""
        count = min(NEAREST_BALLS, gaps.shape[1])
        balls = order_of_best(-gaps, count)
        gaps, order = gaps.gather(1, balls).sort(dim=1)
        balls = balls.gather(1, order)
        counts = self.counts[balls]
        before = counts.cumsum(dim=1) - counts
        weights = vote_weights(gaps[:, :1] - gaps, temperature)
        mass = weights * (k - before).clamp(min=0).minimum(counts)
        ours = (mass * ((balls >= own.start) & (balls < own.stop))).sum(dim=1)
        # Keys of farther balls may all have other labels.
        missing = (k - counts.sum(dim=1)).clamp(min=0) * weights[:, -1]
        return ours / (mass.sum(dim=1) + missing)


def build_covers(store: Datastore, similarity: str = "cosine", seed: int = 0) -> list[Cover]:
    """Cover a store with balls, by a few rounds of k-means within each label.

    Args:
        store: the datastore.
        similarity: "cosine" or "l2".
        seed: random seed of k-means.

    Returns:
        Covers, each finer than the one before; none for cosine if a key has no direction.

    Raises:
        UserError: if FAISS is not installed.
    """
    check_similarity(similarity)
    norms = torch.from_numpy(store.norms)
    if similarity == "cosine" and not (has_bounded_rounding(norms) & (norms > 0)).all():
        return []
    faiss = load_faiss()
    generator = np.random.default_rng(seed)
    share = min(1 / ENTRIES_PER_BALL, MAX_BALLS / store.entries)
    centres: dict[int, Tensor] = {}
    ball_of = np.zeros(store.entries, np.int64)
    distance = np.zeros(store.entries, np.float32)
    with tqdm(
        total=store.entries, unit="entry", unit_scale=True, desc="cover", delay=2
    ) as progress:
        for label in np.unique(store.label_ids).tolist():
            entries = np.flatnonzero(store.label_ids == label)
            chosen = entries
            if len(entries) > KMEANS_KEYS:
                chosen = np.sort(generator.choice(entries, KMEANS_KEYS, replace=False))
            means = faiss.Kmeans(
                store.dim,
                max(1, int(len(entries) * share)),
                niter=KMEANS_ROUNDS,
                seed=seed,
                min_points_per_centroid=1,
                max_points_per_centroid=KMEANS_KEYS,
            )
            means.train(_vectors(store, chosen, similarity).numpy())
            centres[label] = torch.from_numpy(means.centroids)
            for start in range(0, len(entries), BLOCK_KEYS):
                part = entries[start : start + BLOCK_KEYS]
                vectors = _vectors(store, part, similarity)
                ball_of[part] = means.index.search(vectors.numpy(), 1)[1][:, 0]
                vectors -= centres[label][torch.from_numpy(ball_of[part])]
                distance[part] = vectors.norm(dim=1).numpy()
                progress.update(len(part))
    return [
        _assemble(store, similarity, centres, ball_of, distance, min(share, most / store.entries))
        for share, most in SINGLE_KEYS
    ]


def _assemble(
    store: Datastore,
    similarity: str,
    centres: dict[int, Tensor],
    ball_of: np.ndarray,
    distance: np.ndarray,
    share: float,
) -> Cover:
    """The cover in which the farthest keys, a share of those of each label, are balls of their own."""
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


def _vectors(store: Datastore, entries: np.ndarray, similarity: str) -> Tensor:
    vectors = torch.from_numpy(store.gather(entries)).float()
    if similarity == "cosine":
        vectors /= torch.from_numpy(store.norms[entries])[:, None]
    return vectors


def covers_of(store: Datastore, similarity: str, expected: float) -> list[Cover]:
    """The covers in the store's folder, if they are of its present content; else new ones.

    New covers replace those in the folder, if it can be written.

    Args:
        store: the datastore.
        similarity: "cosine" or "l2".
        expected: number of queries to expect. For few of them no covers are built.

    Returns:
        The covers; none if they are not built.
    """
    # Both in numbers of keys that are multiplied with an entry or a query.
    cost = (KMEANS_ROUNDS + 1) * min(store.entries // ENTRIES_PER_BALL, MAX_BALLS)
    file = store.path / f"cover-{similarity}.npz"
    kept = _read(file, store, similarity)
    if kept is not None or expected <= SAVING_PER_COST * cost:
        return kept or []
    try:
        covers = build_covers(store, similarity)
    except UserError:
        # Without FAISS, other stages settle the tags.
        return []
    arrays: dict[str, np.ndarray] = {"content_id": np.array(_identity(store))}
    for number, cover in enumerate(covers):
        arrays |= {f"{name}_{number}": getattr(cover, name).numpy() for name in ARRAYS}
    # The folder of a shared store may be read-only.
    with suppress(UserError, OSError), atomic_writer(file, binary=True) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    return covers


def _read(file: Path, store: Datastore, similarity: str) -> list[Cover] | None:
    """The covers in a file; None if it is missing, damaged, or of other content."""
    try:
        with np.load(file) as arrays:
            if arrays["content_id"] != _identity(store):
                return None
            count = sum(name.startswith(f"{ARRAYS[0]}_") for name in arrays)
            return [
                Cover(similarity, *(torch.from_numpy(arrays[f"{name}_{i}"]) for name in ARRAYS))
                for i in range(count)
            ]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return None


def _identity(store: Datastore) -> str:
    """Hash of a store's content and of the settings of its covers."""
    settings = [ENTRIES_PER_BALL, MAX_BALLS, SINGLE_KEYS, KMEANS_ROUNDS, KMEANS_KEYS]
    return hashlib.sha256(json.dumps([store.content_id, settings]).encode()).hexdigest()
