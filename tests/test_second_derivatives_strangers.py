"""Second derivatives of functions that live on other scales than x: rates over seeds."""

import numpy as np
import pytest

import gradiator_np as gr
from benchmarks.second_derivatives_cases import draw

pytestmark = pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")


def far_away(seed, low, high):
    """A case whose first input is 10^low to 10^high scales from its origin; its Hessian at x."""
    rng = np.random.default_rng(seed)
    case = draw(2, rng, 0.0)
    shift = np.array([10.0 ** rng.uniform(low, high), 0.0])
    x = case.x + shift
    near = x - shift  # as rounded
    case.x[:] = near
    return (lambda p: case(p - shift)), x, case.hess


SECOND = {
    "hessian": gr.hessian,
    "diagonal": gr.hessian_diagonal,
    "along": lambda f, x: gr.hvp(f, x, [1.0, 1.0], quadratic=True),
}
PART = {"hessian": np.asarray, "diagonal": np.diag, "along": np.sum}


def sure_and_wrong(found, exact):
    """Whether it is ok and more than five bars off."""
    return found.success and bool((np.abs(found.coef[0] - exact) > 5 * found.error[0]).any())


@pytest.mark.parametrize("kind", ["hessian", "diagonal", "along"])
def test_far_origins_are_seldom_wrong_without_a_word(kind):
    """40 calls, x at 1e2 to 1e7 scales. Seen: 3 to 7 % of others, where u'Hu has half of them wrong
    without the pair next to x; at 0.05 more than 8 of 40 have probability 1e-4."""
    wrong = 0
    for seed in range(40):
        fun, x, hess = far_away(seed, 2, 7)
        wrong += sure_and_wrong(SECOND[kind](fun, x), PART[kind](hess))
    assert wrong <= 8


def test_kinks_and_jumps_at_x_are_told_by_seven_runs():
    for seed in range(20):
        case = draw(2, np.random.default_rng(seed), 0.0)
        for shape in (abs, lambda t: 1.0 * (t >= 0), lambda t: 1.0 * (t > 0)):
            found = gr.hvp(
                lambda p, c=case, s=shape: c(p) + 0.3 * s(p[0] - c.x[0]), case.x, [1.0, 0.5],
                quadratic=True,
            )  # fmt: skip
            assert found.status == "lack_of_fit"
            assert found.nfev == 7


def test_a_pair_next_to_x_that_says_otherwise_is_heard():
    """A wave that noise of seven runs hides: close to x it is u'Hu, over the steps it is not."""

    def waving(p):
        return np.exp(p[0]) * p[1] + 0.01 * np.cos(2e5 * (p[0] - 1))

    found = gr.hvp(waving, [1.0, 2.0], [1.0, 0.0], quadratic=True)
    exact = 2 * np.e - 0.01 * 4e10
    off = np.abs(found.value - exact)
    assert off <= 5 * found.stderr or not found.success


def flat_along_u(seed):
    """exp(a) b, whose u'Hu is 0 at (1, 2) and whose truncation is not."""
    del seed
    return (lambda p: np.exp(p[0]) * p[1]), np.array([1.0, 2.0]), np.array([1.0, -1.0]), 0.0


def drawn(seed):
    rng = np.random.default_rng(seed)
    case = draw(3, rng)
    u = case.scale * rng.normal(size=3)
    return case, case.x, u, u @ case.hess @ u


@pytest.mark.parametrize("make, outside", [(flat_along_u, 32), (drawn, 25)])
def test_intervals_and_bars_of_seven_runs_with_noise(make, outside):
    """Two degrees of freedom: beyond six bars 2.7 %, outside of 95 % intervals 5 %. Seen of 1000:
    0.4 and 3.1 %, 8.2 and 5.5 %. More than 17, and 32 and 25, of 200 at what was seen: 1e-4 each.
    """
    beyond = missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed + 10_000)
        fun, x, u, exact = make(seed)
        found = gr.hvp(lambda p, f=fun, r=rng: f(p) + 1e-4 * r.normal(), x, u, quadratic=True)
        assert found.nfev == 7
        low, high = found.confidence_interval()
        beyond += abs(found.value - exact) > 6 * found.stderr
        missed += not low <= exact <= high
    assert beyond <= 17
    assert missed <= outside


@pytest.mark.parametrize("kind", ["hessian", "diagonal"])
@pytest.mark.parametrize("kink", [0.0, 0.3])
def test_noise_that_hides_a_small_scale_is_seldom_wrong_without_a_word(kind, kink):
    """40 calls with noise, x at 1e2 to 1e7 scales: steps of a tenth of x tell of a trend that is
    none. Seen: 2 to 7 % of 200 others (24 to 36 % of 100 before a closer pair was run); more than
    10 of 40 at 7 %: 1e-4."""
    wrong = 0
    for seed in range(40):
        fun, x, hess = far_away(seed, 2, 7)
        rng = np.random.default_rng(seed)

        def noisy(p, f=fun, at=x, r=rng):
            return f(p) + kink * abs(p[0] - at[0]) + 1e-4 * r.normal()

        wrong += sure_and_wrong(SECOND[kind](noisy, x), PART[kind](hess))
    assert wrong <= 10


@pytest.mark.parametrize("kind", SECOND)
def test_steps_that_leave_where_the_function_is_finite_are_told(kind):
    """cosh 1e15 scales from 0 is finite within 710 of them, 7e-13 of x: no second difference is as
    short. Once a LinAlgError."""
    estimate = SECOND[kind](lambda p: np.cosh((p[0] - 1e6) / 1e-9) + 0.5 * p[1] ** 2, [1e6, 0.3])
    assert estimate.status == "undetermined"
    assert "runs failed" in estimate.message
    assert np.isinf(estimate.error).any()


def test_an_entry_that_says_nothing_is_told():
    """Whatever the other entries are: once 100 +- 1e16 under ok."""

    def bowl(p):
        return 0.5 * ((p[0] - 3e4) / 1e-3) ** 2 + 0.5 * ((p[1] - 2e-3) / 0.1) ** 2

    found = gr.hessian(bowl, [3e4, 2e-3])
    exact = np.diag([1e6, 100.0])
    assert (np.abs(found.hess - exact) <= 5 * found.stderr).all()
    assert found.stderr[1, 1] < 50 or (found.status == "unresolved" and "x[1]" in found.message)


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_units_of_values_do_not_matter_to_any_power(factor):
    """Their fourth powers overflow: once kinks and jumps that are none."""
    found = gr.hessian(lambda x: factor * np.exp(x[0]) * x[1], [0.5, 2.0])
    e = np.exp(0.5)
    # Of order 8 at double precision, as in test_second_derivatives: 1e-10 of values of 4.
    np.testing.assert_allclose(found.hess / factor, [[2 * e, e], [e, 0]], atol=1e-10)
    assert found.status == "ok"
