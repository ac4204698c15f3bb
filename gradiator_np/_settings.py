"""What the options of an estimate mean: bounds, scales, the design that a method names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._structure import Layout, matrix_of
from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.design import Auto
from gradiator_np.designs._complex_step import ComplexStep
from gradiator_np.designs._factorial.design import Pairs
from gradiator_np.designs._finite_difference.stencil import RULES, Stencil
from gradiator_np.designs._protocol import Design
from gradiator_np.solvers._registry import find_solver
from gradiator_np.solvers._solution import Solver

#: An input below this is a 0 that rounding left: squares of weights 1 / h would overflow.
TINY = 1e-138

METHODS = ("auto", *RULES, "cs")

#: Options that only the default design has: the fields of ``Auto`` but ``noise``, which all know.
STEERING = ("max_nfev", "atol", "rtol", "min_step", "max_step")


class Settings(NamedTuple):
    """What the options of an estimate mean at one point.

    Attributes
    ----------
    design : Design
    scale : array, shape (B, m)
        The unit of steps.
    atol : like jac, or None
        Wanted standard error, where it differs between entries.
    bounds : pair of array, shape (B, m), or None
    noise : scalar or like y, or None
        Of one evaluation; None where it is to be found.
    solver : Solver or None
        In place of the design's own weights.
    jac0 : like jac, or None
        The solver's prior.
    replace : bool
        Whether other points take the place of failed ones.
    rng : None, int or Generator
        What the generator of one estimate is made of, where its design draws.
    common_seeds : bool
        Whether both ends of a difference get the same seed.
    """

    design: Design
    scale: Array
    atol: Any
    bounds: tuple[Array, Array] | None
    noise: Any
    solver: Solver | None
    jac0: Any
    replace: bool
    rng: Any
    common_seeds: bool

    @classmethod
    def of(
        cls, point: checks.Point, options: Mapping[str, Any], common_seeds: bool | None = None
    ) -> Settings:
        """The meaning of complete options; ``common_seeds`` where they name a ``seed_arg``.

        Raises
        ------
        TypeError, ValueError
            For options that make no sense, alone or together.
        """
        flat, layout = point
        x = flat.reshape(-1, layout.size).astype(np.float64, copy=False)
        bounds = bounds_of(options["bounds"], flat, layout)
        scale = scale_of(x, options["x_scale"], layout)
        noise = options["noise"]
        if noise is not None and not isinstance(noise, Mapping):
            checks.noise(noise)
        if common_seeds is None:
            common_seeds = options["seed_arg"] is not None
        solver, jac0 = options["solver"], options["jac0"]
        if jac0 is not None and solver is None:
            raise ValueError("jac0 is the prior of a solver: give solver='pinv' or another with it")
        design = design_of(
            options["method"], x, scale, options["rel_step"], options["abs_step"], layout
        )
        found = None if solver is None else find_solver(solver)
        steers = any(options[name] is not None for name in STEERING)
        if design is None and common_seeds and not steers:
            # Pairs whose ends share a seed tell what noise is left; whole runs' noise does not.
            design = Pairs()
        elif design is None:
            design = auto_of(options, layout)
            if found is not None:
                raise ValueError(
                    "method='auto' runs at steps from 1e-8 to 0.5 of x, which a solver would take "
                    "for samples of one kind: give method='3-point' with solver=, rel_step, or a "
                    "design such as designs.Pairs(step=...); or leave solver out"
                )
        elif steers:
            raise ValueError(
                "max_nfev, atol, rtol, min_step and max_step steer method='auto' without given "
                f"steps; with method={options['method']!r:.40} the steps and evaluations are "
                "settled"
            )
        rng = options["rng"]
        if rng is not None:
            checks.generator(rng)
        return cls(
            design,
            scale,
            None if _is_one(options["atol"]) else options["atol"],
            bounds,
            noise,
            found,
            jac0,
            checks.choice(options["on_error"], ("adapt", "drop", "raise"), "on_error") == "adapt",
            rng,
            common_seeds,
        )

    @property
    def needs_value(self) -> bool:
        """Whether the value at x has to be known before anything else is asked for."""
        return self.design.needs_value or not _is_one(self.noise)

    @property
    def small_steps(self) -> bool:
        """Whether the steps are those for smooth functions, whatever fun is like."""
        return isinstance(self.design, Stencil) and self.design.step is None

    def known_noise(self, y: Layout | None) -> Array | None:
        """The noise of each output (n,), where the caller knows it."""
        return None if self.noise is None else checks.noise(self.noise, y)

    def design_for(self, y: Layout | None, x: Layout, unit: float = 1.0) -> Design:
        """The design for values that are like y, in units of ``unit``."""
        design = self.design
        if not isinstance(design, Auto):
            return design
        if self.atol is not None and y is not None:
            wanted = matrix_of(self.atol, y, x, "atol", one_for_all=True)
            design = replace(design, atol=_positive(wanted, "atol").reshape(-1, y.size, x.size))
        if unit == 1:
            return design
        noise, atol = design.noise, design.atol
        return replace(
            design,
            noise=noise if isinstance(noise, str) else np.asarray(noise) / unit,
            atol=None if atol is None else np.asarray(atol) / unit,
        )


def bounds_of(value: Any, x: NDArray[Any], layout: Layout) -> tuple[Array, Array] | None:
    """Bounds as (B, m) each; None where there are none at all."""
    if value is checks.UNBOUNDED:
        return None
    lower, upper = checks.bounds(value, x, layout)
    if x.dtype == np.float32:  # a point that is rounded must not leave them
        lower, upper = checks.inward(lower, upper)
    return lower.reshape(-1, layout.size), upper.reshape(-1, layout.size)


def scale_of(x: Array, x_scale: Any, layout: Layout) -> Array:
    """The unit of steps (..., m): |x|, x_scale, else the median of the other inputs, or 1.

    Nothing is floored at 1: an input of 1e-14 has steps of its own scale.
    """
    if x_scale is not None:
        return checks.positive(x_scale, layout, "x_scale").reshape(x.shape)
    scale = np.abs(x)
    known = scale >= TINY
    if not known.all():
        for row, ok in zip(scale.reshape(-1, layout.size), known.reshape(-1, layout.size)):
            row[~ok] = np.median(row[ok]) if ok.any() else 1.0
    return scale


def design_of(
    method: Any, x: Array, scale: Array, rel_step: Any, abs_step: Any, layout: Layout
) -> Design | None:
    """The design that a method names, with the caller's steps; None for the noise-aware one."""
    if not isinstance(method, str):
        if isinstance(method, type) and hasattr(method, "start"):
            raise TypeError(
                f"method is the class {method.__name__}; give an instance, such as "
                f"method={method.__name__}()"
            )
        if hasattr(method, "start"):
            given: Design = method
            return given
        raise TypeError(f"method must be a string or a design, got {method!r:.60}")
    checks.choice(method, METHODS, "method")
    step = step_of(x, scale, rel_step, abs_step, layout)
    if method == "auto" and step is None:
        return None
    if method == "cs":
        return ComplexStep(step)
    # Steps that the caller chose leave nothing to find out: central differences.
    return Stencil("3-point" if method == "auto" else method, step)


