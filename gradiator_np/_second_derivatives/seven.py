"""u' H u from seven runs: x, a pair next to it, and two pairs whose steps those before decide.

A second difference next to x that is more than rounding is noise, a kink or a jump, or curvature of
a function that lives on a far smaller scale than x. Another pair tells them apart: of curvature it
grows with the square of the step, of a kink with the step, of noise and jumps not at all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gradiator_np._second_derivatives import noise as noise_of
from gradiator_np._second_derivatives.forms import SYMMETRIC
from gradiator_np._second_derivatives.noise import ROUNDING, Level
from gradiator_np._second_derivatives.runs import CENTRE, Runs
from gradiator_np._second_derivatives.search import APART, CLEAR, RATE, Ladder, noisy_step
from gradiator_np._typing import Array, Mask

#: First step without noise, for two sizes: error 1e-10 of the radius of convergence.
STEP = 0.006
#: Noise above this share of the values hides what a pair next to x says of curvature.
QUIET = 1e-7
#: Half octaves from the wide pair down to the one that tells kinks from curvature, with noise.
CHECK = 7
#: Second differences follow a law of the step where they do within these shares: next to x, where
#: other terms and rounding disturb; of the two pairs; and where noise is what is left.
ROUGHLY, CLOSELY, LEFT = 0.3, 0.05, 0.1
#: Second derivatives of two sizes differ by more than this share of the wide one (of a kink by 10),
#: and second differences by so many times their noise, of two degrees of freedom or of one: 1 in
#: 400 is that large by chance. What follows the law of a kink needs less, 1 in 40.
UNLIKE, BEYOND_NOISE, BEYOND_ONE, BEYOND_KINK = 1.0, 20.0, 250.0, 6.0
#: Beside curvature the slope next to x tells noise as well, unless it is more than so many times
#: what the second difference tells: that is a third derivative. (Noise of one degree of freedom may
#: be 100 times what was seen, and two second differences of a wave that differ are noise then.)
SLOPES = 3.0
#: Second differences that do not grow with the step but for this share: what is narrow is left.
SAME = 1e-3
#: The difference of both sides next to x is that of a jump on one side but for this share.
ONE_SIDE = 2e-3
#: Steps are so many times that of the pair next to x at least: noise tells itself from curvature.
FARTHER = 30.0
#: Standard deviations by which a second difference shows above noise.
SHOWS = 6.0
#: A second difference has so many times the standard deviation of one run.
OF_PAIR = float(np.sqrt(6.0))


class Pair(NamedTuple):
    """Values (n,) at x + step and x - step, and at x; step in units of the scale along u."""

    step: float
    up: Array
    down: Array
    centre: Array

    @property
    def second(self) -> Array:
        """The second difference (n,), not divided by the square of the step."""
        return self.up + self.down - 2 * self.centre


class Seven:
    """The pair next to x, and what the other two make of it.

    Parameters
    ----------
    runs : Runs
    along : array, shape (m,)
        The tangent, of the length of one scale.
    stretch : float
        The size of x in units of the scale.
    eps : float

    Attributes
    ----------
    near : Pair
        Its step is 0 where bounds leave no room.
    level : Level
        What is known of noise.
    pairs : list of Pair
        The other two, the wider one first.
    unlike : array of bool, shape (n,)
        Outputs whose second differences follow no law.
    """

    def __init__(self, runs: Runs, along: Array, stretch: float, eps: float) -> None:
        self.runs, self.along, self.stretch, self.eps = runs, along, stretch, eps
        centre = runs.value(CENTRE)
        offset = noise_of.reach(eps) * along
        room = np.minimum(runs.up, runs.down) >= np.abs(offset)
        made = runs.on_grid(np.where(room, offset, 0.0))
        up, down = runs.at(np.array([made, -made]))
        self.near = Pair(self._step(made) if room.all() else 0.0, up, down, centre)
        values = np.array([up, down, centre])
        seen = np.nan_to_num(np.abs(self.near.second) / OF_PAIR)
        n = len(centre)
        size = np.nanmax(np.abs(values), axis=0)
        self.level = Level(
            seen, np.ones(n), np.ones(n), np.zeros(n, bool), (values == centre).all(0),
            np.zeros(n, bool), size,
        )  # fmt: skip
        self._settle(seen, np.ones(n))
        # Of a jump one side is that of x, of noise to this share 1 time in 1000.
        with np.errstate(divide="ignore", invalid="ignore"):
            jump = _like(np.abs((up - down) / self.near.second), 1.0, ONE_SIDE) & self.level.loud
        self.level = self.level._replace(broken=jump)
        self.pairs: list[Pair] = []
        self.unlike: Mask = np.zeros(n, bool)

    def _step(self, made: Array) -> float:
        return float(self.along @ made / (self.along @ self.along))

    def _settle(self, noise: Array, dof: Array) -> None:
        """Take noise that was seen, of rounding at least."""
        floor = self._floor()
        self.level = self.level._replace(
            noise=np.maximum(noise, floor),
            dof=np.where(noise > floor, dof, np.inf),
            loud=noise > ROUNDING * floor,
        )

    def _floor(self) -> Array:
        return noise_of.rounding(self.level.size, self.eps)

    @property
    def share(self) -> float:
        """Noise as a share of the values, of the output where it is the largest."""
        noisy = self.level.loud & ~self.level.broken
        return float((self.level.noise / self.level.size)[noisy].max(initial=0.0))

    @property
    def first_step(self) -> float:
        """The step of the first of both pairs, in units of the scale."""
        share = self.share
        if share > QUIET:
            return noisy_step(share)
        # Where the second difference next to x is curvature, f changes by its size over that scale.
        extent = noise_of.reach(self.eps) / np.sqrt(OF_PAIR * share) if share else 1.0
        return STEP * min(1.0, float(extent))

    def run(self, ladder: Ladder) -> list[int]:
        """Run both pairs and settle the noise; their levels."""
        ladder.ask(self.runs, [0])
        hidden = self.share > QUIET
        self._look_for_digits()
        if ladder.forms[0].rule is not SYMMETRIC or self.near.step == 0:
            second = APART if hidden else 1
            ladder.ask(self.runs, [second])
            self._look_for_digits()
            return [0, second]
        first = self._pair(ladder, 0)
        second = self._second(ladder, first, hidden)
        ladder.ask(self.runs, [second])
        other = self._pair(ladder, second)
        self.pairs = [other, first] if second < 0 else [first, other]
        self._settle_noise(self.pairs[1])
        self._look_for_digits()
        self._with_rounded_arguments()
        self._look_for_breaks()
        if hidden:
            self._look_beyond_noise()
        # Far smaller steps tell noise alone, and divided differences of both are ill conditioned.
        return [second] if second < -2 * CHECK else sorted([0, second])

    def _look_for_digits(self) -> None:
        """Noise of printed outputs, of which values next to x are the same, or nearly."""
        self.level = noise_of.printed(self.runs, self.runs.wide(), self.level)

    def _pair(self, ladder: Ladder, level: int) -> Pair:
        form = ladder.forms[0]
        up, down = (self.runs.value(node) for node, _ in form.nodes(ladder.start, level))
        made = self.runs.step(form.a, int(ladder.start[form.a]) + level)
        return Pair(self._step(made), up, down, self.near.centre)

    def _second(self, ladder: Ladder, first: Pair, hidden: bool) -> int:
        """The level of the second pair."""
        near = self.near
        curved = self._curved(first, ROUGHLY)
        if hidden and not curved.any():
            return self._wider(ladder, first)
        kinked = np.abs(first.second / first.step - near.second / near.step)
        if (self.level.loud & (kinked <= ROUGHLY * np.abs(near.second / near.step))).any():
            return 1  # the next size tells
        self._settle_noise(first)
        share = self.share
        if not (share or curved.any()):
            return 1
        clear = np.abs(first.second) > CLEAR * OF_PAIR * self.level.noise
        clear &= self.level.loud | curved
        extent = first.step * np.sqrt(self.level.size[clear] / np.abs(first.second[clear]))
        scale = min(1.0, float(extent.min(initial=1.0)))
        wanted = max(STEP, noisy_step(share)) * scale
        wanted = max(wanted, FARTHER * near.step)
        ladder.rate = RATE * (first.step / scale) ** 2
        by = round(2 * float(np.log2(first.step / wanted)))
        if abs(by) < 2:
            return 1
        return max(by, int(ladder.longest[0] - ladder.of_forms()[0]))

    def _wider(self, ladder: Ladder, first: Pair) -> int:
        """The level of the second pair, where noise hides what is next to x: a longer step than
        the first one, where that was short for the noise or shows nothing; else a check of it."""
        noise = np.fmax(self._noise_near(first), self._floor())
        loud = self.level.loud
        share = np.nan_to_num((noise / self.level.size)[loud]).max()
        by = round(2 * float(np.log2(max(noisy_step(float(share)) / first.step, 1.0))))
        shows = np.abs(first.second) > SHOWS * OF_PAIR * noise
        if not (shows & loud).any():
            by = max(by, APART)
        by = min(by, int(ladder.of_forms()[0] - max(ladder.longest[0], ladder.free[0])))
        return -by if by > 1 else CHECK

    def _noise_near(self, pair: Pair) -> Array:
        """The noise (n,) next to x that second difference and slope tell, beyond a pair's slope."""
        slope = self._beyond(pair)[1]
        return np.asarray(np.sqrt((np.square(self.near.second) / 6 + np.square(slope)) / 2))

    def _beyond(self, pair: Pair) -> tuple[Array, Array]:
        """What the second difference and the slope next to x have (n,) beyond those of a pair, in
        units of the noise that would make them."""
        near, by = self.near, self.near.step / pair.step
        second = near.second - pair.second * by**2
        slope = near.up - near.down - (pair.up - pair.down) * by
        return np.abs(second) / OF_PAIR, np.abs(slope) / np.sqrt(2)

    def _curved(self, pair: Pair, within: float) -> Mask:
        """Outputs whose second difference next to x is that of curvature, as the pair says."""
        near = self.near
        left = np.abs(near.second - pair.second * (near.step / pair.step) ** 2)
        loud = np.abs(near.second) > OF_PAIR * ROUNDING * self._floor()
        return np.asarray(loud & (left <= within * np.abs(near.second)))

    def _settle_noise(self, pair: Pair) -> None:
        """The noise next to x, beside curvature that the pair sees as well."""
        level = self.level
        left, slope = self._beyond(pair)
        both = slope <= SLOPES * left
        curved = self._curved(pair, LEFT)
        rest, dof, at_x = _about_parabola(self.near, pair)
        noisy = level.loud & ~level.still & ~curved & np.isfinite(rest)
        near = np.where(both, np.sqrt((left**2 + slope**2) / 2), left)
        self._settle(
            np.where(curved, near, np.where(noisy, rest, level.noise)),
            np.where(noisy, dof, np.where(curved, 1.0 + both, level.dof)),
        )
        self._improve(noisy, *at_x)

    def _with_rounded_arguments(self) -> None:
        """Noise of functions that round their arguments: where the slope is 0 at x, it shows at the
        two other pairs alone."""
        small = self.pairs[1]
        slope = np.fmax(np.abs(small.up - small.centre), np.abs(small.down - small.centre))
        rounding = np.nan_to_num(self.eps / 2 * self.stretch * slope / small.step)
        self.level = self.level._replace(noise=np.maximum(self.level.noise, rounding))

    def _improve(self, which: Mask, variance: float, shift: Array) -> None:
        """A better value at x, where there is noise."""
        which = which & self.level.loud
        self.level = self.level._replace(centre=np.where(which, variance, 1.0))
        self.runs.replace_centre(self.near.centre + np.where(which, shift, 0.0))

    def _look_for_breaks(self) -> None:
        """Kinks and jumps at x: all three second differences grow with the step, or not at all."""
        near, (wide, small) = self.near, self.pairs
        apart = near.up - near.down
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = small.second / wide.second
            kink = _like(ratio, small.step / wide.step, CLOSELY)
            kink &= _like(near.second / small.second, near.step / small.step, ROUGHLY)
            jump = _like(ratio, 1.0, CLOSELY) & _like(near.second / small.second, 1.0, CLOSELY)
            jump &= _like(np.abs(apart / near.second), 1.0, CLOSELY)
        loud = np.abs(near.second) > OF_PAIR * ROUNDING * self._floor()
        self.level = self.level._replace(broken=self.level.broken | (loud & (kink | jump)))

    def _left(self) -> tuple[Array, Array]:
        """What the wide pair leaves of the small second difference, in units of noise next to x
        told by second difference and slope; and second derivatives of both as a ratio."""
        near, (wide, small) = self.near, self.pairs
        law = (small.step / wide.step) ** 2
        noise = self._noise_near(small)
        noise = np.minimum(noise, np.abs(near.second) / OF_PAIR * (BEYOND_ONE / BEYOND_NOISE))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = small.second / wide.second
            return np.abs(small.second - wide.second * law) / noise / OF_PAIR, ratio / law

    def _look_beyond_noise(self) -> None:
        """Kinks that noise hides next to x; and outputs whose pairs tell different second
        derivatives: the wide and the small one, or the wide one and that next to x, where noise as
        large as the curvature that it hides would be a coincidence.
        """
        near, (wide, small) = self.near, self.pairs
        left, ratio = self._left()
        kink = _like(ratio * small.step / wide.step, 1.0, ROUGHLY) & (left > BEYOND_KINK)
        self.level = self.level._replace(broken=self.level.broken | kink)
        told = np.abs(wide.second) * (near.step / wide.step) ** 2 > LEFT * np.abs(near.second)
        told &= self.level.loud & ~self._curved(small, LEFT)
        told |= (left > BEYOND_NOISE) & (np.abs(ratio - 1) > UNLIKE)
        told |= _like(ratio * (small.step / wide.step) ** 2, 1.0, SAME)
        self.unlike = told & ~self.level.broken

    def least(self, ladder: Ladder) -> Array:
        """The second difference (n,) at level 0 that the slope leads to expect: where u' H u is 0,
        or nearly, truncation is not.

        Derivatives of order k are about k! / r^k, r the radius of convergence: the second one is
        2 / r times the first one, and the square root of the rate is the step over r.
        """
        if not self.pairs:
            return np.zeros(len(self.near.centre))
        wide = self.pairs[0]
        step = self._step(self.runs.step(0, int(ladder.start[0])))
        of_slope = np.nan_to_num(np.abs(wide.up - wide.down)) / 2 * (step / wide.step)
        return np.asarray(2 * np.sqrt(ladder.rate) * of_slope)

    def against(self, value: Array, stderr: Array) -> tuple[Array, Array]:
        """Second derivatives (n,) in units of the scale, and how far the farthest second difference
        is from them where they differ by more than noise: those next to x there, and 0 elsewhere.
        """
        off = np.zeros(len(value))
        if not self.pairs:
            return value, off
        near = self.near.second / self.near.step**2
        noise = CLEAR * OF_PAIR * self.level.noise / self.near.step**2
        with np.errstate(invalid="ignore"):
            told = self.unlike | (np.abs(near - value) > CLEAR * stderr + noise)
        for pair in self.pairs:
            seen = pair.second / pair.step**2
            off = np.fmax(off, np.abs(seen - near))
        return np.where(told, near, value), np.where(told, off, 0.0)


def _like(ratio: Array, law: float, within: float) -> Mask:
    return np.asarray(np.abs(ratio / law - 1) <= within)


def _about_parabola(near: Pair, pair: Pair) -> tuple[Array, float, tuple[float, Array]]:
    """The standard deviation (n,) of x and two pairs about a parabola, its degrees of freedom, and
    variance and shift of the value at x."""
    t = np.array([-near.step, near.step, 0.0, -pair.step, pair.step])
    v = np.array([near.down, near.up, near.centre, pair.down, pair.up]) - near.centre
    basis = (t / np.abs(t).max())[:, None] ** np.arange(3)
    inverse = np.linalg.pinv(basis)
    coef = inverse @ v
    dof = float(len(t) - 3)
    rest = np.sqrt(np.square(v - basis @ coef).sum(0) / dof)
    return rest, dof, (float(inverse[0] @ inverse[0]), coef[0])
