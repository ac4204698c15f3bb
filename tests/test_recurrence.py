"""Time stepping: products against complex step, counts against revolve, memory against N."""

import tracemalloc

import numpy as np
import pytest

from gradiator_np._differentiable.function import exact_nested_vjp, gradiator
from gradiator_np._recurrence.recurrence import Recurrence
from gradiator_np._recurrence.revolve import forward_steps

N, STATES, PARAMETERS = 12, 4, 3
# Complex step has no subtraction: errors are those of rounding alone, a few dozen products of
# numbers around 1 a step, over N steps.
RTOL = 1e-12


class System:
    """x + 0.1 tanh(A x + B theta + sin i), observed as C sin x, with every derivative by hand."""

    def __init__(self, n=STATES, p=PARAMETERS, seed=0):
        rng = np.random.default_rng(seed)
        self.A, self.B = rng.normal(size=(n, n)) / n**0.5, rng.normal(size=(n, p))
        self.C = rng.normal(size=(2, n))
        self.data = rng.normal(size=(N + 1, 2))
        self.x0, self.theta = rng.normal(size=n), rng.normal(size=p)
        self.u, self.w = rng.normal(size=n), rng.normal(size=p)
        self.f = rng.normal(size=p)

    def h(self, x, theta, i):
        return x + 0.1 * np.tanh(self.A @ x + self.B @ theta + np.sin(i))

    def h_vjp(self, args, g):
        x, theta, i = args
        s = 0.1 * (1 - np.tanh(self.A @ x + self.B @ theta + np.sin(i)) ** 2) * g
        return g + self.A.T @ s, self.B.T @ s

    def h_jvp(self, args, tangents):
        (x, theta, i), (u, w) = args, tangents
        s = 0.1 * (1 - np.tanh(self.A @ x + self.B @ theta + np.sin(i)) ** 2)
        return u + s * (self.A @ u + self.B @ w)

    def h_nested(self, args, w):
        point, g = args
        x, theta, i = point
        t = np.tanh(self.A @ x + self.B @ theta + np.sin(i))
        s = -0.2 * t * (1 - t**2) * (self.A @ w[0] + self.B @ w[1]) * g
        return (self.A.T @ s, self.B.T @ s), self.h_jvp(point, w)

    def p(self, x, i):
        return self.C @ np.sin(x)

    def p_vjp(self, args, g):
        return np.cos(args[0]) * (self.C.T @ g)

    def p_jvp(self, args, u):
        return self.C @ (np.cos(args[0]) * u)

    def p_nested(self, args, w):
        (x, i), g = args
        return -np.sin(x) * w * (self.C.T @ g), self.p_jvp((x, i), w)

    def loss(self, p, i):
        return 0.25 * np.sum((p - self.data[i]) ** 4)

    def loss_vjp(self, args, v):
        p, i = args
        return v * (p - self.data[i]) ** 3

    def loss_nested(self, args, w):
        (p, i), v = args
        return 3 * v * (p - self.data[i]) ** 2 * w, np.sum((p - self.data[i]) ** 3 * w)

    def step(self):
        return gradiator(
            self.h, gradiator(self.h_vjp, self.h_nested), jvp_fun=self.h_jvp, argnums=(0, 1)
        )

    def observe(self):
        return gradiator(self.p, gradiator(self.p_vjp, self.p_nested), jvp_fun=self.p_jvp)

    def losses(self):
        return gradiator(self.loss, gradiator(self.loss_vjp, self.loss_nested))

    def recurrence(self, *, observed=True, n_steps=N, **options):
        parts = {"observe": self.observe(), "loss": self.losses()} if observed else {}
        return Recurrence(self.step(), n_steps, **parts, **options)


@pytest.fixture
def system():
    return System()


def plain_run(s, x, theta, n_steps=N):
    out = [s.p(x, 0)]
    for i in range(n_steps):
        x = s.h(x, theta, i)
        out.append(s.p(x, i + 1))
    return np.stack(out), x


