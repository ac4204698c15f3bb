"""What a fit returns: SciPy's fields, and the standard errors beside them."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import fill
from typing import Any, Unpack

import numpy as np
from scipy.optimize import OptimizeResult

from gradiator_np import _checks as checks
from gradiator_np._calibration.fit_record import FitRecord
from gradiator_np._calibration.fit_statistics import residual_sd
from gradiator_np._calibration.predict import predict
from gradiator_np._calibration.prediction import Prediction
from gradiator_np._calibration.profile import ConditionalFit, Profile, Profiler
from gradiator_np._calibration.report import FitReport, report_of
from gradiator_np._covariance import ConfidenceInterval
from gradiator_np._options import Options, takes
from gradiator_np._samples import EvaluationError, Samples
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._text import MOST_ROWS, between, error, leaves, number
from gradiator_np._typing import Array

#: Fields that are printed on a line of their own, or on that of another.
PRINTED = {"message", "success", "status", "reason", "x", "stderr", "run_stderr", "cost",
           "optimality", "run_noise", "nfev", "rounds"}  # fmt: skip


class LeastSquaresResult(OptimizeResult):
    """SciPy's ``OptimizeResult`` with standard errors; `least_squares` says what its fields are.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import least_squares
    >>> t, y = np.arange(6.0), np.array([2.1, 3.8, 6.2, 7.9, 10.1, 11.8])
    >>> fit = least_squares(lambda x: x[0] + x[1] * t - y, [1.0, 1.0])
    >>> fit.x.round(3), fit.stderr.round(3), str(fit.reason)
    (array([2.048, 1.974]), array([0.134, 0.044]), 'converged')
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
            0 for fixed parameters; nan where too few residuals tell it. Where bounds or constraints
            hold x: mean squares about x of the normal law within them, which are those without
            them where they hold by chance, and those of equalities where data contradict them.

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
        >>> fit = least_squares(lambda x: [x[0] - 3, x[0] * x[1] - 6], [1.0, 1.0], sigma=0.1,
        ...                     absolute_sigma=True)
        >>> low, high = fit.confidence_interval(0.9)
        >>> bool((low <= [3, 2]).all() and ([3, 2] <= high).all())
        True
        """
        low, high = self._record.interval(checks.level(confidence_level), kind)
        like_x = self._record.x_layout.unflatten
        return ConfidenceInterval(like_x(low), like_x(high))

    def report(
        self, *, names: Any = None, units: Any = None, data: Any = None,
        kind: str = "gauss-newton", min_correlation: float = 0.1, x_scale: Any = None,
    ) -> FitReport:  # fmt: skip
        """What was found and how well, ready for a paper: print it, or show it in a notebook.

        Parameters
        ----------
        names, units : sequence of str, or dict like x, optional
            What the parameters are called, by default ".a" for entries of a dict and "x[0]" for
            others, and their units.
        data : float or like the residuals, optional
            The observed values, for R-squared.
        kind : str
            Of standard errors and correlations, as in `covariance`.
        min_correlation : float
            Smaller correlations are not listed.
        x_scale : float or like x, optional
            What combinations of parameters are counted in; by default the size of each.

        Returns
        -------
        FitReport

        Raises
        ------
        TypeError, ValueError
            For arguments of another shape, or out of range.

        Examples
        --------
        >>> import numpy as np
        >>> from gradiator_np import least_squares
        >>> t, y = np.arange(6.0), np.array([2.1, 3.8, 6.2, 7.9, 10.1, 11.8])
        >>> fit = least_squares(lambda x: x[0] + x[1] * t - y, [1.0, 1.0])
        >>> report = fit.report(names=["offset", "slope"], units=["m", "m/s"], data=y)
        >>> first, second, correlation = report.correlations[0]
        >>> first, second, round(correlation, 3)
        ('offset', 'slope', -0.826)
        """
        return report_of(self, names=names, units=units, data=data, kind=kind,
                         min_correlation=min_correlation, x_scale=x_scale)  # fmt: skip

    @takes(Options)
    def predict(
        self, forecast: Any, *, kind: str = "gauss-newton", sigma: Any = None,
        sampling: int | None = None, **options: Unpack[Options],
    ) -> Prediction:  # fmt: skip
        """Forecasts from the fitted parameters, with what their errors leave open.

        To first order g C g', g the slopes of a forecast and C the covariance of the parameters,
        and the noise of one run of the forecast; or, with ``sampling``, by forecasts at parameters
        that are drawn.

        Parameters
        ----------
        forecast : callable, array_like of shape (..., m), or JacobianEstimate
            ``forecast(x, *args, **kwargs)``, any numbers by parameters like x; a matrix for linear
            ones; or what `jacobian` returned for it at the fit's x.
        kind : str
            Of covariance, as in `covariance`.
        sigma : float or like the forecasts, or "residuals", optional
            Standard deviation of one new observation, for ``prediction_interval``; "residuals":
            that of the residuals, where the fit found it.
        sampling : int, optional
            So many draws from the normal law of the parameters, or Student's t where intervals
            have it, within their bounds: for forecasts that bend within the errors of the
            parameters. Each takes a run.
        **options : Options

            By default ``x_scale`` is 8 standard errors of each parameter where the others are
            known: runs that scatter are made up to 4 of them away. ``min_step`` is a tenth of one,
            and ``bounds`` are those of the fit.

        Returns
        -------
        Prediction
            ``value``, ``stderr``, ``confidence_interval(level)``, ``prediction_interval(level)``.

        Raises
        ------
        EvaluationError
            Where the forecast fails at x, or at every draw.
        TypeError, ValueError
            For arguments of another shape or kind, and draws that cannot be made.

        Warns
        -----
        GradiatorWarning
            Where the Jacobian of the forecasts may be wrong.

        Examples
        --------
        >>> import numpy as np
        >>> from gradiator_np import least_squares
        >>> t, y = np.arange(6.0), np.array([2.1, 3.8, 6.2, 7.9, 10.1, 11.8])
        >>> fit = least_squares(lambda x: x[0] + x[1] * t - y, [1.0, 1.0])
        >>> forecast = fit.predict(lambda x: x[0] + 9 * x[1], sigma="residuals")
        >>> low, high = forecast.prediction_interval()
        >>> float(round(low, 2)), float(round(high, 2))
        (18.84, 20.79)
        """
        return predict(self._record, forecast, kind, sigma, residual_sd(self.fun, self._record),
                       sampling, options)  # fmt: skip

    def to_dataframe(self) -> Any:
        """One row for each parameter: that of `report`.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            Where pandas is not installed.
        """
        return self.report().to_dataframe()

    def _repr_html_(self) -> str:
        return self.report()._repr_html_() if self else ""

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
                found = refit(record.allowed(start, j), j, samples[0], ftol)
            except EvaluationError as exc:
                samples[0] = exc.samples or samples[0]
                return ConditionalFit(start, np.inf, len(samples[0]) - before)
            samples[0] = found.samples
            return ConditionalFit(found._record.x, 2.0 * found.cost, found.nfev)

        profiler = Profiler(
            record.x, record.covariance("gauss-newton"), 2.0 * self.cost,
            variance, record.extent, fit,
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
