"""Slopes and their errors: mixtures of normals over the states of the line model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from gradiator_np.designs.few import Few
from gradiator_np.designs.lines import (
    TERMS,
    States,
    fit,
    has_few,
    latest,
    likeliest,
    normalise,
    sharpness,
    sharpness_squared,
)
from gradiator_np.designs.pairs import Lines

Array = NDArray[np.float64]

NORMAL_95 = 1.959963984540054
# Entries of J at a time: some 18 states of 2000 entries are 288 kB.
PART = 2000


@dataclass(frozen=True, slots=True)
class Mixture:
    """Slopes of n outputs along L lines under C states each: a mixture of normals.

    Attributes
    ----------
    pick, share : array, shape (L, C)
        The states (-1 for none) and their weights.
    seen : array of bool, shape (L, n, P)
        Pairs that worked.
    base : array, shape (L, n)
        The slope of the latest pair.
    mean, var : array, shape (L, n, C)
        Slope, relative to ``base``, and its variance.
    average, spread : array, shape (L, n)
        Mean, relative to ``base``, and variance of the mixture; inf where nothing was measured.
    """

    pick: NDArray[np.intp]
    share: Array
    seen: NDArray[np.bool_]
    base: Array
    mean: Array
    var: Array
    average: Array
    spread: Array


def mix(lines: Lines, states: States, noise: Array, slope: Array, weights: Array) -> Mixture:
    """Slopes of all outputs along all lines; noise (L, n), and ``weights`` (L, S) that are common
    to the outputs."""
    pick, share = likeliest(weights)
    share = normalise(share)
    odd = lines.odd.transpose(0, 2, 1)
    seen, base = np.isfinite(odd), latest(odd)
    weight = _roots(lines)
    odd = odd - base[..., None]
    few = has_few(lines)
    if few.all():
        mean, var = _closed(lines, states, noise, slope, pick, odd, weight)
    else:
        mean, var = np.zeros((2, *base.shape, pick.shape[1]))
        if few.any():
            mean[few], var[few] = _closed(
                lines.take(few), states, noise[few], slope[few], pick[few], odd[few], weight[few]
            )
        rows = np.broadcast_to(~few[:, None], base.shape)
        sharp = sharpness(noise[..., None], slope[..., None], states.kappa[pick][:, None])
        each = np.broadcast_to(pick[:, None], var.shape)
        mean[rows], var[rows], _ = fit(
            lines.t, weight, odd, slope, 1.0, 0.0, sharp, states, each, rows
        )
    average = np.einsum("lnc,lc->ln", mean, share)
    spread = np.einsum("lnc,lc->ln", var + np.square(mean - average[..., None]), share)
    spread = np.where(seen.any(axis=2), spread, np.inf)
    return Mixture(pick, share, seen, base, mean, var, average, spread)


def _roots(lines: Lines) -> Array:
    """1 over the standard deviation (L, n, P) of every slope at unit noise."""
    size = lines.size.transpose(0, 2, 1)
    return np.asarray(lines.t[:, None] * np.sqrt(2 / (lines.factor[:, None] * size)))


def _shares(few: Few, states: States, ratio: Array, at: NDArray[np.intp]) -> Array:
    """What the slope takes of every pair, (L, n, P), under one state a line; ``ratio`` (L, n) is
    noise over slope."""
    w = sharpness_squared(ratio, states.kappa[at][:, None, None])
    return few.shares(np.square(states.sd_odd[at])[..., None], w)


def _closed(
    lines: Lines, states: States, noise: Array, slope: Array, pick: NDArray[np.intp], odd: Array,
    weight: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """Means and variances (L, n, C) of lines with few pairs."""
    terms = np.square(states.sd_odd[pick]).transpose(0, 2, 1)
    w = sharpness_squared(noise / slope, states.kappa[pick][:, None])
    mean, var = Few.of(odd, lines.t, weight, TERMS).slope(terms, w)
    var *= np.square(slope)[..., None]
    return mean, var


def mixture(
    lines: Lines, states: States, noise: Array, slope: Array, weights: Array
) -> tuple[Array, Array, Array, Array]:
    """Slope of every output along every line: the mixture over states.

    Returns
    -------
    mean, unit, spread, half : array, shape (N, L)
        The slope; its variance from noise, at unit noise, under the likeliest state; its variance
        in all; the half-width that holds 95 % of the mixture. inf where nothing was measured.
    """
    parts = []
    for part, level, b, p in _parts(lines, noise, slope, weights):
        mixed = mix(part, states, level, b, p)
        unit = _unit_variance(part, states, level, b, p, mixed.seen)
        half = _half_widths(part, level, b, mixed)
        parts.append((mixed.base + mixed.average, unit, mixed.spread, half))
    mean, unit, spread, half = (np.concatenate(a).T for a in zip(*parts))
    return mean, unit, spread, half


def spreads(lines: Lines, states: States, noise: Array, slope: Array, weights: Array) -> Array:
    """Variances (L, N) of these mixtures; inf where nothing was measured."""
    parts = _parts(lines, noise, slope, weights)
    return np.concatenate([mix(part, states, *rest).spread for part, *rest in parts])


def _parts(
    lines: Lines, noise: Array, slope: Array, weights: Array
) -> Iterator[tuple[Lines, Array, Array, Array]]:
    """The same for some lines at a time, so that what is between stays in the cache."""
    step = max(1, PART // slope.shape[1])
    noise = np.broadcast_to(noise, slope.shape)
    for start in range(0, slope.shape[0], step):
        at = slice(start, start + step)
        yield lines.take(at), noise[at], slope[at], weights[at]


def _unit_variance(
    lines: Lines, states: States, noise: Array, slope: Array, weights: Array,
    seen: NDArray[np.bool_],
) -> Array:  # fmt: skip
    """Variance (L, n) that noise leaves, at unit noise: every pair by its weight under the
    likeliest state, found with one right-hand side at a time."""
    top = weights.argmax(axis=1)
    weight = _roots(lines)
    out = np.zeros(slope.shape)
    few = has_few(lines)
    if few.any():
        one = Few.of(np.where(seen[few], 0.0, np.nan), lines.t[few], weight[few], TERMS)
        parts = _shares(one, states, (noise / slope)[few], top[few])
        parts /= np.where(one.root > 0, one.root, np.inf)[..., 0]
        out[few] = np.square(parts).sum(axis=2)
    if not few.all():
        rows = np.broadcast_to(~few[:, None], slope.shape)
        sharp = sharpness(noise, slope, states.kappa[top][:, None])[..., None]
        pick = np.broadcast_to(top[:, None, None], sharp.shape)
        for k in range(seen.shape[-1]):
            y = np.where(seen, 0.0, np.nan)
            y[..., k] = np.where(seen[..., k], 1.0, np.nan)
            part = fit(lines.t, weight, y, slope, 1.0, 0.0, sharp, states, pick, rows)[0][:, 0]
            out[rows] += np.square(part / np.where(seen[rows][:, k], weight[rows][:, k], np.inf))
    return np.where(seen.any(axis=-1), out, np.inf)


def _half_widths(lines: Lines, noise: Array, slope: Array, mixed: Mixture) -> Array:
    """Half-width (L, n) that holds 95 % of each mixture: that of a normal where it is one."""
    mean, var, share = mixed.mean - mixed.average[..., None], mixed.var, mixed.share
    square = np.square(mean)
    fourth = np.einsum("lnc,lc->ln", 3 * np.square(var + square) - 2 * np.square(square), share)
    half = NORMAL_95 * np.sqrt(mixed.spread)
    line, output = np.nonzero(
        mixed.seen.any(axis=-1) & (fourth > 3.05 * np.square(mixed.spread))
    )  # fmt: skip
    if not line.size:
        return half
    # with one pair the width over b is a function of the noise over b alone: those within an
    # eighth of an octave share one
    seen = mixed.seen[line, output]
    at = np.argmax(seen, axis=1)
    ratio = noise[line, output] * np.sqrt(lines.factor[line, at] * lines.size[line, at, output])
    octave = np.floor(8 * np.log2(ratio / (slope[line, output] * lines.t[line, at])))
    key = (line * seen.shape[1] + at) * 2**16 + np.clip(octave, -(2**15), 2**15 - 1).astype(int)
    key = np.where(seen.sum(axis=1) > 1, -1 - np.arange(line.size), key + 2**15)
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    j, i = line[first], output[first]
    width = _widths(mean[j, i], np.sqrt(2 * var[j, i]), share[j], 4 * half[j, i])
    unit = np.sqrt(mixed.spread)
    half[line, output] = (width / unit[j, i])[group] * unit[line, output]
    return half


def _widths(mean: Array, sd: Array, share: Array, high: Array) -> Array:
    """Half-widths (K,) that hold 95 % of mixtures of normals (K, C) about 0; ``sd`` times sqrt 2.

    Halley's iteration for the logarithm of what lies outside, in that of the width: the widest
    state may be ten decades wider than the likeliest. It starts where a normal has its 95 %, and
    halves the bracket where a step would leave it.
    """
    low = np.where(share > 0, sd, np.inf).min(axis=1) / np.sqrt(2)
    out = high / 4
    todo = np.arange(out.size)
    sharp = 1 / sd
    for _ in range(60):
        w, m, s, p = out[todo], mean[todo], sharp[todo], share[todo]
        ps, outside, slope, bend = p * s, 0.0, 0.0, 0.0
        # with one pair all means are 0
        for ends in (w[:, None] - m, w[:, None] + m) if m.any() else (w[:, None] - m,) * 2:
            z = ends * s
            density = ps * np.exp(-np.square(z))
            outside = outside + 0.5 * np.einsum("kc,kc->k", erfc(z), p)
            slope = slope + density.sum(axis=1)
            bend = bend - 2 * np.einsum("kc,kc->k", density, z * s)
        wide = outside < 0.05
        high[todo] = np.where(wide, w, high[todo])
        low[todo] = np.where(wide, low[todo], w)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            first = -w * slope / outside / np.sqrt(np.pi)
            second = first * (1 + w * bend / slope - first)
            gap = np.log(outside / 0.05)
            step = w * np.exp(-2 * gap * first / (2 * first**2 - gap * second))
        inside = (step > low[todo]) & (step < high[todo])
        out[todo] = np.where(inside, step, np.sqrt(low[todo] * high[todo]))
        # the error of a step is about the cube of its length
        todo = todo[~inside | (np.abs(out[todo] / w - 1) > 0.01)]
        if not todo.size:
            break
    return out


def slopes(lines: Lines, states: States, noise: Array, slope: Array, weights: Array) -> Array:
    """Slopes (L, N) under the state of median rho of each line: good enough for a scale."""
    at = np.argmax(np.cumsum(weights, axis=1) >= 0.5, axis=1)
    noise = np.broadcast_to(noise, slope.shape)
    if has_few(lines).all():
        odd = lines.odd.transpose(0, 2, 1)
        base = latest(odd)
        few = Few.of(odd - base[..., None], lines.t, _roots(lines), TERMS)
        shares = _shares(few, states, noise / slope, at)
        return np.asarray(base + np.einsum("lnp,lnp->ln", shares, few.y))
    middle = np.zeros_like(weights)
    middle[np.arange(len(at)), at] = 1.0
    mixed = mix(lines, states, noise, slope, middle)
    return mixed.base + mixed.average
