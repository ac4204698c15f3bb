"""Whether the runs agree with a sparsity pattern.

A missing entry falsifies J without a sign of it in J itself: what the input does to the output is
added to another entry, or lands where the output has no entry of that colour at all. Two things
tell: entries of the compressed J that no input accounts for, which must vanish and cost no run;
and a pair of runs along a random direction, which must agree with J u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np._checks import EPS
from gradiator_np._compressed.compression import Compression
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._structure import enumerated
from gradiator_np._typing import Array, Index
from gradiator_np.solvers._solution import student_quantile
from gradiator_np.sparsity import SparsityPattern

#: A false alarm of noise in so many Jacobians, over all outputs together.
FALSE_ALARM = 1e-4
#: Less than this of the sum of |J_ij u_j| is truncation: single inputs do not show how two act
#: together, which is of the order of the step where it balances rounding, 1e-5 of x.
NEGLIGIBLE = 1e-4
#: Rounding of one value, in units in its last place: a function that solves something loses some.
ULPS = 64
#: Noise of less than this share of what a step changes leaves J as it is.
QUIET = 1e-3
#: Steps below this are those of the complex step, which do not move x.
IMAGINARY = 2.0**-48
#: Distances of a pair in units of the seeds: at the first truncation is 2e-10, rounding 1e-11.
SHORTEST, LONGEST = 2.0**-16, 0.25


_NONE = np.zeros(0, np.intp), np.zeros(0, np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class PatternCheck:
    """What runs say of a pattern.

    Attributes
    ----------
    outputs : array of int
        Outputs that answer to inputs which the pattern says they do not read; flat indices.
    excess : array
        What the pattern does not account for: change of the output per step of all inputs.
    nfev : int
        Evaluations made for the check alone.
    missing : pair of array of int
        Rows and columns of entries that account for it; of rows that lack many there are none.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from gradiator_np import jacobian
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # it warns of what is shown below
    ...     estimate = jacobian(lambda x: x * x[0], [1.0, 2.0, 3.0], sparsity=np.eye(3))
    >>> estimate.check.outputs, estimate.check.missing
    (array([1, 2]), (array([1, 2]), array([0, 0])))
    """

    outputs: Index
    excess: Array
    nfev: int = 0
    missing: tuple[Index, Index] = _NONE

    def with_outputs(self, more: Index) -> PatternCheck:
        """With outputs that were told otherwise."""
        outputs = np.union1d(self.outputs, more)
        excess = np.zeros(len(outputs))
        excess[np.searchsorted(outputs, self.outputs)] = self.excess
        return replace(self, outputs=outputs, excess=excess)

    def amended(self, pattern: SparsityPattern) -> SparsityPattern:
        """The pattern with the entries that were found to be missing."""
        rows = np.repeat(np.arange(pattern.shape[0]), pattern.row_counts)
        return SparsityPattern.of(
            (np.append(rows, self.missing[0]), np.append(pattern.indices, self.missing[1])),
            pattern.shape,
        )

    def message(self, frame: Frame) -> str:
        """Words for a pattern that does not hold; "" for one that does."""
        if not len(self.outputs):
            return ""
        which = self.outputs[np.argsort(-self.excess, kind="stable")]
        y, x = frame.y_layout, frame.x_layout
        text = (
            f"{len(which)} of {y.size} outputs ({y.listed('y', which.tolist())}) answer to inputs "
            "that sparsity says they do not read, and their rows of J may be wrong: "
        )
        rows, columns = self.missing
        if not len(rows):
            return text + "add what is missing (detect_sparsity finds it), or leave sparsity out"
        y_names, x_names = y.names, x.names
        told = enumerated([f"y{y_names[i]} by x{x_names[j]}" for i, j in zip(rows, columns)])
        some = "" if set(which.tolist()) <= set(rows.tolist()) else ", for some of them,"
        return f"{text}what is missing is{some} {told}, and .amended has it"


class Probe(NamedTuple):
    """Pairs of runs along one direction.

    Attributes
    ----------
    u : array, shape batch + (m,)
        In units of the seeds.
    t : array, shape (2,) + batch
        How far along u each of a pair lies.
    values : array, shape (p, 2) + batch + (n,)
        Of p pairs.
    """

    u: Array
    t: Array
    values: NDArray[Any]


def direction(
    compression: Compression, found: JacobianEstimate, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A random direction u (*batch, m), and two distances along it (2, *batch), within the bounds.

    Amounts differ between inputs as well as signs: entries of 1 and -1 would cancel.
    """
    x, seeds, limits = compression.x, compression.seeds, compression.limits
    u = rng.uniform(0.5, 1.0, x.shape) * rng.choice([-1.0, 1.0], x.shape)
    t = _distance(found)
    if limits is None:
        return _representable(x, seeds, u, t), np.stack([t, -t])
    # Every input goes where it has more room; all stay inside, on both sides of x or on one.
    size = np.abs(seeds * u)
    up, down = limits[1] - x, x - limits[0]
    u = np.copysign(u, np.where(up >= down, seeds, -seeds))
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = [np.where(size > 0, room(up, down) / size, np.inf).min(-1)
                 for room in (np.maximum, np.minimum)]  # fmt: skip
    t = np.minimum(t, sides[0])
    return _representable(x, seeds, u, t), np.stack([t, np.where(t <= sides[1], -t, t / 2)])


