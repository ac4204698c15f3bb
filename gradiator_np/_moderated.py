"""Variances of many outputs, few degrees of freedom each: drawn together as far as they agree."""

from __future__ import annotations

import numpy as np
from scipy import special

from gradiator_np._typing import Array

#: Of fewer outputs the scatter of their variances says nothing.
SEVERAL = 4


def moderated(variance: Array, dof: Array) -> tuple[Array, Array]:
    """Standard deviations and degrees of freedom, drawn to what all outputs have in common.

    Variances are taken to come from a scaled inverse chi-square distribution (G. K. Smyth, Stat.
    Appl. Genet. Mol. Biol. 3 (2004), article 3, section 6).

    Parameters
    ----------
    variance, dof : array, shape (n,)
        What is not positive has no part in it, and is 0.
    """
    known = np.isfinite(variance) & (variance > 0) & np.isfinite(dof) & (dof > 0)
    if known.sum() < SEVERAL:
        return np.sqrt(np.where(variance > 0, variance, 0.0)), dof
    own, each = variance[known], dof[known]
    logs = np.log(own) - special.digamma(each / 2) + np.log(each / 2)
    excess = float(logs.var(ddof=1) - special.polygamma(1, each / 2).mean())
    # trigamma(z) = 1/z + 1/(2 z^2) + ..., solved for z = prior / 2.
    prior = (1 + np.sqrt(1 + 2 * excess)) / excess if excess > 1e-3 else 2e3
    common = np.exp(logs.mean() + special.digamma(prior / 2) - np.log(prior / 2))
    drawn, total = np.where(variance > 0, variance, 0.0), dof.copy()
    drawn[known] = (each * own + prior * common) / (each + prior)
    total[known] += np.minimum(prior, each.sum() - each)  # what they have in common rests on others
    return np.sqrt(drawn), total
