"""A map of the keys around a word: their first two principal components."""

import numpy as np

MAP_SIZE = 255


def project_to_map(points: np.ndarray) -> np.ndarray:
    """Project points onto the plane of their two largest principal components.

    Args:
        points: (n, dim) float.

    Returns:
        (n, 2) int coordinates, 0 to `MAP_SIZE`. Both axes have the same scale, and the wider one fills the map.
        The direction of an axis is arbitrary, but the same in every run.
    """
    centred = points.astype(np.float64)
    centred -= centred.mean(axis=0)
    # There are fewer points than dimensions, so the products of the points are the smaller matrix.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    plane = vectors[:, ::-1][:, :2] * np.sqrt(values[::-1][:2].clip(min=0))
    if plane.shape[1] < 2:
        plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    largest = np.abs(plane).argmax(axis=0)
    plane *= np.where(plane[largest, [0, 1]] < 0, -1, 1)
    low, high = plane.min(axis=0), plane.max(axis=0)
    extent = (high - low).max() or 1.0
    scaled = (plane - (low + high) / 2) / extent * MAP_SIZE + MAP_SIZE / 2
    return np.rint(scaled).astype(int).clip(0, MAP_SIZE)
