"""What training needs of the PyTorch adapter: structures, batches, layers, graphs kept alive."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra 'torch')")

from gradiator_np.adapters.torch import Module, gradiator  # noqa: E402

TIGHT = {"rtol": 1e-12, "atol": 1e-12}  # a few dozen roundings of numbers below 10


def point(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


class Counted:
    """A function that counts its runs."""

    def __init__(self, fun):
        self.fun, self.runs = fun, 0

    def __call__(self, *inputs, **named):
        self.runs += 1
        return self.fun(*inputs, **named)

    def during(self, act):
        """Runs while ``act`` acts."""
        before = self.runs
        act()
        return self.runs - before


# -- what a backward pass costs ------------------------------------------------------------------


def test_a_second_pass_through_a_retained_graph_runs_nothing():
    fun = Counted(lambda x: np.sin(x) * x.sum())
    x = point(3).requires_grad_()
    y = gradiator(fun, method="3-point")(x)
    first = fun.during(lambda: y.sum().backward(retain_graph=True))
    assert first == 6
    right = x.grad.clone()
    x.grad = None
    assert fun.during(lambda: y.sum().backward(retain_graph=True)) == 0
    assert torch.equal(x.grad, right)
    x.grad = None  # another cotangent: the Jacobian is kept
    assert fun.during(lambda: y.backward(torch.tensor([1.0, -2.0, 0.5]), retain_graph=True)) == 0
    want = torch.func.vjp(lambda z: torch.sin(z) * z.sum(), x.detach())[1](
        torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    )[0]
    torch.testing.assert_close(x.grad, want, rtol=1e-8, atol=1e-8)  # eps^(2/3)


def test_a_jacobian_too_large_to_keep_leaves_its_last_product():
    fun = Counted(lambda x: x.sum() * np.ones(40000))
    x = point(2).requires_grad_()
    y = gradiator(fun, method="2-point")(x)
    v = torch.ones(40000, dtype=torch.float64)
    assert fun.during(lambda: y.backward(v, retain_graph=True)) == 2
    right = x.grad.clone()
    x.grad = None
    assert fun.during(lambda: y.backward(v, retain_graph=True)) == 0
    assert torch.equal(x.grad, right)
    assert fun.during(lambda: y.backward(2 * v)) == 2  # J was not kept


def test_only_what_a_backward_pass_goes_on_to_is_computed():
    fun = Counted(lambda a, b: a * b.sum())
    a, b = point(5).requires_grad_(), point(2, seed=1).requires_grad_()
    g = gradiator(fun, method="2-point")
    y = g(a, b)
    assert fun.during(lambda: torch.autograd.grad(y.sum(), b, retain_graph=True)) == 2
    assert fun.during(lambda: torch.autograd.grad(y.sum(), a)) == 5
    y = g(a.exp(), b.exp())  # further up in the graph as well
    (got,) = torch.autograd.grad(y.sum(), b, retain_graph=True)
    torch.testing.assert_close(got, a.exp().sum() * b.exp(), rtol=1e-6, atol=1e-6)  # sqrt(eps)
    assert g.function.nfev == 1 + 2 + 5 + 1 + 2


def test_grad_fun_is_told_which_inputs_are_wanted():
    seen = []

    def pullback(x, v, needs_input_grad):
        seen.append(needs_input_grad)
        a, b = x
        need_a, need_b = needs_input_grad
        return v * b if need_a else None, (v * a) if need_b else None

    g = gradiator(lambda a, b: a * b, pullback)
    a, b = point(3).requires_grad_(), point(3, seed=1).requires_grad_()
    (got,) = torch.autograd.grad(g(a, b).sum(), b)
    assert torch.equal(got, a.detach())
    g(a, b.detach()).sum().backward()
    assert torch.equal(a.grad, b.detach())
    assert seen == [(False, True), (True, False)]
    with torch.no_grad():
        g(a, b)
    assert len(seen) == 2
    many = torch.func.vmap(torch.func.grad(lambda p, q: g(p, q).sum(), argnums=1))
    torch.testing.assert_close(many(a[:, None], b[:, None]), a[:, None].detach())


def test_none_for_an_input_that_is_wanted_is_an_error():
    g = gradiator(lambda a, b: a * b, lambda x, v, needs_input_grad: (None, v * x[0]))
    with pytest.raises(ValueError, match="grad_fun returned shape"):
        g(point(3).requires_grad_(), point(3)).sum().backward()


# -- structures ----------------------------------------------------------------------------------


def simulate(state, *, gain, mode="plain"):
    y = state["x"] * state["nested"][0].sum() * gain
    return {"y": y if mode == "plain" else -y, "total": (y.sum(), y**2)}


def test_dicts_tuples_and_keywords():
    x, w = point(3).requires_grad_(), point(2, seed=1).requires_grad_()
    gain = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    state = {"x": x, "nested": [w, 3]}
    g = gradiator(simulate, method="cs")
    for mode in ("plain", "minus"):
        got, want = g(state, gain=gain, mode=mode), simulate(state, gain=gain, mode=mode)
        torch.testing.assert_close(got, want, **TIGHT)

        def loss(out):
            return out["y"].sum() + out["total"][0] ** 2 + out["total"][1].sum()

        right = torch.autograd.grad(loss(want), (x, w, gain))
        torch.testing.assert_close(torch.autograd.grad(loss(got), (x, w, gain)), right, **TIGHT)
    assert torch.autograd.gradcheck(
        lambda a, b, c: g({"x": a, "nested": [b, 3]}, gain=c)["total"],
        (x, w, gain),
        check_forward_ad=True,
    )


def test_a_derivative_that_is_given_keeps_the_structure():
    def pullback(state, v, *, power):
        x, shift = state["x"], state["shift"]
        g = v["y"] * power * (x + shift) ** (power - 1)
        return {"x": g, "shift": g.sum()}

    g = gradiator(lambda state, *, power: {"y": (state["x"] + state["shift"]) ** power}, pullback)
    x, shift = point(3).requires_grad_(), point(seed=1).requires_grad_()
    out = g({"x": x, "shift": shift}, power=3)["y"]
    got = torch.autograd.grad(out.sum(), (x, shift))
    want = torch.autograd.grad(((x + shift) ** 3).sum(), (x, shift))
    torch.testing.assert_close(got, want, **TIGHT)


def test_options_in_the_structure_of_a_dict():
    seen = []

    def fun(state):
        seen.append((state["a"].copy(), state["b"].copy()))
        return state["a"].sum() * state["b"]

    bounds = ({"a": 0.0, "b": [0.0, -1.0]}, {"a": 1.0, "b": [2.0, 0.0]})
    g = gradiator(fun, method="3-point", bounds=bounds)
    a = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
    g({"a": a, "b": b}).sum().backward()
    torch.testing.assert_close(a.grad, torch.ones(2).double(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(b.grad, torch.ones(2).double(), rtol=1e-8, atol=1e-8)
    for p, q in seen:
        assert (p >= 0).all()
        assert (p <= 1).all()
        assert (q >= [0, -1]).all()
        assert (q <= [2, 0]).all()


def test_structures_that_derivatives_given_do_not_reach_are_an_error():
    x = point(2).requires_grad_()
    g = gradiator(lambda x, *, k: x * k, lambda x, v, *, k: v * k)
    with pytest.raises(TypeError, match="by keyword requires a gradient"):
        g(x, k=point(2, seed=1).requires_grad_())
    g(x, k=torch.tensor(2.0).double()).sum().backward()
    assert torch.equal(x.grad, torch.full((2,), 2.0, dtype=torch.float64))
    with pytest.raises(TypeError, match="grad_fun is not defined for complex tensors"):
        gradiator(lambda z: z, lambda z, v: v)(torch.complex(x, x))
    with pytest.raises(TypeError, match="jac_fun is not defined for inputs in a structure"):
        gradiator(lambda d: d["x"], jac_fun=lambda d: np.eye(2))({"x": x})


@pytest.mark.parametrize("order", [1, -1])
def test_inputs_of_mixed_precision_give_what_they_promote_to(order):
    a = point(3, dtype=torch.float32).requires_grad_()
    b = point(3, seed=1).requires_grad_()
    inputs = (a, b)[::order]
    y = gradiator(lambda p, q: p * q, method="3-point")(*inputs)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, a * b, **TIGHT)
    y.sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(a.grad, b.detach().float(), rtol=1e-3, atol=1e-3)  # eps32^(2/3)
    torch.testing.assert_close(b.grad, a.detach().double(), rtol=1e-3, atol=1e-3)


# -- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["2-point", "3-point", "auto"])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), ([0.0, 0.0], [1.0, 1.0])])
def test_vmap_over_points_at_opposite_bounds(method, bounds):
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    g = gradiator(lambda z: np.exp(z).cumsum(), method=method, bounds=bounds)
    torch.func.vmap(g)(x).sum().backward()
    want = torch.exp(x.detach()) * torch.tensor([2.0, 1.0])
    torch.testing.assert_close(x.grad, want, rtol=1e-6, atol=1e-6)  # sqrt(eps), twice


def test_a_batch_without_batch_dims_is_told_once():
    fun = Counted(np.sin)
    g = gradiator(fun, method="2-point")
    x = point(8, 2).requires_grad_()
    with pytest.warns(UserWarning, match="8 rows of x are independent.*batch_dims=1"):
        g(x).sum().backward()
    assert fun.runs == g.function.nfev == 1 + 1 + 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        g(x).sum().backward()  # once is enough
        gradiator(np.sin, method="2-point", batch_dims=1)(x).sum().backward()
        mixed = gradiator(lambda z: z + z.sum(), method="2-point")  # rows that know of each other
        mixed(x).sum().backward()


TARGET = np.array([[1.0, -0.5, 0.3], [0.2, 0.8, -1.0]])


@pytest.mark.parametrize("size", [1, 32, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", [pytest.param("auto", marks=pytest.mark.slow), "2-point"])
def test_training_goes_as_with_exact_derivatives(size, dtype, method):
    """200 steps of a network before a simulator: loss and gradients as autograd's."""
    x = point(size, 4, seed=1, dtype=dtype)
    wanted = torch.tanh(point(size, 2, seed=2, dtype=dtype))
    weights = torch.tensor(TARGET, dtype=dtype)

    def exact(z):
        return torch.tanh(z @ weights.T) + 0.1 * z[..., :2] ** 2

    def fun(z):
        w = TARGET.astype(z.dtype)
        return np.tanh(z @ w.T) + z.dtype.type(0.1) * z[..., :2] ** 2

    losses, gradients = {}, {}
    for name, simulator in {
        "exact": exact,
        "estimated": gradiator(fun, method=method, batch_dims=1),
    }.items():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to(
            dtype
        )
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(200):
            optimizer.zero_grad()
            with warnings.catch_warnings():
                # single precision is rough at some scale, and that is told
                warnings.filterwarnings("ignore", "two_scales|unresolved|no_signal")
                loss = (simulator(net(x)) - wanted).pow(2).mean()
                loss.backward()
            if step == 0:
                first = loss.item()
                gradients[name] = torch.cat([p.grad.flatten() for p in net.parameters()])
            optimizer.step()
        losses[name] = loss.item()
    assert losses["exact"] < 0.9 * first  # it does train
    # float32: slopes to 2e-3 by "2-point" (see test_differentiable_batch), added over the batch
    near = 5e-3 if dtype == torch.float32 else 1e-6
    size_of = gradients["exact"].abs().max().item()
    torch.testing.assert_close(
        gradients["estimated"], gradients["exact"], rtol=0, atol=near * size_of
    )
    if losses["exact"] > 1e-6:  # of a single point nothing is left in the end
        assert losses["estimated"] == pytest.approx(losses["exact"], rel=1e-3)
    else:
        assert losses["estimated"] < 2e-6


