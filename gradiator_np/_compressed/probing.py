"""Runs that ask whether a pattern holds, as many as it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._compressed.compression import Compression
from gradiator_np._compressed.missing import DIRECTIONS, missing_entries
from gradiator_np._compressed.pattern_check import FAINT, PatternCheck, compare, rest_of
from gradiator_np._compressed.probes import Probe, direction, distance, is_loud, representable
from gradiator_np._results import JacobianEstimate
from gradiator_np._typing import Array

#: Directions that are looked along first.
LOOKS = 2
#: Times that a quiet function is asked again at a sixteenth of the distance: what a bend leaves of
#: a slope falls to 1/256, a missing entry stays.
CLOSER = 3
#: Pairs at half the distance that confirm a missing entry where runs are noisy: their slope is as
#: good as that of the first pair. And along each of the directions that tell which it is.
CONFIRMING, TELLING = 4, 2

#: From points (k, *batch, m) to values (k, *batch, n).
Run = Callable[[NDArray[Any]], NDArray[Any]]


class Prober:
    """Probes of one Jacobian.

    Parameters
    ----------
    run : callable
    compression : Compression
    found : JacobianEstimate
        Of the colours.
    eps : float
        Relative precision of the values.
    """

    def __init__(
        self, run: Run, compression: Compression, found: JacobianEstimate, eps: float
    ) -> None:
        self._run, self._compression, self._found = run, compression, found
        self._eps = max(eps, checks.precision(compression.x))
        self._rng = checks.generator(0)
        self._spent = 0

    def check(self) -> PatternCheck:
        """Whether the pattern holds: one run along each of two directions, pairs where noise is
        seen; where these disagree, more that tell what it is."""
        far = distance(self._compression, self._found)
        looks = [direction(self._compression, far, self._rng) for _ in range(LOOKS)]
        if is_loud(self._found, far):
            return self._loud(looks)
        lines = [[self._probe(u, t[:1])] for u, t in looks]
        if not self._excess(lines, share=FAINT).any():
            return PatternCheck.of(np.zeros(0), self._spent)
        return self._quiet(looks, [line[0] for line in lines])

    def _quiet(self, looks: list[tuple[Array, Array]], ahead: list[Probe]) -> PatternCheck:
        """Pairs, closer and closer."""
        pairs = [a.joined(self._probe(u, t[1:])) for a, (u, t) in zip(ahead, looks)]
        for _ in range(CLOSER):
            if not self._excess([[pair] for pair in pairs], share=FAINT).any():
                break
            looks = [(u, t / 16) for u, t in looks]
            pairs = [self._probe(u, t) for u, t in looks]
        lines = [[pair] for pair in pairs]
        return self._told(lines, looks[0][1], 1)

    def _loud(self, looks: list[tuple[Array, Array]]) -> PatternCheck:
        """Pairs at two distances."""
        lines = [[self._probe(u, t)] for u, t in looks]
        if not self._excess(lines, share=FAINT, truncation=0.0).any():
            return PatternCheck.of(np.zeros(0), self._spent)
        for line, (u, t) in zip(lines, looks):
            line.append(self._probe(u, t / 2, CONFIRMING))
        return self._told(lines, looks[0][1] / 2, TELLING)

    def _told(self, lines: list[list[Probe]], t: Array, groups: int) -> PatternCheck:
        """What a pattern lacks, by ``lines`` and others to a distance t, where they disagree with
        J."""
        strong = self._excess(lines)
        faint = np.maximum(strong, self._excess(lines, share=FAINT))
        if self._compression.layout.batch or not faint.any():
            return PatternCheck.of(strong, self._spent)
        rests = [self._rest(line) for line in lines]
        bent = np.sqrt(np.mean([np.square(rest.other) for rest in rests], axis=0))
        others = [direction(self._compression, t[0], self._rng) for _ in range(DIRECTIONS)]
        lines = lines + [[self._probe(u, t, groups)] for u, t in others]
        rests += [self._rest(line, bent) for line in lines[LOOKS:]]
        missing = missing_entries(
            self._compression,
            self._found,
            [line[0].u for line in lines],
            rests,
            np.flatnonzero(faint),
        )
        explained = np.zeros(faint.shape, bool)
        explained[missing[0]] = True
        check = PatternCheck.of(np.where((strong > 0) | explained, faint, 0.0), self._spent)
        return replace(check, missing=missing)

    def _excess(self, lines: list[list[Probe]], **options: Any) -> Array:
        return compare(self._compression, self._found, lines, eps=self._eps, **options)

    def _rest(self, line: list[Probe], truncation: Any = None) -> Any:
        with np.errstate(all="ignore"):  # outputs that failed are nan
            return rest_of(self._compression, self._found, line, self._eps, truncation)

    def _probe(self, u: Array, t: Array, groups: int = 1) -> Probe:
        """Groups of runs along u, which is as the first of them has it."""
        u = representable(self._compression, u, t[0])
        values = self._run(self._compression.along(u, np.concatenate([t] * groups)))
        self._spent += groups * len(t)
        return Probe(u, t, values.reshape(groups, len(t), *values.shape[1:]))
