"""What a newcomer gets wrong, and what is said: what was wrong, what was seen, what to do."""

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint

from gradiator_np import (
    EvaluationError,
    JacobianEstimator,
    LeastSquares,
    Recurrence,
    Reuse,
    Samples,
    ScipyObjective,
    StreamingJacobian,
    check_jacobian,
    designs,
    estimate_noise,
    gradiator,
    gradient,
    jacobian,
    jvp,
    least_squares,
    linearize,
    plan_chain,
    prepare,
    propagate,
    sensitivities,
    solvers,
    vjp,
)

X = np.array([1.0, 2.0, 3.0])
STENCIL = {"method": "3-point"}


def fun(x):
    return np.array([x[0] * x[1], x[2] ** 2])


def asks(**options):
    est = JacobianEstimator(X, **STENCIL, **options)
    est.ask()
    return est


FIT = least_squares(lambda x: np.array([x[0], x[1], x[0] + x[1]]) - [1.0, 2.0, 4.0], [1.0, 1.0])

# A call, the error, and words that its message holds.
MISTAKES = {
    # -- fun and x
    "fun and x swapped": (lambda: jacobian(X, fun), TypeError, "fun comes first"),
    "fun called": (lambda: jacobian(fun(X), X), TypeError, "fun must be callable, got ndarray"),
    "fun named": (lambda: jacobian("math:sin", X), TypeError, "callable, got str 'math:sin'"),
    "x is None": (lambda: jacobian(fun, None), TypeError, "x must be numbers, got NoneType"),
    "x is a string": (lambda: jacobian(fun, "1,2"), TypeError, "got str '1,2'"),
    "x has a hole": (lambda: jacobian(fun, [1, None]), TypeError, "got list [1, None]"),
    "x is a generator": (lambda: jacobian(fun, (i for i in X)), TypeError, "got generator"),
    "x is ragged": (lambda: jacobian(fun, [[1, 2], [3]]), ValueError, "x is no array of one shape"),
    "x has a nan": (lambda: jacobian(fun, [1, np.nan]), ValueError, "x[1] is not"),
    "x is complex": (lambda: jacobian(fun, X + 1j), TypeError, "real and imaginary parts"),
    "x is empty": (lambda: jacobian(fun, []), ValueError, "nothing to differentiate by"),
    "x is an empty dict": (lambda: jacobian(fun, {}), ValueError, "empty dict"),
    "a parameter is a string": (lambda: jacobian(fun, {"a": "1"}), TypeError, "x['a'] must be"),
    # -- what fun returns
    "no return": (lambda: jacobian(lambda x: None, X), TypeError, "does fun return its result?"),
    "two results": (lambda: jacobian(lambda x: (x, 1.0), X), ValueError, "give a dict of arrays"),
    "strings": (lambda: jacobian(lambda x: ["1"], X), TypeError, "fun(x) must be numbers"),
    "booleans": (lambda: jacobian(lambda x: x > 2, X), TypeError, "dtype bool"),
    "nan at x": (lambda: jacobian(lambda x: x * np.nan, X), EvaluationError, "every output"),
    "several arguments": (
        lambda: jacobian(lambda a, b: a * b, [1.0, 2.0]), EvaluationError, "called as fun(x, *args",
    ),
    "an index out of range": (lambda: jacobian(lambda x: x[5], X), EvaluationError, "index 5"),
    "abs with the complex step": (
        lambda: jacobian(np.abs, X, method="cs"), EvaluationError, "use method='3-point'",
    ),
    "a vector to gradient": (lambda: gradient(fun, X, **STENCIL), ValueError, "has 2 numbers"),
    # -- options
    "method unknown": (lambda: jacobian(fun, X, method="central"), ValueError, "'3-point'"),
    "method is None": (lambda: jacobian(fun, X, method=None), TypeError, "a string or a design"),
    "an unknown option": (lambda: jacobian(fun, X, step=1e-3), TypeError, "'step'"),
    "an unknown option of a product": (lambda: vjp(fun, X, X, step=1), TypeError, "options are"),
    "an unknown option of prepare": (lambda: prepare(fun, X, eps=1), TypeError, "rel_step"),
    "a step of 0": (lambda: jacobian(fun, X, rel_step=0), ValueError, "finite and not 0"),
    "a step of another shape": (lambda: jacobian(fun, X, abs_step=[1, 2]), ValueError, "(2,)"),
    "a step below rounding": (
        lambda: jacobian(fun, X, abs_step=1e-30), ValueError, "at least 2.22e-16",
    ),
    "a scale of 0": (lambda: jacobian(fun, X, x_scale=0), ValueError, "x_scale must be positive"),
    "an unknown failure policy": (lambda: jacobian(fun, X, on_error="skip"), ValueError, "'drop'"),
    "kwargs as a list": (lambda: jacobian(fun, X, kwargs=[1]), TypeError, "kwargs must be a dict"),
    "progress as run": (lambda: jacobian(fun, X, run=True), TypeError, "Run(progress=True)"),
    "noise in words": (lambda: jacobian(fun, X, noise="low"), TypeError, "noise must be"),
    "noise below 0": (lambda: jacobian(fun, X, noise=-1), ValueError, "not negative"),
    "noise of another shape": (lambda: jacobian(fun, X, noise=[1, 2, 3]), ValueError, "noise has"),
    "a budget of 0": (lambda: jacobian(fun, X, max_nfev=0), ValueError, "of 1 or more"),
    "a budget in words": (lambda: jacobian(fun, X, max_nfev="few"), ValueError, "'few'"),
    "a budget of a stencil": (
        lambda: jacobian(fun, X, max_nfev=9, **STENCIL), ValueError, "steer method='auto'",
    ),
    "a tolerance below 0": (lambda: jacobian(fun, X, atol=-1), ValueError, "atol must be positive"),
    "min above max": (
        lambda: jacobian(fun, X, min_step=1.0, max_step=0.1), ValueError, "larger than max_step",
    ),
    # -- bounds
    "bounds as pairs": (lambda: jacobian(fun, X, bounds=[(0, 9)] * 3), ValueError, "zip(*pairs)"),
    "bounds as pairs of two": (
        lambda: jacobian(fun, [1.0, 2.0], bounds=[(0, 9)] * 2), ValueError, "no list of pairs",
    ),
    "bounds None": (lambda: jacobian(fun, X, bounds=None), ValueError, "a pair (lower, upper)"),
    "one bound None": (lambda: jacobian(fun, X, bounds=(None, 9)), TypeError, "-inf and inf"),
    "bounds swapped": (lambda: jacobian(fun, X, bounds=(9, 0)), ValueError, "exchange them"),
    "x outside": (lambda: jacobian(fun, X, bounds=(0, 2)), ValueError, "x[2] = 3.0 lies outside"),
    "bounds of others": (
        lambda: jacobian(fun, X, bounds=Bounds([0, 0], [9, 9])), ValueError, "shape (2,)",
    ),
    "bounds of another name": (
        lambda: jacobian(fun, {"a": 1.0}, bounds=({"b": 0}, {"b": 9})), ValueError,
        "inputs have ['a']",
    ),
    # -- running
    "no workers": (lambda: jacobian(fun, X, workers=0), ValueError, "-1 for one for each core"),
    "workers in words": (lambda: jacobian(fun, X, workers="4"), TypeError, "an Executor, got '4'"),
    "a lambda to processes": (
        lambda: jacobian(lambda x: x, X, workers=2), TypeError, "the top level of a module",
    ),
    "columns": (
        lambda: jacobian(lambda p: p.T, X, vectorized=True), ValueError, "transpose them",
    ),
    "not vectorized": (
        lambda: jacobian(lambda x: x[2], X, vectorized=True), EvaluationError, "(k, *x.shape)",
    ),
    "no batch": (lambda: jacobian(fun, X, batch_dims=2), ValueError, "has only 1 axes"),
    "a batch that is summed": (
        lambda: jacobian(np.sum, np.ones((4, 2)), batch_dims=1), ValueError, "has only 0 axes",
    ),
    "batch_dims below 0": (lambda: jacobian(fun, X, batch_dims=-1), ValueError, "0 or more"),
    # -- products and results
    "a tangent of another shape": (lambda: jvp(fun, X, [1.0]), ValueError, "expected (3,)"),
    "a cotangent like x": (lambda: vjp(fun, X, X), ValueError, "v has shape (3,), expected (2,)"),
    "a dict as tangent": (lambda: jvp(fun, X, {"a": 1.0}), ValueError, "u is a dict"),
    "a complex tangent": (lambda: jvp(fun, X, 1j * X), TypeError, "real and imaginary parts"),
    "a tangent with nan": (lambda: jvp(fun, X, X * np.nan), ValueError, "u must be finite"),
    "95 %": (
        lambda: jacobian(fun, X, **STENCIL).confidence_interval(95), ValueError, "0.95 means 95 %",
    ),
    "an operator of a batch": (
        lambda: jacobian(np.sin, np.ones((2, 3)), batch_dims=1, **STENCIL).as_linear_operator(),
        ValueError, "take one of the batch",
    ),
    "an array of dicts": (
        lambda: np.asarray(jacobian(lambda x: {"a": x}, X, **STENCIL)), TypeError, "take one",
    ),
    "another x for prepare": (
        lambda: prepare(fun, X, **STENCIL)([1.0]), ValueError, "was prepared for (3,)",
    ),
    "a product of another shape": (lambda: linearize(fun, X)[1].vjp(X), ValueError, "v has shape"),
    # -- propagation
    "a function to propagate": (lambda: propagate(fun, std_x=1), TypeError, "must be numbers"),
    "a J of blocks to propagate": (
        lambda: propagate({"a": 1.0}, std_x=1), TypeError, "give what jacobian returns",
    ),
    "a gradient as an array": (lambda: propagate([1.0, 2.0], std_x=1), ValueError, "J[None, :]"),
    "no uncertainty": (lambda: propagate(np.ones((1, 3))), ValueError, "one of the two"),
    "deviations as a covariance": (
        lambda: propagate(np.ones((1, 3)), [1, 2, 3]), ValueError,
        "give standard deviations as std_x=",
    ),
    "a covariance of others": (
        lambda: propagate(np.ones((1, 3)), np.eye(2)), ValueError, "cov_x has shape (2, 2)",
    ),
    "a covariance that is none": (
        lambda: propagate(np.ones((1, 2)), [[1, 2], [2, 1]]), ValueError, "negative variance",
    ),
    "a covariance that is uneven": (
        lambda: propagate(np.ones((1, 2)), [[1, 0.5], [0.2, 1]]), ValueError, "cov_x symmetric",
    ),
    "a variance below 0": (
        lambda: propagate(np.ones((1, 2)), [[1, 0], [0, -1]]), ValueError, "see the row of x[1]",
    ),
    "a covariance without variance": (
        lambda: propagate(np.ones((1, 2)), [[1, 0.5], [0.5, 0]]), ValueError, "has variance 0",
    ),
    "a deviation below 0": (
        lambda: propagate(np.ones((1, 2)), std_x=[1, -1]), ValueError, "got -1.0 for x[1]",
    ),
    "a covariance in words": (
        lambda: propagate(np.ones((1, 2)), "a"), TypeError, "cov_x must be numbers",
    ),
    "a ragged covariance": (
        lambda: propagate(np.ones((1, 2)), [[1], [1, 2]]), ValueError, "cov_x is no array",
    ),
    "a covariance of one block": (
        lambda: propagate(jacobian(lambda x: x["a"] * x["b"], {"a": 1.0, "b": 2.0}), {"a": 1.0}),
        ValueError, "cov_x must be a dict with the keys ['a', 'b']",
    ),
    "propagation of a batch": (
        lambda: propagate(jacobian(np.sin, np.ones((2, 3)), batch_dims=1, **STENCIL), std_x=1),
        ValueError, "take one of the batch",
    ),
    "propagation of a complex J": (
        lambda: propagate(np.ones((1, 2)) * 1j, std_x=1), TypeError, "real and imaginary parts",
    ),
    "a J of nan": (lambda: propagate([[np.nan]], std_x=1), ValueError, "must be finite"),
    "elasticities of an array": (lambda: sensitivities(np.ones((1, 2))), ValueError, "give std_x="),
    "only a unit of y": (
        lambda: sensitivities(np.ones((1, 2)), std_y=1), ValueError, "std_y goes with std_x",
    ),
    "a unit of y of 0": (
        lambda: sensitivities(np.ones((1, 2)), std_x=1, std_y=0), ValueError, "and positive",
    ),
    # -- ask and tell
    "an estimate of nothing": (
        lambda: JacobianEstimator(X).estimate(), ValueError, "run the points of ask() first",
    ),
    "tell without ask": (lambda: JacobianEstimator(X).tell([fun(X)]), ValueError, "call ask()"),
    "too few outputs": (lambda: asks().tell([fun(X)]), ValueError, "1 outputs for 7 ids"),
    "one number": (lambda: asks().tell(3.0, ids=[0]), ValueError, "0 outputs for 1 ids"),
    "unknown ids": (lambda: asks().tell([fun(X)], ids=[99]), ValueError, "never asked for"),
    "errors as a list": (
        lambda: asks().tell([fun(X)], ids=[0], errors=["no"]), TypeError, "a dict of texts by id",
    ),
    "streams of unknown ids": (lambda: asks().streams([99]), ValueError, "not those of points"),
    "no points at once": (lambda: LeastSquares(X).ask(0), ValueError, "k must be a whole number"),
    # -- words where numbers belong
    "rng in words": (lambda: jacobian(fun, X, rng="a"), TypeError, "a numpy.random.Generator"),
    "rng of a fit in words": (lambda: least_squares(fun, X, rng="a"), TypeError, "rng must be"),
    "a level in words": (
        lambda: jacobian(fun, X, **STENCIL).confidence_interval("95"), TypeError,
        "confidence_level must be numbers",
    ),
    "a bound on errors in words": (
        lambda: jacobian(fun, X).consistent(entry_bound="a"), TypeError, "entry_bound must be",
    ),
    "sigma of 0": (lambda: least_squares(fun, X, sigma=0.0), ValueError, "sigma must be positive"),
    "sigma of another shape": (
        lambda: least_squares(fun, X, sigma=[1.0]), ValueError, "one for each residual"),
    "sigma of a fit below 0": (
        lambda: least_squares(fun, X, sigma=-1), ValueError, "positive and finite"),
    "sigma of nan": (lambda: least_squares(fun, X, sigma=np.nan), ValueError, "positive and fin"),
    "one sigma of 0": (
        lambda: least_squares(fun, X, sigma=[1.0, 0.0, 1.0]), ValueError, "do not count out of"),
    "sigma in words": (lambda: least_squares(fun, X, sigma="a"), TypeError, "sigma must be num"),
    "a loss in words": (lambda: least_squares(fun, X, loss="l1"), ValueError, "'soft_l1'"),
    "f_scale of 0": (lambda: least_squares(fun, X, f_scale=0), ValueError, "f_scale must be pos"),
    "a prior without sigma": (
        lambda: least_squares(fun, X, prior_mean=0, prior_std=1), ValueError, "as sigma, 1.0"),
    "a prior without width": (
        lambda: least_squares(fun, X, prior_mean=0, sigma=1), ValueError, "either prior_std or"),
    "a prior of relative weight": (
        lambda: least_squares(
            fun, X, prior_mean=0, prior_std=1, sigma=1, absolute_sigma=False),
        ValueError, "leave absolute_sigma=False out"),
    "a prior of no width": (
        lambda: least_squares(fun, X, prior_mean=0, prior_std=0, sigma=1), ValueError, "fixed="),
    "a singular prior": (
        lambda: least_squares(fun, X, prior_mean=0, prior_cov=np.ones((3, 3)), sigma=1),
        ValueError, "singular"),
    "a prior that is not symmetric": (
        lambda: least_squares(fun, X, prior_mean=0, prior_cov=np.triu(np.ones((3, 3))), sigma=1),
        ValueError, "not symmetric"),
    "a prior of nan": (
        lambda: least_squares(fun, X, prior_mean=0, prior_cov=np.full((3, 3), np.nan), sigma=1),
        ValueError, "prior_cov must be finite"),
    "a prior that is not positive": (
        lambda: least_squares(
            fun, X, prior_mean=0, prior_cov=3 * np.ones((3, 3)) - 2.5 * np.eye(3), sigma=1),
        ValueError, "not positive definite"),
    "x0 outside of its bounds": (
        lambda: least_squares(fun, X, bounds=(5, 9)), ValueError, "outside of its bounds [5.0, 9"),
    "fixed in numbers": (lambda: least_squares(fun, X, fixed=[1, 0]), TypeError, "True or False"),
    "constraints as a function": (
        lambda: least_squares(fun, X, constraints=fun), TypeError, "LinearConstraint"),
    "constraints of another width": (
        lambda: least_squares(fun, X, constraints=LinearConstraint([1, 1], 0, 9)),
        ValueError, "give 3 columns"),
    "constraints that contradict": (
        lambda: least_squares(
            fun, X,
            constraints=[LinearConstraint([1, 1, 1], 9, 9), LinearConstraint([1, 1, 1], 0, 1)]),
        ValueError, "no point holds them all"),
    "constraints that contradict bounds": (
        lambda: least_squares(fun, X, bounds=(0, 9), constraints=LinearConstraint([1, 1, 1], 30)),
        ValueError, "contradict each other or the bounds"),
    "constraints that contradict what is fixed": (
        lambda: least_squares(
            fun, X, fixed=[True, False, False], constraints=LinearConstraint([1, 0, 0], 30)),
        ValueError, "contradict each other or the bounds"),
    "constraints that leave nothing": (
        lambda: least_squares(fun, X, constraints=LinearConstraint(np.eye(3), X, X)),
        ValueError, "determine every parameter"),
    "a constraint upside down": (
        lambda: least_squares(fun, X, constraints=LinearConstraint([1, 1, 1], 3, 1)),
        ValueError, "exchange them"),
    "a constraint of nan": (
        lambda: least_squares(fun, X, constraints=LinearConstraint([1, np.nan, 1], 0, 9)),
        ValueError, "a LinearConstraint has nan"),
    "constraints that x0 breaks": (
        lambda: least_squares(fun, X, constraints=LinearConstraint([1, 1, 1], 9, 10)),
        ValueError, "start within them, as at"),
    "constraints of fixed parameters": (
        lambda: least_squares(
            fun, X, fixed=True, constraints=LinearConstraint([1, 1, 1], sum(X), sum(X))),
        ValueError, "only fixed parameters"),
    "residuals of changing length": (
        lambda: least_squares(lambda x: np.ones(5 if x[0] == 1 else 4) * x[0], X),
        ValueError, "fun returned shape (4,), at x (5,)",
    ),
    "samples as a list": (lambda: least_squares(fun, X, samples=[1]), TypeError, "as results hold"),
    "samples that do not pair": (lambda: Samples([[1.0]], [[1.0], [2.0]]), ValueError, "1 points"),
    "a sample of words": (
        lambda: StreamingJacobian(2, 1).partial_fit(["a", "b"], [1.0]), TypeError, "dx must be",
    ),
    "a ragged sample": (
        lambda: StreamingJacobian(2, 1).partial_fit([[1], [1, 2]], [1.0]), ValueError, "dx is no",
    ),
    "a size in words": (lambda: StreamingJacobian("a", 2), ValueError, "n_inputs must be a whole"),
    "a size of 2.5": (lambda: StreamingJacobian(2, 2.5), ValueError, "n_outputs must be a whole"),
    "forgetting in words": (
        lambda: StreamingJacobian(2, 2, forgetting="a"), TypeError, "forgetting must be numbers",
    ),
    "a prior in words": (
        lambda: StreamingJacobian(2, 2, prior_scale="a"), TypeError, "prior_scale must be numbers",
    ),
    "a merge with a number": (
        lambda: StreamingJacobian(2, 2).merge(3), TypeError, "must be a StreamingJacobian",
    ),
    "alpha in words": (
        lambda: check_jacobian(fun, np.ones((2, 3)), X, alpha="a"), TypeError, "alpha must be",
    ),
    "a spacing in words": (lambda: estimate_noise(fun, X, h="a"), TypeError, "h must be numbers"),
    "points in words": (lambda: estimate_noise(fun, X, points="a"), ValueError, "points must be"),
    "argnums in words": (lambda: gradiator(fun, argnums="x"), ValueError, "argnums must be"),
    "argnums of words": (lambda: gradiator(fun, argnums=("x",)), ValueError, "an input of argnums"),
    "reuse as a number": (lambda: gradiator(fun, reuse=3), TypeError, "Reuse(tolerance=...)"),
    "a tolerance in words": (lambda: Reuse(tolerance="a"), TypeError, "tolerance must be numbers"),
    "dims in words": (lambda: plan_chain("ab", [1], [1]), TypeError, "dims must be whole numbers"),
    "costs in words": (lambda: plan_chain([3, 2], "a", [1]), TypeError, "tangent must be numbers"),
    "steps in words": (lambda: Recurrence(fun, "a"), ValueError, "n_steps must be a whole number"),
    "a state in words": (lambda: Recurrence(fun, 2)("a", 1.0), TypeError, "a state"),
    "x of SciPy in words": (
        lambda: ScipyObjective(fun, X).fun("a"), TypeError, "x must be numbers",
    ),
    "replicates in words": (
        lambda: designs.Hadamard(replicates="a"), ValueError, "replicates must be a whole number",
    ),
    "a design's solver by name": (
        lambda: designs.Hadamard(solver="huber"), TypeError, "an object such as Huber()",
    ),
    "directions in words": (lambda: designs.Directions("a"), TypeError, "rows must be numbers"),
    "rcond in words": (lambda: solvers.Pinv(rcond="a"), TypeError, "rcond must be numbers"),
    "c in words": (lambda: solvers.Huber(c="a"), TypeError, "c must be numbers"),
    "eps in words": (
        lambda: solvers.ConsistentSet(np.eye(3), np.eye(3), "a"), TypeError, "norm of the errors",
    ),
    # -- reports and forecasts of fits
    "names of others": (
        lambda: FIT.report(names=["a"]), ValueError, "names has 1 words for 2 parameters",
    ),
    "names twice": (lambda: FIT.report(names=["a", "a"]), ValueError, "'a' more than once"),
    "names as numbers": (lambda: FIT.report(names=[1, 2]), TypeError, "names must be words"),
    "units by name": (
        lambda: FIT.report(units={"a": "m"}), ValueError, "units has the keys ['a'], but the",
    ),
    "data of another shape": (
        lambda: FIT.report(data=[1.0, 2.0]), ValueError, "data has shape (2,)",
    ),
    "data all the same": (lambda: FIT.report(data=1.0), ValueError, "data are all the same"),
    "data with a hole": (
        lambda: FIT.report(data=[1.0, np.nan, 3.0]), ValueError, "data must be finite",
    ),
    "a kind of no covariance": (
        lambda: FIT.report(kind="white"), ValueError, "kind='white' is unknown",
    ),
    "a correlation above 1": (
        lambda: FIT.report(min_correlation=2), ValueError, "min_correlation must be from 0 to 1",
    ),
    "combinations in units of 0": (
        lambda: FIT.report(x_scale=0), ValueError, "x_scale must be positive",
    ),
    "a forecast in words": (lambda: FIT.predict("f"), TypeError, "the matrix of a forecast"),
    "a forecast by others": (
        lambda: FIT.predict(np.eye(3)), ValueError, "a finite real matrix of 2 columns",
    ),
    "sigma below 0": (
        lambda: FIT.predict([1.0, 1.0], sigma=-1), ValueError, "sigma must be finite and not neg",
    ),
    "a forecast's sigma of another shape": (
        lambda: FIT.predict(np.eye(2), sigma=np.ones(3)), ValueError, "sigma has shape (3,)",
    ),
    "a level in percent": (
        lambda: FIT.predict([1.0, 1.0]).confidence_interval(95), ValueError, "0.95 means 95 %",
    ),
    "few draws": (
        lambda: FIT.predict([1.0, 1.0], sampling=1), ValueError, "whole number of 2 or more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_a_clear_error(name):
    call, error, words = MISTAKES[name]
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert words in message
    # Ours or Python's own for a signature: no numpy or scipy internals come through.
    last = caught.traceback[-1].path
    assert "gradiator_np" in str(last) or name == "an unknown option"


def test_nothing_runs_before_the_arguments_make_sense():
    def never(x):
        raise AssertionError("fun was called")

    for options in (
        {"method": "central"}, {"rel_step": 0}, {"bounds": (9, 0)}, {"on_error": "skip"},
        {"workers": 0}, {"kwargs": [1]}, {"run": True}, {"noise": "low"}, {"max_nfev": 0},
        {"x_scale": -1}, {"batch_dims": -1}, {"atol": 0},
    ):  # fmt: skip
        for call in (
            lambda: jacobian(never, X, **options),  # noqa: B023
            lambda: linearize(never, X, **options),  # noqa: B023
            lambda: prepare(never, X, **options),  # noqa: B023
        ):
            with pytest.raises((TypeError, ValueError)):
                call()
