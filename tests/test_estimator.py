"""Ask and tell: any order, parts, failures, points that were missed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import JacobianEstimator, Status, designs, jacobian

X = np.array([0.8, -1.2, 2.0])


def fun(x):
    return np.array([[x[0] * x[1], np.exp(x[2])]])


@pytest.mark.parametrize("method", ["2-point", "3-point", "7-point", "cs"])
def test_the_loop_around_it_is_jacobian(method):
    est = JacobianEstimator(X, method=method)
    while True:
        points, ids = est.ask()
        if len(ids) == 0:
            break
        est.tell([fun(p) for p in points], ids=ids)
    direct = jacobian(fun, X, method=method)
    assert_array_equal(est.estimate().jac, direct.jac)
    assert est.estimate().nfev == direct.nfev
    assert_array_equal(est.estimate().y, fun(X))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_order_and_any_parts_give_the_same_bits(seed):
    rng = np.random.default_rng(seed)
    est = JacobianEstimator(X, method="5-point")
    points, ids = est.ask()
    values = np.stack([fun(p) for p in points])
    for part in np.array_split(rng.permutation(len(ids)), rng.integers(1, 6)):
        if len(part):
            est.tell(values[part], ids=ids[part])
    assert len(est.ask()[1]) == 0
    assert_array_equal(est.estimate().jac, jacobian(fun, X, method="5-point").jac)


def test_asking_again_gives_the_same_points():
    est = JacobianEstimator(X, f0=fun(X), method="3-point")
    points, ids = est.ask()
    same, again = est.ask()
    assert_array_equal(ids, again)
    assert_array_equal(points, same)
    est.tell([fun(p) for p in points[:2]], ids=ids[:2])
    left, rest = est.ask()
    assert_array_equal(rest, ids[2:])
    assert_array_equal(left, points[2:])


class Scribbler:
    """A design that writes into whatever it is handed, and into what it handed out."""

    needs_value, draws = False, False

    def __init__(self, offsets):
        self.offsets = offsets

    def start(self, problem, learned=None):
        return ScribblingPlan(self.offsets, problem)


class ScribblingPlan:
    name, learned = "scribbler", None

    def __init__(self, offsets, problem):
        self.offsets, self.problem, self.refused = offsets, problem, 0
        self.inner = designs.Stencil("2-point").start(problem)
        self.step = self.inner.step
        self.wanted = self.inner.ask(None)

    def scribble(self, rows):
        handed = [rows.values, rows.done, rows.y, rows.moves.t, self.problem.lower,
                  self.problem.upper]  # fmt: skip
        for a in handed:
            with pytest.raises(ValueError, match="read-only"):
                a[...] = 0
        self.wanted.t[:] = 7.0
        self.wanted.columns[:] = 0

    def ask(self, rows):
        if len(rows.done):
            self.scribble(rows)
            return None
        return self.wanted

    def solve(self, rows):
        self.scribble(rows)
        return self.inner.solve(rows)


def test_plans_share_no_memory_with_the_engine():
    est = JacobianEstimator(X, method=Scribbler(None))
    points, ids = est.ask()
    est.tell([fun(p) for p in points[:3]], ids=ids[:3])
    est.estimate()
    assert_array_equal(est.ask()[0], points[3:])
    est.tell([fun(points[3])])
    assert_array_equal(est.samples.points, points)
    assert_array_equal(est.estimate().jac, jacobian(fun, X, method="2-point").jac)
    # what estimates share when there are no bounds is as it was
    assert_array_equal(jacobian(fun, X).jac, jacobian(fun, X, bounds=(-np.inf, np.inf)).jac)


def test_noise_of_each_output_is_held_against_the_first_value():
    for wrong in ([1.0, 2.0, 3.0], {"a": 1.0}):
        est = JacobianEstimator(X, method="3-point", noise=wrong)
        points, ids = est.ask()
        assert_array_equal(points, X[None])  # nothing else before it is known to fit
        est.tell([fun(p) for p in points], ids=ids)
        with pytest.raises(ValueError, match="noise has"):
            est.ask()
    est = JacobianEstimator(X, method="3-point", noise=[1e-3, 2e-3])
    for _ in range(2):
        points, ids = est.ask()
        est.tell([fun(p) for p in points], ids=ids)
    assert_array_equal(est.estimate().noise, [[1e-3, 2e-3]])


def test_an_estimate_at_any_time():
    est = JacobianEstimator(X, method="2-point")
    with pytest.raises(ValueError, match="nothing has been told"):
        est.estimate()
    points, ids = est.ask()
    est.tell([fun(p) for p in points[:2]], ids=ids[:2])
    early = est.estimate()
    assert early.status == Status.INCOMPLETE
    assert np.isinf(early.stderr[..., 1:]).all()
    assert not np.isinf(early.stderr[..., 0]).any()
    assert early.n_samples == 2


def test_failures_are_replaced_in_the_next_round():
    est = JacobianEstimator(X, f0=fun(X), method="2-point")
    points, ids = est.ask()
    est.tell([fun(points[0]), None, fun(points[2]) * np.nan], ids=ids, errors={2: "pump broke"})
    new, more = est.ask()
    assert len(more) == 2
    assert (new[0][1] - X[1]) * (points[1][1] - X[1]) < 0  # the other side
    est.tell([fun(p) for p in new])
    estimate = est.estimate()
    assert_allclose(estimate.jac, jacobian(fun, X, method="2-point").jac, atol=1e-6)
    assert estimate.n_failed == 2
    assert "pump broke" in estimate.samples.errors.values()
    drop = JacobianEstimator(X, f0=fun(X), method="2-point", on_error="drop")
    drop.tell([fun(p) for p in drop.ask()[0][:1]] + [None, None], ids=drop.ask()[1])
    assert len(drop.ask()[1]) == 0


@pytest.mark.parametrize("method", ["2-point", "3-point", "5-point"])
def test_a_rig_that_misses_its_set_points(method):
    """For a linear function the correction for the points really reached is exact."""
    rng = np.random.default_rng(2)
    a = rng.standard_normal((2, 3))
    est = JacobianEstimator(X, method=method, rel_step=0.1)
    points, ids = est.ask()
    reached = points + 0.02 * rng.standard_normal(points.shape) * (ids > 0)[:, None]
    est.tell(reached @ a.T, ids=ids, points=reached)
    # Rounding of values of size 5 over steps of 0.05, times the mixing of the lines, below 3.
    assert_allclose(est.estimate().jac, a, atol=1e-12)
    assert_array_equal(est.estimate().samples.points, reached)
    other = JacobianEstimator(X, method=method)
    points, ids = other.ask()
    with pytest.raises(ValueError, match="x itself was missed"):
        other.tell(points @ a.T, points=points + 0.01)


def test_missed_points_keep_the_order_of_a_curved_function():
    est = JacobianEstimator(X, method="3-point", rel_step=1e-3)
    points, ids = est.ask()
    rng = np.random.default_rng(4)
    # Along their own line: the weights follow the offsets really made.
    reached = points.copy()
    for i in range(1, len(ids)):
        j = int(np.flatnonzero(points[i] != X)[0])
        reached[i, j] += 2e-4 * rng.standard_normal()
    est.tell([fun(p) for p in reached], ids=ids, points=reached)
    # h^2 f'''/6 with h = 2e-3, f''' = 7.4.
    assert_allclose(est.estimate().jac, jacobian(fun, X, method="9-point").jac, atol=1e-5)


def test_nothing_is_taken_from_a_tell_that_does_not_fit():
    est = JacobianEstimator(X, method="2-point")
    points, ids = est.ask()
    good = [fun(p) for p in points]
    for outputs, named, words in (
        (good[:2], ids, "2 outputs for 4 ids"),
        (good, ids + 7, "never asked"),
        (good, [0, 0, 1, 2], "twice"),
        ([None] * 4, ids, "every run of the first tell failed"),
        ([*good[:3], np.zeros(5)], ids, "shape"),
    ):
        with pytest.raises(ValueError, match=words):
            est.tell(outputs, ids=named)
    est.tell(good, ids=ids)
    with pytest.raises(ValueError, match="told before"):
        est.tell(good, ids=ids)
    assert_array_equal(est.estimate().jac, jacobian(fun, X, method="2-point").jac)


def test_dicts_and_batches_travel():
    est = JacobianEstimator({"a": 1.0, "b": np.ones(2)}, method="2-point")
    points, ids = est.ask()
    assert points["a"].shape == (4,)
    assert points["b"].shape == (4, 2)
    est.tell([{"s": a * b.sum()} for a, b in zip(points["a"], points["b"])], ids=ids)
    assert_allclose(est.estimate().jac["s"]["b"], [1.0, 1.0], atol=1e-7)
    batch = JacobianEstimator(np.ones((5, 2)), batch_dims=1, method="3-point")
    points, ids = batch.ask()
    assert points.shape == (5, 5, 2)
    batch.tell(points**2)
    assert_allclose(batch.estimate().jac, np.broadcast_to(2 * np.eye(2), (5, 2, 2)), atol=1e-9)
