"""What is asked for: the arguments of a fit, checked once and flat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._calibration.constraints import (
    Coordinates,
    Rows,
    half_spaces,
    reduced,
    require_feasible,
    rows_of,
)
from gradiator_np._calibration.objective import LOSSES, Objective, Prior
from gradiator_np._samples import Samples
from gradiator_np._settings import scale_of
from gradiator_np._structure import Layout
from gradiator_np._typing import Array, Mask

#: Runs allowed by default, per parameter and one.
DEFAULT_BUDGET = 100


@dataclass(frozen=True, slots=True)
class HalfWidths:
    """Wanted half widths of 95 % intervals: at most ``absolute + relative |x|``, each (m,)."""

    absolute: Array
    relative: Array

    def at(self, x: Array) -> Array:
        return self.absolute + self.relative * np.abs(x)


@dataclass(frozen=True, slots=True)
class Tolerances:
    """When a search ends, as SciPy's; None: not by that."""

    ftol: float | None
    xtol: float | None
    gtol: float | None


@dataclass(frozen=True, slots=True)
class FitProblem:
    """A fit as its search sees it.

    Attributes
    ----------
    x0, scale, low, high : array, shape (k,)
        Of the parameters that are searched: all m but those that equalities make dependent.
        Bounds of a fixed parameter are both its value in x0.
    rows, limits : array, shape (q, k) and (q,)
        Half-spaces rows x <= limits.
    constraints : Rows
        As they were given, of all parameters.
    coordinates : Coordinates
        From these parameters to all of them.
    bounds : pair of array, shape (m,)
        Of all parameters.
    x_scale : array, shape (m,)
    scale_is_a_guess : bool
        Whether nobody gave it.
    fixed : array of bool, shape (m,)
        Parameters that are taken for known.
    x_layout : Layout
    objective : Objective
    absolute_sigma : bool
        Whether sigma is the error of the data, or proportional to it.
    noise : array, shape of the residuals or (), or None
        Standard deviation of one residual of one run, where it is known.
    half_widths : HalfWidths or None
    jac0 : array, shape (n, m), or None
    samples : Samples or None
        Earlier runs, points (k, m) and outputs (k, n).
    max_nfev : int
    tolerances : Tolerances
    """

    x0: Array
    scale: Array
    low: Array
    high: Array
    rows: Array
    limits: Array
    constraints: Rows
    coordinates: Coordinates
    bounds: tuple[Array, Array]
    x_scale: Array
    scale_is_a_guess: bool
    fixed: Mask
    x_layout: Layout
    objective: Objective
    absolute_sigma: bool
    noise: Array | None
    half_widths: HalfWidths | None
    jac0: Array | None
    samples: Samples | None
    max_nfev: int
    tolerances: Tolerances

    @classmethod
    def of(cls, x0: Any, options: Mapping[str, Any]) -> FitProblem:
        """The arguments of `LeastSquares`, checked; ``options`` are complete.

        Raises
        ------
        TypeError, ValueError
            For arguments that are no numbers, of another shape, or out of range.
        """
        flat, layout = checks.point(x0)
        flat = flat.astype(np.float64)
        m = layout.size
        low, high = checks.bounds(options["bounds"], flat, layout)
        scale = scale_of(flat, options["x_scale"], layout)
        fixed = _mask(options["fixed"], layout)
        low, high = np.where(fixed, flat, low), np.where(fixed, flat, high)
        constraints = rows_of(options["constraints"], m)
        require_feasible(constraints, flat, scale, low, high)
        coordinates = reduced(constraints, flat, scale, low == high)
        rows, limits = half_spaces(constraints, coordinates, low, high)
        kept = coordinates.independent
        widths = _half_widths(options["x_half_width"], options["x_rel_half_width"], layout)
        if widths is not None and not coordinates.trivial:
            raise ValueError("x_half_width does not go with equality constraints; leave it out")
        noise, samples, max_nfev = options["run_noise"], options["samples"], options["max_nfev"]
        objective = _objective(options, layout)
        if objective.prior is not None:
            prior = objective.prior.by(coordinates.base, coordinates.basis)
            objective = replace(objective, prior=prior)
        absolute = options["absolute_sigma"]
        if absolute is None:
            absolute = objective.prior is not None
        jac0 = options["jac0"]
        if hasattr(jac0, "toarray"):
            jac0 = jac0.toarray()
        jac0 = None if jac0 is None else checks.float_array(jac0, 2, "jac0")
        if jac0 is not None and jac0.shape[1] != m:
            raise ValueError(
                f"jac0 has shape {jac0.shape}; give one row per residual and one column per "
                f"parameter, (n, {m})"
            )
        return cls(
            flat[kept], scale[kept], low[kept], high[kept], rows, limits, constraints,
            coordinates, (low, high), scale, options["x_scale"] is None, fixed, layout,
            objective, bool(absolute),
            None if noise is None else checks.noise(noise, what="run_noise"),
            widths, None if jac0 is None else jac0 @ coordinates.basis,
            None if samples is None else _flat(samples, coordinates, scale),
            DEFAULT_BUDGET * (m + 1) if max_nfev is None else checks.integer(max_nfev, "max_nfev"),
            Tolerances(*(_tolerance(options[k], k) for k in ("ftol", "xtol", "gtol"))),
        )  # fmt: skip

    @property
    def movable(self) -> Mask:
        """Parameters (m,) that are neither fixed nor tied to fixed ones only."""
        return np.abs(self.coordinates.basis) @ (self.high > self.low) > 0

    def check_residuals(self, layout: Layout, dtype: np.dtype[Any]) -> None:
        """Refuse a first value of fun that does not fit the other arguments.

        Raises
        ------
        TypeError
            Where it is complex.
        ValueError
            Where ``jac0``, ``run_noise``, ``sigma`` or ``samples`` are of another shape.
        """
        check_real(dtype)
        if self.jac0 is not None and len(self.jac0) != layout.size:
            raise ValueError(
                f"jac0 has {len(self.jac0)} rows, fun returned {layout.size} residuals"
            )
        if self.samples is not None and self.samples.outputs.shape[1] != layout.size:
            raise ValueError(
                f"samples have {self.samples.outputs.shape[1]} residuals, fun returned "
                f"{layout.size}; give earlier runs of this function"
            )
        for value, what in ((self.noise, "run_noise"), (self.objective.sigma, "sigma")):
            shape = () if value is None else value.shape
            if shape not in ((), layout.shape):
                raise ValueError(
                    f"{what} has shape {shape}, fun returned {layout.shape}; "
                    "give one number, or one for each residual"
                )


