"""Plans of the default design copied half way, and asked for estimates in between."""

import copy
import pickle

import numpy as np
import pytest

from gradiator_np import JacobianEstimator


def scenario(kind):
    rng = np.random.default_rng(2)
    x = np.array([1.0, 2.0, 0.7, 1e-9])

    def fun(p):
        y = np.array([p[0] * p[1], np.exp(p[2]) + p[3], p[1] ** 3])
        if kind == "noisy":
            y = y + 1e-3 * rng.standard_normal(3)
        if kind == "failing" and p[1] > 2.001:
            return None
        if kind == "rounded":
            y = np.round(y, 3)
        return y

    return fun, x


@pytest.mark.parametrize("kind", ["smooth", "noisy", "failing", "rounded", "box"])
@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_copy_made_half_way_goes_on_alike(kind, how):
    fun, x = scenario("noisy" if kind == "box" else kind)
    options = {"max_step": 0.05} if kind == "box" else {}

    def copied(est):
        return pickle.loads(pickle.dumps(est)) if how == "pickle" else copy.deepcopy(est)

    est = JacobianEstimator(x, rng=np.random.default_rng(3), **options)
    copies = [copied(est)]
    while True:
        points, ids = est.ask()
        if not len(ids):
            break
        values = [fun(p) for p in points]
        half = len(ids) // 2
        if half:
            est.tell(values[:half], ids[:half])
        copies.append(copied(est))
        est.tell(values[half:], ids[half:])
        for other in copies[:-1]:
            p, i = other.ask()
            np.testing.assert_array_equal(p, points)
            other.tell(values, i)
        _, i = copies[-1].ask()
        np.testing.assert_array_equal(i, ids[half:])
        copies[-1].tell(values[half:], i)
    final = est.estimate()
    for other in copies:
        assert not len(other.ask()[1])
        np.testing.assert_array_equal(other.estimate().jac, final.jac)
        np.testing.assert_array_equal(other.estimate().stderr, final.stderr)


def test_estimates_in_between_change_nothing():
    for kind in ("smooth", "noisy", "failing", "rounded"):
        ends = []
        for between in (False, True):
            fun, x = scenario(kind)
            est = JacobianEstimator(x)
            while len((ask := est.ask())[1]):
                for p, i in zip(*ask):
                    est.tell([fun(p)], ids=[i])
                    if between:
                        est.estimate()
            ends.append(est.estimate())
        np.testing.assert_array_equal(ends[0].jac, ends[1].jac)
        np.testing.assert_array_equal(ends[0].samples.points, ends[1].samples.points)