def complex_step(f, x):
    """Gradient or Jacobian (last axis) of an analytic f; the step squared is lost to rounding."""
    flat = x.ravel()
    columns = []
    for j in range(flat.size):
        z = flat.astype(complex)
        z[j] += 1e-20j
        columns.append(np.imag(f(z.reshape(x.shape))) / 1e-20)
    return np.stack(columns, axis=-1)


def test_run_is_the_plain_loop(system):
    observations, final = plain_run(system, system.x0, system.theta)
    r = system.recurrence()
    assert np.array_equal(r.run(system.x0, system.theta), observations)
    assert r.counts.forward == r.nfev == N
    assert np.array_equal(system.recurrence(observed=False)(system.x0, system.theta), final)
    total = sum(system.loss(p, i) for i, p in enumerate(observations))
    np.testing.assert_allclose(r.value(system.x0, system.theta), total, rtol=1e-14)  # a sum of N


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize("checkpoints", [None, 1, 3])
def test_products_against_complex_step(system, observed, checkpoints):
    s, pick = system, 0 if observed else 1
    jx = complex_step(lambda x: plain_run(s, x, s.theta)[pick], s.x0)
    jt = complex_step(lambda t: plain_run(s, s.x0, t)[pick], s.theta)
    r = s.recurrence(observed=observed, checkpoints=checkpoints)
    np.testing.assert_allclose(r.jvp(s.x0, s.theta, s.u, s.w), jx @ s.u + jt @ s.w, rtol=RTOL)
    np.testing.assert_allclose(r.jvp(s.x0, s.theta, w=s.w), jt @ s.w, rtol=RTOL, atol=RTOL)
    v = np.random.default_rng(1).normal(size=jx.shape[:-1])
    g_x, g_theta = r.vjp(s.x0, s.theta, v)
    np.testing.assert_allclose(g_x, np.tensordot(v, jx, v.ndim), rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(g_theta, np.tensordot(v, jt, v.ndim), rtol=RTOL, atol=RTOL)


@pytest.mark.parametrize("n_steps", [0, 1, 2])
def test_few_steps(system, n_steps):
    s = system
    r = s.recurrence(n_steps=n_steps)
    jx = complex_step(lambda x: plain_run(s, x, s.theta, n_steps)[0], s.x0)
    v = np.ones((n_steps + 1, 2))
    np.testing.assert_allclose(
        r.vjp(s.x0, s.theta, v)[0], np.tensordot(v, jx, 2), rtol=RTOL, atol=RTOL
    )
    hx, _ = r.hvp(s.x0, s.theta, s.u, s.w)
    assert hx.shape == s.x0.shape


def total_loss(s, x, theta):
    return sum(s.loss(p, i) for i, p in enumerate(plain_run(s, x, theta)[0]))


def test_gradient_of_the_losses(system):
    s = system
    r = s.recurrence(checkpoints=3)
    value, (g_x, g_theta) = r.value_and_gradient(s.x0, s.theta)
    np.testing.assert_allclose(value, total_loss(s, s.x0, s.theta), rtol=1e-14)  # a sum of N
    want_x = complex_step(lambda x: total_loss(s, x, s.theta), s.x0)
    want_theta = complex_step(lambda t: total_loss(s, s.x0, t), s.theta)
    np.testing.assert_allclose(g_x, want_x, rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(g_theta, want_theta, rtol=RTOL, atol=RTOL)
    again = r.gradient(s.x0, s.theta)
    assert np.array_equal(again[0], g_x)
    assert np.array_equal(again[1], g_theta)


@pytest.mark.parametrize(
    "n_steps, checkpoints", [(10, 3), (100, 5), (100, 10), (1000, 10), (7, None)]
)
def test_counts_are_those_of_revolve(n_steps, checkpoints):
    s = System()
    r = s.recurrence(observed=False, n_steps=n_steps, checkpoints=checkpoints)
    r.vjp(s.x0, s.theta, s.u)
    assert r.counts.forward == r.nfev == forward_steps(n_steps, checkpoints or n_steps)
    assert r.counts.pullback == r.step.counts.grad == n_steps
    r.jvp(s.x0, s.theta, s.u, s.w)
    assert r.counts.pushforward == r.step.counts.jvp == n_steps


def test_a_loss_costs_one_step_more(system):
    """The loss of the final state is the only value that no pullback needs."""
    r = system.recurrence(checkpoints=3)
    r.gradient(system.x0, system.theta)
    assert r.counts.forward == forward_steps(N, 3) + 1


def test_memory_is_flat_in_the_number_of_steps():
    """Ten times the steps add no states: one more of them (8 kB) would show."""
    n = 1000
    step = gradiator(
        lambda x, theta, i: 0.9 * x + theta,
        lambda args, g: (0.9 * g, np.array(g.sum())),
        argnums=(0, 1),
    )

    def peak(n_steps):
        r = Recurrence(step, n_steps, checkpoints=5)
        tracemalloc.start()
        r.vjp(np.zeros(n), np.zeros(()), np.ones(n))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(5)
    assert peak(400) < peak(40) + 8 * n


def test_steps_that_work_in_place_do_not_reach_what_is_kept():
    def h(x, theta, i):
        x *= theta
        return x

    def h_vjp(args, g):
        x, theta, _ = args
        return theta * g, np.array(x @ g)

    r = Recurrence(gradiator(h, h_vjp, argnums=(0, 1)), 9, checkpoints=3)
    x0, g = np.array([1.0, 2.0]), np.array([3.0, -1.0])
    g_x, g_theta = r.vjp(x0.copy(), np.array(1.1), g)
    np.testing.assert_allclose(g_x, 1.1**9 * g, rtol=1e-14)  # nine products
    np.testing.assert_allclose(g_theta, 9 * 1.1**8 * (x0 @ g), rtol=1e-14)


def beta_of(s):
    """beta_i(phi) = sin(D phi + i) with D (2, 5), and its VJP."""
    d = np.random.default_rng(5).normal(size=(2, 5))
    return gradiator(
        lambda phi, i: np.sin(d @ phi + i),
        lambda args, v: d.T @ (np.cos(d @ args[0] + args[1]) * v),
    ), np.random.default_rng(6).normal(size=5)


def test_adjoint_functional_and_its_gradient_two_ways(system):
    s = system
    beta, phi = beta_of(s)
    r = s.recurrence(checkpoints=3)
    value = r.functional(s.x0, s.theta, beta, phi, s.f)
    # F by its other form: the cotangents meet the tangents of the observations.
    q = r.jvp(s.x0, s.theta, w=s.f)
    other = sum(np.sum(beta.fun(phi, i) * q[i]) for i in range(N + 1))
    np.testing.assert_allclose(value, other, rtol=RTOL)
    want = complex_step(lambda z: r.functional(s.x0, s.theta, beta, z, s.f), phi)
    for by in ("jvp", "nested"):
        got = r.functional_gradient(s.x0, s.theta, beta, phi, s.f, by=by)
        np.testing.assert_allclose(got, want, rtol=RTOL, atol=RTOL)


def test_adjoint_gradient_products_do_not_grow_with_the_state():
    for n in (3, 30):
        s = System(n)
        beta, phi = beta_of(s)
        r = s.recurrence()
        r.functional_gradient(s.x0, s.theta, beta, phi, s.f, by="jvp")
        assert (r.counts.forward, r.counts.pushforward, r.counts.pullback) == (N, N, 0)
        assert r.counts.nested == 0
        r.functional_gradient(s.x0, s.theta, beta, phi, s.f, by="nested")
        assert (r.counts.nested, r.counts.pushforward, r.counts.pullback) == (N, N, 0)


def plain_gradient(s, x, theta):
    """The adjoint loop with every state stored; analytic, so that it may take a complex step."""
    states = [x]
    for i in range(N):
        states.append(s.h(states[-1], theta, i))
    own = [s.p_vjp((x, i), s.loss_vjp((s.p(x, i), i), 1.0)) for i, x in enumerate(states)]
    lam, g_theta = own[N], 0
    for i in reversed(range(N)):
        g_x, g = s.h_vjp((states[i], theta, i), lam)
        lam, g_theta = g_x + own[i], g_theta + g
    return np.concatenate([lam, g_theta])


def test_hessian_product_against_complex_step_of_the_gradient(system):
    s = system
    r = s.recurrence(checkpoints=3)
    h = 1e-20
    want = np.imag(plain_gradient(s, s.x0 + 1j * h * s.u, s.theta + 1j * h * s.w)) / h
    got = np.concatenate(r.hvp(s.x0, s.theta, s.u, s.w))
    np.testing.assert_allclose(got, want, rtol=RTOL, atol=RTOL)


def test_a_loss_of_the_state_itself(system):
    """Nothing observed: losses see the state; their Hessian is checked by symmetry above."""
    s = system
    loss = gradiator(
        lambda x, i: 0.25 * np.sum(x**4),
        gradiator(lambda a, v: v * a[0] ** 3, lambda a, w: (3 * a[1] * a[0][0] ** 2 * w, 0.0)),
    )
    r = Recurrence(s.step(), N, loss=loss, checkpoints=3)
    states = [s.x0]
    for i in range(N):
        states.append(s.h(states[-1], s.theta, i))
    np.testing.assert_allclose(
        r.value(s.x0, s.theta), 0.25 * np.sum(np.power(states, 4)), rtol=1e-14
    )  # a sum of N
    h = 1e-5
    ahead = r.gradient(s.x0 + h * s.u, s.theta + h * s.w)
    behind = r.gradient(s.x0 - h * s.u, s.theta - h * s.w)
    for got, a, b in zip(r.hvp(s.x0, s.theta, s.u, s.w), ahead, behind, strict=True):
        # Central differences of exact gradients: h^2 times third derivatives of order 1e2.
        np.testing.assert_allclose(got, (a - b) / (2 * h), rtol=1e-6, atol=1e-6)


def test_the_hessian_is_symmetric(system):
    s = system
    r = s.recurrence()
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, STATES)), rng.normal(size=(2, PARAMETERS))
    one = np.concatenate(r.hvp(s.x0, s.theta, a[0], b[0]))
    other = np.concatenate(r.hvp(s.x0, s.theta, a[1], b[1]))
    np.testing.assert_allclose(
        one @ np.concatenate([a[1], b[1]]), other @ np.concatenate([a[0], b[0]]), rtol=RTOL
    )


