"""The first stage of the pilot: what a function is at small steps."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.strangers_cases import CELLS, Draw
from gradiator_np import jacobian
from gradiator_np.designs._adaptive.model.scale_consistency import FULL_UP
from gradiator_np.designs._adaptive.stages.small_scale import (
    DEPARTS,
    USEFUL,
    Kind,
    examine_small_scale,
    small_step,
)
from tests.stage_bench import EPS, Bench, contrasts_of, hashed, smooth

FIRST = 1e-8 * FULL_UP
X = np.array([0.5, 1.0, -0.7, 1.4])


def examined(fun, x=X, seed=0, repeats=False):
    """What small steps say of a function, the bench, and the line."""
    bench = Bench(fun, x, seed=seed)
    line = bench.line(FIRST)
    found = bench.run(examine_small_scale(line, contrasts_of(line), repeats))
    return found, bench, line


def test_the_small_step_is_the_power_of_ten_next_to_the_cube_root_of_eps():
    assert small_step(EPS) / FULL_UP == pytest.approx(1e-5, rel=1e-14)
    assert small_step(float(np.finfo(np.float32).eps)) / FULL_UP == pytest.approx(1e-2, rel=1e-14)


def test_smooth_functions_are_smooth_all_along():
    """100 functions: six runs each after the first pair, and contrasts of rounding alone: some eps
    of what the outputs are made of."""
    for seed in range(100):
        fun, _ = smooth(np.random.default_rng(seed), 4, 3)
        found, bench, _ = examined(fun, seed=seed)
        assert found.kind is Kind.SMOOTH
        assert found.step == pytest.approx(FIRST)
        assert found.max_step == pytest.approx(small_step(EPS))
        assert not (found.kinked)
        assert not (found.jumps)
        assert not (found.unresolved)
        assert bench.log.n_rows == 8
        assert (found.noise.count == 2).all()
        assert (found.noise.level().noise < 30 * EPS * np.maximum(found.noise.size, 0.3)).all()


@pytest.mark.parametrize("sigma", [1e-11, 1e-6, 1.0])
def test_random_noise_is_random(sigma):
    """A second difference of one output below its limit, 3e3 eps = 7e-13 of the size, has a
    probability of 2 % at 1e-11, and of four together of 2e-7."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        found, bench, line = examined(
            lambda z, r=rng: np.exp(z) + sigma * r.standard_normal(4), seed=seed
        )
        assert found.kind is Kind.RANDOM
        assert line.random
        assert bench.log.n_rows == 3


@pytest.mark.parametrize("sigma", [1e-9, 1e-4])
def test_noise_of_a_deterministic_program_is_rough(sigma):
    """Three outputs of four pass for a kink or a parabola in 0.2 % of all cases each, at one and at
    two closer steps: all of them never. A program known to repeat is not asked to."""
    for seed in range(30):
        found, _, line = examined(
            lambda z: np.exp(z) + sigma * hashed(z + z.sum()), seed=seed, repeats=seed % 2 == 0
        )
        assert found.kind is Kind.ROUGH
        assert not (found.jumps)
        assert not (found.unresolved)
        assert line.repeated == (seed % 2 == 1)


def test_a_kink_at_x_is_smooth_but_for_the_kink():
    found, *_ = examined(lambda z: np.array([np.exp(z[0]) + np.abs(z[1] - 1.0), z[2] ** 2]))
    assert found.kind is Kind.SMOOTH
    assert found.kinked
    # second differences of a kink are no rounding, slopes are
    assert (found.noise.count == 1).all()
    assert (found.noise.level().noise < 30 * EPS * np.maximum(found.noise.size, 0.3)).all()


def test_a_jump_at_x_is_rough():
    found, *_ = examined(lambda z: np.array([np.exp(z[0]) + (z[1] > 1.0), z[2] ** 2]))
    assert found.kind is Kind.ROUGH
    assert found.jumps


def test_what_answers_at_the_first_step_only_is_still():
    """Inputs on a grid of 1e-9, a tenth of the first step, which x is 0.2 of it away from."""
    grid = 1e-9 * np.pi / 3
    found, *_ = examined(
        lambda z: np.exp(np.round(z / grid) * grid), (np.round(X / grid) + 0.3) * grid
    )
    assert found.kind is Kind.STILL


def test_what_changes_wherever_one_looks_is_unresolved():
    """Of 200 seeds 3 pass for smooth, and 0.6 show one output change by half of what a wide step
    changes it; of 40, 36 and 13 have false alarms of 3e-4 and 2e-4."""
    found = [
        examined(lambda z: np.array([np.exp(z[0]), hashed(z.sum())]), seed=seed)[0]
        for seed in range(40)
    ]
    assert sum(f.kind is Kind.ROUGH for f in found) >= 36
    assert sum(f.unresolved > 0 for f in found) >= 13


@pytest.mark.parametrize(
    "bend, off",
    [(bend, off) for bend in (1e-4, 1e-6, 1e-7) for off in (0.0, 0.5)],
)
def test_functions_that_bend_early_are_smooth_up_to_there(bend, off):
    """bend * tanh(z / bend + off): the slope at the widest step is off by less than USEFUL, that at
    the smallest one by less than DEPARTS, each relative to itself and some hundredths of the other,
    and no wider pair is left in the log."""
    for seed in range(10):
        found, bench, line = examined(
            lambda z: np.array([np.exp(z[0]), bend * np.tanh((z[1] - 1) / bend + off)]), seed=seed
        )
        assert found.kind is Kind.SMOOTH
        jac = np.array([[np.exp(X[0]), 0, 0, 0], [0, 1 / np.cosh(off) ** 2, 0, 0]])
        wanted = bench.along(jac)
        for t, most in ((found.step, DEPARTS), (found.max_step, USEFUL)):
            np.testing.assert_allclose(line.at(t)[0], wanted, rtol=most + 0.02)
        if bend < 1e-5:
            assert found.max_step < small_step(EPS)
            assert line.widest(0.5) <= 1.02 * found.max_step


@pytest.mark.parametrize("distance", [1e-6, 3e-6])
def test_steps_stay_short_of_an_event(distance):
    """A kink on one side: the slope at x holds up to there."""
    for seed in range(10):
        found, bench, line = examined(
            lambda z: np.array([z[0] ** 2, z[1] + 3 * np.maximum(z[1] - 1 - distance, 0)]),
            seed=seed,
        )
        assert found.kind is Kind.SMOOTH
        wanted = bench.along(np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
        # beyond DEPARTS of a kink's change the steps end
        np.testing.assert_allclose(line.at(found.max_step)[0], wanted, rtol=1.01 * DEPARTS)


def test_steps_are_those_that_float32_can_make():
    """x is kept in float64, whose spacing once allowed a step that rounds to nothing in float32:
    one call of 400 raised."""
    rng = np.random.default_rng([32001, 37, 150])
    case = CELLS["float32 x and y"](Draw(rng))
    assert jacobian(case.fun, case.x, rng=32151).status == "ok"
