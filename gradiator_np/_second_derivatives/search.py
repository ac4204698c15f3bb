"""How far to step along each direction: levels of a ladder of half octaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradiator_np._second_derivatives.forms import Form, Rule, evaluate
from gradiator_np._second_derivatives.inference import Block, Limits, forecast, infer
from gradiator_np._second_derivatives.noise import Level, rounding
from gradiator_np._second_derivatives.runs import CENTRE, Node, Runs
from gradiator_np._typing import Array, Index, Mask

#: First step without noise, in units of the scale, and sizes a second derivative is made from: of
#: order 8 their best step is 0.05 of the radius of convergence at double precision.
SMOOTH_STEP, SMOOTH_SIZES = 0.07, 4
#: The same with noise of 1e-4 of y; it goes with the fourth root of the noise.
NOISY_STEP, NOISY_LEVEL = 0.14, 1e-4
#: More noise than this share of y makes steps no longer.
MOST_NOISE = 1e-2
#: Half octaves between the two sizes that are run with noise; what may be chosen beyond them.
APART, BEYOND = 3, 3
#: Passes of the search for steps, half octaves of one pass at most.
PASSES, MOST = 8, 8
#: Guess of the rate of the Taylor series, in units of the square of step over scale: a radius of
#: convergence of 2.6 scales, and by ``limit.RATE_SD`` one of 0.8 at two standard deviations. (From
#: 0.3 on intervals at noise of 1e-4 hold 98 to 99 %, on random compositions as on powers of x.)
RATE = 0.15
#: Steps go beyond one scale only where values rise by less than so many times their noise.
ANSWER = 1e4
#: Truncation of this share of the answer: f changes within the steps.
WILD = 0.1
#: Second differences that exceed, or fall short of, the median by so much: steps too long or short.
LONG, SHORT = 6.0, 0.1
#: Half octaves by which a step that shows nothing grows, with noise and without.
GROWTH, GROWS_BY = 6, 24
#: Second differences that change by this share as steps shrink may be those of a kink.
GROWS = 0.2
#: The part of a second difference, at least, that a kink has.
OWN = 0.25
#: Second differences of more than ``LOUD`` standard deviations of noise have steps far longer than
#: noise asks for: of 734 random functions with noise of 1e-6 to 1e-2 of their size 1 had such. Of a
#: pair so close that they would be ``SEEN`` of it, they say whether f is the same there, but for so
#: many errors of the second derivative.
LOUD, SEEN, BARS = 1e5, 1e3, 5.0
#: A kink exceeds the noise by so many standard deviations at every step.
CLEAR = 8.0


@dataclass
class Ladder:
    """The steps of directions: which level of each is level 0 of its second differences.

    Attributes
    ----------
    forms : sequence of Form
        Second differences that settle the steps of their directions, no two of the same.
    start : array of int, shape (p,)
        Of each direction.
    longest, free, silent, shortest : array of int, shape (forms,)
        The level of the longest step that bounds allow, that of one scale, that of the longest
        step of an input that nothing answers to, and that of the shortest step.
    rate : float
        Guess of the square of step over scale at level 0.
    levels : list of int
        Levels at which all forms have been run.
    most : float
        Runs that there may be when the steps are settled.
    first : Limits or None
        What the first steps said without noise, in units of steps at level 0.
    """

    forms: Sequence[Form]
    start: Index
    longest: Index
    free: Index
    silent: Index
    shortest: Index
    rate: float
    levels: list[int]
    most: float
    first: Limits | None = None

    def per_unit(self) -> Array:
        """What turns second derivatives in units of each form's steps into those of level 0."""
        levels = [self.start[form.a] + self.start[form.b] for form in self.forms]
        return np.asarray(2.0 ** (np.array(levels) / 2))

    def spare(self, runs: Runs) -> int:
        """Runs that are left."""
        return int(min(max(self.most - runs.nfev, 0), 2**31))

    def blocks(self, runs: Runs, levels: Sequence[int]) -> list[Block]:
        """Second differences of all forms, by rule."""
        return blocks_of(runs, self.forms, self.start, levels)

    def ask(self, runs: Runs, levels: Sequence[int], which: Sequence[int] | None = None) -> None:
        """Run some levels of some forms."""
        forms = self.forms if which is None else [self.forms[p] for p in which]
        runs.ask([n for f in forms for k in levels for n, _ in f.nodes(self.start, k)])

    def limits(self, runs: Runs, level: Level, levels: Sequence[int]) -> Limits:
        """The limits of all forms, in their order."""
        found = infer(self.blocks(runs, levels), level, self.rate)
        order = np.argsort(np.concatenate(rows_of(self.forms)))
        return Limits(*(np.concatenate(part)[order] for part in zip(*found)))

    def of_forms(self) -> Index:
        """The level of each form's step."""
        return self.start[[form.a for form in self.forms]]

    def move(self, by: Index, low: Index, high: Index) -> bool:
        """Shift the steps of forms within limits; whether any did by more than a half octave.

        Steps that grew beyond ``low``, since nothing answered to shorter ones, are not sent back.
        """
        now = self.of_forms()
        low = np.maximum(np.minimum(low, now), self.longest)
        new = np.clip(now + by, np.minimum(low, high), high)
        change = np.where(np.abs(new - now) > 1, new - now, 0)
        for form, shift in zip(self.forms, change):
            for direction in {form.a, form.b}:
                self.start[direction] += shift
        return bool(change.any())


