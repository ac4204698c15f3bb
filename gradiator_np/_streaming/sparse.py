"""The state of a stream whose outputs read few inputs each: a small state for each set of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, ClassVar, NamedTuple

import numpy as np

from gradiator_np._covariance import Covariance
from gradiator_np._status import Status
from gradiator_np._streaming.least_squares import LeastSquaresState
from gradiator_np._streaming.trail import Trail, follow
from gradiator_np._typing import Array, Index
from gradiator_np.solvers._recursive.square_root import BLOCK
from gradiator_np.solvers._solution import Solution
from gradiator_np.sparsity import SparsityPattern


class Group(NamedTuple):
    """Outputs that read the same inputs.

    Attributes
    ----------
    rows, columns : array of int
    state : LeastSquaresState
    """

    rows: Index
    columns: Index
    state: LeastSquaresState


class SparseState:
    """Recursive least squares of each output on the inputs that it reads.

    An output of s inputs is determined by s samples, however many inputs there are.

    Parameters
    ----------
    pattern : SparsityPattern
    forgetting, prior_scale, jac0, noise
        As ``LeastSquaresState`` takes them, of all inputs and outputs.
    """

    needs_motion: ClassVar[bool] = False

    def __init__(
        self,
        pattern: SparsityPattern,
        *,
        forgetting: float,
        prior_scale: Array | None,
        jac0: Array | None,
        noise: Array | None,
    ) -> None:
        self._shape, self._noise = pattern.shape, noise
        self._groups = [
            Group(
                rows,
                columns,
                LeastSquaresState(
                    len(columns),
                    len(rows),
                    forgetting=forgetting,
                    prior_scale=None if prior_scale is None else prior_scale[columns],
                    jac0=None if jac0 is None else jac0[np.ix_(rows, columns)],
                    noise=None if noise is None else noise[rows],
                ),
            )
            for rows, columns in _alike(pattern)
        ]
        n, m = pattern.shape
        self._dx, self._df, self._held = np.empty((BLOCK, m)), np.empty((BLOCK, n)), 0

    def add(self, dx: Array, df: Array) -> None:
        dx, df = np.atleast_2d(dx), np.atleast_2d(df)
        if self._held + len(dx) > BLOCK:
            self._flush()
        if len(dx) > BLOCK:
            self._hand_over(dx, df)
            return
        stop = self._held + len(dx)
        self._dx[self._held : stop], self._df[self._held : stop] = dx, df
        self._held = stop

    def _flush(self) -> None:
        """Hand over the rows that wait."""
        if self._held:
            held, self._held = self._held, 0
            self._hand_over(self._dx[:held], self._df[:held])

    def _hand_over(self, dx: Array, df: Array) -> None:
        for rows, columns, state in self._groups:
            state.add(dx[:, columns], df[:, rows])

    def follow(self, dx: Array, df: Array, trail: Trail, move: bool) -> None:
        follow(self, dx, df, trail, move)

    def innovation(self, dx: Array, df: Array) -> Array | None:
        if self._noise is None or not self._noise.all():
            return None
        out = np.full(len(df), np.nan)
        for rows, columns, state in self._groups:
            if dx[columns].any():
                out[rows] = state.innovation(dx[columns], df[rows])
        return out

    def step(
        self, dx: Array, df: Array, weight: float, inflation: Array | None, growth: float
    ) -> None:
        self._flush()
        for rows, columns, state in self._groups:
            wider = None if inflation is None else inflation[columns]
            state.step(dx[columns], df[rows], weight, wider, growth)

    @property
    def jac(self) -> Array:
        self._flush()
        out = np.zeros(self._shape)
        for rows, columns, state in self._groups:
            out[np.ix_(rows, columns)] = state.jac
        return out

    def solution(self, n_samples: int) -> Solution:
        self._flush()
        n, m = self._shape
        found = [(group, group.state.solution(n_samples)) for group in self._groups]
        scale, dof, misfit = (np.zeros(n) for _ in range(3))
        coef, lost = np.zeros((n, m)), 0
        for (rows, columns, _), part in found:
            coef[np.ix_(rows, columns)] = part.coef
            scale[rows], dof[rows], misfit[rows] = part.cov.scale, part.dof, part.residual
            lost += (len(columns) - int(part.rank)) * len(rows)
        if self._noise is not None:
            scale = self._noise
        entries = sum(rows.size * columns.size for rows, columns, _ in self._groups)
        return Solution(
            coef=coef,
            cov=Covariance(
                scale,
                factor=self._spread([part.cov.factor for _, part in found]),
                null=self._spread([part.cov.null for _, part in found]) if lost else None,
                per_output=True,
            ),
            dof=dof,
            rank=np.asarray(min((int(part.rank) for _, part in found), default=0), np.intp),
            cond=np.asarray(max((float(part.cond) for _, part in found), default=1.0)),
            residual=misfit,
            status=Status.UNDETERMINED if lost else Status.OK,
            message=f"{lost} of {entries} entries, or combinations of them, are determined by no "
            "sample: stderr is inf there and jac keeps its prior; add samples that move along them"
            if lost
            else "",
            classical=all(part.classical for _, part in found),
        )

    def _spread(self, parts: list[Array | None]) -> Array:
        """Columns (s, r) of the inputs of each group as those of all inputs, (n, m, r)."""
        most = max((part.shape[1] for part in parts if part is not None), default=0)
        out = np.zeros((*self._shape, most))
        for (rows, columns, _), part in zip(self._groups, parts):
            if part is not None:
                out[np.ix_(rows, columns, np.arange(part.shape[1]))] = part
        return out

    def unknown(self, u: Array) -> Array:
        """The most of all outputs that the direction changes."""
        self._flush()
        out = np.zeros(u.shape[:-1])
        for _, columns, state in self._groups:
            part = u[..., columns]
            moved = part.any(-1)
            if moved.any():
                out[moved] = np.maximum(out[moved], state.unknown(part[moved]))
        return out

    def merge(self, other: SparseState) -> None:
        other._flush()
        self._flush()
        for mine, theirs in zip(self._groups, other._groups):
            mine.state.merge(theirs.state)

    def copy(self) -> SparseState:
        new = copy(self)
        new._groups = [group._replace(state=group.state.copy()) for group in self._groups]
        new._dx, new._df = self._dx.copy(), self._df.copy()
        return new

    def arrays(self) -> dict[str, Array]:
        self._flush()
        return {
            f"{k}.{name}": a
            for k, group in enumerate(self._groups)
            for name, a in group.state.arrays().items()
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        parts: dict[int, dict[str, Any]] = {k: {} for k in range(len(self._groups))}
        for key, a in arrays.items():
            number, _, name = key.partition(".")
            parts[int(number)][name] = a
        for k, group in enumerate(self._groups):
            group.state.restore(parts[k])


def _alike(pattern: SparsityPattern) -> Iterator[tuple[Index, Index]]:
    """Rows that have the same columns, and these; those without any are left out."""
    sets: dict[bytes, list[int]] = {}
    for i in range(pattern.shape[0]):
        columns = pattern.indices[pattern.indptr[i] : pattern.indptr[i + 1]]
        if len(columns):
            sets.setdefault(columns.tobytes(), []).append(i)
    for key, rows in sets.items():
        yield np.array(rows, np.intp), np.frombuffer(key, pattern.indices.dtype).astype(np.intp)
