"""The result type of products: J u or v^T J with its error bars."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._covariance import ConfidenceInterval
from gradiator_np._results import JacobianEstimate, origin, place
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._text import Words, entry_lines, verdict
from gradiator_np._typing import Array


@dataclass(frozen=True, slots=True)
class ProductView:
    """From the flat Jacobian of what was estimated to products of the user's shape.

    Along ``axis`` lie the tangents or cotangents; each is multiplied by ``factor``.
    """

    layout: Layout
    axis: int
    factor: Array | float
    several: bool

    def flat(self, coef: NDArray[Any]) -> NDArray[Any]:
        """Products as flat arrays, (p, *batch, size)."""
        return np.asarray(np.moveaxis(coef, self.axis, 0) * self.factor)

    def __call__(self, coef: NDArray[Any]) -> Any:
        out = self.layout.unflatten(self.flat(coef))
        return out if self.several else _only(out)


def _only(out: Any) -> Any:
    """The only one of several."""
    return {name: _only(item) for name, item in out.items()} if isinstance(out, dict) else out[0]


@dataclass(frozen=True, eq=False, repr=False)
class ProductEstimate:
    """J u or v^T J with its error bars.

    Attributes
    ----------
    estimate : JacobianEstimate
        Of the function that was really estimated: along the tangents, or contracted with the
        cotangents. Its ``nfev``, ``status`` and ``message`` are this one's.
    y : array or dict
        The value of ``fun`` at x.

    Examples
    --------
    >>> from gradiator_np import vjp
    >>> product = vjp(lambda x: [x[0] * x[1], x[1] ** 2], [2.0, 3.0], [1.0, 0.0])
    >>> product.value.round(6), product.success
    (array([3., 2.]), True)
    """

    estimate: JacobianEstimate
    _view: ProductView
    y: Any

    @cached_property
    def value(self) -> Any:
        """The product: of the shape of y for a JVP, of x for a VJP."""
        return self._view(self.estimate.solution.coef)

    @cached_property
    def stderr(self) -> Any:
        """One standard error of each entry; inf and nan as in ``JacobianEstimate``."""
        return self._view(self._flat_stderr())

    def _flat_stderr(self) -> Array:
        solution = self.estimate.solution
        return np.broadcast_to(solution.cov.stderr(), solution.coef.shape)

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """The interval that holds each entry with probability ``confidence_level``.

        Returns
        -------
        ConfidenceInterval
            ``low`` and ``high``, of the shape of ``value``.
        """
        solution = self.estimate.solution
        half = solution.interval(checks.level(confidence_level))
        return ConfidenceInterval(
            self._view(solution.coef - half), self._view(solution.coef + half)
        )

    @property
    def by_input(self) -> bool:
        """Whether this is v^T J, which has an entry for each input, and not J u."""
        return self._view.axis == -2

    @property
    def nfev(self) -> int:
        """Evaluations of ``fun``."""
        return self.estimate.nfev

    @property
    def status(self) -> Status:
        """How far the estimate can be trusted."""
        return self.estimate.status

    @property
    def success(self) -> bool:
        """Whether the estimate is what was asked for: ``status.success``."""
        return self.estimate.success

    @property
    def message(self) -> str:
        """What limits the estimate, and what would improve it."""
        return self.estimate.message

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.array(self.value, dtype=dtype)

    def __repr__(self) -> str:
        view, coef = self._view, self.estimate.solution.coef
        what, letter = ("v^T J", "x") if self.by_input else ("J u", "y")
        names = view.layout.names

        def label(i: tuple[int, ...]) -> tuple[str, ...]:
            return (place(i[not view.several : -1]) + letter + names[i[-1]],)

        words = Words(("", what, "stderr"), label, f"|{what}|", ".value, .stderr")
        return "\n".join([
            f"ProductEstimate: {what} of shape {view.layout.shapes} {origin(self.estimate)}",
            *entry_lines(view.flat(coef), view.flat(self._flat_stderr()), words),
            verdict(self),
        ])  # fmt: skip
