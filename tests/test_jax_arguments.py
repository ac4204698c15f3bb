"""The JAX adapter: arguments and outputs of any structure, options, failures, batches."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed (extra 'jax')")

import jax.numpy as jnp  # noqa: E402

from gradiator_np import GradiatorWarning  # noqa: E402
from gradiator_np.adapters import jax as adapter  # noqa: E402
from tests.test_jax_matrix import compare, point  # noqa: E402


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def simulator(p, k, *, n, w, name="none"):
    assert name == "none"
    assert type(n) is int
    return {"u": p["u"] * n + w, "s": ((p["v"] ** 2).sum() * w, k.sum())}


def simulator_in_jax(p, k, *, n, w, name="none"):
    return {"u": p["u"] * n + w, "s": ((p["v"] ** 2).sum() * w, k.sum())}


STRUCTS = {
    "u": jax.ShapeDtypeStruct((3,), float),
    "s": (jax.ShapeDtypeStruct((), float), jax.ShapeDtypeStruct((), int)),
}


@pytest.mark.parametrize("wrap", [lambda h: h, jax.jit], ids=["plain", "jit"])
def test_pytrees_keywords_statics_and_integers(wrap):
    with jax.enable_x64(True):
        structs = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), STRUCTS)
    g = adapter.gradiator(simulator, method="cs", out=structs)
    p = {"u": jnp.arange(3.0), "v": jnp.ones((2, 2))}
    k = jnp.arange(4)

    def scalar(h):
        def call(p, w):
            out = h(p, k, n=2, w=w, name="none")
            return (out["u"] ** 2).sum() + out["s"][0]

        return call

    compare(g(p, k, n=2, w=3.0), simulator_in_jax(p, k, n=2, w=3.0), 1e-14, "value")
    for transform in (lambda h: jax.grad(h, (0, 1)), lambda h: jax.jacfwd(h, (0, 1))):
        got = wrap(transform(scalar(g)))(p, 3.0)
        compare(got, transform(scalar(simulator_in_jax))(p, 3.0), 1e-14, "derivatives")
    y, t = jax.jvp(lambda p: g(p, k, n=2, w=3.0), (p,), (p,))
    assert t["s"][1].dtype == jax.dtypes.float0
    assert y["s"][1].dtype == int


def test_derivatives_of_pytrees_have_their_structure():
    seen = []

    def grad_fun(args, v, n):
        p, _ = args
        seen.append((sorted(p), v["s"][1].shape, n))
        s = v["s"][0]
        return ({"u": v["u"] * n, "v": 2 * p["v"] * s, "i": None},)

    def jvp_fun(args, u, n):
        p, _ = args
        (du,) = u
        return {"u": du["u"] * n, "s": (2 * (p["v"] * du["v"]).sum(), 0)}

    def fun(p, k, n):
        return {"u": p["u"] * n, "s": ((p["v"] ** 2).sum(), k.sum())}

    g = adapter.gradiator(fun, grad_fun, jvp_fun=jvp_fun)
    p = {"u": jnp.arange(3.0), "v": jnp.ones((2, 2)), "i": jnp.arange(2)}
    k = jnp.arange(4)

    def scalar(h):
        return lambda q: (
            (h({**q, "i": p["i"]}, k, n=2)["u"] ** 2).sum()
            * (h({**q, "i": p["i"]}, k, n=2)["s"][0])
        )

    q = {"u": p["u"], "v": p["v"]}
    compare(jax.grad(scalar(g))(q), jax.grad(scalar(fun))(q), 1e-14, "grad")
    assert seen[0] == (["i", "u", "v"], (), 2)
    compare(jax.jacfwd(scalar(g))(q), jax.jacfwd(scalar(fun))(q), 1e-14, "jacfwd")
    # Differences of polynomials of degree 1: rounding over steps of 1e-3 and more.
    compare(jax.hessian(scalar(g))(q), jax.hessian(scalar(fun))(q), 1e-9, "hessian")


def test_options_go_by_the_arguments():
    """Bounds, scales and noise of the structure of x and y, whatever is differentiated."""
    low = ({"u": np.zeros(2), "v": 0.0}, np.zeros(3))
    high = ({"u": np.full(2, 9.0), "v": 9.0}, np.full(3, 9.0))
    seen = []

    def fun(p, b):
        seen.append((*p["u"], p["v"], *b))
        return {"y": p["u"] * p["v"], "z": b * b}

    g = adapter.gradiator(
        fun, bounds=(low, high), x_scale=1.0, noise={"y": np.full(2, 1e-9), "z": 1e-9}
    )
    p, b = {"u": jnp.array([0.0, 9.0]), "v": jnp.array(9.0)}, jnp.array([0.0, 1.0, 9.0])

    def scalar(h):
        return lambda p, b: sum(jnp.sum(y) for y in jax.tree.leaves(h(p, b)))

    for argnums in (0, 1, (0, 1)):
        got, want = (jax.grad(scalar(h), argnums)(p, b) for h in (g, fun))
        seen = []
        # Noise of 1e-9 at steps of 1e-3 and more.
        compare(got, want, 1e-5, str(argnums))
    assert np.min(seen or [0]) >= 0
    assert np.max(seen or [0]) <= 9
    bad = adapter.gradiator(fun, bounds=((0.0, 0.0, 0.0), 9.0))
    with pytest.raises(ValueError, match="one part for each of the arguments"):
        jax.grad(scalar(bad))(p, b)


def test_lists_of_numbers_are_arrays_and_other_lists_containers():
    g = adapter.gradiator(lambda x: [x[0] * x[1], x[1] ** 2], method="cs")
    compare(g([2.0, 3.0]), jnp.array([6.0, 9.0]), 1e-15, "value")
    compare(jax.jacrev(g)(jnp.array([2.0, 3.0])), jnp.array([[3.0, 2.0], [0, 6]]), 1e-15, "jac")
    layers = [jnp.ones(2), jnp.ones((2, 2))]
    h = adapter.gradiator(lambda p: p[1] @ p[0], method="cs")
    compare(
        jax.grad(lambda p: h(p).sum())(layers), [jnp.full(2, 2.0), jnp.ones((2, 2))], 1e-15, "list"
    )


def thrice(h):
    return jax.jit(jax.grad(lambda x: h(x).sum() + (h(x[:2]) ** 2).sum() + h(x[0])))


def test_a_second_shape_inside_one_jit():
    for out in (lambda x: x, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)):
        g = adapter.gradiator(np.sin, lambda x, v: np.cos(x) * v, out=out)
        x = jnp.linspace(0.1, 0.9, 5)

        compare(thrice(g)(x), thrice(jnp.sin)(x), 1e-14, "three shapes")


def test_statics_tell_outputs_apart():
    g = adapter.gradiator(lambda x, n: x[:n] ** 2, method="cs")
    x = jnp.arange(1.0, 5.0)
    for n in (1, 3):
        compare(g(x, n), x[:n] ** 2, 1e-15, "value")
        jac = jax.jit(jax.jacrev(g), static_argnums=1)(x, n)
        compare(jac, 2 * jnp.diag(x)[:n], 1e-15, "jac")


def test_context_is_made_again_for_the_backward_pass():
    runs = []

    def fun(x):
        runs.append(1)
        return np.sin(x), np.cos(x)

    g = adapter.gradiator(fun, lambda x, v, cosine: cosine * v, context=True)
    x = jnp.array([0.3, 0.7])
    compare(jax.grad(lambda x: g(x).sum())(x), jnp.cos(x), 1e-15, "grad")
    assert len(runs) == 2
    g(x[0])
    compare(jax.jit(jax.vmap(jax.grad(g)))(x), jnp.cos(x), 1e-15, "vmap")
    assert g.function.nfev == len(runs) == 2 + 1 + 4


def test_complex_outputs_of_real_inputs():
    """JAX's convention: no conjugate, and the real part by a real input."""

    def f(np, x):
        return np.exp(1j * x) * (1 + 2j)

    g = adapter.gradiator(lambda x: f(np, x), method="3-point")
    x, v = point("float64", (3,)), point("complex128", (3,))
    # Central differences: eps^(2/3) = 4e-11 times a few.
    compare(jax.vjp(g, x)[1](v), jax.vjp(lambda x: f(jnp, x), x)[1](v), 1e-9, "vjp")
    compare(jax.jvp(g, (x,), (x,)), jax.jvp(lambda x: f(jnp, x), (x,), (x,)), 1e-9, "jvp")


