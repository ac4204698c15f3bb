"""Which runs make which second derivatives, and how many of them there may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._second_derivatives import noise as noise_of
from gradiator_np._second_derivatives import search
from gradiator_np._second_derivatives.forms import (
    CORNER,
    CROSS,
    FORWARD,
    ODD,
    PAIR,
    SYMMETRIC,
    Form,
    evaluate,
)
from gradiator_np._second_derivatives.found import Found
from gradiator_np._second_derivatives.inference import Limits, infer
from gradiator_np._second_derivatives.noise import Level
from gradiator_np._second_derivatives.runs import CENTRE, Runs
from gradiator_np._second_derivatives.search import Ladder, blocks_of
from gradiator_np._second_derivatives.seven import QUIET, Seven
from gradiator_np._typing import Array, Index, Mask

#: Runs next to x that tell the noise.
NEXT_TO_X = 6
#: Evaluations with noise: so many times those of the least design, and so many more.
TIMES, MORE = 1.2, 10
#: Evaluations of u' H u.
FEW = 7
#: Room on one side of x that counts as none, in units of the first step.
NO_ROOM = 1e-2
#: Scouts cost two runs each, and so many of those left are spent on them.
SCOUTS, SCOUT_SHARE = 3, 6
#: Noise is looked for again where steps turn out to be so few times as long as the distance of the
#: values that told it; so often at most.
NEAR, LOOKS = 20.0, 3
#: Values that change by their size over this share of the scale: f lives on a smaller one.
SMALL = 0.1
#: Limits of several sizes have so many times the error of one.
BLURRED = 3.0
#: Shorter steps that are tried where all runs of a second difference failed.
REPLACED = 4
#: Levels that make second differences with noise: from the scouts' longest on.
NOISY_LEVELS = 10


class Plan:
    """Second derivatives along directions.

    Parameters
    ----------
    runs : Runs
    kind : {"hessian", "diagonal", "product", "quadratic"}
    u : array, shape (m,), or None
        The tangent of a product.
    scale : array, shape (m,)
    options : dict
        ``noise``, ``max_nfev``, ``rng``, as ``hessian`` takes them.
    eps : float
        Machine epsilon of the coarser of x and y.
    pairs : array of bool, shape (m, m), or None
        Which mixed derivatives a Hessian has; all where it is None.
    reserved : int
        Evaluations of ``max_nfev`` that are for others.
    """

    def __init__(
        self, runs: Runs, kind: str, u: Array | None, scale: Array, options: Mapping[str, Any],
        eps: float, pairs: Mask | None = None, reserved: int = 0,
    ) -> None:  # fmt: skip
        self.runs, self.kind, self.scale, self.eps = runs, kind, scale, eps
        self.rng = checks.generator(options["rng"])
        most = options["max_nfev"]
        self.most = None if most is None else checks.integer(most, "max_nfev")
        self.known = options["noise"]
        self.adapts = options["on_error"] == "adapt"
        self._pairs, self._reserved = pairs, reserved
        m = len(scale)
        self._mixed_pairs = m * (m - 1) // 2 if pairs is None else int(np.triu(pairs, 1).sum())
        self._check_most(kind, m)
        self.most = None if self.most is None else self.most - reserved
        self.basis = np.eye(len(scale))
        if u is not None:
            along = np.tile(u, (len(scale), 1))
            self.basis = u[None] if kind == "quadratic" else np.vstack([self.basis, along])
        self.directions = self._directions(u)
        self._first = self._unit
        self.start = np.zeros(len(self.directions), np.intp)

    def _check_most(self, kind: str, m: int) -> None:
        """Whether ``max_nfev`` allows the least that can be done."""
        each = {
            "hessian": self._mixed_pairs + 2 * m,
            "diagonal": 2 * m,
            "product": 4 * m,
            "quadratic": 2,
        }
        least = 1 + each[kind] + (0 if self.known is not None else NEXT_TO_X)
        least += 4 if kind == "product" else 2  # one form at a second size
        least += self._reserved
        if self.most is not None and self.most < least:
            six = "" if self.known is not None else "six runs that tell the noise (give noise=), "
            raise ValueError(
                f"max_nfev={self.most} is below {least}, the least for {m} inputs: {six}one size "
                "of each second difference, and a second size of one"
            )

    def _directions(self, u: Array | None) -> Array:
        """Directions (p, m) of one scale each, towards where there is room."""
        runs, m = self.runs, len(self.scale)
        inputs = np.diag(np.where(runs.up >= runs.down, 1.0, -1.0) * self.scale)
        if u is None:
            return inputs
        along = u / (np.abs(u) / self.scale).max()
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.where(along > 0, runs.up, runs.down) / np.abs(along)
            back = np.where(along > 0, runs.down, runs.up) / np.abs(along)
        moved = along != 0
        along = along if ahead[moved].min() >= back[moved].min() else -along
        return (
            along[None] if self.kind == "quadratic" else np.vstack([inputs, np.tile(along, (m, 1))])
        )

    # -- steps -------------------------------------------------------------------------------

    def _leads(self, unit: float) -> tuple[list[Form], Index, Index]:
        """Forms that settle steps, and the levels of their longest and shortest steps."""
        m, p = len(self.scale), len(self.directions)
        forms, longest, shortest = [], [], []
        pairs = [(i, m + i) for i in range(m)] if self.kind == "product" else [
            (i, i) for i in range(p)
        ]  # fmt: skip
        for a, b in pairs:
            path = np.abs(self.directions[a]) + (np.abs(self.directions[b]) if a != b else 0)
            toward = self.directions[a] + (self.directions[b] if a != b else 0)
            moved = path > 0
            ahead = (np.where(toward >= 0, self.runs.up, self.runs.down)[moved] / path[moved]).min()
            both = (np.minimum(self.runs.up, self.runs.down)[moved] / path[moved]).min()
            symmetric = both >= NO_ROOM * unit
            room = both if symmetric else ahead / 2
            if room < NO_ROOM * unit * 1e-3:
                continue  # fixed by its bounds
            rule = CROSS if a != b else SYMMETRIC
            forms.append(Form(a, b, rule if symmetric else CORNER if a != b else FORWARD))
            longest.append(np.ceil(-2 * np.log2(room / unit)) if np.isfinite(room) else -10_000)
            finest = (np.spacing(np.abs(self.runs.flat)).astype(float)[moved] / path[moved]).max()
            shortest.append(np.floor(-2 * np.log2(64 * finest / unit)) if finest else 10_000)
        return forms, np.array(longest, np.intp), np.array(shortest, np.intp)

    def _ladder(self, unit: float, most: float = np.inf) -> Ladder:
        self.runs.use(self._aligned(self.directions * unit))
        forms, longest, shortest = self._leads(unit)
        self.start[:] = 0
        first = np.minimum(np.maximum(longest, 0), shortest)
        for form, at in zip(forms, first):
            self.start[[form.a, form.b]] = at
        of_scale = unit * (self._unit / self._first)[[form.a for form in forms]]
        free = np.ceil(2 * np.log2(of_scale)).astype(np.intp)
        # An input next to 0 that nothing answers to may be one of the size of the others.
        others = max(1.0, float(np.median(self.scale)))
        reach = np.maximum(others / np.abs(self.directions).max(1), 1.0)[[f.a for f in forms]]
        silent = free - np.ceil(2 * np.log2(reach)).astype(np.intp)
        return Ladder(
            forms, self.start, longest, free, silent, shortest, search.RATE * unit**2, [0], most
        )

    def _aligned(self, directions: Array) -> Array:
        """Directions whose ladders meet the pairs that ``samples`` have along inputs."""
        pairs = self.runs.given_steps()
        if self.kind not in ("hessian", "diagonal") or not pairs:
            return directions
        out = directions.copy()
        for i, steps in pairs.items():
            unit = abs(directions[i, i])
            near = min(steps, key=lambda t: abs(np.log(t / unit)))
            rungs = np.round(2 * np.log2(near / unit))
            out[i, i] = np.copysign(near * 2.0 ** (-rungs / 2), directions[i, i])
        return out

    # -- the work ----------------------------------------------------------------------------

    def run(self) -> Found:
        """Run what is needed."""
        if self.kind == "quadratic" and self.most is None and self.known is None:
            return self._seven()
        for _ in range(LOOKS):
            level = self._level()
            self.directions *= level.extent if level.extent < SMALL else 1.0
            found = self._at(level)
            made = (found.step / self._unit)[np.isfinite(found.step)]
            near = made.size > 0 and np.median(made) <= NEAR * noise_of.reach(self.eps)
            if self.known is not None or not near or self.most is not None:
                break
            # Values next to x were as far from it as the steps now are: f lives on that scale.
            rescaled = (
                np.where(np.isfinite(found.step), found.step, self._unit) / search.SMOOTH_STEP
            )
            self.directions *= (rescaled / self._unit)[:, None]
        return found

    @property
    def _unit(self) -> Array:
        """The size of directions, as multiples of inputs or of the tangent."""
        return np.asarray(np.abs(self.directions).max(1) / np.abs(self.basis).max(1))

    def _at(self, level: Level) -> Found:
        """Second derivatives with noise that is known."""
        if self._share(level) <= QUIET and self._sizes() > 1:
            ladder = self._ladder(search.SMOOTH_STEP)
            few = [0] if level.still.any() and ladder.forms else None  # printed, or constant?
            for which in [few, None] if few else [None]:
                ladder.ask(self.runs, range(self._sizes()), which)
                level = noise_of.printed(self.runs, self.runs.wide(), level)
                if self._share(level) > QUIET:
                    break
            else:
                return self._smooth(ladder, level)
        return self._noisy(level)

    def _share(self, level: Level) -> float:
        """Noise as a share of the values, of the outputs where it is more than rounding."""
        loud = level.loud & ~level.broken
        if not loud.any():
            return 0.0
        size = np.maximum(np.abs(self.runs.value(CENTRE)), level.size)
        return float(np.median((level.noise / size)[loud]))

    def _level(self) -> Level:
        at_x = self.runs.value(CENTRE)
        if self.known is not None:
            return noise_of.given(self.known, np.abs(at_x), self.eps)
        signs = self.rng.choice([-1.0, 1.0], len(self.scale))
        along = signs * np.abs(self.directions[: len(signs)]).max(0)
        if self.kind == "quadratic":
            along = self.directions[0]
        room = np.minimum(self.runs.up, self.runs.down) >= noise_of.reach(self.eps) * np.abs(along)
        return noise_of.look(self.runs, np.where(room, along, 0.0), self.eps, NEXT_TO_X)

    def _sizes(self) -> int:
        """Sizes of each second difference that the runs allow; 1 where these are too few."""
        if self.most is None:
            return (FEW - 1) // 2 if self.kind == "quadratic" else search.SMOOTH_SIZES
        p = len(self.scale)
        each = {
            "hessian": 2 * (self._mixed_pairs + p),
            "diagonal": 2 * p,
            "product": 4 * p,
            "quadratic": 2,
        }
        before = 1 + (0 if self.known is not None else NEXT_TO_X)
        return max(1, min((self.most - before) // each[self.kind], search.SMOOTH_SIZES))

    def _smooth(self, ladder: Ladder, level: Level) -> Found:
        """Without noise: several sizes."""
        mixed = 2 * len(self._both(ladder))
        ladder.most = np.inf if self.most is None else self.most - mixed * self._sizes()
        few = self.kind == "quadratic" and self.most is None
        passes = 1 if few or level.broken.all() else search.PASSES
        level = search.without_noise(ladder, self.runs, level, self._sizes(), self.eps, passes)
        forms = self._mixed(ladder, len(self.scale) ** 2)
        self._ask(forms, ladder)
        levels = self._replaced([*ladder.forms, *forms], ladder.levels)
        return self._result(ladder, forms, levels, level, False)

    def _seven(self) -> Found:
        """u' H u from the fewest runs."""
        along = self.directions[0]
        stretch = float((np.abs(self.runs.x) / self.scale)[along != 0].max())
        seven = Seven(self.runs, along, stretch, self.eps)
        ladder = self._ladder(seven.first_step)
        if not ladder.forms:
            return self._result(ladder, [], [0], seven.level, False)
        levels = seven.run(ladder)
        level = search.with_rounding(ladder, self.runs, levels[-1], seven.level, self.eps)
        levels = self._replaced([*ladder.forms], levels)
        noisy = bool(level.loud.any())
        found = self._result(ladder, [], levels, level, noisy, seven.least(ladder))
        unit = self._unit**2
        value, apart = seven.against(found.value[0] * unit, found.stderr[0] * unit)
        reach = np.maximum(found.stderr, apart / unit)
        wiggling = [0] if apart.any() else []
        return replace(found, value=value[None] / unit, stderr=reach, wiggling=wiggling)

    def _noisy(self, level: Level) -> Found:
        """With noise: one size, two of a few forms, and as many pairs as the runs allow."""
        ladder = self._ladder(search.noisy_step(max(self._share(level), self.eps)))
        p = len(ladder.forms)
        corners = len(self._both(ladder))
        least = 1 + corners + sum(len(form.rule.nodes) for form in ladder.forms)
        budget = self._budget(least, p)
        room = budget - self.runs.nfev - 2 * p - corners
        few = corners or self.most is not None
        scouts = max(1, min(p, SCOUTS, room // SCOUT_SHARE if few else SCOUTS))
        pairs = int(np.clip(room - 2 * scouts, 0, corners))
        rules = dict.fromkeys((SYMMETRIC, FORWARD, CROSS, CORNER, PAIR), 0)
        for form in ladder.forms:
            rules[form.rule] += 1
        rules[PAIR], rules[CORNER] = pairs, rules[CORNER] + corners - pairs
        if p:
            ladder.most = budget - corners
            search.with_noise(ladder, self.runs, level, rules, scouts)
        forms = self._mixed(ladder, budget - self.runs.nfev - corners)
        self._ask(forms, ladder)
        self._second(ladder, budget)
        longest = min(-search.APART, ladder.levels[0] - 2)
        levels = self._replaced(
            [*ladder.forms, *forms], list(range(longest, longest + NOISY_LEVELS)), ladder.levels[0]
        )
        found = self._result(ladder, forms, levels, level, True)
        ladder.most = np.inf if self.most is None else self.most
        unit = np.array([[found.step[form.a] * found.step[form.b]] for form in ladder.forms])
        size, bar = (part[: len(unit)] * unit for part in (np.abs(found.value), found.stderr))
        return replace(found, changing=search.changing(ladder, self.runs, level, levels, size, bar))

    def _budget(self, least: int, p: int) -> int:
        if self.most is not None:
            return self.most
        if self.kind == "quadratic":
            return FEW
        if self.kind == "hessian":
            # What was run before noise showed is no part of it.
            return int(TIMES * least + MORE) + max(0, self.runs.nfev - 1 - NEXT_TO_X)
        return self.runs.nfev + least + 4 * SCOUTS + p

    def _mixed(self, ladder: Ladder, pairs: int) -> list[Form]:
        """Second differences along two directions, ``pairs`` of them by both corners."""
        both = self._both(ladder)
        symmetric = [f.rule is SYMMETRIC and g.rule is SYMMETRIC for f, g in both]
        order = [k for k in self.rng.permutation(len(both)).tolist() if symmetric[k]]
        chosen = set(order[: max(0, pairs)])
        return [Form(f.a, g.a, PAIR if k in chosen else CORNER) for k, (f, g) in enumerate(both)]

    def _both(self, ladder: Ladder) -> list[tuple[Form, Form]]:
        """Forms of two inputs that have a mixed derivative."""
        leads, kept = ladder.forms, self._pairs
        if self.kind != "hessian":
            return []
        every = ((f, g) for k, f in enumerate(leads) for g in leads[:k])
        return [(f, g) for f, g in every if kept is None or kept[f.a, g.a]]

    def _ask(self, forms: list[Form], ladder: Ladder) -> None:
        self.runs.ask([n for f in forms for k in ladder.levels for n, _ in f.nodes(self.start, k)])

    def _replaced(self, forms: list[Form], levels: list[int], last: int | None = None) -> list[int]:
        """Levels, and shorter ones of forms of which too few runs of some output are left."""
        levels = list(levels)
        need = 2 if last is None else 1  # without noise truncation is told by two sizes
        last = levels[-1] if last is None else last
        if not self.adapts or not self.runs.n_failed:
            return levels
        for _ in range(REPLACED):
            lost = []
            for form in forms:
                v = evaluate(self.runs, [form], self.start, levels)[0]
                if (np.isfinite(v).sum(0) < need).any():
                    lost.append(form)
            cost = sum(len(form.rule.nodes) for form in lost)
            if not lost or (self.most is not None and self.runs.nfev + cost > self.most):
                return levels
            last += search.APART
            self.runs.ask([n for f in lost for n, _ in f.nodes(self.start, last)])
            levels = [*levels, *([last] if last not in levels else [])]
        return sorted(levels)

    def _second(self, ladder: Ladder, budget: int) -> None:
        """A second size, with what is left of the runs, for forms that have one."""
        shift = ladder.levels[0] - 2
        cost = len(ladder.forms[0].rule.nodes) if ladder.forms else 1
        left = (budget - self.runs.nfev) // cost
        single = [
            k for k, form in enumerate(ladder.forms)
            if self.start[form.a] + shift >= ladder.longest[k]
            and not any(
                self.runs.has(form.nodes(self.start, level)[0][0])
                for level in range(-search.APART, 4) if level != ladder.levels[0]
            )
        ]  # fmt: skip
        if left > 0 and single:
            ladder.ask(self.runs, [shift], single[:left])

    # -- the result --------------------------------------------------------------------------

    def _result(
        self, ladder: Ladder, forms: list[Form], levels: list[int], level: Level, noisy: bool,
        least: Array | float = 0.0,
    ) -> Found:  # fmt: skip
        every = [*ladder.forms, *forms]
        n = len(level.noise)
        nan = np.full(len(self.start), np.nan)
        if not every:
            none = np.zeros((0, n))
            return Found([], none, none, none, level, noisy, nan, [], [])
        blocks = blocks_of(self.runs, every, self.start, levels)
        seen = np.any([np.isfinite(b.values).any((0, 2)) for b in blocks], axis=0)
        if not seen.any():
            lost = np.full((len(every), n), np.inf)
            return Found(every, np.zeros((len(every), n)), lost, lost, level, noisy, nan, [], [])
        levels = [at for at, some in zip(levels, seen) if some]
        blocks = [b._replace(levels=levels, values=b.values[:, seen]) for b in blocks]
        odd = [Form(f.a, f.b, ODD) for f in forms if f.rule is PAIR] if noisy else []
        told = blocks_of(self.runs, odd, self.start, levels)
        limits = infer([*blocks, *told], level, ladder.rate, least)[: len(blocks)]
        order = np.argsort(np.concatenate(search.rows_of(every)))
        joined = Limits(*(np.concatenate(part)[order] for part in zip(*limits)))
        square = np.einsum("pm,pm->p", self.basis, self.basis)
        made = np.einsum("pm,pm->p", self.runs.directions, self.basis) / square
        made = made * 2.0 ** (-self.start / 2)
        unit = np.array([made[f.a] * made[f.b] for f in every])[:, None]
        turned = np.array([self._turned(form, levels[-1]) for form in every])[:, None]
        bar = np.hypot(joined.stderr, BLURRED * turned * np.abs(joined.value))
        return Found(
            every, joined.value / unit, bar / np.abs(unit),
            joined.noise / np.abs(unit), level, noisy, np.abs(made),
            search.diverging(ladder, self.runs, level) if noisy else [],
            search.wiggling(ladder, joined),
        )  # fmt: skip

    def _turned(self, form: Form, level: int) -> float:
        """By which share of it a second derivative changes since rounding of points turns its
        directions; a component that is lost counts as its share of the direction."""
        total = 0.0
        for direction in (form.a, form.b):
            at = int(self.start[direction]) + level
            wanted = self.runs.directions[direction]
            made = self.runs.step(direction, at) / self.runs.share(direction, at)
            moved = wanted != 0
            off = np.abs(made - wanted)[moved] / np.abs(wanted[moved])
            part = np.abs(wanted[moved]) / self.scale[moved]
            total += float(np.linalg.norm(np.minimum(off, part / part.max())))
        return total
