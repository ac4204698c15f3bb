"""How a group of inputs is moved, and what counts as an answer of an output.

Both kinds are pure: generators that yield offsets from x, shape (k, m), and are sent values (k, n).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gradiator_np import _checks as checks
from gradiator_np._moderated import moderated
from gradiator_np._typing import Array, Index, Mask

T = TypeVar("T")
#: Asks for offsets from x, is told values.
Moves = Generator[Array, NDArray[Any], T]

#: False answers for each comparison of an output with what it was.
ALPHA = 1e-9
#: The quantile of the normal distribution for it.
NORMAL = float(-special.ndtri(ALPHA / 2))
#: Numbers in the points of one request: 256 MiB.
REQUEST = 2**25
#: How far the points where inputs are moved lie from x, in units of their scale: what vanishes at x
#: by chance (a factor 0, a minimum) does not there.
AWAY = 0.05
#: Steps, in units of the scale: the first at which answers are CLEAR times the threshold of noise.
#: No slope is estimated, so that a long step costs nothing but that it may leave the neighbourhood.
STEPS, CLEAR = (1e-3, 0.05, 0.25), 1e3
#: Spacing and number of points of the line that tells the noise, in units of the scale.
SPACING, LINE = 1e-5, 7


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a search may know of a function and a point.

    Attributes
    ----------
    y : array, shape (n,)
        The value at x.
    scale, up, down : array, shape (m,)
        Units of the inputs, and the room that bounds leave above and below x.
    rng : Generator
    noise : array, shape (n,), or None
        Standard deviation of one evaluation, where the caller knows it.
    step : float or None
        Steps in units of the scale.
    """

    y: NDArray[Any]
    scale: Array
    up: Array
    down: Array
    rng: np.random.Generator
    noise: Array | None = None
    step: float | None = None

    @property
    def movable(self) -> Mask:
        """Inputs that bounds do not hold."""
        return (self.up > 0) | (self.down > 0)

    def within(self, offsets: Array) -> Array:
        """Offsets on the other side of x where there is no room, cut off where there is none."""
        flipped = np.where((offsets > self.up) | (-offsets > self.down), -offsets, offsets)
        return np.clip(flipped, -self.down, self.up)

    def drawn(self, size: float) -> Array:
        """A step of each input, of random sign and of half to the whole ``size``."""
        return self.scale * size * checks.random_direction(self.rng, len(self.scale))


class Probe(Protocol):
    """A way to ask which outputs answer to which groups of inputs."""

    def __call__(self, groups: Index, k: int) -> Moves[tuple[Mask, Mask]]:
        """Move the inputs of groups 0 ... k - 1 (those of -1 stay), one group after the other.

        Returns
        -------
        answers : array of bool, shape (k, n)
            An output that failed counts as an answer: it rules nothing out.
        failed : array of bool, shape (k, n)
            Answers of this kind, which explain nothing either.
        """


