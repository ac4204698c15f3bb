"""Graphs of the PyTorch adapter: compile, export, fake and meta tensors, make_fx, opcheck."""

import gc

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra 'torch')")

from gradiator_np.adapters.torch import gradiator  # noqa: E402

TIGHT = {"rtol": 1e-12, "atol": 1e-12}  # a few dozen roundings of numbers below 10
A = np.random.default_rng(0).normal(size=(4, 3))
AT = torch.tensor(A)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def reference(x):
    return torch.sin(AT @ x)


def point(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def made(how, **options):
    given = (lambda x, v: A.T @ (np.cos(A @ x) * v)) if how == "given" else None
    return gradiator(lambda x: np.sin(A @ x), given, method="cs", **options)


@pytest.fixture(params=["given", "estimated"])
def how(request):
    return request.param


@pytest.fixture(params=["learned", "told"])
def g(request, how):
    """A function whose outputs are known: from a call, or because the caller said so."""
    if request.param == "told":
        return made(how, out=torch.empty(4))
    function = made(how)
    function(point(3))
    return function


@pytest.mark.parametrize(
    "backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_compile_of_the_whole_graph(g, backend):
    x = point(3).requires_grad_()

    def loss(h):
        return lambda z: (h(2 * z) ** 2).sum()

    got = torch.compile(loss(g), fullgraph=True, backend=backend)(x)
    want = loss(reference)(x)
    torch.testing.assert_close(got, want, **TIGHT)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(want, x), **TIGHT)


def test_a_compiled_backward_pass_starts_from_the_value_of_the_forward_one():
    runs = []

    def counted(a, b):
        runs.append(1)
        return a * b.sum()

    g = gradiator(counted, method="2-point", out=torch.empty(5))
    compiled = torch.compile(g, fullgraph=True, backend="aot_eager")
    a, b = point(5).requires_grad_(), point(2, seed=1)
    compiled(a, b).sum().backward()
    assert len(runs) == g.function.nfev == 1 + 5  # b wants nothing


def test_a_graph_breaks_where_the_outputs_are_not_known():
    g = made("given")
    x = point(3)

    def model(z):
        return g(2 * z) * 2

    torch.testing.assert_close(
        torch.compile(model, backend="eager")(x), 2 * reference(2 * x), **TIGHT
    )
    unknown = made("given")
    with pytest.raises(torch._dynamo.exc.Unsupported, match="shape of the output is not known"):
        torch.compile(lambda z: unknown(z), fullgraph=True, backend="eager")(x)


def test_constants_of_a_graph_are_told_apart():
    """Numbers that change from call to call are symbols elsewhere; fun gets them as they are."""
    seen = []

    def fun(x, n, t, *, name):
        seen.append((n, t, name))
        return x * n * t

    g = gradiator(fun, out=torch.empty(3))
    compiled = torch.compile(
        lambda x, n, t, name: g(x, n, t, name=name), fullgraph=True, backend="eager"
    )
    given = [(1, 1.0, "a"), (2, 3.0, "b"), (3, 0.5, "b"), (True, 2.0, "c"), (5, 0.25, "c")]
    for n, t, name in given:
        torch.testing.assert_close(compiled(point(3), n, t, name), point(3) * n * t)
    assert seen == given
    assert [type(n) for n, _, _ in seen] == [int, int, int, bool, int]


def test_batches_of_any_size_are_one_graph():
    g = gradiator(lambda x: np.sin(x).sum(axis=-1), method="cs", batch_dims=1, out=torch.empty(()))
    compiled = torch.compile(g, fullgraph=True, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    for size in (2, 3, 5, 7, 11):
        x = point(size, 4).requires_grad_()
        (got,) = torch.autograd.grad(compiled(x).sum(), x)
        torch.testing.assert_close(got, torch.cos(x.detach()), **TIGHT)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2  # of one size, and of any


def test_compile_with_structures_and_complex_numbers():
    def fun(state, *, gain):
        return {"y": state["x"] * gain, "z": (abs(state["z"]) ** 2, state["z"] * 2)}

    g = gradiator(fun, method="3-point")
    state = {"x": point(3).requires_grad_(), "z": torch.complex(point(2), point(2, seed=1))}
    gain = torch.tensor(2.0).double()
    want = g(state, gain=gain)
    got = torch.compile(g, fullgraph=True, backend="aot_eager")(state, gain=gain)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_vmap_inside_of_a_graph(g):
    x = point(5, 3)
    got = torch.compile(torch.func.vmap(g), fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(got, torch.func.vmap(reference)(x), **TIGHT)


@pytest.mark.parametrize("strict", [False, True])
def test_export(g, strict):
    class Model(torch.nn.Module):
        def forward(self, x):
            return g(2 * x) ** 2

    program = torch.export.export(Model(), (point(3),), strict=strict)
    x = point(3, seed=1)
    torch.testing.assert_close(program.module()(x), reference(2 * x) ** 2, **TIGHT)
    assert "gradiator_np.value" in str(program.graph)


def test_tensors_without_numbers(g):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        y = g(mode.from_tensor(point(3).float()))
    assert (y.shape, y.dtype) == ((4,), torch.float32)
    y = g(torch.empty(3, device="meta", dtype=torch.float64))
    assert (y.shape, y.dtype, y.device.type) == ((4,), torch.float64, "meta")
    with pytest.raises(RuntimeError, match=r"shape of the output is not known.*out="):
        made("given")(torch.empty(3, device="meta"))


def test_make_fx(g):
    from torch.fx.experimental.proxy_tensor import make_fx

    x, other = point(3), point(3, seed=1)
    torch.testing.assert_close(make_fx(g)(x)(other), reference(other), **TIGHT)
    jacrev = torch.func.jacrev
    got = make_fx(jacrev(g))(x)(other)  # no number of x is left in the graph
    torch.testing.assert_close(got, jacrev(reference)(other), **TIGHT)


def test_opcheck(g, how):
    x, v, u = (point(n, seed=n).requires_grad_() for n in (3, 4, 5))
    u = point(2, 3, seed=5).requires_grad_()
    torch.compile(g, fullgraph=True, backend="eager")(x)
    (site,) = g._kept
    value, product = torch.ops.gradiator_np.value.default, torch.ops.gradiator_np.product.default
    torch.library.opcheck(value, (site.name, [x]))
    at = x
    torch.library.opcheck(product, (site.name, "vjp", 0, [True], [at], [v]))
    torch.library.opcheck(product, (site.name, "jvp", 1, [True], [at], [u]))
    if how == "given":
        at = x.detach()  # third derivatives there are none of
        torch.library.opcheck(product, (site.name, "curvature", 0, [True], [at], [v, u[0]]))
        torch.library.opcheck(product, (site.name, "bend", 0, [True], [at], [u[0], u[1]]))


def test_what_is_gone_is_named():
    g = made("given", out=torch.empty(4))
    torch.compile(g, fullgraph=True, backend="eager")(point(3))
    (site,) = g._kept
    name = site.name
    assert name in repr(g)
    del g, site
    torch._dynamo.reset()
    gc.collect()
    with pytest.raises(RuntimeError, match=r"simulator .* is not known here"):
        torch.ops.gradiator_np.value(name, [point(3)])


def test_outputs_other_than_a_graph_was_made_for_are_an_error():
    g = made("given", out=torch.empty(3))
    with pytest.raises(ValueError, match=r"fun returned \(4,\), but out= says \(3,\)"):
        g(point(3))
    g = gradiator(lambda x: np.ones(int(x[0])), method="2-point")
    g(torch.full((2,), 3.0))
    compiled = torch.compile(g, fullgraph=True, backend="eager")
    assert compiled(torch.full((2,), 3.5)).shape == (3,)
    with pytest.raises(RuntimeError, match=r"fun returned \(5,\), but a graph was made for \(3,\)"):
        compiled(torch.full((2,), 5.0))
    assert g(torch.full((2,), 5.0)).shape == (5,)  # outside of graphs it may


def test_out_that_has_no_shape_is_an_error():
    with pytest.raises(TypeError, match="out must be a tensor or an array"):
        made("given", out=(4,))
