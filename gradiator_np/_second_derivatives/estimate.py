"""The results: second derivatives with their error bars, and what was done to get them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from gradiator_np import _checks as checks
from gradiator_np._covariance import ConfidenceInterval
from gradiator_np._samples import Samples
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._text import MOST_ROWS, Words, entry_lines, verdict
from gradiator_np._typing import Array


def nested(flat: NDArray[Any], y: Layout, *x: Layout) -> Any:
    """Derivatives (n, m, ...) in the user's shapes: y.shape + x.shape + ..., or dicts of them."""
    layouts = [y, *x]
    for axis, layout in enumerate(layouts):
        if layout.fields is not None:
            out = {}
            for key, (inner, where) in layout.fields.items():
                part = flat[(slice(None),) * axis + (where,)]
                out[key] = nested(part, *layouts[:axis], inner, *layouts[axis + 1 :])
            return out
    shaped = flat.reshape([size for layout in layouts for size in layout.shape or ()])
    return shaped[()] if shaped.ndim == 0 else shaped


@dataclass(frozen=True, eq=False, repr=False)
class SecondDerivatives:
    """What all estimates of second derivatives have.

    Attributes
    ----------
    coef, error : array, shape (n,), (n, m) or (n, m, m)
        Value and standard error, flat: one row for each output.
    x_layout, y_layout : Layout
        How flat arrays and the user's values correspond.
    flat_noise, flat_dof : array, shape (n,)
        Standard deviation of one evaluation, and the degrees of freedom behind it.
    step : like x
        The longest step along each input, in units of x; nan where none was made.
    design : str
        What was run.
    nfev, n_failed : int
        Evaluations by this call, and those that failed.
    status : Status
        How far this can be trusted.
    message : str
        What limits it, and what would improve it.
    samples : Samples or None
        Every run behind it, failed ones included.
    """

    coef: NDArray[Any]
    error: Array
    x_layout: Layout
    y_layout: Layout
    flat_noise: Array
    flat_dof: Array
    step: Any
    design: str
    nfev: int
    n_failed: int
    status: Status
    message: str
    samples: Samples | None

    _where: ClassVar[str] = ".value, .stderr"

    def _view(self, flat: NDArray[Any]) -> Any:
        return nested(flat, self.y_layout, *[self.x_layout] * (flat.ndim - 1))

    @cached_property
    def stderr(self) -> Any:
        """One standard error of each entry: noise and truncation together; inf where no run
        determines the entry."""
        return self._view(self.error)

    @property
    def noise(self) -> Any:
        """Standard deviation of one evaluation, per output; that of rounding at least."""
        return self.y_layout.unflatten(self.flat_noise)

    @property
    def dof(self) -> Any:
        """Degrees of freedom behind ``noise``: inf where it was given or is that of digits, or of
        the rounding that u'Hu of seven runs assumes."""
        return self.y_layout.unflatten(self.flat_dof)

    @property
    def success(self) -> bool:
        """Whether the estimate is what was asked for: ``status.success``."""
        return self.status.success

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """The interval that holds each entry with probability ``confidence_level``.

        Student t with ``dof`` degrees of freedom.

        Returns
        -------
        ConfidenceInterval
            ``low`` and ``high``, of the shape of the estimate.

        Raises
        ------
        ValueError
            For complex second derivatives, which have no order; use ``stderr``.
        """
        if self.coef.dtype.kind == "c":
            raise ValueError("complex second derivatives have no interval; use stderr")
        level = checks.level(confidence_level)
        # stdtrit of so many degrees of freedom is the normal quantile; of inf it is nan.
        quantile = stdtrit(np.minimum(self.flat_dof, 1e10), 0.5 + level / 2)
        half = quantile.reshape(-1, *[1] * (self.coef.ndim - 1)) * self.error
        return ConfidenceInterval(self._view(self.coef - half), self._view(self.coef + half))

    def _array(self) -> Any:
        return self._view(self.coef)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        if isinstance(self._array(), dict):
            raise TypeError(f"this is a dict of blocks; take one of them from {self._where}")
        return np.array(self._array(), dtype=dtype)

    def __repr__(self) -> str:
        y, x = self.y_layout.names, self.x_layout.names
        inputs = self.coef.ndim - 1

        def label(i: tuple[int, ...]) -> tuple[str, ...]:
            return f"y{y[i[0]]}", *(f"x{x[k]}" for k in i[1:])

        words = Words(
            ("output", *("input",) * inputs, "second derivative", "stderr"), label, "|H|",
            self._where,
        )  # fmt: skip
        shape = " x ".join(map(str, self.coef.shape))
        return "\n".join([
            f"{type(self).__name__}: {shape} ({self.design}, {self.nfev} evaluations, "
            f"{self.n_failed} failed)",
            *entry_lines(self.coef, self.error, words, MOST_ROWS),
            verdict(self),
        ])  # fmt: skip


class HessianEstimate(SecondDerivatives):
    """An estimated Hessian with its error bars.

    Shapes are the user's: ``hess`` has shape ``y.shape + x.shape + x.shape`` (nested dicts of
    blocks where x or y is a dict), is symmetric in the last two, and finite everywhere. ``print``
    it for an overview.

    Examples
    --------
    >>> from gradiator_np import hessian
    >>> estimate = hessian(lambda x: x[0] ** 2 * x[1], [1.0, 2.0])
    >>> estimate.hess.round(6), estimate.success
    (array([[4., 2.],
           [2., 0.]]), True)
    >>> low, high = estimate.confidence_interval()
    >>> bool((low <= [[4, 2], [2, 0]]).all() and (high >= [[4, 2], [2, 0]]).all())
    True
    """

    _where: ClassVar[str] = ".hess, .stderr"

    @cached_property
    def hess(self) -> Any:
        """The Hessian, y per x^2: 0 where no run determines an entry."""
        return self._view(self.coef)


class CurvatureEstimate(SecondDerivatives):
    """Second derivatives along directions with their error bars: H u, u' H u or a diagonal.

    Examples
    --------
    >>> from gradiator_np import hvp
    >>> estimate = hvp(lambda x: x[0] ** 2 * x[1], [1.0, 2.0], [1.0, 0.0])
    >>> estimate.value.round(6), estimate.success
    (array([4., 2.]), True)
    """

    @cached_property
    def value(self) -> Any:
        """What was asked for: y.shape + x.shape for H u and diagonals, y.shape for u' H u."""
        return self._view(self.coef)
