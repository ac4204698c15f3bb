"""Which entries a pattern lacks, by what its J leaves of slopes along random directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def missing_entries(
    compression: Compression,
    found: JacobianEstimate,
    directions: Sequence[Array],
    rests: Sequence[Rest],
    rows: Index,
) -> tuple[Index, Index]:
    """Rows and columns of entries that account for what J u leaves of the slopes along each u.

    Orthogonal matching pursuit (Mallat and Zhang, IEEE Trans. Signal Process. 41 (1993) 3397) by
    generalised least squares: a missing entry k adds a u_k to the slope of its output, and, where
    the output has an entry j of its colour, a u_j to J u, for the same a. Left out are rows that
    nothing of that kind explains, that errors of J and of the slopes explain as well, or that one
    entry explains as well as another.
    """
    u = np.stack(directions) * compression.seeds  # (q, m)
    rows = rows[: min(ROWS, 1 + int(WORK / u.size))]
    value = np.stack([rest.value[rows] for rest in rests])
    own = np.stack([
        (np.hypot(rest.noise, rest.limits / 3) + FAINT * rest.terms)[rows] for rest in rests
    ])  # limits are three standard deviations  # fmt: skip
    errors = found.solution.cov.stderr()
    errors = np.broadcast_to(errors, found.solution.coef.shape)[rows]
    tangents = np.stack([compression.tangents(each)[rows] for each in u], 1)  # (r, q, c)
    sure = chdtri(len(u), FALSE_ALARM / len(found.solution.coef))
    out: list[tuple[int, int]] = []
    for k, i in enumerate(rows.tolist()):
        error = np.where(np.isfinite(errors[k]), errors[k], np.abs(value[:, k]).max())
        shared = tangents[k] * error
        cov = shared @ shared.T + np.diag(np.square(own[:, k]))
        rest = _parts(value[:, k])
        size = np.square(rest).sum()
        if not (np.isfinite(size) and np.sum(rest * np.linalg.solve(cov, rest)) > sure):
            continue
        cov += np.eye(len(u)) * (LEFT * LEFT * size / chdtri(len(u) - 1, CHANCE))
        half = np.linalg.cholesky(cov)
        candidates, columns = _candidates(compression, u, i)
        white = np.linalg.solve(half, np.column_stack([rest, candidates]))
        rest, candidates = np.split(white, [rest.shape[1]], axis=1)
        out += [(i, j) for j in _pursued(rest, candidates, columns)]
    pairs = np.array(out, np.intp).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


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


def _pursued(rest: Array, candidates: Array, columns: Index) -> list[int]:
    """Columns of the candidates that explain ``rest`` (q, p) but for errors of 1; none where few do
    not, or where one is as good as another."""
    unit = candidates / np.maximum(np.linalg.norm(candidates, axis=0), 1e-300)
    chosen: list[int] = []
    left = rest
    while len(chosen) < min(MOST, columns.size):
        limit = chdtri((len(rest) - len(chosen) - 1) * rest.shape[1], CHANCE)
        along = np.square(left.T @ unit).sum(0)
        alike = np.count_nonzero(np.square(left).sum() - along <= limit)
        chosen.append(int(np.argmax(along)))
        fit = np.linalg.lstsq(unit[:, chosen], rest)[0]
        left = rest - unit[:, chosen] @ fit
        if np.square(left).sum() <= limit:
            return [int(columns[k]) for k in chosen] if alike <= 1 else []
    return []
