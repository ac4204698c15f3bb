"""Groups of columns (or rows) whose sums tell every entry: few evaluations in place of m."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gradiator_np._typing import Mask
from gradiator_np.kernels import coloring as kernels
from gradiator_np.sparsity._pattern import INDEX, SparsityPattern

Order = Literal[
    "auto", "natural", "largest_first", "smallest_last", "incidence_degree", "saturation"
]
By = Literal["columns", "rows", "both"]
Colors = NDArray[np.int32]

#: Words of 64 colours that `saturation` may take in "auto", for all columns: 256 MiB.
WORDS = 2**25
#: Below so many steps of work all orders are tried in "auto", at milliseconds each.
CHEAP = 3_000_000
#: Random orders that are tried then.
SHUFFLES = 8


class Conflict(NamedTuple):
    """Two columns of one colour that share a row: their entries there cannot be told apart.

    With ``by="rows"`` the names change places: ``row`` is a column, ``columns`` are two rows.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from gradiator_np.sparsity import banded_pattern, color
    >>> coloring = color(banded_pattern(6, lower=0, upper=1))
    >>> replace(coloring, column_colors=coloring.column_colors * 0).conflict
    Conflict(row=0, columns=(0, 1))
    """

    row: int
    columns: tuple[int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Coloring:
    """Which columns are moved together, and which rows are weighted together.

    Attributes
    ----------
    pattern : SparsityPattern
    column_colors : array of int32, shape (m,)
        The colour of each column: columns of one colour share no row (of those that are not found
        by rows). All 0 where there are no column colours.
    row_colors : array of int32, shape (n,)
        The colour of each row, -1 where its entries are found by columns.
    n_column_colors, n_row_colors : int
        Products J u, and v^T J, that the Jacobian takes.
    order : str
        The order that found it.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np.sparsity import banded_pattern, color
    >>> coloring = color(banded_pattern(6, lower=1, upper=1))
    >>> coloring
    Coloring(6 outputs x 6 inputs, 16 entries: 3 column colours, no less than 3 possible)
    >>> jac = coloring.pattern.to_csr(np.arange(1.0, 17.0))
    >>> products = jac @ coloring.column_seeds.T  # three products in place of six columns
    >>> bool((coloring.decompress(products.T) != jac).nnz == 0)
    True
    """

    pattern: SparsityPattern
    column_colors: Colors
    row_colors: Colors
    n_column_colors: int
    n_row_colors: int
    order: str

    @property
    def n_colors(self) -> int:
        """Products in all."""
        return self.n_column_colors + self.n_row_colors

    @property
    def lower_bound(self) -> int:
        """No colouring of this kind has fewer colours: the entries of the densest row.

        Of rows: of the densest column. Of both: of the rows that are found by columns, and 1 where
        some are found by rows; another choice of rows might do with less.
        """
        by_row = self.row_colors >= 0
        if by_row.all() and self.n_column_colors == 0:
            return int(self.pattern.column_counts.max(initial=0))
        return int(self.pattern.row_counts[~by_row].max(initial=0)) + bool(by_row.any())

    @property
    def column_seeds(self) -> NDArray[np.float64]:
        """The sum of the unit vectors of each colour, shape (n_column_colors, m)."""
        return _seeds(self.column_colors, self.n_column_colors)

    @property
    def row_seeds(self) -> NDArray[np.float64]:
        """The sum of the unit vectors of each colour, shape (n_row_colors, n)."""
        return _seeds(self.row_colors, self.n_row_colors)

    @cached_property
    def conflict(self) -> Conflict | None:
        """The first conflict, None where there is none (and that of ``color`` has none)."""
        by_column = self.row_colors < 0
        found = _conflict(self.pattern, self.column_colors, by_column)
        if found is None and not by_column.all():
            by_row = ~by_column
            part = self.pattern.take_rows(np.flatnonzero(by_row)).T
            found = _conflict(part, self.row_colors[by_row], np.ones(part.shape[0], bool))
            if found is not None:
                rows = np.flatnonzero(by_row)[list(found.columns)]
                found = Conflict(found.row, (int(rows[0]), int(rows[1])))
        return found

    def decompress(
        self, by_column: Any = None, by_row: Any = None, *, steps: Any = None
    ) -> sparse.csr_array:
        """The Jacobian from its products with sums of columns and of rows.

        Variances come back the same way, since every entry is one number of one product.

        Parameters
        ----------
        by_column : array_like, shape (n_column_colors, n), optional
            J u for each colour of columns; differences of values, with ``steps``.
        by_row : array_like, shape (n_row_colors, m), optional
            v^T J for each colour of rows.
        steps : array_like, shape (m,), optional
            Column j of what ``by_column`` found is divided by ``steps[j]`` (of variances, give
            their squares).

        Returns
        -------
        scipy.sparse.csr_array, shape (n, m)
            With the entries of ``pattern``, zeros too.
        """
        n, m = self.pattern.shape
        left = _products(by_column, "by_column", (self.n_column_colors, n))
        right = _products(by_row, "by_row", (self.n_row_colors, m))
        dtype = np.result_type(left, right)
        data = np.empty(self.pattern.nnz, dtype)
        kernels.decompress(
            self.pattern.indptr, self.pattern.indices, self.column_colors, self.row_colors,
            left.astype(dtype, copy=False), right.astype(dtype, copy=False), data,
        )  # fmt: skip
        if steps is not None:
            steps = np.asarray(steps, float)
            if steps.shape != (m,):
                raise ValueError(f"steps have shape {steps.shape}; one for each column, ({m},)")
            by_rows = np.repeat(self.row_colors >= 0, self.pattern.row_counts)
            data /= np.where(by_rows, 1.0, steps[self.pattern.indices])
        return self.pattern.to_csr(data)

    def __repr__(self) -> str:
        kinds = (("column", self.n_column_colors), ("row", self.n_row_colors))
        parts = [f"{k} {kind} colours" for kind, k in kinds if k] or ["no colours"]
        n, m = self.pattern.shape
        return (
            f"Coloring({n} outputs x {m} inputs, {self.pattern.nnz} entries: "
            f"{' and '.join(parts)}, no less than {self.lower_bound} possible)"
        )


def color(
    pattern: Any,
    *,
    order: Order = "auto",
    by: By = "columns",
    shape: tuple[int, int] | None = None,
) -> Coloring:
    """Group the columns (or rows) of a sparse Jacobian so that few products tell every entry.

    Parameters
    ----------
    pattern : sparse array or matrix, array_like, tuple or SparsityPattern
        As in ``SparsityPattern.of``.
    order : str
        In which order colours are given, each the least that is free: "natural", "largest_first",
        "smallest_last", "incidence_degree", or by "saturation" (DSATUR: the column that sees most
        colours is next). "auto" takes what saturation finds; where that is above the lower bound,
        the natural order too, and in small patterns all of them.
    by : str
        "columns": products J u, as differences and forward mode give them. "rows": v^T J, as
        reverse mode gives them. "both": dense rows by v^T J and the others by J u, or columns or
        rows alone where that is no more.
    shape : tuple of int, optional
        (n, m), where ``pattern`` is a pair of index arrays.

    Returns
    -------
    Coloring

    Notes
    -----
    A row of k entries needs k colours, so a single dense row makes colours of columns useless, and
    ``by="both"`` worth its products v^T J.

    References
    ----------
    A. H. Gebremedhin, F. Manne and A. Pothen, What color is your Jacobian? Graph coloring for
    computing derivatives, SIAM Review 47 (2005) 629-705. T. F. Coleman and A. Verma, The efficient
    computation of sparse Jacobian matrices using automatic differentiation, SIAM J. Sci. Comput.
    19 (1998) 1210-1233.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np.sparsity import color
    >>> arrow = np.eye(50, dtype=bool)
    >>> arrow[0] = arrow[:, 0] = True
    >>> color(arrow).n_colors, color(arrow, by="both").n_colors
    (50, 3)
    """
    if order not in get_args(Order):
        raise ValueError(f"order={order!r}; it is one of {', '.join(get_args(Order))}")
    if by not in get_args(By):
        raise ValueError(f"by={by!r}; it is one of {', '.join(get_args(By))}")
    read = SparsityPattern.of(pattern, shape)
    if by == "columns":
        return _by_columns(read, order)
    if by == "rows":
        return _by_rows(read, order)
    return min(
        (_by_columns(read, order), _by_rows(read, order), *_by_both(read, order)),
        key=lambda found: found.n_colors,
    )


def _by_columns(pattern: SparsityPattern, order: Order) -> Coloring:
    n, _ = pattern.shape
    colors, used, found_by = _colored(pattern, order)
    return Coloring(pattern, colors, np.full(n, -1, INDEX), used, 0, found_by)


def _by_rows(pattern: SparsityPattern, order: Order) -> Coloring:
    _, m = pattern.shape
    colors, used, found_by = _colored(pattern.T, order)
    return Coloring(pattern, np.zeros(m, INDEX), colors, 0, used, found_by)


def _by_both(pattern: SparsityPattern, order: Order) -> list[Coloring]:
    """The densest rows by products from the left, as many as promise the least in all."""
    counts = pattern.row_counts
    rising = np.argsort(-counts, kind="stable")
    # k rows take at most k colours, the others at least as many as the densest of them has.
    hope = np.arange(len(counts) + 1) + np.append(counts[rising], 0)
    k = int(np.argmin(hope))
    if k in (0, len(counts)):
        return []
    dense = np.sort(rising[:k])
    rest = np.sort(rising[k:])
    row_part, used_rows, _ = _colored(pattern.take_rows(dense).T, order)
    column_colors, used_columns, name = _colored(pattern.take_rows(rest), order)
    row_colors = np.full(len(counts), -1, INDEX)
    row_colors[dense] = row_part
    return [Coloring(pattern, column_colors, row_colors, used_columns, used_rows, name)]


# -- orders ----------------------------------------------------------------------------------


def _colored(pattern: SparsityPattern, order: Order) -> tuple[Colors, int, str]:
    """Colours of columns, their number, and the order that found them."""
    if order != "auto":
        return *_ORDERS[order](pattern), order
    bound = int(pattern.row_counts.max(initial=0))
    work = int((pattern.row_counts**2).sum())
    # Rows of thousands of entries: the colours that columns see, as bits, do not fit into memory.
    fits = pattern.shape[1] * (bound // 32 + 1) <= WORDS
    names = ["saturation" if fits else "largest_first", "natural"]
    if work <= CHEAP:
        names += [name for name in _ORDERS if name not in names]
    best: tuple[Colors, int, str] | None = None
    for name in names:
        colors, used = _ORDERS[name](pattern)
        if best is None or used < best[1]:
            best = colors, used, name
        if best[1] <= bound:
            break
    assert best is not None
    for seed in range(SHUFFLES if work <= CHEAP else 0):
        if best[1] <= bound:
            break
        colors, used = _shuffled(pattern, seed)
        if used < best[1]:
            best = colors, used, "random"
    return best


def _arrays(
    pattern: SparsityPattern,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    turned = pattern.T
    return pattern.indptr, pattern.indices, turned.indptr, turned.indices


def _in_order(pattern: SparsityPattern, order: NDArray[Any]) -> tuple[Colors, int]:
    m = pattern.shape[1]
    colors, stamp = np.full(m, -1, INDEX), np.full(m + 1, -1, INDEX)
    return colors, int(kernels.first_fit(*_arrays(pattern), order, colors, stamp))


def _degrees(pattern: SparsityPattern) -> Colors:
    m = pattern.shape[1]
    degree = np.zeros(m, INDEX)
    kernels.neighbours(*_arrays(pattern), degree, np.full(m, -1, INDEX))
    return degree


def _natural(pattern: SparsityPattern) -> tuple[Colors, int]:
    return _in_order(pattern, np.arange(pattern.shape[1], dtype=INDEX))


def _shuffled(pattern: SparsityPattern, seed: int) -> tuple[Colors, int]:
    """In a random order; with 0 in that of SciPy's ``group_columns``, so as never to need more."""
    order = np.random.RandomState(seed).permutation(pattern.shape[1])
    return _in_order(pattern, order.astype(INDEX))


