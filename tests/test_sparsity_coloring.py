"""Colours against a slow twin, SciPy and what is possible; entries against the matrix itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from scipy.optimize._numdiff import group_columns
from scipy.spatial import Delaunay

from gradiator_np.sparsity import Coloring, SparsityPattern, color, grid_pattern
from gradiator_np.sparsity._coloring import _ORDERS

pytestmark = pytest.mark.kernel
PATTERNS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
ORDERS = ("auto", *_ORDERS)


def random_pattern(n, m, s, seed):
    """s random columns a row."""
    rows, cols = np.repeat(np.arange(n), s), np.random.default_rng(seed).integers(0, m, n * s)
    return sparse.coo_array((np.ones(n * s, bool), (rows, cols)), shape=(n, m)).tocsr()


def arrowhead(n):
    dense = np.eye(n, dtype=bool)
    dense[0] = dense[:, 0] = True
    return sparse.csr_array(dense)


def triangulation(n, seed):
    corners = Delaunay(np.random.default_rng(seed).random((n, 2))).simplices
    rows, cols = np.repeat(corners, 3, axis=1).ravel(), np.tile(corners, 3).ravel()
    return sparse.coo_array((np.ones(len(rows), bool), (rows, cols)), shape=(n, n)).tocsr()


def power_law(n, seed):
    rng = np.random.default_rng(seed)
    counts = np.minimum(rng.zipf(2.2, n) + 1, n // 4)
    rows, cols = np.repeat(np.arange(n), counts), (n * rng.random(counts.sum()) ** 3).astype(int)
    return sparse.coo_array((np.ones(len(rows), bool), (rows, cols)), shape=(n, n)).tocsr()


def first_fit_twin(dense, order):
    """Greedy colours from the matrix of conflicts, column by column."""
    conflicts = (dense.T.astype(int) @ dense) > 0
    colors = np.full(dense.shape[1], -1)
    for c in order:
        taken = {colors[u] for u in np.flatnonzero(conflicts[c]) if u != c}
        colors[c] = next(k for k in range(len(colors)) if k not in taken)
    return colors


def conflicts_twin(dense, colors):
    """All (row, column, column) that cannot be told apart."""
    return [
        (i, j, k)
        for i in range(dense.shape[0])
        for j in range(dense.shape[1])
        for k in range(j + 1, dense.shape[1])
        if dense[i, j] and dense[i, k] and colors[j] == colors[k]
    ]


@given(PATTERNS)
def test_natural_order_is_the_greedy_twin(dense):
    found = color(dense, order="natural")
    twin = first_fit_twin(dense, range(dense.shape[1]))
    np.testing.assert_array_equal(found.column_colors, twin)


@given(PATTERNS, st.sampled_from(ORDERS), st.sampled_from(["columns", "rows", "both"]))
def test_every_coloring_tells_every_entry(dense, order, by):
    found = color(dense, order=order, by=by)
    assert found.conflict is None
    assert found.n_colors >= found.lower_bound
    # Whole numbers, whose sums of few are exact.
    jac = np.where(dense, np.arange(1.0, 1 + dense.size).reshape(dense.shape), 0.0)
    back = found.decompress(found.column_seeds @ jac.T, found.row_seeds @ jac)
    np.testing.assert_array_equal(back.toarray(), jac)
    assert back.nnz == dense.sum()  # zeros of the pattern too


@given(PATTERNS, st.sampled_from(ORDERS))
def test_saturation_and_dynamic_orders_are_permutations_of_greedy(dense, order):
    """Greedy in any order has no gap in its colours, and no more than neighbours + 1."""
    found = color(dense, order=order)
    used = set(found.column_colors.tolist())
    assert used == set(range(found.n_colors))
    conflicts = (dense.T.astype(int) @ dense) > 0
    np.fill_diagonal(conflicts, False)
    assert found.n_colors <= conflicts.sum(0).max() + 1


@given(PATTERNS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_first_conflict_is_that_of_the_twin(dense, k, random):
    n, m = dense.shape
    colors = np.array([random.randint(0, k) for _ in range(m)], np.int32)
    none = np.full(n, -1, np.int32)
    made = Coloring(SparsityPattern.of(dense), colors, none, k + 1, 0, "by hand")
    twins = conflicts_twin(dense, colors)
    if not twins:
        assert made.conflict is None
    else:
        assert made.conflict.row == twins[0][0]
        assert (made.conflict.row, *made.conflict.columns) in twins


def test_conflicts_of_rows_are_told_as_well():
    dense = np.array([[1, 0], [1, 0], [0, 1]], bool)
    made = Coloring(
        SparsityPattern.of(dense), np.zeros(2, np.int32), np.array([-1, 0, 0], np.int32), 1, 1, ""
    )
    assert made.conflict is None
    wrong = np.array([[1, 0], [1, 0], [1, 1]], bool)
    made = Coloring(
        SparsityPattern.of(wrong), np.zeros(2, np.int32), np.array([-1, 0, 0], np.int32), 1, 1, ""
    )
    assert made.conflict.row == 0
    assert made.conflict.columns == (1, 2)


@pytest.mark.parametrize(
    "points, fields, most", [(5, 1, 5), (9, 1, 9), (5, 2, 11)], ids=["5", "9", "two fields"]
)
def test_grids_take_what_their_stencil_has(points, fields, most):
    """5 and 9 colours are the optimum; of two fields the densest row has 10."""
    pattern = grid_pattern((30, 30), points, fields=fields)
    assert color(pattern, order="saturation").n_colors <= most
    assert color(pattern).n_colors <= most


CASES = {
    "5 points": lambda seed: grid_pattern((20 + seed % 7, 30), 5),
    "9 points": lambda seed: grid_pattern((20 + seed % 7, 30), 9),
    "7 points": lambda seed: grid_pattern((7, 8, 9 + seed % 5), 7),
    "27 points": lambda seed: grid_pattern((7, 8, 9 + seed % 5), 27),
    "periodic": lambda seed: grid_pattern((20 + seed % 7, 21), 5, periodic=True),
    "random": lambda seed: random_pattern(400, 400, 5, seed),
    "wide": lambda seed: random_pattern(150, 400, 6, seed),
    "tall": lambda seed: random_pattern(600, 150, 4, seed),
    "arrowhead": lambda seed: arrowhead(50 + seed % 7),
    "triangulation": lambda seed: triangulation(500, seed),
    "power law": lambda seed: power_law(400, seed),
}


@pytest.mark.parametrize("case", CASES)
def test_no_more_colors_than_scipy(case):
    """Over 5 seeds; both are deterministic, so that there is no false alarm but a real loss."""
    rng = np.random.default_rng(1)
    for seed in rng.integers(0, 10**6, 5).tolist():
        pattern = CASES[case](seed)
        found, theirs = color(pattern), int(group_columns(pattern).max()) + 1
        assert found.lower_bound <= found.n_colors <= theirs
        natural = color(pattern, order="natural").n_colors
        assert found.n_colors <= natural


def test_dense_rows_are_found_from_the_left():
    arrow = arrowhead(60)
    found = color(arrow, by="both")
    assert (found.n_column_colors, found.n_row_colors) == (2, 1)
    assert found.conflict is None
    # The transpose of a tall matrix with a dense column: rows alone do.
    column = np.zeros((40, 3), bool)
    column[:, 0] = column[0] = True
    assert color(column, by="both").n_colors <= 3
    assert color(arrow, by="rows").n_colors == 60


def test_more_than_64_colors():
    dense = np.ones((2, 150), bool)
    for order in ORDERS:
        assert sorted(color(dense, order=order).column_colors) == list(range(150))
    # Rows of 60 that meet in many colours: the bits for 64 colours do not suffice.
    pattern = random_pattern(120, 200, 60, 1)
    found = color(pattern, order="saturation")
    assert found.n_colors > 64
    assert found.conflict is None


def test_empty_rows_and_columns():
    assert color(np.zeros((3, 4), bool)).n_colors == 1
    assert color(sparse.csr_array((0, 4), dtype=bool)).conflict is None


def test_variances_and_steps_and_complex_values():
    """One entry is one number of one product: its variance comes back the same way."""
    rng = np.random.default_rng(3)
    pattern = grid_pattern((5, 6))
    found = color(pattern)
    jac = found.pattern.to_csr(rng.standard_normal(found.pattern.nnz) + 1j)
    h = 2.0 ** rng.integers(-3, 3, 30)  # powers of two: products and quotients are exact
    moved = np.array([jac @ (seed * h) for seed in found.column_seeds])
    np.testing.assert_allclose(
        found.decompress(moved, steps=h).toarray(), jac.toarray(), rtol=0, atol=0
    )
    variance = rng.random((found.n_column_colors, 30))
    spread = found.decompress(variance, steps=h**2).tocoo()
    np.testing.assert_array_equal(
        spread.data, variance[found.column_colors[spread.col], spread.row] / h[spread.col] ** 2
    )


def test_arguments_are_checked():
    pattern = grid_pattern((3, 3))
    with pytest.raises(ValueError, match="order='best'"):
        color(pattern, order="best")
    with pytest.raises(ValueError, match="by='diagonals'"):
        color(pattern, by="diagonals")
    found = color(pattern)
    with pytest.raises(ValueError, match=r"by_column has shape \(9, 5\)"):
        found.decompress(np.zeros((9, 5)))
    with pytest.raises(ValueError, match="by_column has shape"):
        found.decompress()
    with pytest.raises(ValueError, match="steps have shape"):
        found.decompress(np.zeros((found.n_colors, 9)), steps=np.ones(3))
