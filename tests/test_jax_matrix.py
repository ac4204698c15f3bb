"""Every transform of JAX, types, shapes and outputs: against the same function in JAX itself.

What is left out, since JAX has it for no function of its own kind:

- ``check_grads`` in half precision: its differences of float16 are all rounding.
- ``grad`` and ``jacrev`` of integer outputs are a TypeError of JAX; their tangents are float0.
- ``hessian`` of complex functions: ``jacfwd`` and ``jacrev`` of JAX take real ones, unless told.
- Callbacks cannot be serialised by ``jax.export``, nor lie in a ``jit`` over arrays that are
  sharded without ``shard_map``: the last test holds that a plain ``pure_callback`` fails alike.
"""

import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed (extra 'jax')")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

from gradiator_np import GradiatorWarning  # noqa: E402
from gradiator_np.adapters import jax as adapter  # noqa: E402

HALVES = ("float16", "bfloat16")


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


# Each output: f(np, x) for NumPy and JAX alike, J u and v^T J by hand.
def total(np, x):
    return np.sin(x).sum()


OUTPUTS = {
    "scalar": (
        total,
        lambda x, u: (np.cos(x) * u).sum(),
        lambda x, v: np.cos(x) * v,
    ),
    "vector": (
        lambda np, x: np.stack([total(np, x), (x * x).sum()]),
        lambda x, u: np.stack([(np.cos(x) * u).sum(), 2 * (x * u).sum()]),
        lambda x, v: np.cos(x) * v[0] + 2 * x * v[1],
    ),
    "matrix": (
        lambda np, x: np.stack([np.sin(x), x * x], -1),
        lambda x, u: np.stack([np.cos(x) * u, 2 * x * u], -1),
        lambda x, v: np.cos(x) * v[..., 0] + 2 * x * v[..., 1],
    ),
    "tuple": (
        lambda np, x: (total(np, x), x * x),
        lambda x, u: ((np.cos(x) * u).sum(), 2 * x * u),
        lambda x, v: np.cos(x) * v[0] + 2 * x * v[1],
    ),
    "dict": (
        lambda np, x: {"a": np.sin(x), "b": [(x * x).sum(), x[None]]},
        lambda x, u: {"a": np.cos(x) * u, "b": [2 * (x * u).sum(), u[None]]},
        lambda x, v: np.cos(x) * v["a"] + 2 * x * v["b"][0] + v["b"][1][0],
    ),
}
SHAPES = [(), (1,), (3,), (2, 3), (0,)]
DTYPES = ["float64", "float32", "float16", "bfloat16", "complex128"]


def made(name, kind):
    """The function under test and its twin in JAX, in half precision by way of single as ours."""
    f, jvp, vjp = OUTPUTS[name]
    if kind == "given":
        # The output with a list in it is one in which arrays differ in shape: never an array.
        ours = adapter.gradiator(lambda x: f(np, x), vjp, jvp_fun=jvp)
    else:
        ours = adapter.gradiator(lambda x: f(np, x), method="cs")

    def twin(x):
        if str(x.dtype) not in HALVES:
            return f(jnp, x)
        return jax.tree.map(lambda y: y.astype(x.dtype), f(jnp, x.astype("float32")))

    return ours, twin


def loss(h):
    """Linear in the squares of all outputs, real where they are complex."""
    return lambda x: sum(jnp.sum((y * y).real) for y in jax.tree.leaves(h(x)))


def steps(h):
    """Three steps in a scan, each of which starts from the one before."""

    def step(c, _):
        leaves = jax.tree.leaves(h(c))
        return (c + 0.1 * sum(jnp.sum(y) for y in leaves)).astype(c.dtype), leaves[0]

    return lambda x: jax.lax.scan(step, x, None, length=3)


def batched(size, transform):
    def over(h):
        def call(x):
            return jax.vmap(transform(h))(jnp.stack([x * (1 + k) for k in range(size)]))

        return call

    return over


