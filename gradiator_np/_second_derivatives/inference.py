"""From second differences of many entries to their limits, output by output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._second_derivatives.forms import Rule
from gradiator_np._second_derivatives.limit import Amplitudes, Contrasts, amplitudes_of, group
from gradiator_np._second_derivatives.noise import Level
from gradiator_np._typing import Array, Index

#: Sizes that differ by less than e^(1 / BINS) share one guess of their amplitude; the least guess,
#: in units of noise.
BINS, LEAST = 2.0, 1e-3
#: Least noise, as a share of the largest second difference.
LEAST_NOISE = 1e-60
#: Standard deviations by which a second difference exceeds its noise, to tell a size.
ABOVE = 5.0
#: Longest steps of each entry that are used: of more, the rounding of the short ones is all that
#: is added, and their divided differences cannot be told apart in double precision.
SIZES = 5
#: Of each block, rows that have the same levels.
Parts = Sequence[list[tuple[Index, Contrasts]]]


class Block(NamedTuple):
    """Second differences (E, K, n) of one rule at some levels, in units of y; each along two
    directions, which may be the same."""

    rule: Rule
    levels: Sequence[int]
    values: Array
    along: Sequence[tuple[int, int]]


class Limits(NamedTuple):
    """Second derivatives (E, n) in units of the steps at level 0, with standard errors.

    ``noise`` is the part of ``stderr`` that noise has; the rest is truncation. inf where no run
    tells.
    """

    value: Array
    stderr: Array
    noise: Array


def infer(
    blocks: Sequence[Block], level: Level, rate: float, least: Array | float = 0.0
) -> list[Limits]:
    """The limits of each block.

    Parameters
    ----------
    blocks : sequence of Block
        Rows that are alike: their amplitudes are taken for those of one population.
    level : Level
    rate : float
        A guess of the square of step over scale, at level 0.
    least : float or array, shape (n,)
        Truncation is that of second differences of this size at least, at level 0.
    """
    top = min(min(block.levels) for block in blocks)
    level = _in_reach(blocks, level)
    n = len(level.noise)
    out = [
        Limits(np.zeros((len(b.values), n)), *(np.full((len(b.values), n), np.inf) for _ in "vn"))
        for b in blocks
    ]
    with checks.underflow_is_zero():
        for o in range(n):
            parts, _ = _parts(blocks, o, level, top, float(np.broadcast_to(least, n)[o]))
            _infer_output(parts, out, o, rate * 2.0**-top, float(level.dof[o]))
    for limits in out:
        for scaled in limits:
            scaled *= 2.0**top * level.noise
    return out


def _in_reach(blocks: Sequence[Block], level: Level) -> Level:
    """The noise, of a share of the second differences at least whose fourth power is a number."""
    largest = np.zeros(len(level.noise))
    for block in blocks:
        size = np.where(np.isfinite(block.values), np.abs(block.values), 0.0)
        largest = np.maximum(largest, size.max((0, 1), initial=0.0))
    return level._replace(noise=np.maximum(level.noise, LEAST_NOISE * largest))


def _parts(
    blocks: Sequence[Block], o: int, level: Level, top: int, least: float = 0.0
) -> tuple[Parts, float]:
    """Of each block the rows that have the same levels and are of one size, in units of noise and
    of the largest step; and the typical size."""
    scaled = [block.values[:, :, o] / level.noise[o] * 2.0**-top for block in blocks]
    size = [_size(block, v, top) for block, v in zip(blocks, scaled)]
    told = np.concatenate([s[s > 0] for s, b in zip(size, blocks) if not b.rule.centred])
    typical = float(np.median(told)) if told.size else 0.0
    typical = max(typical, LEAST, least / level.noise[o] * 2.0**-top)
    single = {
        a: np.sqrt(own) for block, sizes in zip(blocks, size)
        for (a, b), own in zip(block.along, sizes) if a == b
    }  # fmt: skip
    out = []
    for block, v, own in zip(blocks, scaled, size):
        # What two inputs have together may cancel at some step; what each has alone does not.
        both = np.array([single.get(a, 0.0) * single.get(b, 0.0) for a, b in block.along])
        own = np.maximum(np.maximum(own, both), typical)
        own = np.full(len(v), typical) if block.rule.centred else own
        out.append(_rows(block, v, own, level.centre[o], top))
    return out, typical


def _size(block: Block, v: Array, top: int) -> Array:
    """The size (E,) of rows of second differences (E, K) in units of noise: the largest of those
    that exceed it, and the one that has the least of it."""
    size = np.where(np.isfinite(v), np.abs(v), 0.0)
    sd = np.sqrt(block.rule.weight) * 2.0 ** (np.array(block.levels) - top)
    least = np.cumsum(np.isfinite(v), axis=1) == 1
    return np.asarray(np.where(least | (size > ABOVE * sd), size, 0.0).max(1, initial=0.0))


def _rows(
    block: Block, v: Array, size: Array, centre: float, top: int
) -> list[tuple[Index, Contrasts]]:
    sizes = 2.0 ** (-(np.array(block.levels) - top) / 2)
    square = sizes**-2
    rule = block.rule
    noise = np.diag(rule.weight * square**2)
    noise += rule.centre**2 * centre * np.multiply.outer(square, square)
    told = np.isfinite(v)
    told &= np.cumsum(told, axis=1) <= SIZES
    labels = np.column_stack([told, np.round(BINS * np.log(size))])
    out = []
    for label, rows in group(labels):
        have = label[:-1] > 0
        if have.any():
            part = Contrasts(
                v[np.ix_(rows, have)], sizes[have], noise[np.ix_(have, have)], rule.even,
                rule.centred, float(np.exp(label[-1] / BINS)),
            )  # fmt: skip
            out.append((rows, part))
    return out


def _population(parts: Parts, rate: float, dof: float) -> tuple[Amplitudes, Array]:
    """The grid of amplitudes and rates, and what all entries together say of it."""
    alone = sum(len(c.values) for part in parts for _, c in part) == 1
    amplitudes = amplitudes_of(rate, alone)
    told = [c for part in parts for _, c in part if c.centred or len(c.sizes) > 1]
    likelihood = [np.logaddexp.reduce(amplitudes.at_noise(c, dof), axis=1) for c in told]
    prior = amplitudes.population(np.concatenate(likelihood) if told else np.empty((0, 0)))
    return amplitudes, prior


def _infer_output(parts: Parts, out: Sequence[Limits], o: int, rate: float, dof: float) -> None:
    amplitudes, prior = _population(parts, rate, dof)
    for rows, limits in zip(parts, out):
        for which, contrasts in rows:
            if contrasts.centred:
                continue
            value, variance, noise = amplitudes.limits(contrasts, prior, dof)
            limits.value[which, o], limits.stderr[which, o] = value, np.sqrt(variance)
            limits.noise[which, o] = np.sqrt(noise)


def forecast(
    blocks: Sequence[Block], rules: Sequence[Rule], levels: Array, level: Level, rate: float
) -> Array:
    """Expected log variance (rules, levels, n) of one second difference at each level, in units of
    noise^2 and of the steps at level 0, by what blocks tell of the function."""
    top = min(min(block.levels) for block in blocks)
    level = _in_reach(blocks, level)
    n = len(level.noise)
    out = np.empty((len(rules), len(levels), n))
    size = 2.0 ** (-(levels - top) / 2)
    for o in range(n):
        parts, typical = _parts(blocks, o, level, top)
        amplitudes, prior = _population(parts, rate * 2.0**-top, float(level.dof[o]))
        for r, rule in enumerate(rules):
            noise = (rule.weight + rule.centre**2 * level.centre[o]) / size**4
            out[r, :, o] = amplitudes.log_variance(prior, size, noise, rule.even, typical)
    return np.asarray(out + top * np.log(4.0))
