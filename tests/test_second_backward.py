"""Second derivatives of differentiable functions whose derivatives nobody gave."""

import numpy as np
import pytest

import gradiator_np as gr
from gradiator_np._differentiable.second import bend, curvature

pytestmark = pytest.mark.filterwarnings("error::gradiator_np.GradiatorWarning")

A = np.array([[0.9, -0.4, 0.3, 0.5, -0.2], [0.2, 0.7, -0.6, 0.1, 0.8], [-0.5, 0.3, 0.4, 0.9, 0.6]])
X = np.array([0.4, 0.7, 1.1, 1.3, 0.9])
V, U, W = np.array([1.0, -2.0, 0.5]), np.array([1.0, 0.0, -1.0, 2.0, 0.5]), np.linspace(-1, 1, 5)
# Second differences of four sizes, extrapolated: eps^(4/5) = 3e-13 of values over the square of
# inputs of 0.4, 20 times that of values below 4; those of the steps are of that order as well.
TIGHT = 1e-9

#: (f, its first, its second derivative) by the argument A x, element by element.
SHAPES = {
    "sin": (np.sin, np.cos, lambda t: -np.sin(t)),
    "exp": (np.exp, np.exp, np.exp),
    "square": (np.square, lambda t: 2 * t, lambda t: 2 + 0 * t),
}


def bent(second, a=A, x=X, v=V, w=W):
    """The Hessian of v . f times w."""
    return a.T @ (second(a @ x) * v * (a @ w))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_a_nested_vjp_is_that_of_the_function(shape, m):
    fun, first, second = SHAPES[shape]
    a, x, w = A[:, :m], X[:m], W[:m]
    f = gr.gradiator(lambda x: fun(a @ x))
    hessian, jw = f.nested_vjp(x, V, w)
    np.testing.assert_allclose(hessian, bent(second, a, x, V, w), atol=TIGHT)
    np.testing.assert_allclose(jw, first(a @ x) * (a @ w), atol=TIGHT)
    alone = gr.gradiator(lambda x: V @ fun(a @ x))
    np.testing.assert_allclose(alone.hvp(x, w), bent(second, a, x, V, w), atol=TIGHT)
    # What its text says, and the value at x where no run told it yet.
    assert alone.nfev <= min(16 * m + 7, 4 * m * (m + 1) + 7) + 1


def test_products_at_a_point_cost_twice_all_second_derivatives_at_most():
    f = gr.gradiator(lambda x: np.sin(A @ x))
    point = f.linearize(X)
    at_x = f.nfev
    found = np.array([curvature(point, V, e) for e in np.eye(5)])
    exact = np.array([bent(SHAPES["sin"][2], w=e) for e in np.eye(5)])
    np.testing.assert_allclose(found, exact, atol=TIGHT)
    assert f.nfev - at_x <= 2 * (4 * 5 * 6 + 7)
    spent = f.nfev
    want = -np.sin(A @ X) * (A @ U) * (A @ W)
    np.testing.assert_allclose(bend(point, U, W), want, atol=TIGHT)
    assert f.nfev == spent


@pytest.mark.parametrize("u, w", [(U, W), (U, U), (U, -2 * U), (1e6 * U, 1e-3 * W)])
def test_two_tangents_make_a_second_derivative(u, w):
    f = gr.gradiator(lambda x: np.sin(A @ x))
    want = -np.sin(A @ X) * (A @ u) * (A @ w)
    size = np.abs(u).max() * np.abs(w).max()
    # One direction alone, in two of them: a tenth of the digits of the others.
    np.testing.assert_allclose(bend(f.linearize(X), u, w), want, atol=10 * TIGHT * size)


def test_zeros_run_nothing():
    f = gr.gradiator(lambda x: np.sin(A @ x))
    point = f.linearize(X)
    assert not curvature(point, 0 * V, W).any()
    assert not curvature(point, V, 0 * W).any()
    assert not bend(point, U, 0 * W).any()
    assert f.nfev == 1


