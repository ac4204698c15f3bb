"""An unknown pattern from few evaluations: group tests, decoded row by row, and then confirmed.

Inputs are moved in groups, and each output says whether it answered. Random groups rule out most
columns of a row after tests whose number grows with the entries of the row and with the logarithm
of m. A colouring of what is left then moves every entry alone among its row's, so that each is
seen by itself. Answers that the entries found do not explain tell of those that were missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gradiator_np._typing import Array, Index, Mask
from gradiator_np.sparsity._coloring import color
from gradiator_np.sparsity._pattern import INDEX, SparsityPattern
from gradiator_np.sparsity._probes import (
    Moves,
    NanPropagation,
    Perturbation,
    Probe,
    Surroundings,
)
from gradiator_np.sparsity._rounds import Rounds, entry_keys, kept, pointers

Method = Literal["auto", "nan", "perturb"]

#: Groups of the first round, when nothing is known: the best for rows of 5 entries.
FIRST = 8
#: False columns that a row may keep, in the mean, when random rounds end. Halving them costs a
#: round, and a colour or two is gained.
FALSE = 25.0
#: Times FALSE that single rows may keep.
MANY = 4.0
#: Columns of a row that are no entries, in the mean, before each is moved alone.
FEWER = 0.3
#: Inputs up to which they are moved one by one.
FEW = 64
#: Rows, as a fraction, that random rounds leave to the end and look at by themselves.
TAIL = 0.05
#: Evaluations that a few dense rows are always worth.
WORTH = 1000
#: Times that missed entries are looked for.
REPAIRS = 3


@dataclass(frozen=True, slots=True)
class Detection:
    """What a search found.

    Attributes
    ----------
    pattern : SparsityPattern
        With all inputs in the rows of ``given_up``.
    given_up : array of int
        Rows too dense to be told apart at the price, or whose output failed.
    unexplained : array of int
        Rows that answered to a test of inputs none of which is among their entries.
    missed : float
        With 95 % confidence no more entries than these are missing in all other rows, of those that
        answer near x: a last round of random groups, in which a missing entry shows with a known
        probability, is what tells.
    method : str
        "nan" or "perturb".
    threshold : array, shape (n,)
        Changes of each output that its noise hides; 0 with nan.
    failed : int
        Tests in which outputs failed that do not at x.
    """

    pattern: SparsityPattern
    given_up: Index
    unexplained: Index
    missed: float
    method: str
    threshold: Array
    failed: int


class SparsitySearch:
    """Ask and tell: which outputs depend on which inputs.

    Parameters
    ----------
    around : Surroundings
    method : str
        "auto", "nan" or "perturb".
    max_tests : int, optional
        Evaluations after which random rounds end.
    """

    def __init__(
        self, around: Surroundings, method: Method = "auto", max_tests: int | None = None
    ) -> None:
        if method not in get_args(Method):
            raise ValueError(f"method={method!r}; it is one of {', '.join(get_args(Method))}")
        self.around = around
        self.method = method
        self.result: Detection | None = None
        self._most = max_tests if max_tests is not None else 2**62
        self._rounds = Rounds(np.isfinite(around.y), around.movable)
        self._given_up = ~np.isfinite(around.y)
        self._steps = self._search()
        self._wanted: Array | None = next(self._steps)

    def ask(self) -> Array | None:
        """Offsets from x, shape (k, m), where values are wanted; None at the end."""
        return self._wanted

    def tell(self, values: NDArray[Any]) -> None:
        """Values there, shape (k, n); nan where a run failed."""
        try:
            self._wanted = self._steps.send(values)
        except StopIteration as end:
            self._wanted, self.result = None, end.value

    # -- the search --------------------------------------------------------------------------

    def _search(self) -> Moves[Detection]:
        moves = Perturbation(self.around)
        yield from moves.go_to()
        yield from moves.learn_noise()
        probe = yield from self._chosen(moves)
        yield from self._random_rounds(probe)
        pattern = self._decoded()
        pattern = yield from self._separated(probe, pattern)
        if probe is moves:
            yield from moves.go_to()
            if int(self.around.movable.sum()) <= FEW:
                pattern = yield from self._alone(probe, pattern)
        pattern = yield from self._isolated(probe, pattern)
        missed = yield from self._last_round(probe, pattern)
        pattern, unexplained = yield from self._repaired(probe, pattern)
        lost = np.flatnonzero(self._given_up)
        by_step = probe is moves
        return Detection(
            _filled(pattern, lost, self.around.movable), lost, unexplained, missed,
            "perturb" if by_step else "nan",
            moves.threshold() if by_step else np.zeros(self._rounds.n),
            self._rounds.failing,
        )  # fmt: skip

    def _chosen(self, moves: Perturbation) -> Moves[Probe]:
        """nan where it passes through ``fun`` and tells in a first round what steps tell too."""
        if self.method == "perturb":
            return moves
        nan = NanPropagation(self.around)
        with np.errstate(invalid="ignore"):
            answering = np.isfinite(self.around.y) & (moves.value != self.around.y)
        passes = yield from nan.passes(answering)
        if self.method == "nan":
            if not passes:
                raise ValueError(
                    "nan in all inputs leaves outputs finite that depend on some, so that nan "
                    "tells nothing; use method='perturb'"
                )
            return nan
        if not passes or len(self.around.scale) <= FEW:
            return moves
        groups, k = self._random_groups(FIRST)
        by_step, failed = yield from moves(groups, k)
        by_nan, _ = yield from nan(groups, k)
        self._rounds.add(groups, by_step, failed)
        # Products with stored zeros make nan of all there is; a branch or fmax stops it.
        told_more = (by_nan & ~by_step).mean() > 1e-3
        alike = not (by_step & ~by_nan & ~failed).any() and not told_more
        return nan if alike else moves

    def _random_groups(self, k: int) -> tuple[Index, int]:
        """Inputs in k groups of one size, at random; one by one where k is no less than m."""
        movable = np.flatnonzero(self.around.movable)
        k = min(k, len(movable))
        groups = np.full(len(self.around.scale), -1)
        groups[self.around.rng.permutation(movable) if k < len(movable) else movable] = np.arange(
            len(movable)
        ) % max(k, 1)
        return groups, k

    def _run(self, probe: Probe, groups: Index, k: int) -> Moves[Mask]:
        answers, failed = yield from probe(groups, k)
        self._rounds.add(groups, answers, failed)
        return answers

    def _random_rounds(self, probe: Probe) -> Moves[None]:
        """Random groups until few columns are left that nothing rules out."""
        rounds, m = self._rounds, int(self.around.movable.sum())
        if m <= FEW:
            yield from self._run(probe, *self._random_groups(m))
            return
        if not rounds.sizes:
            yield from self._run(probe, *self._random_groups(FIRST))
        looked = False
        while rounds.tests < self._most:
            false = rounds.false()
            todo = np.flatnonzero((false > FALSE) & ~self._given_up)
            if len(todo) <= TAIL * rounds.n:
                always = todo[rounds.counts[:, todo].sum(0) == sum(rounds.sizes)]
                if looked or not len(always):
                    todo = todo[false[todo] > MANY * FALSE]
                else:
                    looked = True
                    yield from self._weigh(probe, always)
                    continue
            if not len(todo):
                break
            some = todo[:: max(1, len(todo) // 10_000)]
            s = rounds.density(some)
            if _price(np.quantile(s, 0.95), np.quantile(false[some], 0.95)) >= 0.7 * m:
                self._given_up = ~np.isfinite(self.around.y)
                yield from self._run(probe, *self._random_groups(m))
                break
            yield from self._run(probe, *self._random_groups(_groups(np.quantile(s, 0.75))))
        # Where the budget ended before.
        self._given_up |= rounds.false() > MANY * FALSE

    def _weigh(self, probe: Probe, rows: Index) -> Moves[None]:
        """Give up the few rows whose entries would cost more than WORTH and half of all inputs.

        Small groups, each a quarter of the one before, tell how dense the few rows are that
        answered to all.
        """
        rounds, m = self._rounds, int(self.around.movable.sum())
        share = 0.25 / float(np.quantile(rounds.density(rows), 0.75))
        while share * m >= 2:
            groups, k = self._random_groups(int(1 / share))
            yield from self._run(probe, np.where(groups < 2, groups, -1), min(k, 2))
            share /= 4
        s = rounds.density(rows)
        price = [min(_price(*row), m) for row in zip(s, rounds.false()[rows])]
        self._given_up[rows[np.array(price) > max(m / 2, WORTH)]] = True

    # -- from columns that are not ruled out to entries ---------------------------------------

    def _decoded(self) -> SparsityPattern:
        rounds = self._rounds
        rows = np.flatnonzero(~self._given_up)
        if not len(rows):
            return SparsityPattern((rounds.n, rounds.m), pointers(np.zeros(rounds.n, np.int64)),
                                   np.empty(0, INDEX))  # fmt: skip
        some = rows[:: max(1, len(rows) // 10_000)]
        most = 64 + int(4 * rounds.density(some).max() + 4 * rounds.false()[rows].max())
        pattern, lost = rounds.decode(rows, min(most, rounds.m))
        self._given_up |= lost
        return pattern

    def _separated(self, probe: Probe, pattern: SparsityPattern) -> Moves[SparsityPattern]:
        """Rounds in which likely entries and unlikely ones are apart, while there are many left."""
        rounds = self._rounds
        before = np.inf
        while True:
            chance = rounds.chances(pattern)
            unlikely = float((1 - chance).sum())
            if unlikely <= FEWER * rounds.n or unlikely > 0.9 * before:
                return pattern
            before = unlikely
            live = pattern.row_counts > 0
            s = np.add.reduceat(np.append(chance, 0.0), pattern.indptr[:-1])[live]
            k = _groups(np.quantile(s, 0.75))
            groups = rounds.spread(pattern, chance, k, self.around.rng)
            yield from self._run(probe, groups, k)
            pattern = kept(pattern, rounds.retained(pattern, len(rounds.sizes) - 1))

    def _alone(self, probe: Probe, pattern: SparsityPattern) -> Moves[SparsityPattern]:
        """The pattern, and what else answers where each input is moved alone."""
        columns = np.flatnonzero(self.around.movable)
        groups, k = self._random_groups(len(columns))
        answers, failed = yield from probe(groups, k)
        self._rounds.add(groups, answers, failed)
        test, row = np.nonzero(answers & ~failed & ~self._given_up)
        own = np.repeat(np.arange(self._rounds.n), pattern.row_counts)
        return SparsityPattern.of(
            (np.append(own, row), np.append(pattern.indices, columns[test])), pattern.shape
        )

    def _isolated(self, probe: Probe, pattern: SparsityPattern) -> Moves[SparsityPattern]:
        """Each entry moved alone among those of its row, in a point of its own."""
        rounds = self._rounds
        done = np.zeros(rounds.n, bool)  # what is not seen after its colours fails, and stays
        while True:
            seen, _ = rounds.review(pattern)
            own = np.repeat(np.arange(rounds.n), pattern.row_counts)
            rows = np.flatnonzero((np.bincount(own[~seen], minlength=rounds.n) > 0) & ~done)
            if not len(rows):
                return pattern
            # Rows with many columns left wait: they would cost all rows their colours.
            counts = pattern.row_counts[rows]
            rows = rows[counts <= np.quantile(counts, 0.95)]
            done[rows] = True
            yield from self._colored(probe, pattern, rows)
            pattern = kept(pattern, rounds.retained(pattern, len(rounds.sizes) - 1))

    def _colored(self, probe: Probe, pattern: SparsityPattern, rows: Index) -> Moves[None]:
        """A round in which entries of one row are in different tests; other inputs at random."""
        part = pattern.take_rows(rows)
        coloring = color(part)
        k = max(coloring.n_colors, 1)
        idle = part.column_counts == 0
        draw = self.around.rng.integers(0, k, len(idle))
        groups = np.where(idle, draw, coloring.column_colors)
        groups = np.where(self.around.movable, groups, -1)
        yield from self._run(probe, groups, k)

    def _last_round(self, probe: Probe, pattern: SparsityPattern) -> Moves[float]:
        """One random round more, in which entries that are missing show: how many may be left."""
        rows = ~self._given_up
        if not rows.any() or int(self.around.movable.sum()) in self._rounds.sizes:
            return 0.0  # nothing to find, or each input was moved alone
        before = self._rounds.review(pattern)[1]
        k = _groups(np.quantile(pattern.row_counts[rows], 0.9))
        answers = yield from self._run(probe, *self._random_groups(k))
        shown = int((self._rounds.review(pattern)[1] - before)[rows].sum())
        # An entry shows where its group moves no other of its row.
        chance = max(1 - float(answers[:, rows].mean()), 1e-3)
        return float(special.gammaincinv(shown + 1, 0.95) / chance - shown)

    def _repaired(
        self, probe: Probe, pattern: SparsityPattern
    ) -> Moves[tuple[SparsityPattern, Index]]:
        """Entries that answers ask for in spite of tests that rule them out, each seen again."""
        rounds = self._rounds
        for attempt in range(REPAIRS + 1):
            _, unexplained = rounds.review(pattern)
            rows = np.flatnonzero((unexplained > 0) & ~self._given_up)
            if not len(rows) or attempt == REPAIRS:
                break
            more = rounds.explained(pattern, rows)
            if more.nnz == pattern.nnz:
                break
            yield from self._colored(probe, more, rows)
            old = np.isin(entry_keys(more), entry_keys(pattern), assume_unique=True)
            pattern = kept(more, old | rounds.retained(more, len(rounds.sizes) - 1))
        return pattern, rows


# -- arrays ----------------------------------------------------------------------------------


def _groups(s: Any) -> int:
    """Groups that rule out most columns a test, of rows with s entries: half of them answer."""
    return max(2, int(s / np.log(2) + 1.5))


def _price(s: Any, false: Any) -> float:
    """Tests in random groups until a row of s entries is done, each round of which halves what
    is left."""
    return float(_groups(s) * max(np.log2(false / FALSE), 1.0))


def _filled(pattern: SparsityPattern, rows: Index, movable: Mask) -> SparsityPattern:
    """The pattern with all inputs that can move in some rows."""
    if not len(rows):
        return pattern
    columns = np.flatnonzero(movable)
    own = np.repeat(np.arange(pattern.shape[0]), pattern.row_counts)
    return SparsityPattern.of(
        (
            np.concatenate([own, np.repeat(rows, len(columns))]),
            np.concatenate([pattern.indices, np.tile(columns, len(rows))]),
        ),
        pattern.shape,
    )
