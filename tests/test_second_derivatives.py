"""Hessians, products and diagonals: exact derivatives, shapes, costs, failures, statuses."""

import warnings

import numpy as np
import pytest

import gradiator_np as gr
from benchmarks.second_derivatives_cases import draw
from gradiator_np._second_derivatives import forms
from gradiator_np._second_derivatives.limit import Amplitudes, Contrasts

X = np.array([0.5, 1.0, 2.0])
U = np.array([1.0, -2.0, 0.5])


def smooth(x):
    return np.exp(x[0]) * np.sin(x[1]) + x[0] * x[2] ** 2


def hess_of_smooth(x):
    e, s, c = np.exp(x[0]), np.sin(x[1]), np.cos(x[1])
    return np.array([
        [e * s, e * c, 2 * x[2]],
        [e * c, -e * s, 0],
        [2 * x[2], 0, 2 * x[0]],
    ])  # fmt: skip


EXACT = hess_of_smooth(X)
# Of order 8 at double precision: 2e-12 of values of size 4 at scales of 0.5 to 2, tenfold.
TOL = 1e-10


def close(found, exact, tol=TOL):
    np.testing.assert_allclose(found, exact, rtol=0, atol=tol)


# -- exact derivatives ------------------------------------------------------------------------


def test_hessian_of_a_smooth_function():
    found = gr.hessian(smooth, X)
    close(found.hess, EXACT)
    assert found.status == "ok"
    assert found.nfev <= 4 * 3 * 4 + 7 + 3 * 2 * 2  # four sizes of each, six next to x, a shift
    assert (found.hess == found.hess.T).all()
    # Bars hold: each error is below five of them (1e-6 a piece by chance), and they are of use.
    assert (np.abs(found.hess - EXACT) <= 5 * found.stderr).all()
    assert found.stderr.max() < TOL


def test_products_and_diagonals_are_those_of_the_hessian():
    close(gr.hvp(smooth, X, U).value, EXACT @ U)
    close(gr.hessian_diagonal(smooth, X).value, np.diag(EXACT))
    # Two sizes: 1e-10 of the radius of convergence, values of 4, tenfold and U of 2.
    along = gr.hvp(smooth, X, U, quadratic=True)
    close(along.value, U @ EXACT @ U, 1e-7)
    assert along.nfev == 7
    sharp = gr.hvp(smooth, X, U, quadratic=True, max_nfev=20)
    close(sharp.value, U @ EXACT @ U)
    assert sharp.nfev <= 20


@pytest.mark.parametrize("factor", [1e-150, 1e-8, 1e8, 1e150])
def test_units_do_not_matter(factor):
    """Of y, by any power of ten: relative errors are the same but for rounding."""
    found = gr.hessian(lambda x: factor * smooth(x), X)
    close(found.hess / factor, EXACT)
    assert found.status == "ok"


@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1e6, 1e30])
def test_units_of_x_do_not_matter(factor):
    found = gr.hessian(lambda x: smooth(x / factor), factor * X)
    close(found.hess * factor**2, EXACT)


