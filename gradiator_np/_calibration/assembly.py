"""The result of a search: from its model and its log to the fields that users see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from gradiator_np import _checks as checks
from gradiator_np._calibration.fit_record import FitRecord, ModelFacts
from gradiator_np._calibration.held import run_errors
from gradiator_np._calibration.labels import combination
from gradiator_np._calibration.local_model import LocalModel
from gradiator_np._calibration.parameter_covariance import data_errors
from gradiator_np._calibration.restart import SHORTER_SCALE
from gradiator_np._calibration.result import LeastSquaresResult
from gradiator_np._calibration.search import Search
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._samples import EvaluationError, Samples, last_line
from gradiator_np._status import Status
from gradiator_np._structure import Layout, enumerated
from gradiator_np._typing import Array, Mask

MESSAGES = {
    Status.NOISE_LIMIT: "the noise of the runs hides what is left to gain; where it makes much of "
    "stderr (report() says how much), average runs or set x_half_width",
    Status.CONVERGED: "no run can lower the sum of squares by more than ftol of it",
    Status.BUDGET: "max_nfev runs are used; raise it to go on from here",
    Status.NO_SIGNAL: "the residuals do not answer to the parameters beyond their noise, however "
    "far these are moved; check x0, x_scale and which parameters fun reads",
    Status.UNDETERMINED: "the runs determine no parameter, or the search ran off to where the "
    "residuals do not answer any more to one that they answered to at the start; start closer, or "
    "give bounds or x_scale",
    Status.FAILING_REGION: "runs fail between x and where the model expects a lower sum of "
    "squares; make fun run there, or give bounds that leave it out",
    Status.INCOMPLETE: "runs are still wanted",
}


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
    x, model, _ = search.answer()
    unit, y_unit = search.region.unit, log.unit
    free = problem.high > problem.low
    objective, n = problem.objective, log.n_data
    wide, wide_unit = search.wide_model(x)
    full = model.of_residuals()
    data = data_errors(model, full, (wide, wide_unit / unit), y_unit, free, problem.absolute_sigma)
    coordinates, movable = problem.coordinates, problem.movable
    held, by_runs, undetermined = run_errors(problem, x, model, search.region, y_unit, data.bread)
    undetermined = data.undetermined | undetermined | search.lost
    data = replace(data, undetermined=undetermined)
    record = FitRecord(
        coordinates.expand(x), *problem.bounds, movable,
        movable & (np.abs(coordinates.basis) @ undetermined > 0),
        problem.x_layout, coordinates, unit, y_unit, data, by_runs, held, objective,
        _facts(search, model),
    )  # fmt: skip
    raw = full if model.loss is None else model.loss
    output = objective.output(raw.residuals[:n] * y_unit)
    sigma = objective.output(np.full(n, y_unit))[:, None]  # of the units that J is in
    slope = np.broadcast_to(model.slope, len(full.residuals))[:n, None]
    # from the parameters that were searched to all: the least J that has these slopes
    back = np.linalg.pinv(coordinates.basis) / unit[:, None]
    slopes = model.slope_covariances(log.rounding, search.region.radius)
    jac_variance = np.einsum("gij,ik,jk->gk", slopes, back, back)
    jac_stderr = np.sqrt(np.maximum(jac_variance, 0.0))[full.group[:n]] * sigma
    grad = model.jac.T @ model.residuals / unit
    reason, samples = search.reason, log.samples
    like_x = problem.x_layout.unflatten
    like_y = np.asarray if y_layout is None else y_layout.unflatten
    found = LeastSquaresResult()
    found.update(
        x=like_x(record.x),
        cost=0.5 * model.sum_of_squares * y_unit * y_unit,
        fun=like_y(output),
        jac=full.jac[:n] @ back * (sigma / slope),
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
        run_noise=_like_residuals(full.noise[:n] * (sigma / slope)[:, 0], like_y),
        rounds=search.rounds,
        samples=samples,
    )
    object.__setattr__(found, "_record", record)
    return found


def _like_residuals(noise: Array, like_y: Callable[[Array], Any]) -> Any:
    """One number where it is one for all residuals."""
    same = np.ptp(noise) <= 1e-12 * noise.max()
    return float(noise[0]) if same else like_y(noise)


def _facts(search: Search, model: LocalModel) -> ModelFacts:
    by_runs = float(model.total_covariance[0, 0])
    problem = search.problem
    start = problem.coordinates.expand(problem.x0)
    return ModelFacts(start, problem.x_scale, problem.constraints, len(model.samples), by_runs)


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
    own = [f"x{name}" for name in layout.names]
    rows = [c for c in record.held.limits if c.kind == "constraint"]
    if rows:
        text = "{} at its {} limit (row {} of the constraints)"
        named = [text.format(combination(c.normal.tolist(), own), c.side, c.index) for c in rows]
        parts.append(enumerated(named))
    if names := layout.listed("x", np.flatnonzero(record.undetermined)):
        parts.append(f"The runs do not determine {names}")
    parts += _units(search, layout)
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


def _units(search: Search, layout: Layout) -> list[str]:
    """Units that the runs told, and where parameters answer that do not where the search ended."""
    parameters, parts = search.problem.coordinates.independent, []
    found, elsewhere, scale = search.units.found, search.units.elsewhere, search.region.scale

    def each(which: Mask, values: Array, sign: str) -> str:
        names = (layout.listed("x", [j]) for j in parameters[which])
        return enumerated([f"{n} {sign} {v:.2g}" for n, v in zip(names, values[which])])

    known = np.isfinite(found)
    if known.any():
        parts.append(
            f"x_scale was found from the runs, {each(known, found, '=')}; given, it saves runs"
        )
    answer = search.lost & np.isfinite(elsewhere)
    if answer.any():
        parts.append(
            f"The residuals do answer at {each(answer, elsewhere, '=')}: start there, or give "
            "bounds that keep the search there"
        )
    gone = search.lost & ~answer
    if gone.any() and search.problem.scale_is_a_guess:
        parts.append(
            f"Those that do not answer any more may need shorter steps: try x_scale of "
            f"{each(gone, SHORTER_SCALE * scale, '=')}"
        )
    return parts


def _failures(samples: Samples) -> str:
    """How many runs failed, and by what where that was the same."""
    failed = np.flatnonzero(~samples.ok).tolist()
    if not failed:
        return ""
    texts = Counter(last_line(samples.errors.get(i, "nan or inf")) for i in failed)
    text, count = texts.most_common(1)[0]
    alike = "" if count == len(failed) else f" ({count} of them alike)"
    return f"{len(failed)} of {len(samples)} runs failed{alike}: {text}"
