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
from gradiator_np._compressed.pattern_check import (
    FAINT,
    NEGLIGIBLE,
    PatternCheck,
    Rest,
    disagreement,
    rest_of,
    unaccounted,
)
from gradiator_np._compressed.probes import Probe, direction, distance, is_loud, representable
from gradiator_np._results import JacobianEstimate
from gradiator_np._typing import Array, Mask

#: Directions that are looked along first.
LOOKS = 2
#: Times that a quiet function is asked again at a sixteenth of the distance: what a bend leaves of
#: a slope falls to 1/256, a missing entry stays.
CLOSER, NEARER = 3, 16
#: Pairs at half the distance that confirm a missing entry where runs are noisy: their slope is as
#: good as that of the first pair. And along each of the directions that tell which it is.
CONFIRMING, TELLING = 4, 2
#: Of these pairs the last lies at so much of the distance of the first.
CLOSEST = 0.7

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
        ahead = [self._probe(u, t[:1]) for u, t in looks]
        if self._excess([self._rest([probe]) for probe in ahead]).any():
            return self._quiet(looks, ahead)
        return self._verdict(self._silent)

    def _quiet(self, looks: list[tuple[Array, Array]], ahead: list[Probe]) -> PatternCheck:
        """Pairs, closer and closer, as long as rounding and noise allow."""
        pairs = [a.joined(self._probe(u, t[1:])) for a, (u, t) in zip(ahead, looks)]
        levels = [[self._rest([pair]) for pair in pairs]]
        excess, level = self._excess(levels[0]), np.zeros(self._silent.shape, np.intp)
        for k in range(CLOSER):
            blur = self._most([5 * rest.noise + rest.rounding for rest in levels[k]])
            clear = (excess > 2 * NEARER * blur) & (level == k)
            if not clear.any():
                break
            looks = [(u, t / NEARER) for u, t in looks]
            levels.append([self._rest([self._probe(u, t)]) for u, t in looks])
            apart = self._most([
                np.abs(now.value - then.value) - np.abs(then.value) / 2
                for now, then in zip(levels[k + 1], levels[k])
            ])  # fmt: skip
            now = np.where(apart > 0, 0.0, self._excess(levels[k + 1]))
            excess = np.where(clear, now, excess)
            level[clear] = k + 1
        if not excess.any():
            return self._verdict(self._silent)
        last = int(level[excess > 0].min())
        where = [(u, t * NEARER ** (len(levels) - 1 - last)) for u, t in looks]
        return self._told(excess > 0, where, levels[last], 1)

    def _loud(self, looks: list[tuple[Array, Array]]) -> PatternCheck:
        """Pairs at two distances."""
        pairs = [self._probe(u, t) for u, t in looks]
        if not self._excess([self._rest([pair], self._silent) for pair in pairs]).any():
            return self._verdict(self._silent)
        looks = [(u, t / 2) for u, t in looks]
        closer = [self._probe(u, t, CONFIRMING) for u, t in looks]
        rests = [self._rest(list(both)) for both in zip(pairs, closer)]
        return self._told(self._excess(rests) > 0, looks, rests, TELLING)

    def _told(
        self, suspects: Mask, looks: list[tuple[Array, Array]], rests: list[Rest], groups: int
    ) -> PatternCheck:
        """What a pattern lacks, by ``rests`` along directions and others as far as these."""
        strong = np.where(suspects, self._excess(rests, NEGLIGIBLE), 0.0)
        if self._compression.layout.batch or not suspects.any():
            return self._verdict(strong)
        bent = np.sqrt(np.mean([np.square(rest.truncation) for rest in rests], axis=0))
        far = np.abs(looks[0][1][0])
        others = [direction(self._compression, far, self._rng) for _ in range(DIRECTIONS)]
        probes = [self._probe(u, t, groups) for u, t in others]
        directions = [representable(self._compression, u, t[0]) for u, t in looks]
        missing = missing_entries(
            self._compression,
            self._found,
            directions + [probe.u for probe in probes],
            rests + [self._rest([probe], bent) for probe in probes],
            np.flatnonzero(suspects),
        )
        explained = np.zeros(strong.shape)
        rows = np.unique(missing[0])
        explained[rows] = self._most([np.abs(rest.value) for rest in rests])[rows]
        return replace(self._verdict(np.maximum(strong, explained)), missing=missing)

    def _verdict(self, excess: Array) -> PatternCheck:
        """By runs along directions, and by what costs none."""
        free = unaccounted(self._compression, self._found, self._eps)
        return PatternCheck.of(np.maximum(excess, free), self._spent)

    @property
    def _silent(self) -> Array:
        """Nothing, of each output."""
        return np.zeros(self._found.solution.coef.shape[-2])

    def _excess(self, rests: list[Rest], share: float = FAINT) -> Array:
        return disagreement(self._found, rests, share)

    def _most(self, values: list[Array]) -> Array:
        """The largest of each output, (n,), of several (*batch, n)."""
        stack = np.stack(values)
        with np.errstate(all="ignore"):  # outputs that failed are nan
            return np.asarray(np.fmax.reduce(stack.reshape(-1, stack.shape[-1]), axis=0))

    def _rest(self, line: list[Probe], truncation: Array | None = None) -> Rest:
        with np.errstate(all="ignore"):
            return rest_of(self._compression, self._found, line, self._eps, truncation)

    def _probe(self, u: Array, t: Array, groups: int = 1) -> Probe:
        """Groups of runs along u, which is as the first of them has it; each a little closer, so
        that values which are rounded differ."""
        u = representable(self._compression, u, t[0])
        each = np.linspace(1.0, CLOSEST, groups).reshape(groups, *[1] * t.ndim) * t
        values = self._run(self._compression.along(u, each.reshape(-1, *t.shape[1:])))
        self._spent += len(values)
        return Probe(u, each, values.reshape(*each.shape[:2], *values.shape[1:]))
