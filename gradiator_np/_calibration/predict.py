"""From the covariance of the parameters to that of forecasts: to first order, or by draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._calibration.fit_record import FitRecord
from gradiator_np._calibration.prediction import Prediction
from gradiator_np._estimate import jacobian
from gradiator_np._evaluate import Evaluator
from gradiator_np._options import Options, RunOptions
from gradiator_np._propagation import propagate
from gradiator_np._results import JacobianEstimate
from gradiator_np._samples import EvaluationError, last_line
from gradiator_np._signatures import complete, defaults
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._text import between
from gradiator_np._typing import Array, Mask

#: A forecast depends on what the data do not determine where a change of the parameters by their
#: own size along it moves the forecast by this share of its standard error.
DEPENDS = 0.1
#: Standard deviations that chance does not explain.
SIGNIFICANT = 3.0
#: Steps of differences are no shorter, relative to the parameters: rounding costs more below.
LEAST_STEP = checks.EPS ** (1 / 3)
#: Steps of the default design are no shorter, in conditional standard errors: slopes count over
#: their range. Of a solver at rtol 1e-4 standard errors of 240 forecasts were off by 0.4 at most
#: with steps of any size (lack_of_fit), by 0.13 with this (and by that in ``stderr_error``).
WIDE_STEP = 0.1
#: The unit of that design, in conditional standard errors: where runs of the forecast scatter it
#: goes as far as half of it. Standard errors over those of exact slopes, median and 90 % quantile,
#: with runs that scatter by a fifth of the errors of the data (`benchmarks.lsq_coverage`): 1.71 and
#: 3.78 with 1, 1.03 and 1.35 with this. Without noise steps are as short as before.
RANGE = 8.0
#: Draws that are made for one within the bounds, at most.
MOST_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecasts at the parameters found, and how they answer to them.

    Attributes
    ----------
    value : array, shape (n,)
    jac : array, shape (n, m)
    noise : array, shape (n,)
        Standard deviation of one run of the forecast; 0 where none is known.
    layout : Layout
    estimate : JacobianEstimate or None
        Where ``jac`` comes from; None where it is exact.
    """

    value: Array
    jac: Array
    noise: Array
    layout: Layout
    estimate: JacobianEstimate | None = None


def predict(
    record: FitRecord, forecast: Any, kind: str, sigma: Any, residual_sd: float, sampling: Any,
    options: Mapping[str, Any],
) -> Prediction:  # fmt: skip
    """As `LeastSquaresResult.predict` says."""
    known = complete(options, Options)
    cov = record.covariance(kind)
    count = None if sampling is None else checks.integer(sampling, "sampling", 2)
    at = _forecast(record, forecast, kind, options)
    std = None if sigma is None else _new_sigma(sigma, residual_sd, at.layout)
    variance, stderr_error = _propagated(at, cov, kind)
    unknown = np.isinf(variance)
    added, lost = undetermined_part(record, at.jac, variance)
    variance = np.where(lost | unknown, np.inf, variance + added + np.square(at.noise))
    vague = np.sqrt(variance) > np.abs(at.jac) @ _size(record) + at.noise
    status, parts = _verdict(at, lost, unknown, vague & ~lost, stderr_error, np.sqrt(variance))
    nfev, draws, new = 0 if at.estimate is None else at.estimate.nfev, None, None
    if count is not None:
        rng = checks.generator(known["rng"])
        points, factor = drawn_parameters(record, kind, count, rng)
        draws, failed = _run(record, forecast, at, points, known)
        nfev += count if callable(forecast) else 0
        parts += [failed] if failed else []
        parts += _bent(at, draws, variance, record, kind)
        if std is not None:
            new = draws + std * factor[:, None] * rng.standard_normal(draws.shape)
    return Prediction(status, ". ".join(parts), nfev, at.layout, at.value, variance,
                      stderr_error, std, draws, new, record, kind)  # fmt: skip


