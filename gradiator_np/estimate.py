"""The front door: Jacobians and their products of a function that can only be run."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import checks
from gradiator_np.calls import Failure, Seeds
from gradiator_np.designs.stencil import ORDERS
from gradiator_np.estimator import JacobianEstimator
from gradiator_np.evaluate import (
    ALIKE,
    Evaluator,
    Outcome,
    Run,
    failed_at_x,
    is_jitted,
)
from gradiator_np.express import Express, Left
from gradiator_np.results import JacobianEstimate
from gradiator_np.samples import EvaluationError, last_line
from gradiator_np.settings import UNBOUNDED
from gradiator_np.status import Status, warn
from gradiator_np.structure import Layout

Array = NDArray[np.float64]

# Points are handed over in parts of at most this size, so that a VJP of a million inputs does
# not hold a million points at once.
PART_BYTES = 2**26

# The express lane holds all points of a stencil at once, up to this many numbers.
EXPRESS_SIZE = 2**20
_is_none = partial(operator.is_, None)
# Options that take a call off it.
SPECIAL = (
    "rel_step", "abs_step", "x_scale", "noise", "max_evals", "tol", "rtol", "min_step",
    "max_step", "solver", "jac0", "run", "seed_arg",
)  # fmt: skip

# Statuses under which the numbers may be wrong: these warn.
DOUBTFUL = frozenset(
    {Status.FAILED_RUNS, Status.LACK_OF_FIT, Status.TWO_SCALES, Status.NO_SIGNAL,
     Status.NOT_CONVERGED, Status.EXTRAPOLATION, Status.BUDGET}
)  # fmt: skip


class Options(TypedDict, total=False):
    """What ``jacobian`` takes beside fun and x; the other functions take the same."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None
    method: Any
    rel_step: Any
    abs_step: Any
    x_scale: Any
    f0: Any
    bounds: Any
    noise: Any
    max_evals: int | None
    tol: Any
    rtol: float | None
    min_step: Any
    max_step: Any
    solver: Any
    jac0: Any
    workers: Any
    vectorized: bool
    batch_dims: int
    on_error: str
    seed_arg: str | None
    run: Run | None
    rng: Any


