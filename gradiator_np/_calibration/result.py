"""What a fit returns: SciPy's fields, and the error bars beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult
from scipy.special import ndtri

from gradiator_np import _checks as checks
from gradiator_np._calibration.search import Search
from gradiator_np._calibration.uncertainty import parameter_errors
from gradiator_np._covariance import ConfidenceInterval
from gradiator_np._samples import EvaluationError, Samples, last_line
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._text import MOST_ROWS, between, error, leaves, number
from gradiator_np._typing import Array, Mask

MESSAGES = {
    Status.NOISE_LIMIT: "the noise of the runs hides what is left to gain; average runs, or set "
    "x_half_width for narrower intervals of the parameters",
    Status.CONVERGED: "no run can lower the sum of squares by more than ftol of it",
    Status.BUDGET: "max_nfev runs are used; raise it to go on from here",
    Status.NO_SIGNAL: "the residuals do not answer to the parameters beyond their noise, however "
    "far these are moved; check x0, x_scale and which parameters fun reads",
    Status.UNDETERMINED: "the runs determine no parameter, or the search ran off to where the "
    "residuals do not answer any more to one that they answered to at the start; start closer, or "
    "give bounds or x_scale",
    Status.INCOMPLETE: "runs are still wanted",
}

#: Fields that are printed on a line of their own, or on that of another.
PRINTED = {"message", "success", "status", "reason", "x", "x_stderr", "cost", "optimality", "noise",
           "nfev", "rounds"}  # fmt: skip


class LeastSquaresResult(OptimizeResult):
    """SciPy's ``OptimizeResult`` with error bars; `least_squares` says what its fields are.

    Examples
    --------
    >>> from gradiator_np import least_squares
    >>> fit = least_squares(lambda x: [x[0] - 3, x[0] * x[1] - 6], [1.0, 1.0])
    >>> fit.x.round(6), fit.success, str(fit.reason)
    (array([3., 2.]), True, 'converged')
    """

    x: Any
    cost: float
    fun: Any
    jac: Array
    grad: Any
    optimality: float
    active_mask: Any
    nfev: int
    njev: int
    status: int
    message: str
    success: bool
    reason: Status
    x_stderr: Any
    undetermined: Any
    jac_stderr: Array
    noise: Any
    rounds: int
    samples: Samples

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """Intervals that hold each parameter with that probability.

        Parameters
        ----------
        confidence_level : float
            Between 0 and 1.

        Returns
        -------
        ConfidenceInterval
            ``low`` and ``high``, each like x; unpacks as a pair. Infinite for parameters that the
            runs do not determine.

        Examples
        --------
        >>> from gradiator_np import least_squares
        >>> fit = least_squares(lambda x: [x[0] - 3, x[0] * x[1] - 6], [1.0, 1.0])
        >>> low, high = fit.confidence_interval(0.9)
        >>> bool((low <= fit.x).all() and (fit.x <= high).all())
        True
        """
        z = float(ndtri(0.5 + checks.level(confidence_level) / 2))
        return ConfidenceInterval(
            _combine(lambda x, err: x - z * err, self.x, self.x_stderr),
            _combine(lambda x, err: x + z * err, self.x, self.x_stderr),
        )

    def __repr__(self) -> str:
        """One field a line, as SciPy prints them; large arrays by their names only."""
        if not self:
            return f"{type(self).__name__}()"
        fields = {
            "message": fill(self.message, 76),
            "success": str(self.success),
            "status": f"{self.status} ({self.reason})",
            "x": _parameters(self.x, self.x_stderr),
            "cost": f"{self.cost:.6g}",
            "optimality": f"{self.optimality:.3g}",
            "noise": between(leaves(self.noise)),
            "nfev": f"{self.nfev} in {self.rounds} rounds",
            "also": ", ".join(name for name in self if name not in PRINTED),
        }
        width = max(map(len, fields))
        return "\n".join(
            f"{name:>{width}}: " + text.replace("\n", "\n" + " " * (width + 2))
            for name, text in fields.items()
        )

    def __dir__(self) -> list[str]:
        return sorted({*self, *object.__dir__(self)})


def _parameters(x: Any, stderr: Any) -> str:
    """Each parameter on a line of its own, with as many digits as hold."""
    rows = [
        f"x{name} = {number(value, err)} "
        + (f"± {error(err)}" if np.isfinite(err) else "(undetermined)")
        for name, value, err in zip(Layout.of(x).names, leaves(x), leaves(stderr))
    ]
    if len(rows) > MOST_ROWS:
        rows[MOST_ROWS:] = [f"... {len(rows) - MOST_ROWS} more in .x and .x_stderr"]
    return "\n".join(rows)


def _combine(fn: Callable[[Any, Any], Any], x: Any, err: Any) -> Any:
    """fn of values like x, entry by entry where they are dicts."""
    if isinstance(x, Mapping):
        return {name: _combine(fn, item, err[name]) for name, item in x.items()}
    return fn(x, err)


def result_of(search: Search, y_layout: Layout | None) -> LeastSquaresResult:
    """The answer of a search so far.

    Raises
    ------
    EvaluationError
        Where no run has succeeded yet.
    """
    if search.center < 0:
        raise EvaluationError(
            "no run has succeeded yet: there is nothing to report", search.log.samples
        )
    with checks.underflow_is_zero(), np.errstate(over="ignore"):
        return _result_of(search, y_layout)


def _result_of(search: Search, y_layout: Layout | None) -> LeastSquaresResult:
    problem, log = search.problem, search.log
    x, model, active = search.answer()
    unit, y_unit = search.region.unit, log.unit
    errors, undetermined = parameter_errors(model, active)
    undetermined |= search.lost
    errors[search.lost] = np.inf
    jac = model.jac / unit
    jac_variance = np.diagonal(model.covariances, axis1=1, axis2=2)[model.group, 1:]
    grad = jac.T @ model.residuals
    reason, samples = search.reason, log.samples
    like_x = problem.x_layout.unflatten
    like_y = np.asarray if y_layout is None else y_layout.unflatten
    per_residual = problem.noise is not None and problem.noise.ndim > 0
    found = LeastSquaresResult()
    found.update(
        x=like_x(x),
        cost=0.5 * model.sum_of_squares * y_unit * y_unit,
        fun=like_y(model.residuals * y_unit),
        jac=jac * y_unit,
        grad=like_x(grad * y_unit * y_unit),
        optimality=_optimality(x, grad, problem.low, problem.high) * y_unit * y_unit,
        active_mask=like_x(_active_mask(x, problem.low, problem.high)),
        nfev=search.nfev,
        njev=search.iterations,
        status=reason.code,
        message=_message(search, undetermined, samples),
        success=reason.success,
        reason=reason,
        x_stderr=like_x(errors * unit),
        jac_stderr=np.sqrt(jac_variance) / unit * y_unit,
        undetermined=like_x(undetermined),
        noise=like_y(model.noise * y_unit) if per_residual else float(model.noise[0] * y_unit),
        rounds=search.rounds,
        samples=samples,
    )
    return found


def _optimality(x: Array, grad: Array, low: Array, high: Array) -> float:
    """First-order optimality: the gradient times the distance to the bound that it points at.

    1 in place of an infinite distance: Coleman and Li, SIAM J. Optim. 6 (1996) 418.
    """
    distance = np.where(grad < 0, high - x, x - low)
    return float(np.max(np.abs(grad) * np.where(np.isfinite(distance), distance, 1.0)))


def _active_mask(x: Array, low: Array, high: Array) -> NDArray[np.intp]:
    """-1 on a lower bound, 1 on an upper one, else 0."""
    return np.where(x <= low, -1, np.where(x >= high, 1, 0))


def _message(search: Search, undetermined: Mask, samples: Samples) -> str:
    """Why the search ended, what the runs do not determine, and how many failed."""
    names = search.problem.x_layout.listed("x", np.flatnonzero(undetermined))
    failed = np.flatnonzero(~samples.ok).tolist()
    parts = [MESSAGES[search.reason]]
    if names:
        parts.append(f"The runs do not determine {names}")
    if failed:
        text = next((samples.errors[i] for i in failed if i in samples.errors), "nan or inf")
        parts.append(f"{len(failed)} of {len(samples)} runs failed: {last_line(text)}")
    return ". ".join(parts)
