"""Colours of the columns of a symmetric matrix: each entry is told by one of its two places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gradiator_np._typing import Mask
from gradiator_np.kernels import star as kernels
from gradiator_np.sparsity._coloring import Colors, color
from gradiator_np.sparsity._pattern import INDEX, SparsityPattern


class StarConflict(NamedTuple):
    """An entry (row, column) that no product tells alone.

    Attributes
    ----------
    row, column : int
    beside_column : int
        Another column of the colour of ``column`` in that row.
    beside_row : int
        Another column of the colour of ``row`` in the row of ``column``.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import numpy as np
    >>> from gradiator_np.sparsity import banded_pattern, color_symmetric
    >>> coloring = color_symmetric(banded_pattern(4, lower=1, upper=1))
    >>> replace(coloring, colors=np.array([0, 1, 0, 1], np.int32)).conflict
    StarConflict(row=1, column=2, beside_column=0, beside_row=3)
    """

    row: int
    column: int
    beside_column: int
    beside_row: int


@dataclass(frozen=True, eq=False, repr=False)
class StarColoring:
    """Which columns of a symmetric matrix are moved together.

    Attributes
    ----------
    pattern : SparsityPattern
        With its diagonal.
    colors : array of int32, shape (m,)
    n_colors : int
        Products H u that the matrix takes.
    order : str
        The order that found it.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np.sparsity import color, color_symmetric
    >>> arrow = np.eye(50)
    >>> arrow[0] = arrow[:, 0] = np.arange(1.0, 51)
    >>> coloring = color_symmetric(arrow != 0)
    >>> coloring.n_colors, color(arrow != 0).n_colors
    (2, 50)
    >>> products = arrow @ coloring.seeds.T
    >>> bool((coloring.decompress(products.T).toarray() == arrow).all())
    True
    """

    pattern: SparsityPattern
    colors: Colors
    n_colors: int
    order: str

    @property
    def seeds(self) -> NDArray[np.float64]:
        """The sum of the unit vectors of each colour, shape (n_colors, m)."""
        return np.asarray(self.colors == np.arange(self.n_colors)[:, None], float)

    @cached_property
    def alone(self) -> Mask:
        """Entries that are the only ones of their row in the colour of their column."""
        pattern, out = self.pattern, np.empty(self.pattern.nnz, bool)
        seen = np.full((int(self.colors.max(initial=0)) + 1, 2), -1, INDEX)
        kernels.places(pattern.indptr, pattern.indices, self.colors, seen, out)
        return out

    @cached_property
    def _rows(self) -> NDArray[np.intp]:
        return np.repeat(np.arange(self.pattern.shape[0]), self.pattern.row_counts)

    @cached_property
    def turned(self) -> NDArray[np.intp]:
        """Where the entry (j, i) of each entry (i, j) is."""
        return np.lexsort((self._rows, self.pattern.indices))

    @cached_property
    def conflict(self) -> StarConflict | None:
        """The first entry that cannot be told, None where there is none (and that of
        ``color_symmetric`` has none)."""
        lost = np.flatnonzero(~(self.alone | self.alone[self.turned]))
        if not len(lost):
            return None
        i, j = int(self._rows[lost[0]]), int(self.pattern.indices[lost[0]])
        return StarConflict(i, j, self._beside(i, j), self._beside(j, i))

    def _beside(self, row: int, column: int) -> int:
        pattern = self.pattern
        own = pattern.indices[pattern.indptr[row] : pattern.indptr[row + 1]]
        same = own[(self.colors[own] == self.colors[column]) & (own != column)]
        return int(same[0])

    def decompress(self, products: Any) -> sparse.csr_array:
        """The matrix from its products with the sums of columns of each colour.

        Parameters
        ----------
        products : array_like, shape (n_colors, m)
            H u for each of ``seeds``. Variances come back the same way.

        Returns
        -------
        scipy.sparse.csr_array, shape (m, m)
            Symmetric, with the entries of ``pattern``, zeros too.
        """
        a, m = np.asarray(products), self.pattern.shape[0]
        if a.dtype.kind not in "iufc" or a.shape != (self.n_colors, m):
            raise ValueError(
                f"products have shape {a.shape} and dtype {a.dtype}; this colouring needs numbers "
                f"of shape {(self.n_colors, m)}, one row for each colour"
            )
        rows, columns = self._rows, self.pattern.indices
        data = np.where(self.alone, a[self.colors[columns], rows], a[self.colors[rows], columns])
        both = self.alone & self.alone[self.turned]  # of two that tell, that of the lower half
        data = np.where(both & (rows < columns), data[self.turned], data)
        return self.pattern.to_csr(data)

    def __repr__(self) -> str:
        m, n = self.pattern.shape
        return (
            f"StarColoring({m} x {n}, {self.pattern.nnz} entries: {self.n_colors} colours, by "
            f"{self.order})"
        )


def color_symmetric(pattern: Any, *, shape: tuple[int, int] | None = None) -> StarColoring:
    """Group the columns of a symmetric matrix so that few products H u tell every entry.

    An entry (i, j) is read where it stands alone: in row i, or in row j. That takes fewer products
    than colours of columns do, which have every entry stand alone twice.

    Parameters
    ----------
    pattern : sparse array or matrix, array_like, tuple or SparsityPattern
        As in ``SparsityPattern.of``; symmetric. The diagonal counts as part of it.
    shape : tuple of int, optional
        (m, m), where ``pattern`` is a pair of index arrays.

    Returns
    -------
    StarColoring
        That with the fewest colours of three: by columns as ``color`` does, in natural order, and
        in that of falling numbers of entries.

    Raises
    ------
    ValueError
        For a pattern that is not symmetric.

    References
    ----------
    A. H. Gebremedhin, F. Manne and A. Pothen, What color is your Jacobian? Graph coloring for
    computing derivatives, SIAM Review 47 (2005) 629-705, section 4.

    Examples
    --------
    >>> from gradiator_np.sparsity import color, color_symmetric, grid_pattern
    >>> color_symmetric(grid_pattern((30, 30), 9)), color(grid_pattern((30, 30), 9)).n_colors
    (StarColoring(900 x 900, 7744 entries: 9 colours, by columns), 9)
    """
    given = SparsityPattern.of(pattern, shape)
    n, m = given.shape
    if n != m:
        raise ValueError(f"a symmetric pattern is square, but this has shape {given.shape}")
    lone = given.asymmetry()
    if lone is not None:
        raise ValueError(
            f"the pattern is not symmetric: it has {lone}, but not {lone[::-1]}; give both, as "
            "pattern + pattern.T does"
        )
    read = given.with_diagonal()
    orders = {
        "natural": np.arange(m, dtype=INDEX),
        "largest first": np.argsort(-read.row_counts, kind="stable").astype(INDEX),
    }
    columns = color(read)  # is one of this kind as well
    found = [StarColoring(read, columns.column_colors, columns.n_colors, "columns")]
    for name, order in orders.items():
        colors, stamp = np.full(m, -1, INDEX), np.full(m + 1, -1, INDEX)
        used = kernels.first_fit(read.indptr, read.indices, order, colors, stamp)
        found.append(StarColoring(read, colors, int(used), name))
    return min(found, key=lambda each: each.n_colors)
