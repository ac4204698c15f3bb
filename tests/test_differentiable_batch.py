"""Batches of a differentiable function: bounds, fixed inputs, points next to 0, training."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np._differentiable.batch import scale_in_batch
from gradiator_np._differentiable.function import gradiator
from gradiator_np._structure import Layout

#: Twice what each method leaves of slopes up to 6 of the functions here: eps^(1/2), eps^(2/3) and
#: eps^(4/5) times a few; the default reaches 1e-9 where nothing is noisy.
WITHIN = {"auto": 1e-7, "2-point": 1e-6, "3-point": 1e-7, "5-point": 1e-7, "cs": 1e-12}


def sums(x):
    return np.exp(x).cumsum(axis=-1)


def slopes(x):
    return np.tril(np.ones((x.shape[-1],) * 2)) * np.exp(x)[..., None, :]


@pytest.mark.parametrize("method", WITHIN)
@pytest.mark.parametrize(
    "x",
    [
        [[0.0, 0.0], [1.0, 1.0]],
        [[0.0, 1.0], [1.0, 0.0]],
        [[0.0, 0.3], [1.0, 0.7], [0.5, 0.5]],
        [[1.0, 0.0], [0.5, 1.0], [0.0, 0.5], [1.0, 1.0]],
    ],
    ids=["opposite", "crossed", "three", "four"],
)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), "each"])
def test_points_at_opposite_bounds(x, bounds, method):
    x = np.array(x)
    if bounds == "each":
        bounds = (np.zeros(x.shape), np.ones(x.shape))
    seen = []

    def fun(z):
        seen.append(z.copy())
        return sums(z)

    v = np.array([1.0, -0.5]) + 0 * x
    f = gradiator(fun, batch_dims=1, bounds=bounds, method=method)
    want = np.einsum("bij,bi->bj", slopes(x), v)
    assert_allclose(f.vjp(x, v), want, rtol=0, atol=WITHIN[method])
    # u and -u lead out of bounds at some of the points: inputs move one by one there
    want = np.einsum("bij,bj->bi", slopes(x), v)
    assert_allclose(f.jvp(x, v), want, rtol=0, atol=WITHIN[method])
    assert all((np.real(z) >= 0).all() and (np.real(z) <= 1).all() for z in seen)


@pytest.mark.parametrize("method", ["2-point", "3-point", "cs"])
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_an_input_that_is_fixed_at_one_point(method, outputs):
    """Its derivative there is 0 by intent; the mask is of points and inputs, not of outputs."""
    x = np.array([[0.2, 0.3], [0.6, 0.7], [0.4, 0.5]])
    low, high = np.zeros((3, 2)), np.ones((3, 2))
    low[0, 0] = high[0, 0] = 0.2
    weights = np.arange(1.0, 1 + 2 * outputs).reshape(outputs, 2)
    f = gradiator(lambda z: np.exp(z) @ weights.T, batch_dims=1, bounds=(low, high), method=method)
    want = np.exp(x) * weights.sum(axis=0)
    want[0, 0] = 0
    # slopes up to 24
    assert_allclose(f.vjp(x, np.ones((3, outputs))), want, rtol=10 * WITHIN[method])


def test_the_unit_of_a_batch():
    rng = np.random.default_rng(0)
    layout = Layout((2,), (4096,))
    # (q25 / q50)^2 of the half-normal and of the uniform law
    for draw, share in ((rng.normal, (0.3186 / 0.6745) ** 2), (rng.uniform, 0.25)):
        x = draw(size=(4096, 2))
        unit, size = scale_in_batch(x, layout), np.abs(x)
        least = unit.min(axis=0)
        assert_array_equal(unit, np.maximum(size, least))
        # log q25 of 4096 points is off by 0.03 at one standard deviation, and counts twice
        assert_allclose(least, share * np.median(size, axis=0), rtol=0.35)
    # sizes spread over decades, and two or three points, say nothing of each other
    decades = np.geomspace(1e-14, 1.0, 256)[:, None] * [1.0, 1.0]
    assert scale_in_batch(decades, layout) is None
    for few in ([[1e-12, 1.0], [1.0, 1.0]], [[1e-12, 1.0], [1.0, 1.0], [0.5, 3.0]], [[1.0, 0.0]]):
        assert scale_in_batch(np.array(few), Layout((2,), (len(few),))) is None


@pytest.mark.parametrize("method", ["auto", "2-point", "3-point"])
@pytest.mark.parametrize("rest", [[[1.0, 0.6]], [[1.0, 0.6], [0.7, 0.3]]], ids=["two", "three"])
@pytest.mark.parametrize("tiny", [1e-12, -1e-20])
def test_a_point_whose_steps_drown_is_told(tiny, rest, method):
    """Steps of 1e-12 change 1 + x by some 1e4 roundings times the step's share of x: no slope."""

    def fun(z):
        return np.sin(3 * z) + np.exp(z).sum(axis=-1, keepdims=True)

    x = np.array([[tiny, 0.5], *rest])
    f = gradiator(fun, batch_dims=1, method=method)
    with pytest.warns(match="unresolved"):
        f.vjp(x, np.ones(x.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # where the points are alike there is nothing to tell
        f.vjp(np.abs(x) + 0.1, np.ones(x.shape))


def test_zeros_get_the_unit_of_their_input():
    x = np.array([[0.0, 5.0, 0.0], [1e-14, 5.0, 0.0], [2e-14, 6.0, 0.0]])
    unit = scale_in_batch(x, Layout((3,), (3,)))
    assert_allclose(unit[0, 0], 1e-14)  # where it lives, whatever the other inputs are
    assert_allclose(unit[:, 2], [2.5, 2.5, 3.0])  # 0 everywhere: as in `jacobian`, from the others
    assert_array_equal(unit[:, 1], x[:, 1])


@pytest.mark.parametrize("method", ["auto", "2-point", "3-point"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 32, 256])
def test_gradients_of_batches_against_the_exact_ones(size, dtype, method):
    """Points next to 0 among them: a batch of 256 normal ones has some at 1e-3."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 3))
    x = np.sign(x := rng.normal(size=(size, 3))) * np.maximum(np.abs(x), 1e-3)
    x = x.astype(dtype)

    def fun(z):
        return np.tanh(z @ a.T.astype(z.dtype))

    with warnings.catch_warnings():
        # a wiggle of single precision is told, and nothing else
        warnings.filterwarnings("ignore", "two_scales")
        got = gradiator(fun, batch_dims=1, method=method).vjp(x, np.ones((size, 3)))
    want = (1 - np.square(np.tanh(x.astype(float) @ a.T))) @ a
    # Rounding over steps of a tenth of the median or more: float32's 6e-8 of the value and as much
    # of the sum of products, over 3e-4 ("2-point") or 5e-3 (others) times 0.1, 3 outputs added.
    single = {"auto": 1e-2, "2-point": 2e-2, "3-point": 2e-3}
    within = single if dtype == np.float32 else WITHIN
    if size == 1:  # one point has nothing but |x|, 1e-3 or more
        within = {name: 100 * bound for name, bound in within.items()}
    assert_allclose(got, want, rtol=0, atol=within[method])
