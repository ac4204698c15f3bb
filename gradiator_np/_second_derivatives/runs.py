"""Runs around a point, by name: a node is a sum of steps along a few directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._evaluate import Evaluator
from gradiator_np._results import JacobianEstimate
from gradiator_np._samples import EvaluationError, Samples, last_line
from gradiator_np._settings import bounds_of
from gradiator_np._structure import Layout
from gradiator_np._typing import Array

#: Steps along directions: (direction, multiple, level) each. Level a is 2^(-a/2) of the unit.
Node = tuple[tuple[int, int, int], ...]
#: x itself.
CENTRE: Node = ()
#: Points are handed over in parts of at most this size.
PART_BYTES = 2**26
#: Two points are one where they differ by less than this share of the step.
SAME = 1e-9
#: Units of values are 2 to the power of so much at most, and one over that at least.
UNITS = 1000


class Runs:
    """A function around x: what was run, at which points, and what failed.

    Parameters
    ----------
    evaluate : Evaluator
    point : Point
    options : dict
        ``bounds``, ``f0``, ``samples`` and ``on_error``, as ``hessian`` takes them.

    Attributes
    ----------
    x : array, shape (m,)
    up, down : array, shape (m,)
        Room to the bounds.
    nfev, n_failed : int
    unit : array, shape (n,)
        The power of two that has the size of each output at x; values here are in units of it.
    """

    def __init__(
        self, evaluate: Evaluator, point: checks.Point, options: Mapping[str, Any]
    ) -> None:
        self.evaluate = evaluate
        self.flat, self.layout = point
        self.x = self.flat.astype(np.float64)
        found = bounds_of(options["bounds"], self.flat, self.layout)
        infinite = np.full(len(self.x), np.inf)
        lower, upper = (-infinite, infinite) if found is None else (found[0][0], found[1][0])
        self.lower, self.upper = lower, upper
        self.up, self.down = upper - self.x, self.x - lower
        self._raise = options["on_error"] == "raise"
        self.nfev = self.n_failed = 0
        self._points: list[NDArray[Any]] = []
        self._outputs: list[NDArray[Any]] = []
        self._errors: dict[int, str] = {}
        self._given = _given(options["samples"], self.layout)
        f0 = options["f0"]
        if f0 is None and isinstance(options["samples"], JacobianEstimate):
            f0 = options["samples"].y
        self._values: dict[Node, Array] = {}
        self.directions = np.empty((0, len(self.x)))
        self._value_at_x(f0)

    def _value_at_x(self, f0: Any) -> None:
        if f0 is None:
            known = self.evaluate.first(self.flat)
            self.nfev += 1
        else:
            known = self.evaluate.learn(checks.like_output(f0))
        self.unit = _unit(_parts(known[None])[0])
        self._keep(self.flat[None], known[None], {})
        if not np.isfinite(known).any():
            raise EvaluationError(
                "fun(x) is nan or inf in every output; no second derivative exists around a point "
                "where fun has no value",
                self.samples,
            )
        self._values[CENTRE] = self.real(known[None])[0]

    @property
    def y_layout(self) -> Layout:
        """How values of ``fun`` lie."""
        return self.evaluate.kept_layout

    @property
    def y(self) -> NDArray[Any]:
        """The value at x, flat, as ``fun`` returned it."""
        return np.asarray(self._outputs[0][0])

    @property
    def samples(self) -> Samples:
        """Every run so far, x first."""
        return Samples(
            np.concatenate(self._points), np.concatenate(self._outputs), dict(self._errors)
        )

    def real(self, values: NDArray[Any]) -> Array:
        """Values (k, n) as real numbers in units of ``unit``; complex ones as (k, 2 n)."""
        return np.asarray(_parts(values) / self.unit)

    def use(self, directions: Array) -> None:
        """Take the directions (p, m) of nodes: the displacement of level 0 each, in units of x.

        Nodes of earlier directions are forgotten.
        """
        self.directions = directions
        self._values = {CENTRE: self._values[CENTRE]}
        # Displacements on the grid of floating-point numbers around x: x + h and x - h are exact,
        # and so are sums of two steps.
        self._ulp = self._spacing(4 * np.abs(directions).max(0, initial=0.0))

    def _spacing(self, offset: Array) -> Array:
        """Spacing (m,) of floating-point numbers up to ``offset`` from x."""
        reach = np.abs(self.flat) + np.abs(offset).astype(self.flat.dtype)
        return np.asarray(np.spacing(reach), np.float64)

    def on_grid(self, offset: Array) -> Array:
        """A displacement (m,) that x + offset and x - offset make exactly."""
        spacing = self._spacing(offset)
        return np.asarray(np.round(offset / spacing) * spacing)

    def step(self, direction: int, level: int) -> Array:
        """The displacement (m,) that is made along one direction at a level."""
        raw = self.directions[direction] * 2.0 ** (-level / 2)
        return np.asarray(np.round(raw / self._ulp) * self._ulp)

    def share(self, direction: int, level: int) -> float:
        """The step really made, as a multiple of that of level 0 as it was wanted."""
        wanted = self.directions[direction]
        size = np.abs(wanted).max()
        unit = wanted / size
        return float(unit @ (self.step(direction, level) / size) / (unit @ unit))

    def offset(self, node: Node) -> Array:
        """The displacement (m,) of a node."""
        out = np.zeros(len(self.x))
        for direction, multiple, level in node:
            out += multiple * self.step(direction, level)
        return out

    def ask(self, nodes: Sequence[Node]) -> None:
        """Run the nodes that have not been run."""
        new = [node for node in dict.fromkeys(nodes) if node not in self._values]
        if not new:
            return
        offsets = np.array([self.offset(node) for node in new])
        values = self.at(offsets)
        for node, value in zip(new, values):
            self._values[node] = value

    def at(self, offsets: Array) -> Array:
        """Values (k, n) at x + offsets; nan where a run failed. Points of ``samples`` are free."""
        known = self._known(offsets)
        wanted = np.flatnonzero(np.isnan(known).all(1))
        part = max(1, PART_BYTES // (8 * max(self.x.size, self.evaluate.value_size)))
        for start in range(0, len(wanted), part):
            rows = wanted[start : start + part]
            known[rows] = self._run(offsets[rows])
        return known

    def _known(self, offsets: Array) -> Array:
        out = np.full((len(offsets), len(self._values[CENTRE])), np.nan)
        if self._given is None:
            return out
        there = self._given.points - self.x
        values = self.real(self._given.outputs)
        for k, offset in enumerate(offsets):
            near = np.abs(there - offset).max(1) <= SAME * np.abs(offset).max()
            if near.any():
                out[k] = values[near.argmax()]
        return out

    def _run(self, offsets: Array) -> Array:
        points = np.clip(self.x + offsets, self.lower, self.upper).astype(self.flat.dtype)
        kept = points.copy()  # fun may overwrite what it is given
        out = self.evaluate(points, stop="first" if self._raise else "never")
        done = out.done
        self.nfev += done
        values = out.values[:done]
        bad = ~np.isfinite(values).all(1)
        self.n_failed += int(bad.sum())
        self._keep(kept[:done], values, out.errors)
        if self._raise and bad.any():
            text = last_line(next(iter(out.errors.values()), "nan or inf in the output"))
            raise EvaluationError(
                f"a run failed: {text}; on_error='raise' stops here", self.samples
            ) from out.cause
        real = self.real(values)
        return np.where(np.isfinite(real), real, np.nan)

    def _keep(self, points: NDArray[Any], outputs: NDArray[Any], errors: dict[int, str]) -> None:
        before = sum(map(len, self._points))
        self._points.append(points.copy())
        self._outputs.append(outputs.copy())
        self._errors.update({before + row: text for row, text in errors.items()})

    def replace_centre(self, value: Array) -> None:
        """A better value at x than that of its one run."""
        self._values[CENTRE] = value

    def value(self, node: Node) -> Array:
        """The value (n,) at a node; nan where it failed or was not run."""
        found = self._values.get(node)
        return np.full(len(self._values[CENTRE]), np.nan) if found is None else found

    def has(self, node: Node) -> bool:
        """Whether a node was run."""
        return node in self._values

    def wide(self) -> Array:
        """Values (k, n) at all nodes but x itself."""
        return np.array([v for node, v in self._values.items() if node != CENTRE]).reshape(
            -1, len(self._values[CENTRE])
        )

    def given_steps(self) -> dict[int, Array]:
        """Steps of the pairs along inputs that earlier runs have, by input."""
        if self._given is None:
            return {}
        there = (self._given.points - self.x)[self._given.ok]
        out = {}
        for i in range(len(self.x)):
            along = there[(np.delete(there, i, 1) == 0).all(1), i]
            up, down = along[along > 0], -along[along < 0]
            both = up[(np.abs(up[:, None] - down) <= SAME * up[:, None]).any(1)]
            if both.size:
                out[i] = np.unique(both)
        return out


def _parts(values: NDArray[Any]) -> Array:
    """Real numbers (k, n); of complex ones (k, 2 n) real and imaginary parts."""
    if values.dtype.kind == "c":
        return np.concatenate([values.real, values.imag], axis=1)
    return np.asarray(values, np.float64)


def _unit(at_x: Array) -> Array:
    """Squares of squares of values would overflow from 1e77 on: of what is made of units, later."""
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.floor(np.log2(np.abs(at_x)))
    known = np.where(np.isfinite(exponent), np.clip(exponent, -UNITS, UNITS), 0.0)
    return np.asarray(np.exp2(known), np.float64)


def _given(samples: Any, layout: Layout) -> Samples | None:
    """Earlier runs, flat."""
    if isinstance(samples, JacobianEstimate):
        samples = samples.samples
    if samples is None:
        return None
    if not isinstance(samples, Samples):
        raise TypeError(
            f"samples must be Samples or a JacobianEstimate, got {type(samples).__name__}"
        )
    if samples.points.ndim != 2 or samples.points.shape[1] != layout.size:
        raise ValueError(
            f"samples have points of shape {samples.points.shape[1:]}, but x has {layout.size} "
            "inputs; give those of a Jacobian at the same x"
        )
    return samples