def test_the_slot_for_v_of_a_nested_vjp_is_the_jvp(system):
    """v -> v^T J is linear: its transpose is J, and the dot test holds to rounding."""
    s = system
    step = s.step()
    args, g, w = (s.x0, s.theta, 3), s.u, (s.u[::-1], s.w)
    _, slot = exact_nested_vjp(step, args, g, w)
    np.testing.assert_allclose(slot, step.jvp(args, w), rtol=RTOL)
    pulled = step.vjp(args, g)
    np.testing.assert_allclose(
        slot @ g, sum(np.sum(a * b) for a, b in zip(pulled, w, strict=True)), rtol=RTOL
    )


class Counted:
    """A matrix that counts its multiply-adds."""

    def __init__(self, a, total):
        self.a, self.total = a, total

    def __matmul__(self, x):
        self.total[0] += self.a.size
        return self.a @ x

    @property
    def T(self):
        return Counted(self.a.T, self.total)


@pytest.mark.parametrize("context", [True, False])
def test_cost_bounds_of_exact_derivatives(context):
    """Griewank and Walther, ch. 3: a VJP costs at most 4 evaluations; a JVP at most 5/2, where
    what the value computed is shared (the context)."""
    s, total = System(20, 10), [0]
    a, b = Counted(s.A, total), Counted(s.B, total)

    def slope(x, theta):
        return np.tanh(a @ x + b @ theta)

    def h(x, theta, i):
        t = slope(x, theta)
        return (x + 0.1 * t, t) if context else x + 0.1 * t

    def h_vjp(args, g, t=None):
        t = slope(*args[:2]) if t is None else t
        ds = 0.1 * (1 - t**2) * g
        return g + a.T @ ds, b.T @ ds

    def h_jvp(args, tangents, t=None):
        t = slope(*args[:2]) if t is None else t
        return tangents[0] + 0.1 * (1 - t**2) * (a @ tangents[0] + b @ tangents[1])

    step = gradiator(h, h_vjp, jvp_fun=h_jvp, argnums=(0, 1), context=context)
    r = Recurrence(step, N)
    r.run(s.x0, s.theta)
    evaluation, total[0] = total[0], 0
    r.vjp(s.x0, s.theta, s.u)
    assert total[0] <= 4 * evaluation
    total[0] = 0
    r.jvp(s.x0, s.theta, s.u, s.w)
    assert total[0] <= (2.5 if context else 3) * evaluation


