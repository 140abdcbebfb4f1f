"""Near entries of a store together: whose neighbours share its label, and which of them can stand for all."""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_copy import COPIED_KEYS

# Neighbours that have to share an entry's label for another one to stand for it.
UNANIMOUS = 32
# Entries are clustered into cells of about this many; neighbours are looked for in the nearest cells alone.
CELL_ENTRIES = 1024
PROBED_CELLS = 6
# Rounds of k-means, for cells and for representatives; it is as good as done by then.
ROUNDS = 8
# Entries for each cell that k-means sees.
SAMPLED = 64


class Cells:
    """Entries of a store in cells of near ones, so that neighbours are looked for in few places.

    Args:
        store: the store.
        entries: (m,) those of its entries that count.
        similarity: `cosine`, for which vectors are normalised: then the distance says the same.
        seed: of k-means.
    """

    def __init__(self, store: Datastore, entries: np.ndarray, similarity: str, seed: int):
        self.store, self.entries, self.seed = store, entries, seed
        self.cosine = similarity == "cosine"
        self.labels = store.label_ids[entries]
        count = max(1, len(entries) // CELL_ENTRIES)
        sample = np.random.default_rng(seed).permutation(len(entries))[: SAMPLED * count]
        self.centres = self._cluster(self.vectors(np.sort(sample)), count)
        self.cell = np.empty(len(entries), np.int64)
        with tqdm(total=len(entries), unit="entry", unit_scale=True, desc="cells") as progress:
            for start in range(0, len(entries), COPIED_KEYS):
                rows = np.arange(start, min(start + COPIED_KEYS, len(entries)))
                self.cell[rows] = distances(self.vectors(rows), self.centres).argmin(axis=1)
                progress.update(len(rows))
        self.order = np.argsort(self.cell, kind="stable")
        self.borders = np.searchsorted(self.cell[self.order], np.arange(count + 1))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """What rows of `entries` are compared by, (r,) -> (r, dim) float32."""
        keys = self.store.gather(self.entries[rows]).astype(np.float32)
        if self.cosine:
            norms = np.linalg.norm(keys, axis=1, keepdims=True)
            keys /= np.where(norms > 0, norms, 1)
        return keys

    def members(self, cell: int) -> np.ndarray:
        """Rows of `entries` that a cell holds."""
        return self.order[self.borders[cell] : self.borders[cell + 1]]

    def unanimous(self, count: int) -> np.ndarray:
        """(m,) bool: whether the `count` nearest others, as far as the nearest cells tell, share the label."""
        agree = np.ones(len(self.entries), bool)
        near = distances(self.centres, self.centres).argsort(axis=1, kind="stable")[
            :, :PROBED_CELLS
        ]
        with tqdm(
            total=len(self.entries), unit="entry", unit_scale=True, desc="neighbours"
        ) as progress:
            for cell in range(len(self.centres)):
                around = np.concatenate([self.members(other) for other in near[cell]])
                there = self.vectors(around)
                for rows in chunks(self.members(cell), CELL_ENTRIES):
                    apart = distances(self.vectors(rows), there)
                    apart[rows[:, None] == around] = np.inf
                    nearest = min(count, len(around) - 1)
                    if nearest > 0:
                        found = np.argpartition(apart, nearest - 1, axis=1)[:, :nearest]
                        others = self.labels[around[found]]
                        agree[rows] = (others == self.labels[rows, None]).all(axis=1)
                    progress.update(len(rows))
        return agree

    def represent(
        self, agreeing: np.ndarray, room: int, weights: np.ndarray, first: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Let about `room` of the rows `agreeing`, (m,) bool, stand for all of them.

        weights: (n,) of all entries; first: (n,), which of `entries` each is counted with.

        Returns: for each entry of the store, which stands for it; and how near these are on average.
        """
        stands_for = np.arange(self.store.entries)
        mass = np.bincount(first, weights, self.store.entries)[self.entries]
        quota = quotas(np.bincount(self.labels[agreeing], minlength=1), room)
        apart = gone = 0.0
        with tqdm(
            total=int(agreeing.sum()), unit="entry", unit_scale=True, desc="represent"
        ) as progress:
            for rows in self._groups(agreeing):
                share = quota[self.labels[rows[0]]]
                wanted = max(1, round(share * len(rows)))
                if wanted < len(rows):
                    vectors = self.vectors(rows)
                    of, there = self._medoids(vectors, mass[rows], wanted)
                    stands_for[self.entries[rows]] = self.entries[rows[of]]
                    apart += float(there.sum())
                    gone += len(rows) - len(np.unique(of))
                progress.update(len(rows))
        mean = apart / gone if gone else 0.0
        return stands_for, (1 - mean / 2 if self.cosine else -mean)

    def _groups(self, agreeing: np.ndarray) -> Iterator[np.ndarray]:
        """The agreeing rows of one cell and one label, and of large ones a part."""
        for cell in range(len(self.centres)):
            rows = self.members(cell)
            rows = rows[agreeing[rows]]
            for label in np.unique(self.labels[rows]):
                yield from chunks(rows[self.labels[rows] == label], 2 * CELL_ENTRIES)

    def _medoids(
        self, vectors: np.ndarray, mass: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which of the vectors, (g, dim), stands for each: (g,), and its squared distance, (g,)."""
        centres = self._cluster(vectors, count, mass)
        apart = distances(vectors, centres)
        cluster = apart.argmin(axis=1)
        order = np.lexsort((apart[np.arange(len(vectors)), cluster], cluster))
        _, starts = np.unique(cluster[order], return_index=True)
        medoid = np.zeros(len(centres), np.int64)
        medoid[cluster[order[starts]]] = order[starts]
        of = medoid[cluster]
        return of, np.square(vectors - vectors[of]).sum(axis=1)

    def _cluster(
        self, vectors: np.ndarray, count: int, mass: np.ndarray | None = None
    ) -> np.ndarray:
        """k-means: (g, dim) -> (count, dim)."""
        from knn_ner.search.faiss_library import load_faiss

        means = load_faiss().Kmeans(
            vectors.shape[1],
            min(count, len(vectors)),
            niter=ROUNDS,
            seed=self.seed,
            min_points_per_centroid=1,
            max_points_per_centroid=len(vectors),
        )
        means.train(vectors, weights=None if mass is None else mass.astype(np.float32))
        return means.centroids


def distances(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances, (a, dim) and (b, dim) -> (a, b), up to rounding."""
    lengths = np.square(vectors).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    return lengths - 2 * (vectors @ others.T)


def quotas(counts: np.ndarray, room: int) -> np.ndarray:
    """The share to keep of each label, of `counts` entries: as many of each, all of the rare ones."""
    ascending = np.sort(counts)
    left = room - np.concatenate([[0], np.cumsum(ascending)[:-1]])
    # With what rarer labels leave, each of the others gets as much.
    each = left / np.arange(len(counts), 0, -1)
    full = each < ascending
    most = each[full.argmax()] if full.any() else np.inf
    return np.minimum(1, most / np.maximum(counts, 1))


def chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Rows in runs of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
