"""All tests so far, and what they say of each row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Index, Mask
from gradiator_np.kernels import group_tests as kernels
from gradiator_np.sparsity._pattern import INDEX, POINTER, SparsityPattern

#: Columns that may be added to a row which answered without a reason.
ADDED = 4


class Rounds:
    """Who was moved in which test, and who answered, round by round."""

    def __init__(self, known: Mask, movable: Mask) -> None:
        self.n, self.m = len(known), len(movable)
        self.known, self.movable = known, movable
        n = self.n
        self.moved = np.zeros((n, 1), np.uint64)
        self.test_of = np.empty((self.m, 0), INDEX)
        self.failed = np.zeros((n, 1), np.uint64)
        self.tests = 0
        self.failing = 0  # tests in which outputs failed that do not at x
        self.sizes: list[int] = []
        self.shares: list[float] = []  # the share of the inputs in one test of each round
        self.counts = np.empty((0, n), np.int32)
        # log of the share of columns that no test has ruled out, by row
        self.left = np.zeros(n)

    def add(self, groups: Index, answers: Mask, failed: Mask) -> None:
        k, first = len(answers), self.tests
        words = (first + k + 63) // 64
        if words > self.moved.shape[1]:
            more = np.zeros((self.n, words - self.moved.shape[1]), np.uint64)
            self.moved = np.concatenate([self.moved, more], axis=1)
            self.failed = np.concatenate([self.failed, more], axis=1)
        kernels.record(answers, first, self.moved)
        kernels.record(failed, first, self.failed)
        row = np.where(groups >= 0, groups + first, -1).astype(INDEX)
        self.test_of = np.concatenate([self.test_of, row[:, None]], axis=1)
        self.tests += k
        self.failing += int(failed[:, self.known].any(1).sum())
        sizes = np.bincount(groups[groups >= 0], minlength=k) / max(1, int(self.movable.sum()))
        self.sizes.append(k)
        self.shares.append(float(sizes.mean()))
        self.counts = np.concatenate([self.counts, answers.sum(0, dtype=np.int32)[None]])
        with np.errstate(divide="ignore"):
            self.left += np.log(np.maximum(1 - sizes @ ~answers, 0))
        if k == self.movable.sum():
            self.left[:] = -np.inf  # each input alone: nothing is open

    def false(self) -> Array:
        """Columns of each row that are no entries and not ruled out, in the mean."""
        return np.exp(self.left) * self.m

    def density(self, rows: Index) -> Array:
        """The number of entries of some rows that their answers make most likely.

        A test of a share p of the inputs misses s entries with probability (1 - p)^s. Rows that
        always answered have no upper limit: the least s whose likelihood is within exp(1/2) of 1.
        """
        s = np.geomspace(1, max(2, self.m), 64)
        p, k = np.minimum(np.array(self.shares), 1 - 1e-9), self.counts[:, rows].T
        quiet = s * np.log1p(-p)[:, None]
        with np.errstate(divide="ignore"):
            loud = np.log(-np.expm1(quiet))
        likely = k @ loud + (np.array(self.sizes) - k) @ quiet
        always = k.sum(1) == sum(self.sizes)
        slack = np.where(always, 0.5, 1e-9)[:, None]
        return np.asarray(s[np.argmax(likely >= likely.max(1, keepdims=True) - slack, axis=1)])

    def decode(self, rows: Index, most: int) -> tuple[SparsityPattern, Mask]:
        """The columns of some rows that nothing rules out (other rows are empty), and which rows
        had more than ``most``."""
        words = (self.m + 63) // 64
        movable = np.zeros(8 * words, np.uint8)
        packed = np.packbits(self.movable, bitorder="little")
        movable[: len(packed)] = packed
        columns = movable.view("<u8").astype(np.uint64)
        outside = np.full((self.tests, words), ~np.uint64(0))
        kernels.outside(self.test_of, outside)
        counts = np.zeros(len(rows), np.int64)
        room = int(2 * np.minimum(self.false()[rows] + 8, most).sum()) + most + 1
        while True:
            out = np.empty(room, INDEX)
            left = np.empty(words, np.uint64)
            written = kernels.decode(self.moved, rows, outside, columns, left, most, counts, out)
            if written >= 0:
                break
            room *= 2
        lost = np.zeros(self.n, bool)
        lost[rows[counts < 0]] = True
        each = np.zeros(self.n, np.int64)
        each[rows] = np.maximum(counts, 0)
        pattern = SparsityPattern((self.n, self.m), pointers(each), out[:written])
        return pattern, lost

    def retained(self, pattern: SparsityPattern, first: int = 0) -> Mask:
        """Which entries pass the rounds from ``first`` on."""
        keep = np.empty(pattern.nnz, bool)
        kernels.retain(self.moved, pattern.indptr, pattern.indices, self.test_of, first, keep)
        return keep

    def review(self, pattern: SparsityPattern) -> tuple[Mask, Index]:
        """Which entries were seen alone, and answers of each row that none of them explains."""
        seen, unexplained = np.empty(pattern.nnz, bool), np.zeros(self.n, np.intp)
        kernels.review(
            self.moved, pattern.indptr, pattern.indices, self.test_of, self.failed,
            np.zeros(self.tests, np.int32), seen, unexplained,
        )  # fmt: skip
        return seen, unexplained

    def chances(self, pattern: SparsityPattern) -> Array:
        """The probability of each entry of a pattern to be one."""
        entries, chance = self.density(np.arange(self.n)), np.empty(pattern.nnz)
        kernels.chances(
            self.moved, pattern.indptr, pattern.indices, self.test_of, self.failed, entries,
            np.zeros(self.tests, np.int32), np.empty(self.tests), chance,
        )  # fmt: skip
        return chance

    def spread(
        self, pattern: SparsityPattern, chance: Array, k: int, rng: np.random.Generator
    ) -> Index:
        """k groups in which likely and unlikely entries of a row meet as little as may be."""
        csc = pattern.to_csr(chance).tocsc()
        groups = np.full(self.m, -1)
        order = rng.permutation(np.flatnonzero(self.movable))
        kernels.spread(
            csc.indptr, csc.indices, csc.data, order, groups,
            np.zeros((self.n, k)), np.zeros((self.n, k)), np.empty(k),
        )  # fmt: skip
        return groups

    def explained(self, pattern: SparsityPattern, rows: Index) -> SparsityPattern:
        """The pattern with entries that explain more answers than there are tests against them."""
        out = np.empty((len(rows), ADDED), INDEX)
        kernels.explain(
            self.moved, rows, pattern.indptr, pattern.indices, self.test_of, self.failed,
            np.empty(self.tests, bool), out.shape[1], out,
        )  # fmt: skip
        a, k = np.nonzero(out >= 0)
        own = np.repeat(np.arange(self.n), pattern.row_counts)
        return SparsityPattern.of(
            (np.concatenate([own, rows[a]]), np.concatenate([pattern.indices, out[a, k]])),
            pattern.shape,
        )


def entry_keys(pattern: SparsityPattern) -> NDArray[np.int64]:
    """Entries as numbers."""
    own = np.repeat(np.arange(pattern.shape[0]), pattern.row_counts)
    return own * pattern.shape[1] + pattern.indices


def kept(pattern: SparsityPattern, keep: Mask) -> SparsityPattern:
    counts = np.concatenate([[0], np.cumsum(keep)])
    indptr = counts[pattern.indptr].astype(POINTER)
    return SparsityPattern(pattern.shape, indptr, pattern.indices[keep])


def pointers(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(POINTER)
