"""Fit parameters of noisy simulators: min |fun(x)|^2 in few runs, with intervals of x."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._calibration.assembly import result_of
from gradiator_np._calibration.problem import FitProblem
from gradiator_np._calibration.result import LeastSquaresResult
from gradiator_np._calibration.search import Search
from gradiator_np._calls import text_of
from gradiator_np._evaluate import Evaluator, Outcome
from gradiator_np._options import LeastSquaresOptions, RunOptions, takes
from gradiator_np._samples import EvaluationError, Samples, attach, last_line
from gradiator_np._signatures import complete, defaults
from gradiator_np._status import warn
from gradiator_np._typing import Array
from gradiator_np._workers import width

#: Runs of a conditional fit, per parameter.
CONDITIONAL_BUDGET = 25


@takes(LeastSquaresOptions)
def least_squares(
    fun: Callable[..., Any],
    x0: Any,
    *,
    on_error: str = "adapt",
    **options: Unpack[LeastSquaresOptions],
) -> LeastSquaresResult:
    """Minimise the sum of squares of a function that can only be run, noisy or not.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args, **kwargs)`` returns the residuals, an array of any shape, n in all.
    x0 : array_like or dict
        Where the search starts, m numbers in all.
    on_error : {"adapt", "raise"}
        "adapt": a failed run (an exception, nan or inf) is a place to keep away from.
    **options : Options

    Returns
    -------
    LeastSquaresResult
        SciPy's ``OptimizeResult`` with the fields of `scipy.optimize.least_squares`,

        x : like x0
            The parameters found.
        cost : float
            What is minimised: half the sum of squares of the residuals over ``sigma``, or of their
            ``loss``, and of the prior.
        fun : like the residuals
            The residuals there, as fun returns them. They, and so ``cost``, are without noise
            where the model of all runs knows better than one run.
        jac : array, shape (n, m)
            The Jacobian there, in residual per x, by the same model.
        grad : like x0
            Gradient of ``cost``; jac^T fun without sigma, loss and prior.
        optimality : float
            Largest entry of the gradient, each times the distance to the bound that it descends
            to, where there is one. Noise keeps it from 0.
        active_mask : like x0
            -1 on a lower bound, 1 on an upper one, else 0.
        nfev : int
            Runs of ``fun`` by this call, failed ones included.
        njev : int
            Jacobians that steps were made from, one an iteration; they cost no runs of their own.
        status : int
            4: the noise of the runs hides what is left to gain. 3: no run can lower the sum of
            squares any further. 0: ``max_nfev`` runs are used. -5: the residuals do not answer to
            the parameters beyond their noise. -1: they determine no parameter, or do not answer any
            more to one that they answered to at the start. -10: runs fail on the way to where the
            sum of squares is lower. -2: runs are still wanted (`LeastSquares` only).
        success : bool
            Whether ``status`` is positive: a minimum by all parameters that matter. One that
            changes nothing, wherever it is, is ``undetermined`` and no failure; one that changes
            nothing at ``x`` and does elsewhere is one.
        message : str
            What ``status`` means here and what to do, which parameters the runs do not
            determine, which units (``x_scale``) they told, and how many runs failed.

        and its own,

        reason : Status
            The word for ``status``: NOISE_LIMIT, CONVERGED, BUDGET, NO_SIGNAL, UNDETERMINED,
            FAILING_REGION or INCOMPLETE.
        stderr : like x0
            Standard errors of the parameters as `scipy.optimize.curve_fit` has them: what the
            errors of the data leave open, by J'J and ``sigma``, and what the noise of the runs
            does. inf where ``undetermined``, 0 for fixed parameters, nan where there are no more
            residuals than parameters and nothing else tells the errors of the data.
        run_stderr : like x0
            The share of it that the noise of the runs has: standard errors of ``x`` as the
            minimiser of the noise-free sum of squares. Where it is small, more runs do not help.
        cov : array, shape (m, m)
            Covariance of the parameters, whose diagonal is ``stderr`` squared.
        undetermined : like x0
            Whether the runs do not determine a parameter.
        jac_stderr : array, shape (n, m)
            Standard errors of ``jac``.
        run_noise : float, or like the residuals where it differs between them
            Repeatability of the program: standard deviation of one residual between runs at x.
        rounds : int
            How often points were run, several at once with ``workers``.
        samples : Samples
            Every run, earlier ones included.

        ``confidence_interval(0.95)`` gives ``low`` and ``high`` of each parameter,
        ``covariance(kind)`` other covariances, ``profile(i)`` likelihood intervals, ``report()``
        what goes into a paper, ``predict(forecast)`` functions of the parameters.

    Raises
    ------
    ValueError
        Where residuals change their shape from one run to another.
    EvaluationError
        Where no run succeeds, or the first failure with ``on_error="raise"``. Like any exception
        that passes through, it carries the runs made before it as ``samples``.

    Notes
    -----
    With w ``workers`` up to w points run at once: trial points, points that improve J, and
    neighbours. Fewer rounds for more runs, and unlike a Jacobian the result depends on w.

    A trust region over the local model of all runs near the centre: residuals + J u + curvature +
    noise, a Gaussian process on a linear trend whose curvature and noise are found by restricted
    maximum likelihood. Points are compared by their posterior means, so one lucky run is no
    progress. Where the expected loss by errors of J exceeds ten predicted decreases, a run
    improves J instead. It ends after four iterations in which neither a Gauss-Newton step nor
    better values nor a better J could gain more than a quarter of a standard deviation of the noise
    in the sum of squares, and ``ftol`` of it; two, and one run along each parameter, where runs
    have no noise. Where the runs determine no parameter then, noise being what hides them, up to as
    many again are made. A bound holds a parameter only where a run inside of it has told its slope.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import least_squares
    >>> rng, t = np.random.default_rng(0), np.linspace(0, 4, 30)
    >>> data = 2 * np.exp(-0.7 * t)
    >>> def residuals(x):
    ...     return x[0] * np.exp(-x[1] * t) - data + 0.01 * rng.standard_normal(30)
    >>> fit = least_squares(residuals, [1.0, 1.0])
    >>> fit.success, str(fit.reason)
    (True, 'noise_limit')
    >>> low, high = fit.confidence_interval(0.95)
    >>> bool((low < [2, 0.7]).all() and ([2, 0.7] < high).all())
    True
    """
    checks.choice(on_error, ("adapt", "raise"), "on_error")
    known = complete(options, LeastSquaresOptions)
    problem = FitProblem.of(x0, known)
    search = Search(problem, checks.generator(known["rng"]))
    running = {name: known[name] for name in defaults(RunOptions)}
    with Evaluator(fun, problem.x_layout, **running) as evaluate:
        try:
            _drive(search, evaluate, width(known["workers"]), on_error == "raise")
        except BaseException as exc:
            attach(exc, search.log.samples)
            raise
    found = result_of(search, evaluate.y_layout)
    scale = problem.x_scale.copy()
    scale[problem.coordinates.independent] = search.region.scale
    known["x_scale"] = problem.x_layout.unflatten(scale)
    object.__setattr__(found, "_refit", partial(_refit, fun, problem, on_error, known))
    if search.noise_was_contradicted:
        warn(found.message, found)
    return found


def _refit(
    fun: Callable[..., Any], problem: FitProblem, on_error: str, options: dict[str, Any],
    start: Array, j: int, samples: Samples, ftol: float,
) -> LeastSquaresResult:  # fmt: skip
    """The same fit from a start at which parameter j stays, with the runs made so far."""
    fixed = problem.fixed.copy()
    fixed[j] = True
    like_x = problem.x_layout.unflatten
    again = {
        **options, "fixed": like_x(fixed), "samples": samples, "jac0": None,
        "x_half_width": None, "x_rel_half_width": None,
        "ftol": ftol, "xtol": 1e-3, "gtol": None, "max_nfev": CONDITIONAL_BUDGET * len(start),
    }  # fmt: skip
    return least_squares(fun, like_x(start), on_error=on_error, **again)


def _drive(search: Search, evaluate: Evaluator, most: int, strict: bool) -> None:
    """Run what the search asks for, until it asks for nothing more."""
    while True:
        points, ids = search.ask(most)
        if not len(ids):
            return
        first = evaluate.y_layout is None  # until a value tells the shape of all, one at a time
        out = Outcome()
        try:
            if first:
                out = _run_first(search, evaluate, search.problem.coordinates.expand(points[0]))
            else:
                evaluate(
                    search.problem.coordinates.expand(points),
                    out=out,
                    stop="first" if strict else "never",
                )
        finally:
            _tell(search, ids, out)
        if out.reshaped is not None:
            raise ValueError(
                f"{out.errors[out.reshaped]}: a sum of squares compares the same residuals at all "
                "points; return as many everywhere, and raise an exception where a run has failed"
            )
        if strict and not np.isfinite(out.values[: out.done]).all():
            raise EvaluationError(
                f"a run failed: {next(iter(out.errors.values()), 'it returned nan or inf')}; "
                "on_error='raise' stops here"
            ) from out.cause
        if first and out.errors and len(ids) == 1 and search.center < 0:
            beside = f" and at each of the {n} points around it" if (n := search.nfev - 1) else ""
            why = last_line(out.errors[0])
            raise EvaluationError(f"fun failed at x0{beside}: {why}") from out.cause


def _run_first(search: Search, evaluate: Evaluator, point: Array) -> Outcome:
    """Run one point while no run has succeeded."""
    try:
        flat = evaluate.first(point)
    except EvaluationError as exc:
        cause = exc.__cause__ or exc
        return Outcome(np.full((1, 1), np.nan), {0: text_of(cause)}, 1, cause)
    assert evaluate.y_layout is not None
    search.problem.check_residuals(evaluate.y_layout, flat.dtype)
    return Outcome(flat[None].astype(np.float64), done=1)


def _tell(search: Search, ids: NDArray[np.intp], out: Outcome) -> None:
    """Tell what has come back, all or a part of it."""
    told = ids[: out.done].tolist()
    if told:
        search.tell(
            {i: None if row in out.errors else out.values[row] for row, i in enumerate(told)},
            {told[row]: text for row, text in out.errors.items()},
        )
