"""The JAX adapter: every transform against JAX's own derivatives, and evaluations counted."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed (extra 'jax')")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

from gradiator_np._differentiable.function import gradiator as plain  # noqa: E402
from gradiator_np.adapters import jax as adapter  # noqa: E402

A = np.random.default_rng(0).normal(size=(4, 3))
TIGHT = {"rtol": 1e-12, "atol": 1e-13}  # a few dozen roundings of numbers around 1
OUT = jax.ShapeDtypeStruct((4,), np.float64)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def f(x):
    return np.sin(A @ x)


def f_vjp(x, v):
    return A.T @ (np.cos(A @ x) * v)


def f_jvp(x, u):
    return np.cos(A @ x) * (A @ u)


def reference(x):
    return jnp.sin(jnp.asarray(A) @ x)


def array(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **(tolerance or TIGHT)), a, b)


FUNCTIONS = {
    "given": lambda **k: adapter.gradiator(f, f_vjp, jvp_fun=f_jvp, **k),
    "estimated": lambda **k: adapter.gradiator(f, method="cs", **k),
}


@pytest.fixture(params=FUNCTIONS)
def make(request):
    return FUNCTIONS[request.param]


def test_check_grads(make):
    x = array(3)
    check_grads(make(), (x,), order=1, modes=["fwd", "rev"])
    # Central differences on both sides: the default tolerance of float64 is 1e-5.
    check_grads(adapter.gradiator(f, method="3-point"), (x,), order=1, modes=["fwd", "rev"])


@pytest.mark.parametrize("jit", [False, True])
def test_transforms(make, jit):
    g = make(out=OUT)
    x, u, v, many = array(3), array(3, seed=1), array(4, seed=2), array(5, 3, seed=3)
    wrap = jax.jit if jit else lambda h: h

    def both(transform):
        return wrap(transform(g)), transform(reference)

    for transform, at in (
        (lambda h: h, x),
        (jax.jacrev, x),
        (jax.vmap, many),
        (lambda h: jax.vmap(h, in_axes=1), many.T),
        (lambda h: jax.vmap(jax.jacrev(h)), many),
        (lambda h: jax.jacrev(lambda z: jax.vmap(h)(z).sum(0)), many),
        (lambda h: jax.grad(lambda z: (jax.vmap(h)(z) ** 2).sum()), many),
        (lambda h: jax.vmap(jax.vmap(h)), jnp.stack([many, 2 * many])),
        (lambda h: jax.vmap(jax.vmap(jax.jacrev(h))), jnp.stack([many, 2 * many])),
        (jax.jacfwd, x),
        (lambda h: jax.vmap(jax.jacfwd(h)), many),
    ):
        got, want = both(transform)
        close(got(at), want(at))
    close(wrap(lambda z: jax.vjp(g, z)[1](v)[0])(x), jax.vjp(reference, x)[1](v)[0])
    close(wrap(lambda z: jax.jvp(g, (z,), (u,)))(x), jax.jvp(reference, (x,), (u,)))


def test_shapes_are_learned_from_a_plain_call_or_asked_for():
    g = adapter.gradiator(f, f_vjp)
    with pytest.raises(ValueError, match="give gradiator"):
        jax.jit(g)(array(3))
    assert g.function.nfev == 0
    g(array(3))
    close(jax.jit(g)(array(3)), reference(array(3)))
    assert g.function.nfev == 2


def test_forward_and_backward_share_their_evaluations():
    g = adapter.gradiator(f, method="2-point")
    grad = jax.grad(lambda x: g(x).sum())
    want = jax.grad(lambda x: reference(x).sum())(array(3))
    close(grad(array(3)), want, atol=1e-5)  # steps sqrt(eps) |x|
    assert g.function.nfev == 1 + 3
    close(jax.jit(grad)(array(3)), want, atol=1e-5)
    assert g.function.nfev == 8


def test_cotangents_at_one_point_share_their_evaluations():
    g = adapter.gradiator(f, method="2-point", out=OUT)
    jax.jacrev(g)(array(3))
    assert g.function.nfev == 1 + 3


def test_evaluations_of_a_batch():
    """Those of its points, each as if it were alone; one for all where fun takes many points."""
    for options, fun, points in (
        ({}, f, 6),
        ({"vectorized": True}, lambda x: np.sin(x @ A.T), 1),
    ):
        for wrap in (lambda h: h, jax.jit):
            g = adapter.gradiator(fun, method="2-point", out=OUT, **options)
            got = wrap(jax.vmap(jax.jacrev(g)))(array(6, 3))
            close(got, jax.vmap(jax.jacrev(reference))(array(6, 3)), atol=1e-5)  # steps sqrt(eps)
            assert g.function.nfev == points * (1 + 3)
            got = wrap(jax.vmap(jax.jacfwd(g)))(array(6, 3))
            close(got, jax.vmap(jax.jacrev(reference))(array(6, 3)), atol=1e-5)
            assert g.function.nfev == 2 * points * (1 + 3)


def test_several_inputs_and_outputs():
    def two(a, b):
        return a * b.sum(), np.outer(a, b)

    def same(a, b):
        return a * b.sum(), jnp.outer(a, b)

    a, b = array(2), array(3, seed=1)
    g = adapter.gradiator(two, method="cs")
    close(g(a, b), same(a, b))
    close(jax.jacrev(g, argnums=(0, 1))(a, b), jax.jacrev(same, argnums=(0, 1))(a, b))
    close(jax.jacfwd(g, argnums=(0, 1))(a, b), jax.jacrev(same, argnums=(0, 1))(a, b))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("method", ["given", "cs", "auto"])
def test_scalars(method, jit):
    """Outputs without axes, alone or in a tuple, at single points and in batches of one."""
    derivatives = {"grad_fun": lambda x, v: 2 * x * v[0] + np.cos(x) * v[1]}
    options = derivatives if method == "given" else {"method": method}
    g = adapter.gradiator(lambda x: ((x**2).sum(), np.sin(x)), **options)
    wrap = jax.jit if jit else lambda h: h

    def same(x):
        return (x**2).sum(), jnp.sin(x)

    for x in (array(2), array()):
        g(x)
        for i in (0, 1):
            for transform, at in (
                (lambda h, i=i: jax.grad(lambda z: h(z)[i].sum()), x),
                (lambda h, i=i: lambda z: jax.jvp(h, (z,), (z,))[1][i], x),
                (lambda h, i=i: jax.vmap(jax.grad(lambda z: h(z)[i].sum())), x[None]),
                (lambda h, i=i: jax.vmap(jax.jacfwd(lambda z: h(z)[i])), x[None]),
            ):
                # The default's steps for smooth functions: eps^(4/5) and a few.
                got, want = wrap(transform(g))(at), transform(same)(at)
                close(got, want, rtol=1e-9, atol=1e-9)


def test_only_inputs_that_are_differentiated_cost_evaluations():
    g = adapter.gradiator(lambda a, i, b: a[i] * b, method="2-point")
    a, b = array(5), array(2, seed=1)
    got = jax.grad(lambda z: g(a, 1, z).sum())(b)
    close(got, jnp.full(2, a[1]), rtol=1e-6)  # linear: rounding over sqrt(eps)
    assert g.function.nfev == 1 + 2
    got = jax.vmap(jax.grad(lambda z: g(a, 1, z).sum()))(jnp.stack([b, 2 * b]))
    close(got, jnp.full((2, 2), a[1]), rtol=1e-6)
    assert g.function.nfev == 3 * (1 + 2)
    forward = jax.vmap(lambda z: jax.jvp(lambda z: g(a, 1, z), (z,), (z,))[1])
    close(forward(jnp.stack([b, 2 * b])), a[1] * jnp.stack([b, 2 * b]), rtol=1e-6)
    assert g.function.nfev == 3 * (1 + 2) + 2 * (1 + 1)


def test_single_precision():
    with jax.enable_x64(False):
        g = adapter.gradiator(f, method="3-point")
        x = jnp.asarray(array(3), jnp.float32)
        got = jax.grad(lambda z: g(z).sum())(x)
        assert g(x).dtype == got.dtype == jnp.float32
        want = f_vjp(np.asarray(x, float), np.ones(4))
        # eps32^(2/3) = 2.4e-5 times a few.
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_it_trains_under_jit():
    """Step by step as with JAX's own derivatives: whether a loss halves is up to the weights."""
    x, target, losses = array(2, seed=1), reference(array(3, seed=2)), {}
    for name, g in (("ours", adapter.gradiator(f, f_vjp, out=OUT)), ("JAX", reference)):
        w, losses[name] = array(3, 2), []
        loss = jax.jit(jax.value_and_grad(lambda w, g=g: ((g(w @ x) - target) ** 2).sum()))
        for _ in range(50):
            value, slope = loss(w)
            losses[name].append(value)
            w = w - 0.01 * slope
    # Roundings of 50 short steps, each of which moves little more than the one before.
    close(losses["ours"], losses["JAX"], rtol=1e-9)
    assert losses["ours"][-1] < losses["ours"][0]


