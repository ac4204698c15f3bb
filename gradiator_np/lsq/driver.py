"""Fit parameters of noisy simulators: min |fun(x)|^2 in few runs, with intervals of x."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import checks
from gradiator_np.evaluate import Evaluator, Outcome, Run
from gradiator_np.lsq.asktell import LeastSquares
from gradiator_np.samples import EvaluationError, Samples
from gradiator_np.settings import UNBOUNDED

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Array = NDArray[np.float64]


def least_squares(
    fun: Callable[..., Any],
    x0: Any,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    bounds: Any = UNBOUNDED,
    x_scale: Any = None,
    noise: ArrayLike | None = None,
    x_tol: Any = None,
    x_rtol: Any = None,
    max_evals: int | None = None,
    samples: Samples | None = None,
    jac0: ArrayLike | None = None,
    rng: Any = 0,
    workers: Any = 1,
    vectorized: bool = False,
    on_error: str = "adapt",
    run: Run | None = None,
) -> OptimizeResult:
    """Minimise the sum of squares of a function that can only be run, noisy or not.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args, **kwargs)`` returns the residuals, an array of any shape.
    x0, bounds, x_scale, noise, x_tol, x_rtol, max_evals, samples, jac0, rng
        As in `LeastSquares`.
    workers : int, map-like callable or Executor
        With w workers up to w points run at once: trial points, points that mend J, and
        neighbours. Fewer rounds for more runs.
    vectorized : bool
        fun takes (k, *x.shape) and returns (k, *y.shape).
    on_error : {"adapt", "raise"}
        "adapt": a failed run (an exception, nan or inf) is a place to keep away from.
    run : Run, optional
        How points are run.

    Returns
    -------
    OptimizeResult
        ``x`` like x0; ``cost`` half the sum of squares and ``fun`` the residuals there, without
        noise where the model knows better than one run; ``jac`` and ``jac_stderr`` (n, m);
        ``x_stderr`` and ``confidence(0.95)`` = (low, high) for the minimiser of the noise-free sum
        of squares, infinite for parameters that the runs do not determine (``undetermined``):
        they hold what the noise of the runs leaves open, not what errors of data do;
        ``noise`` of one residual of one run; ``nfev``, ``rounds``; ``status`` "noise", "converged",
        "budget" or "no signal", ``success``, ``message``; ``samples``, every run.

    Raises
    ------
    EvaluationError
        Where no run succeeds, or the first failure with ``on_error="raise"``.

    Notes
    -----
    A trust region over the random-Taylor model of all samples near the centre, value + J u +
    curvature + noise, with curvature and noise by restricted likelihood. Points are compared by
    their posterior means, so one lucky run is no progress. Where the errors of J cost more than
    ten predicted decreases, a run mends J instead. It ends after four iterations in which
    neither a Gauss-Newton step nor better values nor a better J could gain more than half a
    standard deviation of the noise in the sum of squares.
    """
    checks.choice(on_error, ("adapt", "raise"), "on_error")
    search = LeastSquares(
        x0, bounds=bounds, x_scale=x_scale, noise=noise, x_tol=x_tol, x_rtol=x_rtol,
        max_evals=max_evals, samples=samples, jac0=jac0, rng=rng,
    )  # fmt: skip
    with Evaluator(
        fun, search.x_layout, args=args, kwargs=kwargs, vectorized=vectorized, workers=workers,
        run=run,
    ) as evaluate:  # fmt: skip
        _drive(search, evaluate, _at_once(workers, vectorized), on_error)
    return search.result()


def _at_once(workers: Any, vectorized: bool) -> int:
    """How many points it pays to run side by side."""
    if isinstance(workers, Executor):
        return int(getattr(workers, "_max_workers", 1))
    if isinstance(workers, (int, np.integer)):
        return (os.cpu_count() or 1) if workers == -1 else int(workers)
    return 4 if vectorized else 1


def _drive(search: LeastSquares, evaluate: Evaluator, width: int, on_error: str) -> None:
    """Run what the search asks for, until it asks for nothing more."""
    while True:
        ids, points = search.request(width)
        if not len(ids):
            return
        if evaluate.y_layout is None:
            ids, points = _first(search, evaluate, ids, points, on_error)
            if not len(ids):
                continue
        try:
            out = evaluate(points, stop="first" if on_error == "raise" else "never")
        except BaseException as exc:
            _take(search, ids, evaluate.outcome)
            _attach(exc, search)
            raise
        _take(search, ids, out)
        if on_error == "raise" and not np.isfinite(out.values[: out.done]).all():
            raise EvaluationError(
                f"a run failed: {next(iter(out.errors.values()), 'it returned nan')}; "
                "on_error='raise' stops here",
                search.samples,
            ) from out.cause


def _take(search: LeastSquares, ids: NDArray[np.intp], out: Outcome) -> None:
    """Tell what has come back, all or a part of it."""
    rows = ids[: out.done]
    if len(rows):
        errors = {int(rows[i]): text for i, text in out.errors.items()}
        values = [None if i in out.errors else out.values[i] for i in range(out.done)]
        search.tell(values, rows, errors)


def _attach(exc: BaseException, search: LeastSquares) -> None:
    """Nothing that was run is lost, whatever ended the work."""
    try:
        exc.samples = search.samples  # type: ignore[attr-defined]
        exc.add_note(f"{search.nfev} runs made before this are in .samples")
    except AttributeError:  # an exception with __slots__
        pass


def _first(
    search: LeastSquares, evaluate: Evaluator, ids: NDArray[np.intp], points: Array, on_error: str
) -> tuple[NDArray[np.intp], Array]:
    """Run points one by one until one has a value, which tells its shape; the rest."""
    cause: EvaluationError | None = None
    for i in range(len(ids)):
        try:
            flat = evaluate.first(points[i])
        except EvaluationError as exc:
            cause = cause or exc
            if on_error == "raise":
                raise
            continue
        _, layout = evaluate.keep(flat)
        search.tell([*[None] * i, flat], ids[: i + 1])
        search.y_layout = layout
        return ids[i + 1 :], points[i + 1 :]
    assert cause is not None
    raise EvaluationError(
        f"fun failed at x0 and at each of the {len(ids) - 1} points around it: "
        f"{cause.__cause__ or cause}",
        search.samples,
    ) from cause
