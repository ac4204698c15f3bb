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
        if kind == "along":
            u = np.array([1.0, 1.0])
            found, exact = gr.hvp(fun, x, u, quadratic=True), u @ hess @ u
        elif kind == "hessian":
            found, exact = gr.hessian(fun, x), hess
        else:
            found, exact = gr.hessian_diagonal(fun, x), np.diag(hess)
        wrong += sure_and_wrong(found, exact)
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
    wide = lambda p: np.exp(p[0]) * p[1]  # noqa: E731
    found = gr.hvp(
        lambda p: wide(p) + 0.01 * np.cos(2e5 * (p[0] - 1)), [1.0, 2.0], [1.0, 0.0], quadratic=True
    )
    exact = 2 * np.e - 0.01 * 4e10
    off = np.abs(found.value - exact)
    assert off <= 5 * found.stderr or not found.success


def test_seven_runs_with_noise_seldom_leave_their_bars():
    """Bars of two degrees of freedom: beyond six of them 1 in 37 (of one, before: 1 in 9.5); here
    u'Hu is 0 and truncation is not: seen 36 of 300. More than 40 of 200: 5e-4."""
    beyond = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = gr.hvp(
            lambda p, r=rng: np.exp(p[0]) * p[1] + 1e-4 * r.normal(), [1.0, 2.0], [1.0, -1.0],
            quadratic=True,
        )  # fmt: skip
        assert found.nfev == 7
        beyond += abs(found.value - (2 * np.e - 2 * np.e)) > 6 * found.stderr
    assert beyond <= 40


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
