"""What errors of the data leave open of the parameters, from the model at the minimum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradiator_np._calibration.local_model import LocalModel, ResidualRows
from gradiator_np._calibration.objective import LOSSES
from gradiator_np._calibration.uncertainty import determined_inverse
from gradiator_np._typing import Array, Mask

#: Kinds of covariance: by curvature of the linearised problem, or by the residuals themselves.
HETEROSCEDASTIC = ("HC0", "HC1", "HC2", "HC3")
KINDS = ("gauss-newton", "hessian", *HETEROSCEDASTIC)


@dataclass(frozen=True, slots=True)
class DataErrors:
    """What the covariance of the parameters by errors of the data is made from.

    In radii of the trust region and in the unit of the fit's log, so that squares are floats.

    Attributes
    ----------
    jac : array, shape (n, m)
        Of the residuals over sigma.
    influence, influence_slope : array, shape (n,)
        psi = r rho' of each residual over sigma, and its derivative.
    bread : array, shape (m, m)
        Inverse of the Gauss-Newton matrix, over what is determined and free; 0 elsewhere.
    gram, prior : array, shape (m, m)
        J'J of the data without what errors of J add to it, and W'W of the prior.
    curvature : array, shape (m, m)
        What the second derivatives of the residuals add to the Gauss-Newton matrix.
    free : array of bool, shape (m,)
        Parameters that are fitted.
    undetermined : array of bool, shape (m,)
    lost : array, shape (m, q)
        Directions along which nothing tells the parameters.
    share : float
        Of J'J in the Gauss-Newton matrix: the mean slope of psi, 1 for squares.
    p : int
        Rows of the prior.
    variance : float or None
        Of a residual over sigma where sigma is the error of the data, not proportional to it.
    robust : bool
        Whether the loss is another one than squares.
    sum_of_squares : float
        Twice the cost.
    """

    jac: Array
    influence: Array
    influence_slope: Array
    bread: Array
    gram: Array
    prior: Array
    curvature: Array
    free: Mask
    undetermined: Mask
    lost: Array
    share: float
    p: int
    variance: float | None
    robust: bool
    sum_of_squares: float

    @property
    def dof(self) -> int:
        """Degrees of freedom: residuals and rows of the prior less fitted parameters."""
        return len(self.jac) + self.p - int(self.free.sum())

    @property
    def quantile_dof(self) -> float:
        """Of Student's t for intervals; inf where nothing is estimated from the residuals."""
        known = self.variance is not None and not self.robust
        return np.inf if known else float(max(self.dof, 0))

    def covariance(self, kind: str) -> Array:
        """Covariance of the parameters (m, m); nan where too few residuals tell it.

        B M B of an M-estimate, B the inverse of the second derivative of the cost, M the
        covariance of its gradient.
        """
        bread: Array = self.bread
        if kind == "gauss-newton":
            # B J'J B = (B - B P B) / share, which rounding along weak directions does not leave
            # indefinite: J'J itself did in 1 of 40 fits that know two parameters by their product
            by_data = bread - bread @ self.prior @ bread if self.p else bread
            return np.asarray(self.cost_variance * by_data + self.by_prior)
        if kind == "hessian":
            bread = np.asarray(
                np.linalg.solve(np.eye(len(bread)) + bread @ self.curvature, bread), np.float64
            )
            if not self.robust:  # the observed information
                return self._scale() * bread
        elif kind in HETEROSCEDASTIC:
            return np.asarray(bread @ self._scattered(kind) @ bread)
        return np.asarray(bread @ (self._scale() * self.gram + self._prior_meat) @ bread)

    def slope_noise(self, directions: Array) -> Array:
        """By errors of J, of a residual's slope along directions (m, q), in residual sd: (q,)."""
        noise = self.jac.T @ self.jac - self.gram
        along = np.einsum("jq,jk,kq->q", directions, noise, directions)
        return np.asarray(np.sqrt(np.maximum(along, 0.0) / len(self.jac) / self._scale()))

    @property
    def by_prior(self) -> Array:
        """The part of the Gauss-Newton covariance (m, m) that errors of the prior make."""
        return np.asarray(self.bread @ self._prior_meat @ self.bread)

    @property
    def _prior_meat(self) -> Array:
        """Covariance of the gradient by the prior, whose rows have the variance of sigma."""
        return self.prior if self.variance is None else self.variance * self.prior

    def _scale(self) -> float:
        """Variance of psi: of a residual over sigma, where squares are what counts.

        Huber, Robust Statistics (1981), eq. 7.6.5, where the loss is another one.
        """
        n, m = len(self.jac), int(self.free.sum())
        if not self.robust:
            if self.variance is not None:
                return self.variance
            return self.sum_of_squares / self.dof if self.dof > 0 else np.nan
        if n <= m:
            return np.nan
        mean = float(self.influence_slope.mean())
        correction = 1.0 + m / n * float(self.influence_slope.var()) / max(mean, 1e-300) ** 2
        return correction**2 * float(self.influence @ self.influence) / (n - m)

    @property
    def cost_variance(self) -> float:
        """What a rise of the sum of squares is measured by: a residual's variance over psi'."""
        return self._scale() / self.share

    def _scattered(self, kind: str) -> Array:
        """Covariance of the gradient by each residual itself: MacKinnon and White (1985)."""
        n, m = len(self.jac), int(self.free.sum())
        leverage = np.einsum("ij,jk,ik->i", self.jac, self.bread, self.jac)
        room = np.maximum(1.0 - leverage, np.finfo(float).eps)
        square = np.square(self.influence)
        if kind == "HC1":
            square = square * n / (n - m) if n > m else np.full(n, np.nan)
        elif kind == "HC2":
            square = square / room
        elif kind == "HC3":
            square = square / room**2
        return np.asarray((self.jac.T * square) @ self.jac + self._prior_meat)


