"""Identities that hold whatever the function: linearity, shapes, names, batches, units, order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import JacobianEstimator, jacobian, jvp, vjp

# Failed runs are worked around, as they should be.
pytestmark = pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")

EPS = np.finfo(float).eps
METHODS = st.sampled_from(["2-point", "3-point", "5-point", "9-point"])
# Signed and away from 0, where an input has no scale of its own.
COORDINATES = st.floats(0.125, 8).flatmap(lambda a: st.sampled_from([a, -a]))
POINTS = arrays(float, 3, elements=COORDINATES)
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=25, deadline=None)


def smooth(seed):
    """A smooth function of three inputs, four outputs between -1 and 1, on leading axes."""
    a = np.random.default_rng(seed).standard_normal((4, 3)) / 8
    # No matrix product: its sums may differ in the last bit from one point to many.
    return lambda x: np.sin((a * x[..., None, :]).sum(-1) + 1)


def bits(estimate):
    return estimate.solution.coef, estimate.solution.cov.stderr()


@FEW
@given(x=POINTS, seed=SEEDS, a=st.floats(-4, 4), b=st.floats(-4, 4), method=METHODS)
def test_linear_in_the_function(x, seed, a, b, method):
    f, g = smooth(seed), smooth(seed + 1)
    both = jacobian(lambda z: a * f(z) + b * g(z), x, method=method).jac
    each = [jacobian(h, x, method=method) for h in (f, g)]
    # The same points and weights: only rounding of values, 3 eps (|a| + |b|), is divided by the
    # step; the weights of the longest stencil add up to less than 4 / h.
    tol = 4 * 3 * EPS * (abs(a) + abs(b) + 1e-300) / each[0].step
    assert (np.abs(both - a * each[0].jac - b * each[1].jac) <= tol).all()


@FEW
@given(x=POINTS, seed=SEEDS, k=st.tuples(*[st.integers(-20, 20)] * 3), method=METHODS)
def test_units_that_are_powers_of_two(x, seed, k, method):
    """Steps scale with x, so scaled inputs see the same points: to the last bit."""
    f, unit = smooth(seed), 2.0 ** np.array(k)
    here = jacobian(f, x, method=method)
    there = jacobian(lambda z: f(z / unit), x * unit, method=method)
    assert_array_equal(there.jac * unit, here.jac)
    assert_array_equal(there.step, here.step * unit)
    assert_array_equal(there.stderr * unit, here.stderr)


@FEW
@given(x=POINTS, seed=SEEDS, k=st.integers(-20, 20), method=METHODS)
def test_outputs_in_units_that_are_powers_of_two(x, seed, k, method):
    f = smooth(seed)
    scaled = jacobian(lambda z: 2.0**k * f(z), x, method=method)
    assert_array_equal(scaled.jac, 2.0**k * jacobian(f, x, method=method).jac)


@FEW
@given(x=POINTS, seed=SEEDS, order=st.permutations(range(3)), method=METHODS)
def test_permuted_inputs_permute_columns(x, seed, order, method):
    f, order = smooth(seed), np.array(order)
    back = np.argsort(order)
    here = jacobian(f, x, method=method)
    there = jacobian(lambda z: f(z[back]), x[order], method=method)
    assert_array_equal(there.jac, here.jac[:, order])
    assert_array_equal(there.stderr, here.stderr[:, order])


@FEW
@given(x=arrays(float, 6, elements=COORDINATES), method=METHODS, data=st.data())
def test_shapes_permute_nothing(x, method, data):
    shapes = st.sampled_from([(6,), (2, 3), (3, 2), (1, 6), (3, 1, 2)])
    x_shape, y_shape = data.draw(shapes), data.draw(shapes)

    def flat(z):
        return np.sin(z + np.roll(z, 1))

    plain = jacobian(flat, x, method=method)
    shaped = jacobian(
        lambda z: flat(z.reshape(-1)).reshape(y_shape), x.reshape(x_shape), method=method
    )
    assert_array_equal(shaped.jac, plain.jac.reshape(y_shape + x_shape))
    assert_array_equal(shaped.stderr, plain.stderr.reshape(y_shape + x_shape))


@FEW
@given(x=POINTS, seed=SEEDS, method=METHODS, failing=st.booleans())
def test_a_dict_is_its_flat_vector(x, seed, method, failing):
    f = smooth(seed)

    def flat(z):
        y = f(z)
        y[1] = np.nan if failing and z[2] > x[2] else y[1]
        return y

    def named(d):
        y = flat(np.append(d["a"], d["b"]))
        return {"p": y[0], "q": {"r": y[1:3], "s": y[3:]}}

    plain = jacobian(flat, x, method=method)
    dicts = jacobian(named, {"a": x[:2], "b": x[2]}, method=method)
    assert dicts.jac["p"]["b"].shape == ()
    assert dicts.jac["q"]["r"]["a"].shape == (2, 2)
    for one, other in zip(bits(plain), bits(dicts)):
        assert_array_equal(one, other)
    assert_array_equal(dicts.jac["q"]["r"]["a"], plain.jac[1:3, :2])


@FEW
@given(
    x=arrays(float, (2, 2, 3), elements=COORDINATES),
    seed=SEEDS,
    method=METHODS,
    room=arrays(float, (2, 2, 2, 3), elements=st.sampled_from([0.0, 1e-3, 1.0, np.inf])),
    failing=st.booleans(),
)
def test_a_batch_is_a_loop(x, seed, method, room, failing):
    """Bounds, fixed inputs and failed outputs included."""
    f = smooth(seed)
    bounds = (x - room[0], x + room[1])

    def run_around(centre):
        def run(z):
            y = f(z)
            if failing:
                y[..., 1] = np.where(z[..., 0] > centre[..., 0], np.nan, y[..., 1])
            return y

        return run

    # Replacements would be made at all points of the batch where one failed.
    options = {"method": method, "on_error": "drop"}
    batch = jacobian(run_around(x), x, batch_dims=2, bounds=bounds, **options)
    for i in np.ndindex(2, 2):
        here = (bounds[0][i], bounds[1][i])
        one = jacobian(run_around(x[i]), x[i], bounds=here, **options)
        assert_array_equal(batch.step[i], one.step)
        # A stencil that lost nothing takes a shorter way to the same weights: 16 roundings of
        # terms that add up to less than 300 times a slope below 1.
        assert_allclose(batch.jac[i], one.jac, atol=16 * 300 * EPS)
        assert_allclose(batch.stderr[i], one.stderr, atol=16 * 300 * EPS)


@FEW
@given(x=POINTS, seed=SEEDS, method=METHODS, failing=st.booleans(), kind=st.integers(0, 2))
def test_vectorized_and_mapped_are_the_loop(x, seed, method, failing, kind):
    f = smooth(seed)

    def run(z):
        y = f(z)
        if failing:
            y[..., 2] = np.where(z[..., 0] > x[0], np.nan, y[..., 2])
        return y

    how = [{"vectorized": True}, {"workers": map}, {"vectorized": True, "bounds": (-99, 99)}][kind]
    loop = jacobian(run, x, method=method)
    other = jacobian(run, x, method=method, **how)
    for one, two in zip(bits(loop), bits(other)):
        assert_array_equal(one, two)
    assert other.nfev == loop.nfev
    v = np.arange(4.0)
    product = vjp(run, x, v, method=method, **how).value
    direct = vjp(run, x, v, method=method).value
    # One sum of four terms, of values below 1, in another order: over the step.
    assert_allclose(product, direct, atol=4 * 4 * 6 * EPS / loop.step.min())


@pytest.fixture(scope="module")
def jitted():
    numba = pytest.importorskip("numba")

    def python(x):
        return np.array([x[0] * x[1], x[1] / x[2], x[2] - x[0] * x[0]])

    return python, numba.njit(python)


@FEW
@given(x=POINTS, method=METHODS, room=st.sampled_from([0.0, 1e-3, np.inf]))
def test_jitted_is_python(jitted, x, method, room):
    python, compiled = jitted
    for options in ({}, {"bounds": (x - room, np.inf)}):
        one = jacobian(python, x, method=method, **options)
        other = jacobian(compiled, x, method=method, **options)
        # Products and quotients of two: the compiler may fuse x[2] - x[0] x[0], half a unit in
        # the last place of a value below 72; the weights add up to less than 300 / h.
        tol = 300 * 72 * EPS / np.where(np.isnan(one.step), np.inf, one.step)
        assert (np.abs(one.jac - other.jac) <= tol).all()
        assert_array_equal(np.isinf(one.stderr), np.isinf(other.stderr))


@FEW
@given(x=POINTS, seed=SEEDS, u=POINTS, method=METHODS)
def test_a_jvp_is_the_jacobians(x, seed, u, method):
    f = smooth(seed)
    whole, along = jacobian(f, x, method=method), jvp(f, x, u, method=method)
    order = {"2-point": 1, "3-point": 2, "5-point": 4, "9-point": 8}[method]
    # eps^(p/(p+1)) relative to inputs of size 64 |u / x|, truncation and rounding: with the
    # derivatives of sine below 1 and 3 x 8 of the scale of x over 8.
    tol = 300 * EPS ** (order / (order + 1)) * 64 * np.abs(u).max()
    assert_allclose(along.value, whole.jvp(u), atol=tol)


@FEW
@given(
    x=POINTS,
    seed=SEEDS,
    method=METHODS,
    fails=st.sets(st.integers(1, 3 * 2), max_size=4),
    known=st.booleans(),
)
def test_the_order_of_answers_does_not_matter(x, seed, method, fails, known):
    """Failures among them, parts of any size: the same points, the same bits."""
    f = smooth(seed)
    rng = np.random.default_rng(seed)

    def answer(i, point):
        if i in fails:
            return None if i % 2 else np.where(np.arange(4) == 1, np.nan, f(point))
        return f(point)

    def work(shuffled):
        est = JacobianEstimator(x, f0=f(x) if known else None, method=method)
        while True:
            points, ids = est.ask()
            if len(ids) == 0:
                return est
            order = rng.permutation(len(ids)) if shuffled else np.arange(len(ids))
            if len(order) > 1 and answer(ids[order[0]], points[order[0]]) is None:
                order = order[::-1]  # the first answer tells the shape of y
            if answer(ids[order[0]], points[order[0]]) is None and not known:
                order = np.arange(len(ids))
            parts = np.array_split(order, rng.integers(1, 4)) if shuffled else [order]
            for part in parts:
                if len(part):
                    est.tell([answer(ids[i], points[i]) for i in part], ids=ids[part])

    straight, shuffled = work(False), work(True)
    assert straight.nfev == shuffled.nfev
    assert straight.n_failed == shuffled.n_failed
    for one, other in zip(bits(straight.estimate()), bits(shuffled.estimate())):
        assert_array_equal(one, other)
    assert_array_equal(straight.samples.points, shuffled.samples.points)
    assert_array_equal(straight.samples.outputs, shuffled.samples.outputs)