def _propagated(at: Forecast, cov: Array, kind: str) -> tuple[Array, Array]:
    """Variances g C g' (n,), and the errors of their roots by those of g.

    inf where g is not determined, nan where C is not.

    Raises
    ------
    ValueError
        Where C is no covariance, as by Hessians it may be.
    """
    if not np.isfinite(cov).all():
        unknown = np.full(len(at.value), np.nan)
        return unknown, unknown
    if kind == "hessian" and np.linalg.eigvalsh(cov)[0] < -1e-9 * np.trace(cov):
        raise ValueError(
            "the Hessian is not positive definite here, so kind='hessian' is no covariance: take "
            "another kind"
        )
    found = propagate(at.jac if at.estimate is None else at.estimate, cov)
    flat = found.estimate.frame.y_layout.flatten
    return np.square(flat(found.std_y)), flat(found.std_stderr)


def _forecast(record: FitRecord, forecast: Any, kind: str, options: Mapping[str, Any]) -> Forecast:
    """Values and slopes, from a function, an estimate of its Jacobian, or a matrix.

    Raises
    ------
    TypeError, ValueError
        For what is none of these, a matrix of another shape, and an estimate at another point.
    """
    if callable(forecast):
        return _of_estimate(_differentiated(record, forecast, kind, options))
    if isinstance(forecast, JacobianEstimate):
        at = forecast.frame.x
        if at is None or at.shape != record.x.shape or not np.allclose(at, record.x, rtol=1e-6):
            raise ValueError("the Jacobian of a forecast must be that at the fit's x")
        return _of_estimate(forecast)
    a = checks.numeric(forecast, "the matrix of a forecast")
    shape = record.x_layout.shape or ()
    if len(shape) > 1 and a.shape[a.ndim - len(shape) :] == shape:
        a = a.reshape(*a.shape[: a.ndim - len(shape)], -1)
    m = len(record.x)
    if a.ndim < 1 or a.shape[-1] != m or a.dtype.kind == "c" or not np.isfinite(a).all():
        raise ValueError(
            f"a forecast is a function of the parameters, or a finite real matrix of {m} columns, "
            f"one for each of them; got shape {a.shape}"
        )
    jac = a.reshape(-1, m).astype(np.float64)
    return Forecast(jac @ record.x, jac, np.zeros(len(jac)), Layout(a.shape[:-1]))


def _differentiated(
    record: FitRecord, forecast: Any, kind: str, options: Mapping[str, Any]
) -> JacobianEstimate:
    """Its Jacobian over the range that the errors of the parameters span."""
    size, stderr = _size(record), record.stderr(kind)
    # the last trust region, where nothing tells an error
    region = np.abs(record.coordinates.basis) @ record.unit
    unit = np.where(np.isfinite(stderr) & (stderr > 0), stderr, np.minimum(region, size))
    unit = np.minimum(unit, _conditional(record.covariance(kind), unit))
    free, like_x = record.free, record.x_layout.unflatten
    low, high = np.where(free, record.low, record.x), np.where(free, record.high, record.x)
    unit = np.maximum(unit, LEAST_STEP * size)
    own: dict[str, Any] = {"x_scale": like_x(RANGE * unit), "bounds": (like_x(low), like_x(high))}
    if options.keys().isdisjoint(("method", "rel_step", "abs_step", "min_step")):
        own["min_step"] = like_x(WIDE_STEP * unit)
    found: JacobianEstimate = jacobian(forecast, like_x(record.x.copy()), **{**own, **options})
    return found


def _conditional(cov: Array, unit: Array) -> Array:
    """Standard errors of each parameter where the others are known; ``unit`` where none is told.

    How far one may be moved by itself: of two that are known by their product only the standard
    errors move the product by many of its own (with a prior of one of them, standard errors of
    forecasts were off by up to 0.7 by steps of that size, by 0.03 with these).
    """
    known = np.flatnonzero(np.diagonal(cov) > 0)
    out = unit.copy()
    if len(known) and np.isfinite(cov).all():
        std = np.sqrt(np.diagonal(cov)[known])
        inverse = np.linalg.pinv(cov[np.ix_(known, known)] / np.outer(std, std), hermitian=True)
        out[known] = std / np.sqrt(np.maximum(np.diagonal(inverse), 1.0))
    return out


