"""Chains: every order gives the same products, waists are used, errors go through."""

from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.linalg import aslinearoperator

from gradiator_np._chain.chain import Chain
from gradiator_np._chain.stages import StageCosts
from gradiator_np._differentiable.function import gradiator

# Products of up to six matrices with entries around 1 / sqrt(size), in float64.
RTOL = 1e-12


def tanh_stage(a):
    """tanh(A x) with exact products."""
    return gradiator(
        lambda x: np.tanh(a @ x),
        lambda x, v: a.T @ ((1 - np.tanh(a @ x) ** 2) * v),
        jvp_fun=lambda x, u: (1 - np.tanh(a @ x) ** 2) * (a @ u),
    )


def adjoint_only(a):
    return gradiator(lambda x: np.sin(a @ x), lambda x, v: a.T @ (np.cos(a @ x) * v), method="cs")


def jacobian_only(a):
    return gradiator(lambda x: np.cos(a @ x), jac_fun=lambda x: -np.sin(a @ x)[:, None] * a)


def pair(a):
    return (lambda v: a.T @ v, lambda u: a @ u)


def operator(a):
    return aslinearoperator(a)


KINDS = [np.asarray, csr_array, operator, pair, tanh_stage, jacobian_only]


def derivative(stage, x):
    """Value and Jacobian of a stage by its kind: the slow twin."""
    kind, a = stage
    if kind is tanh_stage:
        return np.tanh(a @ x), (1 - np.tanh(a @ x) ** 2)[:, None] * a
    if kind is jacobian_only:
        return np.cos(a @ x), -np.sin(a @ x)[:, None] * a
    return a @ x, a


