"""Runs that ask whether a pattern holds, as many as it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._compressed.compression import Compression
from gradiator_np._compressed.missing import DIRECTIONS, explain
from gradiator_np._compressed.pattern_check import (
    FAINT,
    NEGLIGIBLE,
    PatternCheck,
    Rest,
    disagreement,
    rest_of,
    seen_noise,
    shows_noise,
    unaccounted,
    with_common_noise,
    with_noise,
)
from gradiator_np._compressed.probes import (
    Probe,
    direction,
    distance,
    is_loud,
    representable,
    single,
)
from gradiator_np._results import JacobianEstimate
from gradiator_np._typing import Array, Index, Mask

#: Directions that are looked along first.
LOOKS = 2
#: Times that a quiet function is asked again at a sixteenth of the distance: what a bend leaves of
#: a slope falls to 1/256, a missing entry stays.
CLOSER, NEARER = 3, 16
#: Runs that a pattern which holds takes at most: along each direction one and two pairs, or where
#: noise is seen two pairs.
FIRST = 5 * LOOKS
#: Pairs along each of the directions that tell which entry is missing, where runs are noisy, and
#: of these pairs the last lies at so much of the distance of the first.
TELLING, CLOSEST = 2, 0.7

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
        self._run, self._compression, self._found, self._given = run, compression, found, found
        self._eps = max(eps, checks.precision(compression.x))
        self._rng = checks.generator(0)
        self._spent = 0
        # an output that alone is loud bends
        self._noisy = np.median(seen_noise(found), axis=-1, keepdims=True) > 0
        if self._noisy.all():
            self._given = self._found = with_common_noise(found)
        self._free = self._unaccounted()

    def check(self) -> PatternCheck:
        """Whether the pattern holds: one run along each of two directions, pairs where noise is
        seen; where these disagree, more that tell what it is."""
        far = distance(self._compression, self._found)
        looks = [direction(self._compression, far, self._rng) for _ in range(LOOKS)]
        if is_loud(self._found, far):
            return self._loud(looks)
        near = single(self._compression, self._found, far) / far
        if self._excess([self._rest([self._probe(u, near * t[:1])]) for u, t in looks]).any():
            return self._quiet(looks)
        return self._verdict(self._silent)

    def _quiet(self, looks: list[tuple[Array, Array]]) -> PatternCheck:
        """Pairs, closer and closer, as long as rounding and noise allow."""
        pairs = self._pairs(looks)
        levels = [self._rests(pairs)]
        excess, level = self._excess(levels[0]), np.zeros(self._silent.shape, np.intp)
        for k in range(CLOSER):
            blur = self._together([5 * rest.noise + rest.rounding for rest in levels[k]])
            clear = (excess > 2 * NEARER * blur) & (level == k)
            if k and not clear.any():
                break
            looks = [(u, t / NEARER) for u, t in looks]
            nearer = self._pairs(looks)
            levels.append(self._rests(nearer))
            if not k:
                self._hear(pairs, nearer)
                levels[0] = self._rests(pairs)  # by what is known of noise now
                excess = self._excess(levels[0])
            again = np.where(self._moved(*levels[-2:]), self._free, self._excess(levels[-1]))
            excess = np.where(clear, again, excess)
            level[clear] = k + 1
        if not excess.any():
            check = self._verdict(self._silent)
            return replace(check, inexact=self._unstated(levels[-1]))
        last = int(level[excess > 0].min())
        where = [(u, t * NEARER ** (len(levels) - 1 - last)) for u, t in looks]
        return self._told(excess > 0, where, levels[last], 1)

    def _pairs(self, looks: list[tuple[Array, Array]]) -> list[Probe]:
        """A pair along each direction, and what they tell of noise."""
        pairs = [self._probe(u, t) for u, t in looks]
        self._found = with_noise(self._given, pairs)
        self._free = self._unaccounted()
        return pairs

    def _hear(self, pairs: list[Probe], nearer: list[Probe]) -> None:
        """Take from pairs at two distances whether it is noise or a bend that J's runs met."""
        self._noisy = self._noisy | shows_noise(self._found, pairs, nearer)
        if self._noisy.all():
            self._given = with_common_noise(self._given)
            self._found = with_noise(self._given, [*pairs, *nearer])
        self._free = self._unaccounted()

    def _rests(self, pairs: list[Probe]) -> list[Rest]:
        return [self._rest([pair]) for pair in pairs]

    def _unaccounted(self) -> Array:
        return unaccounted(self._compression, self._found, self._eps, self._noisy)

    def _loud(self, looks: list[tuple[Array, Array]]) -> PatternCheck:
        """Pairs at two distances."""
        pairs = [self._probe(u, t) for u, t in looks]
        rests = self._rests(pairs)
        if self._excess([rest.lenient() for rest in rests]).any() and not self._noisy.all():
            self._hear(pairs, [self._probe(u, t / NEARER) for u, t in looks])
            rests = self._rests(pairs)  # by what is known of noise now
        if not self._excess([rest.lenient() for rest in rests]).any():
            return self._verdict(self._silent)
        looks = [(u, t / 2) for u, t in looks]
        closer = [self._probe(u, t) for u, t in looks]
        moved = self._moved(rests, self._rests(closer))  # what an outlier hit
        rests = [self._rest(list(both)) for both in zip(pairs, closer)]
        excess = np.where(moved, self._free, self._excess(rests))
        return self._told(excess > 0, looks, rests, TELLING)

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
        missing, inexact = explain(
            self._compression,
            self._found,
            directions + [probe.u for probe in probes],
            rests + [self._rest([probe], bent) for probe in probes],
            np.flatnonzero(suspects),
        )
        explained = np.zeros(strong.shape)
        rows = np.unique(missing[0])
        explained[rows] = self._together([rest.value for rest in rests])[rows]
        inexact = inexact[(strong[inexact] > 0) & (self._free[inexact] == 0)]
        strong[inexact] = 0.0
        check = self._verdict(np.maximum(strong, explained))
        return replace(check, missing=missing, inexact=inexact)

    def _unstated(self, rests: list[Rest]) -> Index:
        """Outputs of which J is off by noise that these runs show, and its own did not."""
        unknown = np.isnan(self._given.solution.cov.scale)
        bare = [rest._replace(error=np.where(unknown, 0.0, rest.error)) for rest in rests]
        return np.flatnonzero((self._excess(bare, NEGLIGIBLE) > 0) & (self._free == 0))

    def _verdict(self, excess: Array) -> PatternCheck:
        """By runs along directions, and by what costs none."""
        return PatternCheck.of(np.maximum(excess, self._free), self._spent)

    @property
    def _silent(self) -> Array:
        """Nothing, of each output."""
        return np.zeros(self._found.solution.coef.shape[-2])

    def _excess(self, rests: list[Rest], share: float = FAINT) -> Array:
        return np.maximum(disagreement(self._found, rests, share, self._noisy), self._free)

    def _moved(self, then: list[Rest], now: list[Rest]) -> Mask:
        """Outputs (n,) of which less than half of what was left is left again."""
        change = self._together([b.value - a.value for a, b in zip(then, now)])
        return np.asarray(change > self._together([rest.value for rest in then]) / 2)

    def _together(self, values: list[NDArray[Any]]) -> Array:
        """The norm of each output's, (n,), of several (*batch, n); nan where runs failed."""
        stack = np.abs(np.stack(values))
        with np.errstate(all="ignore"):
            return np.asarray(np.linalg.norm(stack.reshape(-1, stack.shape[-1]), axis=0))

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
