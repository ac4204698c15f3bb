"""The PyTorch adapter: every transform against PyTorch's own derivatives, and evaluations counted.

Estimates use the complex step, exact to rounding, wherever a comparison must be tight.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra 'torch')")

from gradiator_np._differentiable.function import gradiator as plain  # noqa: E402
from gradiator_np.adapters import torch as adapter  # noqa: E402

A = np.random.default_rng(0).normal(size=(4, 3))
AT = torch.tensor(A)
TIGHT = {"rtol": 1e-12, "atol": 1e-13}  # a few dozen roundings of numbers around 1


def f(x):
    return np.sin(A @ x)


def f_vjp(x, v):
    return A.T @ (np.cos(A @ x) * v)


def f_nested(args, w):
    x, v = args
    return A.T @ (-np.sin(A @ x) * (A @ w) * v), np.cos(A @ x) * (A @ w)


def reference(x):
    return torch.sin(AT @ x)


def point(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


FUNCTIONS = {
    "given": lambda: adapter.gradiator(f, f_vjp, method="cs"),
    "nested": lambda: adapter.gradiator(plain(f, plain(f_vjp, f_nested), method="cs")),
    "estimated": lambda: adapter.gradiator(f, method="cs"),
}


@pytest.fixture(params=FUNCTIONS)
def g(request):
    return FUNCTIONS[request.param]()


def test_gradcheck(g):
    x = point(3).requires_grad_()
    assert torch.autograd.gradcheck(g, x, check_forward_ad=True)


def test_gradcheck_of_central_differences():
    """gradcheck's own tolerance is 1e-5; central differences err by eps^(2/3) times a few."""
    x = point(3).requires_grad_()
    assert torch.autograd.gradcheck(adapter.gradiator(f, method="3-point"), x)


def test_transforms(g):
    from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap

    x, u, v, many = point(3), point(3, seed=1), point(4, seed=2), point(5, 3, seed=3)
    want = jacrev(reference)(x)
    for transform in (jacrev, jacfwd):
        torch.testing.assert_close(transform(g)(x), want, **TIGHT)
    torch.testing.assert_close(jvp(g, (x,), (u,))[1], want @ u, **TIGHT)
    torch.testing.assert_close(vjp(g, x)[1](v)[0], v @ want, **TIGHT)
    torch.testing.assert_close(vmap(g)(many), vmap(reference)(many), **TIGHT)
    torch.testing.assert_close(vmap(g, in_dims=1)(many.T), vmap(reference)(many), **TIGHT)
    for transform in (jacrev, jacfwd):
        got, right = vmap(transform(g))(many), vmap(jacrev(reference))(many)
        torch.testing.assert_close(got, right, **TIGHT)
    for fun in (lambda h: lambda z: vmap(h)(z).pow(2).sum(),):
        torch.testing.assert_close(grad(fun(g))(many), grad(fun(reference))(many), **TIGHT)
    nested = many.reshape(5, 1, 3).expand(5, 2, 3)
    torch.testing.assert_close(vmap(vmap(g))(nested), vmap(vmap(reference))(nested), **TIGHT)


@pytest.mark.parametrize("kind", ["given", "nested"])
def test_second_derivatives(kind):
    g = FUNCTIONS[kind]()
    x = point(3).requires_grad_()
    assert torch.autograd.gradgradcheck(g, x)
    for square in (lambda h: lambda z: h(z).pow(2).sum(),):
        got, want = torch.func.hessian(square(g))(x), torch.func.hessian(square(reference))(x)
        torch.testing.assert_close(got, want, **TIGHT)
        reverse = torch.func.jacrev(torch.func.jacrev(square(g)))(x)
        torch.testing.assert_close(reverse, want, **TIGHT)
        mixed = torch.func.jacrev(torch.func.jacfwd(square(g)))(x)
        torch.testing.assert_close(mixed, want, **TIGHT)


