"""What a fit returns: SciPy's fields, and the standard errors beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, nnls
from scipy.special import stdtrit

from gradiator_np import _checks as checks
from gradiator_np._calibration.constraints import Coordinates
from gradiator_np._calibration.local_model import LocalModel
from gradiator_np._calibration.objective import Objective
from gradiator_np._calibration.parameter_covariance import (
    HETEROSCEDASTIC,
    KINDS,
    DataErrors,
    data_errors,
    second_order,
)
from gradiator_np._calibration.profile import ConditionalFit, Profile, Profiler
from gradiator_np._calibration.search import Search
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._calibration.uncertainty import minimiser_covariance, parameter_errors
from gradiator_np._covariance import ConfidenceInterval
from gradiator_np._samples import EvaluationError, Samples, last_line
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._text import MOST_ROWS, between, error, leaves, number
from gradiator_np._typing import Array, Mask

MESSAGES = {
    Status.NOISE_LIMIT: "the noise of the runs hides what is left to gain; average runs, or set "
    "x_half_width for narrower intervals of the parameters",
    Status.CONVERGED: "no run can lower the sum of squares by more than 1e-8 of it",
    Status.BUDGET: "max_nfev runs are used; raise it to go on from here",
    Status.NO_SIGNAL: "the residuals do not answer to the parameters beyond their noise, however "
    "far these are moved; check x0, x_scale and which parameters fun reads",
    Status.INCOMPLETE: "runs are still wanted",
}

#: Fields that are printed on a line of their own, or on that of another.
PRINTED = {"message", "success", "status", "reason", "x", "stderr", "run_stderr", "cost",
           "optimality", "run_noise", "nfev", "rounds"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FitRecord:
    """What a result keeps beside its fields: what more of it is computed from when asked.

    Attributes
    ----------
    x, low, high : array, shape (m,)
        The parameters and their bounds.
    free, undetermined : array of bool, shape (m,)
        Those that are fitted, and those that nothing determines.
    x_layout : Layout
    coordinates : Coordinates
        From the k parameters that were searched to all.
    unit : array, shape (k,)
        The unit of the covariances below.
    y_unit : float
        The unit of ``data``.
    data : DataErrors
    runs : array, shape (k, k)
        Covariance by the noise of the runs.
    objective : Objective
    """

    x: Array
    low: Array
    high: Array
    free: Mask
    undetermined: Mask
    x_layout: Layout
    coordinates: Coordinates
    unit: Array
    y_unit: float
    data: DataErrors
    runs: Array
    objective: Objective

    def index(self, parameter: int | str) -> int:
        """Of a parameter that is fitted, in flat x.

        Raises
        ------
        ValueError
            For another one.
        """
        names = self.x_layout.names
        if isinstance(parameter, str):
            by_name = {name.lstrip("."): j for j, name in enumerate(names)}
            j = by_name.get(parameter.lstrip("."), -1)
        else:
            j = checks.integer(parameter, "parameter", 0)
        if not 0 <= j < len(names):
            known = self.x_layout.listed("x", range(len(names)))
            raise ValueError(
                f"there is no parameter {parameter!r}; they are {known}, or 0 to {len(names) - 1}"
            )
        if not self.free[j] or self.undetermined[j]:
            what = "undetermined" if self.free[j] else "fixed"
            raise ValueError(f"x{names[j]} is {what}: it has no interval")
        return j

    def _scaled(self, kind: str) -> Array:
        """A covariance in units of ``unit``, what the noise of the runs leaves open included."""
        checks.choice(kind, (*KINDS, "runs"), "kind")
        return self.runs if kind == "runs" else self.data.covariance(kind) + self.runs

    def covariance(self, kind: str) -> Array:
        """Of one kind, of all parameters, in units of x."""
        covariance = self._scaled(kind) * np.outer(self.unit, self.unit)
        basis = self.coordinates.basis
        return covariance if self.coordinates.trivial else basis @ covariance @ basis.T

    def stderr(self, kind: str) -> Array:
        """0 for fixed parameters, inf for undetermined ones, nan where nothing tells it."""
        with np.errstate(invalid="ignore"):
            if self.coordinates.trivial:  # squares may under- and overflow
                error = np.sqrt(np.diagonal(self._scaled(kind))) * self.unit
            else:
                error = np.sqrt(np.diagonal(self.covariance(kind)))
        error = np.where(self.free, error, 0.0)
        return np.where(self.undetermined, np.inf, error)

    def quantile(self, level: float, kind: str) -> float:
        """Half the width of an interval in standard errors."""
        dof = np.inf if kind == "runs" else self.data.quantile_dof
        if kind in HETEROSCEDASTIC:
            dof = float(max(len(self.data.jac) - int(self.data.free.sum()), 0))
        if not dof:
            return np.nan
        return float(stdtrit(min(dof, 1e9), 0.5 + level / 2))


class LeastSquaresResult(OptimizeResult):
    """SciPy's ``OptimizeResult`` with standard errors; `least_squares` says what its fields are.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import least_squares
    >>> t, y = np.arange(6.0), np.array([2.1, 3.8, 6.2, 7.9, 10.1, 11.8])
    >>> fit = least_squares(lambda x: x[0] + x[1] * t - y, [1.0, 1.0])
    >>> fit.x.round(3), fit.stderr.round(3), str(fit.reason)
    (array([2.062, 1.969]), array([0.115, 0.038]), 'converged')
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
    stderr: Any
    run_stderr: Any
    cov: Array
    undetermined: Any
    jac_stderr: Array
    run_noise: Any
    rounds: int
    samples: Samples

    _record: FitRecord
    _refit: Callable[..., LeastSquaresResult]

    def covariance(self, kind: str = "gauss-newton") -> Array:
        """Covariance of the parameters, flat in the order of x.

        Parameters
        ----------
        kind : str
            "gauss-newton": by J'J, as ``cov`` and `scipy.optimize.curve_fit` have it; with a loss
            other than squares Huber's [1]_. "hessian": with the second derivatives of the
            residuals as well, as far as the runs tell them. "HC0", "HC1", "HC2", "HC3": by the
            residuals themselves [2]_, for errors that differ between data, or a ``sigma`` that is
            not trusted; HC3 holds in small samples. "runs": only what the noise of the runs leaves
            open, which the others include.

        Returns
        -------
        array, shape (m, m)
            0 for fixed parameters; nan where too few residuals tell it.

        References
        ----------
        .. [1] Huber, Robust Statistics, Wiley 1981, eq. 7.6.5.
        .. [2] MacKinnon and White, J. Econometrics 29 (1985) 305.

        Examples
        --------
        >>> import numpy as np
        >>> from gradiator_np import least_squares
        >>> t, y = np.arange(6.0), np.array([2.1, 3.8, 6.2, 7.9, 10.1, 11.8])
        >>> fit = least_squares(lambda x: x[0] + x[1] * t - y, [1.0, 1.0])
        >>> fit.covariance("HC3").shape
        (2, 2)
        """
        return self._record.covariance(kind)

    def confidence_interval(
        self, confidence_level: float = 0.95, kind: str = "gauss-newton"
    ) -> ConfidenceInterval:
        """Intervals that hold each parameter with that probability, within its bounds.

        By Student's t where the errors of the data are found from the residuals, else normal.

        Parameters
        ----------
        confidence_level : float
            Between 0 and 1.
        kind : str
            As in `covariance`.

        Returns
        -------
        ConfidenceInterval
            ``low`` and ``high``, each like x; unpacks as a pair. As far as the bounds for
            parameters that the runs do not determine.

        Examples
        --------
        >>> from gradiator_np import least_squares
        >>> fit = least_squares(lambda x: [x[0] - 3, x[0] * x[1] - 6], [1.0, 1.0], sigma=0.1)
        >>> low, high = fit.confidence_interval(0.9)
        >>> bool((low <= [3, 2]).all() and ([3, 2] <= high).all())
        True
        """
        record = self._record
        z = record.quantile(checks.level(confidence_level), kind)
        half = z * record.stderr(kind)
        half = np.where(record.free, half, 0.0)
        like_x = record.x_layout.unflatten
        return ConfidenceInterval(
            like_x(np.maximum(record.x - half, record.low)),
            like_x(np.minimum(record.x + half, record.high)),
        )

    def profile(self, parameter: int | str, confidence_level: float = 0.95) -> Profile:
        """The profile interval of one parameter, by fits of the others with more runs.

        As far as the parameter may go until the least sum of squares by the others has risen by
        what ``confidence_level`` allows: right where the model is bent too much for the symmetric
        ``confidence_interval``. (MINOS of Minuit is the same.) All runs made so far are used.

        Parameters
        ----------
        parameter : int or str
            Which one, counted in flat x, or its name where x is a dict.
        confidence_level : float
            Between 0 and 1.

        Returns
        -------
        Profile
            ``low`` and ``high``, and the conditional fits that they rest on.

        Raises
        ------
        ValueError
            Where there is no such parameter, it is fixed or undetermined, or this result cannot
            run ``fun``: those of `LeastSquares`, and those that come from a pickle.

        Examples
        --------
        >>> import numpy as np
        >>> from gradiator_np import least_squares
        >>> t, y = np.arange(6.0), np.array([2.1, 3.8, 6.2, 7.9, 10.1, 11.8])
        >>> fit = least_squares(lambda x: x[0] + x[1] * t - y, [1.0, 1.0])
        >>> low, high = fit.confidence_interval()
        >>> profile = fit.profile(1)  # of a linear model it is the interval by J'J
        >>> bool(np.allclose([low[1], high[1]], [profile.low, profile.high], rtol=1e-3))
        True
        """
        record, level = self._record, checks.level(confidence_level)
        j = record.index(parameter)
        refit = self.__dict__.get("_refit")
        if refit is None:
            raise ValueError(
                "this result cannot run fun (it comes from LeastSquares or from a pickle): call "
                "least_squares(fun, fit.x, samples=fit.samples) with the same options, and "
                "profile() of what it returns"
            )
        samples = [self.samples]
        quantile = record.quantile(level, "gauss-newton")
        variance = record.data.cost_variance * record.y_unit**2
        # a hundredth of what the sum of squares rises by at an end
        ftol = float(np.clip(0.01 * quantile**2 * variance / (2.0 * self.cost), 1e-8, 1e-2))

        def fit(start: Array, j: int) -> ConditionalFit:
            before = len(samples[0])
            try:
                found = refit(start, j, samples[0], ftol)
            except EvaluationError as exc:
                samples[0] = exc.samples or samples[0]
                return ConditionalFit(start, np.inf, len(samples[0]) - before)
            samples[0] = found.samples
            return ConditionalFit(found._record.x, 2.0 * found.cost, found.nfev)

        profiler = Profiler(
            record.x, record.covariance("gauss-newton"), 2.0 * self.cost,
            variance, record.low, record.high, fit,
        )  # fmt: skip
        return profiler.profile(j, record.x_layout.names[j], level, quantile)

    def __getstate__(self) -> dict[str, Any]:
        """Without the function that was run, which mostly cannot be pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_refit"}

    def __repr__(self) -> str:
        """One field a line, as SciPy prints them; large arrays by their names only."""
        if not self:
            return f"{type(self).__name__}()"
        fields = {
            "message": fill(self.message, 76),
            "success": str(self.success),
            "status": f"{self.status} ({self.reason})",
            "x": _parameters(self.x, self.stderr, self.run_stderr),
            "cost": f"{self.cost:.6g}",
            "optimality": f"{self.optimality:.3g}",
            "run_noise": between(leaves(self.run_noise)),
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


def _parameters(x: Any, stderr: Any, run_stderr: Any) -> str:
    """Each parameter on a line of its own, with as many digits as hold."""
    rows = [
        f"x{name} = {_with_error(value, err, run)}"
        for name, value, err, run in zip(
            Layout.of(x).names, leaves(x), leaves(stderr), leaves(run_stderr)
        )
    ]
    if len(rows) > MOST_ROWS:
        rows[MOST_ROWS:] = [f"... {len(rows) - MOST_ROWS} more in .x and .stderr"]
    return "\n".join(rows)


def _with_error(value: float, stderr: float, run_stderr: float) -> str:
    """A parameter, its standard error, and what of that is noise of the runs."""
    if np.isinf(stderr):
        return f"{number(value, stderr)} (undetermined)"
    if stderr == 0:
        return f"{number(value, stderr)} (fixed)"
    if np.isnan(stderr):
        return f"{number(value, run_stderr)} ± {error(run_stderr)} by noise of the runs alone"
    return f"{number(value, stderr)} ± {error(stderr)} (noise of the runs: {error(run_stderr)})"


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
    free = problem.high > problem.low
    run_stderr, undetermined = parameter_errors(model, active)
    objective, n = problem.objective, log.n_data
    wide, wide_unit = search.wide_model(x)
    bends = second_order(wide, model.residuals[:n]) * np.outer(unit / wide_unit, unit / wide_unit)
    data = data_errors(model, bends, objective, y_unit, free, problem.absolute_sigma)
    data = replace(data, undetermined=data.undetermined | undetermined)
    coordinates, movable = problem.coordinates, problem.movable
    record = FitRecord(
        coordinates.expand(x), *problem.bounds, movable,
        movable & (np.abs(coordinates.basis) @ data.undetermined > 0), problem.x_layout,
        coordinates, unit, y_unit, data, _run_covariance(model, active, run_stderr), objective,
    )  # fmt: skip
    output = objective.output(model.residuals[:n] * y_unit)
    by_output = objective.slope(output)[:, None] / y_unit
    # from the parameters that were searched to all: the least J that has these slopes
    back = np.linalg.pinv(coordinates.basis) / unit[:, None]
    jac_variance = np.einsum("gij,ik,jk->gk", model.covariances[:, 1:, 1:], back, back)
    jac_stderr = np.sqrt(np.maximum(jac_variance, 0.0))[model.group[:n]] / by_output
    grad = model.jac.T @ model.residuals / unit
    run_noise = model.noise[:n] / by_output[:, 0]
    reason, samples = search.reason, log.samples
    like_x = problem.x_layout.unflatten
    like_y = np.asarray if y_layout is None else y_layout.unflatten
    # one number where it is one for all residuals
    same = np.ptp(run_noise) <= 1e-12 * run_noise.max()
    found = LeastSquaresResult()
    found.update(
        x=like_x(record.x),
        cost=0.5 * model.sum_of_squares * y_unit * y_unit,
        fun=like_y(output),
        jac=model.jac[:n] @ back / by_output,
        grad=like_x(model.residuals @ model.jac @ back * y_unit * y_unit),
        optimality=_optimality(x, grad, search.region) * y_unit * y_unit,
        active_mask=like_x(_active_mask(record.x, *problem.bounds)),
        nfev=search.nfev,
        njev=search.iterations,
        status=reason.code,
        message=_message(search, record, samples),
        success=reason.success,
        reason=reason,
        stderr=like_x(record.stderr("gauss-newton")),
        run_stderr=like_x(record.stderr("runs")),
        cov=record.covariance("gauss-newton"),
        jac_stderr=jac_stderr,
        undetermined=like_x(record.undetermined),
        run_noise=float(run_noise[0]) if same else like_y(run_noise),
        rounds=search.rounds,
        samples=samples,
    )
    object.__setattr__(found, "_record", record)
    return found


def _run_covariance(model: LocalModel, active: Mask, stderr: Array) -> Array:
    """Covariance of the minimiser by the noise of the runs, with the variances that are told."""
    cov, _ = minimiser_covariance(model, active)
    each = np.arange(len(cov))
    cov[each, each] = np.where(np.isfinite(stderr), np.square(stderr), cov[each, each])
    return cov


def _optimality(x: Array, grad: Array, region: TrustRegion) -> float:
    """First-order optimality: the gradient times the distance to the bound that it points at.

    1 in place of an infinite distance: Coleman and Li, SIAM J. Optim. 6 (1996) 418. Of the
    gradient, what half-spaces that hold x can balance is taken away first.
    """
    if region.rows is not None and region.limits is not None:
        slack = region.limits - region.rows @ x
        holding = slack <= 1e-8 * (np.abs(region.rows) @ region.scale)
        if holding.any():
            lines = region.rows[holding].T
            multipliers, _ = nnls(lines, -grad)
            grad = grad + lines @ multipliers
    distance = np.where(grad < 0, region.high - x, x - region.low)
    return float(np.max(np.abs(grad) * np.where(np.isfinite(distance), distance, 1.0)))


def _active_mask(x: Array, low: Array, high: Array) -> NDArray[np.intp]:
    """-1 on a lower bound, 1 on an upper one, else 0."""
    return np.where(x <= low, -1, np.where(x >= high, 1, 0))


def _message(search: Search, record: FitRecord, samples: Samples) -> str:
    """Why the search ended, what bounds hold, what is not determined, and how many runs failed."""
    layout, x, data = record.x_layout, record.x, record.data
    parts = [MESSAGES[search.reason]]
    for at, side in (((x <= record.low), "lower"), ((x >= record.high), "upper")):
        if names := layout.listed("x", np.flatnonzero(at & record.free)):
            parts.append(f"{names} at the {side} bound")
    if names := layout.listed("x", np.flatnonzero(record.undetermined)):
        parts.append(f"The runs do not determine {names}")
    if data.dof <= 0 and data.variance is None:
        parts.append(
            "No more residuals than parameters: nothing tells the errors of data; where there are "
            "any, give them as sigma with absolute_sigma=True"
        )
    if search.noise_was_contradicted:
        parts.append(
            "run_noise was not believed: the runs scatter by far less, or far more, than that "
            "(found: run_noise of this result). It is the repeatability of the program; errors of "
            "the data are sigma"
        )
    if text := _failures(samples):
        parts.append(text)
    return ". ".join(parts)


def _failures(samples: Samples) -> str:
    """How many runs failed, and by what where that was the same."""
    failed = np.flatnonzero(~samples.ok).tolist()
    if not failed:
        return ""
    texts = Counter(last_line(samples.errors.get(i, "nan or inf")) for i in failed)
    text, count = texts.most_common(1)[0]
    alike = "" if count == len(failed) else f" ({count} of them alike)"
    return f"{len(failed)} of {len(samples)} runs failed{alike}: {text}"