def jacobian(
    fun: Callable[..., Any],
    x: Any,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    method: Any = "auto",
    rel_step: Any = None,
    abs_step: Any = None,
    x_scale: Any = None,
    f0: Any = None,
    bounds: Any = UNBOUNDED,
    noise: Any = None,
    max_evals: int | None = None,
    tol: Any = None,
    rtol: float | None = None,
    min_step: Any = None,
    max_step: Any = None,
    solver: Any = None,
    jac0: Any = None,
    workers: Any = 1,
    vectorized: bool = False,
    batch_dims: int = 0,
    on_error: str = "adapt",
    seed_arg: str | None = None,
    run: Run | None = None,
    rng: Any = None,
) -> JacobianEstimate:
    """Estimate the Jacobian of ``fun`` at x.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args, **kwargs)`` with x of any shape, or a dict of arrays; returns an array of
        any shape, a scalar, or a dict of arrays. Called once for each point.
    x : array_like or dict of array_like
        The point. Integers are promoted to float64; float32 stays, with steps for that precision.
    args, kwargs : tuple, dict
        Passed on to ``fun``.
    method : str or design
        "auto" (default) finds the noise of each output and chooses steps from noise and
        curvature: 2 m + 9 evaluations for a smooth deterministic function of m inputs, at most
        5 m + 10 for others, and where slopes at small and wide steps disagree. "2-point",
        "3-point", "5-point", "7-point" or "9-point": stencils of order 1, 2, 4, 6, 8, as many
        evaluations for each input, and one at x. "cs": complex step, exact to rounding for
        analytic functions. Or a design, such as ``designs.Hadamard(step=...)``.
    rel_step : scalar or like x, optional
        Steps relative to |x|, or to ``x_scale`` where it is given; a negative one steps back.
        Steps turn "auto" into "3-point".
    abs_step : scalar or like x, optional
        Steps in units of x; wins over ``rel_step``.
    x_scale : scalar or like x, optional
        Typical size of each input; by default |x|, and where x is 0 the median of the others.
    f0 : array_like or dict, optional
        ``fun(x)``, where it is known: saves one evaluation.
    bounds : pair of (scalar or like x), or scipy.optimize.Bounds
        No evaluation outside. Inputs with equal bounds are fixed: not moved, ``stderr`` inf.
    noise : scalar or like y, optional
        Standard deviation of one evaluation, where it is known; 0 for none. By default ("auto")
        it is found.
    max_evals : int, optional
        Evaluations that "auto" may use, that at x included.
    tol, rtol : float, or like jac (tol), optional
        Wanted standard error: absolute, and relative to the norm of each row of J. "auto" goes on
        until it is met.
    min_step, max_step : scalar or like x, optional
        Limits of the steps of "auto", in units of x: a program that is rough below a scale, a rig
        that may be moved by so much and no more.
    solver : str or Solver, optional
        Solve the samples by "pinv", "huber", "spectral", "rank-one", "taylor" or an object with
        options, as in ``fit_points``, in place of the method's own weights.
    jac0 : like jac, optional
        The solver's prior Jacobian.
    workers : int, callable or concurrent.futures.Executor
        1: a plain loop. Another int: processes (-1: one for each core). A map-like callable.
        An executor, of threads where ``fun`` releases the GIL. Results are the same bit for bit.
        Not used with ``vectorized``, where one call takes all points.
    vectorized : bool
        ``fun`` takes points (k, *x.shape) and returns (k, *y.shape). (SciPy's are columns.)
    batch_dims : int
        So many leading axes of x and y are independent points, all perturbed at once.
    on_error : {"adapt", "drop", "raise"}
        What to do where a run raises or returns nan: replace the point by another (default),
        go on without it, or stop. With the first two outputs fail one by one, and ``stderr`` is
        inf where a direction was lost.
    seed_arg : str, optional
        For random simulators: the name of the argument of ``fun`` that takes a seed (an int; a
        Generator where its name is rng). Both ends of a difference get the same (common random
        numbers), so noise that does not depend on x cancels. "auto" then runs antithetic pairs,
        each with a seed of its own, whose scatter tells what does not cancel.
    run : Run, optional
        How to run: progress.
    rng : None, int, or numpy.random.Generator
        For designs that draw random numbers; None stands for 0, so that calls can be repeated.

    Returns
    -------
    JacobianEstimate
        ``jac`` and ``stderr`` of shape ``y.shape + x.shape``, in y per x.

    Raises
    ------
    EvaluationError
        Where ``fun`` fails at x itself, where the first points all fail alike (a bug in ``fun``),
        or at the first failure with ``on_error="raise"``; its ``samples`` hold every run made.
    TypeError, ValueError
        For arguments that make no sense, before ``fun`` is called.

    Warns
    -----
    GradiatorWarning
        Where the estimate may be wrong; ``status`` and ``message`` say why.

    Examples
    --------
    >>> from gradiator_np import jacobian
    >>> estimate = jacobian(lambda x: [x[0] * x[1], x[0] ** 2], [2.0, 3.0], method="5-point")
    >>> estimate.jac.round(8)
    array([[3., 2.],
           [4., 0.]])
    """
    options: Options = {
        "args": args, "kwargs": kwargs, "method": method, "rel_step": rel_step,
        "abs_step": abs_step, "x_scale": x_scale, "bounds": bounds, "noise": noise,
        "max_evals": max_evals, "tol": tol, "rtol": rtol, "min_step": min_step,
        "max_step": max_step, "solver": solver, "jac0": jac0, "workers": workers,
        "vectorized": vectorized, "on_error": on_error, "seed_arg": seed_arg, "run": run,
        "rng": rng,
    }  # fmt: skip
    return _estimate(fun, x, options, f0, batch_dims)


def _estimate(
    fun: Callable[..., Any], x: Any, options: Options, f0: Any, batch_dims: int,
    scalar: bool = False,
) -> JacobianEstimate:  # fmt: skip
    """``jacobian``, with its options as one; ``scalar``: of a function that must be."""
    point = checks.point(x, batch_dims)
    left = None
    lane = None if scalar else express(fun, point, options)
    if lane is not None:
        done = lane.run(point, f0)
        if isinstance(done, JacobianEstimate):
            return done
        left = done
    estimator = JacobianEstimator(point, **estimation(options))
    with Evaluator(fun, point.layout, **running(options)) as evaluate:
        start(estimator, evaluate, point.flat, f0, left)
        if scalar and evaluate.y_layout is not None and evaluate.y_layout.size != 1:
            raise ValueError(
                f"gradient needs a scalar fun, but fun(x) has {evaluate.y_layout.size} numbers; "
                "use jacobian, or vjp with the cotangent that weighs them"
            )
        drive(estimator, evaluate, options.get("on_error", "adapt"), left)
    return finish(estimator)


