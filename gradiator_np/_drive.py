"""The loop around the engine: run x and what is asked for, and lose nothing on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._calls import Failure, Seeds, failed_at_x
from gradiator_np._engine import X_ITSELF, Engine
from gradiator_np._evaluate import ALIKE, Evaluator, Outcome
from gradiator_np._fast_path import PartialRun
from gradiator_np._options import RunOptions
from gradiator_np._results import JacobianEstimate
from gradiator_np._samples import EvaluationError, attach, last_line
from gradiator_np._signatures import defaults
from gradiator_np._status import Status, warn
from gradiator_np.designs._complex_step import ComplexStep


class Judged(Protocol):
    """What has a status."""

    @property
    def status(self) -> Status: ...
    @property
    def message(self) -> str: ...
    @property
    def n_failed(self) -> int: ...


E = TypeVar("E", bound=Judged)

# Points are handed over in parts of at most this size, so that a VJP of a million inputs does
# not hold a million points at once.
PART_BYTES = 2**26
# Those that a function gets one after the other are still in the cache when it does: of 40 000
# inputs parts of 64 MiB take 1.6 times SciPy's time, these 0.6 times.
IN_TURN_BYTES = 2**22
# Runs of fun(x) before it is given up: of runs that fail at random, three in ten, 7 in 100 000
# fail so often (3 % thrice). Errors of these kinds are in the code, and come again.
TRIES = 8
BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)


def evaluator_options(known: Mapping[str, Any]) -> dict[str, Any]:
    """What the evaluator takes of complete options."""
    name, rng = known["seed_arg"], known["rng"]
    seeds = None
    if name is not None:
        if known["vectorized"]:
            raise ValueError("seed_arg gives every run a seed, which a vectorized fun cannot take")
        if rng is not None and not isinstance(rng, (int, np.integer)):
            raise TypeError(
                f"with seed_arg, rng is the int that all seeds derive from, got {rng!r:.60}"
            )
        seeds = Seeds(name, 0 if rng is None else int(rng))
    return {name: known[name] for name in defaults(RunOptions)} | {
        "complex_step": known["method"] == "cs" or isinstance(known["method"], ComplexStep),
        "seeds": seeds,
    }


def run(
    engine: Engine,
    evaluate: Evaluator,
    f0: Any,
    on_error: str,
    partial: PartialRun | None = None,
    *,
    scalar: bool = False,
) -> JacobianEstimate:
    """The estimate from x and what the engine asks for, until it asks for nothing more.

    Nothing that was run is lost: whatever ends the work early carries the samples.

    Parameters
    ----------
    f0 : object
        The value at x, or None where it has to be run.
    partial : PartialRun, optional
        What has been run already of what the engine asks for first.
    scalar : bool
        Whether ``fun`` must return a single number.
    """
    try:
        if partial is not None and partial.nfev:
            engine.count(1)
            if type(partial.value) is Failure:
                raise failed_at_x(partial.value.exc) from partial.value.exc
            y = evaluate.learn(partial.value)
        else:
            x = engine.x.reshape(*engine.x_layout.batch, -1)
            y = value_at_x(evaluate, x, f0, tries_at_x(on_error), engine.count)
        tell_value(engine, evaluate, y)
        if scalar and evaluate.kept_layout.size != 1:
            raise ValueError(
                f"gradient needs a scalar fun, but fun(x) has {evaluate.kept_layout.size} numbers; "
                "use jacobian, or vjp with the cotangent that weighs them"
            )
        run_all(engine, evaluate, on_error, partial)
        estimate = engine.estimate()
    except BaseException as exc:
        attach(exc, engine.samples)
        raise
    warn_of_counts(engine, evaluate, estimate)
    return estimate


def tries_at_x(on_error: str) -> int:
    """Runs of fun(x) before it is given up."""
    return 1 if on_error == "raise" else TRIES


def warn_of_counts(engine: Engine, evaluate: Evaluator, estimate: object) -> None:
    """Warn of steps for smooth functions in a function of whole numbers."""
    if evaluate.counts and engine.settings.small_steps:
        warn(
            "fun(x) is of whole numbers, which steps for smooth functions cannot move: J is 0 "
            "wherever no count changes; give abs_step, or take method='auto'",
            estimate,
        )


def value_at_x(
    evaluate: Evaluator, x: NDArray[Any], f0: Any, tries: int, count: Callable[[int], object]
) -> NDArray[Any]:
    """fun(x), f0 where it is known; run again where it failed: clusters, and random programs, do.

    ``count`` is told of each run.
    """
    if f0 is not None:
        return evaluate.learn(checks.like_output(f0))
    for left in reversed(range(tries)):
        count(1)
        try:
            y = evaluate.first(x)
        except EvaluationError as exc:
            if not left or isinstance(exc.__cause__, BUGS):
                raise
        else:
            if not left or np.isfinite(y).any():
                break
    return y


def tell_value(engine: Engine, evaluate: Evaluator, y: NDArray[Any]) -> None:
    """Tell the value at x, by which everything else is measured, and what it is like."""
    engine.expect(evaluate.kept_layout, evaluate.precision)
    engine.tell(evaluate.contracted(y)[None], X_ITSELF, run=False)
    if not checks.isfinite(y) and not np.isfinite(y).any():
        raise EvaluationError(
            "fun(x) is nan or inf in every output; nothing can be estimated around a point where "
            "fun has no value"
        )


def run_all(
    engine: Engine, evaluate: Evaluator, on_error: str, partial: PartialRun | None = None
) -> None:
    """Run what the engine asks for, until it asks for nothing more."""
    replay = None if partial is None else partial.replay()
    stop = "first" if on_error == "raise" else "alike"
    part = IN_TURN_BYTES if evaluate.in_turn else PART_BYTES
    most = max(1, part // (8 * max(engine.x.size, evaluate.value_size)))
    out = Outcome()
    while True:
        points, ids = engine.ask(most)
        if len(ids) == 0:
            if engine.fruitless and out.errors:
                raise _error(f"every run but that at x failed: {_last_line(out)}", out, engine)
            return
        out = Outcome()
        try:
            evaluate(points, out=out, stop=stop, replay=replay, streams=engine.streams(ids))
        finally:
            errors = {int(ids[i]): text for i, text in out.errors.items()}
            engine.tell(out.values[: out.done], ids[: out.done], errors)
        if stop == "first" and (out.errors or not np.isfinite(out.values[: out.done]).all()):
            raise _error(
                f"a run failed: {_last_line(out)}; on_error='raise' stops here", out, engine
            )
        if stop == "alike" and engine.told >= ALIKE:
            if engine.only_error:
                _second_opinion(engine, evaluate, out)
            stop = "never"
        if (
            partial is not None
            and partial.interrupt is None
            and (engine.told >= len(partial.results))
        ):
            replay = None
        del points  # before the next part is made


def _error(text: str, out: Outcome, engine: Engine) -> EvaluationError:
    error = EvaluationError(text, engine.samples)
    error.__cause__ = out.cause
    return error


def _last_line(out: Outcome) -> str:
    return last_line(next(iter(out.errors.values()), "nan or inf in the output"))


def _second_opinion(engine: Engine, evaluate: Evaluator, out: Outcome) -> None:
    """The first runs all failed alike: a bug in fun, or only the side that was tried first, or
    chance?"""
    given = engine.nfev == engine.told  # x itself was not run
    for _ in range(1 if isinstance(out.cause, BUGS) else TRIES - ALIKE):
        again = evaluate(engine.opposite(), streams=X_ITSELF)
        engine.count(again.done)
        if last_line(again.errors.get(0, "")) != engine.only_error:
            return
    raise _error(
        f"the first {ALIKE} points and one on the other side of x all failed alike"
        f"{'' if given else ', while x itself did not'}: {_last_line(out)}. This looks like "
        f"{'an f0 that is no value of fun, or ' if given else ''}a bug in fun rather than a "
        "failing run",
        out,
        engine,
    )


def warned(estimate: E) -> E:
    """The estimate, with a warning where it may be wrong."""
    status = estimate.status
    if status.doubtful or (estimate.n_failed and status != "ok"):
        warn(f"{status}: {estimate.message}", estimate)
    return estimate
