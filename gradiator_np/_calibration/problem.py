"""What is asked for: the arguments of a fit, checked once and flat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._samples import Samples
from gradiator_np._settings import scale_of
from gradiator_np._structure import Layout
from gradiator_np._typing import Array

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
    x0, scale, low, high : array, shape (m,)
    x_layout : Layout
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
    x_layout: Layout
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
        noise, samples, max_nfev = options["noise"], options["samples"], options["max_nfev"]
        jac0 = options["jac0"]
        jac0 = None if jac0 is None else checks.float_array(jac0, 2, "jac0")
        if jac0 is not None and jac0.shape[1] != m:
            raise ValueError(
                f"jac0 has shape {jac0.shape}; give one row per residual and one column per "
                f"parameter, (n, {m})"
            )
        return cls(
            flat, scale, low, high, layout,
            None if noise is None else checks.noise(noise),
            _half_widths(options["x_half_width"], options["x_rel_half_width"], layout), jac0,
            None if samples is None else _flat(samples, m),
            DEFAULT_BUDGET * (m + 1) if max_nfev is None else checks.integer(max_nfev, "max_nfev"),
            Tolerances(*(_tolerance(options[k], k) for k in ("ftol", "xtol", "gtol"))),
        )  # fmt: skip

    def check_residuals(self, layout: Layout, dtype: np.dtype[Any]) -> None:
        """Refuse a first value of fun that does not fit the other arguments.

        Raises
        ------
        TypeError
            Where it is complex.
        ValueError
            Where ``jac0``, ``noise`` or ``samples`` are of another shape.
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
        shape = () if self.noise is None else self.noise.shape
        if shape not in ((), layout.shape):
            raise ValueError(
                f"noise has shape {shape}, fun returned {layout.shape}; "
                "give one number, or one for each residual"
            )


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


def _flat(samples: Samples, m: int) -> Samples | None:
    if not isinstance(samples, Samples):
        raise TypeError(f"samples must be Samples, as results hold them, got {samples!r:.60}")
    if not len(samples):
        return None
    points = np.asarray(samples.points, float).reshape(len(samples), -1)
    outputs = np.asarray(samples.outputs, float).reshape(len(samples), -1)
    if points.shape[1] != m:
        raise ValueError(f"samples have {points.shape[1]} parameters, x0 has {m}")
    return Samples(points, outputs, samples.errors)