# Options that say how fun is run; the others say what is estimated.
RUNNING = ("args", "kwargs", "vectorized", "workers", "run")


def running(options: Options) -> dict[str, Any]:
    """The evaluator's part of the options."""
    seed_arg, rng = options.get("seed_arg"), options.get("rng")
    seeds = None
    if seed_arg is not None:
        if options.get("vectorized"):
            raise ValueError("seed_arg gives every run a seed, which a vectorized fun cannot take")
        if rng is not None and not isinstance(rng, (int, np.integer)):
            raise TypeError(
                f"with seed_arg, rng is the int that all seeds derive from, got {rng!r:.60}"
            )
        seeds = Seeds(seed_arg, None if rng is None else int(rng))
    return {k: v for k, v in options.items() if k in RUNNING} | {
        "complex_step": options.get("method") == "cs",
        "seeds": seeds,
    }


def estimation(options: Options) -> dict[str, Any]:
    """The estimator's part of the options."""
    known = Options.__annotations__
    strange = [name for name in options if name not in known]
    if strange:
        raise TypeError(f"unknown option {strange[0]!r}; the options are {', '.join(known)}")
    other = (*RUNNING, "f0", "batch_dims", "seed_arg")
    return {k: v for k, v in options.items() if k not in other} | {
        "common_seeds": options.get("seed_arg") is not None
    }


def express(fun: Callable[..., Any], point: checks.Point, options: Options) -> Express | None:
    """The express lane for calls that ask for nothing special; None for the others."""
    flat, layout = point
    method = options.get("method", "auto")
    kwargs = options.get("kwargs")
    if not (
        isinstance(method, str)
        and (kwargs is None or isinstance(kwargs, Mapping))
        and method in ORDERS
        and layout.plain
        and flat.dtype is checks.FLOAT64
        and ORDERS[method] * flat.size**2 <= EXPRESS_SIZE
        and options.get("bounds", UNBOUNDED) is UNBOUNDED
        and options.get("on_error", "adapt") in ("adapt", "drop")
        and type(options.get("workers", 1)) is int
        and options.get("workers", 1) == 1
        and type(options.get("args", ())) is tuple
        and callable(fun)
        and all(map(_is_none, map(options.get, SPECIAL)))
        and not options.get("vectorized")
    ):
        return None
    return Express(
        fun, options.get("args", ()), dict(kwargs or {}), method, flat.size,
        is_jitted(fun),
    )  # fmt: skip


def start(
    estimator: JacobianEstimator,
    evaluate: Evaluator,
    flat: NDArray[Any],
    f0: Any,
    left: Left | None = None,
) -> None:
    """The value at x, by which everything else is measured."""
    if left is not None and left.nfev:
        if type(left.value) is Failure:
            raise failed_at_x(left.value.exc) from left.value.exc
        evaluate.nfev = 1
        y = evaluate.learn(left.value)
    else:
        y = evaluate.first(flat) if f0 is None else evaluate.learn(checks.like_output(f0))
    if not checks.isfinite(y) and not np.isfinite(y).any():
        raise EvaluationError(
            "fun(x) is nan or inf in every output; nothing can be estimated around a point where "
            "fun has no value"
        )
    estimator.nfev = evaluate.nfev
    if evaluate.counts and estimator.small_steps:
        warn(
            "fun(x) is of whole numbers, which steps for smooth functions cannot move: J is 0 "
            "wherever no count changes; give abs_step, or take method='auto'"
        )
    kept, layout = evaluate.keep(y)
    estimator.set_value(kept, layout, evaluate.precision)


