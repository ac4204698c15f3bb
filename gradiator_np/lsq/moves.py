"""Directions of runs that mend the model, in units of the trust radius."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gradiator_np.lsq import trust_region as tr

Array = NDArray[np.float64]

#: A run next to the centre goes this share of the way to where noise equals curvature.
NEXT = 0.05


def inside(way: Array, reach: float, low: Array, high: Array) -> Array:
    """A step of that length, turned round where a bound cuts it short, else cut."""
    size = np.linalg.norm(way)
    step = way * (reach / size) if size > 0 else way
    there, back = np.clip(step, low, high), np.clip(-step, low, high)
    longer: Array = back if np.linalg.norm(back) > 1.5 * np.linalg.norm(there) else there
    return longer


def weakest(model: tr.LocalModel, free: NDArray[np.bool_]) -> Array:
    """The direction of the free inputs that J answers to least."""
    way = np.zeros(len(free))
    way[free] = np.linalg.svd(model.jac[:, free])[2][-1]
    return way


def narrowing(
    model: tr.LocalModel, held: NDArray[np.bool_], worst: Array, weight: Array
) -> tuple[Array, float]:
    """Where runs tell most of parameters whose intervals are too wide.

    By errors of the value: next to the centre. By errors of J: along the widest direction, to
    and fro, where noise equals curvature.

    Parameters
    ----------
    worst : array, shape (q, m)
        Directions in which J costs most, for parameters that nothing determines yet.
    weight : array, shape (m,)
        One over the half widths wanted; 0 where any width will do.

    Returns
    -------
    ways : array, shape (q, m)
        The most useful first.
    share : float
        Of the way to where noise equals curvature.
    """
    cov, lost = tr.parameter_covariance(model, held)
    ways, share = worst, 1.0
    if not lost.any():
        by_value, _ = tr.parameter_covariance(replace(model, c=np.zeros_like(model.c)), held)
        _, vecs = np.linalg.eigh(cov * np.outer(weight, weight))
        ways = (cov @ (vecs * weight[:, None])).T[::-1]
        if np.diagonal(by_value) @ weight**2 > 0.5 * (np.diagonal(cov) @ weight**2):
            share = NEXT
    # On the side where fewer samples lie: pairs cancel their curvature.
    sides = np.sign((model.samples @ ways.T).sum(0))
    return ways * np.where(sides == 0, 1.0, -sides)[:, None], share