def _largest_first(pattern: SparsityPattern) -> tuple[Colors, int]:
    order = np.argsort(-_degrees(pattern), kind="stable").astype(INDEX)
    return _in_order(pattern, order)


def _dynamic(pattern: SparsityPattern, change: int) -> NDArray[Any]:
    m = pattern.shape[1]
    degree = _degrees(pattern)
    key = degree if change < 0 else np.zeros(m, INDEX)
    order = np.empty(m, INDEX)
    kernels.dynamic_order(
        *_arrays(pattern), key, change, np.full(int(degree.max(initial=0)) + 2, -1, INDEX),
        np.empty((m, 2), INDEX), np.full(m, -1, INDEX), order,
    )  # fmt: skip
    return order


def _smallest_last(pattern: SparsityPattern) -> tuple[Colors, int]:
    return _in_order(pattern, _dynamic(pattern, -1)[::-1].copy())


def _incidence_degree(pattern: SparsityPattern) -> tuple[Colors, int]:
    return _in_order(pattern, _dynamic(pattern, 1))


def _saturation(pattern: SparsityPattern) -> tuple[Colors, int]:
    m = pattern.shape[1]
    words = max(1, -(-int(pattern.row_counts.max(initial=0)) // 64))
    start = np.argsort(-pattern.column_counts, kind="stable").astype(INDEX)
    while True:
        colors = np.full(m, -1, INDEX)
        used = kernels.saturation(
            *_arrays(pattern), start, colors, np.zeros((m, words), np.uint64), np.zeros(m, INDEX),
            np.full(64 * words + 1, -1, INDEX), np.empty((m, 2), INDEX),
        )  # fmt: skip
        if used or not m:
            return colors, int(used)
        words *= 2


_ORDERS: dict[str, Callable[[SparsityPattern], tuple[Colors, int]]] = {
    "natural": _natural,
    "largest_first": _largest_first,
    "smallest_last": _smallest_last,
    "incidence_degree": _incidence_degree,
    "saturation": _saturation,
}


# -- arrays ----------------------------------------------------------------------------------


def _seeds(colors: Colors, k: int) -> NDArray[np.float64]:
    return np.asarray(colors == np.arange(k)[:, None], float)


def _conflict(pattern: SparsityPattern, colors: Colors, rows: Mask) -> Conflict | None:
    """The first of some rows in which two columns have one colour."""
    which = np.flatnonzero(rows)
    part = pattern if rows.all() else pattern.take_rows(which)
    stamp = np.full(int(colors.max(initial=0)) + 1, -1, INDEX)
    at = int(kernels.first_conflict(part.indptr, part.indices, colors, stamp))
    if at < 0:
        return None
    columns = part.indices[part.indptr[at] : part.indptr[at + 1]]
    seen: dict[int, int] = {}
    for j in columns.tolist():
        if colors[j] in seen:
            return Conflict(int(which[at]), (seen[colors[j]], j))
        seen[colors[j]] = j
    raise AssertionError("the kernel saw a conflict that is none")


def _products(value: Any, what: str, shape: tuple[int, int]) -> NDArray[Any]:
    """Products as a C-contiguous array of float64 or complex128 of this shape."""
    if value is None and shape[0] == 0:
        return np.zeros(shape)
    a = np.asarray(value)
    if a.dtype.kind not in "iufc" or a.shape != shape:
        raise ValueError(
            f"{what} has shape {a.shape} and dtype {a.dtype}; this colouring needs numbers of "
            f"shape {shape}, one row for each colour"
        )
    return np.ascontiguousarray(a, np.complex128 if a.dtype.kind == "c" else np.float64)
