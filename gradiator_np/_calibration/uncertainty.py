"""What errors of the local model cost: expected loss of a step, covariance of the minimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from gradiator_np._calibration.local_model import LocalModel
from gradiator_np._calibration.triangles import regular_inverse, triangle
from gradiator_np._checks import EPS
from gradiator_np._typing import Array, Mask

#: Standard errors of parameters are this much wider, for one curvature in place of many and
#: Gauss-Newton in place of the Hessian: 95 % intervals held 0.95 and 0.85 without, 0.98 and 0.92
#: with it (25 problems, noise 1e-4 and 1e-2); over 93 problems 0.95 and 0.92 (`lsq_intervals`).
STDERR_FACTOR = 1.2
#: Standard deviations of its noise by which J'J has to exceed it for a direction to be determined.
DETERMINED_SDS = 4.0
#: A vector has a part in another one, or in a space, from this cosine on.
LEAST_PART = 0.05
#: A column of J whose square exceeds that of its error by less is weakly determined: a run along
#: that input settles it. (Of 200 fits with an inert input at a noise of 1e-4, 4 miss it at 30.)
WEAK_RATIO = 100.0
#: Noise that is so small beside what a step of one radius changes, in root mean squares, is none.
QUIET = 1e-6


class Determined(NamedTuple):
    """What the runs determine of the parameters (in u), and what they do not.

    Attributes
    ----------
    inverse : array, shape (m, m)
        (J'J)^-1 over what is determined, 0 elsewhere.
    undetermined : array of bool, shape (m,)
        Inputs with a part in what is not.
    lost : array, shape (m, q)
        Unit vectors along which nothing tells x.
    """

    inverse: Array
    undetermined: Mask
    lost: Array


@dataclass(frozen=True, slots=True)
class ExpectedLoss:
    """By how much the sum of squares after a step is worse for the errors of the model.

    Attributes
    ----------
    jac, value : float
        By errors of J, and of the residuals at the centre.
    directions : array, shape (q, m)
        Unit vectors in u, the one along which errors of J cost most first, and ...
    each : array, shape (q,)
        ... what they cost along it: ``jac`` in all.
    """

    jac: float
    value: float
    directions: Array
    each: Array

    def due(self, bearable: float) -> int:
        """How many of the directions runs have to go along until the others cost no more."""
        rest = self.jac - np.cumsum(self.each)
        return 1 + int(np.count_nonzero(rest[:-1] > bearable))


def expected_loss(model: LocalModel, free: Array) -> ExpectedLoss:
    """tr[(J'J + lam I)^-1 P], P = Cov(J' r) by errors of J, lam^2 its largest eigenvalue; m P_rr.

    Over the free directions (m, f), which are orthonormal.
    """
    if not free.size:
        return ExpectedLoss(0.0, 0.0, np.zeros((0, len(free))), np.zeros(0))
    p = free.T @ model.summed_covariance(model.residuals**2)[1:, 1:] @ free
    jac = model.jac @ free
    lam = np.sqrt(max(float(np.linalg.eigvalsh(p)[-1]), 0.0))
    half = _inverse_root(jac.T @ jac + max(lam, 1e-300) * np.eye(len(p)))
    each, modes = np.linalg.eigh(half.T @ p @ half)
    # Back to u: the direction of P that the damped Gauss-Newton matrix amplifies most.
    directions = (free @ half @ modes)[:, ::-1].T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    value = float(model.total_covariance[0, 0]) / model.count
    return ExpectedLoss(float(each.sum()), len(p) * value, directions, each[::-1])


def _inverse_root(matrix: Array) -> Array:
    """W with W W' the inverse of a positive definite matrix, by its eigenvalues where rounding
    leaves it singular."""
    root, info = lapack.dpotrf(matrix)
    inverse = regular_inverse(root, 1e-7) if info == 0 else None
    if inverse is not None:
        return inverse
    vals, vecs = np.linalg.eigh(matrix)
    return np.asarray(vecs / np.sqrt(np.maximum(vals, 1e-300)))


def gauss_newton_decrease(residuals: Array, jac: Array) -> float:
    """|r|^2 less the least |r + J u|^2."""
    if not jac.size:
        return 0.0
    q, r = np.linalg.qr(jac)
    if regular_inverse(r, 1e-10) is not None:
        return float(np.square(q.T @ residuals).sum())
    left, s, _ = np.linalg.svd(jac, full_matrices=False)
    good = s > 1e-10 * s[0]
    return float(np.square(left[:, good].T @ residuals).sum())


def minimiser_covariance(model: LocalModel, active: Mask) -> tuple[Array, Mask]:
    """Covariance of the minimiser (in u), and which inputs the runs do not determine."""
    inverse, undetermined, _ = determined_inverse(model, active)
    middle = model.summed_covariance(model.residuals**2)[1:, 1:]
    middle = middle + (model.jac.T * model.value_variances) @ model.jac
    return STDERR_FACTOR**2 * (inverse @ middle @ inverse), undetermined


def parameter_errors(model: LocalModel, active: Mask) -> tuple[Array, Mask]:
    """Standard errors of the parameters (in u), inf where nothing determines them, and where.

    What a Gauss-Newton step from x would still move counts as an error, however far it leads: a
    search that noise, failed runs or its budget ended early is not at the minimum.
    """
    inverse, undetermined, _ = determined_inverse(model, active)
    cov, _ = minimiser_covariance(model, active)
    err = np.sqrt(np.maximum(np.diagonal(cov), 0.0) + np.square(inverse @ model.gradient))
    return np.where(undetermined, np.inf, err), undetermined


def weakly_determined(model: LocalModel, active: Mask) -> Mask:
    """Inputs that count as determined, but whose column of J is not far above its error."""
    undetermined = determined_inverse(model, active).undetermined
    errors = np.diagonal(model.total_covariance)[1:]
    weak = np.square(model.jac).sum(0) < WEAK_RATIO * errors
    return np.asarray(weak & ~undetermined & ~active)


def silent(model: LocalModel) -> Mask:
    """Inputs whose column of J is within four of its errors."""
    errors = np.diagonal(model.summed_covariance(np.ones(len(model.residuals))))[1:]
    return np.asarray(np.square(model.jac).sum(0) <= DETERMINED_SDS**2 * errors)


def determined_inverse(model: LocalModel, active: Mask) -> Determined:
    """What the runs determine of inputs outside of the active set.

    Noise in J adds the sum of the outputs' P_JJ to J'J (errors in variables): weak directions
    look determined. It is subtracted; where J'J v < (1 + 4 sqrt(2/n)) sum P_JJ v (n = 1 where
    there is no noise) nothing is determined, and neither is any input with a part in such a v.
    """
    m, n = len(active), model.count
    free = ~active
    inverse = np.zeros((m, m))
    undetermined = np.zeros(m, bool)
    if not free.any():
        return Determined(inverse, undetermined, np.zeros((m, 0)))
    jac = model.jac[:, free]
    uncertain = (np.abs(model.covariances).max((1, 2)) > 0)[model.group]
    noise = model.total_covariance[1:, 1:][np.ix_(free, free)]
    # no difference quotient knows a column to better than sqrt(eps) of it, whatever its errors say
    noise += EPS * np.diag(np.square(jac[uncertain]).sum(0))
    vals, vecs = np.linalg.eigh(noise)
    vals = np.maximum(vals, max(1e-14 * vals[-1], 1e-300))
    back = vecs / np.sqrt(vals)
    # By singular values: of J'J rounding leaves eps of its largest eigenvalue, which is more than
    # what an input that does nothing has where the error of J is that of rounding.
    _, roots, vec = np.linalg.svd(triangle(jac) @ back)
    mu = np.square(np.pad(roots, (0, len(vec) - len(roots))))
    modes = back @ vec.T  # modes' noise modes = 1, modes' J'J modes = mu
    # where there is no noise errors are curvature's: one for all outputs, which do not average it
    answer = np.square(model.jac).sum(0).max(initial=0.0) / n
    quiet = model.mean_square_noise < QUIET**2 * answer
    least = 1.0 + DETERMINED_SDS * np.sqrt(2.0 / (1 if quiet else n))
    sure = mu > least
    # Modes are orthonormal by `noise`, so their size in u tells nothing: compare with the part
    # that is determined.
    unsure = modes[:, ~sure] / np.linalg.norm(modes[:, ~sure], axis=0)
    told, rest = _told_by_prior(jac[~uncertain], unsure)
    inverse[np.ix_(free, free)] = modes[:, sure] / (mu[sure] - 1.0) @ modes[:, sure].T + told
    lost = np.zeros((m, rest.shape[1]))
    lost[free] = rest
    undetermined[free] = (np.abs(rest) > LEAST_PART).any(1)
    return Determined(inverse, undetermined, lost)


def _told_by_prior(rows: Array, unsure: Array) -> tuple[Array, Array]:
    """What rows of J without errors tell of directions (m, q) that the runs do not determine.

    Noise in J hides what the runs say there, not what a prior does: its information is the least
    that there is. (Of 30 fits that know two parameters by their product, with a prior of one of
    them, runs with a twentieth and with half of the errors of the data left 9 and 30 undetermined
    without it, 0 and 6 with it, and 95 % intervals held 0.92 to 1.)

    Returns
    -------
    inverse : array, shape (m, m)
    lost : array, shape (m, r)
        Directions without a part in what the rows tell.
    """
    m, q = unsure.shape
    if not q or not len(rows):
        return np.zeros((m, m)), unsure
    _, s, vt = np.linalg.svd(rows, full_matrices=False)
    basis, _ = np.linalg.qr(unsure)
    _, cosines, turn = np.linalg.svd(vt[s > 1e-10 * s[0]] @ basis)
    within = basis @ turn.T
    known = int((cosines > LEAST_PART).sum())
    told = within[:, :known]
    gram = (rows @ told).T @ (rows @ told)
    return np.asarray(told @ np.linalg.solve(gram, told.T)), within[:, known:]