def test_several_inputs_and_outputs():
    f = gr.gradiator(lambda a, b: (a * b**2, np.sum(np.exp(a))))
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    v, w = (np.array([1.0, -1.0]), 2.0), (np.array([0.5, 1.0]), np.array([1.0, 2.0]))
    (by_a, by_b), (j1, j2) = f.nested_vjp((a, b), v, w)
    # Values of 32 over the square of inputs of 1: 30 times the digits of the others.
    near = {"atol": 30 * TIGHT}
    np.testing.assert_allclose(by_a, v[0] * 2 * b * w[1] + 2 * np.exp(a) * w[0], **near)
    np.testing.assert_allclose(by_b, v[0] * (2 * b * w[0] + 2 * a * w[1]), **near)
    np.testing.assert_allclose(j1, b**2 * w[0] + 2 * a * b * w[1], **near)
    np.testing.assert_allclose(j2, np.exp(a) @ w[0], **near)
    one = gr.gradiator(lambda a, b: np.sum(a * b**2), argnums=1)
    np.testing.assert_allclose(one.nested_vjp((a, b), 1.0, w[1])[0], 2 * a * w[1], **near)


@pytest.mark.parametrize(
    "options", [{"vectorized": True}, {"workers": map}, {"noise": 0.0}], ids=str
)
def test_options_of_runs(options):
    f = gr.gradiator(lambda x: np.sin(x @ A.T), **options)
    np.testing.assert_allclose(f.nested_vjp(X, V, W)[0], bent(SHAPES["sin"][2]), atol=TIGHT)


def test_complex_outputs_take_no_conjugate():
    f = gr.gradiator(lambda x: np.exp(1j * (A @ x)))
    v = V * (1 + 2j)
    want = A.T @ (-np.exp(1j * (A @ X)) * v * (A @ W))
    np.testing.assert_allclose(f.nested_vjp(X, v, W)[0], want, atol=10 * TIGHT)
    with pytest.raises(TypeError, match="second derivatives by complex inputs"):
        gr.gradiator(lambda x: x**2, lambda x, v: 2 * x * v).replace(grad_fun=None).hvp(
            np.array([1.0 + 1j]), np.array([1.0])
        )


def test_batches_are_points_of_the_function_of_one():
    x, v, w = np.stack([X, 0.5 * X]), np.stack([V, U[:3]]), np.stack([W, U])
    f = gr.gradiator(lambda x, a: np.sin(a @ x), argnums=0).batched((0,))
    found = f.nested_vjp((x, A), v, w)[0]
    want = [bent(SHAPES["sin"][2], A, *row) for row in zip(x, v, w, strict=True)]
    np.testing.assert_allclose(found, want, atol=10 * TIGHT)
    with pytest.raises(NotImplementedError, match="map it over the batch"):
        gr.gradiator(lambda x: x**2, batch_dims=1).nested_vjp(x, x, x)


def test_what_no_run_tells_is_an_error():
    def fails(x):
        if not np.array_equal(x, X):
            raise RuntimeError("licence")
        return np.sin(A @ x)

    with pytest.raises(gr.SampleError, match=r"no run determines a second derivative.*licence"):
        gr.gradiator(fails).nested_vjp(X, V, W)
    limits = np.where(np.arange(5) == 2, X, X - 1), np.where(np.arange(5) == 2, X, X + 1)
    free = np.arange(5) != 2
    f = gr.gradiator(lambda x: np.sin(A @ x), bounds=limits)
    w = W * free
    found = curvature(f.linearize(X), V, w)
    np.testing.assert_allclose(found[free], bent(SHAPES["sin"][2], w=w)[free], atol=TIGHT)
    assert found[2] == 0


def test_a_product_with_a_hessian_needs_one_output():
    with pytest.raises(ValueError, match="hvp needs a single output, but fun returned 3 numbers"):
        gr.gradiator(lambda x: np.sin(A @ x)).hvp(X, W)
    one = gr.gradiator(lambda x: np.exp(A[:1] @ x))
    want = A[0] * np.exp(A[0] @ X) * (A[0] @ W)
    np.testing.assert_allclose(one.hvp(X, W), want, atol=TIGHT)


