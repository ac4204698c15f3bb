"""Slopes and their errors: Bayesian model averaging, a mixture of normals over the states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from gradiator_np._typing import Array, Index
from gradiator_np.designs._adaptive.model.closed_form import ClosedFormGLS
from gradiator_np.designs._adaptive.model.differences import CentralDifferences
from gradiator_np.designs._adaptive.model.likelihood import (
    fit,
    has_few,
    latest,
    sharpness_squared,
)
from gradiator_np.designs._adaptive.model.posterior import Posterior
from gradiator_np.designs._adaptive.model.prior import TERMS, States, likeliest, normalise

NORMAL_95 = 1.959963984540054
# Entries of J at a time: some 18 states of 2000 entries are 288 kB.
PART = 2000


@dataclass(frozen=True, slots=True)
class Slopes:
    """Slope of every output along every line; inf where nothing was measured.

    Attributes
    ----------
    mean : array, shape (N, L)
    unit_variance : array, shape (N, L)
        Its variance from noise, at unit noise, under the likeliest state.
    half_width : array, shape (N, L)
        Half-width that holds 95 % of the mixture.
    """

    mean: Array
    unit_variance: Array
    half_width: Array

    def map(self, change: Callable[[Array], Array]) -> Slopes:
        """With every array changed alike."""
        return Slopes(change(self.mean), change(self.unit_variance), change(self.half_width))

    def put(self, output: Index, line: Index, other: Slopes) -> Slopes:
        """With single entries (K,) from ``other``, whose K lines have one output each."""
        out = {}
        for name in self.__slots__:
            out[name] = getattr(self, name).copy()
            out[name][output, line] = getattr(other, name)[0]
        return Slopes(**out)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Slopes of n outputs along L lines under C states each: a mixture of normals.

    Attributes
    ----------
    share : array, shape (L, C)
        Weights of the states.
    seen : array of bool, shape (L, n, P)
        Pairs that worked.
    base : array, shape (L, n)
        The slope of the latest pair.
    mean, var : array, shape (L, n, C)
        Slope, relative to ``base``, and its variance.
    average, variance : array, shape (L, n)
        Mean, relative to ``base``, and variance of the mixture; inf where nothing was measured.
    """

    share: Array
    seen: NDArray[np.bool_]
    base: Array
    mean: Array
    var: Array
    average: Array
    variance: Array


def mixture(known: Posterior) -> Slopes:
    """Slope of every output along every line: the mixture over states."""
    out = np.empty((3, *known.slope.shape))
    for lines, outputs, some in _parts(known):
        part = replace(some, weights=some.of_outputs)
        mixed = mix(part)
        unit, half = _unit_variance(part, mixed.seen), _half_widths(part, mixed)
        out[:, lines, outputs] = mixed.base + mixed.average, unit, half
    return Slopes(*(a.T for a in out))


def variances(known: Posterior) -> Array:
    """Variances (L, N) of these mixtures; inf where nothing was measured."""
    out = np.empty(known.slope.shape)
    for lines, outputs, part in _parts(known):
        out[lines, outputs] = mix(part).variance
    return out


def slopes(known: Posterior) -> Array:
    """Slopes (L, N) under the state of median weight of each line: good enough for a scale."""
    lines, states = known.differences, known.states
    at = np.argmax(np.cumsum(known.weights, axis=1) >= 0.5, axis=1)
    if has_few(lines).all():
        d = lines.slope.transpose(0, 2, 1)
        base = latest(d)
        few = ClosedFormGLS.of(d - base[..., None], lines.basis(TERMS), _roots(lines))
        shares = _shares(few, states, known, at)
        return np.asarray(base + np.einsum("lnp,lnp->ln", shares, few.y))
    middle = np.zeros_like(known.weights)
    middle[np.arange(len(at)), at] = 1.0
    mixed = mix(replace(known, weights=middle))
    return mixed.base + mixed.average