def _mask(value: Any, layout: Layout) -> Mask:
    """Which parameters are fixed, flat."""
    return checks.like_x(_truth(value), layout, "fixed", "parameters").astype(bool)


def _truth(value: Any) -> Any:
    """True and False as 1 and 0, for ``like_x``."""
    if isinstance(value, Mapping):
        return {name: _truth(item) for name, item in value.items()}
    a = np.asarray(value)
    if a.dtype != bool:
        raise TypeError(
            f"fixed must be True or False for each parameter, got {value!r:.60}; a parameter is "
            "fixed at its value in x0"
        )
    return a.astype(np.float64)


def _objective(options: Mapping[str, Any], layout: Layout) -> Objective:
    """What of the options says what is minimised."""
    sigma = options["sigma"]
    if sigma is not None:
        sigma = checks.numeric(sigma, "sigma")
        if sigma.dtype.kind == "c" or not (np.isfinite(sigma).all() and (sigma > 0).all()):
            raise ValueError(
                f"sigma must be positive and finite, got {options['sigma']!r:.60}: standard "
                "deviations of the data; leave residuals that do not count out of what fun returns"
            )
        sigma = sigma.astype(np.float64)
    f_scale = checks.real(options["f_scale"], "f_scale")
    if not 0 < f_scale < np.inf:
        raise ValueError(f"f_scale must be positive and finite, got {f_scale}")
    prior = _prior(options["prior_mean"], options["prior_std"], options["prior_cov"], layout)
    if prior is not None and sigma is None:
        raise ValueError(
            "a prior is weighed against the data: give their standard deviation as sigma, 1.0 "
            "where fun returns residuals that are divided by it already"
        )
    if prior is not None and options["absolute_sigma"] is False:
        raise ValueError(
            "a prior needs the errors of the data themselves, not their ratios: leave "
            "absolute_sigma=False out, and give sigma accordingly"
        )
    loss = checks.choice(options["loss"], tuple(LOSSES), "loss")
    return Objective(sigma, loss, f_scale, prior)