class Perturbation:
    """Inputs are displaced from a point near x; an output that differs by more than noise answers.

    The noise of each output is the caller's, or what a quadratic leaves of seven values on a short
    line, moderated by that of the others; later values of outputs that did not answer add to it.
    """

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.step = STEPS[0] if around.step is None else around.step
        self.base = np.zeros(len(around.scale))
        self.value = around.y
        n = len(around.y)
        self.least = np.zeros(n) if around.noise is None else around.noise
        self.dof = np.full(n, np.inf if around.noise is not None else 0.0)
        self._squares, self._quiet = np.zeros(n), np.zeros(n)

    def go_to(self, away: float = AWAY) -> Moves[None]:
        """Another point near x, for all that follows; nearer where outputs fail there.

        Every input goes to the other side of x than before: one that acts on one side alone, as
        where a limit is just reached at x, would not be seen on the other.
        """
        around, before = self.around, self.base
        while away > 1e-6:
            there = around.drawn(away)
            base = around.within(np.where(before == 0, there, np.copysign(there, -before)))
            (value,) = yield base[None]
            if (np.isfinite(value) >= np.isfinite(around.y)).all():
                self.base, self.value = base, value
                return
            away /= 16
        self.base, self.value = np.zeros(len(around.scale)), around.y

    def learn_noise(self) -> Moves[None]:
        """The noise of each output, from a line; and steps that stand out from it."""
        around = self.around
        reach = np.abs(self.value - around.y)
        if around.noise is None:
            t = np.arange(LINE) - LINE // 2
            t = t[t != 0]
            along = self.base + t[:, None] * around.drawn(SPACING)
            values = yield np.clip(along, -around.down, around.up)
            values = np.insert(values, LINE // 2, self.value, axis=0)
            basis = np.linalg.qr(np.vander(np.arange(LINE) - LINE // 2, 3).astype(float))[0]
            rest = values - basis @ (basis.T @ values)
            variance = (np.abs(rest) ** 2).sum(0) / (LINE - 3)
            self.least, self.dof = moderated(variance, np.full(len(variance), LINE - 3.0))
        if around.step is None:
            seen = reach > 0
            least = np.median(self.threshold()[seen] / reach[seen] * AWAY) if seen.any() else 0.0
            self.step = next((s for s in STEPS if s >= CLEAR * least), STEPS[-1])

    def sigma(self) -> Array:
        """The noise of each output, as far as it is known by now."""
        dof = self.dof + self._quiet
        known = np.isfinite(dof) & (dof > 0)
        squares = np.where(known, self.least**2 * self.dof + self._squares, 0.0)
        pooled = np.sqrt(np.divide(squares, dof, out=np.zeros(len(dof)), where=known))
        # Values that are equal by chance lower no estimate.
        return np.maximum(pooled, self.least)

    def threshold(self) -> Array:
        """What two values of one output do not differ by."""
        dof = self.dof + self._quiet
        known = np.isfinite(dof) & (dof > 0)
        limit = np.full(len(dof), NORMAL)
        limit[known] = special.stdtrit(dof[known], 1 - ALPHA / 2)
        return np.asarray(np.sqrt(2) * limit * self.sigma())

    def __call__(self, groups: Index, k: int) -> Moves[tuple[Mask, Mask]]:
        around, n = self.around, len(self.value)
        moved = around.within(self.base + around.drawn(self.step))
        # Where the point lies at a bound the step may have been cut off: to the other side of it.
        moved = np.where(moved == self.base, around.within(2 * self.base - moved), moved)
        answers, failed = np.empty((k, n), bool), np.empty((k, n), bool)
        for part in _parts(k, len(groups)):
            values = yield np.where(groups == part[:, None], moved, self.base)
            failed[part] = ~np.isfinite(values)
            with np.errstate(invalid="ignore"):
                difference = np.abs(values - self.value)
                answers[part] = ~(difference <= self.threshold())
            # Of few degrees of freedom the threshold is wide, and what is below may be an answer:
            # taken for noise, it would hide the next.
            quiet = difference <= np.sqrt(2) * NORMAL * self.sigma()
            self._quiet += quiet.sum(0)
            self._squares += np.where(quiet, difference**2 / 2, 0.0).sum(0)
        return answers, failed


class NanPropagation:
    """Inputs are nan; an output that is nan answers. No noise, no zeros by chance."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around

    def passes(self, answering: Mask) -> Moves[bool]:
        """Whether nan in all inputs makes nan of all outputs that are known to answer."""
        (value,) = yield np.where(self.around.movable, np.nan, 0.0)[None]
        return bool((~np.isfinite(value))[answering].all())

    def __call__(self, groups: Index, k: int) -> Moves[tuple[Mask, Mask]]:
        answers = np.empty((k, len(self.around.y)), bool)
        for part in _parts(k, len(groups)):
            values = yield np.where(groups == part[:, None], np.nan, 0.0)
            answers[part] = ~np.isfinite(values)
        return answers, np.zeros(answers.shape, bool)


def _parts(k: int, m: int) -> list[Index]:
    """Tests of one request each."""
    size = max(1, REQUEST // m)
    return [np.arange(start, min(start + size, k)) for start in range(0, k, size)]
