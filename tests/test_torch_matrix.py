"""Every transform of torch, over dtypes, shapes of x and kinds of outputs, against torch's own.

The same formula runs in NumPy, inside of the adapter, and in torch, which knows its derivatives.
Estimates are complex steps, exact to rounding.

What torch does not do with functions of its own, so that it is not asked for here:

- ``gradcheck`` and ``gradgradcheck`` in float16, bfloat16 and float32: their finite differences
  need double precision (they say so). Lower precisions are compared with double precision instead.
- ``jacfwd`` and ``hessian`` of complex inputs ("jacfwd: Expected all inputs to be real").
- ``view_as_real`` of an empty complex tensor has no backward pass ("Tensor must have a last
  dimension with stride 1"), so none without entries here; nor are there operations on complex
  halves.
- ``jacrev`` and ``jacfwd`` by nothing at all (they vmap over an empty axis).
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra 'torch')")

from gradiator_np.adapters.torch import gradiator  # noqa: E402

TIGHT = {"rtol": 1e-12, "atol": 1e-12}  # a few dozen roundings of numbers below 10
SHAPES = [(), (1,), (3,), (2, 3), (4, 2), (0,)]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def scalar(xp, x):
    return (xp.sin(x) * x).sum()


def vector(xp, x):
    return xp.sin(2 * x).reshape(-1) * (1 + x.sum())


def matrix(xp, x):
    flat = x.reshape(-1)
    return xp.stack([xp.sin(flat), flat * flat.sum()])


def pair(xp, x):
    return scalar(xp, x), vector(xp, x)


def named(xp, x):
    return {"loss": scalar(xp, x), "field": matrix(xp, x)}


KINDS = {fun.__name__: fun for fun in (scalar, vector, matrix, pair, named)}


def leaves(y):
    return tuple(y.values()) if isinstance(y, dict) else y if isinstance(y, tuple) else (y,)


def given(fun):
    """v^T J by complex steps: a derivative that is given, and exact to rounding."""

    def pullback(x, v):
        flat = np.asarray(x, np.float64).reshape(-1)
        out = np.zeros(flat.size)
        for i in range(flat.size):
            moved = flat + 1e-30j * (np.arange(flat.size) == i)
            y = leaves(fun(np, moved.reshape(np.shape(x))))
            out[i] = sum(np.sum(np.imag(a) * b) for a, b in zip(y, leaves(v), strict=True)) / 1e-30
        return out.reshape(np.shape(x))

    return pullback


def twin(fun):
    return lambda x: fun(torch, x)


def ours(fun, how="estimated"):
    """The same in NumPy, inside of the adapter."""
    return gradiator(lambda x: fun(np, x), given(fun) if how == "given" else None, method="cs")


def stepped(fun):
    """With a derivative that takes no complex steps itself."""
    return gradiator(lambda x: fun(np, x), given(fun), method="5-point")


def point(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype)


def assert_same(got, want, **tolerance):
    """Structures of tensors, equal in shape and dtype."""
    torch.testing.assert_close(got, want, **tolerance or TIGHT)


@pytest.fixture(params=KINDS)
def fun(request):
    return KINDS[request.param]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("how", ["given", "estimated"])
def test_values_and_gradients_in_every_precision(fun, shape, dtype, how):
    x = point(*shape, dtype=dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    g = gradiator(lambda z: fun(np, z), given(fun) if how == "given" else None, method="5-point")
    y, want = leaves(g(x)), leaves(fun(torch, exact))
    (got,) = torch.autograd.grad([a.sum() for a in y], x)
    (right,) = torch.autograd.grad([a.sum() for a in want], exact)
    # Values below 10 rounded once to the dtype (in float32 first for halves), slopes below 30 as
    # well; differences of float32 values in steps of 1e-2 lose another 1e-5 to 1e-4 of them.
    eps = torch.finfo(dtype).eps
    steps = 0.0 if how == "given" else {torch.float64: 1e-9}.get(dtype, 3e-3)
    for a, b in zip(y, want, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=8 * eps, atol=8 * eps)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), right, rtol=8 * eps + steps, atol=8 * eps + steps)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradcheck(fun, shape):
    x = point(*shape).requires_grad_()
    g = ours(fun)
    assert torch.autograd.gradcheck(
        lambda z: leaves(g(z)),
        x,
        check_forward_ad=True,
        check_batched_grad=x.numel() > 0,
        check_batched_forward_grad=x.numel() > 0,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradgradcheck(fun, shape):
    """The derivative by v is exact, that by x a difference of what was given."""
    x = point(*shape).requires_grad_()
    g = stepped(fun)
    assert torch.autograd.gradgradcheck(
        lambda z: leaves(g(z)), x, check_fwd_over_rev=True, check_rev_over_rev=True
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_first_derivatives(fun, shape):
    from torch.func import jacfwd, jacrev, jvp, linearize, vjp

    x, u = point(*shape), point(*shape, seed=1)
    g, reference = ours(fun), twin(fun)
    if x.numel():  # torch's jacrev and jacfwd want something to differentiate by
        want = jacrev(reference)(x)
        assert_same(jacrev(g)(x), want)
        assert_same(jacfwd(g)(x), want)
    y, dy = jvp(reference, (x,), (u,))
    assert_same(jvp(g, (x,), (u,)), (y, dy))
    cotangent = torch.utils._pytree.tree_map(torch.ones_like, y)
    assert_same(vjp(g, x)[1](cotangent), vjp(reference, x)[1](cotangent))
    value, push = linearize(g, x)
    assert_same(value, y)
    assert_same(push(u), dy)  # not the tangent that it was traced with
    assert_same(push(2 * u), torch.utils._pytree.tree_map(lambda a: 2 * a, dy))


@pytest.mark.parametrize(
    "shape", [(), (1,), (3,), pytest.param((2, 3), marks=pytest.mark.slow)], ids=str
)
def test_second_derivatives(fun, shape):
    from torch.func import hessian, jacfwd, jacrev

    x = point(*shape)
    g, reference = stepped(fun), twin(fun)
    want = hessian(reference)(x)
    # 5-point differences of exact gradients below 30: eps^(4/5) of them
    near = {"rtol": 1e-8, "atol": 1e-8}
    for outer in (jacrev, jacfwd):
        for inner in (jacrev, jacfwd):
            assert_same(outer(inner(g))(x), want, **near)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)], ids=str)
def test_vmap(fun, shape, batch):
    from torch.func import grad, jacfwd, jacrev, vmap

    x = point(batch, *shape)
    g, reference = ours(fun), twin(fun)
    assert_same(vmap(g)(x), vmap(reference)(x))
    want = vmap(jacrev(reference))(x)
    assert_same(vmap(jacrev(g))(x), want)
    assert_same(vmap(jacfwd(g))(x), want)
    if shape:
        assert_same(vmap(g, in_dims=1)(x.transpose(0, 1)), vmap(reference)(x))

    def total(h):
        return lambda z: sum(a.sum() for a in leaves(vmap(h)(z)))

    assert_same(grad(total(g))(x), grad(total(reference))(x))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("vectorize", [False, True])
def test_functional(fun, shape, vectorize):
    from torch.autograd import functional

    x, u = point(*shape), point(*shape, seed=1)
    g, reference = ours(fun), twin(fun)
    options = {"vectorize": vectorize}
    for strategy in ("reverse-mode", "forward-mode")[: 1 + vectorize]:
        got = functional.jacobian(lambda z: leaves(g(z)), x, strategy=strategy, **options)
        want = functional.jacobian(lambda z: leaves(reference(z)), x)
        assert_same(got, want)

    def single(h):
        return lambda z: sum((a**2).sum() for a in leaves(h(z)))

    second, near = stepped(fun), {"rtol": 1e-8, "atol": 1e-7}  # twice squared: below 1e3
    for name in ("hvp", "vhp"):
        product = getattr(functional, name)
        assert_same(product(single(second), x, u), product(single(reference), x, u), **near)
    want = functional.hessian(single(reference), x)
    assert_same(functional.hessian(single(second), x, **options), want, **near)
    # forward mode by two reverse passes: linear in the cotangent, so right without grad_fun
    pairs = [functional.jvp(lambda z, h=h: leaves(h(z)), x, u) for h in (g, reference)]
    assert_same(*pairs)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex(shape, dtype):
    """Neither analytic nor real: z |z|^2, and a real loss of z."""

    def mixed(z):
        return z * abs(z) ** 2, (abs(z) ** 2).sum()

    z = torch.complex(point(*shape), point(*shape, seed=1)).to(dtype).requires_grad_()
    g = gradiator(mixed, method="3-point")
    assert [a.dtype for a in g(z)] == [a.dtype for a in mixed(z)] or dtype == torch.complex64
    if dtype == torch.complex128:
        assert torch.autograd.gradcheck(g, z, check_forward_ad=True)
        return
    (got,) = torch.autograd.grad([a.abs().sum() for a in g(z)], z)
    (want,) = torch.autograd.grad([a.abs().sum() for a in mixed(z)], z)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)  # eps32^(2/3) of slopes below 10


@pytest.mark.parametrize("how", ["given", "estimated"])
def test_complex_outputs_of_real_inputs(how):
    """The gradient is the real part of conj(v) J, never one that was cut."""

    def wave(x):
        return np.exp(1j * x)

    def by_hand(x, v):
        return v * 1j * np.exp(1j * x)

    g = gradiator(wave, by_hand if how == "given" else None, method="5-point")
    x = point(3).requires_grad_()
    assert g(x).dtype == torch.complex128
    assert torch.autograd.gradcheck(g, x, check_forward_ad=True)
    if how == "given":
        assert torch.autograd.gradgradcheck(g, x)
