"""What the data say of the parameters: combinations of them, what a prior and runs add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradiator_np._calibration.fit_record import FitRecord
from gradiator_np._typing import Array


@dataclass(frozen=True, slots=True)
class Combination:
    """A combination w'(x / scale) of the parameters that the data see as one.

    Attributes
    ----------
    weights : array, shape (m,)
        w, of length 1; 0 for fixed parameters.
    stderr : float
        Its standard error, in units of the scale; inf where the data do not determine it.
    prior_share : float
        Share of the prior in its information.
    """

    weights: Array
    stderr: float
    prior_share: float


def combinations(record: FitRecord, kind: str, scale: Array) -> list[Combination]:
    """Singular vectors of J diag(scale), the one that the residuals answer to most first.

    Within what equalities leave. Directions along which nothing tells the parameters come last: a
    combination without a part along any of them is determined, so the others are orthogonal to
    them.
    """
    free = record.data.free
    basis, s, vt = np.linalg.svd(record.steps / scale[:, None], full_matrices=False)
    lost = _orthonormal((s[:, None] * vt) @ record.lost[free])
    jac = record.data.jac[:, free] @ (vt.T / s)
    jac = jac - (jac @ lost) @ lost.T
    _, _, vectors = np.linalg.svd(jac, full_matrices=True)
    unit = np.outer(scale, scale)
    cov = record.covariance(kind) / unit
    prior, told = (record.of_all(a) / unit for a in _parts(record))
    known = [basis @ v for v in vectors[: len(vt) - lost.shape[1]]]
    out = []
    for weights, unknown in [*((v, False) for v in known), *((basis @ v, True) for v in lost.T)]:
        weights = weights * (1.0 if weights[np.argmax(np.abs(weights))] > 0 else -1.0)
        err = np.inf if unknown else float(np.sqrt(max(weights @ cov @ weights, 0.0)))
        share = 0.0
        if not unknown and prior.any():
            # positive, both, but for rounding of what cancels
            share = float((weights @ prior @ weights) / (weights @ told @ weights))
            share = min(max(share, 0.0), 1.0)
        out.append(Combination(weights, err, share))
    return out


def _parts(record: FitRecord) -> tuple[Array, Array]:
    """Covariances by errors of the prior, and by those of prior and data together."""
    return record.data.by_prior, record.data.covariance("gauss-newton")


def _orthonormal(directions: Array) -> Array:
    """A basis of what they span."""
    if not directions.shape[1]:
        return directions
    left, s, _ = np.linalg.svd(directions / np.linalg.norm(directions, axis=0), full_matrices=False)
    return np.asarray(left[:, s > 1e-10 * s[0]])


def run_shares(record: FitRecord, kind: str) -> Array:
    """Share of each variance that the noise of the runs makes; nan where nothing tells it.

    Errors of data that are found from the residuals hold the noise of the runs in these too, which
    goes with it. (Of 12 fits to data without errors the share was 0.49 to 0.74 without that part.)
    """
    total = np.diagonal(record.covariance(kind))
    runs = np.diagonal(record.covariance("runs"))
    if kind != "runs" and record.errors_from_residuals(kind):
        size = record.data.sum_of_squares
        by_runs = record.facts.chi_squared_by_runs
        runs = runs + (total - runs) * (min(by_runs / size, 1.0) if size > 0 else 1.0)
    share = np.divide(runs, total, out=np.full(len(total), np.nan), where=total > 0)
    return np.where(record.free & ~record.undetermined, share, np.nan)


def prior_shares(record: FitRecord) -> Array:
    """Share of each parameter's variance that errors of the prior make, not those of the data.

    Of one parameter it is the share of the prior in the information P / (J'J + P); 0 without a
    prior.
    """
    prior, total = (np.diagonal(record.of_all(a)) for a in _parts(record))
    share = np.divide(prior, total, out=np.full(len(total), np.nan), where=total > 0)
    # where it is all that tells, cross terms with what the data tell may pass 1 by some percent
    return np.where(record.undetermined, np.nan, np.clip(share, 0.0, 1.0))


def determined_by_data(record: FitRecord) -> float:
    """How many parameters the data determine beside the prior: tr[(J'J + P)^-1 J'J].

    Degrees of freedom for signal: Rodgers, Inverse Methods for Atmospheric Sounding (2000),
    eq. 2.80.
    """
    return float(np.trace(record.data.bread @ record.data.gram))