def test_estimated_steps(system):
    """A complex step inside: the same numbers as exact derivatives, to rounding."""
    s = system
    exact = s.recurrence(checkpoints=3)
    r = Recurrence(s.h, N, observe=s.p, loss=s.loss, checkpoints=3, method="cs")
    assert np.array_equal(r.run(s.x0, s.theta), exact.run(s.x0, s.theta))
    np.testing.assert_allclose(
        r.jvp(s.x0, s.theta, s.u, s.w), exact.jvp(s.x0, s.theta, s.u, s.w), rtol=RTOL
    )
    v = np.random.default_rng(1).normal(size=(N + 1, 2))
    for method in ("vjp", "gradient"):
        extra = (v,) if method == "vjp" else ()
        got = getattr(r, method)(s.x0, s.theta, *extra)
        want = getattr(exact, method)(s.x0, s.theta, *extra)
        np.testing.assert_allclose(np.concatenate(got), np.concatenate(want), rtol=RTOL)
    beta, phi = beta_of(s)
    np.testing.assert_allclose(
        r.functional_gradient(s.x0, s.theta, beta.fun, phi, s.f),
        exact.functional_gradient(s.x0, s.theta, beta, phi, s.f),
        rtol=RTOL,
    )


def test_estimated_steps_cost_what_is_stated(system):
    """A pullback: n + p + 1 evaluations; a pushforward: 2, the step itself among them."""
    s = system
    r = Recurrence(s.h, N, checkpoints=3, method="2-point")
    r.vjp(s.x0, s.theta, s.u)
    assert r.nfev == forward_steps(N, 3) + N * (STATES + PARAMETERS + 1)
    r = Recurrence(s.h, N, method="2-point")
    r.jvp(s.x0, s.theta, s.u, s.w)
    assert r.nfev == 2 * N


