"""Fitting the transform of keys on the keys of a datastore."""

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.key_transform import KeyTransform, parse_transform
from knn_ner.datastore.reader import Datastore
from knn_ner.utils.errors import UserError

# Share of the largest variance that is added to each variance: directions with little variance are mostly noise, which
# full whitening would amplify.
DAMPING = 1e-2
# Keys of a block, in float64.
FITTED_KEYS = 8192


def fit_transform(store: Datastore, name: str) -> KeyTransform:
    """Fit a transform on the keys of a datastore in float64, in two passes over the keys.

    `whiten` is x -> (x - m) V / sqrt(s + DAMPING * s[0]), where m is the mean, and V and s are the D first eigenvectors
    and eigenvalues of the covariance, the largest first. Afterwards all directions have the same variance, except for
    the damping. `svd:D` is x -> x V with the eigenvectors of the second moment; it nearly preserves cosines, because it
    does not subtract the mean.

    The keys are scaled so that the mean squared distance of two keys is 1: the same temperatures then suit all
    datastores. Scaling does not change cosines.

    Args:
        store: the datastore.
        name: name of the transform (`parse_transform`).

    Raises:
        UserError: for a bad name, or keys that are transformed already, too few, or all equal.
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
    # The mean squared distance of two keys is twice that of a key and the mean.
    spread = values.sum() if centre else values.sum() - np.square(mean @ vectors).sum()
    vectors = vectors / np.sqrt(2 * spread)
    mean = (mean * centre).astype(np.float32)
    return KeyTransform(name, mean, np.ascontiguousarray(vectors, np.float32))
