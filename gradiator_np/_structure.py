"""Dicts, shapes and scalars to flat vectors and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Entries that an overview or a message names.
NAMED = 5


def enumerated(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


class Layout:
    """How a user's value (array, scalar or dict of them) lies in a flat vector.

    Leading batch axes stay in front: a value of shape ``batch + shape`` is a flat array of shape
    ``batch + (size,)``.

    Attributes
    ----------
    shape : tuple of int or None
        Shape of one value; None for a dict.
    batch : tuple of int
        Leading axes that are independent points.
    size : int
        Numbers in one value.
    fields : dict of str to (Layout, slice), or None
        Where each entry of a dict lies.

    Examples
    --------
    >>> from gradiator_np import Layout
    >>> layout = Layout.of({"a": 1.0, "b": [2.0, 3.0]})
    >>> layout.size, layout.names
    (3, ['.a', '.b[0]', '.b[1]'])
    """

    __slots__ = ("batch", "fields", "plain", "shape", "size")

    def __init__(
        self,
        shape: tuple[int, ...] | None,
        batch: tuple[int, ...] = (),
        fields: dict[str, tuple[Layout, slice]] | None = None,
    ) -> None:
        self.shape = shape
        self.batch = batch
        self.fields = fields
        if fields is None:
            assert shape is not None
            self.size = math.prod(shape)
        else:
            self.size = sum(inner.size for inner, _ in fields.values())
        # A 1-D array is its own flat vector: nothing to reshape on the fast path.
        self.plain = fields is None and not batch and shape is not None and len(shape) == 1

    def __repr__(self) -> str:
        return f"Layout({self.shapes})"

    @classmethod
    def of(cls, value: Any, batch_dims: int = 0) -> Layout:
        """The layout of ``value``, whose first ``batch_dims`` axes are batch axes."""
        if type(value) is not np.ndarray and isinstance(value, Mapping):
            fields: dict[str, tuple[Layout, slice]] = {}
            start, batch = 0, None
            for name, item in value.items():
                inner = cls.of(item, batch_dims)
                if batch is not None and inner.batch != batch:
                    raise ValueError(
                        f"batch axes differ between entries of the dict: {name!r} has "
                        f"{inner.batch}, an earlier one {batch}; make them equal"
                    )
                batch = inner.batch
                fields[name] = (inner, slice(start, start + inner.size))
                start += inner.size
            return cls(None, batch or (), fields)
        shape = value.shape if type(value) is np.ndarray else np.shape(value)
        if not batch_dims:
            return cls(shape)
        if len(shape) < batch_dims:
            raise ValueError(
                f"batch_dims={batch_dims}, but the shape {shape} has only {len(shape)} "
                "axes; lower batch_dims or add the batch axes"
            )
        return cls(shape[batch_dims:], shape[:batch_dims])

    @property
    def single(self) -> Layout:
        """The layout of one point of a batch."""
        if self.fields is None:
            return Layout(self.shape) if self.batch else self
        return Layout(None, (), {k: (inner.single, at) for k, (inner, at) in self.fields.items()})

    @property
    def names(self) -> list[str]:
        """What to write behind the variable's name for every number: "[0, 1]", ".rate"."""
        if self.fields is not None:
            return [f".{k}{tail}" for k, (inner, _) in self.fields.items() for tail in inner.names]
        if not self.shape:
            return [""]
        return [f"[{', '.join(map(str, i))}]" for i in np.ndindex(*self.shape)]

    def listed(self, variable: str, which: Iterable[int]) -> str:
        """Names of some of the numbers of a variable: "x[0], x[3]"."""
        names = self.names
        return enumerated([f"{variable}{names[i]}" for i in which])

    @property
    def shapes(self) -> Any:
        """The shape of a value, batch axes included; for a dict, a dict of them."""
        if self.fields is None:
            return self.batch + (self.shape or ())
        return {name: inner.shapes for name, (inner, _) in self.fields.items()}

    def same(self, value: Any) -> bool:
        """Whether ``value`` has this layout."""
        if self.fields is None:
            want = self.batch + (self.shape or ())
            if type(value) is np.ndarray:
                return bool(value.shape == want)
            return not isinstance(value, Mapping) and np.shape(value) == want
        return (
            isinstance(value, Mapping)
            and value.keys() == self.fields.keys()
            and all(inner.same(value[name]) for name, (inner, _) in self.fields.items())
        )

    def arrange(self, value: Any) -> Any:
        """``value`` of this layout, with the keys of dicts in this layout's order."""
        if self.fields is None:
            return value
        return {name: inner.arrange(value[name]) for name, (inner, _) in self.fields.items()}

    def flatten(self, value: Any, lead: int = 0) -> NDArray[Any]:
        """``value`` as an array of shape lead axes + batch + (size,); no check of its shape."""
        if self.fields is None:
            a = value if type(value) is np.ndarray else np.asarray(value)
            return a if self.plain else a.reshape((*a.shape[:lead], *self.batch, self.size))
        parts = [inner.flatten(value[name], lead) for name, (inner, _) in self.fields.items()]
        return np.concatenate(parts, axis=-1)

    def unflatten(self, flat: NDArray[Any]) -> Any:
        """The user's view of ``flat``, shape (..., size) with its leading axes kept."""
        if self.plain:
            return flat
        if self.fields is not None:
            return {
                name: inner.unflatten(flat[..., where])
                for name, (inner, where) in self.fields.items()
            }
        out = flat.reshape(flat.shape[:-1] + (self.shape or ()))
        return out[()] if out.ndim == 0 else out

    def lead_axes(self, value: Any, what: str) -> int:
        """How many axes ``value`` has in front of this layout (0 or 1): several of a kind.

        Raises
        ------
        ValueError
            Where the rest does not fit, naming both shapes.
        """
        if self.fields is not None:
            if not isinstance(value, Mapping) or value.keys() != self.fields.keys():
                seen = sorted(value) if isinstance(value, Mapping) else type(value).__name__
                raise ValueError(
                    f"{what} must be a dict with the keys {list(self.fields)}, got {seen}"
                )
            leads = {inner.lead_axes(value[k], f"{what}[{k!r}]") for k, (inner, _) in
                     self.fields.items()}  # fmt: skip
            if len(leads) > 1:
                raise ValueError(f"entries of {what} disagree on a leading axis of several")
            return leads.pop() if leads else 0
        want = self.batch + (self.shape or ())
        if type(value) is np.ndarray:
            got = value.shape
        elif isinstance(value, Mapping):
            raise ValueError(f"{what} is a dict, expected an array of shape {want}")
        else:
            got = np.shape(value)
        if got == want:
            return 0
        if len(got) == len(want) + 1 and got[1:] == want:
            return 1
        raise ValueError(
            f"{what} has shape {got}, expected {want}, or one axis more in front "
            "for several at once"
        )