def data_errors(
    model: LocalModel,
    rows: ResidualRows,
    wide: tuple[LocalModel, Array],
    y_unit: float,
    free: Mask,
    absolute: bool,
) -> DataErrors:
    """Gather it from the model at the minimum.

    Parameters
    ----------
    model : LocalModel
        In radii and in ``y_unit``.
    rows : ResidualRows
        Of that model.
    wide : (LocalModel, array of shape (m,))
        One that sees the curvature of more runs, and its radii in those of ``model``.
    free : array of bool, shape (m,)
        Parameters that are fitted.
    absolute : bool
        Whether sigma is the error of the data, or proportional to it.
    """
    p = model.n_prior
    n = len(rows.residuals) - p
    loss = model.loss
    if loss is None:
        weighted, share, jac = model, 1.0, rows.jac[:n]
        influence, influence_slope = rows.residuals[:n], np.ones(n)
    else:
        f_scale = loss.objective.f_scale / y_unit
        of, r = LOSSES[loss.objective.loss], loss.residuals[:n] / f_scale
        influence, influence_slope = f_scale * r * of.weight(r), of.influence_slope(r)
        # the mean slope of psi: Huber's matrix, which no single residual makes singular
        share = max(float(influence_slope.mean()), 1e-3)
        weight = np.append(np.sqrt(share) / loss.slope[:n], np.ones(p))
        weighted = replace(
            model,
            jac=model.jac * weight[:, None],
            noise=model.noise * weight,
            loss=replace(loss, slope=loss.slope * weight),
        )
        jac = weighted.jac[:n] / np.sqrt(share)
    bread, undetermined, lost = determined_inverse(weighted, ~free)
    prior = rows.jac[n:]
    gram = jac.T @ jac
    bends = second_order(*wide, influence)
    curvature = (jac.T * (influence_slope - share)) @ jac + bends
    added = weighted.total_covariance[1:, 1:] / share
    return DataErrors(
        jac, influence, influence_slope, bread, gram - added, prior.T @ prior, curvature, free,
        undetermined, lost, share, p, y_unit**-2.0 if absolute else None, loss is not None,
        model.sum_of_squares,
    )  # fmt: skip


def second_order(model: LocalModel, unit: Array, influence: Array) -> Array:
    """Sum of psi (n,) times the second derivatives of the residuals, by the curvature of a model.

    The kernel psi(t) = t^2/2 + t^3/6 of the model, t = u.v, has the second derivative v v' at 0;
    ``unit`` holds its radii in those that are wanted.
    """
    along, samples = model.weighted(influence), model.samples / unit
    return np.asarray((samples.T * along) @ samples)
