"""Patterns: every form says what it is, none is guessed, reshaped or turned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import linalg, sparse
from scipy.optimize._numdiff import approx_derivative

from gradiator_np.sparsity import (
    SparsityPattern,
    banded_pattern,
    block_diagonal_pattern,
    grid_pattern,
)

DENSE = np.array([[1, 0, 1], [0, 0, 0]], bool)


def dense_of(pattern):
    return pattern.to_csr().toarray()


@pytest.mark.parametrize(
    "form",
    [
        DENSE,
        DENSE.astype(int),
        DENSE.astype(float).tolist(),
        sparse.csr_array(DENSE),
        sparse.csc_matrix(DENSE),
        sparse.coo_array(DENSE.astype(float)),
        sparse.lil_array(DENSE),
        ([0, 0], [2, 0]),
        (np.array([0, 0, 0]), np.array([2, 0, 2])),
        SparsityPattern.of(DENSE),
    ],
    ids=lambda form: type(form).__name__,
)
def test_every_form_is_read(form):
    read = SparsityPattern.of(form, (2, 3))
    np.testing.assert_array_equal(dense_of(read), DENSE)
    assert read.indices.tolist() == [0, 2]  # sorted, each once


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)))
def test_all_forms_agree(dense):
    shape = dense.shape
    forms = [dense, dense.tolist(), sparse.coo_array(dense), np.nonzero(dense)]
    for form in forms:
        read = SparsityPattern.of(form, shape)
        np.testing.assert_array_equal(dense_of(read), dense)
        np.testing.assert_array_equal(dense_of(read.T), dense.T)
        assert read.T.T is read
        assert read.nnz == dense.sum()


def test_stored_entries_count_whatever_their_value():
    stored = sparse.csr_array((np.array([0.0, np.nan]), ([0, 1], [1, 2])), shape=(2, 3))
    assert SparsityPattern.of(stored).nnz == 2
    cancelling = sparse.coo_array(([1.0, -1.0], ([0, 0], [1, 1])), shape=(2, 3))
    assert SparsityPattern.of(cancelling).nnz == 1


def test_two_rows_are_two_rows():
    """SciPy reads a dense pattern of two rows as (structure, groups); J is wrong without a word.

    Here a list is an array and only a tuple is a pair.
    """
    pattern = [[1, 1, 0], [0, 1, 1]]

    def fun(x):
        return np.array([x[0] * x[1], x[1] * x[2]])

    x = np.array([2.0, 3.0, 5.0])
    exact = np.array([[3.0, 2.0, 0.0], [0.0, 5.0, 3.0]])
    theirs = approx_derivative(fun, x, sparsity=pattern)
    assert np.abs(theirs.toarray() - exact).max() > 1  # SciPy 1.18: the second row is lost
    np.testing.assert_array_equal(dense_of(SparsityPattern.of(pattern, (2, 3))), exact != 0)


@pytest.mark.parametrize(
    "form, text",
    [
        (DENSE.T, "shape .3, 2., which is that of the transpose"),
        (sparse.csr_array(DENSE.T), "that of the transpose"),
        (SparsityPattern.of(DENSE.T), "that of the transpose"),
        (DENSE.ravel(), "indices are given as a tuple"),
        (np.ones((2, 3, 1), bool), "indices are given as a tuple"),
        ([[0, 1, 0, 1], [0, 1, 1, 0]], "indices are given as a tuple"),
        (np.array([[2.0, 0.0, 0.0], [0, 0, 0]]), "J != 0"),
        (np.array([[np.nan, 0.0, 0.0], [0, 0, 0]]), "J != 0"),
        (([0, 1], [0, 3]), "cols lie within 0 ... 2"),
        (([0, -1], [0, 1]), "rows lie within 0 ... 1"),
        (([0, 1], [0]), "2 rows and 1 cols"),
        (([0], [0], [0]), "a pair of index arrays"),
    ],
)
def test_what_does_not_fit_is_an_error(form, text):
    with pytest.raises(ValueError, match=text):
        SparsityPattern.of(form, (2, 3))


@pytest.mark.parametrize(
    "form",
    [
        "banded",
        None,
        [[1, 0], [1]],
        (DENSE, np.array([0, 1, 0])),
        (sparse.csr_array(DENSE), [0, 1, 0]),
        ([True, False], [0, 1]),
        ([0.0, 1.0], [0, 1]),
    ],
)
def test_what_is_no_pattern_is_an_error(form):
    with pytest.raises(TypeError, match="pattern"):
        SparsityPattern.of(form, (2, 3))


def test_a_pair_needs_its_shape():
    with pytest.raises(ValueError, match="needs its shape"):
        SparsityPattern.of(([0], [1]))


# -- builders --------------------------------------------------------------------------------


@given(*(st.integers(1, 6) for _ in range(2)), *(st.integers(0, 7) for _ in range(2)))
def test_bands(n, m, lower, upper):
    i, j = np.indices((n, m))
    expected = (j - i >= -lower) & (j - i <= upper)
    built = banded_pattern(n, m, lower=lower, upper=upper).toarray()
    np.testing.assert_array_equal(built, expected)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=4))
def test_blocks(sizes):
    expected = linalg.block_diag(*(np.ones(size) for size in sizes)) != 0
    np.testing.assert_array_equal(block_diagonal_pattern(sizes).toarray(), expected)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    "shape, points", [(5, 3), ((4, 5), 5), ((4, 5), 9), ((3, 4, 5), 7), ((3, 4, 5), 27)]
)
def test_grids_against_the_distance_of_nodes(shape, points, interleaved, periodic):
    """Neighbours are at distance 1, in the sum (star) or in the largest (box) of the axes."""
    sides = np.atleast_1d(shape)
    at = np.indices(tuple(sides)).reshape(len(sides), -1)
    apart = np.abs(at[:, :, None] - at[:, None, :])
    if periodic:
        apart = np.minimum(apart, sides[:, None, None] - apart)
    grid = (apart.sum(0) if points == 2 * len(sides) + 1 else apart.max(0)) <= 1
    coupled = np.ones((2, 2), bool)
    expected = np.kron(grid, coupled) if interleaved else np.kron(coupled, grid)
    built = grid_pattern(shape, points, fields=2, interleaved=interleaved, periodic=periodic)
    np.testing.assert_array_equal(built.toarray(), expected)


def test_stencils_of_other_points():
    upwind = grid_pattern(4, [[0], [-1], [-2]])
    np.testing.assert_array_equal(upwind.toarray(), banded_pattern(4, lower=2, upper=0).toarray())
    with pytest.raises(ValueError, match="5 or 9 points"):
        grid_pattern((3, 3), 7)
    with pytest.raises(ValueError, match=r"shape \(points, 2\)"):
        grid_pattern((3, 3), [[0], [1]])
