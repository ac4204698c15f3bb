"""Runs that fail: nothing else is lost, nothing is silently wrong."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import (
    EvaluationError,
    GradiatorWarning,
    Status,
    designs,
    jacobian,
    linearize,
    prepare,
    vjp,
)

EPS = np.finfo(float).eps
X = np.array([1.0, 2.0, 3.0, 4.0])


def square(x):
    return np.array([x[0] * x[1], x[2] ** 2, x[3] ** 3])


EXACT = np.array([[2.0, 1, 0, 0], [0, 0, 6, 0], [0, 0, 0, 48]])


class Fails:
    """``square``, failing where ``when(x)`` says so."""

    def __init__(self, when, how="raise"):
        self.when, self.how, self.calls = when, how, 0

    def __call__(self, x):
        self.calls += 1
        out = square(x)
        if self.when(x):
            if self.how == "raise":
                raise ValueError("did not converge")
            out[1] = np.nan
        return out


@pytest.mark.parametrize("method", ["2-point", "3-point", "5-point", "9-point"])
@pytest.mark.parametrize("how", ["raise", "nan"])
def test_a_failing_side_is_worked_around(method, how):
    fun = Fails(lambda x: x[2] > 3.0, how)
    with pytest.warns(GradiatorWarning, match="failed_runs"):
        estimate = jacobian(fun, X, method=method)
    assert estimate.n_failed >= 1
    assert estimate.nfev == fun.calls
    assert estimate.status == Status.FAILED_RUNS
    assert np.isfinite(estimate.jac).all()
    assert not np.isinf(estimate.stderr).any()
    # One-sided or drawn in, the stencil keeps its order; square and cube are within it but for
    # 2-point. Rounding eps f / h with weights of a one-sided stencil of order 8, below 300.
    tol = {"2-point": 1e-6, "3-point": 1e-6}.get(method, 1e-9)
    assert_allclose(estimate.jac, EXACT, atol=tol)


def test_outputs_fail_one_by_one():
    """A nan in output 1 must not spoil output 0 and 2."""
    fun = Fails(lambda x: x[2] != 3.0, "nan")
    with pytest.warns(GradiatorWarning):
        estimate = jacobian(fun, X, method="3-point")
    assert np.isinf(estimate.stderr[1, 2])
    assert np.isinf(estimate.stderr).sum() == 1
    keep = ~np.isinf(estimate.stderr)
    assert_allclose(estimate.jac[keep], EXACT[keep], atol=1e-7)
    assert np.isinf(estimate.jvp_stderr([0, 0, 1.0, 0])[1])
    assert not np.isinf(estimate.jvp_stderr([1.0, 1, 0, 1])).any()
    assert np.isinf(estimate.vjp_stderr([0, 1.0, 0])[2])
    assert not np.isinf(estimate.vjp_stderr([1.0, 0, 1])).any()


def test_an_output_that_fails_at_x_itself_costs_only_itself():
    def fun(x):
        return np.array([x[0] ** 2, np.nan if (x == X).all() else x[1] ** 2])

    with pytest.warns(GradiatorWarning):
        central = jacobian(fun, X, method="3-point")
    # A central difference does not need the value at x.
    assert_allclose(central.jac, [[2, 0, 0, 0], [0, 4, 0, 0]], atol=1e-8)


def test_drop_replaces_nothing():
    fun = Fails(lambda x: x[2] > 3.0)
    with pytest.warns(GradiatorWarning):
        estimate = jacobian(fun, X, method="2-point", on_error="drop")
    assert fun.calls == 5
    assert np.isinf(estimate.stderr[:, 2]).all()
    assert (estimate.jac[:, 2] == 0).all()
    assert not np.isinf(np.delete(estimate.stderr, 2, axis=1)).any()


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_raise_stops_at_the_first_and_keeps_the_rest(how):
    fun = Fails(lambda x: x[2] > 3.0, how)
    with pytest.raises(EvaluationError, match="on_error='raise'") as caught:
        jacobian(fun, X, method="2-point", on_error="raise")
    assert fun.calls == 1 + 3
    samples = caught.value.samples
    assert len(samples) == 4
    assert_allclose(samples.outputs[:3, 0], [2.0, 2.0, 2.0], atol=1e-6)
    assert samples.ok.tolist() == [True, True, True, False]
    if how == "raise":
        assert "did not converge" in samples.errors[3]
        assert isinstance(caught.value.__cause__, ValueError)


def test_raise_keeps_what_the_other_workers_had_begun():
    """The second of eight runs fails while the first and the third to fourth are under way: these
    come back, and every run that fun saw is in the samples."""
    x = np.arange(1.0, 9.0)
    begun, failed, four = [], threading.Event(), threading.Barrier(4)

    def fun(point):
        moved = np.flatnonzero(point != x)
        begun.append(point.copy())
        if moved.size and moved[0] < 4:
            four.wait(30)
        if moved.size and moved[0] == 1:
            failed.set()
            raise ValueError("did not converge")
        if moved.size:
            assert failed.wait(30)
        return point**2

    with ThreadPoolExecutor(4) as pool, pytest.raises(EvaluationError) as caught:
        jacobian(fun, x, method="2-point", on_error="raise", workers=pool)
    samples = caught.value.samples
    assert len(samples) == len(begun) >= 5
    assert samples.ok.tolist().count(False) == 1
    assert {p.tobytes() for p in samples.points} == {p.tobytes() for p in begun}


def test_a_bug_in_fun_is_raised_at_once():
    def bug(x):
        if (x != X).any():
            raise KeyError("typo")
        return square(x)

    with pytest.raises(EvaluationError, match="bug in fun"):
        jacobian(bug, X)
    with pytest.raises(EvaluationError, match="bug in fun") as caught:
        jacobian(bug, X, method="3-point")
    # x, three points, one on the other side.
    assert len(caught.value.samples) == 4
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(EvaluationError, match="failed at x itself") as caught:
        jacobian(lambda x: 1 / 0, X)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(EvaluationError, match="every output"):
        jacobian(lambda x: x * np.nan, X)


def test_a_failing_half_space_is_no_bug():
    """All forward points fail alike, all backward ones do not."""

    def half(x):
        if (x > X).any():
            raise ValueError("domain")
        return square(x)

    with pytest.warns(GradiatorWarning):
        estimate = jacobian(half, X, method="2-point")
    assert_allclose(estimate.jac, EXACT, atol=1e-5)


def test_the_traceback_is_the_users():
    with pytest.warns(GradiatorWarning):
        estimate = jacobian(Fails(lambda x: x[2] > 3.0), X, method="2-point")
    (text,) = estimate.samples.errors.values()
    assert "did not converge" in text
    assert "evaluate.py" not in text


def test_nothing_is_lost_to_an_interrupt():
    def stop(x):
        if x[3] > 4.0:
            raise KeyboardInterrupt
        return square(x)

    with pytest.raises(KeyboardInterrupt) as caught:
        jacobian(stop, X, method="2-point")
    assert len(caught.value.samples) == 4
    assert "4 evaluations" in caught.value.__notes__[0]


def test_no_sample_is_invented():
    """The last replacements round to nothing before they are run: nothing is told for them."""
    points = []

    def fun(x):
        points.append(x.copy())
        return np.where(x == 1.0, x, np.nan)

    _, lin = linearize(fun, [1.0], method="3-point", rel_step=5e-16)
    with pytest.raises(ValueError, match="rounds to nothing") as caught:
        lin.jvp([1.0])
    samples = caught.value.samples
    assert len(samples) == len(points) == lin.nfev
    assert samples.ok.sum() == 1


class Lost:
    """A design that fails in a method of its plan, after all its rows have been run."""

    needs_value, draws = False, False

    def __init__(self, fails):
        self.fails = fails

    def start(self, problem, learned=None):
        return LostPlan(self.fails, designs.Stencil("2-point").start(problem))


class LostPlan:
    name, learned = "lost", None

    def __init__(self, fails, plan):
        self.fails, self.plan, self.step = fails, plan, plan.step

    def ask(self, rows):
        if self.fails == "ask" and len(rows.done):
            raise ZeroDivisionError("in the design")
        return self.plan.ask(rows)

    def solve(self, rows):
        raise ZeroDivisionError("in the design")


@pytest.mark.parametrize("fails", ["ask", "solve"])
@pytest.mark.parametrize("call", [jacobian, lambda f, x, **o: prepare(f, x, **o)(x)])
def test_nothing_is_lost_to_an_error_of_the_design(fails, call):
    with pytest.raises(ZeroDivisionError) as caught:
        call(square, X, method=Lost(fails))
    assert len(caught.value.samples) == 5
    assert "5 evaluations" in caught.value.__notes__[0]


def test_a_value_given_is_among_the_samples_but_no_run():
    def stop(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        jacobian(stop, X, method="2-point", f0=square(X))
    assert len(caught.value.samples) == 1
    assert "1 evaluations" in caught.value.__notes__[0]


def test_a_changed_shape_or_type_is_a_failed_run():
    def fickle(x):
        if x[2] > 3.0:
            return np.array([1.0])  # would broadcast
        if x[3] > 4.0:
            return square(x) + 1j
        return square(x)

    with pytest.warns(GradiatorWarning):
        estimate = jacobian(fickle, X, method="2-point")
    texts = " ".join(estimate.samples.errors.values())
    assert "shape (1,)" in texts
    assert "complex" in texts
    assert_allclose(estimate.jac, EXACT, atol=1e-5)


def test_vectorized_failures_are_found_by_halves():
    calls = []

    def rows(p):
        calls.append(len(p))
        if (p[:, 2] > 3.0).any():
            raise ValueError("one of them")
        return np.stack([p[:, 0] * p[:, 1], p[:, 2] ** 2, p[:, 3] ** 3], axis=1)

    with pytest.warns(GradiatorWarning):
        estimate = jacobian(rows, X, method="2-point", vectorized=True)
    assert_allclose(estimate.jac, EXACT, atol=1e-5)
    assert estimate.n_failed == 1
    with pytest.raises(ValueError, match=r"\(k, \*y.shape\)"):
        jacobian(lambda p: p.T, X, vectorized=True)


def test_jitted_failures_keep_the_other_runs():
    numba = pytest.importorskip("numba")

    @numba.njit
    def fun(x):
        if x[2] > 3.0:
            raise ValueError("inside")
        return x**2

    with pytest.warns(GradiatorWarning):
        estimate = jacobian(fun, X, method="2-point")
    assert_allclose(estimate.jac, np.diag(2 * X), atol=1e-5)
    assert "inside" in next(iter(estimate.samples.errors.values()))


def test_random_failures_keep_full_rank():
    rng = np.random.default_rng(5)
    with pytest.warns(GradiatorWarning):
        estimate = jacobian(Fails(lambda x: (x != X).any() and rng.random() < 0.3), X,
                            method="5-point")  # fmt: skip
    assert not np.isinf(estimate.stderr).any()
    # Lines that lost points are of lower order: h^2 f'''/6 at h = 1e-3 x 4, f''' = 6.
    assert_allclose(estimate.jac, EXACT, atol=1e-4)


def by_chance(seed, share, level, single):
    """Three squares and a product of which runs, or ``single`` outputs, fail by chance."""
    rng = np.random.default_rng(seed)
    came_back = [0]

    def fun(x):
        y = np.array([x[0] ** 2, x[1] ** 2, x[2] ** 2, x[0] * x[3]])
        y += level * rng.standard_normal(4)
        lost = np.broadcast_to(rng.random(4 if single else 1) < share, 4)
        came_back[0] += not lost.any()
        return np.where(lost, np.nan, y)

    return fun, came_back


JAC4 = np.array([[2.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 6, 0], [4, 0, 0, 1]])


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("share, level", [(0.05, 0.0), (0.3, 0.0), (0.3, 1e-4), (0.6, 1e-4)])
def test_chance_costs_runs_and_not_the_answer(share, level, single):
    """Of 16 calls: entries off by more than five bars in at most 1 % of calls, of which two of 16
    are exceeded in one seed of 2000; bars of a tenth of the row in 5 %, of which five are; more
    runs that came back than the default's evaluations in 2 %, of which three are. Where six of ten
    outputs fail bars are wide in 10 %, and seven are exceeded in one of 2000; the first eight
    runs, one on the other side and more at x fail all in 2.5 %, and three do in one of 1500.
    """
    wrong = wide = beyond = raised = 0
    for seed in range(16):
        fun, came_back = by_chance(seed, share, level, single)
        try:
            estimate = jacobian(fun, X, rng=seed)
        except EvaluationError:
            raised += 1
            continue
        error = np.abs(estimate.jac - JAC4)
        wrong += not (error <= 5 * estimate.stderr + 1e-9).all()
        row = np.sqrt(np.square(JAC4).sum(axis=1, keepdims=True))
        wide += not (estimate.stderr < 0.1 * row).all()
        beyond += came_back[0] > 5 * 4 + 10
    assert wrong <= 2
    assert wide <= (7 if share == 0.6 else 5)
    assert beyond <= 3
    assert raised <= (3 if share == 0.6 else 0)


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("most", [12, 25, 60])
def test_the_limit_of_the_caller_counts_every_run(most):
    for seed in range(10):
        fun, _ = by_chance(seed, 0.3, 1e-4, False)
        assert jacobian(fun, X, f0=square(X).repeat(2)[:4], rng=seed, max_nfev=most).nfev <= most


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_an_output_that_fails_at_x_by_chance_is_run_again():
    calls = [0]

    def fun(x):
        calls[0] += 1
        return np.array([np.nan if calls[0] == 1 else x[0] ** 2, x[1] ** 3])

    estimate = jacobian(fun, X)
    assert estimate.status == Status.FAILED_RUNS
    assert_allclose(estimate.jac[:, :2], np.diag([2.0, 12.0]), rtol=1e-8)
    calls[0] = 0
    twice = jacobian(lambda x: fun(x) * (1 + 2j), X)
    assert_allclose(twice.jac, estimate.jac * (1 + 2j), rtol=1e-8, atol=1e-8)
    dead = jacobian(lambda x: np.array([np.nan, x[1] ** 3]), X)
    alone = jacobian(lambda x: np.array([x[1] ** 3]), X)
    assert dead.nfev <= alone.nfev + 1
    assert_allclose(dead.jac[1], alone.jac[0], rtol=1e-8)


X6 = np.array([1.2, 0.7, 2.0, 1.5, 0.3, 1.1])


def squares_on_one_side(side, level, seed):
    """Squares with noise of which each fails on one side of its own input, estimated at X6."""
    noise = np.random.default_rng(seed)

    def fun(z):
        return np.where(side * z > side * X6, np.nan, z**2 + level * noise.standard_normal(6))

    estimate = jacobian(fun, X6, rng=seed)
    assert estimate.nfev <= 9 * 6 + 10
    return estimate


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("side", [1, -1])
def test_every_output_fails_on_a_side_of_its_own_input(side):
    """No direction at random works at both ends: the pilot goes all up or all down."""
    estimate = squares_on_one_side(side, 0.0, 0)
    error = np.abs(estimate.jac - np.diag(2 * X6))
    assert error.max() < 1e-9
    assert (error <= 12 * estimate.stderr).all()


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("side", [1, -1])
def test_every_output_fails_on_a_side_with_noise(side):
    """One-sided rules of second order balance noise and curvature at an error of some
    level^(2/3).

    The largest error of 36 entries was beyond 10 of these in 0.12 of 200 calls upwards and in 0.015
    downwards, with bars that say so: 95 % intervals held 0.993 and 0.904 of the entries of a call
    (sd 0.06), 99.99 % intervals lost one in 0 and 5 of 200. So of 20 calls: the median is beyond
    with probability 4e-5, the share held is below 0.85 with 1e-4, five calls lose one with 2e-4.
    """
    level, truth = 1e-4, np.diag(2 * X6)
    largest, held, lost = [], [], 0
    for seed in range(20):
        estimate = squares_on_one_side(side, level, seed)
        error = np.abs(estimate.jac - truth)
        largest.append(error.max())
        low, high = estimate.confidence_interval(0.95)
        held.append(np.mean((low <= truth) & (truth <= high)))
        low, high = estimate.confidence_interval(0.9999)
        lost += not ((low <= truth) & (truth <= high)).all()
    assert np.median(largest) < 10 * level ** (2 / 3)
    assert np.mean(held) > 0.85
    assert lost < 5


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_one_input_that_fails_on_one_side():
    estimate = jacobian(lambda z: np.where(z > 1.0, np.nan, z**2), 1.0)
    assert abs(estimate.jac - 2) < 1e-9
    assert abs(estimate.jac - 2) <= 4 * estimate.stderr


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_infinite_outputs_count_as_failed():
    estimate = jacobian(lambda z: np.array([np.inf, z[0] * z[1]]), [1.0, 2.0])
    assert np.isinf(estimate.stderr[0]).all()
    np.testing.assert_allclose(estimate.jac[1], [2, 1], rtol=1e-9)


def test_sizes_without_squares():
    """Inputs are refused where variances would overflow; outputs that are small beside others are
    0, and cost those nothing."""
    large = jacobian(lambda z: 1e300 * np.sin(z), [1.0])
    assert_allclose(large.jac, [[1e300 * np.cos(1)]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"x has the size 1e\+300"):
        jacobian(lambda z: z / 1e300, [1e300, 1.0])
    estimate = jacobian(lambda z: np.array([1e-300 * np.sin(z[0]), np.sin(z[1])]), [1.0, 2.0])
    assert_allclose(estimate.jac, [[0, 0], [0, np.cos(2)]], atol=1e-10)
    assert (np.abs(estimate.jac - [[1e-300, 0], [0, np.cos(2)]]) <= 3 * estimate.stderr).all()

    def grows(z):
        return z**3 if z[0] < 11.5 else np.array([np.inf])

    with pytest.warns(GradiatorWarning, match="failed"):
        estimate = jacobian(grows, [11.0])
    assert_allclose(estimate.jac, [[363]], rtol=1e-6)
    assert np.isinf(estimate.samples.outputs).any()


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_failing_output_spoils_only_cotangents_that_weigh_it(vectorized):
    def half(x):
        failed = np.where(x[..., 1] == 2.0, 1.0, np.nan)
        return np.stack([x[..., 0] * x[..., 1], failed], axis=-1)

    with pytest.warns(GradiatorWarning):
        product = vjp(
            half, X[:3], [[1.0, 0], [0, 1], [2, 0]], method="3-point", vectorized=vectorized
        )
    assert_allclose(product.value[[0, 2]], [[2, 1, 0], [4, 2, 0]], atol=1e-9)
    assert np.isinf(product.stderr[1, 1])
    assert not np.isinf(product.stderr[[0, 2]]).any()


def test_a_failure_where_an_input_is_fixed_at_one_point_of_the_batch():
    x = np.array([[1.0, 2.0], [1.0, 2.0]])
    lower, upper = np.array([[1.0, -9], [-9, -9]]), np.array([[1.0, 9], [9, 9]])

    def fails(z):
        if (z[1, 0] != 1.0).any():
            raise ValueError("stiff")
        return z**2

    with pytest.warns(GradiatorWarning):
        estimate = jacobian(fails, x, method="3-point", bounds=(lower, upper), batch_dims=1)
    assert np.isinf(estimate.stderr[:, :, 0]).all()
    assert_allclose(estimate.jac[:, 1, 1], 4, atol=1e-8)


def test_what_ran_already_may_fill_several_parts():
    """Values of 8 MiB: points are handed over eight at a time, ten have been run."""
    calls = []

    def big(x):
        calls.append(1)
        if x[9] > 1:
            raise ValueError("stiff")
        return np.full(2**20, x.sum())

    with pytest.warns(GradiatorWarning):
        estimate = jacobian(big, np.ones(10), method="2-point")
    assert estimate.nfev == len(calls) == 12
    assert_allclose(estimate.jac[0], 1, atol=1e-6)

    def stop(x):
        if x[8] > 1:
            raise KeyboardInterrupt
        return np.full(2**20, x.sum())

    with pytest.raises(KeyboardInterrupt) as caught:
        jacobian(stop, np.ones(10), method="2-point")
    assert len(caught.value.samples) == 9


def test_masked_outputs_are_failed_outputs():
    with pytest.warns(GradiatorWarning):
        estimate = jacobian(lambda x: np.ma.masked_greater(x**2, 8.0), X[:3], method="2-point")
    assert np.isinf(estimate.stderr[2]).all()
    assert_allclose(estimate.jac[:2, :2], [[2, 0], [0, 4]], atol=1e-6)
    with pytest.raises(ValueError, match="finite"):
        jacobian(square, np.ma.masked_equal(X, 2.0), method="2-point")


def test_an_exception_that_cannot_be_printed():
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError

    def fails(x):
        raise Odd

    with pytest.raises(EvaluationError, match="Odd"):
        jacobian(fails, X[:3], method="2-point")


def test_a_batch_that_is_fixed_throughout():
    x = np.ones((3, 2))
    estimate = jacobian(lambda z: z**2, x, batch_dims=1, bounds=(x, x), method="2-point")
    assert estimate.nfev == 1
    assert np.isinf(estimate.stderr).all()
    assert_array_equal(estimate.jac, 0)
