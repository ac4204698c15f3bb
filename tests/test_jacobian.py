"""The front door: methods, shapes, types, bounds, batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks.problems import by_name
from gradiator_np import GradiatorWarning, Status, designs, gradient, jacobian
from gradiator_np.designs._finite_difference.stencil import RULES
from gradiator_np.designs._finite_difference.weights import baseless_weights, derivative_weights

EPS = np.finfo(float).eps


def smooth(x):
    return np.array([np.exp(x[0]) * x[1], np.sin(x[1] * x[2]), x[0] ** 3, np.log(x[2])])


def smooth_jac(x):
    return np.array(
        [
            [np.exp(x[0]) * x[1], np.exp(x[0]), 0],
            [0, x[2] * np.cos(x[1] * x[2]), x[1] * np.cos(x[1] * x[2])],
            [3 * x[0] ** 2, 0, 0],
            [0, 0, 1 / x[2]],
        ]
    )


X = np.array([0.7, -1.3, 2.1])


@pytest.mark.parametrize("method, order", [(name, rule.order) for name, rule in RULES.items()])
def test_error_is_of_the_methods_order(method, order):
    estimate = jacobian(smooth, X, method=method)
    # At h = eps^(1/(p+1)) |x| truncation and rounding are both of the size eps^(p/(p+1)) times
    # f / x, here below 10; derivatives of order p + 1 and sums of weights add a factor below 30.
    tol = 300 * EPS ** (order / (order + 1))
    assert_allclose(estimate.jac, smooth_jac(X), rtol=0, atol=tol)
    assert estimate.nfev == 1 + 3 * order
    assert estimate.design == method


def test_complex_step_is_exact_to_rounding():
    estimate = jacobian(smooth, X, method="cs")
    # Complex arithmetic loses a few units in the last place, at values below 10.
    assert_allclose(estimate.jac, smooth_jac(X), rtol=0, atol=50 * EPS)
    assert np.isnan(estimate.stderr).all()


def test_complex_step_refuses_a_function_that_drops_the_imaginary_part():
    from gradiator_np import EvaluationError

    def cut(x):
        out = np.zeros(3)
        out[:] = x**2  # casts to real: numpy only warns
        return out

    with pytest.raises(EvaluationError, match="ComplexWarning"):
        jacobian(cut, X, method="cs")
    with pytest.raises(EvaluationError, match="real values for a complex input"):
        jacobian(lambda x: np.abs(x), X, method="cs")


def test_polynomials_are_exact_up_to_the_order():
    for method, (order, _) in RULES.items():
        # A polynomial of degree p has no truncation error at all: only rounding, eps f / h with
        # weights whose absolute sum is below 5.
        estimate = jacobian(lambda x, p=order: x**p, 1.5, method=method, rel_step=0.25)
        assert_allclose(estimate.jac, order * 1.5 ** (order - 1), rtol=5 * EPS * 1.5 / 0.375 * 8)


@pytest.mark.parametrize(
    "x_shape, y_shape", [((), ()), ((), (3,)), ((4,), ()), ((2, 3), (3, 2)), ((1, 2, 2), (2,))]
)
def test_shapes(x_shape, y_shape):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((*y_shape, *x_shape))
    x = rng.standard_normal(x_shape)
    estimate = jacobian(lambda z: np.tensordot(a, z, axes=len(x_shape)), x)
    assert np.shape(estimate.jac) == y_shape + x_shape
    assert np.shape(estimate.stderr) == y_shape + x_shape
    # A linear function has no truncation: rounding eps |f| / h at most.
    assert_allclose(estimate.jac, a, atol=1e-9)


def test_matrix_to_matrix_has_four_axes():
    left = np.arange(6.0).reshape(2, 3)
    x = np.ones((3, 4))
    estimate = jacobian(lambda z: left @ z, x)
    assert_allclose(
        estimate.jac, np.einsum("ij,kl->ilkj", left, np.eye(4)).swapaxes(2, 3), atol=1e-9
    )


def test_dicts_in_and_out_give_the_same_numbers():
    def flat(x):
        return np.concatenate([[x[0] * x[1]], x[1:] ** 2])

    def named(p):
        v = np.concatenate([[p["rate"]], p["load"].ravel()])
        out = flat(v)
        return {"power": out[0], "rest": {"squares": out[1:]}}

    x = np.array([2.0, 3.0, 4.0])
    plain = jacobian(flat, x, method="5-point")
    nested = jacobian(named, {"rate": 2.0, "load": x[1:].reshape(2, 1)}, method="5-point")
    assert nested.jac["power"]["rate"] == plain.jac[0, 0]
    assert_allclose(nested.jac["power"]["load"], plain.jac[0, 1:].reshape(2, 1), rtol=0, atol=0)
    assert_allclose(nested.jac["rest"]["squares"]["load"], plain.jac[1:, 1:, None], rtol=0, atol=0)
    assert nested.stderr["rest"]["squares"]["rate"].shape == (2,)
    assert nested.y["power"] == 6.0
    assert "x.rate" in repr(nested)


def test_float32_gets_steps_for_its_precision():
    eps32 = np.finfo(np.float32).eps
    x = X.astype(np.float32)

    def single(z):
        assert z.dtype == np.float32
        return smooth(z).astype(np.float32)

    estimate = jacobian(single, x, method="3-point")
    # As in the double case, with the coarser precision.
    assert_allclose(estimate.jac, smooth_jac(x.astype(float)), atol=100 * eps32 ** (2 / 3))

    def rounded(z):  # double in, single inside: the coarser of the two rules
        return smooth(z).astype(np.float32)

    estimate = jacobian(rounded, X, method="3-point")
    assert_allclose(estimate.jac, smooth_jac(X), atol=100 * eps32 ** (2 / 3))


def test_integers_are_promoted_and_complex_outputs_stay_complex():
    assert_allclose(jacobian(lambda x: x**2, [1, 2, 3]).jac, np.diag([2, 4, 6]), atol=1e-9)
    estimate = jacobian(lambda x: np.exp(1j * x), np.array([0.3, 0.7]))
    assert estimate.jac.dtype == np.complex128
    assert_allclose(estimate.jac, np.diag(1j * np.exp(1j * np.array([0.3, 0.7]))), atol=1e-9)
    with pytest.raises(TypeError, match="imaginary part cannot carry"):
        jacobian(lambda x: np.exp(1j * x), [0.3], method="cs")


@pytest.mark.parametrize(
    "x, error, words",
    [
        (1 + 2j, TypeError, "complex"),
        ("abc", TypeError, "numbers"),
        ([], ValueError, "empty"),
        ([1.0, np.nan], ValueError, r"x\[1\] is not"),
        ({}, ValueError, "empty dict"),
        (None, TypeError, "numbers"),
        ([[1.0], [1.0, 2.0]], ValueError, "no array of one shape"),
    ],
)
def test_bad_x_is_refused_before_anything_runs(x, error, words):
    def never(x):
        raise AssertionError("called")

    with pytest.raises(error, match=words):
        jacobian(never, x)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"method": "4-point"}, "choose one of"),
        ({"abs_step": 0.0}, "not 0"),
        ({"abs_step": [1.0, 2.0]}, "shape"),
        ({"abs_step": 1e-30}, "rounds to nothing"),
        ({"rel_step": np.inf}, "finite"),
        ({"x_scale": -1.0}, "positive"),
        ({"bounds": 3}, "pair"),
        ({"bounds": (2.0, 1.0)}, "exchange"),
        ({"bounds": (5.0, 6.0)}, "outside"),
        ({"on_error": "ignore"}, "choose one of"),
        ({"batch_dims": 2}, "batch_dims"),
        ({"noise": -1.0}, "not negative"),
        ({"workers": 0}, "positive"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        jacobian(lambda x: x, X, **options)


@pytest.mark.parametrize("value, words", [(None, "return its result"), ("a", "numbers")])
def test_bad_values_are_refused(value, words):
    with pytest.raises(TypeError, match=words):
        jacobian(lambda x: value, X)
    with pytest.raises(ValueError, match="empty"):
        jacobian(lambda x: [], X)


def test_steps_abs_wins_over_rel_and_signs_count():
    seen = []

    def spy(x):
        seen.append(x.copy())
        return x

    jacobian(spy, [1.0, 10.0], method="2-point", abs_step=[0.5, -0.25], rel_step=0.1)
    assert_allclose(seen[1:], [[1.5, 10.0], [1.0, 9.75]], rtol=0, atol=0)
    seen.clear()
    jacobian(spy, [1.0, -10.0], method="2-point", rel_step=0.125)
    assert_allclose(seen[1:], [[1.125, -10.0], [1.0, -11.25]], rtol=0, atol=0)
    seen.clear()
    jacobian(spy, [0.0, 4.0], method="2-point", rel_step=0.125, x_scale=[16.0, 8.0])
    assert_allclose(seen[1:], [[2.0, 4.0], [0.0, 5.0]], rtol=0, atol=0)


def test_nothing_is_floored_at_one():
    """A saturation current of 1e-14 has steps of its own scale."""
    x = np.array([1e-14, 1.0, 1e9])
    estimate = jacobian(lambda z: np.log(z), x, method="3-point")
    # log bends on the scale of x: relative error as in the well-scaled case.
    assert_allclose(np.diag(estimate.jac) * x, 1.0, rtol=100 * EPS ** (2 / 3))
    assert (estimate.step < 1e-3 * x).all()


def test_denormal_inputs_are_zeros_and_huge_ones_are_not():
    x = np.array([1e-310, 3.0, 2e-200])
    for method in ("2-point", "5-point"):
        estimate = jacobian(lambda z: 2 * z, x, method=method)
        assert_allclose(estimate.jac, 2 * np.eye(3), atol=1e-9)
        assert not np.isinf(estimate.stderr).any()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), method=st.sampled_from(sorted(RULES)))
def test_no_evaluation_leaves_the_bounds(data, method):
    """One-sided stencils keep their order; a polynomial of that degree is still exact."""
    m = data.draw(st.integers(1, 4))
    order = RULES[method].order
    x = np.array(data.draw(st.lists(st.floats(-3, 3), min_size=m, max_size=m)))
    # Room from none at all to plenty, on each side.
    room = st.sampled_from([0.0, 1e-3, 0.1, np.inf])
    below = np.array(data.draw(st.lists(room, min_size=m, max_size=m)))
    above = np.array(data.draw(st.lists(room, min_size=m, max_size=m)))
    lower, upper = x - below, x + above

    def polynomial(z):
        assert (z >= lower).all()
        assert (z <= upper).all()
        return np.array([((z - x + 1) ** order).sum()])

    estimate = jacobian(polynomial, x, method=method, bounds=(lower, upper), x_scale=1.0)
    fixed = lower == upper
    assert np.isinf(estimate.stderr[0, fixed]).all()
    assert not np.isinf(estimate.stderr[0, ~fixed]).any()
    assert estimate.nfev == 1 + order * (~fixed).sum()
    # Rounding only: values up to m (1 + p h)^p, h the step, weights up to a few p^2 / h. Points
    # of size 3 round by 2 eps, which their derivative p turns into noise of the same kind.
    step = np.where(fixed, 1.0, estimate.step)
    size = m * (1 + order * step) ** order * (order + 3)
    tol = 100 * order**2 * EPS * size / step
    assert (np.abs(estimate.jac[0] - order) <= tol)[~fixed].all()
    assert (estimate.jac[0][fixed] == 0).all()


def test_bounds_may_be_scipys_and_per_key():
    from scipy.optimize import Bounds

    seen = []

    def spy(p):
        seen.append((float(p["a"]), float(p["b"])))
        return p["a"] * p["b"]

    jacobian(spy, {"a": 1.0, "b": 2.0}, bounds=({"a": 1.0, "b": 0.0}, {"a": 2.0, "b": 2.0}))
    assert min(a for a, _ in seen) == 1.0
    assert max(b for _, b in seen) == 2.0
    for one in (Bounds(0.0, 2.0), Bounds([0.0, 0.0], 2.0)):  # numbers that serve all inputs
        some = jacobian(lambda x: x**2, [1.0, 2.0], method="2-point", bounds=one)
        assert some.samples.points[:, 1].max() == 2.0
    estimate = jacobian(lambda x: x**2, [1.0, 2.0], bounds=Bounds([1.0, 2.0], [5.0, 2.0]))
    assert np.isinf(estimate.stderr[:, 1]).all()
    assert estimate.status == Status.UNDETERMINED


def test_a_batch_is_perturbed_at_once():
    rng = np.random.default_rng(1)
    x = rng.uniform(0.5, 2, (5, 2, 3))
    calls = []

    def simulate(z):
        calls.append(1)
        return np.stack([z[..., 0] * z[..., 1], z[..., 2] ** 2], axis=-1)

    estimate = jacobian(simulate, x, method="2-point", batch_dims=2)
    assert len(calls) == 1 + 3
    assert estimate.jac.shape == (5, 2, 2, 3)
    exact = np.zeros((5, 2, 2, 3))
    exact[..., 0, 0], exact[..., 0, 1], exact[..., 1, 2] = x[..., 1], x[..., 0], 2 * x[..., 2]
    assert_allclose(estimate.jac, exact, atol=100 * EPS**0.5)
    one = jacobian(lambda z: simulate(z[None])[0], x[3, 1], method="2-point")
    assert_allclose(estimate.jac[3, 1], one.jac, rtol=0, atol=0)
    with pytest.raises(ValueError, match="only 0 axes"):
        jacobian(lambda z: z.sum(), x, batch_dims=1)


def test_fun_may_overwrite_its_argument_and_reuse_its_buffer():
    buffer = np.empty(2)

    def rude(x):
        buffer[:] = [x[0] ** 2, x[0] * x[1]]
        x[:] = -1
        return buffer

    estimate = jacobian(rude, [1.0, 2.0], method="3-point")
    assert_allclose(estimate.jac, [[2, 0], [2, 1]], atol=1e-9)
    assert_allclose(estimate.samples.points[0], [1.0, 2.0])

    def rude_rows(points):
        out = np.stack([points[:, 0] ** 2, points[:, 0] * points[:, 1]], axis=1)
        points[:] = -1
        return out

    together = jacobian(rude_rows, [1.0, 2.0], method="3-point", vectorized=True)
    assert_allclose(together.jac, estimate.jac, rtol=0, atol=0)


def test_gradient_of_a_scalar():
    estimate = gradient(lambda x: (x**3).sum(), np.array([[1.0, 2.0]]))
    assert estimate.jac.shape == (1, 2)
    assert_allclose(estimate.jac, [[3.0, 12.0]], atol=1e-8)
    assert gradient(lambda x: np.array([x**2]), 3.0).jac == pytest.approx(6.0)
    with pytest.raises(ValueError, match="scalar"):
        gradient(lambda x: x, [1.0, 2.0])


def test_a_given_noise_gives_error_bars_that_hold():
    sigma, step, m = 1e-3, 0.125, 4
    rng = np.random.default_rng(7)
    a = rng.standard_normal((6, m))
    hits = total = 0
    for _ in range(200):
        estimate = jacobian(
            lambda x: a @ x + sigma * rng.standard_normal(6), np.ones(m),
            method="2-point", abs_step=step, noise=sigma,
        )  # fmt: skip
        low, high = estimate.confidence_interval(0.95)
        hits += ((low <= a) & (a <= high)).sum()
        total += a.size
        # sqrt(2) sigma / h: the noise of the base counts as well.
        assert_allclose(estimate.stderr, np.sqrt(2) * sigma / step, rtol=1e-12)
    # 4800 entries, four to a base value: at least 1200 independent ones. A binomial of 0.95 with
    # 1200 trials leaves +-0.0252 (4 standard deviations) less than once in 10 000 runs.
    assert abs(hits / total - 0.95) < 0.0252


def test_shared_base_noise_is_in_products():
    """All forward differences share the noise of one base value: J 1 has variance m^2 + m."""
    m, sigma, h = 5, 1e-2, 0.5
    estimate = jacobian(lambda x: x.sum(), np.ones(m), method="2-point", abs_step=h, noise=sigma)
    assert_allclose(estimate.jvp_stderr(np.ones(m)), sigma / h * np.sqrt(m**2 + m), rtol=1e-12)
    central = jacobian(lambda x: x.sum(), np.ones(m), method="3-point", abs_step=h, noise=sigma)
    assert_allclose(central.jvp_stderr(np.ones(m)), sigma / h * np.sqrt(m / 2), rtol=1e-12)


def test_embedded_error_covers_the_true_one():
    for method in ("5-point", "7-point", "9-point"):
        estimate = jacobian(smooth, X, method=method, rel_step=0.1)
        error = np.abs(estimate.jac - smooth_jac(X))
        assert (error <= estimate.stderr).all()
        assert np.isfinite(estimate.stderr).all()


def test_weights_differentiate_polynomials():
    rng = np.random.default_rng(3)
    t = rng.permutation(np.array([-2.0, -1.0, 0.5, 1.5, 3.0]))
    w = derivative_weights(t[:, None])[:, 0]
    for power in range(1, 6):
        # Terms up to 3^5 with weights of size 10.
        assert_allclose(w @ t**power, 1.0 if power == 1 else 0.0, atol=1e4 * EPS)
    b = baseless_weights(t)
    for power in range(5):
        assert_allclose(b @ t**power, 1.0 if power == 1 else 0.0, atol=1e4 * EPS)


def test_whole_numbers_are_not_differentiated_silently():
    def counts(x):
        return np.floor(100 * x).astype(int)

    with pytest.warns(GradiatorWarning, match="whole numbers"):
        jacobian(counts, [0.505, 0.705], method="3-point")
    with pytest.warns(GradiatorWarning, match="whole numbers"):
        gradient(lambda x: int(100 * x.sum()), [0.505, 0.705], method="2-point")
    # Steps that clear the lattice: one count over a step of 0.2.
    wide = jacobian(counts, [0.505, 0.705], method="3-point", abs_step=0.1)
    assert_allclose(wide.jac, 100 * np.eye(2), atol=1 / 0.2)


def test_warning_names_the_callers_line():
    def fails(x):
        if x[0] > 1:
            raise ValueError("beyond")
        return x

    with pytest.warns(GradiatorWarning) as caught:
        jacobian(fails, [1.0, 2.0])
    assert caught[0].filename == __file__
    with pytest.warns(GradiatorWarning) as caught:
        gradient(lambda x: fails(x).sum(), [1.0, 2.0])
    assert caught[0].filename == __file__


@pytest.mark.parametrize("step", [0.1, [0.1, 0.1, 0.1], [[0.1, 0.1, 0.1]]])
def test_designs_take_steps_as_a_number_or_like_x(step):
    by_design = jacobian(np.sin, X, method=designs.Stencil("3-point", step))
    assert_array_equal(by_design.jac, jacobian(np.sin, X, method="3-point", abs_step=0.1).jac)
    # The complex step has no truncation to speak of at 1e-10.
    tiny = designs.ComplexStep(np.multiply(step, 1e-9))
    assert_allclose(jacobian(np.sin, X, method=tiny).jac, np.diag(np.cos(X)), rtol=1e-14)


def test_designs_say_what_is_wrong_with_them():
    with pytest.raises(TypeError, match=r"method is the class Hadamard; .* method=Hadamard\(\)"):
        jacobian(np.sin, X, method=designs.Hadamard)
    with pytest.raises(ValueError, match="step has 2 entries, but x has 3 inputs"):
        jacobian(np.sin, X, method=designs.Stencil("3-point", [0.1, 0.1]))
    with pytest.raises(ValueError, match="step must be finite and not 0"):
        jacobian(np.sin, X, method=designs.Stencil("3-point", 0.0))
    with pytest.raises(ValueError, match="'4-point' is unknown"):
        designs.Stencil("4-point")


# -- limits of the steps ----------------------------------------------------------------------


def bent(x):
    return np.array([np.exp(x[0]) * x[1], x[1] ** 2 + x[0], np.sin(3 * x[0] * x[1])])


@pytest.mark.parametrize("least", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("ratio", [1.0, 1.2, 1.5, 2.0, 3.0])
def test_limits_of_steps_that_lie_close_together(least, ratio):
    """No rule of two runs has its farther one where the nearer is, or where a round step is not."""
    x, c = np.array([0.7, 1.3]), 3 * np.cos(3 * 0.7 * 1.3)
    jac = np.array([[np.exp(0.7) * 1.3, np.exp(0.7)], [1, 2.6], [1.3 * c, 0.7 * c]])
    for seed in range(5):
        moved = []

        def fun(p, moved=moved):
            moved.append(np.abs(p - x).max())
            return bent(p)

        estimate = jacobian(fun, x, min_step=least, max_step=ratio * least, rng=seed)
        assert max(moved) <= ratio * least * (1 + 1e-9)
        # Bars hold truncation and rounding: 0.68 was the most of 600 calls.
        assert (np.abs(estimate.jac - jac) <= 2 * estimate.solution.interval(0.95)).all()


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("name", ["brown_dennis", "trigonometric", "watson"])
def test_max_step_holds_for_the_rule_as_a_whole(name):
    """Where small steps are taken for rough ones, least and largest step are one: in 25 of 360
    calls the two runs of a one-sided rule were one point, and J was 1.5 times what it is."""
    problem = by_name(name)
    for seed in range(15):
        rng = np.random.default_rng(seed)
        x = problem.x0 * (1 + 0.1 * rng.uniform(-1, 1, problem.m)) + 0.01
        jac = problem.jac(x)
        for most in (1e-2, 1e-3, 1e-4):
            estimate = jacobian(problem.fun, x, max_step=most * np.abs(x), rng=seed)
            # 2.2 was the most of 360 calls, rounding of 1e-9 apart.
            off = np.abs(estimate.jac - jac) - 1e-9 * np.abs(jac).max()
            assert (off <= 10 * estimate.solution.interval(0.95)).all()