FIRST = {
    "value": lambda h: h,
    "jit": jax.jit,
    "grad": lambda h: jax.grad(loss(h)),
    "jit of value and grad": lambda h: jax.jit(jax.value_and_grad(loss(h))),
    "jvp": lambda h: lambda x: jax.jvp(h, (x,), (jnp.ones_like(x),)),
    "remat": lambda h: jax.grad(loss(jax.checkpoint(h))),
    "vmap of 1": batched(1, lambda h: h),
    "vmap of 4": batched(4, lambda h: h),
    "grad under vmap of 1": batched(1, lambda h: jax.grad(loss(h))),
    "grad under vmap of 4": batched(4, lambda h: jax.grad(loss(h))),
    "grad under vmaps": batched(2, lambda h: batched(1, lambda q: jax.grad(loss(q)))(h)),
    "grad of vmap": lambda h: jax.grad(loss(batched(4, lambda q: q)(h))),
}
REAL = {
    "jacrev": jax.jacrev,
    "jacfwd": jax.jacfwd,
    "jit of jacfwd": lambda h: jax.jit(jax.jacfwd(h)),
    "jacrev under vmap": batched(2, jax.jacrev),
    "jacfwd under vmap of 1": batched(1, jax.jacfwd),
    "scan": steps,
    "grad of scan": lambda h: jax.grad(loss(lambda x: steps(h)(x)[0])),
    "jvp of scan": lambda h: lambda x: jax.jvp(steps(h), (x,), (jnp.ones_like(x),)),
}
SECOND = {
    "hessian": lambda h: jax.hessian(loss(h)),
    "jit of hessian": lambda h: jax.jit(jax.hessian(loss(h))),
    "jacrev of jacrev": lambda h: jax.jacrev(jax.jacrev(h)),
    "jacfwd of jacfwd": lambda h: jax.jacfwd(jax.jacfwd(h)),
    "hessian under vmap": batched(2, lambda h: jax.hessian(loss(h))),
}


def cells():
    """A Latin square: each pair of type and shape, type and output, shape and output, once."""
    for i, dtype in enumerate(DTYPES):
        for j, shape in enumerate(SHAPES):
            yield dtype, shape, list(OUTPUTS)[(i + j) % len(OUTPUTS)]


def point(dtype, shape):
    """Numbers between 0.4 and 0.9: nothing cancels, and steps of the scan stay around 1."""
    numbers = 0.4 + 0.5 * np.random.default_rng(0).random((*shape, 2))
    if dtype.startswith("complex"):
        return jnp.asarray(numbers[..., 0] + 1j * numbers[..., 1], dtype)
    return jnp.asarray(numbers[..., 0], dtype)


def compare(got, want, rtol, what):
    assert jax.tree.structure(got) == jax.tree.structure(want), what
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), what
        wide = np.complex128 if np.dtype(a.dtype).kind == "c" else np.float64
        a, b = np.asarray(a).astype(wide), np.asarray(b).astype(wide)
        # Off-diagonal entries are 0 and come by differences: absolute, in units of the largest.
        scale = np.abs(b).max(initial=1.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale, err_msg=what)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["given", "estimated"])
@pytest.mark.parametrize("dtype, shape, name", list(cells()), ids=str)
def test_matrix(dtype, shape, name, kind):
    x = point(dtype, shape)
    real = not dtype.startswith("complex")
    if not real and kind == "estimated":
        pytest.skip("derivatives by complex inputs are not estimated: test_jax has the error")
    eps = float(jnp.finfo(dtype).eps)
    ours, twin = made(name, kind)
    ours(x)  # tells what comes out, for all that is traced
    transforms = FIRST | (REAL if real else {}) | (SECOND if real and kind == "given" else {})
    for what, transform in transforms.items():
        # A dozen sums of six terms each, in the order of NumPy or of XLA; in half precision
        # conversions at each end.
        tolerance = 64 * eps
        if what in SECOND and dtype not in HALVES:
            # Differences of derivatives: the best step leaves eps^(2/3) or less.
            tolerance = 20 * eps ** (2 / 3)
        compare(jax.jit(transform(ours))(x), jax.jit(transform(twin))(x), tolerance, what)
    if kind == "given" and dtype not in HALVES:
        check_grads(ours, (x,), order=1)