@pytest.mark.parametrize("kind", ["given", "nested"])
def test_second_derivatives_of_a_batch(kind):
    g, x = FUNCTIONS[kind](), point(5, 3)
    got = torch.func.vmap(torch.func.hessian(g))(x)
    torch.testing.assert_close(got, torch.func.vmap(torch.func.hessian(reference))(x), **TIGHT)


#: Second differences of four sizes, extrapolated: eps^(4/5) of values of 1, over the squares of
#: inputs of 0.1 and above in the worst case, and as much again by truncation.
NEAR = {"rtol": 1e-8, "atol": 1e-8}
SMOOTH = {
    "sin": (lambda x: np.sin(A @ x), lambda x: torch.sin(torch.as_tensor(A) @ x)),
    "exp": (lambda x: np.exp(A @ x), lambda x: torch.exp(torch.as_tensor(A) @ x)),
    "square": (lambda x: (A @ x) ** 2, lambda x: (torch.as_tensor(A) @ x) ** 2),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("error::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("name", SMOOTH)
def test_second_derivatives_of_what_is_estimated(name):
    """By values alone, whatever the order of the modes. gradgradcheck's tolerance is 1e-5: over its
    own steps of 1e-6 that asks for gradients known to 2e-11, which estimates at steps of 1e-5 are
    not (3e-11: 10 of 60 seeds of torch's failed for the sine); over 1e-4 they are, and truncation
    is 1e-8."""
    fun, reference = SMOOTH[name]
    g, x, u = adapter.gradiator(fun), point(3), point(3, seed=1)
    assert torch.autograd.gradgradcheck(
        g, x.clone().requires_grad_(), eps=1e-4, check_fwd_over_rev=True
    )

    def total(h):
        return lambda z: h(z).pow(2).sum()

    jacfwd, jacrev = torch.func.jacfwd, torch.func.jacrev
    want = torch.func.hessian(total(reference))(x)
    for outer in (jacfwd, jacrev):
        for inner in (jacfwd, jacrev):
            torch.testing.assert_close(outer(inner(total(g)))(x), want, **NEAR)
            wanted = outer(inner(reference))(x)
            torch.testing.assert_close(outer(inner(g))(x), wanted, **NEAR)
    functional = torch.autograd.functional
    for product in (functional.hvp, functional.vhp):
        got, right = (product(total(h), x, u)[1] for h in (g, reference))
        torch.testing.assert_close(got, right, **NEAR)
    many = point(2, 3)
    got = torch.func.vmap(torch.func.hessian(g))(many)
    torch.testing.assert_close(got, torch.func.vmap(torch.func.hessian(reference))(many), **NEAR)


def test_second_derivatives_move_only_what_matters():
    runs = []

    def weighted(w, data):
        runs.append(None)
        return np.sin(w @ data)

    w, data = point(3).requires_grad_(), point(3, 40)
    y = adapter.gradiator(weighted)(w, data)
    (first,) = torch.autograd.grad(y.sum(), w, create_graph=True)
    before = len(runs)
    (second,) = torch.autograd.grad(first.sum(), w)
    # all those of three inputs, and steps that are sought; of all 123 inputs 2000
    assert len(runs) - before <= 2 * (4 * 3 * 4 + 7)
    want = -(data * (torch.sin(w.detach() @ data) * data.sum(0))).sum(1)
    torch.testing.assert_close(second, want, rtol=1e-7, atol=1e-7)  # 40 outputs


def test_third_derivatives_are_an_error():
    x = point(3).requires_grad_()
    g = FUNCTIONS["nested"]()
    (first,) = torch.autograd.grad(g(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(second.sum(), x)


def test_forward_and_backward_share_their_evaluations():
    calls = []

    def counted(x):
        calls.append(x.copy())
        return f(x)

    g = adapter.gradiator(counted, method="2-point")
    x = point(3).requires_grad_()
    y = g(x)
    assert len(calls) == 1
    y.sum().backward()
    assert len(calls) == g.function.nfev == 1 + 3


def test_only_inputs_that_need_a_gradient_cost_evaluations():
    g = adapter.gradiator(lambda a, name, b: a[0] * b, method="2-point")
    a, b = point(5), point(2, seed=1).requires_grad_()
    g(a, "name", b).sum().backward()
    assert g.function.nfev == 1 + 2
    torch.testing.assert_close(b.grad, a[0].expand(2), rtol=1e-6, atol=1e-6)  # sqrt(eps)
    with torch.no_grad():
        g(a, "name", b)
    assert g.function.nfev == 4


def test_several_inputs_and_outputs():
    def two(a, b):
        return a * b.sum(), np.outer(a, b)

    def same(a, b):
        return a * b.sum(), torch.outer(a, b)

    a, b = point(2).requires_grad_(), point(3, seed=1).requires_grad_()
    g = adapter.gradiator(two, method="cs")
    assert torch.autograd.gradcheck(g, (a, b), check_forward_ad=True)
    for got, want in zip(
        torch.func.jacrev(g, argnums=(0, 1))(a, b)[1],
        torch.func.jacrev(same, argnums=(0, 1))(a, b)[1],
        strict=True,
    ):
        torch.testing.assert_close(got, want, **TIGHT)


def test_dtypes_are_kept():
    seen = []

    def fun(x):
        seen.append(x.dtype)
        return np.sin(A @ x)

    for dtype, inside in (
        (torch.float64, np.float64),
        (torch.float32, np.float32),
        (torch.bfloat16, np.float32),
    ):
        x = point(3).to(dtype).requires_grad_()
        y = adapter.gradiator(fun, f_vjp)(x)
        y.sum().backward()
        assert y.dtype == x.grad.dtype == dtype
        assert seen[-1] == inside
    x = point(3, dtype=torch.float32).requires_grad_()
    adapter.gradiator(fun, method="3-point")(x).sum().backward()
    want = torch.tensor(f_vjp(x.detach().double().numpy(), np.ones(4)))
    # Steps for single precision: eps32^(2/3) = 2.4e-5 times a few.
    torch.testing.assert_close(x.grad.double(), want, rtol=1e-3, atol=1e-3)


def test_cpu_tensors_arrive_without_a_copy():
    seen = []

    def fun(x):
        seen.append(x.ctypes.data)
        return x.sum(keepdims=True)

    x = point(1000)
    adapter.gradiator(fun)(x)
    assert seen == [x.data_ptr()]


def test_outputs_are_tensors_of_their_own():
    """fun may return its input or reuse a buffer; the caller may change y in place."""
    buffer = np.zeros(3)

    def fun(x):
        buffer[:] = x
        return buffer

    g = adapter.gradiator(fun, lambda x, v: v)
    x = point(3).requires_grad_()
    y = g(x)
    kept = y.detach().clone()
    g(2 * x)
    torch.testing.assert_close(y, kept)
    y2 = adapter.gradiator(lambda x: x, lambda x, v: v)(x)
    y2.add_(1)
    y2.sum().backward()
    assert torch.equal(x.grad, torch.ones(3, dtype=torch.float64))


def test_inputs_changed_before_the_backward_pass_are_an_error():
    x = point(3).requires_grad_()
    z = x * 1
    y = adapter.gradiator(f, f_vjp)(z)
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_batch_is_one_call():
    calls = []

    def rows(x):
        calls.append(x.shape)
        return np.sin(x @ A.T)

    x = point(6, 3).requires_grad_()
    g = adapter.gradiator(rows, method="2-point", batch_dims=1)
    g(x).sum().backward()
    assert calls == [(6, 3)] * 4
    want = torch.cos(x @ AT.T) @ AT
    torch.testing.assert_close(x.grad, want, rtol=1e-5, atol=1e-5)  # steps sqrt(eps) |x|


def test_vmap_moves_all_points_at_once():
    """b points, m inputs: (m + 1) b runs of fun, counted as m + 1 evaluations of the batch."""
    runs = []

    def counted(x):
        runs.append(1)
        return f(x)

    g = adapter.gradiator(counted, method="2-point")
    x = point(6, 3).requires_grad_()
    torch.func.vmap(g)(x).sum().backward()
    assert len(runs) == 6 * 4
    assert g.function.nfev == 4


def test_modules_train():
    """Step by step as with torch's own derivatives: whether a loss halves is up to the weights."""
    x, target, losses = point(2), reference(point(3, seed=1)), {}
    for name, simulator in (("ours", adapter.Module(f, f_vjp)), ("torch", reference)):
        torch.manual_seed(0)
        first = torch.nn.Linear(2, 3, dtype=torch.float64)
        optimizer = torch.optim.SGD(first.parameters(), lr=0.01)
        losses[name] = []
        for _ in range(50):
            optimizer.zero_grad()
            loss = (simulator(first(x)) - target).pow(2).sum()
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    # Roundings of 50 short steps, each of which moves little more than the one before.
    np.testing.assert_allclose(losses["ours"], losses["torch"], rtol=1e-9)
    assert losses["ours"][-1] < losses["ours"][0]
    net = torch.nn.Sequential(first, adapter.Module(f, f_vjp))
    assert len(list(net.parameters())) == 2
    torch.testing.assert_close(net(x), reference(first(x)))


def test_compile_goes_around_it():
    g = adapter.gradiator(f, f_vjp)

    @torch.compile(backend="eager")
    def model(x):
        return (g(2 * x) ** 2).sum()

    x = point(3).requires_grad_()
    model(x).backward()
    y = x.detach().clone().requires_grad_()
    (reference(2 * y) ** 2).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, **TIGHT)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_tensors_go_over_and_come_back():
    g = adapter.gradiator(f, method="3-point")
    x = point(3).cuda().requires_grad_()
    y = g(x)
    y.sum().backward()
    assert y.device == x.device == x.grad.device
    torch.testing.assert_close(y.cpu(), reference(x.detach().cpu()), **TIGHT)
    want = torch.func.jacrev(reference)(x.detach().cpu()).sum(0)
    torch.testing.assert_close(x.grad.cpu(), want, rtol=1e-8, atol=1e-8)  # eps^(2/3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: adapter.gradiator(f)(torch.tensor([1, 2, 3])), "no input is a floating-point"),
        (lambda: adapter.gradiator(f, argnums=0)("x"), "input 0 must be .* got str"),
        (lambda: adapter.gradiator(f, argnums=1)(point(3)), "input 1 must be .* got nothing"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_a_gradient_of_the_wrong_shape_names_both_shapes():
    g = adapter.gradiator(f, lambda x, v: v)
    y = g(point(3).requires_grad_())
    with pytest.raises(ValueError, match=r"shape \(4,\), expected \(3,\)"):
        y.sum().backward()


@pytest.mark.parametrize("out, message", [(None, "does fun return its result"), ("1", "numbers")])
def test_outputs_that_are_no_numbers_are_told(out, message):
    """None used to become nan, a text its number."""
    with pytest.raises(TypeError, match=message):
        adapter.gradiator(lambda x: out)(torch.ones(2, requires_grad=True))


def test_masked_outputs_are_nan():
    x = torch.tensor([1.0, 2.0])
    y = adapter.gradiator(lambda x: np.ma.masked_array(x, [True, False]))(x)
    np.testing.assert_array_equal(y.numpy(), [np.nan, 2.0])


def test_samples_of_earlier_steps_serve_the_next():
    """``reuse``, as in the core: after the first point one run a step, that of the value."""
    g = adapter.gradiator(lambda x: np.array([x[0] * x[1], np.sin(x[1])]), reuse=True)
    for k in range(4):
        at = torch.tensor([1 + k / 100, 2.0], dtype=torch.float64, requires_grad=True)
        before = g.function.nfev
        g(at).sum().backward()
        want = [2.0, 1 + k / 100 + np.cos(2.0)]
        np.testing.assert_allclose(at.grad, want, atol=0.05 * np.hypot(*want))  # its tolerance
        assert k == 0 or g.function.nfev == before + 1