@pytest.mark.parametrize("wrap", [lambda h: h, jax.jit], ids=["plain", "jit"])
def test_buffers_that_are_used_again(wrap):
    """Compiled simulators return one array each time, with new numbers in it."""
    y, slope = np.zeros(3), np.zeros(3)

    def fun(x):
        y[:] = np.sin(x)
        return y

    def grad_fun(x, v):
        slope[:] = np.cos(x) * v
        return slope

    g = adapter.gradiator(fun, grad_fun, out=lambda x: x)
    many = jnp.arange(6.0).reshape(2, 3)
    compare(wrap(jax.vmap(g))(many), jnp.sin(many), 1e-15, "values")
    for transform in (lambda h: jax.grad(lambda x: h(x).sum()), jax.jacrev):
        got, want = (wrap(jax.vmap(transform(h)))(many) for h in (g, jnp.sin))
        compare(got, want, 1e-15, "derivatives")
    first = wrap(g)(many[0])
    wrap(g)(many[1])
    compare(first, jnp.sin(many[0]), 1e-15, "a value from before")


def test_weak_types_do_not_hang_on_the_order_of_calls():
    g = adapter.gradiator(lambda x, a: x * a, method="cs")
    x = jnp.ones(2, "float32")
    assert g(x, 2.0).dtype == jnp.float32
    assert g(x, jnp.float64(2.0)).dtype == jnp.float64
    assert g(x, 2.0).dtype == jnp.float32


