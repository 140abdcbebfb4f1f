"""A map of the keys around a word: their two principal components."""

import numpy as np

SIZE = 255
"""Coordinates are integers from 0 to this."""


def project(points: np.ndarray) -> np.ndarray:
    """Points in the plane of their two largest principal components, as a map.

    points: (n, dim) float. Both axes have the same scale, and the larger extent fills the map.

    Returns: (n, 2) int, 0 to `SIZE`. Which way an axis points is arbitrary, but always the same.
    """
    centred = points.astype(np.float64)
    centred -= centred.mean(axis=0)
    # By the products of the points with each other: they are few, and wide.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    plane = vectors[:, ::-1][:, :2] * np.sqrt(values[::-1][:2].clip(min=0))
    if plane.shape[1] < 2:
        plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    largest = np.abs(plane).argmax(axis=0)
    plane *= np.where(plane[largest, [0, 1]] < 0, -1, 1)
    low, high = plane.min(axis=0), plane.max(axis=0)
    extent = (high - low).max() or 1.0
    return np.rint((plane - (low + high) / 2) / extent * SIZE + SIZE / 2).astype(int).clip(0, SIZE)