def step_of(x: Array, scale: Array, rel_step: Any, abs_step: Any, layout: Layout) -> Array | None:
    """The signed steps (B, m) that the caller gave; None where there are none."""
    if abs_step is not None:
        return _signed_steps(abs_step, layout, "abs_step").reshape(x.shape)
    if rel_step is None:
        return None
    step = _signed_steps(rel_step, layout, "rel_step").reshape(x.shape) * scale
    return np.where(x < 0, -step, step)  # away from 0, as SciPy does


def auto_of(options: Mapping[str, Any], layout: Layout) -> Auto:
    """The noise-aware design, within the caller's limits."""
    found = {name: options[name] for name in STEERING}
    most = found["max_nfev"]
    found["max_nfev"] = None if most is None else checks.integer(most, "max_nfev")
    if not _is_one(found["rtol"]):
        raise ValueError(f"rtol must be one number for all of J, got {found['rtol']!r:.60}")
    for name in ("atol", "rtol"):
        if found[name] is not None and not isinstance(found[name], Mapping):
            _positive(found[name], name)
    if not _is_one(found["atol"]):  # until the shape of y is known: ``design_for``
        found["atol"] = None
    for name in ("min_step", "max_step"):
        if found[name] is not None:
            found[name] = checks.positive(found[name], layout, name).reshape(-1, layout.size)
    low, high = found["min_step"], found["max_step"]
    if low is not None and high is not None and (low > high).any():
        raise ValueError("min_step is larger than max_step; exchange them")
    return Auto(**found)


def _is_one(value: Any) -> bool:
    """Whether it serves everything alike: a number, or None."""
    return not (isinstance(value, Mapping) or np.ndim(value))


def _positive(value: Any, what: str) -> NDArray[Any]:
    a = checks.numeric(value, what)
    if not (a > 0).all():
        raise ValueError(f"{what} must be positive, got {value!r:.60}")
    return a


def _signed_steps(value: Any, layout: Layout, what: str) -> Array:
    step = checks.like_x(value, layout, what)
    bad = ~np.isfinite(step) | (step == 0)
    if bad.any():
        raise ValueError(f"{what} must be finite and not 0, got {step[bad][0]}")
    return step