def rows_of(forms: Sequence[Form]) -> list[Index]:
    """Places of the forms of each rule, by rule."""
    rules = list(dict.fromkeys(form.rule for form in forms))
    return [np.flatnonzero([form.rule is rule for form in forms]) for rule in rules]


def blocks_of(
    runs: Runs, forms: Sequence[Form], start: Index, levels: Sequence[int]
) -> list[Block]:
    """Second differences of forms, by rule, each in the order of ``rows_of``."""
    out = []
    for rows in rows_of(forms):
        some = [forms[i] for i in rows]
        along = [(form.a, form.b) for form in some]
        out.append(Block(some[0].rule, levels, evaluate(runs, some, start, levels), along))
    return out


def noisy_step(share: float) -> float:
    """The first step, in units of the scale, where noise is this share of the values."""
    return float(NOISY_STEP * (min(share, MOST_NOISE) / NOISY_LEVEL) ** 0.25)


def without_noise(
    ladder: Ladder, runs: Runs, level: Level, sizes: int, eps: float, passes: int = PASSES
) -> Level:
    """Move the window of levels of each form to where truncation is as large as noise.

    Returns the level of noise, that of rounding at such steps at least.
    """
    ladder.levels = list(range(sizes))
    high = ladder.shortest - sizes + 1
    for last in reversed(range(passes)):
        ladder.ask(runs, ladder.levels)
        there = with_rounding(ladder, runs, ladder.levels[-1], level, eps)
        if last == 0:
            break
        found = ladder.limits(runs, there, ladder.levels)
        if ladder.first is None:
            ladder.first = Limits(*(part * ladder.per_unit()[:, None] for part in found))
        rise = _rise(ladder, runs, there)
        if not rise.any():
            break  # nothing answers at all
        hidden = rise < ANSWER
        if runs.nfev + 2 * sizes * len(ladder.forms) > ladder.most:
            break
        low = np.where(hidden, ladder.silent, ladder.free)
        if not ladder.move(_shift(found, there, sizes, hidden), low, high):
            break
    return there


def _rise(ladder: Ladder, runs: Runs, level: Level) -> Array:
    """The largest change of a value at the longest steps of each form, in units of noise."""
    out = np.zeros(len(ladder.forms))
    for e, form in enumerate(ladder.forms):
        nodes = form.nodes(ladder.start, ladder.levels[0])
        change = np.array([runs.value(node) for node, _ in nodes]) - runs.value(CENTRE)
        out[e] = np.nanmax(np.abs(change) / level.noise, initial=0.0)
    return out