SECOND = {
    "hessian": jax.hessian,
    "reverse over reverse": lambda h: jax.jacrev(jax.jacrev(h)),
    "forward over forward": lambda h: jax.jacfwd(jax.jacfwd(h)),
    "reverse over forward": lambda h: jax.jacrev(jax.jacfwd(h)),
}
GIVEN = {
    "grad_fun": {"grad_fun": f_vjp},
    "jvp_fun": {"jvp_fun": f_jvp},
    "jac_fun": {"jac_fun": lambda x: np.cos(A @ x)[:, None] * A},
    "nested": {
        "grad_fun": plain(
            f_vjp,
            lambda xv, w: (
                A.T @ (-np.sin(A @ xv[0]) * xv[1] * (A @ w)),
                np.cos(A @ xv[0]) * (A @ w),
            ),
        )
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("order", SECOND)
def test_second_derivatives_are_differences_of_the_first(given, order):
    g = adapter.gradiator(f, **GIVEN[given], out=OUT)
    x, many, transform = array(3), array(2, 3, seed=3), SECOND[order]

    def scalar(h):
        return lambda z: (h(z) ** 2).sum()

    # Differences of smooth functions around 1: the default's error is below 1e-8.
    close(transform(g)(x), transform(reference)(x), atol=1e-8)
    want = jax.vmap(transform(scalar(reference)))(many)
    close(jax.vmap(transform(scalar(g)))(many), want, atol=1e-8)
    close(jax.jit(transform(scalar(g)))(x), transform(scalar(reference))(x), atol=1e-8)


SMOOTH = {
    "sin": (np.sin, jnp.sin),
    "exp": (np.exp, jnp.exp),
    "square": (np.square, jnp.square),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("error::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("order", SECOND)
def test_second_derivatives_of_what_is_estimated(order, name):
    """Second differences of four sizes, extrapolated: eps^(4/5) of values of 1, over the squares of
    inputs of 0.1 and above in the worst case, and as much again by truncation."""
    ours, theirs = SMOOTH[name]
    transform, near = SECOND[order], {"atol": 1e-8, "rtol": 1e-8}
    g, h = adapter.gradiator(lambda x: ours(A @ x), out=OUT), lambda x: theirs(A @ x)

    def scalar(fun):
        return lambda z: (fun(z) ** 2).sum()

    x, many = array(3), array(2, 3, seed=3)
    close(transform(g)(x), transform(h)(x), **near)
    close(jax.jit(transform(scalar(g)))(x), transform(scalar(h))(x), **near)
    close(jax.vmap(transform(g))(many), jax.vmap(transform(h))(many), **near)


@pytest.mark.filterwarnings("error::gradiator_np.GradiatorWarning")
def test_products_with_hessians_of_estimates():
    g, x, u = adapter.gradiator(f, out=OUT), array(3), array(3, seed=1)

    def loss(fun):
        return lambda z: (fun(z) ** 2).sum()

    def forward(fun):
        return jax.jvp(jax.grad(loss(fun)), (x,), (u,))[1]

    def reverse(fun):
        return jax.grad(lambda z: jax.grad(loss(fun))(z) @ u)(x)

    for product in (forward, reverse):
        close(product(g), product(reference), atol=1e-8, rtol=1e-8)
    by_b = adapter.gradiator(lambda a, b: (a * b**2).sum())
    got = jax.grad(lambda b: jax.grad(by_b)(x, b) @ u)(x)
    close(got, 2 * x * u, atol=1e-8)


def test_third_derivatives_are_an_error():
    twice = adapter.gradiator(f, f_vjp, out=OUT)
    with pytest.raises(NotImplementedError, match="no third derivatives"):
        jax.jacfwd(jax.hessian(lambda x: twice(x).sum()))(array(3))


def test_a_linear_function_has_a_hessian_of_zero():
    g = adapter.gradiator(lambda x: A @ x, lambda x, v: A.T @ v)
    close(jax.hessian(lambda x: g(x).sum())(array(3)), jnp.zeros((3, 3)), atol=0)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: adapter.gradiator(f, mode="forward"), TypeError, "unknown option 'mode'"),
        (lambda: adapter.gradiator(f)(jnp.arange(3)), TypeError, "no input is a floating-point"),
        (
            lambda: adapter.gradiator(f)(array(3), jax.random.key(0)),
            TypeError,
            "argument 1 is of dtype key.*key_data",
        ),
        (
            lambda: adapter.gradiator(f, argnums=1)(array(3), jnp.arange(2)),
            TypeError,
            "argument 1 of this call holds no floating-point",
        ),
        (
            lambda: jax.grad(adapter.gradiator(lambda a, b: a * b, argnums=0), 1)(1.0, 2.0),
            ValueError,
            r"argument 1 is differentiated.*argnums=0.*stop_gradient",
        ),
        (
            lambda: jax.grad(adapter.gradiator(lambda z: abs(z)))(1.0 + 2.0j),
            TypeError,
            "argument 0 is complex",
        ),
        (
            lambda: adapter.gradiator(f, out=jax.ShapeDtypeStruct((5,), float))(array(3)),
            ValueError,
            r"returned the shapes \[\(4,\)\], but \[\(5,\)\] were promised",
        ),
        (
            lambda: adapter.gradiator(f, out=jax.ShapeDtypeStruct((4,), int))(array(3)),
            TypeError,
            "returned float64, but int64 was promised",
        ),
        (
            lambda: adapter.gradiator(lambda x: (x, x), out=OUT)(array(4)),
            ValueError,
            r"shapes \[\(2, 4\)\]",
        ),
        (
            lambda: jax.grad(lambda x: adapter.gradiator(f, lambda x, v: v)(x).sum())(array(3)),
            ValueError,
            r"grad_fun returned shape \(4,\), expected \(3,\)",
        ),
        (
            lambda: adapter.gradiator(f, context=True)(array(3)),
            ValueError,
            "must return .y, context.",
        ),
    ],
)
def test_bad_input_says_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_second_derivatives_are_of_the_function_as_it_is():
    """What was estimated at a point serves while the value there is the same."""
    size = 1.0
    g, x = adapter.gradiator(lambda x: size * np.sin(A @ x), out=OUT), array(3)
    want = jax.hessian(reference)(x)
    close(jax.hessian(g)(x), want, atol=1e-8)
    size = 2.0
    close(jax.hessian(g)(x), 2 * want, atol=1e-8)