def drive(
    estimator: JacobianEstimator, evaluate: Evaluator, on_error: str, left: Left | None = None
) -> None:
    """Run what the estimator asks for, until it asks for nothing more.

    ``left``: what has been run already of what it asks for first.
    """
    replay = None if left is None else left.replay()
    stop = "first" if on_error == "raise" else "alike"
    most = max(1, PART_BYTES // (8 * max(estimator.point_size, evaluate.value_size)))
    batch = estimator.x_layout.batch
    while True:
        ids, points = estimator.request(most)
        if len(ids) == 0:
            if estimator.fruitless and evaluate.outcome.errors:
                raise _error(
                    f"every run but that at x failed: {_last_line(evaluate.outcome)}",
                    evaluate.outcome,
                    estimator,
                )
            return
        if batch or evaluate.lifts:
            points = points.reshape(len(points), *batch, -1)
        else:
            points = points[:, 0]
        try:
            out = evaluate(points, stop=stop, replay=replay, streams=estimator.streams(ids))
        except BaseException as exc:
            _take(estimator, ids, evaluate.outcome)
            _attach(exc, estimator)
            raise
        _take(estimator, ids, out)
        if stop == "first" and _failed(out):
            raise _error(
                f"a run failed: {_last_line(out)}; on_error='raise' stops here", out, estimator
            )
        if stop == "alike" and estimator.told >= ALIKE:
            if estimator.only_error:
                _second_opinion(estimator, evaluate, out)
            stop = "never"
        if left is not None and left.interrupt is None and estimator.told >= len(left.results):
            replay = None
        del points  # before the next part is made


def _take(estimator: JacobianEstimator, ids: NDArray[np.intp], out: Outcome) -> None:
    if out.done == 0:
        return
    values = out.values[: out.done]
    b = estimator.points_at_once
    estimator.record(ids[: out.done], values.reshape(out.done, b, -1), out.errors)


def _failed(out: Outcome) -> bool:
    return bool(out.errors) or not np.isfinite(out.values[: out.done]).all()


def _attach(exc: BaseException, estimator: JacobianEstimator) -> None:
    """Nothing that was evaluated is lost, whatever ended the work."""
    try:
        exc.samples = estimator.samples  # type: ignore[attr-defined]
        exc.add_note(f"{estimator.nfev} evaluations made before this are in .samples")
    except AttributeError:  # an exception with __slots__
        pass


def _error(text: str, out: Outcome, estimator: JacobianEstimator) -> EvaluationError:
    error = EvaluationError(text, estimator.samples)
    error.__cause__ = out.cause
    return error


def _last_line(out: Outcome) -> str:
    return last_line(next(iter(out.errors.values()), "nan or inf in the output"))


def _second_opinion(estimator: JacobianEstimator, evaluate: Evaluator, out: Outcome) -> None:
    """The first runs all failed alike: a bug in fun, or only the side that was tried first?"""
    points = estimator.opposite()
    b = estimator.x_layout.batch
    points = points.reshape(len(points), *b, -1) if b or evaluate.lifts else points[:, 0]
    again = evaluate(points, streams=np.zeros(1, np.intp))
    estimator.nfev += again.done
    if last_line(again.errors.get(0, "")) == estimator.only_error:
        raise _error(
            f"the first {ALIKE} points and one on the other side of x all failed alike, while x "
            f"itself did not: {_last_line(out)}. This looks like a bug in fun rather than a "
            "failing run",
            out,
            estimator,
        )


def finish(estimator: JacobianEstimator) -> JacobianEstimate:
    """The estimate, with a warning where it may be wrong."""
    estimate = estimator.estimate()
    status = estimate.solution.status
    if status != "ok" and (status in DOUBTFUL or estimate.n_failed):
        warn(f"{status}: {estimate.message}")
    return estimate


def gradient(fun: Callable[..., Any], x: Any, **options: Unpack[Options]) -> JacobianEstimate:
    """Estimate the gradient of a scalar function.

    Parameters
    ----------
    fun : callable
        Returns a scalar (or an array of one number).
    x, **options
        As in ``jacobian``.

    Returns
    -------
    JacobianEstimate
        ``jac`` and ``stderr`` of the shape of x (batch + x for batches).

    Raises
    ------
    ValueError
        Where ``fun`` returns more than one number: the gradient of which?
    """
    rest = Options(**options)
    f0, batch_dims = rest.pop("f0", None), rest.pop("batch_dims", 0)
    estimate = _estimate(fun, x, rest, f0, batch_dims, scalar=True)
    return replace(estimate, y_layout=Layout((), estimate.y_layout.batch))
