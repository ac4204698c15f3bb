"""Jacobians from earlier samples: what they cost, how far they are off, when they are refused."""

import numpy as np
import pytest

from gradiator_np._differentiable.function import gradiator
from gradiator_np._differentiable.reuse import Memory, Reuse

M, N = 5, 4


class Smooth:
    """sin(A x) + 0.1 (A x)^2 with its Jacobian."""

    def __init__(self, seed=0):
        self.A = np.random.default_rng(seed).normal(size=(N, M)) / M**0.5
        self.runs = 0

    def __call__(self, x):
        self.runs += 1
        z = self.A @ x
        return np.sin(z) + 0.1 * z**2

    def jac(self, x):
        z = self.A @ x
        return (np.cos(z) + 0.2 * z)[:, None] * self.A


def trail(radius, points=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=M) + radius * rng.normal(size=(points, M))


def off(estimate, right):
    return np.linalg.norm(estimate.jac - right) / np.linalg.norm(right)


def test_near_old_points_evaluations_are_few_and_errors_within_the_tolerance():
    """30 points 0.05 apart, tolerance 0.05: at most half of one evaluation each beside the first
    full round (a Jacobian by differences takes m = 5), and nine in ten within the tolerance
    (fixed seeds; the docstring of Reuse has 94 of 100 over three seeds)."""
    f = Smooth()
    g = gradiator(f, reuse=True)
    errors, spent = [], []
    for x in trail(0.05):
        before = g.nfev
        e = g.estimate(x)
        spent.append(g.nfev - before)
        if e.design == "reused samples":
            errors.append(off(e, f.jac(x)))
    assert g.nfev == f.runs
    assert spent[0] == 1 + 2 * M  # the value and central differences
    assert sum(spent[1:]) <= 29 * (1 + M / 2)
    assert np.median(spent) == 1  # the value alone
    assert len(errors) >= 20
    assert np.mean(np.array(errors) < 0.05) >= 0.9


def test_error_bars_grow_with_the_distance():
    f = Smooth()
    g = gradiator(f, reuse=Reuse(tolerance=1e6))  # never refused
    x = trail(0.05)
    for point in x[:10]:
        g.estimate(point)
    centre, u = x[:10].mean(0), np.ones(M) / M**0.5
    size = [np.linalg.norm(g.estimate(centre + d * u).stderr) for d in (0.0, 0.3, 3.0)]
    assert size[0] < size[1] < size[2]


def test_far_points_fall_back_to_new_evaluations():
    f = Smooth()
    g = gradiator(f, reuse=True)
    x = trail(0.01, 3)[0]
    g.estimate(x)
    runs = f.runs
    e = g.estimate(x + 10)
    assert e.design != "reused samples"
    assert f.runs - runs >= 1 + 2 * M
    # Central differences with steps of one percent: h^2 / 6 times third derivatives of order 1.
    assert off(e, f.jac(x + 10)) < 1e-2


def test_products_use_what_is_known():
    f = Smooth()
    g = gradiator(f, reuse=True)
    for x in trail(0.02, 10):
        v = np.ones(N)
        got, right = g.vjp(x, v), v @ f.jac(x)
        assert np.linalg.norm(got - right) < 0.1 * np.linalg.norm(f.jac(x))
    assert f.runs < 10 * (M + 1)
    y = g(x)
    runs = f.runs
    assert g.jacobian(x).shape == (N, M)
    assert f.runs == runs  # value and Jacobian are both known here
    np.testing.assert_array_equal(y, Smooth()(x))


def test_only_what_a_cotangent_weighs_must_be_known():
    """The second output bends a hundred times more; a VJP of the first one does not mind."""
    rng = np.random.default_rng(0)
    points = 1 + 0.05 * rng.normal(size=(12, M))

    def f(x):
        return np.array([x.sum(), np.sin(100 * x).sum()])

    first, both = (gradiator(f, reuse=True) for _ in range(2))
    for x in points:
        first.vjp(x, np.array([1.0, 0.0]))
        both.vjp(x, np.array([1.0, 1.0]))
    assert first.nfev < both.nfev


def test_the_store_finds_the_nearest():
    """Beyond what waits unsorted, a tree: the same rows as by sorting all."""
    rng = np.random.default_rng(0)
    memory = Memory(Reuse(), {})
    memory.store.scale = np.array([1.0, 10.0])
    points = rng.normal(size=(700, 2)) * memory._scale
    for block in np.array_split(points, 7):
        memory.add(block, block[:, :1])
        x = rng.normal(size=2)
        near = memory._near(x)
        far = np.square((points[: len(memory)] - x) / memory._scale).sum(1)
        np.testing.assert_array_equal(near, np.argsort(far, kind="stable")[: len(near)])
        assert len(near) == 8 * 3
    memory.add(np.ones((1, 2)), np.array([[np.nan]]))  # failed runs are left out
    assert len(memory) == 700


def two_shapes():
    g = gradiator(np.sin, reuse=True)
    g(np.ones(2))
    g(np.ones(3))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Reuse(tolerance=0), "tolerance of Reuse must be positive"),
        (lambda: Reuse(step=np.nan), "step of Reuse must be positive"),
        (lambda: gradiator(np.sin, reuse=True, batch_dims=1), "leave batch_dims out"),
        (lambda: two_shapes(), "keeps its shape"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