@pytest.mark.slow
@pytest.mark.parametrize("what", FIRST | REAL | SECOND)
def test_outside_of_jit(what):
    """Where the primitive runs at once, without a callback of XLA, and nothing tells shapes."""
    transform, x = (FIRST | REAL | SECOND)[what], point("float64", (2, 3))
    for name in ("tuple", "dict"):
        ours, twin = made(name, "given")
        if "jit" in what or "scan" in what or "remat" in what:
            ours(x)
        compare(transform(ours)(x), jax.jit(transform(twin))(x), 1e-9, what)  # eps^(2/3) times 20


@pytest.mark.parametrize("method", ["auto", "2-point", "3-point", "5-point"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_methods(method, dtype):
    """Errors of differences in the precision of x, or of single for halves: eps^(1/2) at worst."""
    f, _, _ = OUTPUTS["matrix"]
    g = adapter.gradiator(lambda x: f(np, x), method=method)
    x = point(dtype, (3,))
    got = jax.jacrev(g)(x)
    want = jax.jacrev(lambda x: f(jnp, x))(x.astype(float))
    assert got.dtype == x.dtype
    worst = max(float(jnp.finfo(dtype).eps), float(np.sqrt(np.finfo(
        "float32" if dtype == "float16" else dtype).eps)))  # fmt: skip
    np.testing.assert_allclose(got.astype(float), want, rtol=0, atol=4 * worst)


# -- arguments ---------------------------------------------------------------------------------


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


# -- several devices -------------------------------------------------------------------------------

SHARDED = """
import numpy as np, jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from jax.sharding import PartitionSpec as P
from gradiator_np.adapters.jax import gradiator

A = np.random.default_rng(0).normal(size=(4, 3))
g = gradiator(
    lambda x, w: np.sin(A @ x) * w,
    lambda xw, v: (A.T @ (np.cos(A @ xw[0]) * v * xw[1]), np.sin(A @ xw[0]) * v),
    out=jax.ShapeDtypeStruct((4,), float),
)
ref = lambda x, w: jnp.sin(A @ x) * w
mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
x, w = jnp.asarray(np.random.default_rng(2).normal(size=(8, 3))), jnp.arange(1.0, 5.0)

def loss(h):
    def local(x, w):
        return jax.lax.psum((jax.vmap(h, (0, None))(x, w) ** 2).sum(), "i")
    specs = dict(mesh=mesh, in_specs=(P("i"), P()), out_specs=P(), check_vma=True)
    return jax.shard_map(local, **specs)

for wrap in (lambda h: h, jax.jit):
    for transform in (lambda h: h, lambda h: jax.grad(h, (0, 1))):
        got, want = wrap(transform(loss(g)))(x, w), transform(loss(ref))(x, w)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), got, want)
got, want = jax.jit(jax.hessian(loss(g)))(x, w), jax.hessian(loss(ref))(x, w)
np.testing.assert_allclose(got, want, atol=1e-6)  # differences of numbers around 10

def total(h):
    return lambda x, w: (jax.vmap(h, (0, None))(x, w) ** 2).sum()

sharded = jax.device_put(x, jax.NamedSharding(mesh, P("i")))
np.testing.assert_allclose(
    jax.grad(total(g))(sharded, w), jax.grad(total(ref))(x, w), rtol=1e-12
)
def fails(call):
    try:
        call(sharded) - sharded
    except TypeError:
        return True
    return False
plain = fails(jax.jit(lambda x: jax.pure_callback(np.sin, x, x)))
ours = fails(jax.jit(jax.grad(lambda x: total(g)(x, w))))
assert ours == plain, "a callback in a jit over sharded arrays"
device = jax.devices()[2]
y = g(jax.device_put(x[0], device), jax.device_put(w, device))
assert y.devices() == {device}
"""


@pytest.mark.slow
def test_shard_map():
    """In a process of its own, since the number of devices is settled when JAX starts."""
    code = 'import jax; jax.config.update("jax_num_cpu_devices", 4)' + SHARDED
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_export_is_what_it_is_for_any_callback():
    g = adapter.gradiator(np.sin, out=lambda x: x)
    for fun in (g, lambda x: jax.pure_callback(np.sin, x, x)):
        with pytest.raises(NotImplementedError, match="host_callbacks"):
            jax.export.export(jax.jit(fun))(jnp.ones(3)).serialize()