def test_second_order_from_pullbacks_alone(system):
    """No nested VJPs given: the pullbacks are differentiated, here by complex step."""
    s = system
    step = gradiator(s.h, s.h_vjp, argnums=(0, 1))
    observe, loss = gradiator(s.p, s.p_vjp), gradiator(s.loss, s.loss_vjp)
    r = Recurrence(step, N, observe=observe, loss=loss, method="cs")
    got = np.concatenate(r.hvp(s.x0, s.theta, s.u, s.w))
    want = np.concatenate(s.recurrence().hvp(s.x0, s.theta, s.u, s.w))
    np.testing.assert_allclose(got, want, rtol=RTOL, atol=RTOL)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda s: Recurrence(s.h, -1), "n_steps"),
        (lambda s: Recurrence(s.h, 3, checkpoints=0), "the initial state is one"),
        (lambda s: s.recurrence(observed=False).gradient(s.x0, s.theta), "there is no loss"),
        (lambda s: s.recurrence().vjp(s.x0, s.theta, np.ones((3, 2))), r"expected \(13, ...\)"),
        (lambda s: s.recurrence(observed=False).vjp(s.x0, s.theta, 1.0), r"expected \(4,\)"),
        (lambda s: s.recurrence().jvp(s.x0, s.theta, u=[1.0]), "that of x0"),
        (lambda s: Recurrence(lambda x, t, i: x[:2], 3).run(s.x0, s.theta), "step returned shape"),
        (
            lambda s: s.recurrence().functional_gradient(
                s.x0, s.theta, lambda phi, i: phi, s.u, s.f, by="magic"
            ),
            "by='magic'",
        ),
        (
            lambda s: Recurrence(gradiator(s.h, s.h_vjp, argnums=(0, 1)), 3).functional_gradient(
                s.x0, s.theta, gradiator(lambda phi, i: phi, lambda a, v: v), s.u, s.f, by="nested"
            ),
            "nested VJP needs",
        ),
        (
            lambda s: Recurrence(gradiator(s.h, lambda a, g: (g[:2], g), argnums=(0, 1)), 3).vjp(
                s.x0, s.theta, s.u
            ),
            r"grad_fun of the step returned shapes \(2,\)",
        ),
    ],
)
def test_bad_input_says_what_to_do(system, call, message):
    with pytest.raises(ValueError, match=message):
        call(system)


