"""Every transform of torch, over dtypes, shapes of x and kinds of outputs, against torch's own.

The same formula runs in NumPy, inside of the adapter, and in torch, which knows its derivatives.
Estimates are complex steps, exact to rounding.

What torch does not do with functions of its own, so that it is not asked for here:

- ``gradcheck`` and ``gradgradcheck`` in float16, bfloat16 and float32: their finite differences
  need double precision (they say so). Lower precisions are compared with double precision instead.
- ``jacfwd`` and ``hessian`` of complex inputs ("jacfwd: Expected all inputs to be real").
- Complex halves have hardly any operations.
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


@pytest.mark.parametrize("how", ["given", "estimated"])
def test_tangents_that_are_no_numbers_give_none(fun, how):
    """As in torch, whose ``linearize`` traces with memory that nobody has set: by rows."""
    from torch.func import jvp, vmap

    x, u = point(2, 3), point(4, 2, 3, seed=1)
    g = ours(fun, how)
    want = vmap(lambda v: jvp(g, (x,), (v,))[1])(u)
    u[1, 0, 2] = torch.nan
    for got, right in zip(leaves(vmap(lambda v: jvp(g, (x,), (v,))[1])(u)), leaves(want)):
        assert got[1].isnan().all()
        torch.testing.assert_close(got[[0, 2, 3]], right[[0, 2, 3]])
    assert all(y.isnan().all() for y in leaves(jvp(g, (x,), (u[1],))[1]))


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


@pytest.mark.parametrize("how", ["given", "estimated"])
def test_vmap_over_nothing(fun, how):
    """None of the results at a point; nothing is run, and the shape must be known."""
    from torch.func import grad, jacfwd, jacrev, vmap

    x = point(0, 2, 3)

    def none_of(results):
        return torch.utils._pytree.tree_map(lambda a: a[:0], results)

    g = ours(fun, how)
    with pytest.raises(RuntimeError, match="vmap over no points"):
        vmap(g)(x)
    g(x.new_ones(2, 3))
    runs = g.function.nfev

    def total(h):  # of one output: torch adds no numbers over an axis of length 0
        return lambda z: leaves(h(z))[-1].sum()

    for of in (lambda h: h, jacrev, jacfwd, lambda h: grad(total(h))):
        assert_same(vmap(of(g))(x), none_of(vmap(of(twin(fun)))(x.new_ones(1, 2, 3))))
    assert_same(grad(total(vmap(g)))(x), x)
    assert_same(vmap(vmap(g))(x[:, None]), none_of(vmap(vmap(twin(fun)))(x.new_ones(1, 1, 2, 3))))
    assert g.function.nfev == runs


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


def mixed(xp, z):
    """Neither analytic nor real, and a real loss."""
    return z * abs(z) ** 2, (abs(z) ** 2).sum()


@pytest.mark.parametrize("name", [*KINDS, "mixed"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex(name, shape, dtype):
    """Of 5 outputs that are analytic, and of one that is not."""
    fun = KINDS.get(name, mixed)
    z = torch.complex(point(*shape), point(*shape, seed=1)).to(dtype).requires_grad_()
    g = gradiator(lambda x: fun(np, x), method="5-point")
    y, want = leaves(g(z)), leaves(fun(torch, z))
    assert [a.dtype for a in y] == [a.dtype for a in want]
    if dtype == torch.complex128:
        assert torch.autograd.gradcheck(
            lambda x: leaves(g(x)), z, check_forward_ad=True, check_batched_grad=z.numel() > 0
        )
        return
    got, right = (torch.autograd.grad([a.abs().sum() for a in out], z)[0] for out in (y, want))
    # eps32^(4/5) times slopes below 30 of up to 13 outputs
    torch.testing.assert_close(got, right, rtol=1e-3, atol=1e-3)


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