def blocks(matrix: NDArray[Any], y: Layout, x: Layout) -> Any:
    """A Jacobian (..., n, m) in the user's shapes: batch + y.shape + x.shape, or dicts of them."""
    if y.fields is not None:
        return {k: blocks(matrix[..., rows, :], inner, x) for k, (inner, rows) in y.fields.items()}
    if x.fields is not None:
        return {k: blocks(matrix[..., cols], y, inner) for k, (inner, cols) in x.fields.items()}
    out = matrix.reshape(matrix.shape[:-2] + (y.shape or ()) + (x.shape or ()))
    return out[()] if out.ndim == 0 else out


def matrix_of(
    value: Any, y: Layout, x: Layout, what: str, one_for_all: bool = False
) -> NDArray[Any]:
    """A Jacobian in the user's shapes as batch + (n, m): the inverse of ``blocks``.

    Parameters
    ----------
    value : array_like, sparse matrix, linear operator, or dict
        Of shape batch + y.shape + x.shape or batch + (n, m); nested dicts of such blocks where y or
        x is a dict.
    what : str
        Its name, for messages.
    one_for_all : bool
        Whether it may come without the batch axes, which the answer then lacks too.

    Raises
    ------
    ValueError
        For another shape (the transpose has as many entries), and other keys.
    """
    if hasattr(value, "toarray"):
        value = value.toarray()
    elif hasattr(value, "matmat"):
        value = value.matmat(np.eye(x.size))
    batches = {y.batch, ()} if one_for_all else {y.batch}
    a: Any = None if isinstance(value, Mapping) else np.asarray(value)
    if a is not None and a.shape in {(*batch, y.size, x.size) for batch in batches}:
        return np.asarray(a)
    for layout, axis in ((y, -2), (x, -1)):
        if layout.fields is not None:
            if a is not None or value.keys() != layout.fields.keys():
                seen = f"shape {a.shape}" if a is not None else list(value)
                raise ValueError(
                    f"{what} must be a dict with the keys {list(layout.fields)}, got {seen}"
                )
            parts = [
                matrix_of(
                    value[key], *((inner, x) if axis == -2 else (y, inner)), what, one_for_all
                )
                for key, (inner, _) in layout.fields.items()
            ]
            return np.concatenate(parts, axis)
    if a is None:
        raise ValueError(f"{what} is a dict, but neither x nor y is one; give an array")
    entries = (*(y.shape or ()), *(x.shape or ()))
    for batch in batches:
        if a.shape == (*batch, *entries):
            return np.asarray(a.reshape(*batch, y.size, x.size))
    hint = "; it looks transposed" if a.shape == (*y.batch, x.size, y.size) else ""
    raise ValueError(
        f"{what} has shape {a.shape}, expected {(*y.batch, *entries)}, y.shape + x.shape{hint}"
    )
