"""What results print, with the digits that hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np._structure import NAMED
from gradiator_np._typing import Array

#: Entries that are listed one by one; larger results are told in an overview.
MOST_ROWS = 20
#: Rows and columns that an overview shows at each end.
EDGE = 3
#: Digits of a value whose error nothing tells, or which has none.
DIGITS = 12


def number(value: Any, stderr: float) -> str:
    """A value rounded at the second digit of its standard error.

    Examples
    --------
    >>> from gradiator_np._text import number
    >>> number(1.23456789, 0.0123), number(-1.2e-7, 3e-10), number(0.5, float("nan"))
    ('1.235', '-1.2000e-07', '0.5')
    """
    if np.iscomplexobj(value):
        real, imaginary = number(value.real, stderr), number(value.imag, stderr)
        return f"{real}{'' if imaginary.startswith('-') else '+'}{imaginary}j"
    value, stderr = float(value), float(stderr)
    if not (math.isfinite(value) and math.isfinite(stderr) and stderr > 0):
        return f"{value:.{DIGITS}g}"
    place = 1 - math.floor(math.log10(stderr))
    value = round(value, place)
    if value == 0:
        return "0"
    leading = math.floor(math.log10(max(abs(value), stderr)))
    if -5 <= leading < DIGITS:
        return f"{value:.{min(max(place, 0), DIGITS - 1 - min(leading, DIGITS - 1))}f}"
    return f"{value:.{min(max(leading + place, 1), DIGITS - 1)}e}"


def error(stderr: float) -> str:
    """A standard error with two digits."""
    return f"{stderr:#.2g}".rstrip(".")


def extent(shape: Sequence[int]) -> str:
    """The size of a Jacobian (..., n, m)."""
    *batch, n, m = shape
    return f"{n} outputs x {m} inputs{f', batch {(*batch,)}' if batch else ''}"


def between(values: NDArray[Any], spec: str = ".3g") -> str:
    """The least and the largest of some values; the one that all of them are."""
    ends = (f"{end:{spec}}" for end in (np.min(values), np.max(values)))
    return " to ".join(dict.fromkeys(ends))


def largest(stderr: Array) -> str:
    """The largest standard error that is known, and how many are not."""
    known = stderr[np.isfinite(stderr)]
    parts = [f"largest stderr {error(known.max())}"] if known.size else []
    for unknown, what in ((np.isinf(stderr), "undetermined"), (np.isnan(stderr), "unknown")):
        if unknown.any():
            parts.append(f"stderr of {unknown.sum()} of {stderr.size} entries {what}")
    return ", ".join(parts)


class Words(NamedTuple):
    """How a result speaks of its entries.

    Attributes
    ----------
    columns : tuple of str
        Heads of a table: those of the names, of the value and of its standard error.
    label : callable
        The names of one entry, by its index.
    norm : str
        The name of the size of all.
    where : str
        Where to find all.
    """

    columns: tuple[str, ...]
    label: Callable[[tuple[int, ...]], tuple[str, ...]]
    norm: str
    where: str


def entry_lines(
    value: NDArray[Any], stderr: Array, words: Words, most: int = MOST_ROWS
) -> list[str]:
    """A line for each entry under a head; an overview of more than ``most``."""
    if value.size > most:
        return _overview(value, stderr, words)
    return _table(value, stderr, words, np.ndindex(*value.shape))


def _table(
    value: NDArray[Any], stderr: Array, words: Words, which: Iterable[tuple[int, ...]]
) -> list[str]:
    rows = [(*words.label(i), number(value[i], stderr[i]), error(stderr[i])) for i in which]
    return aligned([words.columns, *rows])


def _overview(value: NDArray[Any], stderr: Array, words: Words) -> list[str]:
    """Size, errors, least certain entries and corners of what is too large to be listed."""
    axes = len(words.columns) - 2  # of one result: those before are a batch
    each = np.linalg.norm(value.reshape(-1, math.prod(value.shape[-axes:])), axis=1)
    of = f" in each of {each.size}" if value.ndim > axes else ""
    size = f"{words.norm} = {between(each, '.6g')}{of}"
    lines = [f"{size}, largest entry {np.abs(value).max():.6g}"]
    known = stderr[np.isfinite(stderr)]
    if known.size:
        lines[0] += f"; stderr: median {error(np.median(known))}, largest {error(known.max())}"
    for lost, what in (
        (np.isinf(stderr), "undetermined (stderr inf)"),
        (np.isnan(stderr), "of unknown error (stderr nan)"),
    ):
        if lost.any():
            lines.append(f"{lost.sum()} of {stderr.size} entries are {what}")
    if np.nanmax(stderr, initial=0.0) > 0:
        order = np.argsort(-stderr, axis=None, kind="stable")[:NAMED]
        worst = [tuple(map(int, np.unravel_index(k, stderr.shape))) for k in order]
        lines += ["least certain:", *_table(value, stderr, words, worst)]
    if value.ndim == axes == 2:
        lines += ["corners:", *_corners(value, stderr, words)]
    return [*lines, f"all entries: {words.where}"]


def listing(result: Any, columns: Mapping[str, Sequence[str]], where: str) -> str:
    """A result that took runs, as a table of its first entries; ``where`` the others are."""
    rows = list(zip(*columns.values()))
    more = [f"... {len(rows) - MOST_ROWS} more: {where}"] if len(rows) > MOST_ROWS else []
    head = f"{type(result).__name__} ({result.nfev} evaluations)"
    table = aligned([tuple(columns), *rows[:MOST_ROWS]])
    return "\n".join([head, *table, *more, verdict(result)])


def written(value: Any, spec: str = "") -> list[str]:
    """All entries of an array, a scalar or a dict of them, each in one format."""
    return [f"{entry:{spec}}" for entry in leaves(value)]


def verdict(result: Any) -> str:
    """How far a result can be trusted, in one line."""
    return f"status: {result.status}" + (f". {result.message}" if result.message else "")


def leaves(value: Any) -> NDArray[Any]:
    """All numbers (or words) of an array, a scalar or a nested dict of them, as one vector."""
    if isinstance(value, Mapping):
        return np.concatenate([leaves(item) for item in value.values()])
    return np.ravel(value)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, the cells of each column right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in rows]


def _corners(value: NDArray[Any], stderr: Array, words: Words) -> list[str]:
    """The first and last rows and columns, with their names."""
    ends = [
        [*range(size)] if size <= 2 * EDGE else [*range(EDGE), None, *range(size - EDGE, size)]
        for size in value.shape
    ]

    def cell(i: int | None, j: int | None) -> str:
        return "..." if i is None or j is None else number(value[i, j], stderr[i, j])

    def name(axis: int, k: int | None) -> str:
        return "..." if k is None else words.label((0, k) if axis else (k, 0))[axis]

    head = ["", *(name(1, j) for j in ends[1])]
    return aligned([head, *([name(0, i), *(cell(i, j) for j in ends[1])] for i in ends[0])])
