"""Products with stacks of Jacobians against einsum, on both sides of the size where BLAS starts."""

import numpy as np
import pytest

from gradiator_np.kernels import products

pytestmark = pytest.mark.kernel
EPS = np.finfo(float).eps


def stack(rng, dtype, *shape):
    a = rng.standard_normal(shape)
    return a + 1j * rng.standard_normal(shape) if dtype is complex else a


@pytest.mark.parametrize("jac_dtype", [float, complex])
@pytest.mark.parametrize("vec_dtype", [float, complex])
@pytest.mark.parametrize(
    "b, q, n, m",
    [(1, 1, 1, 1), (5, 1, 3, 2), (4, 3, 8, 8), (3, 2, 13, 5), (3, 2, 9, 11), (0, 1, 2, 2)],
)
def test_products_equal_einsum(b, q, n, m, vec_dtype, jac_dtype):
    """8 x 8 is the last size of the kernels, 13 x 5 the first of BLAS."""
    rng = np.random.default_rng(1)
    jac = stack(rng, jac_dtype, b, n, m)
    u, v = stack(rng, vec_dtype, b, q, m), stack(rng, vec_dtype, b, q, n)
    # Two sums of at most max(n, m) products (four real ones for complex): each is within
    # gamma = 4 * size * eps of the sum of magnitudes.
    tol = 2 * 4 * max(n, m) * EPS
    for got, expected, size in (
        [
            (
                products.jvp(jac, u),
                np.einsum("bij,bqj->bqi", jac, u),
                (abs(jac).sum(), abs(u).max()),
            ),
            (
                products.vjp(jac, v),
                np.einsum("bqi,bij->bqj", v, jac),
                (abs(jac).sum(), abs(v).max()),
            ),
        ]
        if b
        else []
    ):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=0, atol=tol * size[0] * size[1])
    assert products.jvp(jac, u).shape == (b, q, n)
    assert products.vjp(jac, v).shape == (b, q, m)


def test_dot_identity_without_a_conjugate():
    """v^T (J u) == (v^T J) u, also for complex numbers."""
    rng = np.random.default_rng(2)
    jac, u, v = (stack(rng, complex, 6, *s) for s in [(4, 3), (1, 3), (1, 4)])
    left = np.einsum("bqi,bqi->b", v, products.jvp(jac, u))
    right = np.einsum("bqj,bqj->b", products.vjp(jac, v), u)
    # 12 products of three factors on either side; magnitudes add up to |v| |J| |u|.
    size = np.einsum("bqi,bij,bqj->b", abs(v), abs(jac), abs(u))
    assert np.all(abs(left - right) <= 2 * 4 * 12 * EPS * size)


def test_strided_float32_and_integer_stacks_are_coerced():
    rng = np.random.default_rng(3)
    jac = np.asfortranarray(rng.integers(-9, 9, (4, 3, 2)))
    u = rng.integers(-9, 9, (4, 4, 2)).astype(np.float32)[:, ::2]
    # Small integers: every product and sum is exact.
    np.testing.assert_array_equal(products.jvp(jac, u), np.einsum("bij,bqj->bqi", jac, u))


def test_the_kernels_overwrite_what_the_output_held():
    """Results do not depend on garbage in the output array."""
    jac, u, v = np.ones((2, 2, 3)), np.ones((2, 1, 3)), np.ones((2, 1, 2))
    out = np.full((2, 1, 2), np.nan)
    products.jvp_kernel(jac, u, out)
    np.testing.assert_array_equal(out, 3.0)
    out = np.full((2, 1, 3), np.nan)
    products.vjp_kernel(jac, v, out)
    np.testing.assert_array_equal(out, 2.0)
