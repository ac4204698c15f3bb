"""Hessians of which many entries are 0: what a pattern leaves out is not run, and checked."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import rosen, rosen_der, rosen_hess

from gradiator_np import GradiatorWarning, Status, hessian
from gradiator_np.sparsity import banded_pattern, color

X = np.linspace(0.5, 1.5, 12)
BAND = banded_pattern(12, lower=1, upper=1)


class Pairs:
    """A sum of functions of one input and of products of sines of random pairs."""

    def __init__(self, rng, m, p):
        rows, cols = np.triu_indices(m, 1)
        which = rng.choice(rows.size, p, replace=False)
        self.i, self.j = rows[which], cols[which]
        self.a, self.w = rng.normal(size=p) + 2, rng.uniform(0.3, 1.5, m)
        self.pattern = np.eye(m, dtype=bool)
        self.pattern[self.i, self.j] = self.pattern[self.j, self.i] = True

    def __call__(self, x):
        s = np.sin(self.w * x)
        return self.a @ (s[self.i] * s[self.j]) + np.exp(0.3 * x).sum()

    def hess(self, x):
        s, c = np.sin(self.w * x), self.w * np.cos(self.w * x)
        out = np.diag(0.09 * np.exp(0.3 * x))
        for a, i, j in zip(self.a, self.i, self.j):
            out[i, j] = out[j, i] = a * c[i] * c[j]
            out[i, i] -= a * self.w[i] ** 2 * s[i] * s[j]
            out[j, j] -= a * self.w[j] ** 2 * s[i] * s[j]
        return out


def drawn(seed):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(4, 12))
    return Pairs(rng, m, int(rng.integers(2, m))), rng.uniform(0.5, 2, m), rng


def test_it_is_the_dense_one_at_fewer_runs():
    dense, thin = hessian(rosen, X), hessian(rosen, X, sparsity=BAND)
    assert thin.nfev <= 8 * (12 + 11) + 13 + 7 < dense.nfev / 3  # 7: steps were sought
    assert thin.status is Status.OK
    # entries of 1e3; rounding of values of 1e2 over steps of 0.1 squared leaves 1e-12
    np.testing.assert_allclose(thin.hess, rosen_hess(X), atol=1e-8)
    outside = ~BAND.toarray()
    assert (thin.hess[outside] == 0).all()
    assert (thin.stderr[outside] == 0).all()
    assert (thin.stderr[~outside] > 0).all()
    np.testing.assert_array_equal(thin.hess, thin.hess.T)


def lacking(fun, x, rng):
    """The pattern without one pair of at least a tenth of the largest."""
    mixed = np.triu(np.abs(fun.hess(x)), 1)
    i, j = rng.choice(np.argwhere(mixed > 0.1 * mixed.max()))
    pattern = fun.pattern.copy()
    pattern[i, j] = pattern[j, i] = False
    return pattern


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_error_bars_hold_and_pairs_left_out_are_told():
    """Measured of 300 functions: all that lack a pair were told, and no false alarm; of 100 all
    errors were within 5 bars."""
    inside, told, false = 0, 0, 0
    for seed in range(40):
        fun, x, rng = drawn(seed)
        found = hessian(fun, x, sparsity=fun.pattern)
        exact = fun.hess(x)
        off = np.abs(found.hess - exact)
        inside += (off <= 5 * found.stderr + 1e-12 * np.abs(exact).max()).all()
        false += found.status is Status.PATTERN
        told += hessian(fun, x, sparsity=lacking(fun, x, rng)).status is Status.PATTERN
    # none of 300 and of 100 is at most 0.01 and 0.03 each, with 95 % confidence: three of 40 or
    # more have 0.01, six 1e-3
    assert told >= 38
    assert false <= 2
    assert inside >= 35


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_noise_is_in_the_error_bars():
    """Of 1000 functions at noise of 1e-6 none was a false alarm, 0.83 of those that lack a pair
    were told; bars are those of the dense Hessian (within two are 0.906 of 0.901)."""
    false, told, dense, thin = 0, 0, [], []
    for seed in range(60):
        fun, x, rng = drawn(seed)

        def noisy(z, fun=fun, rng=rng):
            return fun(z) + 1e-6 * rng.normal()

        exact, kept = fun.hess(x), fun.pattern
        for found, options in ((dense, {}), (thin, {"sparsity": kept})):
            estimate = hessian(noisy, x, **options)
            off = np.abs(estimate.hess - exact)
            found.append(np.mean((off <= 2 * estimate.stderr)[kept]))
        false += estimate.status is Status.PATTERN
        told += hessian(noisy, x, sparsity=lacking(fun, x, rng)).status is Status.PATTERN
    # at most 3e-3 each, with 95 % confidence: two of 60 have 1.4e-2, three 9e-4
    assert false <= 2
    # binomial, 60 at 0.83: 40 or fewer have 1e-3
    assert told >= 40
    # means of 60 shares, of standard deviations of 0.2 each
    assert np.mean(thin) >= np.mean(dense) - 4 * 0.2 * np.sqrt(2 / 60)


def test_gradients_take_as_many_runs_as_there_are_colours():
    found = hessian(rosen, X, jac=rosen_der, sparsity=BAND)
    assert found.nfev <= 2 * 3 + 16 + 2
    np.testing.assert_allclose(found.hess, rosen_hess(X), atol=1e-5)
    lacking = BAND.toarray()
    lacking[3, 4] = lacking[4, 3] = False
    with pytest.warns(GradiatorWarning, match=r"add what is missing \(x\[3\] by x\[4\]"):
        found = hessian(rosen, X, jac=rosen_der, sparsity=lacking)
    assert found.status is Status.PATTERN


M = 40
ARROW = np.eye(M, dtype=bool)
ARROW[0] = ARROW[:, 0] = True


def arrow_gradient(x):
    """Of sin(x0 x1) + ... + sin(x0 xm) + x0^3 + ...: all meet the first."""
    c = np.cos(x[0] * x[1:])
    return 3 * x**2 + np.append(np.sum(c * x[1:]), c * x[0])


def arrow_hessian(x):
    out, c, s = np.diag(6 * x), np.cos(x[0] * x[1:]), np.sin(x[0] * x[1:])
    out[0, 0] -= np.sum(s * x[1:] ** 2)
    out[0, 1:] = out[1:, 0] = c - s * x[0] * x[1:]
    rest = np.arange(1, M)
    out[rest, rest] -= s * x[0] ** 2
    return out


def test_gradients_of_an_arrow_take_two_colours_and_a_product():
    x = np.linspace(0.5, 1.5, M)
    runs = []

    def gradient(x):
        runs.append(1)
        return arrow_gradient(x)

    found = hessian(lambda x: 0.0, x, jac=gradient, sparsity=ARROW)
    assert found.nfev == len(runs) <= 2 * 2 + 9 + 11
    exact = arrow_hessian(x)
    assert (np.abs(found.hess - exact) <= 5 * found.stderr + 1e-12 * np.abs(exact).max()).all()
    assert (found.hess[~ARROW] == 0).all()
    lacking, before = ARROW.copy(), len(runs)
    lacking[0, 5] = lacking[5, 0] = False
    with pytest.warns(GradiatorWarning, match=r"x\[0\] by x\[5\]"):
        found = hessian(lambda x: 0.0, x, jac=gradient, sparsity=lacking)
    assert found.status is Status.PATTERN
    assert found.nfev == len(runs) - before


def test_gradients_within_max_nfev():
    x, lacking = np.linspace(0.5, 1.5, M), ARROW.copy()
    lacking[0, 5] = lacking[5, 0] = False
    for most in (30, 40, 60, 150, 300):
        runs = []

        def gradient(x, runs=runs):
            runs.append(1)
            return arrow_gradient(x)

        found = hessian(lambda x: 0.0, x, jac=gradient, sparsity=ARROW, max_nfev=most)
        assert found.success
        assert found.nfev == len(runs) <= most
        runs.clear()
        with pytest.warns(GradiatorWarning, match="add what is missing"):
            found = hessian(lambda x: 0.0, x, jac=gradient, sparsity=lacking, max_nfev=most)
        assert found.status is Status.PATTERN
        assert found.nfev == len(runs) <= most + 45  # as jacobian says of broken patterns


def test_a_gradient_that_fails_once_is_not_run_again_by_columns():
    x, runs = np.linspace(0.5, 1.5, M), []

    def gradient(x):
        runs.append(1)
        if len(runs) == 9:
            raise RuntimeError("no licence")
        return arrow_gradient(x)

    with pytest.warns(GradiatorWarning, match="1 runs failed"):
        found = hessian(lambda x: 0.0, x, jac=gradient, sparsity=ARROW)
    exact = arrow_hessian(x)
    assert (np.abs(found.hess - exact) <= 5 * found.stderr + 1e-12 * np.abs(exact).max()).all()
    assert found.nfev == len(runs) <= 2 * 2 + 9 + 11 + 2


def test_errors_by_stars_hold_under_noise():
    held = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.uniform(0.5, 1.5, M)

        def noisy(z, rng=rng):
            return arrow_gradient(z) + 1e-5 * rng.normal(size=M)

        found = hessian(lambda x: 0.0, x, jac=noisy, sparsity=ARROW)
        held.append(np.mean((np.abs(found.hess - arrow_hessian(x)) <= 2 * found.stderr)[ARROW]))
    # those of a colour share their noise: a standard deviation of 0.05 each
    assert np.mean(held) >= 0.954 - 4 * 0.05 / np.sqrt(20)


def test_bounds_dicts_several_and_complex_outputs():
    found = hessian(rosen, X, sparsity=BAND, bounds=(X, np.inf))
    np.testing.assert_allclose(found.hess, rosen_hess(X), atol=1e-4)

    def several(p):
        return np.array([np.sin(p["a"][0] * p["b"]), np.exp(p["a"]).sum()])

    point = {"a": np.array([1.0, 2.0]), "b": 3.0}
    pattern = [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    found = hessian(several, point, sparsity=pattern)
    assert found.status is Status.OK
    wanted = np.cos(3) - 3 * np.sin(3)
    np.testing.assert_allclose(found.hess["a"]["b"], [[wanted, 0], [0, 0]], atol=1e-6)
    turned = hessian(lambda x: np.exp(1j * x).sum(), [1.0, 2.0], sparsity=np.eye(2))
    assert turned.status is Status.OK
    np.testing.assert_allclose(turned.hess, np.diag(-np.exp(1j * np.array([1, 2]))), atol=1e-6)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (np.triu(BAND.toarray()), r"only one of x\[0\] by x\[1\]"),
        (np.ones((12, 3)), r"shape \(12, 3\)"),
        ("detect", "no pattern"),
    ],
)
def test_patterns_that_are_none(wrong, words):
    with pytest.raises(ValueError, match=words):
        hessian(rosen, X, sparsity=wrong)


def test_patterns_come_in_every_form():
    wanted = hessian(rosen, X, sparsity=BAND).hess
    for form in (BAND.toarray(), sparse.coo_matrix(BAND), np.nonzero(BAND.toarray()), color(BAND)):
        np.testing.assert_array_equal(hessian(rosen, X, sparsity=form).hess, wanted)


def test_evaluations_are_limited():
    assert hessian(rosen, X, sparsity=BAND, max_nfev=150).nfev <= 150
    with pytest.raises(ValueError, match="max_nfev=49 is below 51"):
        hessian(rosen, X, sparsity=BAND, max_nfev=49)
