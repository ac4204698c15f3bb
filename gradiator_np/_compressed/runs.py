"""Runs for sparse Jacobians, at one point after the other with one colouring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._compressed.compression import Compression
from gradiator_np._compressed.estimate import Results, SparseJacobianEstimate
from gradiator_np._compressed.missing import DIRECTIONS, missing_entries
from gradiator_np._compressed.pattern_check import PatternCheck, Probe, compare, direction, is_loud
from gradiator_np._drive import (
    TRIES,
    evaluate_at_x,
    first_value,
    run_all,
    warn_of_counts,
    warned,
)
from gradiator_np._engine import Engine
from gradiator_np._evaluate import Evaluator
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._samples import attach
from gradiator_np._settings import bounds_of, scale_of
from gradiator_np._status import Status
from gradiator_np._typing import Array
from gradiator_np.designs._finite_difference.stencil import Stencil
from gradiator_np.designs._finite_difference.weights import derivative_weights
from gradiator_np.kernels.compressed import slopes
from gradiator_np.sparsity import Coloring, SparsityPattern, color
from gradiator_np.sparsity._detection import SparsitySearch
from gradiator_np.sparsity._probes import Surroundings

#: Times that a quiet function is asked again at a sixteenth of the distance: what a bend leaves of
#: a slope falls to 1/256, a missing entry stays.
CLOSER = 3
#: What stands for a pattern that nobody knows.
DETECT = "detect"
#: Pairs at half the distance that confirm a missing entry where runs are noisy: their slope is as
#: good as that of the first pair.
CONFIRMING = 4
#: Outputs, of many, that tell whether a stencil met noise, digits or steps that are too short.
GLANCED = 256


class SparseRuns:
    """A function whose Jacobian is sparse, and what serves at each point.

    Parameters
    ----------
    evaluate : Evaluator
    sparsity : pattern or Coloring
        As ``jacobian`` takes it.

    Attributes
    ----------
    coloring : Coloring or None
        None before the first point.
    learned : object or None
        What is known of noise and steps, from earlier points.
    nfev : int
        Evaluations at all points.
    """

    def __init__(self, evaluate: Evaluator, sparsity: Any) -> None:
        self._evaluate, self._sparsity = evaluate, sparsity
        self.coloring: Coloring | None = None
        self.learned: Any = None
        self.nfev = 0

    def at(self, point: checks.Point, known: Mapping[str, Any], f0: Any) -> SparseJacobianEstimate:
        """The Jacobian at one point, with complete options; the first is checked by more runs."""
        evaluate, first = self._evaluate, self.coloring is None
        if f0 is None:
            tries = 1 if known["on_error"] == "raise" else TRIES
            y, spent = first_value(evaluate, point.flat, tries)
        else:
            y, spent = evaluate.learn(checks.like_output(f0)), 0
        y_layout = evaluate.kept_layout
        if self.coloring is None:
            sparsity = self._sparsity
            if isinstance(sparsity, str) and sparsity == DETECT:
                sparsity, more = detected(evaluate, point, known, y)
                spent += more
            self.coloring = coloring_of(sparsity, y_layout.size, point.layout.size)
        compression, settings = Compression.of(point, known, self.coloring)
        evaluate.lift = compression
        engine = Engine(compression.point, settings, self.learned)
        engine.count(spent)
        try:
            evaluate_at_x(engine, evaluate, y_layout.unflatten(y), None, 1)
            run_all(engine, evaluate, known["on_error"])
            evaluate.lift = None
            estimate = None if first else deferred(engine, compression)
            if estimate is None:
                found = engine.estimate()
                check = self._check(compression, found, first)
                self.nfev += 0 if check is None else check.nfev
                estimate = warned(_framed(compression, found, check))
                warn_of_counts(engine, evaluate, estimate)
        except BaseException as exc:
            attach(exc, compression.samples(engine.samples))
            raise
        finally:
            self.nfev += engine.nfev
            self.learned = engine.learned
            evaluate.lift = None
        return estimate

    def _check(
        self, compression: Compression, found: JacobianEstimate, probe: bool
    ) -> PatternCheck | None:
        """Whether the pattern holds, by a pair of runs; by more where noise may be the reason.

        None where J is doubtful for other reasons: a pattern would be blamed for them.
        """
        if _is_off(found):
            return None
        if not probe:
            return compare(compression, found, ())
        rng = checks.generator(0)
        u, t = direction(compression, found, rng)
        probes, spent = [self._probe(compression, u, t, 1)], 2
        check = compare(compression, found, probes, spent)
        if len(check.outputs) and is_loud(found, t[0]):
            probes.append(self._probe(compression, u, t / 2, CONFIRMING))
            spent += 2 * CONFIRMING
            check = compare(compression, found, probes, spent)
        else:
            for _ in range(CLOSER):
                if not len(check.outputs):
                    break
                t = t / 16
                probes, spent = [self._probe(compression, u, t, 1)], spent + 2
                check = compare(compression, found, probes, spent)
        if not len(check.outputs) or compression.layout.batch:
            return check
        others = [direction(compression, found, rng)[0] for _ in range(DIRECTIONS)]
        probes[1:] = [self._probe(compression, other, t, 1) for other in others]
        missing = missing_entries(compression, found, probes, check.outputs)
        return replace(check, nfev=spent + 2 * DIRECTIONS, missing=missing)

    def _probe(self, compression: Compression, u: Array, t: Array, pairs: int) -> Probe:
        """Pairs of runs along u."""
        points = compression.along(u, np.concatenate([t] * pairs))
        if self._evaluate.complex_step:  # what it takes, though these are real
            points = points.astype(np.complex128)
        values = self._evaluate(points, streams=np.zeros(len(points), np.intp)).values
        return Probe(u, t, values.reshape(pairs, 2, *values.shape[1:]))


def sparse_estimate(compression: Compression, found: JacobianEstimate) -> SparseJacobianEstimate:
    """An estimate of all inputs from one of colours, without runs of its own."""
    return _framed(compression, found, _own_check(compression, found))


def deferred(engine: Engine, compression: Compression) -> SparseJacobianEstimate | None:
    """An estimate by a stencil whose errors are left until somebody asks; None where they are not.

    At 10^6 inputs errors take ten times as long as the runs of a stencil of five colours. Whether
    all is in order is told by some of the outputs.
    """
    settings, rows = engine.settings, engine.rows
    design, coloring = settings.design, compression.coloring
    plain = isinstance(design, Stencil) and settings.solver is None and np.ndim(settings.noise) == 0
    if not (plain and rows.clean and settings.bounds is None and len(rows.y) == 1):
        return None
    assert engine.y_layout is not None
    if engine.solution_of(slice(None, None, max(1, rows.y.size // GLANCED))).status != Status.OK:
        return None
    count = coloring.n_column_colors
    weights = derivative_weights(rows.moves.t.reshape(-1, count))
    values = rows.values.reshape(*weights.shape, -1)
    data = np.empty(coloring.pattern.nnz, rows.values.dtype)
    slopes(
        coloring.pattern.indptr, coloring.pattern.indices, coloring.column_colors,
        values, rows.y[0], weights, 1 / compression.seeds, data,
    )  # fmt: skip

    def results() -> Results:
        found = engine.estimate()
        return Results(found, compression, _own_check(compression, found))

    frame = Frame(compression.layout, engine.y_layout, compression.x, rows.y[0])
    return SparseJacobianEstimate(frame, coloring, engine.nfev, engine.n_failed, results, data)


def _own_check(compression: Compression, found: JacobianEstimate) -> PatternCheck | None:
    """What the runs say of the pattern without others beside them."""
    lost = found.frame.y is None or _is_off(found)
    return None if lost else compare(compression, found, ())


def _is_off(found: JacobianEstimate) -> bool:
    """Whether J may be wrong for reasons of its own; what failed has been worked around."""
    return found.status.doubtful and found.status is not Status.FAILED_RUNS


def _framed(
    compression: Compression, found: JacobianEstimate, check: PatternCheck | None
) -> SparseJacobianEstimate:
    frame = Frame(compression.layout, found.frame.y_layout, compression.x, found.frame.y)
    results = Results(found, compression, check)
    nfev = found.nfev + (0 if check is None else check.nfev)
    return SparseJacobianEstimate(
        frame, compression.coloring, nfev, found.n_failed, lambda: results
    )


def detected(
    evaluate: Evaluator, point: checks.Point, known: Mapping[str, Any], y: NDArray[Any]
) -> tuple[SparsityPattern, int]:
    """The pattern near x, from groups of inputs, and the evaluations that it took."""
    x, layout = point
    if layout.batch:
        raise ValueError("a pattern is detected at one point: give sparsity with batch_dims")
    lower, upper = bounds_of(known["bounds"], x, layout) or checks.UNBOUNDED
    noise = known["noise"]
    around = Surroundings(
        np.where(np.isfinite(y), y, np.nan),
        scale_of(x[None].astype(np.float64), known["x_scale"], layout)[0],
        np.broadcast_to(upper - x, (1, *x.shape))[0],
        np.broadcast_to(x - lower, (1, *x.shape))[0],
        checks.generator(0),
        None if noise is None else checks.noise(noise, evaluate.y_layout),
    )
    search, spent = SparsitySearch(around), 0
    while (offsets := search.ask()) is not None:
        points = np.clip((x + offsets).astype(x.dtype), lower, upper)
        out = evaluate(points, streams=np.zeros(len(points), np.intp))
        spent += out.done
        search.tell(np.where(np.isfinite(out.values), out.values, np.nan))
    assert search.result is not None
    return search.result.pattern, spent


def coloring_of(sparsity: Any, n: int | None, m: int) -> Coloring:
    """The colouring of a pattern of n outputs and m inputs, or the one that was given.

    n is None where it is not known yet.

    Raises
    ------
    TypeError, ValueError
        For what is no pattern of that shape; nothing is reshaped or transposed.
    """
    if not isinstance(sparsity, Coloring):
        if n is None and isinstance(sparsity, tuple):
            raise ValueError(
                "a pattern of indices (rows, cols) does not tell the number of outputs: give f0, "
                "or a sparse array"
            )
        if n is None:
            n = SparsityPattern.of(sparsity).shape[0]
        return color(SparsityPattern.of(sparsity, (n, m)))
    if sparsity.n_row_colors:
        raise ValueError(
            "a colouring of rows is for products v^T J, and runs give J u: color(pattern) with "
            "by='columns'"
        )
    SparsityPattern.of(sparsity.pattern, (sparsity.pattern.shape[0] if n is None else n, m))
    return sparsity