def with_rounding(ladder: Ladder, runs: Runs, at: int, level: Level, eps: float) -> Level:
    """The level of noise, at least that of rounding at the steps of one level."""
    size = np.zeros(len(level.noise))
    for form in ladder.forms:
        nodes = form.nodes(ladder.start, at)
        values = np.abs([runs.value(node) for node, _ in nodes])
        size = np.fmax(size, np.where(np.isfinite(values), values, 0.0).mean(0))
    return level._replace(noise=np.maximum(level.noise, rounding(size, eps)))


def _shift(found: Limits, level: Level, sizes: int, hidden: Mask) -> Index:
    """Half octaves by which the steps of each form should shrink."""
    out = np.zeros(len(found.value), np.intp)
    for e in range(len(out)):
        value, bar, own = (part[e] / level.noise for part in found)
        told = np.isfinite(bar) & ~level.broken
        if not told.any():
            out[e] = MOST  # failed: nearer to x
            continue
        size, bar, own = np.abs(value[told]).sum(), bar[told], own[told]
        of_noise, of_truncation = np.mean(own**2), np.mean(np.maximum(bar**2 - own**2, 0.0))
        if bar.sum() > WILD * size and own.sum() < WILD * size:
            out[e] = MOST
        elif of_truncation > 0:
            out[e] = int(np.round(2 * np.log2(of_truncation / of_noise) / (4 * sizes + 4)))
        if hidden[e] and own.sum() > WILD * size:
            out[e] = -GROWS_BY
    return np.clip(out, -GROWS_BY, MOST)