def _of_estimate(estimate: JacobianEstimate) -> Forecast:
    frame, coef = estimate.frame, estimate.solution.coef
    if frame.x_layout.batch or coef.dtype.kind == "c":
        raise ValueError("forecasts must be real, of one set of parameters at a time (no batch)")
    assert frame.y is not None
    noise = np.nan_to_num(estimate.solution.cov.scale, nan=0.0)
    return Forecast(frame.y.astype(np.float64), coef.astype(np.float64), noise, frame.y_layout,
                    estimate)  # fmt: skip


def _new_sigma(sigma: Any, residual_sd: float, layout: Layout) -> Array:
    """Standard deviations of new observations, flat."""
    if isinstance(sigma, str):
        checks.choice(sigma, ("residuals",), "sigma")
        if not np.isfinite(residual_sd):
            raise ValueError(
                "sigma='residuals' needs least squares whose one error of all data is found from "
                "the residuals; here give the standard deviation of a new observation"
            )
        return np.full(layout.size, residual_sd)
    return checks.noise(sigma, layout, "sigma")


def _size(record: FitRecord) -> Array:
    """Of each parameter: |x|, or the unit of the search where it is 0."""
    return np.where(record.x == 0, record.facts.scale, np.abs(record.x))


def undetermined_part(record: FitRecord, jac: Array, variance: Array) -> tuple[Array, Mask]:
    """What directions that nothing tells add to the variance of forecasts (n,), and which are lost.

    By c, the change of a forecast where the parameters change by their own size along one. The
    direction itself is only known to errors of J: of a forecast that does not depend on the true
    one, c is normal with standard deviation s, the standard error times the noise in the slope of
    a residual (in its standard deviations), both first order in the errors of J. A forecast is lost
    where c is beyond 3 s, either is beyond 3 standard errors, or what is determined leaves it open
    by more than its own size; else its variance grows by c^2 + s^2. Of 160 noisy fits that know
    two parameters by their product only (runs of 3e-4 to 1e-2, data of 2e-2), 0.79 of 320 forecasts
    that take the product were finite, and 0.98 of their 95 % intervals held; of one of the two
    alone all were lost.
    """
    size = _size(record)
    steps = record.lost
    lost = (record.coordinates.basis * record.unit) @ steps
    length = np.abs(lost / size[:, None]).max(0, initial=1e-300)
    steps, lost = steps / length, lost / length
    stderr = np.sqrt(variance)[:, None]
    change = np.abs(jac @ lost)
    noise = stderr * record.data.slope_noise(steps)
    none = change <= len(record.x) * checks.EPS * (np.abs(jac) @ np.abs(lost))
    little = change <= DEPENDS * stderr
    by_chance = (change <= SIGNIFICANT * noise) & (
        np.maximum(change, noise) <= SIGNIFICANT * stderr
    )
    told = stderr <= (np.abs(jac) @ size)[:, None]
    depends = ~(none | ((little | by_chance) & told))
    added = np.where(none | depends, 0.0, np.square(change) + np.square(noise) * ~little)
    return added.sum(1), depends.any(1)


def _verdict(
    at: Forecast, lost: Mask, unknown: Mask, vague: Mask, stderr_error: Array, stderr: Array
) -> tuple[Status, list[str]]:
    """How far the forecasts can be trusted."""
    status, parts = Status.OK, []
    if at.estimate is not None:
        status = at.estimate.status
        parts += [f"Jacobian: {at.estimate.message}"] if status is not Status.OK else []
    if lost.any():
        status = Status.UNDETERMINED
        parts.append(
            f"{at.layout.listed('y', np.flatnonzero(lost))} depends, as far as the runs tell, on "
            "combinations of parameters that the data do not determine (see report()): fix one of "
            "them, or give a prior"
        )
    if unknown.any():
        status = Status.UNDETERMINED
        parts.append(f"The slopes of {at.layout.listed('y', np.flatnonzero(unknown))} are unknown")
    if vague.any():
        status = Status.UNDETERMINED
        parts.append(
            f"{at.layout.listed('y', np.flatnonzero(vague))} is known no better than a change of "
            "all parameters by their own size leaves it: first order means little there"
        )
    if np.isnan(stderr).any():
        status = Status.UNDETERMINED
        parts.append(
            f"Nothing tells the errors of {at.layout.listed('y', np.flatnonzero(np.isnan(stderr)))}"
        )
    loose = np.isfinite(stderr) & (stderr_error > 0.5 * stderr)
    if loose.any():
        names = at.layout.listed("y", np.flatnonzero(loose))
        parts.append(f"Errors of the Jacobian are above half of the standard errors of {names}")
    return status, parts