def test_cases_have_the_second_derivatives_that_they_claim():
    """By complex arithmetic: Re f(x + i h u) = f - h^2 u'Hu / 2 + h^4 .../24."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        case = draw(3, rng, 0.0)
        u, h = rng.normal(size=3), 1e-3
        exact = u @ case.hess @ u
        seen = 2 * (case(case.x) - case(case.x + 1j * h * u).real) / h**2
        # h^2 / 12 of the fourth derivative (below 1e3 here), rounding eps / h^2 of values.
        assert abs(seen - exact) < 1e-3 * (1 + abs(exact))


def test_far_origins_and_narrow_functions():
    """f changes over 1e-6 of x: x itself is rounded at 1e-10 of that scale."""
    found = gr.hessian(lambda x: np.sin(x[0] - 1e6) + np.exp(x[1] - 1e6), [1e6 + 0.5, 1e6 + 0.25])
    exact = np.diag([-np.sin(0.5), np.exp(0.25)])
    # Rounding of x makes noise of 1e-10; of order 8 that leaves (1e-10)^0.8 = 1e-8, tenfold.
    close(found.hess, exact, 1e-6)
    assert found.status == "ok"
    found = gr.hessian(lambda x: np.exp(2000 * (x[0] - 1)) + x[1] ** 2, [1.0, 1.0])
    np.testing.assert_allclose(found.hess[0, 0], 4e6, rtol=1e-9)
    close(found.hess[1, 1], 2.0, 1e-5)


def test_zeros_and_minima():
    close(gr.hessian(lambda x: x[0] ** 2 + 3 * x[1] ** 4, [0.0, 0.0]).hess, [[2, 0], [0, 0]])
    valley = gr.hessian(lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2, [1.0, 1.0])
    close(valley.hess, [[802, -400], [-400, 200]], 1e-8)
    tiny = gr.hessian(lambda x: x[0] ** 2 + x[1] ** 2, [1e-14, 1.0])  # an input of another size
    close(tiny.hess, 2 * np.eye(2), 1e-6)


# -- the pieces -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SYMMETRIC", "FORWARD", "PAIR", "CORNER", "CROSS", "ODD"])
def test_rules_are_exact_for_quadratic_functions(name):
    rng = np.random.default_rng(1)
    rule = getattr(forms, name)
    h, g, c = rng.normal(size=(2, 2)), rng.normal(size=2), rng.normal()
    h = h + h.T

    def value(a, b):
        p = np.array([a, b])
        return c + g @ p + p @ h @ p / 2

    seen = rule.centre * c + sum(w * value(a, b) for a, b, w in rule.nodes)
    exact = {"ODD": 0.0, "SYMMETRIC": h[0, 0], "FORWARD": h[0, 0]}.get(name, h[0, 1])
    assert abs(seen - exact) < 1e-13  # ten operations on numbers of size 3
    assert abs(rule.centre + sum(w for *_, w in rule.nodes)) < 1e-15
    if rule.even:
        assert abs(sum(w * (a + b) ** 3 for a, b, w in rule.nodes)) < 1e-15


@pytest.mark.parametrize("even", [True, False])
def test_limits_are_those_of_generalised_least_squares(even):
    """The slow obvious twin: each combination by its covariance matrix, where that is tame."""
    rng = np.random.default_rng(2)
    grid = Amplitudes(0.05)
    sizes = np.array([1.0, 0.7, 0.4])
    noise = np.diag(1.5 / sizes**4) + 0.3 / np.multiply.outer(sizes, sizes) ** 2
    of = Contrasts(3 + rng.normal(size=(4, 3)), sizes, noise, even, False, 2.0)
    table, log = grid.table(of), grid.likelihood(of)
    weights, variance = table.weights, table.variance
    d = of.values @ np.linalg.inv(sizes[:, None] ** ((2 if even else 1) * np.arange(3))).T
    power = (2 if even else 1) * np.arange(1, 9)  # as many as ``limit.TERMS`` leaves
    one = np.ones(3)
    for c in range(0, len(grid.a), 17):
        terms = 2.0 * grid.a[c] * grid.q[c] ** (power / 2) * sizes[:, None] ** power
        inverse = np.linalg.inv(terms @ terms.T + noise)
        information = one @ inverse @ one
        twin = of.values @ inverse @ one / information
        # Condition numbers up to 1e6 of both ways round, and the jitter of 1e-12.
        np.testing.assert_allclose(d[:, 0] - d[:, 1:] @ weights[c], twin, rtol=1e-8)
        np.testing.assert_allclose(variance[c], 1 / information, rtol=1e-7)
        form = inverse - np.outer(inverse @ one, one @ inverse) / information
        chi2 = np.einsum("ek,kl,el->e", of.values, form, of.values)
        logdet = -np.linalg.slogdet(inverse)[1] + np.log(information)
        twin = -0.5 * (chi2 + logdet)
        # The likelihood of other contrasts differs by their determinant, the same for all c.
        np.testing.assert_allclose(log[:, c] - log[0, c], twin - twin[0], rtol=1e-7, atol=1e-7)


# -- shapes and options -----------------------------------------------------------------------


def test_shapes_are_those_of_the_user():
    found = gr.hessian(lambda p: p["a"] ** 2 * p["b"].sum(), {"a": 1.0, "b": [2.0, 3.0]})
    close(found.hess["a"]["a"], 10.0)
    close(found.hess["a"]["b"], [2.0, 2.0])
    close(found.hess["b"]["b"], np.zeros((2, 2)))
    assert found.stderr["b"]["a"].shape == (2,)
    vector = gr.hessian(lambda x: np.array([x[0] ** 2 * x[1], x[1] ** 3]), [1.0, 2.0])
    close(vector.hess, [[[4, 2], [2, 0]], [[0, 0], [0, 12]]])
    named = gr.hessian(lambda x: {"u": x[0] ** 2 * x[1], "v": x * x}, [1.0, 2.0])
    close(named.hess["u"], [[4, 2], [2, 0]])
    assert named.hess["v"].shape == (2, 2, 2)
    assert gr.hessian(np.linalg.det, np.eye(2)).hess.shape == (2, 2, 2, 2)
    assert np.shape(gr.hessian(np.sin, 1.0).hess) == ()
    close(gr.hvp(lambda x: x * x, [1.0, 2.0], [1.0, 0.0]).value, [[2, 0], [0, 0]])
    np.testing.assert_array_equal(np.asarray(vector), vector.hess)
    assert "y[1]" in repr(vector)


def test_complex_outputs():
    found = gr.hessian(lambda x: np.exp(1j * x[0]) * x[1] ** 2, [1.0, 2.0])
    e = np.exp(1j)
    close(found.hess, [[-4 * e, 4j * e], [4j * e, 2 * e]])
    with pytest.raises(ValueError, match="no interval"):
        found.confidence_interval()


def test_bounds_are_kept_and_tell_what_they_leave_open():
    seen = []

    def fun(x):
        seen.append(x.copy())
        return smooth(x)

    at_one = gr.hessian(fun, X, bounds=([0.5, -9, -9], 9))
    assert min(x[0] for x in seen) >= 0.5
    # Differences on one side, of four sizes: of order 4, (1e-16)^(4/6) = 2e-11, times 1e3.
    close(at_one.hess, EXACT, 1e-6)
    assert (np.abs(at_one.hess - EXACT) <= 5 * at_one.stderr).all()
    seen.clear()
    close(gr.hvp(fun, X, U, bounds=([0.5, -9, -9], 9)).value, EXACT @ U, 1e-6)
    assert min(x[0] for x in seen) >= 0.5
    fixed = gr.hessian(smooth, X, bounds=([0.5, -9, -9], [0.5, 9, 9]))
    assert fixed.status == "undetermined"
    assert "x[0]" in fixed.message
    assert np.isinf(fixed.stderr[0]).all()
    close(fixed.hess[1:, 1:], EXACT[1:, 1:])


def test_who_runs_it_does_not_matter():
    plain = gr.hessian(smooth, X)
    for same in (
        gr.hessian(smooth, X, workers=2),
        gr.hessian(lambda p: smooth(p.T), X, vectorized=True),
        gr.hessian(lambda x, k: k * smooth(x), X, args=(1.0,)),
        gr.hessian(smooth, X, rng=0),
    ):
        # smooth of columns takes other loops of NumPy: a last bit, over h^2.
        close(same.hess, plain.hess)
        assert same.nfev == plain.nfev


@pytest.mark.parametrize("most", [18, 20, 40, 60])
def test_evaluations_stay_within_what_is_allowed(most):
    rng = np.random.default_rng(3)
    for noise in (0.0, 1e-4):
        found = gr.hessian(lambda x, s=noise: smooth(x) + s * rng.normal(), X, max_nfev=most)
        assert found.nfev <= most
    with pytest.raises(ValueError, match="below 18"):
        gr.hessian(smooth, X, max_nfev=17)


def test_runs_of_a_jacobian_are_not_made_again():
    rng = np.random.default_rng(4)

    def noisy(x):
        return smooth(x) + 1e-3 * rng.normal()

    known = gr.jacobian(smooth, X, abs_step=0.07 * X)  # pairs of the largest of the four sizes
    alone, reused = gr.hessian(smooth, X), gr.hessian(smooth, X, samples=known)
    assert reused.nfev == alone.nfev - 2 * 3 - 1  # three pairs, and the value at x
    close(reused.hess, EXACT)
    known = gr.jacobian(noisy, X)
    assert gr.hessian(noisy, X, samples=known.samples).success
    with pytest.raises(TypeError, match="must be Samples"):
        gr.hessian(smooth, X, samples=3)
    with pytest.raises(ValueError, match="2 inputs"):
        gr.hessian(smooth, X[:2], samples=known)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: gr.hessian(smooth, X, step=1), TypeError, "unknown option 'step'"),
        (lambda: gr.hessian(X, smooth), TypeError, "fun comes first|function"),
        (lambda: gr.hvp(smooth, X, [1.0, 2.0]), ValueError, "expected"),
        (lambda: gr.hvp(smooth, X, 0 * X), ValueError, "u is 0"),
        (lambda: gr.hvp(smooth, X, np.ones((2, 3))), ValueError, "one real tangent"),
        (lambda: gr.hessian(lambda x: np.nan, X), gr.EvaluationError, "nan or inf"),
        (lambda: gr.hessian(smooth, X, on_error="what"), ValueError, "on_error"),
        (lambda: gr.hessian(smooth, X, noise=-1.0), ValueError, "noise"),
        (lambda: gr.hessian(smooth, X, jac=3), TypeError, "gradient of fun"),
        (lambda: gr.hessian(smooth, X, jac=lambda x: x, f0=1.0), ValueError, "f0 is of fun"),
        (lambda: gr.hessian(smooth, X, jac=lambda x: x[:2]), ValueError, "ends with"),
    ],
)
def test_what_makes_no_sense_is_told(call, error, text):
    with pytest.raises(error, match=text):
        call()


# -- gradients --------------------------------------------------------------------------------


def gradient(x):
    e, s, c = np.exp(x[0]), np.sin(x[1]), np.cos(x[1])
    return np.array([e * s + x[2] ** 2, e * c, 2 * x[0] * x[2]])


def test_gradients_are_differentiated_once():
    found = gr.hessian(smooth, X, jac=gradient)
    assert found.nfev <= 2 * 3 + 10
    # Bars of ``jacobian`` hold what its own tests say: five of them.
    assert (np.abs(found.hess - EXACT) <= 5 * found.stderr + 1e-9).all()
    assert (found.hess == found.hess.T).all()
    product = gr.hvp(smooth, X, U, jac=gradient)
    close(product.value, EXACT @ U, 1e-6)
    assert product.nfev <= 12
    close(gr.hvp(smooth, X, U, jac=gradient, quadratic=True).value, U @ EXACT @ U, 1e-6)
    close(gr.hessian_diagonal(smooth, X, jac=gradient).value, np.diag(EXACT), 1e-4)
    known = gr.gradiator(lambda x: (x**3).sum(), lambda x, v: 3 * x**2 * v)
    close(gr.hessian(known, np.array([1.0, 2.0])).hess, np.diag([6.0, 12.0]), 1e-4)
    both = gr.hessian(lambda p: p["a"] * p["b"], {"a": 1.0, "b": 2.0},
                      jac=lambda p: {"b": p["a"], "a": p["b"]})  # fmt: skip
    close(both.hess["a"]["b"], 1.0, 1e-6)


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_a_wrong_gradient_is_told():
    wrong = gr.hessian(smooth, X, jac=lambda x: gradient(x) + np.array([0.1 * x[1], 0, 0]))
    assert wrong.status == "lack_of_fit"
    assert "jac is no gradient" in wrong.message


# -- failures and statuses --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_failed_runs_cost_their_own_entries():
    def fails(x):
        if x[0] > 0.501 and x[1] > 1.001:
            raise RuntimeError("boom")
        return smooth(x)

    found = gr.hessian(fails, X)
    assert found.status == "failed_runs"
    assert found.n_failed > 0
    close(found.hess, EXACT, 1e-3)  # one entry from steps of 1e-3: eps over their square
    close(np.delete(found.hess.ravel(), [1, 3]), np.delete(EXACT.ravel(), [1, 3]))
    assert (np.abs(found.hess - EXACT) <= 5 * found.stderr).all()
    assert sum("boom" in text for text in found.samples.errors.values()) == found.n_failed
    with pytest.raises(gr.EvaluationError, match="boom") as caught:
        gr.hessian(fails, X, on_error="raise")
    assert len(caught.value.samples) > 1

    half = gr.hessian(lambda x: np.array([smooth(x), np.nan if x[0] > 0.5 else x[1] ** 2]), X)
    assert half.status == "undetermined"
    close(half.hess[0], EXACT, 1e-5)
    assert np.isinf(half.stderr[1, 0]).all()
    close(half.hess[1, 1, 1], 2.0, 1e-5)


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize(
    "fun, status",
    [
        (lambda x: abs(x[0] - 1) + x[1] ** 2, "lack_of_fit"),  # a kink at x
        (lambda x: x[1] ** 2 + (x[0] >= 1), "lack_of_fit"),  # a jump
        (lambda x: x[1] ** 2 + (x[0] > 1), "lack_of_fit"),
        (lambda x: x[0] ** 2 + 1e-6 * np.sin(1e4 * x[0]) + x[1], "two_scales"),
        (lambda x: 3.0, "no_response"),
        (lambda x: int(100 * x[0] ** 2 * x[1]), "unresolved"),
    ],
)
def test_statuses_tell_what_is_wrong(fun, status):
    found = gr.hessian(fun, [1.0, 2.0])
    assert found.status == status
    assert found.message
    assert not found.success


def test_noise_that_is_given_makes_trends_of_wiggles():
    found = gr.hessian(lambda x: x[0] ** 2 + 1e-6 * np.sin(1e4 * x[0]), [1.0], noise=1e-6)
    # One entry from steps of 0.05 at least: 3e-6 over their square, and five bars.
    assert abs(found.hess[0, 0] - 2) < min(5 * found.stderr[0, 0], 0.05)


def test_linear_functions_are_ok():
    found = gr.hessian(lambda x: x[0] + 2 * x[1], [1.0, 2.0])
    assert found.status == "ok"
    close(found.hess, np.zeros((2, 2)), 1e-12)


SECOND = {
    "hessian": gr.hessian,
    "diagonal": gr.hessian_diagonal,
    "product": lambda f, x: gr.hvp(f, x, [1.0, -1.0]),
    "along": lambda f, x: gr.hvp(f, x, [1.0, -1.0], quadratic=True),
}


def seen(kind, trend):
    """Statuses of 40 calls with noise 1e-4."""
    out = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = SECOND[kind](lambda x, rng=rng: trend(x) + 1e-4 * rng.normal(), [1.0, 2.0])
        out.append(found)
    return out


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("kind", SECOND)
def test_noise_that_hides_all_curvature_is_told(kind):
    """An interval of 95 % of at most three entries leaves out 0 in 5 to 15 % of calls: more than 14
    of 40 have probability below 1e-3. Bars are wider by truncation in others, which is told too."""
    found = seen(kind, lambda x: 1e-6 * ((x[0] - 1) ** 2 + (x[1] - 2) ** 2))
    assert sum(f.status in ("no_signal", "unresolved") for f in found) >= 26


@pytest.mark.parametrize("kind", SECOND)
def test_linear_functions_with_noise_have_bars_that_say_how_well_0_is_known(kind):
    """No warning, of which pytest makes errors here: bars of 1e-2 beside slopes of 2. Intervals of
    95 % hold 0 in 90 % of entries at least: 24 of 40 calls with three are exceeded by far."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", gr.GradiatorWarning)
        found = seen(kind, lambda x: x[0] + 2 * x[1])
    assert all(f.status == "ok" for f in found)
    inside = [
        ((f.confidence_interval().low <= 0) & (f.confidence_interval().high >= 0)).all()
        for f in found
    ]
    assert sum(inside) >= 24