def with_noise(
    ladder: Ladder, runs: Runs, level: Level, counts: Mapping[Rule, int], scouts: int
) -> None:
    """Settle one level for all forms by two sizes of a few of them, and mend what differs.

    Parameters
    ----------
    counts : dict of Rule to int
        How many second differences of each rule there will be.
    scouts : int
        Forms that are run at two sizes.
    """
    p = len(ladder.forms)
    which = np.unique(np.linspace(0, p - 1, min(p, scouts)).astype(np.intp)).tolist()
    for _ in range(PASSES):
        best, edge = _scouted(ladder, runs, level, counts, which)
        spare = ladder.spare(runs) >= (p + len(which)) * len(ladder.forms[0].rule.nodes)
        moved = (
            edge != 0
            and spare
            and ladder.move(
                np.full(p, edge * MOST), np.maximum(ladder.longest, ladder.free), ladder.shortest
            )
        )
        if not moved:
            break
    ladder.levels = [best]
    ladder.ask(runs, ladder.levels)
    _confirm(ladder, runs, level, which)
    for _ in range(PASSES // 2):
        if not _mend(ladder, runs, level):
            return


def _scouted(
    ladder: Ladder, runs: Runs, level: Level, counts: Mapping[Rule, int], which: list[int],
) -> tuple[int, int]:  # fmt: skip
    """The best level by what scouts tell; and 1 or -1 where it may be beyond all candidates, on the
    side of shorter or longer steps."""
    room = ladder.of_forms() - ladder.longest
    two = [-APART, 0] if (room >= APART).all() else [0, APART]
    ladder.ask(runs, two, which)
    candidates = np.array(two)
    each = len(ladder.forms[0].rule.nodes)
    if ladder.spare(runs) >= each * len(ladder.forms):  # the scouts run another level as well
        candidates = np.arange(two[0] - BEYOND, two[1] + BEYOND + 1)
    candidates = candidates[(room[:, None] + candidates >= 0).all(0)]
    rules = [rule for rule, count in counts.items() if count]
    loss = forecast(ladder.blocks(runs, two), rules, candidates, level, ladder.rate)
    weights = np.array([counts[rule] for rule in rules], float)
    at = int(np.einsum("r,rln->l", weights, loss).argmin())
    edge = 0
    if at == len(candidates) - 1:
        edge = 1 if _disagree(ladder, runs, level, which, two) else 0
    return int(candidates[at]), edge


def _disagree(ladder: Ladder, runs: Runs, level: Level, which: list[int], two: list[int]) -> bool:
    """Whether half of the scouts see another second derivative at their two sizes."""
    bad = []
    for form in (ladder.forms[k] for k in which):
        v = evaluate(runs, [form], ladder.start, two)[0]
        sd = _deviation(form, level) * 2.0 ** two[1]
        apart = np.abs(v[0] - v[1])
        bad.append(((apart > 0.5 * np.abs(v).max(0)) & (apart > CLEAR * sd)).any())
    return bool(np.mean(bad) >= 0.5)


def _confirm(ladder: Ladder, runs: Runs, level: Level, which: list[int]) -> None:
    """A third size of scouts whose second differences change as steps shrink: kink or curvature?"""
    two = [k for k in (-APART, 0, APART) if runs.has(_first(ladder, which[0], k))][:2]
    for k in which:
        form = ladder.forms[k]
        v = evaluate(runs, [form], ladder.start, two)[0]
        sd = _deviation(form, level) * 2.0 ** two[-1]
        grows = np.abs(v[-1] - v[0]) > np.maximum(GROWS * np.abs(v[0]), CLEAR * sd)
        if grows.any() and ladder.spare(runs) >= len(form.rule.nodes):
            ladder.ask(runs, [two[-1] + APART], [k])


def _first(ladder: Ladder, k: int, level: int) -> Node:
    return ladder.forms[k].nodes(ladder.start, level)[0][0]


def _deviation(form: Form, level: Level) -> Array:
    """Standard deviation (n,) of a second difference at steps of level 0."""
    return np.sqrt(form.rule.weight + form.rule.centre**2 * level.centre) * level.noise


def _mend(ladder: Ladder, runs: Runs, level: Level) -> bool:
    """Move the steps of forms whose second differences are far from those of the others, as far as
    there are runs to spare; whether any moved."""
    second, size = _response(ladder, runs, level)
    typical = max(np.median(size), CLEAR)
    by = np.zeros(len(size), np.intp)
    long = second > LONG * typical
    by[long] = np.clip(np.round(np.log2(second[long] / typical)), 2, MOST).astype(np.intp)
    by[(size < SHORT * typical) & (second < CLEAR)] = -GROWTH
    cost = len(ladder.forms[0].rule.nodes)
    worst = np.argsort(-second, kind="stable")
    by[[e for e in worst if by[e]][ladder.spare(runs) // cost :]] = 0
    if not by.any() or not ladder.move(by, ladder.longest, ladder.shortest):
        return False
    ladder.ask(runs, ladder.levels)
    return True


def _response(ladder: Ladder, runs: Runs, level: Level) -> tuple[Array, Array]:
    """Second differences of forms, and what they should be where a scale is what it seems, both in
    units of noise; the largest of all outputs."""
    centre = runs.value(CENTRE)
    share = np.sqrt(ladder.rate * 2.0 ** -ladder.levels[0])
    out = np.zeros((2, len(ladder.forms)))
    for e, form in enumerate(ladder.forms):
        nodes = form.nodes(ladder.start, ladder.levels[0])
        second = form.rule.centre * centre + sum(w * runs.value(n) for n, w in nodes)
        values = np.array([runs.value(node) for node, _ in nodes])
        with np.errstate(invalid="ignore"):
            first = share * np.abs(values - centre) / level.noise
        second = np.abs(second) / level.noise
        out[0, e] = np.nan_to_num(second, nan=0.0).max()
        out[1, e] = max(out[0, e], np.nan_to_num(first, nan=0.0).max())
    return out[0], out[1]


def diverging(ladder: Ladder, runs: Runs, level: Level) -> list[int]:
    """Forms whose second differences grow as fast as steps shrink: a kink at x."""
    reach = list(range(-2 * APART - BEYOND, PASSES * MOST))
    out = []
    for e, form in enumerate(ladder.forms):
        levels = [k for k in reach if runs.has(form.nodes(ladder.start, k)[0][0])]
        if len(levels) < 3 or not form.rule.even:
            continue
        v = evaluate(runs, [form], ladder.start, levels)[0]
        sizes = 2.0 ** (-np.array(levels) / 2)
        sd = _deviation(form, level)
        for o in range(v.shape[1]):
            good = np.isfinite(v[:, o])
            if good.sum() >= 3 and _kinked(v[good, o], sizes[good], sd[o]):
                out.append(e)
                break
    return out


def changing(
    ladder: Ladder, runs: Runs, level: Level, levels: Sequence[int], size: Array, bar: Array
) -> list[int]:
    """Forms whose second derivatives are others at steps that noise, as loud as it is, would allow:
    f lives on a smaller scale than the steps. At most one more second difference of each.

    Parameters
    ----------
    levels : sequence of int
        Where second differences may be.
    size, bar : array, shape (forms, n)
        Second derivatives without their signs, and their errors, in units of steps at level 0.
    """
    out = []
    for e, form in enumerate(ladder.forms):
        v = evaluate(runs, [form], ladder.start, levels)[0]
        seen = np.isfinite(v).any(1)
        if not seen.any():
            continue
        k = int(np.flatnonzero(seen)[-1])
        sd = _deviation(form, level) * 2.0 ** levels[k]
        loud = np.nan_to_num(np.abs(v[k]) / sd)[level.loud].max(initial=0.0)
        by = deeper(float(loud))
        by = min(by, int(ladder.shortest[e] - ladder.of_forms()[e]) - levels[k])
        if by < APART or ladder.spare(runs) < len(form.rule.nodes):
            continue
        closer = levels[k] + by
        ladder.ask(runs, [closer], [e])
        there = evaluate(runs, [form], ladder.start, [closer])[0, 0]
        apart = np.abs(there - np.copysign(size[e], v[k]))
        if ((apart > CLEAR * sd * 2.0**by + BARS * bar[e]) & level.loud).any():
            out.append(e)
    return out


def deeper(loud: float) -> int:
    """By how many half octaves a step is shorter at which a second difference is ``SEEN``, that is
    ``loud`` standard deviations; 0 where it is not much more."""
    return round(float(np.log2(loud / SEEN))) if loud > LOUD else 0


def wiggling(ladder: Ladder, found: Limits) -> list[int]:
    """Forms whose first, wide steps told another second derivative, and had no doubt of it."""
    if ladder.first is None:
        return []
    rows = len(ladder.forms)
    value, stderr, _ = (part[:rows] * ladder.per_unit()[:, None] for part in found)
    wide, bar, _ = ladder.first
    with np.errstate(invalid="ignore"):  # inf where nothing was told
        sure = bar < WILD * np.abs(wide)
        apart = np.abs(value - wide)
        other = (apart > 0.5 * np.abs(wide)) & (apart > CLEAR * (bar + stderr))
    return np.flatnonzero((sure & other).any(1)).tolist()


def _kinked(v: Array, sizes: Array, sd: float) -> bool:
    """Whether second differences at falling sizes are those of a kink: b / s, beside curvature.

    Differences between sizes follow those of 1 / s then, and those of s^2 or faster where f is
    smooth; the limit is half way, on a logarithmic scale.
    """
    last, before = np.diff(v)[1:], np.diff(v)[:-1]
    kink, smooth = np.diff(1 / sizes), np.diff(sizes**2)
    half = np.sqrt(kink[1:] / kink[:-1] * smooth[1:] / smooth[:-1])
    clear = np.abs(last) > CLEAR * sd / sizes[2:] ** 2
    # Not where two powers cancel by chance.
    own = OWN * kink[1:] * sizes[1:-1] * np.abs(v[1:-1])
    return bool((clear & (np.abs(last) > np.maximum(half * np.abs(before), own))).any())
