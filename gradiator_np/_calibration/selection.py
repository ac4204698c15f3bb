"""Which samples a local model is made from."""

from __future__ import annotations

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._typing import Array, Index

#: A sample is in general position with others where this share of its distance is new.
LEAST_NEW = 0.05
#: Samples beyond this many times the radius of the nearest ones are left out.
REACH = 8.0


def samples_about(x: Array, log: FitLog, region: TrustRegion, most: int) -> Index:
    """Ids of the samples for a model about x."""
    usable = log.usable
    u = (np.array([log.points[i] for i in usable]) - x) / region.scale
    return np.asarray(usable[select_samples(u, most, region.difference_step)])


def select_samples(u: Array, most: int, difference_step: float) -> Index:
    """Indices of the samples for a model about u = 0.

    m + 1 in general position twice over, the nearest ones and those nearest to
    ``difference_step`` from the centre: steps that converge leave a cluster in which noise hides
    the slope. Then the nearest ``most`` of what lies within 8 times the first set.

    Parameters
    ----------
    u : array, shape (k, m)
        Scaled displacements.
    most : int
    difference_step : float
        |u| at which noise equals curvature; 0 where that is not known yet.
    """
    dist = np.linalg.norm(u, axis=1)
    # Runs that were made at one distance are as near as each other, whatever rounding says.
    away = np.round(np.log(np.maximum(dist, 1e-300)), 9)
    order = np.argsort(away, kind="stable")
    core = general_position(u, order)
    reach = REACH * max(dist[core[-1]], difference_step)
    near = order[:most]
    chosen = [near[dist[near] <= reach], core]
    if difference_step > 0:
        off = np.round(np.abs(away - np.log(difference_step)), 9)
        chosen.append(general_position(u, np.r_[order[0], np.argsort(off, kind="stable")]))
    return np.unique(np.concatenate(chosen))


def general_position(u: Array, order: Index) -> Index:
    """The first of ``order`` and those that span new directions from it, m + 1 at most."""
    m = u.shape[1]
    basis, rank = np.zeros((m, m)), 0  # rows, orthonormal
    chosen = [order[0]]
    directions = u - u[order[0]]
    sizes = np.linalg.norm(directions, axis=1)
    for i in order[1:]:
        if rank == m:
            break
        if sizes[i] == 0:
            continue
        found = basis[:rank]
        rest = directions[i] - (found @ directions[i]) @ found
        if np.sqrt(rest @ rest) > LEAST_NEW * sizes[i]:
            rest -= (found @ rest) @ found
            basis[rank] = rest / np.sqrt(rest @ rest)
            rank += 1
            chosen.append(i)
    return np.array(chosen, np.intp)
