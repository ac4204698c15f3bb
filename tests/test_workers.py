"""Maps and vectorized functions that do not keep to their word."""

from concurrent.futures import Executor, Future

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gradiator_np import EvaluationError, jacobian

X = np.array([1.0, 2.0, 3.0])


def fun(x):
    return np.array([x[0] * x[1], x[2] ** 2])


# Central differences of polynomials of degree 2: rounding, eps f / h with h = 6e-6 |x|.
TOL = 1e-9


def test_a_vectorized_dict_must_answer_for_every_point():
    """The value of the first point is not spread over the others: they are run one by one."""
    estimate = jacobian(lambda p: {"s": p[:1, 0] ** 2}, X, method="3-point", vectorized=True)
    assert_allclose(estimate.jac["s"], [2, 0, 0], atol=TOL)


@pytest.mark.parametrize(
    "workers, error, words",
    [
        (lambda f, points: [f(p) for p in points] * 2, EvaluationError, "more than 3 results"),
        (lambda f, points: [f(points[0])], EvaluationError, "gave 1 results"),
        (lambda f, points: None, TypeError, "as map does, got None"),
        (lambda f, points: [fun(p) for p in points], TypeError, "what f returned"),
    ],
)
def test_maps_that_are_none(workers, error, words):
    with pytest.raises(error, match=words):
        jacobian(fun, X, method="2-point", workers=workers)


def test_a_bug_in_a_vectorized_function_is_found_early():
    calls = []

    def bug(p):
        calls.append(len(p))
        if len(p) > 1 or (p != 1).any():
            raise KeyError("typo")
        return p

    for on_error, words in (("adapt", "bug in fun"), ("raise", "on_error='raise'")):
        calls.clear()
        with pytest.raises(EvaluationError, match=words):
            jacobian(bug, np.ones(100), method="3-point", vectorized=True, on_error=on_error)
        # x, seven halvings of 200 points to the first, a few more to the third, one opposite.
        assert len(calls) < 20


def test_a_run_that_began_before_an_earlier_one_is_not_lost():
    """Two workers came free at once: the third run is still waiting when the fourth has begun."""
    begun = []

    class Unordered(Executor):
        submitted = 0

        def submit(self, call, row):
            future = Future()
            if Unordered.submitted != 2:
                future.set_result(call(row))
            Unordered.submitted += 1
            return future

    def fails(x):
        begun.append(x)
        if x[0] != X[0]:
            raise ValueError("did not converge")
        return fun(x)

    with pytest.raises(EvaluationError, match="did not converge") as caught:
        jacobian(fails, X, method="3-point", on_error="raise", workers=Unordered())
    assert len(caught.value.samples) == len(begun) == 7
