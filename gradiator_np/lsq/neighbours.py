"""Which samples a local model is made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

#: A sample is in general position with others where this share of its distance is new.
NEW = 0.05
#: Samples beyond this many times the radius of the nearest ones are left out.
REACH = 8.0


def around(u: Array, most: int, grain: float) -> Index:
    """Indices of the samples for a model about u = 0.

    m + 1 in general position twice over, the nearest ones and those nearest to ``grain`` from
    the centre: steps that converge leave a cluster in which noise hides the slope. Then the
    nearest ``most`` of what lies within 8 times the first set.

    Parameters
    ----------
    u : array, shape (k, m)
        Scaled displacements.
    most : int
    grain : float
        |u| at which noise equals curvature; 0 where that is not known yet.
    """
    dist = np.linalg.norm(u, axis=1)
    order = np.argsort(dist, kind="stable")
    core = general_position(u, order)
    reach = REACH * max(dist[core[-1]], grain)
    near = order[:most]
    chosen = [near[dist[near] <= reach], core]
    if grain > 0:
        off = np.abs(np.log(np.maximum(dist, 1e-300) / grain))
        chosen.append(general_position(u, np.r_[order[0], np.argsort(off, kind="stable")]))
    return np.unique(np.concatenate(chosen))


def general_position(u: Array, order: Index) -> Index:
    """The first of ``order`` and those that span new directions from it, m + 1 at most."""
    m = u.shape[1]
    basis = np.zeros((m, 0))
    chosen = [order[0]]
    for i in order[1:]:
        if basis.shape[1] == m:
            break
        way = u[i] - u[order[0]]
        size = np.linalg.norm(way)
        if size == 0:
            continue
        rest = way - basis @ (basis.T @ way)
        if np.linalg.norm(rest) > NEW * size:
            rest -= basis @ (basis.T @ rest)
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
            chosen.append(i)
    return np.array(chosen, np.intp)