def random_stages(rng, q, kinds=KINDS):
    sizes = rng.integers(1, 9, q + 1)
    return [
        (kinds[rng.integers(len(kinds))], rng.normal(size=(o, i)) / i**0.5)
        for i, o in pairwise(sizes)
    ], sizes


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), q=st.integers(1, 6))
def test_products_equal_those_of_plain_multiplication(seed, q):
    rng = np.random.default_rng(seed)
    stages, sizes = random_stages(rng, q)
    # Costs at random: every order is taken some time.
    costs = [StageCosts(*rng.uniform(0, 1e-7, 4)) for _ in stages]
    chain = Chain(*(kind(a) for kind, a in stages), costs=costs)
    x, u, v = (rng.normal(size=s) for s in (sizes[0], sizes[0], sizes[-1]))
    want, value = np.eye(sizes[0]), x
    for stage in stages:
        value, jac = derivative(stage, value)
        want = jac @ want
    np.testing.assert_allclose(chain(x), value, rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(chain.jacobian(x), want, rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(chain.jvp(x, u), want @ u, rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(chain.vjp(x, v), v @ want, rtol=RTOL, atol=RTOL)
    several = rng.normal(size=(3, sizes[-1]))
    np.testing.assert_allclose(chain.vjp(x, several), several @ want, rtol=RTOL, atol=RTOL)
    several = rng.normal(size=(3, sizes[0]))
    np.testing.assert_allclose(chain.jvp(x, several), several @ want.T, rtol=RTOL, atol=RTOL)
    estimate = chain.estimate(x)
    assert not np.any(estimate.stderr)
    np.testing.assert_allclose(estimate.jac, want, rtol=RTOL, atol=RTOL)


def test_linearize_unpacks_and_keeps():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 3))
    chain = Chain(tanh_stage(a), b)
    x = np.ones(3)
    value, push, pull = chain.linearize(x)
    np.testing.assert_allclose(value, b @ np.tanh(a @ x), rtol=RTOL)
    np.testing.assert_allclose(pull(np.eye(3)), push(np.eye(3)).T, rtol=RTOL, atol=RTOL)


def test_a_chain_in_a_chain_is_one_chain():
    a = np.random.default_rng(0).normal(size=(3, 3))
    chain = Chain(Chain(a, tanh_stage(a)), a)
    assert len(chain.stages) == 3
    x = np.ones(3)
    np.testing.assert_allclose(chain(x), a @ np.tanh(a @ a @ x), rtol=RTOL)


def test_complex_operators_take_no_conjugate():
    """v^T A, where rmatvec is A^H v."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2))
    v = rng.normal(size=3) + 1j * rng.normal(size=3)
    for stage in (a, aslinearoperator(a)):
        np.testing.assert_allclose(Chain(stage).vjp(np.ones(2), v), v @ a, rtol=RTOL)


# -- black boxes ---------------------------------------------------------------------------


def counted(fun):
    calls = [0]

    def f(x):
        calls[0] += 1
        return fun(x)

    return f, calls


@pytest.mark.parametrize("m, w, n", [(20, 2, 30), (7, 1, 5), (5, 5, 5)])
def test_a_narrow_waist_costs_its_width(m, w, n):
    """m + w + 2 evaluations for "2-point"; and the numbers are right to its steps."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(w, m)) / m**0.5, rng.normal(size=(n, w))
    one, calls_one = counted(lambda x: np.tanh(a @ x))
    two, calls_two = counted(lambda z: np.sin(b @ z))
    x, v = rng.normal(size=m), rng.normal(size=n)
    z = np.tanh(a @ x)
    want = (np.cos(b @ z)[:, None] * b) @ ((1 - z**2)[:, None] * a)
    for product in ("jacobian", "vjp"):
        calls_one[0] = calls_two[0] = 0
        chain = Chain(one, two, method="2-point", costs=[StageCosts(1.0), StageCosts(1.0)])
        got = chain.jacobian(x) if product == "jacobian" else chain.vjp(x, v)
        right = want if product == "jacobian" else v @ want
        # Forward differences with steps sqrt(eps) |x|: sums of m + w products are rounded to some
        # eps of 1, over the smallest step
        eps = np.finfo(float).eps
        rounding = 4 * eps / (np.sqrt(eps) * min(np.abs(x).min(), np.abs(z).min()))
        np.testing.assert_allclose(got, right, atol=1e-5 + 10 * rounding)
        assert calls_one[0] + calls_two[0] == chain.nfev <= m + w + 2
    plan = chain.plan(x)
    assert "J2" in str(plan)
    assert np.isinf(plan.reverse)


def test_a_value_asked_for_first_is_shared():
    f, calls = counted(lambda x: np.array([x @ x, x.sum()]))
    chain = Chain(f, method="2-point")
    x = np.arange(1.0, 5.0)
    chain(x)
    chain.jacobian(x)
    assert calls[0] == chain.nfev == 1 + 4


def test_wide_middles_push_tangents():
    """1 -> 50 -> 1: forming the second Jacobian would cost 50 evaluations, a tangent one."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=50), rng.normal(size=50)
    one, two = lambda x: np.sin(a * x), lambda z: np.atleast_1d(b @ z**2)
    chain = Chain(one, two, method="2-point", costs=[StageCosts(1.0), StageCosts(1.0)])
    x = np.array([0.3])
    got = chain.jacobian(x)
    assert chain.nfev == 4
    want = 2 * b * np.sin(a * 0.3) @ (a * np.cos(a * 0.3))
    # Two forward differences at sqrt(eps), second derivatives of order 50.
    np.testing.assert_allclose(got, [[want]], rtol=1e-5)


def test_jitted_stages():
    @numba.njit
    def f(x):
        return np.sin(x) * x.sum()

    x = np.array([0.5, 1.5])
    want = np.diag(np.cos(x)) * x.sum() + np.sin(x)[:, None]
    # Central differences: eps^(2/3) times a few.
    np.testing.assert_allclose(Chain(f, method="3-point").jacobian(x), want, atol=1e-8)


# -- errors ---------------------------------------------------------------------------------


def test_standard_errors_hold_the_errors():
    """400 noisy chains: z = error / stderr has mean square 1. The mean of 400 x 6 squares of
    normal numbers (those of one row share their base) lies within 1 +- 6 sqrt(2 * 3 / 2400)
    in all but one of 1e8 trials."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3)), rng.normal(size=(2, 2))
    sigma, h = 1e-3, 0.1
    one = gradiator(
        lambda x: a @ x + sigma * rng.normal(size=2), method="2-point", abs_step=h, noise=sigma
    )
    two = gradiator(
        lambda z: b @ z + sigma * rng.normal(size=2), method="2-point", abs_step=h, noise=sigma
    )
    x, u, v = np.ones(3), np.array([1.0, -2.0, 0.5]), np.array([0.7, -1.1])
    z = {"jac": [], "jvp": [], "vjp": []}
    for _ in range(400):
        e = Chain(one, two).estimate(x)
        z["jac"].append((e.jac - b @ a) / e.stderr)
        z["jvp"].append((e.jvp(u) - b @ a @ u) / e.jvp_stderr(u))
        z["vjp"].append((e.vjp(v) - v @ b @ a) / e.vjp_stderr(v))
    for name, values in z.items():
        count = np.size(values)
        assert abs(np.mean(np.square(values)) - 1) < 6 * np.sqrt(2 * 3 / count), name


def test_errors_through_known_stages_scale():
    """y = 10 f(x): the errors are ten times those of f."""
    f = gradiator(lambda x: x**2, method="2-point", abs_step=0.1, noise=1e-3)
    x = np.array([1.0, 2.0])
    alone = f.estimate(x).stderr
    np.testing.assert_allclose(Chain(f, 10 * np.eye(2)).estimate(x).stderr, 10 * alone, rtol=RTOL)


def test_unknown_errors_stay_unknown_where_they_matter():
    """No noise level is given for the first output: nan, but not through a weight of 0."""
    f = gradiator(lambda x: x**2, method="2-point")
    e = Chain(f, np.array([[1.0, 0.0], [0.0, 0.0]])).estimate(np.array([1.0, 2.0]))
    assert np.isnan(e.stderr[0]).any()
    assert not e.stderr[1].any()


# -- the matrix example ------------------------------------------------------------------------


def inverse_vjp(x, v):
    y = np.linalg.inv(x)
    return -y.T @ v @ y.T


def inverse_jvp(x, u):
    y = np.linalg.inv(x)
    return -y @ u @ y


def norm_vjp(y, v):
    return v * y / np.linalg.norm(y)


def norm_jvp(y, u):
    return np.sum(y * u) / np.linalg.norm(y)


def matrix_chain(analytic):
    if analytic:
        return Chain(
            gradiator(np.linalg.inv, inverse_vjp, jvp_fun=inverse_jvp),
            gradiator(np.linalg.norm, norm_vjp, jvp_fun=norm_jvp),
        )
    return Chain(np.linalg.inv, np.linalg.norm, method="3-point")


@pytest.mark.parametrize("analytic", [True, False])
def test_norm_of_the_inverse_from_both_sides(analytic):
    n = 4
    x = np.eye(n) * 3 + np.random.default_rng(0).normal(size=(n, n))
    u = np.random.default_rng(1).normal(size=(n, n))
    y = np.linalg.inv(x)
    z = np.linalg.norm(y)
    gradient = -(1 / z) * y.T @ y @ y.T
    # Central differences: eps^(2/3) = 4e-11 times third derivatives of order 10.
    rtol, atol = (RTOL, RTOL) if analytic else (0, 1e-8)
    chain = matrix_chain(analytic)
    np.testing.assert_allclose(chain(x), z, rtol=RTOL)
    np.testing.assert_allclose(chain.vjp(x, 1.0), gradient, rtol=rtol, atol=atol)
    np.testing.assert_allclose(chain.jvp(x, u), np.sum(gradient * u), rtol=rtol, atol=atol)
    h = 1e-5
    difference = (
        np.linalg.norm(np.linalg.inv(x + h * u)) - np.linalg.norm(np.linalg.inv(x - h * u))
    ) / (2 * h)
    np.testing.assert_allclose(chain.jvp(x, u), difference, rtol=1e-8)  # h^2 and eps / h
    assert chain.jacobian(x).shape == (n, n)
    inverse = Chain(chain.stages[0])
    jac = inverse.jacobian(x)
    assert jac.shape == (n, n, n, n)
    # vec of rows: d(X^-1) = -X^-1 dX X^-1 is -kron(Y, Y^T).
    np.testing.assert_allclose(jac.reshape(n * n, n * n), -np.kron(y, y.T), rtol=rtol, atol=atol)


# -- what is printed, and what is refused ------------------------------------------------------


def test_the_plan_shows_costs_of_all_orders():
    chain = Chain(*(tanh_stage(np.eye(3)) for _ in range(3)), costs=[StageCosts(1, 2, 3)] * 3)
    x = np.ones(3)
    plan = chain.plan(x, "vjp")
    assert plan.bracketing == "(([v] -> J3) -> J2) -> J1"
    assert plan.cost == plan.reverse == 9
    assert chain.plan(x, "jvp").cost == 6
    assert all(f.counts.jvp == f.counts.grad == 0 for f in chain.stages)
    assert "preaccumulation" in repr(plan)
    chain(x)
    assert repr(chain.plan()) == repr(chain.plan(x))


def test_costs_are_measured_where_they_are_not_given():
    import time

    def slow(x):
        time.sleep(0.01)
        return x

    chain = Chain(gradiator(slow, lambda x, v: v), np.eye(2))
    plan = chain.plan(np.ones(2), "vjp")
    assert plan.cost >= 0.04  # four evaluations, until the adjoint has run
    chain.vjp(np.ones(2), np.ones(2))
    assert chain.plan(np.ones(2), "vjp").cost < 0.04


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Chain(), ValueError, "at least one stage"),
        (lambda: Chain(3.0), TypeError, "a stage is"),
        (lambda: Chain([np.sin]), TypeError, "got list"),
        (lambda: Chain(np.sin, costs=[]), ValueError, "0 entries for 1 stages"),
        (lambda: Chain(np.eye(3))(np.ones(2)), ValueError, r"shape \(3, 3\), but it receives 2"),
        (lambda: Chain(np.eye(3)).vjp(np.ones(3), np.ones(2)), ValueError, r"v has shape \(2,\)"),
        (lambda: Chain(np.eye(3)).plan(), ValueError, "give x, or call the chain"),
        (lambda: Chain(np.eye(3)).plan(np.ones(3), "hvp"), ValueError, "product='hvp'"),
    ],
)
def test_bad_input_says_what_to_do(make, error, message):
    with pytest.raises(error, match=message):
        make()