def test_single_precision():
    x = X.astype(np.float32)
    found = gr.hessian(smooth, x)
    assert (np.abs(found.hess - EXACT) <= 6 * found.stderr).all()
    inside = gr.hessian(lambda x: float(np.float32(smooth(x))), X)
    # Of order 8: (6e-8)^0.8 = 2e-6, times values of 4 and 1e2.
    close(inside.hess, EXACT, 1e-3)


@pytest.mark.slow
def test_solvers_are_taken_as_they_are():
    """What the documents say of it: an adaptive solver is smooth in its parameters, with second
    derivatives of its own; those of the equations are missed by its tolerance, enlarged."""
    from scipy.integrate import solve_ivp

    def predator(p, rtol):
        def slope(t, y):
            return [p[0] * y[0] - p[1] * y[0] * y[1], -p[2] * y[1] + p[3] * y[0] * y[1]]

        return solve_ivp(slope, (0, 3), [1.0, 0.5], rtol=rtol, atol=1e-3 * rtol).y[0, -1]

    x = [1.0, 0.8, 0.7, 0.6]
    exact = gr.hessian(predator, x, args=(1e-12,)).hess
    for rtol, error in ((1e-6, 1e-3), (1e-3, 0.2)):
        found = gr.hessian(predator, x, args=(rtol,)).hess
        assert np.abs(found - exact).max() < error * np.abs(exact).max()


def test_a_scale_far_smaller_than_x_is_found():
    """cosh 1e8 scales from 0 is infinite a step of 1e-3 of x away: once a LinAlgError, then failed
    runs. A pair 256 times closer to x than another one shows that it is smooth."""
    found = gr.hessian(lambda p: np.cosh((p[0] - 1e6) / 1e-2) + 0.5 * p[1] ** 2, [1e6, 0.3])
    assert found.success
    exact = np.diag([1e4, 1.0])
    assert (np.abs(found.hess - exact) <= 5 * found.stderr).all()
    assert found.stderr[0, 0] < 1e-5  # one digit of x is 1e-8 of the scale
