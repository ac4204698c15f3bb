"""Second derivatives under noise: rates over many functions that were drawn, not chosen."""

import numpy as np
import pytest

import gradiator_np as gr
from benchmarks.second_derivatives import NOISE, limit
from benchmarks.second_derivatives_cases import draw

pytestmark = pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")


class Noisy:
    """A function with noise that counts its runs."""

    def __init__(self, case, rng, noise=NOISE):
        self.case, self.rng, self.noise, self.nfev = case, rng, noise, 0

    def __call__(self, x):
        self.nfev += 1
        return self.case(x) + self.noise * self.rng.normal()


def held(found, exact):
    low, high = found.confidence_interval()
    return ((low <= exact) & (exact <= high)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("m", [2, 5])
def test_evaluations_errors_and_intervals(m):
    """Entries of one function share its noise level: their coverages scatter by 0.2 at most (seen:
    0.12), the mean of 60 functions by 0.026. Below 0.85 where it is 0.95: 3.8 of them, 1 in 10^4.
    """
    coverage, ratios = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        case = draw(m, rng)
        fun = Noisy(case, rng)
        found = gr.hessian(fun, case.x, rng=seed)
        assert found.nfev == fun.nfev <= 1.2 * (m + 1) * (m + 2) / 2 + 10
        coverage.append(held(found, case.hess))
        unit = np.abs(np.outer(case.x, case.x))[np.tril_indices(m)]
        errors = np.abs(found.hess - case.hess)[np.tril_indices(m)] * unit
        ratios.append(np.median(errors) / limit(case, fun.nfev))
    assert np.mean(coverage) > 0.85
    # The best common step of a function that is known. Seen: 1.2 to 2.0; the log of one ratio
    # scatters by 1, the median of 60 by 0.16, and 3 is 2.5 of that above 2.
    assert np.median(ratios) < 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["diagonal", "product", "quadratic"])
def test_intervals_of_the_others(kind):
    """As above, of 60 functions; u'Hu is one entry each: at 0.95 below 47 of 60 is 1 in 10^5."""
    coverage = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        case = draw(3, rng)
        u = case.scale * rng.normal(size=3)
        fun = Noisy(case, rng)
        if kind == "diagonal":
            found, exact = gr.hessian_diagonal(fun, case.x), np.diag(case.hess)
        else:
            found = gr.hvp(fun, case.x, u, quadratic=kind == "quadratic")
            exact = case.hess @ u if kind == "product" else u @ case.hess @ u
        assert kind != "quadratic" or found.nfev <= 7
        coverage.append(held(found, exact))
    assert np.mean(coverage) > (0.78 if kind == "quadratic" else 0.85)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, NOISE])
def test_kinks_and_jumps_at_x_are_told(noise):
    """Kinks of 0.6 a scale: all are seen without noise, and most with it (seen: 40 of 40)."""
    doubted = {"kink": 0, "jump": 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        case = draw(3, rng, 0.0)
        at = case.x.copy()
        kinked = Noisy(lambda x, c=case, a=at: c(x) + 0.3 * abs(x[0] - a[0]), rng, noise)
        broken = Noisy(lambda x, c=case, a=at: c(x) + 0.1 * (x[0] >= a[0]), rng, noise)
        doubted["kink"] += gr.hessian(kinked, at).status != "ok"
        doubted["jump"] += gr.hessian(broken, at).status != "ok"
    assert doubted["jump"] == 20
    assert doubted["kink"] >= (14 if noise else 20)


def test_few_runs_tell_kinks_beside_noise():
    """Two inputs have 17 runs, and one scout. Silent 2 to 9 % of 220 calls (44 % of 100 where only
    sizes at equal distances told them): more than 12 of 40 at 9 % have probability 3e-5."""
    silent = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        case = draw(2, rng, 0.0)
        at = case.x.copy()
        fun = Noisy(lambda x, c=case, a=at: c(x) + 0.3 * abs(x[0] - a[0]), rng)
        silent += gr.hessian(fun, at).success
        assert fun.nfev <= 17
    assert silent <= 12


@pytest.mark.slow
def test_printed_outputs():
    """Six digits: errors of rounding are uniform; the mean of 40 coverages as above."""
    coverage = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        case = draw(3, rng, 0.0)
        found = gr.hessian(lambda x, c=case: float(f"{c(x):.5e}"), case.x)
        coverage.append(held(found, case.hess))
        assert found.noise > 0
    assert np.mean(coverage) > 0.82
