"""Units of parameters that nobody gave: the search along lines, and what a fit makes of it."""

import copy
import pickle

import numpy as np
import pytest

from benchmarks.lsq_scales import KINDS, draw, solve
from gradiator_np import LeastSquares, Status, least_squares
from gradiator_np._calibration.restart import Restart
from gradiator_np._calibration.scale_search import (
    MOST_LONGER,
    MOST_SHORTER,
    Line,
    longer_distance,
    shorter_distance,
)

T = np.linspace(0.0, 1.0, 40)


def walk(line, answer, rule, **known):
    """The line at its end, and the runs that it took."""
    steps = [line.start]
    while True:
        changes = np.array([line.change, *map(answer, steps[1:])])
        line, distance = rule(line, np.array(steps), changes, **known)
        if line.ended:
            return line, len(steps) - 1
        assert distance not in steps
        steps.append(distance)


@pytest.mark.parametrize("shape", [np.tanh, lambda s: 1 - np.exp(-s), lambda s: s / (1 + s)])
def test_the_unit_of_a_leap_is_where_the_change_begins(shape):
    """These saturate at 1 with a slope of 1 / unit."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        unit = 10.0 ** rng.uniform(-10, -2.5)
        start = rng.choice((-1, 1))
        line = Line(0, 0, start, 1.0, True)
        found, runs = walk(
            line,
            lambda s, unit=unit: shape(abs(s) / unit),
            shorter_distance,
            size=1.0,
            floor=0.0,
            resolution=1e-14,
        )
        # at the last distance the change is 0.3 at most, where the secant of each is 0.7 of its
        # slope at least; and below the shortest one with a change of more than 0.3
        assert 0.3 * unit <= found.unit <= unit / 0.7
        assert runs <= np.log(1 / unit) / np.log(100) + 4 <= MOST_SHORTER


@pytest.mark.parametrize("power", [1.0, 2.0, 0.8])
def test_what_does_not_leap_keeps_its_unit_after_one_run(power):
    line = Line(0, 0, 3.0, 1.0, True)
    found, runs = walk(
        line, lambda s: abs(s / 3.0) ** power, shorter_distance, size=1.0, floor=0.0, resolution=0.0
    )
    assert np.isnan(found.unit)
    assert runs == 1


@pytest.mark.parametrize("answer", [np.inf, 50.0])
def test_a_nearer_run_that_fails_or_is_off_tells_no_unit(answer):
    """The first nearer run of what does not leap: the others say that it was chance."""
    line = Line(0, 0, 3.0, 1.0, True)
    found, runs = walk(
        line,
        lambda s: answer if abs(s) == 0.03 else abs(s) / 3.0,
        shorter_distance,
        size=1.0,
        floor=1e-12,
        resolution=0.0,
    )
    assert np.isnan(found.unit)
    # 1e-4 of the displacement and a tenth of it; then one farther off, by the slope
    assert runs <= 5


@pytest.mark.parametrize("x", [0.0, 1.0, -1.0])
def test_longer_distances_end_where_something_answers(x):
    rng = np.random.default_rng(1)
    for _ in range(100):
        unit = 10.0 ** rng.uniform(2, 15 if x == 0 else 8)
        side = np.sign(x) or 1.0

        def answer(s, unit=unit):
            change = abs(s) / unit
            return change if change < 30.0 else np.inf  # what is far off fails

        line = Line(0, 0, 0.2 * side, answer(0.2), False, x == 0)
        found, runs = walk(line, answer, longer_distance, size=1.0, floor=1e-13, x=x)
        assert runs <= MOST_LONGER
        assert 1e-3 <= answer(0.2 * found.unit) <= 0.5


def test_where_nothing_answers_few_runs_say_so():
    for x, most in ((0.0, 3), (2.0, 4)):
        line = Line(0, 0, 0.2, 0.0, False, x == 0)
        found, runs = walk(line, lambda s: 0.0, longer_distance, size=1.0, floor=1e-13, x=x)
        assert np.isnan(found.unit)
        assert np.isnan(found.elsewhere)
        assert runs <= most


def test_a_date_is_found():
    """A peak a tenth of a day wide, and the day by its Julian number."""
    t = 2459038.0 + T

    def model(x):
        return x["height"] * np.exp(-0.5 * ((t - x["day"]) / x["width"]) ** 2) + x["floor"]

    truth = {"height": 3.0, "day": 2459038.33, "width": 0.05, "floor": 1.0}
    data, start = model(truth), {"height": 2.0, "day": 2459038.27, "width": 0.1, "floor": 0.5}
    r = least_squares(lambda x: model(x) - data, start)
    # a day is rounded to 5e-10, a hundred millionth of the width
    np.testing.assert_allclose([r.x[k] for k in truth], list(truth.values()), rtol=1e-7)
    assert r.success
    assert "x_scale was found from the runs, x.day = 0." in r.message
    told = least_squares(lambda x: model(x) - data, start, x_scale={**start, "day": 0.1})
    assert "x_scale" not in told.message
    assert told.nfev < r.nfev


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.0, 1e-4])
@pytest.mark.parametrize("kind", KINDS)
def test_random_units_are_found(kind, level):
    """Of 40 further fits of each cell 0.95 to 1 were solved; with |x| for units 0.25 to 0.9 are.

    At a rate of 0.95 five of ten fail in 6e-5 of the tests.
    """
    solved = sum(solve(draw(kind, seed), level, seed)[0] for seed in range(100, 110))
    assert solved >= 6


def test_units_that_fit_cost_no_run():
    """With the first guess given as x_scale nothing is searched: as many runs as without it."""
    fits = {
        "decay": (lambda x: x[0] * np.exp(-3 * x[1] * T) + x[2], [2.0, 0.7, 0.3]),
        "peak": (lambda x: x[0] * np.exp(-(((T - x[1]) / x[2]) ** 2)), [2.0, 0.4, 0.3]),
        "line": (lambda x: 1e9 * x[0] + 1e-6 * x[1] * T, [1e-9, 1e6]),
    }
    for model, truth in fits.values():
        truth = np.array(truth)
        data, start = model(truth), truth * 1.2

        def fun(x, model=model, data=data):
            return model(x) - data

        found, told = least_squares(fun, start), least_squares(fun, start, x_scale=start)
        assert found.nfev == told.nfev


def test_a_rate_too_fast_to_be_seen_is_found_or_no_success_and_an_inert_input_is_one(monkeypatch):
    """The search starts once more from where the residuals answer; the message without that."""
    data = 1 + 2 * np.exp(-T)

    def fast():
        return least_squares(
            lambda x: x[0] + x[1] * np.exp(-20 * T * x[2]) - data,
            [0.5, 0.5, 300.0],
            bounds=(0, 1e4),
        )

    found = fast()
    assert found.success
    # a root: the sum of squares is below 1e-16 of the first one, and J'J of a condition below 1e4
    np.testing.assert_allclose(found.x, [1.0, 2.0, 0.05], rtol=1e-6)
    monkeypatch.setattr(Restart, "after", lambda self, *args: None)
    off = fast()
    assert off.reason is Status.UNDETERMINED
    assert off.undetermined[2]
    assert "The residuals do answer at x[2] = 3" in off.message
    inert = least_squares(lambda x: x[0] + x[1] * T + 0 * x[2] - data, [0.5, 0.5, 300.0])
    assert inert.success
    assert list(inert.undetermined) == [False, False, True]
    assert "do answer" not in inert.message


def test_a_search_for_units_can_be_copied_at_any_time():
    problem = draw("far offset", 0)
    search, told = LeastSquares(problem.x0), 0
    while True:
        points, ids = search.ask()
        if not len(ids):
            break
        search = pickle.loads(pickle.dumps(copy.deepcopy(search)))
        search.tell([problem(x) for x in points], ids)
        told += len(ids)
    straight = least_squares(problem, problem.x0)
    assert told == straight.nfev
    np.testing.assert_array_equal(search.result().x, straight.x)
