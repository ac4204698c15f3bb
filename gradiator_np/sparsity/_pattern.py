"""Which outputs depend on which inputs: one canonical form for all ways to say it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

#: What the kernels index by: one type, so that each is compiled once.
INDEX = np.int32
POINTER = np.int64


@dataclass(frozen=True, eq=False, repr=False)
class SparsityPattern:
    """The entries of an (n, m) Jacobian that may differ from 0, row by row.

    Attributes
    ----------
    shape : tuple of int
        (n, m): outputs, inputs.
    indptr : array of int64, shape (n + 1,)
        Row i owns ``indices[indptr[i]:indptr[i + 1]]``, as in SciPy's CSR.
    indices : array of int32, shape (nnz,)
        Columns, rising in every row, each once.

    Examples
    --------
    >>> from gradiator_np.sparsity import SparsityPattern
    >>> pattern = SparsityPattern.of(([0, 0, 1], [0, 2, 1]), shape=(2, 3))
    >>> pattern
    SparsityPattern(2 outputs x 3 inputs, 3 entries, at most 2 in a row and 1 in a column)
    >>> pattern.to_csr().toarray().astype(int)
    array([[1, 0, 1],
           [0, 1, 0]])
    """

    shape: tuple[int, int]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]

    @classmethod
    def of(cls, pattern: Any, shape: tuple[int, int] | None = None) -> SparsityPattern:
        """Read a pattern in any of the forms that say what they are.

        Parameters
        ----------
        pattern : sparse array or matrix, array_like, tuple or SparsityPattern
            A ``scipy.sparse`` array or matrix: its stored entries, explicit zeros among them (a
            diagonal format stores its padding as well, and there zeros do not count). An array of
            booleans or of 0 and 1, shape (n, m). A *tuple* ``(rows, cols)`` of two index arrays.
            A list is an array, whatever its length: two lists in a list are two rows.
        shape : tuple of int, optional
            (n, m), which the pattern must have; needed with a tuple of indices.

        Raises
        ------
        TypeError, ValueError
            For what is none of these, or has another shape. Nothing is ever reshaped or transposed.
        """
        if isinstance(pattern, cls):
            return _checked(pattern, shape)
        if sparse.issparse(pattern):
            entries: Any = pattern
            _check_shape(entries.shape, shape)
            entries = entries.tocoo()
            return cls._from_indices(entries.row, entries.col, entries.shape)
        if isinstance(pattern, tuple):
            if shape is None:
                raise ValueError("a pattern of indices (rows, cols) needs its shape=(n, m) beside")
            rows, cols = _pair(pattern, shape)
            return cls._from_indices(rows, cols, shape)
        dense = _dense(pattern)
        _check_shape(dense.shape, shape)
        rows, cols = np.nonzero(dense)
        return cls._from_indices(rows, cols, dense.shape)

    @classmethod
    def _from_indices(
        cls, rows: NDArray[Any], cols: NDArray[Any], shape: tuple[int, ...]
    ) -> SparsityPattern:
        n, m = shape
        if max(n, m) > np.iinfo(INDEX).max:
            raise ValueError(f"a pattern of shape {shape} has more than 2**31 - 1 rows or columns")
        ones = np.ones(len(rows), np.bool_)
        csr = sparse.coo_array((ones, (rows, cols)), shape=(n, m)).tocsr()
        csr.sum_duplicates()  # sorts as well; of booleans it is "or"
        return cls((n, m), csr.indptr.astype(POINTER), csr.indices.astype(INDEX))

    @property
    def nnz(self) -> int:
        """Entries."""
        return len(self.indices)

    @property
    def row_counts(self) -> NDArray[np.int64]:
        """Entries in each row, shape (n,)."""
        return np.diff(self.indptr)

    @cached_property
    def T(self) -> SparsityPattern:
        """The pattern of the transpose; its rows are the columns of this one."""
        csc = self.to_csr().tocsc()
        turned = SparsityPattern(
            self.shape[::-1], csc.indptr.astype(POINTER), csc.indices.astype(INDEX)
        )
        turned.__dict__["T"] = self
        return turned

    @property
    def column_counts(self) -> NDArray[np.int64]:
        """Entries in each column, shape (m,)."""
        return self.T.row_counts

    def to_csr(self, data: NDArray[Any] | None = None) -> sparse.csr_array:
        """The pattern as a ``scipy.sparse.csr_array`` of True, or with ``data`` (nnz,) in it."""
        data = np.ones(self.nnz, np.bool_) if data is None else data
        return sparse.csr_array((data, self.indices, self.indptr), shape=self.shape)

    def take_rows(self, rows: NDArray[Any]) -> SparsityPattern:
        """The pattern of some rows alone."""
        part = self.to_csr()[rows]
        return SparsityPattern(part.shape, part.indptr.astype(POINTER), part.indices.astype(INDEX))

    def asymmetry(self) -> tuple[int, int] | None:
        """The first entry (i, j) without its (j, i), of a square pattern; None where it is
        symmetric."""
        turned = self.T
        if np.array_equal(self.indptr, turned.indptr) and np.array_equal(
            self.indices, turned.indices
        ):
            return None
        lone = (self.to_csr().astype(np.int8) - turned.to_csr().astype(np.int8)).tocoo()
        at = int(np.flatnonzero(lone.data > 0)[0])
        return int(lone.coords[0][at]), int(lone.coords[1][at])

    def with_diagonal(self) -> SparsityPattern:
        """The pattern with all of its diagonal."""
        diagonal = np.arange(min(self.shape))
        rows = np.repeat(np.arange(self.shape[0]), self.row_counts)
        return SparsityPattern._from_indices(
            np.append(rows, diagonal), np.append(self.indices, diagonal), self.shape
        )

    def __repr__(self) -> str:
        n, m = self.shape
        row, col = (int(c.max(initial=0)) for c in (self.row_counts, self.column_counts))
        return (
            f"SparsityPattern({n} outputs x {m} inputs, {self.nnz} entries, "
            f"at most {row} in a row and {col} in a column)"
        )


def _checked(pattern: SparsityPattern, shape: tuple[int, int] | None) -> SparsityPattern:
    _check_shape(pattern.shape, shape)
    return pattern


def _check_shape(seen: tuple[int, ...], want: tuple[int, int] | None) -> None:
    """Two axes of the lengths wanted; a transposed pattern is told so, and never turned."""
    if want is not None and len(seen) == 2 and seen != want and seen[::-1] == want:
        raise ValueError(
            f"the sparsity pattern has shape {seen}, which is that of the transpose: a Jacobian "
            f"of {want[0]} outputs and {want[1]} inputs has shape {want}; give its .T"
        )
    if want is not None and seen != want:
        raise ValueError(
            f"the sparsity pattern has shape {seen}; {want[0]} outputs and {want[1]} inputs need "
            f"{want} (indices are given as a tuple (rows, cols))"
        )
    if len(seen) != 2:
        raise ValueError(f"the sparsity pattern has {len(seen)} axes; it has 2, (n, m)")


def _dense(pattern: Any) -> NDArray[Any]:
    try:
        a = np.asarray(pattern)
    except ValueError:
        a = np.asarray(None)
    if a.dtype.kind not in "biuf":
        raise TypeError(
            f"no sparsity pattern: {type(pattern).__name__} {pattern!r:.60}; give a scipy.sparse "
            "array, an array of booleans of shape (n, m), or a tuple (rows, cols) of index arrays"
        )
    if a.dtype.kind != "b" and not np.isin(a, (0, 1)).all():
        raise ValueError(
            "a dense sparsity pattern is of booleans, or of 0 and 1, and this has other numbers: "
            "of a Jacobian give J != 0, of indices a tuple (rows, cols)"
        )
    return a


def _pair(
    pattern: tuple[Any, ...], shape: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of entries, checked."""
    if len(pattern) != 2:
        raise ValueError(
            f"a tuple is a pair of index arrays (rows, cols), and this has {len(pattern)} items; "
            "give rows of a dense pattern as a list or an array"
        )
    parts = []
    for part, name, size in zip(pattern, ("rows", "cols"), shape):
        a = np.asarray(part) if not sparse.issparse(part) else np.asarray(None)
        if a.ndim != 1 or (a.size and a.dtype.kind not in "iu"):
            raise TypeError(
                f"the {name} of a pattern (rows, cols) are whole numbers in one axis, got "
                f"{type(part).__name__} {part!r:.60}; a dense pattern is given as an array, and "
                "groups of columns are found by the library"
            )
        if a.size and not (a.min() >= 0 and a.max() < size):
            raise ValueError(f"{name} lie within 0 ... {size - 1}, got {a.min()} ... {a.max()}")
        parts.append(a.astype(np.intp))
    if len(parts[0]) != len(parts[1]):
        raise ValueError(f"{len(parts[0])} rows and {len(parts[1])} cols; give one of each")
    return parts[0], parts[1]
