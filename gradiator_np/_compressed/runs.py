"""Runs for sparse Jacobians, at one point after the other with one colouring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._compressed.compression import Compression
from gradiator_np._compressed.detection import detect
from gradiator_np._compressed.estimate import Results, SparseJacobianEstimate
from gradiator_np._compressed.pattern_check import PatternCheck, unaccounted
from gradiator_np._compressed.probing import FIRST, Prober
from gradiator_np._drive import (
    run_all,
    tell_value,
    tries_at_x,
    value_at_x,
    warn_of_counts,
    warned,
)
from gradiator_np._engine import Engine
from gradiator_np._evaluate import Evaluator
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._samples import attach
from gradiator_np._site import Site
from gradiator_np._status import Status
from gradiator_np.designs._finite_difference.stencil import Stencil
from gradiator_np.designs._finite_difference.weights import derivative_weights
from gradiator_np.kernels.compressed import slopes
from gradiator_np.sparsity import Coloring, SparsityPattern, color

#: What stands for a pattern that nobody knows.
DETECT = "detect"
#: Outputs, of many, that tell whether a stencil met noise, digits or steps that are too short.
GLANCED = 256


class SparseRuns:
    """A function whose Jacobian is sparse, and what serves at each point.

    Parameters
    ----------
    evaluate : Evaluator
    sparsity : pattern or Coloring
        As ``jacobian`` takes it.
    groups : Coloring, optional
        Which inputs move together, where the caller answers for it: neither the pattern nor the
        colouring is checked by runs then.

    Attributes
    ----------
    coloring : Coloring or None
        None before the first point, unless ``groups`` were given.
    learned : object or None
        What is known of noise and steps, from earlier points.
    nfev : int
        Evaluations at all points.
    """

    def __init__(self, evaluate: Evaluator, sparsity: Any, groups: Coloring | None = None) -> None:
        self._evaluate, self._sparsity = evaluate, sparsity
        self.coloring = groups
        self._checked = groups is not None  # by runs of its own
        self._unexplained = np.zeros(0, np.intp)  # outputs that a detected pattern leaves open
        self.learned: Any = None
        self.nfev = 0

    def at(self, point: checks.Point, known: Mapping[str, Any], f0: Any) -> SparseJacobianEstimate:
        """The Jacobian at one point, with complete options."""
        evaluate, before = self._evaluate, self.nfev
        y = value_at_x(evaluate, point.flat, f0, tries_at_x(known["on_error"]), self._count)
        if self.coloring is None:
            self.coloring = self._colored(point, known, y)
        compression, settings = Compression.of(point, self._without_probes(known), self.coloring)
        engine = Engine(compression.point, settings, self.learned)
        engine.count(self.nfev - before)
        evaluate.lift, spent = compression, 0
        try:
            tell_value(engine, evaluate, y)
            run_all(engine, evaluate, known["on_error"])
            evaluate.lift = None
            estimate = deferred(engine, compression) if self._checked else None
            if estimate is None:
                found = engine.estimate()
                check = self._check(compression, found)
                spent = 0 if check is None else check.nfev
                estimate = warned(_framed(compression, found, check))
                warn_of_counts(engine, evaluate, estimate)
        except BaseException as exc:
            attach(exc, compression.samples(engine.samples))
            raise
        finally:
            self.nfev = before + engine.nfev + spent
            self.learned = engine.learned
            evaluate.lift = None
        return estimate

    def _without_probes(self, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """Options with a max_nfev that leaves the runs which find that a pattern holds; what
        tells that one does not comes beyond it."""
        most = known["max_nfev"]
        if most is None or self._checked:
            return known
        return {**known, "max_nfev": max(most - FIRST, min(most, 2))}

    def _count(self, runs: int) -> None:
        self.nfev += runs

    def _colored(self, point: checks.Point, known: Mapping[str, Any], y: NDArray[Any]) -> Coloring:
        """The pattern that was given, or is found here, in colours."""
        if not (isinstance(self._sparsity, str) and self._sparsity == DETECT):
            return coloring_of(self._sparsity, self._evaluate.kept_layout.size, point.layout.size)
        if point.layout.batch:
            raise ValueError("a pattern is detected at one point: give sparsity with batch_dims")
        site = Site(self._evaluate, point, y, known["x_scale"], known["bounds"])
        try:
            found = detect(site, known["noise"])
        finally:
            self._count(site.nfev)
        self._unexplained = found.unexplained
        return color(found.pattern)

    def _check(self, compression: Compression, found: JacobianEstimate) -> PatternCheck | None:
        """Whether the pattern holds, by what costs no run, and at one point by more.

        None where J is doubtful for other reasons: a pattern would be blamed for them.
        """
        if _is_off(found):
            return None
        if self._checked:
            return _own_check(compression, found)
        self._checked = True
        return self._probed(compression, found).with_outputs(self._unexplained)

    def _probed(self, compression: Compression, found: JacobianEstimate) -> PatternCheck:
        """By runs of its own."""

        def run(points: NDArray[Any]) -> NDArray[Any]:
            if self._evaluate.complex_step:  # what it takes, though these are real
                points = points.astype(np.complex128)
            return self._evaluate(points, streams=np.zeros(len(points), np.intp)).values

        return Prober(run, compression, found, self._evaluate.precision).check()


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
    return None if lost else PatternCheck.of(unaccounted(compression, found))


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


def coloring_of(sparsity: Any, n: int | None, m: int) -> Coloring:
    """The colouring of a pattern of n outputs and m inputs, or the one that was given.

    n is None where it is not known yet.

    Raises
    ------
    TypeError, ValueError
        For what is no pattern of that shape; nothing is reshaped or transposed.
    """
    if isinstance(sparsity, str):
        raise ValueError(
            f"sparsity={sparsity!r}: the only word for a pattern is {DETECT!r}, which takes runs: "
            "jacobian, prepare and vjp have it, and detect_sparsity finds one for other doors"
        )
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
    conflict = sparsity.conflict
    if conflict is not None:
        raise ValueError(
            f"columns {conflict.columns[0]} and {conflict.columns[1]} of the colouring have one "
            f"colour, and row {conflict.row} has an entry in both, which no run tells apart: take "
            "color(pattern), or mend column_colors until .conflict is None"
        )
    return sparsity
