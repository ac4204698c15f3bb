"""What central differences say about the states of the line model: likelihoods and posterior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Index
from gradiator_np.designs._adaptive.model.closed_form import MOST, SHARPEST, ClosedFormGLS
from gradiator_np.designs._adaptive.model.differences import CentralDifferences, slope_basis
from gradiator_np.designs._adaptive.model.prior import (
    BLUR,
    RHO,
    TERMS,
    States,
    log_normalise,
    normalise,
)
from gradiator_np.kernels import line_model

# Outputs share their truncation: together they count as so many independent ones.
EFFECTIVE_OUTPUTS = 3.0
# An output that does not answer by SIGNAL_THRESHOLD standard deviations of its noise counts less:
# its silence says that an input bends nowhere, and in a sparse Jacobian most are silent.
SIGNAL_THRESHOLD, SILENT_WEIGHT = 5.0, 0.6
# Beside one that bends a straight one counts for less still: it says that terms vanish, not how
# fast those of the other fall off.
STRAIGHT_WEIGHT = 0.1
# Outputs that the likelihood of one input is made of: half of them are those in which its slope
# stands out most, half those that bend most: linear ones, many as they are, outvote no bent one.
MOST_INFORMATIVE = 6
# Lines at a time: six outputs of 100 states are half a megabyte.
PART = 128


def informative_outputs(lines: CentralDifferences, noise: Array, slope: Array) -> Index:
    """The outputs that tell most of each input: shape (m, c)."""
    m, n = slope.shape
    if n <= MOST_INFORMATIVE:
        return np.ascontiguousarray(np.broadcast_to(np.arange(n), (m, n)))
    half = MOST_INFORMATIVE // 2
    signal = slope / noise
    loud = np.argpartition(-signal, half, axis=1)[:, :half]
    # what slopes differ by from pair to pair, and second differences
    root = lines.t * np.sqrt(2 / lines.noise_factor)
    apart = np.abs(np.diff(lines.slope, axis=1)) * np.minimum(root[:, 1:], root[:, :-1])[..., None]
    bend = np.concatenate([apart, np.abs(lines.second) / np.sqrt(6)], axis=1)
    bend = np.nan_to_num(bend).max(axis=1) / noise
    np.put_along_axis(bend, loud, -1.0, axis=1)
    bent = np.argpartition(-bend, half, axis=1)[:, :half]
    return np.ascontiguousarray(np.concatenate([loud, bent], axis=1))


def likelihood(
    lines: CentralDifferences, states: States, noise: Array, slope: Array
) -> tuple[Array, Array]:
    """Log-likelihoods (L, S) of the slopes and of the second differences.

    A pseudo-likelihood: outputs share one bend length, and their truncation, so each counts by a
    weight. ``noise`` has shape (N,) or (L, N), ``slope`` (L, N) is the unit of the terms.
    """
    picked = informative_outputs(lines, noise, slope)
    every = np.arange(picked.shape[0])[:, None]
    # (L, c, P)
    d, e, ratio = (a[every, :, picked] for a in (lines.slope, lines.second, lines.noise_ratio))
    b, level = slope[every, picked], np.broadcast_to(noise, slope.shape)[every, picked]
    roots = (
        lines.t[:, None] * np.sqrt(2 / (lines.noise_factor[:, None] * ratio)),
        np.sqrt(0.5 / ratio),
    )
    sloped, curved = (
        (np.abs(a * root) > SIGNAL_THRESHOLD * level[..., None]).any(axis=2)
        for a, root in zip((d, e), roots)
    )
    weights = np.where(sloped | curved, 1.0, SILENT_WEIGHT)
    bent = _bends(d, roots[0], level)
    weights = np.where(bent.any(axis=1, keepdims=True) & ~bent, STRAIGHT_WEIGHT, weights)
    # at a minimum the slope is no unit of curvature
    even_weights = np.where(curved & ~sloped, 0.0, weights)
    d = d - latest(d)[..., None]
    few = has_few(lines)
    out = np.zeros((2, picked.shape[0], states.rho.size))
    closed = np.flatnonzero(few)
    basis = lines.basis(TERMS), slope_basis(lines.t, np.zeros_like(lines.sided), TERMS)
    terms = np.square(states.sd_slope(basis[0].shape[-1])).T, np.square(states.sd_even).T
    for start in range(0, closed.size, PART):
        k = closed[start : start + PART]
        w = sharpness_squared(level[k] / b[k], states.kappa)
        one = ClosedFormGLS.of(d[k] / b[k][..., None], basis[0][k], roots[0][k])
        out[0, k] = _together(one.likelihood_of_slopes(terms[0], w), weights[k])
        # second differences share the error of f0
        one = ClosedFormGLS.of(e[k] / b[k][..., None], basis[1][k], roots[1][k])
        logs = one.likelihood_of_bends(terms[1], w, 2 * level[k] / b[k])
        out[1, k] = _together(logs, even_weights[k])
    if not few.all():
        rows = np.broadcast_to(~few[:, None], b.shape)
        sharp = sharpness(level[..., None], b[..., None], states.kappa)
        pick = np.broadcast_to(np.arange(states.rho.size), sharp.shape)
        shape = (-1, *b.shape[1:], states.rho.size)
        part = fit(basis[0], roots[0], d, b, 1.0, 0.0, sharp, states, pick, rows)[2]
        out[0, ~few] = _together(part.reshape(shape), weights[~few])
        part = fit(basis[1], roots[1], e, 2 * b, -2 * level, 1.0, sharp, states, pick, rows)[2]
        out[1, ~few] = _together(part.reshape(shape), even_weights[~few])
    return out[0], out[1]


def _bends(slopes: Array, roots: Array, noise: Array) -> NDArray[np.bool_]:
    """Outputs (L, c) whose slopes differ from pair to pair by more than noise."""
    sd = noise[..., None] * np.hypot(1 / roots[..., 1:], 1 / roots[..., :-1])
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(np.diff(slopes)) > SIGNAL_THRESHOLD * sd).any(axis=2))


def _together(logs: Array, weights: Array) -> Array:
    """Log-likelihoods (L, c, S) of outputs as one, by their weights (L, c)."""
    total = weights.sum(axis=1, keepdims=True)
    share = weights * np.minimum(1.0, EFFECTIVE_OUTPUTS / np.maximum(total, SILENT_WEIGHT))
    return np.asarray(np.einsum("lcs,lc->ls", logs, share))


def has_few(lines: CentralDifferences) -> NDArray[np.bool_]:
    """Lines with so few pairs that the closed form will do."""
    return np.asarray(lines.n_pairs <= MOST)


def sharpness_squared(ratio: Array, kappa: Array) -> Array:
    """b^2 over the variance of the noise, jitter included: (.., S), or (.., 1) where all states
    have one; ``ratio`` (..) is noise over b."""
    if kappa.size and (kappa == kappa.flat[0]).all():
        kappa = kappa[..., :1]
    return np.minimum(1 / (np.square(ratio)[..., None] + np.square(kappa)), SHARPEST)


def sharpness(noise: Array, slope: Array, kappa: Array) -> Array:
    """1 over the noise, jitter included."""
    return np.asarray(1 / np.sqrt(np.square(noise) + np.square(slope * kappa)))


def latest(values: Array) -> Array:
    """The last finite value along the last axis, 0 where there is none."""
    out = np.zeros(values.shape[:-1])
    for k in range(values.shape[-1]):
        out = np.where(np.isfinite(values[..., k]), values[..., k], out)
    return out


def fit(
    basis: Array,
    weight: Array,
    y: Array,
    amp: Array,
    last: Array | float,
    prior: float,
    sharp: Array,
    states: States,
    pick: Index,
    rows: NDArray[np.bool_],
) -> tuple[Array, Array, Array]:
    """Mean, variance and log-likelihood (D, C) of the ``rows`` (L, n) that are picked, by
    ``kernels.line_model``."""
    line = np.nonzero(rows)[0]
    shape = (line.size, pick.shape[-1])
    mean, variance, log = np.zeros((*shape, 1)), np.ones((*shape, 1)), np.zeros(shape)
    line_model.fit(
        np.ascontiguousarray(basis[line]),
        weight[rows],
        y[rows],
        amp[rows],
        np.ascontiguousarray(np.broadcast_to(last, rows.shape)[rows]),
        prior,
        sharp[rows],
        states.sd_slope(basis.shape[-1]) if prior == 0 else states.sd_even,
        pick[rows],
        basis.shape[1],
        0,
        mean,
        variance,
        log,
    )
    return mean[..., 0], variance[..., 0], log


def posterior(prior: Array, slopes: Array, bends: Array, states: States) -> Array:
    """Weights (L, S) of the states, given the log-likelihoods of slopes and second differences.

    That of second differences is tempered: that f'' is large says little about f''' (a quadratic
    has no f''' at all), so it is blurred over rho, and with a chance of 0.2 it says nothing.
    """
    logs = np.log(np.maximum(prior, 1e-300)) + slopes
    # likelihood as a weight over rho alone
    share = states.by_rho(np.exp(bends - bends.max(axis=1, keepdims=True)))
    share /= np.maximum(np.bincount(states.rho, minlength=RHO.size), 1)
    grid = np.log10(RHO)
    share = share @ np.exp(-0.5 * ((grid[:, None] - grid) / BLUR) ** 2)
    share = 0.8 * normalise(share) + 0.2 / RHO.size
    return log_normalise(logs + np.log(share[:, states.rho]))


def noise_over_slope(noise: Array, slope: Array) -> Array:
    """Noise over slopes (.., N), all outputs together: each counts by its own noise."""
    ratio = np.square(slope / noise)
    good = np.isfinite(ratio)
    ratio = np.where(good, ratio, 0.0).sum(axis=-1) / np.maximum(good.sum(axis=-1), 1)
    return np.asarray(1 / np.sqrt(np.where(ratio > 0, ratio, 1.0)))


def first_slope(lines: CentralDifferences, noise: Array) -> Array:
    """|D| of the pair in which a cubic term at rho = 1 and the noise are least together."""
    t = lines.t
    cost = t**4 + 0.5 * (1e-6 / np.where(t > 0, t, 1.0)) ** 2
    order = np.argsort(np.where(np.isfinite(t), cost, np.inf), axis=1)
    d = np.take_along_axis(lines.slope, order[:, :, None], axis=1)
    good = np.isfinite(d)
    first = np.argmax(good, axis=1)
    out = np.abs(np.take_along_axis(d, first[:, None, :], axis=1)[:, 0])
    out = np.nan_to_num(out)
    return np.asarray(out + noise)
