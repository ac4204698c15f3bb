"""What is minimised: residuals over sigma, a robust loss of them, a prior of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradiator_np._typing import Array


class Loss(NamedTuple):
    """A loss f^2 rho(r^2 / f^2) of residuals r, as the square of a signed root s(r).

    Sums of s^2 are sums of squares: models and steps need not know of the loss.

    Attributes
    ----------
    root, inverse : callable
        s / f by r / f, and back.
    weight : callable
        rho'(r^2 / f^2) by r / f: what iteratively reweighted least squares gives a residual.
    influence_slope : callable
        d/dr of r rho'(r^2 / f^2) by r / f: the second derivative of half the loss.
    """

    root: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    weight: Callable[[Array], Array]
    influence_slope: Callable[[Array], Array]


def _huber_root(r: Array) -> Array:
    size = np.maximum(np.abs(r), 1.0)
    return np.where(np.abs(r) <= 1.0, r, np.sign(r) * np.sqrt(2.0 * size - 1.0))


#: rho of `scipy.optimize.least_squares`, by the names there.
LOSSES = {
    "linear": Loss(np.copy, np.copy, np.ones_like, np.ones_like),
    "soft_l1": Loss(
        lambda r: r * np.sqrt(2.0 / (1.0 + np.sqrt(1.0 + r * r))),
        lambda s: s * np.sqrt(1.0 + 0.25 * s * s),
        lambda r: (1.0 + r * r) ** -0.5,
        lambda r: (1.0 + r * r) ** -1.5,
    ),
    "huber": Loss(
        _huber_root,
        lambda s: np.where(np.abs(s) <= 1.0, s, 0.5 * np.sign(s) * (s * s + 1.0)),
        lambda r: 1.0 / np.maximum(np.abs(r), 1.0),
        lambda r: np.where(np.abs(r) <= 1.0, 1.0, 0.0),
    ),
    "cauchy": Loss(
        lambda r: np.sign(r) * np.sqrt(np.log1p(r * r)),
        lambda s: np.sign(s) * np.sqrt(np.expm1(s * s)),
        lambda r: 1.0 / (1.0 + r * r),
        lambda r: (1.0 - r * r) / np.square(1.0 + r * r),
    ),
}


@dataclass(frozen=True, slots=True)
class Prior:
    """Parameters known before: (x - mean)' P^-1 (x - mean), as rows |W x - target|^2.

    Attributes
    ----------
    whitening : array, shape (p, m)
        W, one row for each direction that is known.
    target : array, shape (p,)
        W mean.
    """

    whitening: Array
    target: Array

    def residuals(self, x: Array) -> Array:
        return self.whitening @ x - self.target

    def by(self, base: Array, basis: Array) -> Prior:
        """The same of z, where x = base + basis z."""
        return Prior(self.whitening @ basis, self.target - self.whitening @ base)


@dataclass(frozen=True, slots=True)
class Objective:
    """Twice the cost is the sum of squares of ``residuals``.

    Attributes
    ----------
    sigma : array, shape of the residuals or (), or None
        Standard deviations of the data, which residuals are divided by.
    loss : str
        One of ``LOSSES``.
    f_scale : float
        Where the loss turns from squares, in units of sigma.
    prior : Prior or None
    """

    sigma: Array | None = None
    loss: str = "linear"
    f_scale: float = 1.0
    prior: Prior | None = None

    def residuals(self, x: Array, output: Array) -> Array:
        """What models are made of: residuals over sigma (n,), then rows of the prior (p,)."""
        scaled = self.weighted(output)
        return scaled if self.prior is None else np.append(scaled, self.prior.residuals(x))

    def weighted(self, output: Array) -> Array:
        """Residuals over sigma."""
        return output if self.sigma is None else output / self.sigma.reshape(-1)

    def output(self, residuals: Array) -> Array:
        """What fun returns, by its residuals over sigma."""
        return residuals if self.sigma is None else residuals * self.sigma.reshape(-1)

    def roots(self, residuals: Array, n: int, unit: float) -> Array:
        """What is squared and summed: signed roots of the losses of the first n, the others as
        they are; in ``unit``, as the residuals."""
        if self.loss == "linear":
            return residuals
        scale = self.f_scale / unit
        roots = scale * LOSSES[self.loss].root(residuals[:n] / scale)
        return np.append(roots, residuals[n:])

    def slopes(self, residuals: Array, n: int, unit: float) -> Array | None:
        """Derivative of each root by its residual; None where they are the same."""
        if self.loss == "linear":
            return None
        loss, r = LOSSES[self.loss], residuals[:n] * (unit / self.f_scale)
        root, slope = loss.root(r), np.ones(len(residuals))
        # s^2 = rho: s s' = r rho'; both are 0 at r = 0, where s' = 1
        np.divide(r * loss.weight(r), root, out=slope[:n], where=root != 0)
        return slope