def test_kinks_are_told():
    f = gr.gradiator(lambda x: np.sum(np.abs(x - X[:2]) + x**2))
    with pytest.warns(gr.GradiatorWarning, match="kink") as told:
        f.hvp(X[:2], np.ones(2))
    assert told[0].message.estimate.status == "lack_of_fit"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_noise_is_in_the_bars_of_the_warning():
    """40 calls, five entries of H w each, at noise 1e-4: ten standard errors are exceeded by t of 5
    degrees of freedom in 2 of 10^4, so by one of 200 entries in 3 of 100 runs; two in 1 of 10^3."""
    far = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        f = gr.gradiator(lambda x, rng=rng: np.sin(A @ x) + 1e-4 * rng.normal(size=3))
        found = gr.hvp(lambda x, f=f: V @ f(x), X, W)
        rng = np.random.default_rng(seed)
        here = curvature(f.linearize(X), V, W)
        want = bent(SHAPES["sin"][2])
        # One more run, and other draws: the bars are those of such a call.
        far += int((np.abs(here - want) > 10 * found.stderr).sum())
    assert far <= 4


# -- Hessians of what has derivatives of its own ---------------------------------------------------


def squares(x):
    return np.sum(x**2)


EXACT = gr.gradiator(np.sin, lambda x, v: v * np.cos(x))
TOTAL = gr.gradiator(squares, lambda x, v: 2 * v * x)


def test_chains_and_graphs_are_differentiated_once():
    x = X[:3]
    want = np.diag(2 * np.cos(2 * x))
    for composed in (
        gr.Chain(EXACT, TOTAL),
        gr.Graph({"h": (EXACT, "x"), "y": (TOTAL, "h")}),
        gr.gradiator(lambda x: squares(np.sin(x)), jvp_fun=lambda x, u: np.sin(2 * x) @ u),
    ):
        found = gr.hessian(composed, x)
        assert found.design.startswith("gradients")
        # First derivatives of exact ones, by the default: 1e-10 and below.
        np.testing.assert_allclose(found.hess, want, atol=1e-8)
        assert found.nfev <= 2 * 3 + 13
    for composed in (gr.Chain(np.sin, TOTAL), gr.Graph({"h": (np.sin, "x"), "y": (TOTAL, "h")})):
        found = gr.hessian(composed, x)
        assert not found.design.startswith("gradients")
        np.testing.assert_allclose(found.hess, want, atol=TIGHT)


def test_graphs_of_several_inputs_take_them_by_name():
    layer = gr.gradiator(lambda x, w: x * w, lambda xw, v: (v * xw[1], v * xw[0]))
    x = {"w": np.array([1.0, 2.0]), "x": np.array([3.0, 5.0])}
    for first in (layer, np.multiply):
        graph = gr.Graph({"h": (first, "x", "w"), "y": (TOTAL, "h")})
        assert graph(x) == squares(x["x"] * x["w"])
        found = gr.hessian(graph, x).hess
        # Values of 100 over the square of inputs of 1.
        np.testing.assert_allclose(found["w"]["w"], np.diag(2 * x["x"] ** 2), atol=1e-7)
        np.testing.assert_allclose(found["x"]["w"], np.diag(4 * x["x"] * x["w"]), atol=1e-7)


def test_a_gradient_that_does_not_answer_has_a_hessian_of_0():
    linear = gr.gradiator(lambda x: 3 * x[0] - x[1], lambda x, v: v * np.array([3.0, -1.0]))
    found = gr.hessian(linear, [1.0, 2.0])
    assert found.status == "ok"
    assert not found.hess.any()
    assert not linear.hvp(np.array([1.0, 2.0]), np.ones(2)).any()
    rates = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noisy = gr.hessian(
            squares, [1.0, 2.0], jac=lambda x, rng=rng: np.array([3.0, -1.0]) + 1e-4 * rng.normal()
        )
        rates.append(noisy.status == "ok")
    assert all(rates)  # bars of 1e-3 beside slopes of 3: a share of FLAT, 0.05, in each


def test_what_the_gradient_itself_warns_of_is_given_on():
    inner = gr.gradiator(lambda x: np.sum(np.abs(x - 1.0)), noise=None)
    with pytest.warns(gr.GradiatorWarning) as told:
        gr.hessian(squares, [1.0, 2.0], jac=lambda x: 2 * x + 0 * inner.gradient(np.ones(2)))
    assert any(w.message.estimate.frame.y_layout.size == 1 for w in told)
