"""Logs of a function's runs: what was recorded, and the model of the part that is near a point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import _checks as checks
from gradiator_np._sample_set import SampleSet
from gradiator_np._sample_store import SampleStore
from gradiator_np._samples import Samples
from gradiator_np._structure import Layout
from gradiator_np._typing import Array, Index
from gradiator_np.solvers._solution import Solution, unit_of
from gradiator_np.solvers._taylor.products import FittedProducts
from gradiator_np.solvers._taylor.solver import FittedTaylor, Taylor


class Model(Protocol):
    """A fit that tells the Jacobian, and the value where it can, near its centre."""

    def at(self, displacement: Array) -> Solution:
        """At a displacement (m,) from the centre."""


@dataclass(frozen=True, slots=True)
class _InUnit:
    """A model of values over a unit, a power of two: squares of values beyond 1e154 are no floats,
    and below 1e-154 nothing is left of them.
    """

    model: Model
    unit: float

    def at(self, displacement: Array) -> Solution:
        """See `Model`."""
        return self.model.at(displacement).times(self.unit)


class Log(Protocol):
    """What was recorded of a function.

    Attributes
    ----------
    x_layout, y_layout : Layout
        Of one input, and of one output.
    store : SampleStore
    wanted : tuple of str
        What ``add`` takes.
    """

    x_layout: Layout
    y_layout: Layout
    store: SampleStore
    wanted: tuple[str, ...]

    def add(self, *samples: Any) -> None:
        """More of what the log was made from."""

    def model(self, rows: Index, x: Array, max_samples: int) -> Model:
        """The model of some rows about x (m,)."""

    def record(self, rows: Index) -> Samples | None:
        """Those rows as runs; None where no run was recorded whole."""


class RunLog:
    """Points and values; parameters are those of `SampledFunction`."""

    wanted: tuple[str, ...] = ("points", "values")

    def __init__(
        self, points: Any, values: Any, *, noise: Any, x_scale: Any, x_like: Any, y_like: Any
    ) -> None:
        self._like = x_like, y_like
        given = self._coerced(points, values, *self._like)
        self.x_layout, self.y_layout = given.x, given.y
        self._noise = _positive_noise(noise, given.y)
        self._x_scale, unit = _units(x_scale, given.dx, given.x)
        self.store = SampleStore(unit)
        self.store.add(given.dx, given.df)

    @staticmethod
    def _coerced(points: Any, values: Any, x_like: Any, y_like: Any) -> SampleSet:
        names = ("points", "values", "y_like")
        given = SampleSet.of(points, values, x=x_like, y=y_like, names=names)
        if given.batch:
            raise ValueError(
                f"points hold batches {given.batch} of samples; give one function's at a time"
            )
        return given

    def add(self, points: Any, values: Any) -> None:
        """More runs, or one."""
        like = self._like
        if self.x_layout.same(points):
            points = self.x_layout.flatten(points)[None]
            values, like = self.y_layout.flatten(values)[None], (None, None)
        given = self._coerced(points, values, *like)
        self.store.add(given.dx, given.df)

    def model(self, rows: Index, x: Array, max_samples: int) -> Model:
        """See `Log`."""
        values: NDArray[Any] = self.store.values[rows]
        unit = unit_of(values)
        noise = None if self._noise is None else self._noise / unit
        fitted = FittedTaylor.of(
            Taylor(x_scale=self._x_scale, max_samples=max_samples),
            self.store.points[rows] - x, values / unit, np.ones(values.shape), True, noise,
        )  # fmt: skip
        fitted.keep()
        return _InUnit(fitted, unit)

    def record(self, rows: Index) -> Samples:
        """See `Log`."""
        return Samples(self.store.points[rows], self.store.values[rows])


class ProductLog:
    """Products alone; parameters are those of `SampledFunction.from_products`."""

    wanted: tuple[str, ...] = ("x", "dx", "v", "products")

    def __init__(
        self, x: Any, dx: Any, v: Any, products: ArrayLike, *, noise: Any, x_scale: Any,
        x_like: Any, y_like: Any,
    ) -> None:  # fmt: skip
        self._like = x_like, y_like
        flat_x, flat_dx, flat_v, product = self._coerced(x, dx, v, products)
        self._noise = None if noise is None else _positive_noise(noise, Layout(()))
        self._x_scale, unit = _units(x_scale, flat_x, self.x_layout)
        self.store = SampleStore(unit)
        self._keep(flat_x, flat_dx, flat_v, product)

    def _coerced(
        self, x: Any, dx: Any, v: Any, products: ArrayLike
    ) -> tuple[Array, Array, Array, Array]:
        one, out = self._like
        at = SampleSet.of(x, v, x=one, y=out, names=("x", "v", "y_like"), nan_policy="raise")
        by = SampleSet.of(dx, products, x=one, names=("dx", "products", "y_like"))
        if at.batch or by.batch:
            raise ValueError("samples hold batches; give one function's at a time")
        if at.df.dtype.kind == "c" or by.df.dtype.kind == "c":
            raise TypeError(
                "v and products must be real; give the real and the imaginary part of a product as "
                "products of their own, with twice as many outputs"
            )
        if at.dx.shape != by.dx.shape or by.df.shape[1] != 1:
            raise ValueError(
                f"x has {at.dx.shape[0]} samples of {at.dx.shape[1]} numbers, dx {by.dx.shape[0]} "
                f"of {by.dx.shape[1]}, products shape {np.shape(products)}; give one dx and one "
                "number for each x"
            )
        self.x_layout, self.y_layout = at.x, at.y
        return at.dx, by.dx, at.df, by.df

    def _keep(self, x: Array, dx: Array, v: Array, product: Array) -> None:
        told = np.isfinite(product[:, 0]) & dx.any(1) & v.any(1)
        self.store.add((x + dx / 2)[told], np.hstack([dx, v, product])[told])

    def add(self, x: Any, dx: Any, v: Any, products: Any) -> None:
        """More products, or one."""
        if self.x_layout.same(x):
            flat = (self.x_layout.flatten(x)[None], self.x_layout.flatten(dx)[None])
            self._keep(*flat, self.y_layout.flatten(v)[None], np.reshape(products, (1, 1)))
        else:
            self._keep(*self._coerced(x, dx, v, products))

    def model(self, rows: Index, x: Array, max_samples: int) -> Model:
        """See `Log`."""
        m = self.x_layout.size
        middle, values = self.store.points[rows] - x, self.store.values[rows]
        dx, v, product = values[:, :m], values[:, m:-1], values[:, -1]
        unit, v_unit = unit_of(product), unit_of(v)
        noise = None if self._noise is None else float(self._noise[0]) / unit
        fitted = FittedProducts.of(
            middle - dx / 2, dx, v / v_unit, product / unit, self._x_scale, noise
        )  # fmt: skip
        return _InUnit(fitted, unit / v_unit)

    def record(self, rows: Index) -> None:
        """See `Log`."""


def _positive_noise(noise: Any, y: Layout) -> Array | None:
    if noise is None:
        return None
    found = checks.noise(noise, y)
    if not found.all():
        raise ValueError("noise must be positive; leave it out (None) to find it with the fit")
    return found


def _units(x_scale: Any, points: Array, layout: Layout) -> tuple[Array | None, Array]:
    """The unit of each input that was given, and the one for distances."""
    if x_scale is not None:
        given = checks.positive(x_scale, layout, "x_scale")
        return given, given
    apart = np.median(np.abs(points - np.median(points, axis=0)), axis=0)
    return None, np.where(apart > 0, apart, 1.0)