def _prior(mean: Any, std: Any, cov: Any, layout: Layout) -> Prior | None:
    """The rows of a Gaussian prior."""
    if mean is None and std is None and cov is None:
        return None
    if mean is None or (std is None) == (cov is None):
        raise ValueError("a prior needs prior_mean, and either prior_std or prior_cov")
    center = checks.like_x(mean, layout, "prior_mean", "parameters")
    if not np.isfinite(center).all():
        raise ValueError(
            f"prior_mean must be finite, got {mean!r:.60}; where nothing is known prior_std is inf"
        )
    if std is not None:
        each = checks.like_x(std, layout, "prior_std", "parameters")
        if not (each > 0).all():
            raise ValueError(
                f"prior_std must be positive, got {std!r:.60}; inf where nothing is known, "
                "fixed= for parameters that are known exactly"
            )
        whitening = np.diag(1.0 / each)[np.isfinite(each)]
        return Prior(whitening, whitening @ center)
    matrix, m = checks.float_array(cov, 2, "prior_cov"), layout.size
    if matrix.shape != (m, m):
        raise ValueError(f"prior_cov has shape {matrix.shape}, expected {(m, m)}")
    if not np.isfinite(matrix).all():
        raise ValueError(
            "prior_cov must be finite; where nothing is known of a parameter give prior_std, inf "
            "for it"
        )
    if not np.allclose(matrix, matrix.T, rtol=1e-8, atol=0.0):
        raise ValueError("prior_cov is not symmetric")
    size = np.sqrt(np.abs(np.diagonal(matrix)))
    scaled = matrix / np.outer(size, size) if size.all() else np.zeros((m, m))
    if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[0] <= m * checks.EPS:
        raise ValueError(
            "prior_cov is singular or not positive definite: some combination of parameters has "
            "no error; fix parameters that are known exactly (fixed=), or use constraints"
        )
    factor = np.linalg.cholesky(scaled)
    whitening = np.linalg.inv(factor) / size
    return Prior(whitening, whitening @ center)


def _tolerance(value: Any, name: str) -> float | None:
    return (
        None if value is None else checks.fraction(value, name, "1e-8 means 8 digits, None never")
    )


def check_real(dtype: np.dtype[Any]) -> None:
    if dtype.kind == "c":
        raise TypeError("fun returned complex residuals; give real and imaginary parts apart")


def _half_widths(absolute: Any, relative: Any, layout: Layout) -> HalfWidths | None:
    if absolute is None and relative is None:
        return None
    wanted = HalfWidths(
        checks.like_x(0.0 if absolute is None else absolute, layout, "x_half_width"),
        checks.like_x(0.0 if relative is None else relative, layout, "x_rel_half_width"),
    )
    a, r = wanted.absolute, wanted.relative
    if not ((a >= 0) & (r >= 0) & (a + r > 0)).all():
        raise ValueError(
            "x_half_width and x_rel_half_width must not be negative, and one of them above 0 for "
            f"every parameter (inf where any width will do), got {a} and {r}"
        )
    return wanted


def _flat(samples: Samples, coordinates: Coordinates, scale: Array) -> Samples | None:
    """Earlier runs, by the parameters that are searched; those that break equalities are left."""
    m = len(scale)
    if not isinstance(samples, Samples):
        raise TypeError(f"samples must be Samples, as results hold them, got {samples!r:.60}")
    if not len(samples):
        return None
    points = np.asarray(samples.points, float).reshape(len(samples), -1)
    outputs = np.asarray(samples.outputs, float).reshape(len(samples), -1)
    if points.shape[1] != m:
        raise ValueError(f"samples have {points.shape[1]} parameters, x0 has {m}")
    z = points[:, coordinates.independent]
    holds = (np.abs(coordinates.expand(z) - points) <= 1e-8 * scale).all(axis=1)
    kept = np.flatnonzero(holds)
    errors = {row: samples.errors[i] for row, i in enumerate(kept.tolist()) if i in samples.errors}
    return Samples(z[holds], outputs[holds], errors)