def test_recorded_states_are_pulled_back_through_without_a_run():
    step = gradiator(
        lambda x, theta, i: theta * np.sin(x),
        lambda a, v: (v * a[1] * np.cos(a[0]), v * np.sin(a[0])),
    )
    x0, theta = np.array([0.3, 1.1]), np.array([0.9, 1.2])
    runs = [
        Recurrence(step, 6, observe=lambda x, i: x, loss=lambda p, i: float(p @ p)) for _ in "ab"
    ]
    states = runs[0](x0, theta)
    want = runs[0].value_and_gradient(x0, theta)
    got = runs[1].value_and_gradient(None, theta, states=states)
    # The same products in the same order; losses and observations are estimated alike.
    assert got[0] == want[0]
    for a, b in zip(got[1], want[1]):
        np.testing.assert_array_equal(a, b)
    assert runs[1].counts.forward == runs[1].nfev == 0
    assert runs[1].counts.pullback == 6
    final = Recurrence(step, 6)
    v = np.array([1.0, -2.0])
    for a, b in zip(final.vjp(None, theta, v, states=states), final.vjp(x0, theta, v)):
        np.testing.assert_array_equal(a, b)


def test_recorded_states_that_do_not_fit_are_told():
    recurrence = Recurrence(lambda x, theta, i: x * theta, 3)
    with pytest.raises(ValueError, match=r"expected \(4, ...\)"):
        recurrence.vjp(None, [1.0], [1.0], states=np.ones((3, 1)))
    with pytest.raises(ValueError, match="another state than x0"):
        recurrence.vjp([2.0], [1.0], [1.0], states=np.ones((4, 1)))


def test_recorded_states_that_were_lost_or_are_no_states_are_told():
    decay = Recurrence(lambda x, theta, i: x * theta, 2)
    states = np.array([[2.0, 1.0], [1.0, 0.5], [0.5, 0.25]])
    with pytest.raises(ValueError, match="shape of x0"):
        decay.vjp(states[0], np.full(2, 0.5), np.ones(1), states=states[:, :1])
    states[1, 0] = np.nan
    with pytest.raises(ValueError, match="nan or inf in 1 of 3 states, state 1 first"):
        decay.vjp(states[0], np.full(2, 0.5), np.ones(2), states=states)


def test_steps_may_return_lists_and_must_return_numbers():
    """x + x of a list has two copies of it, of which the next step would take the first."""
    double = Recurrence(lambda x, theta, i: list((x + x)[:2]), 3)
    np.testing.assert_array_equal(double([1.0, 2.0], [0.0]), [8.0, 16.0])
    with pytest.raises(TypeError, match="what step returned must be numbers"):
        Recurrence(lambda x, theta, i: ["a", "b"], 3)([1.0, 2.0], [0.0])
    masked = Recurrence(lambda x, theta, i: np.ma.masked_array(x, [True, False]), 1)
    np.testing.assert_array_equal(masked([1.0, 2.0], [0.0]), [np.nan, 2.0])
