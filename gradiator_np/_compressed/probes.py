"""Runs along random directions, that tell whether J u holds: where, how far, and their slopes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._compressed.compression import Compression
from gradiator_np._results import JacobianEstimate
from gradiator_np._typing import Array

#: The shortest distance in units of the seeds, as a power of the precision, and the longest. At
#: the first (1e-6; 2e-3 in single precision) the truncation of a pair is 2e-12, its rounding 2e-10.
SHORTEST, LONGEST = 3 / 8, 0.25
#: The shortest distance of a single run: at it (1e-7) truncation and 64 units of rounding are 1e-7.
SINGLE = 9 / 20
#: Steps below this are those of the complex step, which do not move x.
IMAGINARY = 2.0**-48
#: Noise shows in a slope where it is more than this share of it: a shorter pair drowns in it.
LOUD = 1e-5


class Probe(NamedTuple):
    """Runs along one direction.

    Attributes
    ----------
    u : array, shape batch + (m,)
        In units of the seeds.
    t : array, shape (p, q) + batch
        How far along u they lie: p groups of one, or of two (a pair).
    values : array, shape (p, q) + batch + (n,)
    """

    u: Array
    t: Array
    values: NDArray[Any]

    @property
    def nearest(self) -> Array:
        """The distance of the nearest one, (*batch, 1)."""
        return np.asarray(np.abs(self.t).min((0, 1))[..., None])

    @property
    def paired(self) -> bool:
        """Whether groups have two runs."""
        return bool(self.t.shape[1] > 1)


class Line(NamedTuple):
    """Parabolas through pairs and the value at x, or chords.

    Attributes
    ----------
    slope, bend : array, shape (*batch, n)
        Slope at 0 and second divided difference, means of all groups.
    weight : array, shape (*batch, 1)
        The standard error of the slope at unit noise.
    scatter : array, shape (*batch, n)
        That of groups among each other; 0 of one group.
    """

    slope: NDArray[Any]
    bend: NDArray[Any]
    weight: Array
    scatter: Array


def direction(compression: Compression, t: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """A random direction u (*batch, m), and two distances along it (2, *batch), at most ``t``
    (*batch,) and within the bounds.
    """
    x, seeds, limits = compression.x, compression.seeds, compression.limits
    u = checks.random_direction(rng, x.shape)
    if limits is None:
        return u, np.stack([t, -t])
    # Every input goes where it has more room; all stay inside, on both sides of x or on one.
    size = np.abs(seeds * u)
    up, down = limits[1] - x, x - limits[0]
    u = np.copysign(u, np.where(up >= down, seeds, -seeds))
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = [np.where(size > 0, room(up, down) / size, np.inf).min(-1)
                 for room in (np.maximum, np.minimum)]  # fmt: skip
    t = np.minimum(t, sides[0])
    return u, np.stack([t, np.where(t <= sides[1], -t, t / 2)])


def representable(compression: Compression, u: Array, t: Array) -> Array:
    """u as floating-point numbers allow it at a distance t: far from the origin they are coarse."""
    x, step = compression.x, t[..., None] * compression.seeds
    there = (x + step * u).astype(x.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        real = np.subtract(there, x, dtype=np.float64) / step
    return np.asarray(np.where(step == 0, u, real))


def distance(compression: Compression, found: JacobianEstimate) -> Array:
    """Where noise and truncation balance for a pair, in units of the seeds, (*batch,); no farther
    than the steps of J, beyond which a function that lives on a smaller scale says otherwise."""
    step = found.frame.step
    assert step is not None
    shortest = checks.precision(compression.x) ** SHORTEST
    own = np.where(step > IMAGINARY, step, np.inf).min(-1)
    balanced = np.minimum(np.cbrt(share_of_noise(found)), LONGEST)
    return np.asarray(np.maximum(np.minimum(balanced, own), shortest))


def single(compression: Compression, found: JacobianEstimate, far: Array) -> Array:
    """Where noise and truncation balance for a single run; no farther than ``far``, (*batch,)."""
    shortest = checks.precision(compression.x) ** SINGLE
    return np.asarray(np.minimum(np.maximum(np.sqrt(share_of_noise(found)), shortest), far))


def is_loud(found: JacobianEstimate, t: Array) -> bool:
    """Whether noise is seen in a slope over t."""
    return bool((share_of_noise(found) > LOUD * t).any())


def share_of_noise(found: JacobianEstimate) -> Array:
    """The noise of a typical output, in units of its change per seed, (*batch,)."""
    noise = np.nan_to_num(found.solution.cov.scale, nan=0.0, posinf=np.inf)
    slope = np.abs(found.solution.coef).sum(-1)
    share = np.divide(noise, slope, out=np.zeros(noise.shape), where=slope > 0)
    return np.asarray(np.median(share, axis=-1))


def line_of(probe: Probe, y: NDArray[Any]) -> Line:
    """What runs along a direction say, together with y (*batch, n)."""
    t, p = probe.t[..., None], len(probe.t)
    chords = (probe.values - y) / t
    if not probe.paired:
        slopes, bends, weights = chords[:, 0], np.zeros_like(chords[:, 0]), 1 / t
    else:
        a, b = t[:, 0], t[:, 1]
        bends = (chords[:, 0] - chords[:, 1]) / (a - b)
        slopes = chords[:, 0] - bends * a
        weights = np.stack([-b / (a * (a - b)), a / (b * (a - b))], 1)
    each = np.sqrt(np.square(weights).sum((0, 1))) / p
    weight = np.hypot(each, weights.sum(1).mean(0))
    spread = np.std(slopes, axis=0, ddof=1) if p > 1 else np.zeros(slopes.shape[1:])
    return Line(slopes.mean(0), bends.mean(0), weight, spread / np.sqrt(p))