# -- failures --------------------------------------------------------------------------------------


def failing(x):
    if x[0] > 2:
        raise ArithmeticError("no convergence")
    return np.sin(x)


@pytest.mark.parametrize("wrap", [lambda h: h, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("options", [{"method": "3-point"}, {}, {"grad": True}], ids=str)
def test_a_point_that_fails_is_nan_and_the_others_are_right(options, wrap):
    given = {"grad_fun": lambda x, v: np.cos(x) * v} if "grad" in options else options
    many = jnp.array([[0.3, 0.4], [2.5, 0.4], [1.0, 0.1]])
    g = adapter.gradiator(failing, **given, out=lambda x: x)
    with pytest.warns(GradiatorWarning, match=r"1 of 3 points of a batch failed.*no convergence"):
        got = wrap(jax.vmap(jax.grad(lambda x: g(x).sum())))(many)
    assert np.isnan(got[1]).all()
    # The coarsest are central differences.
    np.testing.assert_allclose(got[::2], np.cos(many[::2]), rtol=1e-8)
    with pytest.warns(GradiatorWarning):
        masked = wrap(jax.grad(lambda x: jnp.nansum(jax.vmap(g)(x))))(many)
    np.testing.assert_allclose(masked, np.where(many[:, :1] > 2, 0, np.cos(many)), rtol=1e-8)
    with pytest.raises((ArithmeticError, jax.errors.JaxRuntimeError), match="no convergence"):
        jax.block_until_ready(wrap(jax.vmap(jax.grad(lambda x: g(x).sum())))(many[1:2]))
    strict = adapter.gradiator(failing, **given, out=lambda x: x, on_error="raise")
    with pytest.raises((ArithmeticError, jax.errors.JaxRuntimeError), match="no convergence"):
        jax.block_until_ready(wrap(jax.vmap(strict))(many))


def test_runs_that_fail_around_one_point():
    """Where the value is known and no run around it: nan for that point, an error for one alone."""

    def fun(x):
        if x[0] == 2.0 or abs(x[0] - 2) > 0.5:
            return np.sin(x)
        raise ArithmeticError("a hole")

    many = jnp.array([[1.0, 0.4], [2.0, 0.4]])
    g = adapter.gradiator(fun, method="3-point", bounds=(np.zeros(2), np.full(2, 5.0)))
    slope = jax.grad(lambda x: g(x)[0])
    with pytest.warns(GradiatorWarning, match=r"1 of 2 points"):
        got = jax.vmap(slope)(many)
    np.testing.assert_allclose(got[0], [np.cos(1.0), 0], atol=1e-8)  # central differences
    assert np.isnan(got[1]).any()
    with (
        pytest.warns(GradiatorWarning),
        pytest.raises(RuntimeError, match="no run determines the derivative"),
    ):
        slope(many[1])


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("size", [1, 3])
def test_batches_with_bounds(size, vectorized):
    low, high = np.array([0.0, 0.2]), np.array([0.4, 0.9])
    seen = []

    def fun(x):
        seen.append(np.asarray(x).reshape(-1, 2))
        return np.sin(x)

    g = adapter.gradiator(fun, method="3-point", bounds=(low, high), vectorized=vectorized)
    x = jnp.linspace(jnp.asarray(low), jnp.asarray(high), size)  # corners among them
    # One-sided stencils of second order: eps^(2/3).
    np.testing.assert_allclose(
        jax.vmap(jax.grad(lambda x: g(x).sum()))(x), np.cos(x), rtol=0, atol=1e-8
    )
    assert (np.concatenate(seen) >= low).all()
    assert (np.concatenate(seen) <= high).all()


def test_workers_run_pytrees():
    g = adapter.gradiator(simulator, method="3-point", workers=map, out=STRUCTS)
    p = {"u": jnp.arange(3.0), "v": jnp.ones((2, 2))}
    got = jax.grad(lambda p: g(p, jnp.arange(4), n=2, w=3.0)["s"][0])(p)
    compare(got, {"u": jnp.zeros(3), "v": jnp.full((2, 2), 6.0)}, 1e-8, "central differences")


@pytest.mark.parametrize(
    "options",
    [
        {
            "grad_fun": lambda xw, v: (np.cos(xw[0]) * xw[1] * v, (np.sin(xw[0]) * v).sum()),
            "jvp_fun": lambda xw, u: np.cos(xw[0]) * xw[1] * u[0] + np.sin(xw[0]) * u[1],
        },
        {"jac_fun": lambda xw: (np.diag(np.cos(xw[0]) * xw[1]), np.sin(xw[0]))},
        {"method": "cs"},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("wrap", [lambda h: h, jax.jit], ids=["plain", "jit"])
def test_arguments_that_vary_along_different_axes(options, wrap):
    """At 2 x 4 points there are 2 x, 4 w and 8 v, one of which is 0."""
    g = adapter.gradiator(lambda x, w: np.sin(x) * w, out=lambda x, w: x, **options)
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.normal(size=4))
    v = jnp.asarray(rng.normal(size=(2, 4, 3))).at[1, 2].set(0)

    def over(h):
        def pull(x, w, v):
            y, back = jax.vjp(h, x, w)
            return y, back(v)

        def push(x, w, v):
            return jax.jvp(h, (x, w), (v, w))

        out = []
        for call in (pull, push):
            inner = jax.vmap(call, (None, 0, 0))
            out.append(jax.vmap(inner, (0, None, 0))(x, w, v))
            # the axes the other way round
            inner = jax.vmap(call, (0, None, 0))
            out.append(jax.vmap(inner, (None, 0, 1))(x, w, v))
        return out

    # sums of three terms, complex steps without cancellation: a few roundings
    want = over(lambda x, w: jnp.sin(x) * w)
    compare(wrap(lambda: over(g))(), want, 1e-14, "axes")


@pytest.mark.parametrize("wrap", [lambda h: h, jax.jit], ids=["plain", "jit"])
def test_calls_of_a_batch_are_counted_one_by_one(wrap):
    """One value and one derivative for each point, none where the cotangent is 0."""
    g = adapter.gradiator(np.sin, lambda x, v: np.cos(x) * v, out=lambda x: x)
    v = jnp.ones((5, 3)).at[3].set(0)
    got = wrap(jax.vmap(lambda x, v: jax.vjp(g, x)[1](v)[0]))(jnp.ones((5, 3)), v)
    compare(got, jnp.cos(1.0) * v, 1e-15, "vjp")
    # the compiled program leaves out a value that nobody reads but the backward pass
    assert (g.function.counts.fun, g.function.counts.grad) == (5, 4)


def test_outputs_of_a_batch_whose_types_differ():
    """An integer at the first point must not cut the numbers of the others."""

    def fun(x):
        return np.where(x > 1, x * x, 0).astype(int if (x <= 1).all() else float)

    g = adapter.gradiator(fun, out=lambda x: x, method="2-point")
    x = jnp.array([[0.25, 0.5], [1.25, 1.5]])
    got = jax.vmap(jax.jacfwd(g))(x)
    want = jnp.stack([jnp.zeros((2, 2)), jnp.diag(2 * x[1])])
    compare(got, want, 1e-6, "slopes of 3 by steps of 2e-8")


@pytest.mark.parametrize("calls", [1, 2])
def test_masked_outputs_are_nan(calls):
    """In the call that learns the structure, and in those that know it."""
    f = adapter.gradiator(lambda x: np.ma.masked_array(x, [True, False]))
    for _ in range(calls):
        y = f(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(y, [np.nan, 2.0])


def test_outputs_that_are_no_numbers_are_told():
    with pytest.raises(TypeError, match="must be numbers, got str"):
        adapter.gradiator(lambda x: "1.0")(jnp.ones(2))
