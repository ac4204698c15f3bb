"""Which entries a pattern lacks, or are off, by what J leaves of slopes along random directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from gradiator_np._compressed.compression import Compression
from gradiator_np._compressed.pattern_check import FAINT, FALSE_ALARM, Rest
from gradiator_np._results import JacobianEstimate
from gradiator_np._typing import Array, Index

#: Directions beside those that told: each entry is an equation short of them, and one more tells
#: whether it is the right one.
DIRECTIONS = 6
#: What may be left, of all there was, where the missing entries are found.
LEFT = 1e-3
#: A quantile of what noise leaves, where they are.
CHANCE = 1e-3
#: Entries that a row may lack: half of the equations.
MOST = DIRECTIONS // 2
#: Rows that are looked at, and numbers that this may take: each row is held against all columns.
ROWS, WORK = 1000, 3e8


class Explained(NamedTuple):
    """What accounts for disagreements.

    Attributes
    ----------
    missing : pair of array of int
        Rows and columns of entries that a pattern lacks.
    inexact : array of int
        Rows of which entries that the pattern has are off by more than their errors.
    """

    missing: tuple[Index, Index]
    inexact: Index


def explain(
    compression: Compression,
    found: JacobianEstimate,
    directions: Sequence[Array],
    rests: Sequence[Rest],
    rows: Index,
) -> Explained:
    """What accounts for that which J u leaves of the slopes along each u.

    Orthogonal matching pursuit (Mallat and Zhang, IEEE Trans. Signal Process. 41 (1993) 3397) by
    generalised least squares: a missing entry k adds a u_k to the slope of its output, and, where
    the output has an entry j of its colour, a u_j to J u, for the same a. An error of entry j is
    that times u_j. Left out are rows that nothing of either kind explains, that errors of J and of
    the slopes explain as well, or that one missing entry explains as well as another.
    """
    u = np.stack(directions) * compression.seeds  # (q, m)
    rows = rows[: min(ROWS, 1 + int(WORK / u.size))]
    value = np.stack([rest.value[rows] for rest in rests])
    limits = np.stack([
        (np.hypot(rest.noise, rest.limits / 3) + FAINT * rest.terms)[rows] for rest in rests
    ])  # limits are three standard deviations  # fmt: skip
    errors = found.solution.cov.stderr()
    errors = np.broadcast_to(errors, found.solution.coef.shape)[rows]
    tangents = np.stack([compression.tangents(each)[rows] for each in u], 1)  # (r, q, c)
    sure = chdtri(len(u), FALSE_ALARM / len(found.solution.coef))
    out: list[tuple[int, int]] = []
    inexact: list[int] = []
    for k, i in enumerate(rows.tolist()):
        error = np.where(np.isfinite(errors[k]), errors[k], np.abs(value[:, k]).max())
        shared = tangents[k] * error
        slopes = np.diag(np.square(limits[:, k]))
        rest = _parts(value[:, k])
        size = np.square(rest).sum()
        whole = slopes + shared @ shared.T
        if not (np.isfinite(size) and np.sum(rest * np.linalg.solve(whole, rest)) > sure):
            continue
        some = np.eye(len(u)) * (LEFT * LEFT * size / chdtri(len(u) - 1, CHANCE))
        candidates, columns = _candidates(compression, u, i)
        one, several = _pursued(*_whitened(whole + some, rest, candidates), columns)
        own = tangents[k][:, tangents[k].any(0)]
        if not len(one) and _fits(*_whitened(slopes + some, rest, own)):
            inexact.append(i)
        elif len(one) <= 1:
            out += [(i, j) for j in one or several]
    pairs = np.array(out, np.intp).reshape(-1, 2)
    return Explained((pairs[:, 0], pairs[:, 1]), np.array(inexact, np.intp))


def _candidates(compression: Compression, u: Array, row: int) -> tuple[Array, Index]:
    """What an entry of 1 per seed would leave along each direction (q, r), and its column (r,)."""
    pattern, colors = compression.coloring.pattern, compression.coloring.column_colors
    own = pattern.indices[pattern.indptr[row] : pattern.indptr[row + 1]]
    scaled = u / np.where(compression.seeds == 0, 1.0, np.abs(compression.seeds))
    by_color = np.zeros((len(u), compression.coloring.n_column_colors))
    by_color[:, colors[own]] = u[:, own] / compression.seeds[own]
    left = scaled - np.sign(compression.seeds) * by_color[:, colors]
    others = np.setdiff1d(np.flatnonzero(compression.seeds), own)
    return left[:, others], others


def _parts(rest: NDArray[Any]) -> Array:
    """The real part, and the imaginary one where there is any, (q, 1 or 2)."""
    parts = [rest.real, rest.imag] if np.iscomplexobj(rest) and rest.imag.any() else [rest.real]
    return np.stack(parts, 1)


def _whitened(cov: Array, rest: Array, candidates: Array) -> tuple[Array, Array]:
    """Both in units of errors that are independent."""
    white = np.linalg.solve(np.linalg.cholesky(cov), np.column_stack([rest, candidates]))
    return white[:, : rest.shape[1]], white[:, rest.shape[1] :]


def _fits(rest: Array, columns: Array) -> bool:
    """Whether the columns, all together, explain ``rest`` (q, p) but for errors of 1."""
    free = len(rest) - columns.shape[1]
    if free < 2 or not columns.shape[1]:
        return False
    left = rest - columns @ np.linalg.lstsq(columns, rest)[0]
    return bool(np.square(left).sum() <= chdtri(free * rest.shape[1], CHANCE))


def _pursued(rest: Array, candidates: Array, columns: Index) -> tuple[list[int], list[int]]:
    """Columns of the candidates of which each explains ``rest`` (q, p) but for errors of 1; and
    where there are none, several that do so together, if few suffice."""
    unit = candidates / np.maximum(np.linalg.norm(candidates, axis=0), 1e-300)
    chosen: list[int] = []
    left = rest
    while len(chosen) < min(MOST, columns.size):
        limit = chdtri((len(rest) - len(chosen) - 1) * rest.shape[1], CHANCE)
        along = np.square(left.T @ unit).sum(0)
        if not chosen:
            one = np.flatnonzero(np.square(left).sum() - along <= limit)
            if len(one):
                return columns[one].tolist(), []
        chosen.append(int(np.argmax(along)))
        left = rest - unit[:, chosen] @ np.linalg.lstsq(unit[:, chosen], rest)[0]
        if np.square(left).sum() <= limit:
            return [], columns[chosen].tolist()
    return [], []
