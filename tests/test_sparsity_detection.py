"""Patterns found from values: exact where values tell, honest where they do not."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from gradiator_np import GradiatorWarning, detect_sparsity
from gradiator_np.kernels import group_tests
from gradiator_np.sparsity import (
    SparsityPattern,
    banded_pattern,
    block_diagonal_pattern,
    color,
    grid_pattern,
)
from tests.test_sparsity_coloring import arrowhead, power_law, random_pattern, triangulation


def with_values(pattern, seed):
    """Entries of size 0.5 to 1.5 and either sign."""
    jac = sparse.csr_array(pattern).astype(float)
    rng = np.random.default_rng(seed)
    jac.data = rng.uniform(0.5, 1.5, jac.nnz) * rng.choice([-1.0, 1.0], jac.nnz)
    return jac


def bent(jac, noise=0.0, rng=None):
    """A nonlinear function of this pattern, for many points at once."""

    def fun(points):
        y = (jac @ (points + 0.2 * points**2).T).T
        return y + noise * rng.standard_normal(y.shape) if noise else y

    return fun


def entries(pattern):
    rows, cols = pattern.to_csr().nonzero()
    return set(zip(rows.tolist(), cols.tolist()))


def wrong_and_missed(found, pattern):
    seen, true = entries(found.pattern), entries(SparsityPattern.of(pattern))
    return len(seen - true), len(true - seen)


def found_by(jac, seed, noise=0.0, **options):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.5, 1.5, jac.shape[1])
    return detect_sparsity(bent(jac, noise, rng), x, vectorized=True, rng=seed, **options)


CASES = {
    "grid": lambda: grid_pattern((15, 20)),
    "two fields": lambda: grid_pattern((10, 12), fields=2),
    "band": lambda: banded_pattern(300, lower=2, upper=1),
    "blocks": lambda: block_diagonal_pattern([3, 5, (2, 4)] * 30),
    "random": lambda: random_pattern(300, 300, 5, 1),
    "wide": lambda: random_pattern(50, 400, 4, 2),
    "tall": lambda: random_pattern(500, 90, 3, 3),
    "triangles": lambda: triangulation(300, 4),
    "power law": lambda: power_law(300, 5),
    "dense": lambda: random_pattern(70, 70, 60, 6),
    "few inputs": lambda: random_pattern(40, 12, 3, 7),
    "one output": lambda: np.ones((1, 80), bool),
    "one input": lambda: np.ones((9, 1), bool),
    "empty rows": lambda: sparse.vstack(
        [grid_pattern((10, 10)), sparse.csr_array((30, 100), dtype=bool)]
    ),
}


@pytest.mark.filterwarnings("error::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("method", ["auto", "nan", "perturb"])
@pytest.mark.parametrize("case", CASES)
def test_patterns_are_exact(case, method):
    """Without noise; values of different entries cancel with probability 0 (their steps are drawn
    from continuous distributions), rounding aside: 300 rows x 150 tests at 1e-13 each."""
    pattern = CASES[case]()
    found = found_by(with_values(pattern, 8), 9, method=method)
    assert wrong_and_missed(found, pattern) == (0, 0)
    assert found.success


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 150), st.floats(0, 0.5), st.integers(0, 2**32))
def test_no_entry_is_missed_whatever_the_pattern(n, m, density, seed):
    rng = np.random.default_rng(seed)
    pattern = rng.random((n, m)) < density
    jac = with_values(pattern, seed)
    found = detect_sparsity(
        bent(jac), rng.uniform(0.5, 1.5, m), vectorized=True, method="perturb", rng=seed
    )
    wrong, missed = wrong_and_missed(found, pattern)
    assert missed == 0
    dense = np.isin(np.arange(n), found.dense_rows)
    assert wrong == int((~pattern[dense]).sum())  # rows given up have all inputs, and say so


def test_few_evaluations_do():
    """10 000 inputs, 5 entries a row: 150 evaluations at most."""
    pattern = random_pattern(10_000, 10_000, 5, 11)
    found = found_by(with_values(pattern, 12), 13, method="perturb")
    assert found.nfev <= 150
    assert wrong_and_missed(found, pattern) == (0, 0)
    assert found.missed < 10


def test_one_dense_row_and_column_do_not_spoil_the_rest():
    pattern = arrowhead(3000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradiatorWarning)
        found = found_by(with_values(pattern, 14), 15, method="perturb")
    assert wrong_and_missed(found, pattern) == (0, 0)
    assert found.dense_rows.tolist() == [0]
    assert found.nfev <= 150
    assert not found.success
    assert color(found.pattern, by="both").n_colors == 3


@pytest.mark.parametrize("seed", [16, 17])
def test_noise_hides_less_than_one_entry_in_a_thousand(seed):
    """Noise 1e-6 against answers of 5e-4 and more: threshold 6.1 sqrt(2) 1e-6 = 9e-6. Two entries
    of one test cancel to below with a probability of 9e-6 / 1e-3, hence 1 in 100 times 11 rounds,
    and what these rule out is found again by answers that nothing explains."""
    pattern = random_pattern(2000, 2000, 5, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradiatorWarning)
        found = found_by(with_values(pattern, seed), seed, noise=1e-6, method="perturb")
    wrong, missed = wrong_and_missed(found, pattern)
    nnz = SparsityPattern.of(pattern).nnz
    assert wrong <= 0.001 * nnz
    assert missed <= 0.001 * nnz
    # Known to a factor of 3, from four degrees of freedom each, shared by 2000 outputs.
    assert np.all((found.threshold > 3e-6) & (found.threshold < 3e-5))


def test_noise_that_is_given_is_believed():
    jac = with_values(grid_pattern((15, 20)), 18)
    rng = np.random.default_rng(19)
    found = detect_sparsity(
        bent(jac, 1e-6, rng), rng.uniform(0.5, 1.5, 300), noise=1e-6, method="perturb",
        vectorized=True,
    )  # fmt: skip
    assert wrong_and_missed(found, jac) == (0, 0)


# -- what deceives -----------------------------------------------------------------------------


def shifts(m, *by):
    """Output i depends on inputs i - by."""
    return sum(sparse.eye_array(m, format="csr")[(np.arange(m) - k) % m] for k in by)


def test_products_of_zeros_and_minima_are_seen():
    """At x itself all first derivatives vanish."""
    m = 200
    found = detect_sparsity(lambda x: x * np.roll(x, 1) * np.roll(x, 7), np.zeros(m))
    assert wrong_and_missed(found, shifts(m, 0, 1, 7)) == (0, 0)
    found = detect_sparsity(lambda x: (x - np.roll(x, 3)) ** 2, np.ones(m), method="perturb")
    assert wrong_and_missed(found, shifts(m, 0, 3)) == (0, 0)


@pytest.mark.parametrize(
    "name, fun, by",
    [
        ("a branch hides nan", lambda x: np.where(np.roll(x, 3) > 0, x, np.roll(x, 1)), (0,)),
        ("fmax hides nan", lambda x: np.fmax(x * np.roll(x, 1), -9.0), (0, 1)),
        ("products with zeros", lambda x: np.diag(np.ones(len(x))) @ x, (0,)),
        ("errors", lambda x: x * np.roll(x, 2) if np.isfinite(x).all() else 1 / 0, (0, 2)),
    ],
)
def test_nan_is_not_taken_where_it_tells_something_else(name, fun, by):
    m = 200
    found = detect_sparsity(fun, np.linspace(0.5, 1.0, m))
    assert found.method == "perturb"
    assert wrong_and_missed(found, shifts(m, *by)) == (0, 0)


def test_nan_that_does_not_pass_is_an_error():
    with pytest.raises(ValueError, match="use method='perturb'"):
        detect_sparsity(lambda x: np.fmax(x, -9.0), np.linspace(0.5, 1.0, 100), method="nan")


def test_rounding_that_spreads_is_noise():
    """A circulant by FFT: every output changes in its last digits with every input."""
    m = 256
    kernel = np.zeros(m)
    kernel[[0, 1, -1]] = -2.0, 1.0, 1.0
    spectrum = np.fft.rfft(kernel)
    x = 1 + np.random.default_rng(20).random(m)
    found = detect_sparsity(lambda x: np.fft.irfft(spectrum * np.fft.rfft(x), m), x)
    assert wrong_and_missed(found, shifts(m, 0, 1, -1)) == (0, 0)


def test_outputs_that_fail_are_given_up_and_said():
    jac = with_values(grid_pattern((10, 10)), 21)

    def fun(x):
        y = jac @ x
        y[7] = np.nan
        return y

    with pytest.warns(GradiatorWarning, match=r"y\[7\] depend on too many inputs"):
        found = detect_sparsity(fun, np.ones(100))
    assert found.dense_rows.tolist() == [7]
    rest = np.delete(found.pattern.to_csr().toarray(), 7, axis=0)
    np.testing.assert_array_equal(rest, np.delete(jac.toarray() != 0, 7, axis=0))


def test_an_output_that_fails_wherever_x_moves_ends_the_search_and_hides_no_other():
    jac = with_values(grid_pattern((10, 10)), 30)
    x = np.ones(100)

    def fun(z):
        y = jac @ z
        if z[5] != 1.0:
            y[7] = np.nan
        return y

    with pytest.warns(GradiatorWarning, match="failed in"):
        found = detect_sparsity(fun, x, method="perturb")
    rest = np.delete(found.pattern.to_csr().toarray(), 7, axis=0)
    np.testing.assert_array_equal(rest, np.delete(jac.toarray() != 0, 7, axis=0))
    assert entries(SparsityPattern.of(jac)) <= entries(found.pattern)


def test_bounds_hold_and_held_inputs_have_no_entries():
    jac = with_values(grid_pattern((10, 10)), 22)
    lower, upper = np.zeros(100), np.ones(100)
    lower[3] = upper[3] = 0.5
    x = np.where(np.arange(100) == 3, 0.5, np.arange(100) % 2).astype(float)
    seen = []

    def fun(x):
        seen.append(x.copy())
        return jac @ np.sqrt(x)

    found = detect_sparsity(fun, x, bounds=(lower, upper), method="perturb")
    assert np.min(seen) >= 0
    assert np.max(seen) <= 1
    held = jac.toarray() != 0
    held[:, 3] = False
    np.testing.assert_array_equal(found.pattern.to_csr().toarray(), held)


def test_shapes_and_dicts():
    found = detect_sparsity(
        lambda p: {"y": p["a"][:, None] * p["b"], "z": p["b"] ** 2},
        {"a": np.ones(2), "b": np.ones(3)},
    )
    b = np.eye(3, dtype=int)
    expected = np.block([
        [np.repeat(np.eye(2, dtype=int), 3, axis=0), np.tile(b, (2, 1))],
        [np.zeros((3, 2), int), b],
    ])  # fmt: skip
    np.testing.assert_array_equal(found.pattern.to_csr().toarray(), expected)


def test_a_budget_gives_up_rows_and_says_so():
    jac = with_values(random_pattern(200, 200, 5, 23), 23)
    with pytest.warns(GradiatorWarning, match="too many inputs"):
        found = found_by(jac, 24, method="perturb", max_nfev=8)
    assert wrong_and_missed(found, jac)[1] == 0
    assert not found.success


def test_the_same_call_gives_the_same_answer():
    jac = with_values(grid_pattern((9, 9)), 25)
    first, second = (found_by(jac, 26) for _ in range(2))
    np.testing.assert_array_equal(first.pattern.indices, second.pattern.indices)
    assert first.nfev == second.nfev


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="method='guess'"):
        detect_sparsity(np.sin, [1.0], method="guess")


# -- kernels against slow twins ----------------------------------------------------------------


@pytest.mark.kernel
@given(st.integers(1, 6), st.integers(1, 150), st.integers(1, 5), st.integers(0, 2**32))
def test_decoding_is_what_no_test_rules_out(n, m, rounds, seed):
    rng = np.random.default_rng(seed)
    k = 3
    test_of = rng.integers(-1, k, (m, rounds)).astype(np.int32)
    test_of = np.where(test_of >= 0, test_of + k * np.arange(rounds), -1).astype(np.int32)
    answers = rng.random((k * rounds, n)) < 0.6
    moved = np.zeros((n, 1), np.uint64)
    group_tests.record(answers, 0, moved)
    words = (m + 63) // 64
    outside = np.full((k * rounds, words), ~np.uint64(0))
    group_tests.outside(test_of, outside)
    bits = np.zeros(words * 64, np.uint8)
    bits[:m] = 1
    columns = np.packbits(bits, bitorder="little").view(np.uint64)
    counts, out = np.zeros(n, np.int64), np.empty(n * m, np.int32)
    which = np.arange(n)
    written = group_tests.decode(
        moved, which, outside, columns, np.empty(words, np.uint64), m, counts, out
    )
    twin = [
        [j for j in range(m) if all(answers[t, i] for t in test_of[j] if t >= 0)] for i in range(n)
    ]
    assert counts.tolist() == [len(row) for row in twin]
    assert out[:written].tolist() == [j for row in twin for j in row]


@pytest.mark.kernel
@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**32))
def test_the_review_counts_what_the_twin_counts(n, m, rounds, seed):
    rng = np.random.default_rng(seed)
    k = 3
    test_of = (rng.integers(0, k, (m, rounds)) + k * np.arange(rounds)).astype(np.int32)
    answers, broken = (rng.random((k * rounds, n)) < share for share in (0.6, 0.1))
    moved, failed = np.zeros((n, 1), np.uint64), np.zeros((n, 1), np.uint64)
    group_tests.record(answers, 0, moved)
    group_tests.record(broken, 0, failed)
    dense = rng.random((n, m)) < 0.3
    pattern = SparsityPattern.of(dense)
    seen, unexplained = np.empty(pattern.nnz, bool), np.zeros(n, np.intp)
    group_tests.review(
        moved, pattern.indptr, pattern.indices, test_of, failed, np.zeros(k * rounds, np.int32),
        seen, unexplained,
    )  # fmt: skip
    takes_part = np.zeros((k * rounds, m), bool)
    takes_part[test_of, np.arange(m)[:, None]] = True
    members = takes_part.astype(int) @ dense.T  # (tests, n)
    counted = answers & ~broken
    assert unexplained.tolist() == (counted & (members == 0)).sum(0).tolist()
    twin = [
        bool((counted[:, i] & (members[:, i] == 1) & takes_part[:, j]).any())
        for i, j in zip(*np.nonzero(dense))
    ]
    assert seen.tolist() == twin


@pytest.mark.kernel
def test_an_entry_that_one_test_rules_out_is_explained_again():
    """Column 4 answered in all of its rounds but one, and nothing else is there to answer."""
    rng = np.random.default_rng(27)
    m, rounds, k = 40, 6, 4
    test_of = (rng.integers(0, k, (m, rounds)) + k * np.arange(rounds)).astype(np.int32)
    answers = np.zeros((k * rounds, 1), bool)
    answers[test_of[4, 1:]] = True
    moved = np.zeros((1, 1), np.uint64)
    group_tests.record(answers, 0, moved)
    empty = SparsityPattern.of(np.zeros((1, m), bool))
    out = np.empty((1, 2), np.int32)
    group_tests.explain(
        moved, np.array([0]), empty.indptr, empty.indices, test_of, np.zeros((1, 1), np.uint64),
        np.empty(k * rounds, bool), 2, out,
    )  # fmt: skip
    assert out.tolist() == [[4, -1]]


@pytest.mark.kernel
def test_chances_add_up_and_lone_columns_are_certain():
    rng = np.random.default_rng(28)
    m, rounds, k = 30, 4, 5
    test_of = (rng.integers(0, k, (m, rounds)) + k * np.arange(rounds)).astype(np.int32)
    pattern = SparsityPattern.of(np.arange(m)[None] < 12)
    moved = np.full((1, 1), ~np.uint64(0))
    chance = np.empty(12)
    group_tests.chances(
        moved, pattern.indptr, pattern.indices, test_of, np.zeros((1, 1), np.uint64),
        np.array([4.0]), np.zeros(k * rounds, np.int32), np.empty(k * rounds), chance,
    )  # fmt: skip
    # Bisection over a width of 50 (rounds + 1) in 30 steps, times 12 probabilities.
    assert abs(chance.sum() - 4) <= 12 * 50 * (rounds + 1) / 2**30
    members = np.zeros(k * rounds, int)
    np.add.at(members, test_of[:12], 1)
    alone = (members[test_of[:12]] == 1).any(1)
    assert alone.any()
    assert chance[alone].min() >= chance[~alone].max()


@pytest.mark.kernel
def test_spreading_separates_what_can_be_separated():
    """Each row has one sure entry and one that is none: two groups are enough for all."""
    m = 12
    dense = np.zeros((m // 2, m), bool)
    dense[np.arange(m // 2), 2 * np.arange(m // 2)] = True
    dense[np.arange(m // 2), 2 * np.arange(m // 2) + 1] = True
    csc = sparse.csc_array(dense)
    chance = (1.0 - csc.nonzero()[1] % 2).astype(float)
    group = np.full(m, -1)
    group_tests.spread(
        csc.indptr, csc.indices, chance, np.arange(m), group, np.zeros((m // 2, 2)),
        np.zeros((m // 2, 2)), np.empty(2),
    )  # fmt: skip
    assert (group[::2] != group[1::2]).all()


@pytest.mark.parametrize("m", [3, 12, 60])
def test_an_input_that_acts_on_one_side_of_x_is_seen(m):
    """A limit just reached at x (MacroEconometricModels.jl, issue 664): inputs are looked at
    on both sides of x."""
    x = np.linspace(1.0, 2.0, m)

    def fun(z):
        return np.maximum(z - x, 0.0) + np.roll(z, 1)

    exact = np.eye(m) + np.roll(np.eye(m), 1, axis=0) > 0
    for seed in range(10):
        found = detect_sparsity(fun, x, method="perturb", rng=seed)
        np.testing.assert_array_equal(found.pattern.to_csr().toarray() > 0, exact)


def test_one_sided_inputs_among_many_are_told():
    """Groups that ruled them out on one side of x do not tell which they are."""
    x = np.linspace(1.0, 2.0, 1000)

    def fun(z):
        out = np.roll(z, 1)
        out[:100] += np.maximum(z - x, 0.0)[:100]
        return out

    with pytest.warns(GradiatorWarning, match="answered to inputs none of which"):
        found = detect_sparsity(fun, x, method="perturb", rng=0)
    assert not found.success
