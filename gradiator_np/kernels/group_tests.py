"""Group tests: which columns of each row explain what moved when groups of columns were moved.

A *test* moves a set of columns; bit t of ``moved[i]`` says whether output i answered to test t.
Tests come in rounds, in each of which a column takes part in one test at most: ``test_of[j, r]``,
or -1. A column that takes part in a test to which row i did not answer is no entry of row i.
Nothing is checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[Any]
Bits = NDArray[np.uint64]


@njit(cache=True, nogil=True, error_model="numpy")
def record(answers: NDArray[np.bool_], first: int, moved: Bits) -> None:
    """Set the bits of the tests ``first``, ``first`` + 1, ...; answers (k, n)."""
    for t in range(answers.shape[0]):
        word = (first + t) >> 6
        bit = np.uint64(1) << np.uint64((first + t) & 63)
        for i in range(answers.shape[1]):
            if answers[t, i]:
                moved[i, word] |= bit


@njit(cache=True, nogil=True, error_model="numpy")
def _answered(moved: Bits, i: int, test: int) -> bool:
    return bool((moved[i, test >> 6] >> np.uint64(test & 63)) & np.uint64(1))


@njit(cache=True, nogil=True, error_model="numpy")
def _counts(moved: Bits, failed: Bits, i: int, test: int) -> bool:
    """Whether row i answered to a test, and did not fail in it."""
    return _answered(moved, i, test) and not _answered(failed, i, test)


@njit(cache=True, nogil=True, error_model="numpy")
def _passes(moved: Bits, i: int, j: int, test_of: Ints, first: int) -> bool:
    """Whether row i answered to all tests of column j, from round ``first`` on."""
    for r in range(first, test_of.shape[1]):
        test = test_of[j, r]
        if test >= 0 and not _answered(moved, i, test):
            return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def outside(test_of: Ints, out: Bits) -> None:
    """Set bit j of out[t] for the columns that do not take part in test t.

    Parameters
    ----------
    out : array of uint64, shape (tests, (m + 63) // 64)
        All set at the start.
    """
    for j in range(test_of.shape[0]):
        bit = np.uint64(1) << np.uint64(j & 63)
        for r in range(test_of.shape[1]):
            if test_of[j, r] >= 0:
                out[test_of[j, r], j >> 6] &= ~bit


@njit(cache=True, nogil=True, error_model="numpy")
def decode(
    moved: Bits,
    which: Ints,
    outside: Bits,
    columns: Bits,
    left: Bits,
    most: int,
    counts: Ints,
    out: Ints,
) -> int:
    """The columns that no test rules out, row by row: those outside of all unanswered tests.

    64 columns at a time, in one sweep through memory for each test: of 10^5 columns and 100 tests
    4 times faster than to follow, bucket by bucket, only the groups that a row answered to.

    Parameters
    ----------
    which : array of int, shape (q,)
        Rows.
    outside : array of uint64, shape (tests, w)
        The columns that do not take part in a test, as bits.
    columns : array of uint64, shape (w,)
        All columns, as bits.
    left : array of uint64, shape (w,)
        Scratch.
    most : int
        Rows with more are given up, with the count -1.
    counts : array of int, shape (q,)
        Overwritten.
    out : array of int32
        The columns of all rows, one row after the other.

    Returns
    -------
    int
        Columns written; -1 where ``out`` is too short.
    """
    tests, words = outside.shape
    total = 0
    for a in range(which.size):
        i, start = which[a], total
        left[:] = columns
        for t in range(tests):
            if not _answered(moved, i, t):
                for w in range(words):
                    left[w] &= outside[t, w]
        for w in range(words):
            word, j = left[w], 64 * w
            while word != 0:
                if word & np.uint64(1):
                    if total - start > most:
                        break
                    if total == out.size:
                        return -1
                    out[total] = j
                    total += 1
                word >>= np.uint64(1)
                j += 1
        counts[a] = total - start
        if total - start > most:
            total, counts[a] = start, -1
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def retain(
    moved: Bits, indptr: Ints, indices: Ints, test_of: Ints, first: int, keep: NDArray[np.bool_]
) -> None:
    """Which entries of a pattern pass the rounds from ``first`` on."""
    for i in range(indptr.size - 1):
        for q in range(indptr[i], indptr[i + 1]):
            keep[q] = _passes(moved, i, indices[q], test_of, first)


@njit(cache=True, nogil=True, error_model="numpy")
def _tally(columns: Ints, test_of: Ints, by: int, members: Ints) -> None:
    """Count the columns in each test that they take part in, or count them off."""
    for j in columns:
        for t in test_of[j]:
            if t >= 0:
                members[t] += by


@njit(cache=True, nogil=True, error_model="numpy")
def review(
    moved: Bits,
    indptr: Ints,
    indices: Ints,
    test_of: Ints,
    failed: Bits,
    members: Ints,
    seen: NDArray[np.bool_],
    unexplained: Ints,
) -> None:
    """Which entries were seen alone, and which answers none of a row's entries explains.

    Parameters
    ----------
    failed : array of uint64, shape (n, w)
        Answers that do not count, as bits.
    members : array of int, shape (tests,)
        Scratch, 0 at the start and at the end.
    seen : array of bool, shape (nnz,)
        Whether the row answered to a test in which the entry is the only one of its row.
    unexplained : array of int, shape (n,)
        Tests that the row answered to without an entry that takes part.
    """
    rounds = test_of.shape[1]
    for i in range(indptr.size - 1):
        _tally(indices[indptr[i] : indptr[i + 1]], test_of, 1, members)
        count = 0
        for t in range(members.size):
            if members[t] == 0 and _counts(moved, failed, i, t):
                count += 1
        unexplained[i] = count
        for q in range(indptr[i], indptr[i + 1]):
            seen[q] = False
            for r in range(rounds):
                t = test_of[indices[q], r]
                if t >= 0 and members[t] == 1 and _counts(moved, failed, i, t):
                    seen[q] = True
        _tally(indices[indptr[i] : indptr[i + 1]], test_of, -1, members)


@njit(cache=True, nogil=True, error_model="numpy")
def explain(
    moved: Bits,
    rows: Ints,
    indptr: Ints,
    indices: Ints,
    test_of: Ints,
    failed: Bits,
    covered: NDArray[np.bool_],
    most: int,
    out: Ints,
) -> None:
    """Columns that explain the answers that no entry of a row explains, in spite of tests that
    rule them out: greedily the one with the largest excess of answers explained over tests against.

    Parameters
    ----------
    rows : array of int, shape (q,)
    covered : array of bool, shape (tests,)
        Scratch.
    most : int
        Columns for each row.
    out : array of int32, shape (q, most)
        The columns, -1 where there are no more.
    """
    m, rounds = test_of.shape
    for a in range(rows.size):
        i = rows[a]
        out[a] = -1
        for t in range(covered.size):
            covered[t] = not _counts(moved, failed, i, t)
        for q in range(indptr[i], indptr[i + 1]):
            for r in range(rounds):
                if test_of[indices[q], r] >= 0:
                    covered[test_of[indices[q], r]] = True
        for k in range(most):
            best, best_excess = -1, 1
            for j in range(m):
                excess = 0
                for r in range(rounds):
                    t = test_of[j, r]
                    if t >= 0:
                        if not _answered(moved, i, t):
                            excess -= 1
                        elif not covered[t]:
                            excess += 1
                if excess > best_excess:
                    best, best_excess = j, excess
            if best < 0:
                break
            out[a, k] = best
            for r in range(rounds):
                if test_of[best, r] >= 0:
                    covered[test_of[best, r]] = True


@njit(cache=True, nogil=True, error_model="numpy")
def chances(
    moved: Bits,
    indptr: Ints,
    indices: Ints,
    test_of: Ints,
    failed: Bits,
    entries: NDArray[np.float64],
    members: Ints,
    evidence: NDArray[np.float64],
    chance: NDArray[np.float64],
) -> None:
    """The probability that a column which nothing rules out is an entry.

    One step of belief propagation: a test that answered needs an entry among its columns, so that
    those which are few there are likely ones. What all columns of a row have in common, that they
    passed, is in the sum of the probabilities, the entries expected.

    Parameters
    ----------
    entries : array, shape (n,)
        The number of entries of each row.
    members : array of int, shape (tests,)
        Scratch, 0 at the start and at the end.
    evidence : array, shape (tests,)
        Scratch.
    chance : array, shape (nnz,)
        Overwritten.
    """
    rounds = test_of.shape[1]
    for i in range(indptr.size - 1):
        _tally(indices[indptr[i] : indptr[i + 1]], test_of, 1, members)
        left = indptr[i + 1] - indptr[i]
        share = min(entries[i] / max(left, 1), 0.9)
        absent = np.log1p(-share)
        for t in range(evidence.size):
            evidence[t] = 0.0
            if members[t] > 0 and _counts(moved, failed, i, t):
                evidence[t] = -np.log(max(-np.expm1(absent * (members[t] - 1)), 1e-20))
        for q in range(indptr[i], indptr[i + 1]):
            # log of the likelihoods of the answers with this entry and without
            chance[q] = 0.0
            for r in range(rounds):
                if test_of[indices[q], r] >= 0:
                    chance[q] += evidence[test_of[indices[q], r]]
        low, high = -50.0, 50.0 * rounds
        for _ in range(30 if left > 0 else 0):
            middle = (low + high) / 2
            total = 0.0
            for q in range(indptr[i], indptr[i + 1]):
                total += 1 / (1 + np.exp(middle - chance[q]))
            if total > entries[i]:
                low = middle
            else:
                high = middle
        for q in range(indptr[i], indptr[i + 1]):
            chance[q] = 1 / (1 + np.exp(low - chance[q]))
        _tally(indices[indptr[i] : indptr[i + 1]], test_of, -1, members)


@njit(cache=True, nogil=True, error_model="numpy")
def spread(
    colptr: Ints,
    rows: Ints,
    chance: NDArray[np.float64],
    order: Ints,
    group: Ints,
    entry: NDArray[np.float64],
    other: NDArray[np.float64],
    cost: NDArray[np.float64],
) -> None:
    """Put columns into groups so that few of those that are no entries meet an entry of their row.

    Parameters
    ----------
    colptr, rows, chance
        The columns left, column by column, and the probability that each is an entry of the row.
    order : array of int
        Columns, in the order in which they choose, each the group where it is in the way least.
    group : array of int, shape (m,)
        The group of each, -1 at the start; overwritten.
    entry, other : array, shape (n, k)
        Scratch, 0 at the start: expected entries, and other columns, of each row in each group.
    cost : array, shape (k,)
        Scratch.
    """
    k = cost.size
    for sweep in range(2):
        for a in range(order.size):
            c = order[a]
            if sweep:
                for p in range(colptr[c], colptr[c + 1]):
                    entry[rows[p], group[c]] -= chance[p]
                    other[rows[p], group[c]] -= 1 - chance[p]
            cost[:] = 0
            for p in range(colptr[c], colptr[c + 1]):
                for g in range(k):
                    cost[g] += (1 - chance[p]) * entry[rows[p], g] + chance[p] * other[rows[p], g]
            best = 0
            for g in range(1, k):
                if cost[g] < cost[best]:
                    best = g
            group[c] = best
            for p in range(colptr[c], colptr[c + 1]):
                entry[rows[p], best] += chance[p]
                other[rows[p], best] += 1 - chance[p]
