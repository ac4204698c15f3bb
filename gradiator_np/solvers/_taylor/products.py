"""Samples of products alone, v_k . (f(x_k + dx_k) - f(x_k)), in the model of `Taylor`.

All outputs share one process up to their sizes, and the trend is the whole Jacobian: a row of the
design matrix is v_k dx_k^T, n times m numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradiator_np._covariance import Covariance
from gradiator_np._status import Status
from gradiator_np._typing import Array, Index
from gradiator_np.solvers._solution import Solution
from gradiator_np.solvers._taylor.kernel import ADDITIVE, Kernel, LocalCovariance
from gradiator_np.solvers._taylor.model import NU, OutputPosteriors, StateAverage
from gradiator_np.solvers._taylor.prior import empirical_bayes_prior, length_weights
from gradiator_np.solvers._taylor.process import kernels_of, spacing
from gradiator_np.solvers._taylor.slope_powers import NoPowers
from gradiator_np.solvers._taylor.solver import (
    correlation_factor,
    hidden_extrapolation,
    input_scale,
    noise_on_grid,
)
from gradiator_np.solvers._taylor.spectrum import (
    N_S,
    LengthScaleGrid,
    TrendFactors,
    factor_trend,
)

#: Least size of an output, relative to the largest: one whose slope happens to be small bends too.
LEAST_SIZE = 0.1


@dataclass(frozen=True, slots=True)
class ProductRows:
    """Products of cotangents with differences, as rows of the model (`spectrum.Rows`).

    Attributes
    ----------
    u, du : array, shape (k, m)
        Where each difference begins, and its displacement, in scaled units.
    v : array, shape (k, n)
        Cotangents.
    size : array, shape (n,)
        How much each output bends: its slope over the typical |u|, in units of the products.
    """

    u: Array
    du: Array
    v: Array
    size: Array

    @property
    def root(self) -> Array:
        """All weigh alike."""
        return np.ones((len(self.u), 1))

    @property
    def n_inputs(self) -> int:
        """m."""
        return int(self.u.shape[1])

    @property
    def design(self) -> Array:
        """One row v_k dx_k^T for each product, shape (k, n m)."""
        return (self.v[:, :, None] * self.du[:, None, :]).reshape(len(self.u), -1)

    def linear(self, contrasts: bool) -> TrendFactors:
        """Factors of the design matrix."""
        return factor_trend(self.design, contrasts=contrasts)

    @property
    def places(self) -> TrendFactors:
        """Factors of a plane over the middles of the differences: what lies outside of them."""
        middle = self.u + self.du / 2
        return factor_trend(np.hstack([self.root, middle]), contrasts=False)

    @property
    def _ends(self) -> Array:
        return np.vstack([self.u, self.u + self.du])

    def covariance(self, kernel: Kernel) -> Array:
        """Of the process between the products, shape (k, k)."""
        k = len(self.u)
        ends = kernel.matrix(self._ends, ADDITIVE)
        between = ends[k:, k:] - ends[k:, :k] - ends[:k, k:] + ends[:k, :k]
        mixed = (self.v * np.square(self.size)) @ self.v.T
        return np.asarray(mixed * between)

    def trend_at(self, u: Array) -> Array:
        """The Jacobian of a linear trend is the same everywhere."""
        return np.eye(self.v.shape[1] * self.n_inputs)

    def local(self, kernel: Kernel, u: Array) -> LocalCovariance:
        """Of the Jacobian of the process at u, with the products."""
        k = len(self.u)
        local = kernel.local(u, self._ends, ADDITIVE)
        along = local.cross[1:, k:] - local.cross[1:, :k]  # (m, k)
        seen = (self.v * np.square(self.size)).T  # (n, k)
        cross = (seen[:, None, :] * along).reshape(-1, k)
        own = np.kron(np.diag(np.square(self.size)), local.own[1:, 1:])
        return LocalCovariance(cross, own)

    def slope_powers(self, coefficients: Array) -> NoPowers:
        """None: a product mixes the slopes of several outputs."""
        return NoPowers(len(self.u), len(coefficients), coefficients.shape[1])


@dataclass(frozen=True, slots=True)
class FittedProducts:
    """The model of products, fitted: the Jacobian anywhere among them.

    Attributes
    ----------
    outputs : OutputPosteriors
        Of the products, the one output of the model.
    states : StateAverage
    scale : array, shape (m,)
        Unit of the inputs.
    spread : float
        Unit of the products.
    noise_known : bool
    """

    outputs: OutputPosteriors
    states: StateAverage
    scale: Array
    spread: float
    noise_known: bool

    @classmethod
    def of(
        cls,
        x: Array,
        dx: Array,
        v: Array,
        product: Array,
        x_scale: Array | None = None,
        noise: float | None = None,
    ) -> FittedProducts:
        """Fit the products of displacements dx (k, m) from points x (k, m), 0 the centre.

        Parameters
        ----------
        x, dx : array, shape (k, m)
        v : array, shape (k, n)
        product : array, shape (k,)
        x_scale : array, shape (m,), optional
            Unit of each input; by default the median distance from the centre.
        noise : float, optional
            Standard deviation of one product.
        """
        scale = input_scale(x_scale, x + dx / 2)
        u, du = x / scale, dx / scale
        spread = max(float(np.sqrt(np.mean(np.square(product)))), np.finfo(float).tiny)
        known = None if noise is None else np.array([noise])
        index, (spread,) = noise_on_grid(known, np.array([spread]))
        y = product / spread
        far = np.linalg.norm(u + du / 2, axis=1)
        unit = float(np.median(far[far > 0])) if far.any() else 1.0
        rows = ProductRows(u, du, v, np.ones(v.shape[1]))
        jac = np.linalg.lstsq(rows.design, y, rcond=1e-11)[0].reshape(v.shape[1], -1)
        size = np.linalg.norm(jac, axis=1)
        size = np.maximum(size, LEAST_SIZE * size.max()) if size.any() else np.ones(len(size))
        # A slope over the typical |u|, for outputs of size one.
        rows = ProductRows(u, du, v, size * unit)
        grid = LengthScaleGrid(rows, _kernels(u + du / 2, unit), unit)
        outputs = OutputPosteriors(grid, y[:, None], *_noise_indices(index))
        like = outputs.likelihood()
        prior = empirical_bayes_prior(like, length_weights(grid.kernels, unit))
        return cls(outputs, outputs.averaged(prior, like), scale, spread, noise is not None)

    def at(self, displacement: Array) -> Solution:
        """The Jacobian at a displacement (m,) from the centre; errors of its rows are correlated,
        which the covariance leaves out."""
        u = displacement / self.scale
        grid, rows = self.outputs.grid, self.outputs.grid.rows
        assert isinstance(rows, ProductRows)
        moments = self.outputs.moments(self.states, u)
        lin, (n, m) = grid.lin, (rows.v.shape[1], rows.n_inputs)
        apart = hidden_extrapolation(rows.places, u)
        wider = max(1.0, apart) ** 0.25
        unit = self.spread / self.scale
        coef = moments.beta.reshape(n, m) * unit
        blocks = moments.cov[0].reshape(n, m, n, m)[np.arange(n), :, np.arange(n)]
        var = np.maximum(np.einsum("nii->ni", blocks), np.finfo(float).tiny)
        sd = np.sqrt(var)
        corr = blocks / (sd[:, :, None] * sd[:, None, :])
        corr[:, np.arange(m), np.arange(m)] = 1.0 + 1e-9  # rounding must not spoil the factor
        factor = wider * (sd * unit)[:, :, None] * correlation_factor(corr)
        null = None
        if lin.null.shape[1]:
            null = lin.null.reshape(n, m, -1) / self.scale[:, None]
            null[np.abs(null) * self.scale[:, None] < 1e-10] = 0.0
        half = moments.half.reshape(n, m) / sd
        noise = self.spread * max(float(moments.noise[0]), np.finfo(float).tiny)
        dof = np.inf if self.noise_known else max(grid.dof, 1)
        status, message = self._status(coef, half * sd * unit, apart)
        return Solution(
            coef,
            Covariance(np.full(n, noise), factor=factor / noise, null=null, per_output=True),
            np.full(n, dof),
            np.array(lin.rank, np.intp),
            np.array(lin.cond),
            np.full(n, noise),
            status=status,
            message=message,
            interval_factor=np.where(var > np.finfo(float).tiny, half, 1.96),
        )

    def _status(self, coef: Array, half: Array, apart: float) -> tuple[Status, str]:
        lin = self.outputs.grid.lin
        if lin.rank < coef.size:
            return Status.UNDETERMINED, (
                f"the products determine {lin.rank} of the {coef.size} numbers of the Jacobian; "
                "add some with other cotangents and displacements"
            )
        if apart > 1.001:
            return Status.EXTRAPOLATION, (
                "x lies farther from the middle of the samples than any of them (error bars are "
                "wider for it); add samples around x"
            )
        if (half > np.abs(coef)).all():
            return Status.NO_SIGNAL, "no slope stands out of its error; add samples"
        return Status.OK, ""


def _kernels(places: Array, unit: float) -> tuple[Kernel, ...]:
    """Length scales as of samples at these places (k, m), of the median radius ``unit``."""
    far = np.linalg.norm(places, axis=1).max()
    return kernels_of(unit, float(far), spacing(places))


def _noise_indices(index: Index | None) -> tuple[Index, Index, Array]:
    if index is None:
        return np.array([0]), np.array([N_S]), np.array([NU])
    return index, index + 1, np.where(index > 0, 1e12, NU)
