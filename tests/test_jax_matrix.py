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

from gradiator_np.adapters import jax as adapter  # noqa: E402

HALVES = ("float16", "bfloat16")


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    """For all threads, unlike ``jax.enable_x64``: XLA runs callbacks of large programs in its own,
    where JAX would round their results to single precision.
    """
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


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


#: What every cell is asked for; those of a Latin square are asked for all there is.
ESSENTIAL = (
    "jit of value and grad", "jvp", "grad under vmap of 1", "grad under vmap of 4", "jacrev",
    "jacfwd", "hessian",
)  # fmt: skip


def cells():
    """All types, shapes and outputs: with all transforms where each pair of them is met once (a
    Latin square), with the essential ones elsewhere."""
    for i, dtype in enumerate(DTYPES):
        for j, shape in enumerate(SHAPES):
            for k, name in enumerate(OUTPUTS):
                whole = k == (i + j) % len(OUTPUTS)
                yield pytest.param(dtype, shape, name, whole, id=f"{dtype}-{shape}-{name}")


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


def all_of(transforms, h):
    """The results of all transforms in one program: compiling is most of the time of this file."""
    # Nothing runs often enough for XLA's optimisations to pay.
    quick = {"xla_backend_optimization_level": 0}
    return jax.jit(
        lambda x: {what: transform(h)(x) for what, transform in transforms.items()},
        compiler_options=quick,
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype, shape, name, whole", list(cells()))
def test_matrix(dtype, shape, name, whole):
    x = point(dtype, shape)
    real = not dtype.startswith("complex")
    eps = float(jnp.finfo(dtype).eps)
    first = FIRST | (REAL if real else {})
    second = SECOND if real else {}
    if not whole:
        first = {what: first[what] for what in ESSENTIAL if what in first}
        second = {what: second[what] for what in ESSENTIAL if what in second}
    wanted = None
    # Derivatives by complex inputs are not estimated: test_jax has the error.
    for kind in ("given", "estimated") if real else ("given",):
        ours, twin = made(name, kind)
        ours(x)  # tells what comes out, for all that is traced
        wanted = wanted or all_of(first | second, twin)(x)
        transforms = first | (second if kind == "given" else {})
        for what, got in all_of(transforms, ours)(x).items():
            # A dozen sums of six terms each, in the order of NumPy or of XLA; in half precision
            # conversions at each end.
            tolerance = 64 * eps
            if what in SECOND and dtype not in HALVES:
                # Differences of derivatives: the best step leaves eps^(2/3) or less.
                tolerance = 20 * eps ** (2 / 3)
            compare(got, wanted[what], tolerance, f"{what}, {kind}")
        if whole and kind == "given" and dtype not in HALVES:
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
