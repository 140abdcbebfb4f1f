"""Fitting the transform of a datastore's keys on the keys."""

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.key_transform import KeyTransform, parse_transform
from knn_ner.datastore.reader import Datastore
from knn_ner.utils.errors import UserError

# Added to the variance of each direction, as a part of the largest: directions in which hidden states
# hardly differ hold noise, which must not count as much as the others.
DAMPING = 1e-2
# Keys taken at once, in float64.
FITTED_KEYS = 8192


def fit_transform(store: Datastore, name: str) -> KeyTransform:
    """Fit a transform on the keys of a store, in two passes over them, in float64.

    With m the mean, and V and s the eigenvectors and eigenvalues of the covariance, the largest D first,
    `whiten` is x -> (x - m) V / sqrt(s + DAMPING * s[0]): after it, but for the damping, all directions
    have the same variance. Which basis whitened keys have changes neither their cosines nor their
    distances. `svd:D` is x -> x V, with V of the second moment: it keeps cosines nearly what they are
    (without the mean, which principal components leave out, they are others).

    All are scaled, which no cosine sees, so that two keys are 1 apart on average in squared distance:
    the temperatures that suit one store then suit another.

    Raises `UserError` for a name that is none, a store whose keys are transformed already, and one of
    fewer than two entries.
    """
    from scipy.linalg import eigh

    kind, width = parse_transform(name, store.dim)
    if store.transform is not None:
        raise UserError(
            f"{store.path}: its keys are transformed already ({store.transform.name}); build it anew"
        )
    if store.entries < 2:
        raise UserError(
            f"{store.path}: {store.entries} entries, expected two at least to fit {name}"
        )
    mean = np.zeros(store.dim)
    centre = kind != "svd"
    scatter = np.zeros((store.dim, store.dim))
    with tqdm(
        total=2 * store.entries, unit="entry", unit_scale=True, desc="fit", delay=1
    ) as progress:
        for _, keys in store.blocks(FITTED_KEYS):
            mean += keys.sum(axis=0, dtype=np.float64)
            progress.update(len(keys))
        mean /= store.entries
        for _, keys in store.blocks(FITTED_KEYS):
            centred = keys - mean * centre
            scatter += centred.T @ centred
            progress.update(len(keys))
    values, vectors = eigh(scatter / store.entries)
    values, vectors = values[::-1][:width].clip(min=0), vectors[:, ::-1][:, :width]
    if not values[0] > 0:
        raise UserError(f"{store.path}: all keys are equal, so that no transform fits them")
    if kind == "whiten":
        factors = 1 / (values + DAMPING * values[0])
        values, vectors = values * factors, vectors * np.sqrt(factors)
    # Two keys are twice as far apart, in squared distance, as one is from the mean.
    spread = values.sum() if centre else values.sum() - np.square(mean @ vectors).sum()
    vectors = vectors / np.sqrt(2 * spread)
    mean = (mean * centre).astype(np.float32)
    return KeyTransform(name, mean, np.ascontiguousarray(vectors, np.float32))
