"""The fast path gives what the usual way gives, and hands over what it cannot do."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gradiator_np import GradiatorWarning, JacobianEstimator, jacobian, prepare
from gradiator_np.designs._finite_difference.stencil import RULES

FIELDS = ("jac", "stderr", "x", "y", "noise", "dof", "step", "rank", "cond", "rmse", "status",
          "message", "design", "nfev", "n_failed", "n_samples")  # fmt: skip


def usual(fun, x, method):
    """The usual way, by ask and tell."""
    est = JacobianEstimator(x, method=method)
    while len((asked := est.ask())[0]):
        points, ids = asked
        est.tell([fun(p) for p in points], ids=ids)
    return est.estimate()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), method=st.sampled_from(sorted(RULES)))
def test_every_field_is_the_usual_ways(seed, method):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 6, 2)
    a, x = rng.standard_normal((n, m)), rng.standard_normal(m)

    def fun(z):
        return np.sin(a @ z)

    quick, slow = jacobian(fun, x, method=method), usual(fun, x, method)
    for name in FIELDS:
        assert_array_equal(getattr(quick, name), getattr(slow, name), err_msg=name)
    assert_array_equal(quick.samples.points, slow.samples.points)
    assert_array_equal(quick.samples.outputs, slow.samples.outputs)
    u, v = rng.standard_normal(m), rng.standard_normal(n)
    assert_array_equal(quick.jvp_stderr(u), slow.jvp_stderr(u))
    assert_array_equal(quick.vjp(v), slow.vjp(v))
    assert_array_equal(prepare(fun, x, method=method)(x).jac, slow.jac)


@pytest.mark.parametrize("bad_run", [1, 2, 5])
@pytest.mark.parametrize("how", ["raise", "nan", "shape", "complex", "list", "interrupt"])
def test_what_is_out_of_the_ordinary_is_handed_over_with_all_runs(bad_run, how):
    calls = []

    def fun(x):
        calls.append(x.copy())
        y = x**2
        if len(calls) == bad_run + 1:
            if how == "raise":
                raise ValueError("no")
            if how == "interrupt":
                raise KeyboardInterrupt
            if how == "list":
                return y.tolist()  # fits, if slowly
            return {"nan": y * np.nan, "shape": y[:2], "complex": y + 0j}[how]
        return y

    x = np.arange(1.0, 6.0)
    if how == "interrupt":
        with pytest.raises(KeyboardInterrupt) as caught:
            jacobian(fun, x, method="2-point")
        assert len(caught.value.samples) == bad_run
        assert len(calls) == bad_run + 1
        return
    if how == "list":
        estimate = jacobian(fun, x, method="2-point")
    else:
        with pytest.warns(GradiatorWarning):
            estimate = jacobian(fun, x, method="2-point")
    # Nothing was run twice: the stencil, and one replacement for the failure.
    assert len(calls) == estimate.nfev == (6 if how == "list" else 7)
    assert len({tuple(c) for c in calls}) == len(calls)
    np.testing.assert_allclose(estimate.jac, np.diag(2 * x), atol=1e-6)


def test_values_that_take_the_usual_way_are_not_run_twice():
    for fun in (
        lambda x: list(x**2),
        lambda x: x.sum(),
        lambda x: (x**2).astype(np.float32),
        lambda x: x.reshape(1, -1),
    ):
        calls = []

        def spy(x, fun=fun, calls=calls):
            calls.append(1)
            return fun(x)

        assert jacobian(spy, [1.0, 2.0], method="2-point").nfev == len(calls) == 3


def test_a_lazy_estimate_can_be_pickled():
    estimate = pickle.loads(pickle.dumps(jacobian(np.sin, [1.0, 2.0], method="5-point")))
    assert_array_equal(estimate.stderr, jacobian(np.sin, [1.0, 2.0], method="5-point").stderr)
    assert len(estimate.samples) == 9


def test_options_take_a_call_off_the_fast_path():
    """Arrays have no truth value, and a noise of 0 is not None."""
    estimate = jacobian(np.sin, np.ones(2), method="2-point", abs_step=np.full(2, 0.5), noise=0)
    assert_array_equal(estimate.step, [0.5, 0.5])
    assert_array_equal(estimate.stderr, np.zeros((2, 2)))