# -- layers --------------------------------------------------------------------------------------


def spring(x, stiffness, shift):
    return stiffness * np.sin(x) + shift


@pytest.mark.parametrize("batch", [0, 1])
def test_parameters_of_a_simulator_learn(batch):
    x = point(5, 2) if batch else point(2)
    values = {"stiffness": torch.tensor(2.0).double(), "shift": point(2, seed=1)}
    if batch:

        def fun(x, stiffness, shift):
            assert len(stiffness) == len(shift) == len(x)
            return spring(x, stiffness[..., None], shift)

    else:
        fun = spring
    layer = Module(fun, method="cs", batch_dims=batch, params=values)
    y = layer(x)
    stiffness, shift = layer.params["stiffness"], layer.params["shift"]
    want = stiffness * torch.sin(x) + shift
    torch.testing.assert_close(y, want, **TIGHT)
    got = torch.autograd.grad(y.pow(2).sum(), layer.parameters())
    right = torch.autograd.grad(want.pow(2).sum(), layer.parameters())
    torch.testing.assert_close(got, right, **TIGHT)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = layer(x).pow(2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_parameters_and_a_derivative_that_is_given():
    layer = Module(
        lambda x, k: np.sin(x) * k,
        lambda inputs, v: (np.cos(inputs[0]) * inputs[1] * v, np.sum(np.sin(inputs[0]) * v)),
        params={"k": torch.tensor(2.0).double()},
    )
    x = point(3).requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(layer.params["k"].grad, torch.sin(x.detach()).sum(), **TIGHT)
    torch.testing.assert_close(x.grad, 2 * torch.cos(x.detach()), **TIGHT)
    with pytest.raises(TypeError, match="argnums leaves out the params"):
        Module(spring, argnums=0, params={"stiffness": 1.0})


def noisy_layer():
    rng = np.random.default_rng(0)
    return Module(
        lambda x, k: np.sin(x) * k + 1e-3 * rng.standard_normal(x.shape), params={"k": 2.0}
    )


def test_a_state_dict_holds_what_was_learned():
    def cost(layer):
        function = layer.function.function
        before = function.nfev
        layer(point(3)).sum().backward()
        return function.nfev - before

    first = noisy_layer()
    fresh, later = cost(first), cost(first)
    assert later < fresh
    with torch.no_grad():
        first.params["k"].fill_(3.0)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = noisy_layer()
    second.load_state_dict(torch.load(file))  # weights_only: plain values alone
    assert second.params["k"].item() == 3.0
    assert cost(second) <= later + 1
    third = noisy_layer()
    cost(third)
    third.load_state_dict(first.state_dict())  # into one that has run
    assert cost(third) <= later + 1


def test_a_copy_of_a_layer_is_one_of_its_own():
    layer = Module(spring, method="3-point", params={"stiffness": 1.0, "shift": 0.0})
    x = point(3).requires_grad_()
    layer(x).sum().backward()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        before = layer.function.function.nfev
        with torch.no_grad():
            other.params["stiffness"].fill_(2.0)
        torch.testing.assert_close(other(x), 2 * torch.sin(x))
        compiled = torch.compile(other, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), 2 * torch.sin(x))
        assert layer.function.function.nfev == before
        assert layer.params["stiffness"].item() == 1.0


def test_what_is_printed_says_something():
    layer = Module(spring, method="3-point", params={"stiffness": 1.0, "shift": 0.0})
    text = repr(torch.nn.Sequential(layer))
    for part in ("spring", "3-point", "stiffness", "evaluations"):
        assert part in text