def _representable(x: NDArray[Any], seeds: Array, u: Array, t: Array) -> Array:
    """u as floating-point numbers allow it at a distance t: far from the origin they are coarse."""
    step = t[..., None] * seeds
    there = (x + step * u).astype(x.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        real = np.subtract(there, x, dtype=np.float64) / step
    return np.asarray(np.where(step == 0, u, real))


def _distance(found: JacobianEstimate) -> Array:
    """Where noise and truncation balance for a pair, in units of the seeds, (*batch,); no farther
    than the steps of J, beyond which a function that lives on a smaller scale says otherwise."""
    step = found.frame.step
    assert step is not None
    balanced = np.clip(np.cbrt(_share_of_noise(found)), SHORTEST, LONGEST)
    own = np.where(step > IMAGINARY, step, np.inf).min(-1)
    return np.asarray(np.minimum(balanced, own))


def is_loud(found: JacobianEstimate, t: Array) -> bool:
    """Whether noise is seen in a slope over t, where a shorter pair would drown in it."""
    return bool((_share_of_noise(found) > NEGLIGIBLE / 10 * t).any())


def _share_of_noise(found: JacobianEstimate) -> Array:
    """The noise of a typical output, in units of its change per seed, (*batch,)."""
    noise = np.nan_to_num(found.solution.cov.scale, nan=0.0, posinf=np.inf)
    slope = np.abs(found.solution.coef).sum(-1)
    share = np.divide(noise, slope, out=np.zeros(noise.shape), where=slope > 0)
    return np.asarray(np.median(share, axis=-1))


def compare(
    compression: Compression, found: JacobianEstimate, probes: Sequence[Probe], nfev: int = 0
) -> PatternCheck:
    """Outputs that the entries of a pattern do not account for.

    Parameters
    ----------
    probes : sequence of Probe
        None; one; or two along one direction, the second at half the distance, which tell a
        missing entry from truncation: this falls to a quarter.
    """
    solution, y = found.solution, found.frame.y
    assert y is not None
    n = solution.coef.shape[-2]
    z = _quantile(found, 1 - FALSE_ALARM / (2 * n))
    with np.errstate(all="ignore"):  # outputs that failed are nan, and disagree with nothing
        excess = _unaccounted(compression, found, z)
        if probes:
            excess = np.maximum(excess, _disagreement(compression, found, probes, z))
    excess = excess.reshape(-1, n).max(0)
    outputs = np.flatnonzero(excess)
    return PatternCheck(outputs, excess[outputs], nfev)


def _quantile(found: JacobianEstimate, p: float) -> Array:
    """The quantile of errors in standard errors, (*batch, n).

    Student's where noise matters to J: stencils know it from a difference or two. Where it does
    not, what stands for it there is a bend, which has no distribution.
    """
    solution, step = found.solution, found.frame.step
    assert step is not None
    with np.errstate(all="ignore"):
        least = np.nanmin(step, axis=-1, keepdims=True)
        loud = solution.cov.scale > QUIET * np.abs(solution.coef).sum(-1) * least
    dof = np.where(loud & (solution.dof > 0), solution.dof, np.inf)
    return student_quantile(p, dof)


def _unaccounted(compression: Compression, found: JacobianEstimate, z: Array) -> Array:
    """The largest entry of a colour of which the output has none, (*batch, n)."""
    solution, y, step = found.solution, found.frame.y, found.frame.step
    assert y is not None
    assert step is not None
    coef = np.abs(solution.coef)
    empty = np.ones(coef.shape[-2:], bool)
    empty[compression.cells] = False
    error = np.nan_to_num(
        np.broadcast_to(solution.cov.stderr(), coef.shape), nan=0.0, posinf=np.inf
    )
    step = np.where(step > SHORTEST, step, SHORTEST)[..., None, :]  # those of "cs" do not round
    floor = z[..., None] * error + ULPS * EPS * np.abs(y)[..., None] / step
    floor += NEGLIGIBLE * coef.sum(-1, keepdims=True)
    return np.asarray(np.where(empty & (coef > floor), coef, 0.0).max(-1, initial=0.0))


def _disagreement(
    compression: Compression, found: JacobianEstimate, probes: Sequence[Probe], z: Array
) -> Array:
    """What J u does not account for of the slope along u, (*batch, n); 0 where it may be chance."""
    solution, y = found.solution, found.frame.y
    assert y is not None
    tangents = compression.tangents(probes[0].u * compression.seeds)
    terms = tangents * solution.coef
    error = np.nan_to_num(
        solution.cov.jvp_stderr(tangents, each_output=True), nan=0.0, posinf=np.inf
    )
    lines = [line_of(probe, y) for probe in probes]
    slopes, bends, weights = zip(*lines)
    noise = solution.cov.scale
    unknown = np.isnan(noise)
    if unknown.any():
        told = np.abs(bends[0] * probes[0].t.prod(0)[..., None])
        noise = np.where(unknown, np.median(told, axis=-1, keepdims=True), noise)
    slope, weight = slopes[0], weights[0]
    truncation = 0.0
    if len(probes) > 1:
        slope = (4 * slopes[1] - slopes[0]) / 3
        weight = np.hypot(4 * weights[1], weights[0]) / 3
        truncation = np.abs(slopes[1] - slopes[0])
    nearest = np.abs(probes[-1].t).min(0)[..., None]
    floor = (
        z * np.hypot(error, noise * weight)
        + NEGLIGIBLE * np.abs(terms).sum(-1)
        + ULPS * EPS * np.abs(y) / nearest
        + 2 * np.abs(bends[-1]) * nearest
        + truncation
    )
    excess = np.abs(slope - terms.sum(-1))
    return np.asarray(np.where(excess > floor, excess, 0.0))


def line_of(probe: Probe, y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], Array]:
    """Slope and second divided difference at 0 of the parabola through pairs and y (*batch, n),
    and the standard error of the slope at unit noise."""
    a, b = probe.t[..., None]
    ahead, back = ((probe.values[:, i].mean(0) - y) / t for i, t in enumerate((a, b)))
    bend = (ahead - back) / (a - b)
    weights = np.stack([-b / (a * (a - b)), a / (b * (a - b))])
    each = np.hypot(*weights) / np.sqrt(len(probe.values))
    return ahead - bend * a, bend, np.hypot(each, weights.sum(0))
