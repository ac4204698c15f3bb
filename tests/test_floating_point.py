"""np.seterr(all="raise") and warnings as errors lose nothing, through every door."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest

import gradiator_np as g
from benchmarks.strangers_cases import CELLS, Draw


def sampled(case):
    """Points around x and the values there, those that could be had."""
    rng, x = np.random.default_rng(0), case.x
    points, values = [], []
    for _ in range(2 * len(x) + 8):
        point = x * (1 + 1e-3 * rng.standard_normal(len(x)))
        try:
            value = np.atleast_1d(np.asarray(case.fun(point), float))
        except (ValueError, RuntimeError):
            continue
        if np.isfinite(value).all() and np.abs(value).max() < 1e100:
            points.append(point)
            values.append(value)
    return np.array(points), np.array(values)


def fits(case):
    points, values = sampled(case)
    if not len(points):
        return
    g.fit_points(points, values, x=case.x).confidence_interval()
    base = values[0]
    g.fit_jacobian(points[1:] - points[0], values[1:] - base, base="shared").stderr  # noqa: B018


def streams(case):
    points, values = sampled(case)
    if not len(points):
        return
    stream = g.StreamingJacobian(len(case.x), values.shape[1])
    stream.partial_fit(points[1:] - points[0], values[1:] - values[0])
    assert stream.estimate().n_samples == len(points) - 1
    follows = g.StreamingJacobian(len(case.x), values.shape[1], forgetting=0.9)
    follows.partial_fit(x=points, f=values).estimate().stderr  # noqa: B018


def squares(case):
    y = np.asarray(case.fun(case.x), float)
    g.least_squares(lambda p: np.asarray(case.fun(p), float) - 1.01 * y, 1.01 * case.x, max_nfev=60)


def check(case):
    g.check_jacobian(case.fun, case.truths[0], case.x, **case.options)


DOORS = {
    "jacobian": lambda c: repr(g.jacobian(c.fun, c.x, **c.options)),
    "2-point": lambda c: g.jacobian(c.fun, c.x, method="2-point", **c.options).stderr,
    "5-point": lambda c: g.jacobian(c.fun, c.x, method="5-point", **c.options).stderr,
    "jvp": lambda c: g.jvp(c.fun, c.x, np.eye(len(c.x))[0], **c.options),
    "vjp": lambda c: g.vjp(c.fun, c.x, np.ones(len(c.truths[0])), **c.options),
    "prepare": lambda c: [g.prepare(c.fun, c.x, **c.options)(c.x) for _ in range(2)],
    "gradiator": lambda c: g.gradiator(c.fun)(c.x),
    "check_jacobian": check,
    "estimate_noise": lambda c: g.estimate_noise(c.fun, c.x),
    "optimal_step": lambda c: g.optimal_step(c.fun, c.x, 1e-9 * np.abs(c.fun(c.x)) + 1e-12),
    "fits": fits,
    "streams": streams,
    "least_squares": squares,
}


def quiet(case):
    """The case, with a function that has no errors of its own."""
    inner = case.fun

    def run(point):
        with np.errstate(all="ignore"):
            return inner(point)

    return type(case)(run, case.x, case.truths, case.options, case.best, case.noisy)


# Values beyond 1e100 are in no cell of these: squares of them overflow where nobody asked.
@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("door", DOORS)
def test_no_floating_point_error_is_ours(door):
    for index, name in enumerate(CELLS):
        if "far origin" in name or "at random" in name:
            continue
        case = quiet(CELLS[name](Draw(np.random.default_rng([11, index]))))
        # a point that fails and a corner of bounds are told as ever
        with np.errstate(all="raise"), contextlib.suppress(g.EvaluationError, ValueError):
            DOORS[door](case)


def test_an_error_inside_of_the_function_is_a_failed_run():
    def fun(x):
        return np.exp(x * np.where(x > 1.01, 1e6, 1.0))

    with np.errstate(all="raise"), pytest.warns(g.GradiatorWarning, match="failed_runs"):
        estimate = g.jacobian(fun, [1.0, 0.5], on_error="drop")
    assert estimate.n_failed > 0
    assert "FloatingPointError" in next(iter(estimate.samples.errors.values()))


def warning_of(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(g.GradiatorWarning) as caught:
            run()
    return caught.value


RESULTS = {
    "jacobian": (lambda: g.jacobian(np.abs, [0.0, 1.0]), g.JacobianEstimate),
    "gradient": (lambda: g.gradient(lambda x: np.abs(x).sum(), [0.0, 1.0]), g.JacobianEstimate),
    "prepare": (lambda: g.prepare(np.abs, [0.0, 1.0])([0.0, 1.0]), g.JacobianEstimate),
    "whole numbers": (
        lambda: g.jacobian(lambda x: np.floor(x).astype(int), [0.3], method="2-point"),
        g.JacobianEstimate,
    ),
    "fit_jacobian": (
        lambda: g.fit_jacobian(np.arange(1.0, 9)[:, None], 50 + np.arange(8.0)),
        g.JacobianEstimate,
    ),
    "check_jacobian": (
        lambda: g.check_jacobian(np.sin, [[1.0]], [0.0], method="2-point"), g.JacobianCheck,
    ),
    "estimate_noise": (
        lambda: g.estimate_noise(lambda x: x if x[0] == 1 else x * np.nan, [1.0]), g.NoiseEstimate,
    ),
    "optimal_step": (lambda: g.optimal_step(lambda x: 0 * x + 1, [0.5], 1e-3), g.StepEstimate),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_a_warning_as_an_error_carries_the_result(name):
    run, kind = RESULTS[name]
    result = warning_of(run).estimate
    assert isinstance(result, kind)
    assert repr(result)


def test_a_jvp_along_fixed_inputs_carries_its_estimate():
    bounds = ([0.0, 1.0], [2.0, 1.0])
    found = warning_of(lambda: g.jvp(np.sin, [1.0, 1.0], [0.0, 1.0], bounds=bounds)).estimate
    assert np.isinf(found.stderr).all()