def drawn_parameters(
    record: FitRecord, kind: str, count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Parameters (count, m) by their law, within the bounds, and factors (count,) of Student's t.

    Raises
    ------
    ValueError
        Where nothing tells their errors, or hardly any draw keeps to the bounds.
    """
    cov, dof = record.searched_covariance(kind), record.quantile_dof(kind)
    if not np.isfinite(cov).all():
        raise ValueError(
            "nothing tells the errors of the parameters (no more residuals than parameters), so "
            "none can be drawn; give sigma and absolute_sigma=True to the fit"
        )
    size = np.sqrt(np.maximum(np.diagonal(cov), 0.0))
    unit = np.where(size > 0, size, 1.0)
    vals, vecs = np.linalg.eigh(cov / np.outer(unit, unit))
    half = unit[:, None] * vecs * np.sqrt(np.maximum(vals, 0.0))
    root = (record.coordinates.basis * record.unit) @ half
    points, factors, left = [np.empty((0, len(record.x)))], [np.empty(0)], MOST_DRAWS
    while sum(map(len, points)) < count and left:
        factor = np.ones(count) if np.isinf(dof) else np.sqrt(dof / rng.chisquare(dof, count))
        x = record.x + factor[:, None] * (rng.standard_normal((count, len(cov))) @ root.T)
        x = np.where(record.free, x, record.x)
        inside = record.within(x)
        points.append(x[inside])
        factors.append(factor[inside])
        left -= 1
    if not left:
        near = (record.x <= record.low) | (record.x >= record.high)
        held = record.x_layout.listed("x", np.flatnonzero(near & record.free))
        raise ValueError(
            f"fewer than one of {MOST_DRAWS} draws of the parameters lies within their bounds and "
            f"constraints; fix what they hold ({held or 'none is at its bound'})"
        )
    return np.concatenate(points)[:count], np.concatenate(factors)[:count]


def _run(
    record: FitRecord, forecast: Any, at: Forecast, points: Array, options: Mapping[str, Any]
) -> tuple[Array, str]:
    """Forecasts (count, n) at points, and what is to be said of those that failed."""
    if isinstance(forecast, JacobianEstimate):
        raise ValueError("sampling needs the forecast itself, as a function of the parameters")
    if at.estimate is None:
        return points @ at.jac.T, ""
    running = {name: options[name] for name in defaults(RunOptions)}
    with Evaluator(forecast, record.x_layout, **running) as evaluate:
        evaluate.learn(at.layout.unflatten(at.value))
        out = evaluate(points.copy())
    failed = ~np.isfinite(out.values).all(1)
    if not failed.any():
        return out.values, ""
    why = last_line(next(iter(out.errors.values()), "nan or inf"))
    if failed.all():
        raise EvaluationError(f"the forecast failed at every draw: {why}")
    return np.where(failed[:, None], np.nan, out.values), (
        f"{failed.sum()} of {len(points)} draws failed and are left out: {why}"
    )


def _bent(at: Forecast, draws: Array, variance: Array, record: FitRecord, kind: str) -> list[str]:
    """Where draws spread otherwise than the first order says, by more than a fifth."""
    low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
    linear = 2.0 * record.quantile(0.95, kind) * np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (high - low) / linear
    rounding = 1e3 * checks.EPS * np.abs(at.value)
    off = np.isfinite(linear) & (linear > rounding) & (np.abs(ratio - 1.0) > 0.2)
    if not off.any():
        return []
    names = at.layout.listed("y", np.flatnonzero(off))
    return [
        f"Draws spread {between(ratio[off], '.2g')} times as far as stderr says, where forecasts "
        f"bend within the errors of the parameters, or bounds cut them: {names}"
    ]
