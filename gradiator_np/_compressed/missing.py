"""Which entries a pattern lacks, by what its J leaves of slopes along random directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradiator_np._compressed.compression import Compression
from gradiator_np._compressed.pattern_check import Probe, line_of
from gradiator_np._results import JacobianEstimate
from gradiator_np._typing import Array, Index

#: Directions beside the one that told: each entry is an equation short of them, and one more tells
#: whether it is the right one.
DIRECTIONS = 6
#: What may be left, of all there was, where the missing entries are found.
LEFT = 1e-3
#: Entries that a row may lack: half of the equations.
MOST = DIRECTIONS // 2
#: Rows that are looked at, and numbers that this may take: each row is held against all columns.
ROWS, WORK = 1000, 3e8


def missing_entries(
    compression: Compression, found: JacobianEstimate, probes: Sequence[Probe], rows: Index
) -> tuple[Index, Index]:
    """Rows and columns of entries that account for what J u leaves of the slopes along each u.

    Orthogonal matching pursuit (Mallat and Zhang, IEEE Trans. Signal Process. 41 (1993) 3397): a
    missing entry k adds a u_k to the slope of its output, and, where the output has an entry j of
    its colour, a u_j to J u, for the same a. Rows that nothing of that kind explains are left out.
    """
    y = found.frame.y
    assert y is not None
    u = np.stack([probe.u * compression.seeds for probe in probes])  # (q, m)
    coef, rows = found.solution.coef, rows[: min(ROWS, 1 + int(WORK / u.size))]
    slopes = np.stack([line_of(probe, y)[0] for probe in probes])[:, rows]
    known = np.stack([(compression.tangents(each)[rows] * coef[rows]).sum(-1) for each in u])
    out: list[tuple[int, int]] = []
    for i, rest in zip(rows.tolist(), (slopes - known).T):
        out += [(i, k) for k in _pursued(rest, *_candidates(compression, u, i))]
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


def _pursued(rest: NDArray[np.floating], candidates: Array, columns: Index) -> list[int]:
    """Columns of the candidates that explain ``rest`` (q,); none where few do not."""
    size = np.linalg.norm(rest)
    unit = candidates / np.maximum(np.linalg.norm(candidates, axis=0), 1e-300)
    chosen: list[int] = []
    left = rest
    while len(chosen) < min(MOST, columns.size):
        chosen.append(int(np.argmax(np.abs(left @ unit))))
        fit = np.linalg.lstsq(unit[:, chosen], rest)[0]
        left = rest - unit[:, chosen] @ fit
        if np.linalg.norm(left) <= LEFT * size:
            return [int(columns[k]) for k in chosen]
    return []
