"""Whether the runs agree with a sparsity pattern.

A missing entry falsifies J without a sign of it in J itself: what the input does to the output is
added to another entry, or lands where the output has no entry of that colour at all. Two things
tell: entries of the compressed J that no input accounts for, which must vanish and cost no run;
and runs along random directions, which must agree with J u. An entry of column k that was added to
that of column j leaves u_k - u_j of itself along u, next to nothing along one direction of a
hundred: there are two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._compressed.compression import Compression
from gradiator_np._compressed.probes import SHORTEST, Probe, line_of
from gradiator_np._moderated import moderated
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._structure import Layout, enumerated
from gradiator_np._typing import Array, Index, Mask
from gradiator_np.designs._finite_difference.stencil import RULES
from gradiator_np.solvers._solution import student_quantile
from gradiator_np.sparsity import SparsityPattern

#: A false alarm of noise in so many Jacobians, over all outputs together.
FALSE_ALARM = 1e-4
#: Less than this of the sum of |J_ij u_j| is truncation: single inputs do not show how two act
#: together, which is of the order of the step where it balances rounding, 1e-5 of x.
NEGLIGIBLE = 1e-4
#: From this on it is looked at again, and counts where a few missing entries account for it along
#: all directions. An entry of 1e-3 of its row leaves less along one direction of 200 only.
FAINT = 2e-6
#: Rounding of one value, in units in its last place: a function that solves something loses some.
ULPS = 64
#: A stencil's noise is what a rule of its order leaves of values, h^order |J| of a smooth function
#: itself: more than so many times that is noise. With 10, 300 of 300 patterns that lack an entry
#: were named without noise by stencils of three orders, and none that hold at noise of 1e-8.
BENT = 10.0
#: Share of what pairs leave that others at a sixteenth of the distance leave again if it is noise;
#: of a bend that is 1/256.
AGAIN = 0.1
#: Groups of runs differ by noise in so many of its standard errors at most.
SCATTERED = 3

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
    inexact : array of int
        Outputs of which entries that the pattern has are off by more than their errors: runs along
        random directions disagree with J u, and these account for it.

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
    inexact: Index = field(default_factory=lambda: np.zeros(0, np.intp))

    @classmethod
    def of(cls, excess: Array, nfev: int = 0) -> PatternCheck:
        """By what is not accounted for of each output."""
        outputs = np.flatnonzero(excess)
        return cls(outputs, excess[outputs], nfev)

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
        """Words for what does not hold; "" where all does."""
        y, x = frame.y_layout, frame.x_layout
        parts = []
        if len(self.outputs):
            parts.append(self._lacking(y, x))
        if len(self.inexact):
            parts.append(
                f"slopes along random directions disagree with J of {y.listed('y', self.inexact)}, "
                "by errors of entries that sparsity has: stderr is too small there"
            )
        return "; ".join(parts)

    def _lacking(self, y: Layout, x: Layout) -> str:
        which = self.outputs[np.argsort(-self.excess, kind="stable")]
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


def unaccounted(
    compression: Compression,
    found: JacobianEstimate,
    eps: float | None = None,
    loud: Mask | bool = False,
) -> Array:
    """The largest entry of a colour of which the output has none, (n,); 0 where it may be chance.

    ``eps`` is the relative precision of the values, by default that of x; ``loud`` says of which
    outputs noise was seen by other runs, (*batch, n or 1). No run is made.
    """
    solution, y, step = found.solution, found.frame.y, found.frame.step
    assert y is not None
    assert step is not None
    if eps is None:
        eps = checks.precision(compression.x)
    coef = np.abs(solution.coef)
    n = coef.shape[-2]
    empty = np.ones(coef.shape[-2:], bool)
    empty[compression.cells] = False
    with np.errstate(all="ignore"):  # outputs that failed are nan, and disagree with nothing
        error = np.nan_to_num(
            np.broadcast_to(solution.cov.stderr(), coef.shape), nan=0.0, posinf=np.inf
        )
        shortest = eps**SHORTEST  # steps of "cs" do not round
        step = np.where(step > shortest, step, shortest)[..., None, :]
        z = _quantile(found, n, seen_noise(found) | loud)[..., None]
        floor = z * error + ULPS * eps * np.abs(y)[..., None] / step
        floor += NEGLIGIBLE * coef.sum(-1, keepdims=True)
        excess = np.where(empty & (coef > floor), coef, 0.0).max(-1, initial=0.0)
    return np.asarray(excess.reshape(-1, n).max(0))


def with_noise(found: JacobianEstimate, pairs: Sequence[Probe]) -> JacobianEstimate:
    """The estimate with the noise that pairs along directions show, where its own runs tell none.

    It is that of a typical output: what is left of one pair is a number of its own.
    """
    solution, y = found.solution, found.frame.y
    assert y is not None
    unknown = np.isnan(solution.cov.scale)
    if not unknown.any():
        return found
    with np.errstate(all="ignore"):
        left = np.stack([np.abs(line_of(pair, y).bend * pair.nearest**2) for pair in pairs])
    left[~np.isfinite(left)] = np.nan  # outputs that failed
    left[:, np.isnan(left).all((0, -1))] = 0.0
    told = np.nanmedian(left, axis=(0, -1), keepdims=True)[0]
    cov = replace(solution.cov, scale=np.where(unknown, told, solution.cov.scale))
    return replace(found, solution=replace(solution, cov=cov))


def shows_noise(found: JacobianEstimate, pairs: Sequence[Probe], nearer: Sequence[Probe]) -> Mask:
    """Whether pairs show as much noise nearer to x, (*batch, 1): what bends falls with the square
    of the distance, and rounding does not count."""
    y = found.frame.y
    assert y is not None
    with np.errstate(all="ignore"):
        far, near = (
            np.median([np.abs(line_of(p, y).bend * p.nearest**2) for p in line], axis=0)
            for line in (pairs, nearer)
        )
        share = np.where(near > _rounding(y), near / far, 0.0)
    return np.asarray(np.median(np.nan_to_num(share), axis=-1, keepdims=True) > AGAIN)


def with_common_noise(found: JacobianEstimate) -> JacobianEstimate:
    """The estimate of a stencil with the noise of each output moderated by that of the others: in
    few colours it has few degrees of freedom."""
    solution = found.solution
    scale, n = solution.cov.scale, solution.cov.scale.shape[-1]
    if found.design not in RULES or np.isnan(scale).any():
        return found
    each = zip(scale.reshape(-1, n), np.broadcast_to(solution.dof, scale.shape).reshape(-1, n))
    rows = zip(*[moderated(np.square(sd), dof) for sd, dof in each])
    scale, dof = (np.stack(part).reshape(scale.shape) for part in rows)
    cov = replace(solution.cov, scale=scale)
    return replace(found, solution=replace(solution, cov=cov, dof=dof))


def disagreement(found: JacobianEstimate, rests: Sequence[Rest], share: float, loud: Mask) -> Array:
    """The most that J u leaves of slopes along several directions, (n,); 0 where it may be chance.

    What is less than ``share`` of the sum of |J_ij u_j| does not count; ``loud`` says of which
    outputs noise is seen, (*batch, n or 1).
    """
    n = found.solution.coef.shape[-2]
    with np.errstate(all="ignore"):
        z = _quantile(found, n * len(rests), loud)
        excess = np.zeros(())
        for rest in rests:
            floor = z * np.hypot(rest.error, rest.noise) + share * rest.terms + rest.limits
            size = np.abs(rest.value)
            excess = np.maximum(excess, np.where(size > floor, size, 0.0))
    return np.asarray(excess.reshape(-1, n).max(0))


def seen_noise(found: JacobianEstimate) -> Mask:
    """Where noise is seen beside rounding and what bends, (*batch, n)."""
    solution, step, y = found.solution, found.frame.step, found.frame.y
    assert step is not None
    assert y is not None
    least = np.nanmin(step, axis=-1, keepdims=True)
    rule = RULES.get(found.design)
    bend = 0.0 if rule is None else BENT * least**rule.order * np.abs(solution.coef).sum(-1)
    return np.asarray(solution.cov.scale > np.maximum(bend, _rounding(y)))


def _rounding(y: NDArray[Any]) -> Array:
    """The most that a value is off by rounding."""
    return np.asarray(ULPS * checks.EPS * np.abs(y))


def _quantile(found: JacobianEstimate, count: int, loud: Mask) -> Array:
    """The largest of ``count`` errors that chance allows, in standard errors, (*batch, n).

    Student's where noise is seen: stencils know it from a difference or two. Where it is not, what
    stands for it there is a bend, which has no distribution.
    """
    dof = found.solution.dof
    dof = np.where(loud & (dof > 0), dof, np.inf)
    return student_quantile(1 - FALSE_ALARM / (2 * count), dof)


class Rest(NamedTuple):
    """What J u leaves of slopes along one direction, and what may be the cause, each (*batch, n).

    Attributes
    ----------
    value : array
        The slope less J u.
    terms : array
        The sum of |J_ij u_j|.
    error : array
        The standard error of J u.
    noise : array
        The standard error of the slope by noise.
    rounding, truncation : array
        Limits of these.
    """

    value: NDArray[Any]
    terms: Array
    error: Array
    noise: Array
    rounding: Array
    truncation: Array

    @property
    def limits(self) -> Array:
        """Of what has limits."""
        return self.rounding + self.truncation

    def lenient(self) -> Rest:
        """With what a pair is off by if terms of a line fall as those of exp(t) do: a slope s and
        a bend b have a third order of b^2 / s. ``truncation`` has more room, b t."""
        size = np.maximum(self.terms, np.abs(self.value))
        with np.errstate(all="ignore"):
            return self._replace(truncation=np.square(self.truncation) / size)


def rest_of(
    compression: Compression,
    found: JacobianEstimate,
    line: Sequence[Probe],
    eps: float,
    truncation: Array | None = None,
) -> Rest:
    """What J u leaves of slopes along a direction, by runs at one or two distances."""
    solution, y = found.solution, found.frame.y
    assert y is not None
    tangents = compression.tangents(line[0].u * compression.seeds)
    terms = tangents * solution.coef
    size = np.abs(terms).sum(-1)
    error = np.nan_to_num(
        solution.cov.jvp_stderr(tangents, each_output=True), nan=0.0, posinf=np.inf
    )
    lines = [line_of(probe, y) for probe in line]
    slope, bend, weight, scatter = lines[-1]
    noise, nearest = np.nan_to_num(solution.cov.scale), line[-1].nearest
    if len(line) > 1:
        first = lines[0]
        far, near = (np.square(probe.t).mean((0, 1))[..., None] for probe in line)
        share = near / (far - near)
        truncation = np.abs(first.slope - slope)
        slope = slope + share * (slope - first.slope)
        weight = np.hypot((1 + share) * weight, share * first.weight)
        scatter = (1 + share) * scatter
    elif truncation is None:
        truncation = 2 * np.abs(bend) * nearest  # 0 of single runs
    noise = noise * weight
    # groups that differ by much more than noise meet another: values that are rounded, or garbage
    noise = np.where(scatter > SCATTERED * noise, scatter, noise)
    rounding = ULPS * eps * np.abs(y) / nearest
    return Rest(slope - terms.sum(-1), size, error, noise, rounding, truncation)
