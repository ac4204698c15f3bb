"""The chain planner: optimal against every bracket there is, and never above the plain orders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradiator_np._chain.plan import plan_chain
from gradiator_np.kernels import chain as kernel


def every_order(dims, t, a, own, mul, j, i):
    """Cost of the cheapest order of J_j ... J_i by trying all of them, nothing remembered."""
    if i == j:
        return min(own[j], dims[j] * t[j], dims[j + 1] * a[j])
    costs = []
    for k in range(i, j):
        left = every_order(dims, t, a, own, mul, j, k + 1)
        right = every_order(dims, t, a, own, mul, k, i)
        costs.append(left + right + mul * dims[j + 1] * dims[k + 1] * dims[i])
        costs.append(right + dims[i] * sum(t[k + 1 : j + 1]))
        costs.append(left + dims[j + 1] * sum(a[i : k + 1]))
    return min(costs)


def random_chain(rng, q):
    """Naumann's kind: sizes and costs at random, some factors without adjoint or tangent."""
    dims = rng.integers(1, 30, q + 1)
    t, a = rng.uniform(1, 300, q), rng.uniform(1, 300, q)
    own = np.full(q, np.inf)
    black = rng.random(q) < 0.2
    a[black] = np.inf
    own[black] = (dims[:-1] * t * rng.uniform(0.5, 2, q))[black]
    dense = rng.random(q) < 0.2
    own[dense] = 0
    return dims, t, a, own


def replay(plan, dims, t, a, own, mul):
    """Add up what the instructions cost, following the sizes on the stack."""
    total, stack = 0.0, []
    for name, first, last, how in plan.operations:
        if name == "accumulate":
            total += {
                "given": own[first],
                "tangent": dims[first] * t[first],
                "adjoint": dims[first + 1] * a[first],
            }[how]
            stack.append((dims[first + 1], dims[first]))
        elif name == "product":
            right, left = stack.pop(), stack.pop()
            assert left[1] == right[0]
            total += mul * left[0] * left[1] * right[1]
            stack.append((left[0], right[1]))
        elif name == "tangent":
            rows, columns = stack.pop()
            assert rows == dims[first]
            total += columns * sum(t[first : last + 1])
            stack.append((dims[last + 1], columns))
        else:
            rows, columns = stack.pop()
            assert columns == dims[last + 1]
            total += rows * sum(a[first : last + 1])
            stack.append((rows, dims[first]))
    assert stack == [(dims[-1], dims[0])]
    return total


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), q=st.integers(1, 6))
def test_optimum_equals_brute_force(seed, q):
    """Costs are sums of the same terms in another order: equal to q^2 roundings of each."""
    dims, t, a, own = random_chain(np.random.default_rng(seed), q)
    plan = plan_chain(dims, t, a, own, multiply=1.0)
    best = every_order(dims, t, a, own, 1.0, q - 1, 0)
    np.testing.assert_allclose(plan.cost, best, rtol=1e-13)
    np.testing.assert_allclose(replay(plan, dims, t, a, own, 1.0), best, rtol=1e-13)


def test_optimum_equals_brute_force_at_eight_factors():
    dims, t, a, own = random_chain(np.random.default_rng(8), 8)
    plan = plan_chain(dims, t, a, own, multiply=1.0)
    np.testing.assert_allclose(
        plan.cost, every_order(dims, t, a, own, 1.0, 7, 0), rtol=1e-13
    )  # q^2 roundings


@pytest.mark.parametrize("q", [10, 50, 200])
def test_never_above_the_plain_orders(q):
    for seed in range(5):
        dims, t, a, own = random_chain(np.random.default_rng(seed), q)
        plan = plan_chain(dims, t, a, own, multiply=1.0)
        slack = 1 + 1e-12  # q^2 roundings
        assert plan.cost <= slack * min(plan.forward, plan.reverse, plan.preaccumulation)
        np.testing.assert_allclose(replay(plan, dims, t, a, own, 1.0), plan.cost, rtol=1e-12)


def test_a_long_chain_needs_no_recursion():
    q = 400
    plan = plan_chain([2] * (q + 1), np.ones(q), np.full(q, np.inf), multiply=100.0)
    assert plan.cost == 2 * q  # tangents all the way: two columns through every factor
    assert plan.cost == plan.forward
    assert np.isinf(plan.reverse)


def test_narrow_waist_of_black_boxes():
    """m -> w -> n at one evaluation a tangent: pushing m columns costs 2 m, the waist m + w."""
    m, w, n = 100, 3, 50
    plan = plan_chain([m, w, n], [1, 1], [np.inf, np.inf], [m, w], multiply=1e-9)
    assert plan.bracketing == "[J2] * [J1]"
    np.testing.assert_allclose(plan.cost, m + w + 1e-9 * m * w * n, rtol=1e-15)
    assert plan.forward == 2 * m


def test_mixed_units_would_pick_the_wrong_order():
    """A black box from 100 inputs to 3 and a matrix (1, 3): in seconds, 100 runs of 1 s win."""
    plan = plan_chain([100, 3, 1], [1.0, 3e-10], [np.inf, 3e-10], [100.0, 0.0])
    np.testing.assert_allclose(plan.cost, 100, rtol=1e-8)  # products cost 3e-8 s


def test_the_text_shows_the_order_and_the_plain_ones():
    plan = plan_chain([5, 5, 5, 1], [3, 3, 3], [4, 4, 4], names=["a", "b", "c"])
    assert plan.bracketing == "([c] -> b) -> a"
    for word in ("chosen", "forward", "reverse", "preaccumulation", plan.bracketing):
        assert word in str(plan)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dims": [3]}, "at least two sizes"),
        ({"dims": [3, 0, 2]}, "1 or more"),
        ({"tangent": [1]}, r"tangent has shape \(1,\), expected \(2,\)"),
        ({"adjoint": [1, -1]}, "0 or more"),
        ({"accumulate": [np.nan, 1]}, "0 or more"),
        ({"multiply": np.inf}, "multiply must be"),
        ({"tangent": [1, np.inf], "adjoint": [1, np.inf]}, "J2 has neither"),
    ],
)
def test_bad_costs_are_refused(change, message):
    arguments = {"dims": [3, 4, 2], "tangent": [1, 1], "adjoint": [1, 1]} | change
    with pytest.raises(ValueError, match=message):
        plan_chain(**arguments)


@pytest.mark.kernel
def test_kernel_fills_the_lower_triangle():
    q = 5
    dims, t, a, own = random_chain(np.random.default_rng(3), q)
    cost, kind, split = np.zeros((q, q)), np.zeros((q, q), int), np.zeros((q, q), int)
    kernel.bracket(dims, t, a, own, 1.0, cost, kind, split)
    for j in range(q):
        for i in range(j + 1):
            np.testing.assert_allclose(
                cost[j, i], every_order(dims, t, a, own, 1.0, j, i), rtol=1e-13
            )  # q^2 roundings
            assert i <= split[j, i] <= j
    assert not np.triu(cost, 1).any()