def _parts(known: Posterior) -> Iterator[tuple[slice, slice, Posterior]]:
    """Some lines at a time, or some outputs of one, so that what is between stays in the cache."""
    n_lines, n = known.slope.shape
    step = max(1, PART // max(n, 1))
    for start in range(0, n_lines, step):
        lines = slice(start, start + step)
        some = known.take(lines)
        for first in range(0, n, PART):
            outputs = slice(first, first + PART)
            yield lines, outputs, some if n <= PART else some.take_outputs(outputs)


def mix(known: Posterior) -> Mixture:
    """Slopes of all outputs along all lines."""
    lines, states, slope = known.differences, known.states, known.slope
    pick, share = likeliest(known.weights)
    share = normalise(share)
    d = lines.slope.transpose(0, 2, 1)
    seen, base = np.isfinite(d), latest(d)
    weight = _roots(lines)
    d = d - base[..., None]
    few = has_few(lines)
    if few.all():
        mean, var = _closed(known, pick, d, weight)
    else:
        mean, var = np.zeros((2, *base.shape, pick.shape[1]))
        if few.any():
            mean[few], var[few] = _closed(known.take(few), pick[few], d[few], weight[few])
        rows = np.broadcast_to(~few[:, None], base.shape)
        each = np.broadcast_to(pick[:, None], var.shape)
        sharp = np.sqrt(_sharpness_squared(known, pick)) / slope[..., None]
        sharp = np.broadcast_to(sharp, var.shape)
        mean[rows], var[rows], _ = fit(
            lines.basis(TERMS), weight, d, slope, 1.0, 0.0, sharp, states, each, rows
        )
    average = np.einsum("lnc,lc->ln", mean, share)
    variance = np.einsum("lnc,lc->ln", var + np.square(mean - average[..., None]), share)
    variance = np.where(seen.any(axis=2), variance, np.inf)
    return Mixture(share, seen, base, mean, var, average, variance)


def _roots(lines: CentralDifferences) -> Array:
    """1 over the standard deviation (L, n, P) of every slope at unit noise."""
    ratio = lines.noise_ratio.transpose(0, 2, 1)
    return np.asarray(lines.t[:, None] * np.sqrt(2 / (lines.noise_factor[:, None] * ratio)))


def _sharpness_squared(known: Posterior, pick: Index) -> Array:
    """b^2 over the variance of the noise, jitter included, under the states (L, C): (L, n, C), or
    (L, n, 1) where one will do."""
    kappa = known.states.kappa[pick][:, None]
    acting = np.asarray(known.jitter)
    if (acting != 1).any():
        kappa = kappa * acting[..., None]
    return sharpness_squared(known.noise / known.slope, kappa)


def _shares(few: ClosedFormGLS, states: States, known: Posterior, at: Index) -> Array:
    """What the slope takes of every pair, (L, n, P), under one state a line."""
    w = _sharpness_squared(known, at[:, None])
    return few.shares(np.square(states.sd_slope(few.p.shape[-1])[at])[..., None], w)


def _closed(known: Posterior, pick: Index, d: Array, weight: Array) -> tuple[Array, Array]:
    """Means and variances (L, n, C) of lines with few pairs."""
    lines, states = known.differences, known.states
    basis = lines.basis(TERMS)
    terms = np.square(states.sd_slope(basis.shape[-1])[pick]).transpose(0, 2, 1)
    mean, var = ClosedFormGLS.of(d, basis, weight).slope(terms, _sharpness_squared(known, pick))
    var *= np.square(known.slope)[..., None]
    return mean, var


def _unit_variance(known: Posterior, seen: NDArray[np.bool_]) -> Array:
    """Variance (L, n) that noise leaves, at unit noise: every pair by its weight under the
    likeliest state, found with one right-hand side at a time."""
    lines, states, slope = known.differences, known.states, known.slope
    top = known.weights.argmax(axis=1)
    weight, basis = _roots(lines), lines.basis(TERMS)
    out = np.zeros(slope.shape)
    few = has_few(lines)
    if few.any():
        one = ClosedFormGLS.of(np.where(seen[few], 0.0, np.nan), basis[few], weight[few])
        parts = _shares(one, states, known.take(few), top[few])
        parts /= np.where(one.root > 0, one.root, np.inf)[..., 0]
        out[few] = np.square(parts).sum(axis=2)
    if not few.all():
        rows = np.broadcast_to(~few[:, None], slope.shape)
        sharp = np.sqrt(_sharpness_squared(known, top[:, None])) / slope[..., None]
        pick = np.broadcast_to(top[:, None, None], sharp.shape)
        for k in range(seen.shape[-1]):
            y = np.where(seen, 0.0, np.nan)
            y[..., k] = np.where(seen[..., k], 1.0, np.nan)
            part = fit(basis, weight, y, slope, 1.0, 0.0, sharp, states, pick, rows)[0][:, 0]
            out[rows] += np.square(part / np.where(seen[rows][:, k], weight[rows][:, k], np.inf))
    return np.where(seen.any(axis=-1), out, np.inf)


def _half_widths(known: Posterior, mixed: Mixture) -> Array:
    """Half-width (L, n) that holds 95 % of each mixture: that of a normal where it is one."""
    lines, slope, noise = known.differences, known.slope, known.noise
    mean, var, share = mixed.mean - mixed.average[..., None], mixed.var, mixed.share
    square = np.square(mean)
    fourth = np.einsum("lnc,lc->ln", 3 * np.square(var + square) - 2 * np.square(square), share)
    half = NORMAL_95 * np.sqrt(mixed.variance)
    line, output = np.nonzero(
        mixed.seen.any(axis=-1) & (fourth > 3.05 * np.square(mixed.variance))
    )  # fmt: skip
    if not line.size:
        return half
    # with one pair the width over b is a function of the noise over b alone, where jitter acts by b
    # as well: those within an
    # eighth of an octave share one
    seen = mixed.seen[line, output]
    at = np.argmax(seen, axis=1)
    variance = lines.noise_factor[line, at] * lines.noise_ratio[line, at, output]
    ratio = noise[line, output] * np.sqrt(variance)
    octave = np.floor(8 * np.log2(ratio / (slope[line, output] * lines.t[line, at])))
    key = (line * seen.shape[1] + at) * 2**16 + np.clip(octave, -(2**15), 2**15 - 1).astype(int)
    several = seen.sum(axis=1) > 1
    if np.ndim(known.jitter):
        several |= np.asarray(known.jitter)[line, output] != 1
    key = np.where(several, -1 - np.arange(line.size), key + 2**15)
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    j, i = line[first], output[first]
    width = _widths(mean[j, i], np.sqrt(2 * var[j, i]), share[j], 4 * half[j, i])
    unit = np.sqrt(mixed.variance)
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
        ps = p * s
        outside = slope = bend = np.zeros(w.size)
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
