"""What the arguments of an estimator mean: bounds, scales, the design that a method names."""

from __future__ import annotations

from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import checks
from gradiator_np.designs.auto import Auto
from gradiator_np.designs.complex_step import ComplexStep
from gradiator_np.designs.stencil import ORDERS, Stencil
from gradiator_np.structure import Layout

Array = NDArray[np.float64]

#: An input below this is a 0 that rounding left: squares of weights 1 / h would overflow.
TINY = 1e-138

#: The default of ``bounds``.
UNBOUNDED = (-np.inf, np.inf)

METHODS = ("auto", *ORDERS, "cs")


def bounds_of(value: Any, x: NDArray[Any], layout: Layout) -> tuple[Array, Array] | None:
    """Bounds as (B, m) each; None where there are none at all."""
    if value is UNBOUNDED:
        return None
    lower, upper = checks.bounds(value, x, layout)
    if x.dtype == np.float32:  # a point that is rounded must not leave them
        lower, upper = checks.inward(lower, upper)
    return lower.reshape(-1, layout.size), upper.reshape(-1, layout.size)


@lru_cache(maxsize=8)
def unbounded(shape: tuple[int, ...]) -> tuple[Array, Array]:
    return np.full(shape, -np.inf), np.full(shape, np.inf)


def scale_of(x: Array, x_scale: Any, layout: Layout) -> tuple[Array, NDArray[np.bool_]]:
    """The unit of steps (B, m), and whether it is known: |x|, x_scale, else a guess.

    Nothing is floored at 1: an input of 1e-14 has steps of its own scale.
    """
    if x_scale is not None:
        scale = checks.positive(x_scale, layout, "x_scale").reshape(x.shape)
        return scale, np.ones(x.shape, dtype=bool)
    scale = np.abs(x)
    known = scale >= TINY
    if not known.all():
        for row, ok in zip(scale, known):
            row[~ok] = np.median(row[ok]) if ok.any() else 1.0
    return scale, known


def design_of(
    method: Any, x: Array, scale: Array, rel_step: Any, abs_step: Any, layout: Layout
) -> Any:
    """The design that a method names, with the caller's steps; None for the noise-aware one."""
    if not isinstance(method, str):
        if hasattr(method, "start"):
            return method
        raise TypeError(f"method must be a string or a design, got {method!r:.60}")
    checks.choice(method, METHODS, "method")
    step = None
    if abs_step is not None:
        step = _signed_steps(abs_step, layout, "abs_step").reshape(x.shape)
    elif rel_step is not None:
        step = _signed_steps(rel_step, layout, "rel_step").reshape(x.shape) * scale
        step = np.where(x < 0, -step, step)  # away from 0, as SciPy does
    if method == "auto" and step is None:
        return None
    if method == "cs":
        return ComplexStep(step)
    # Steps that the caller chose leave nothing to find out: central differences.
    return Stencil("3-point" if method == "auto" else method, step)


def auto_of(
    max_evals: Any, tol: Any, rtol: Any, min_step: Any, max_step: Any, layout: Layout
) -> Auto:
    """The noise-aware design, within the caller's limits."""
    if max_evals is not None and not (isinstance(max_evals, Integral) and int(max_evals) >= 1):
        raise ValueError(f"max_evals must be a positive whole number, got {max_evals!r}")
    for name, value in (("tol", tol), ("rtol", rtol)):
        if value is not None and not (checks.numeric(value, name) > 0).all():
            raise ValueError(f"{name} must be positive, got {value!r:.60}")
    steps = [
        None if value is None else checks.positive(value, layout, name).reshape(-1, layout.size)
        for name, value in (("min_step", min_step), ("max_step", max_step))
    ]
    if steps[0] is not None and steps[1] is not None and (steps[0] > steps[1]).any():
        raise ValueError("min_step is larger than max_step; exchange them")
    return Auto(
        max_evals=None if max_evals is None else int(max_evals),
        tol=tol,
        rtol=rtol,
        min_step=steps[0],
        max_step=steps[1],
    )


def _signed_steps(value: Any, layout: Layout, what: str) -> Array:
    step = checks.like_x(value, layout, what)
    bad = ~np.isfinite(step) | (step == 0)
    if bad.any():
        raise ValueError(f"{what} must be finite and not 0, got {step[bad][0]}")
    return step
