"""Pytrees, keyword arguments and static ones as flat lists of arrays, and back."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import jax
import numpy as np

from gradiator_np import _checks as checks

#: NumPy has no bfloat16, and steps in half precision would drown in rounding.
HALVES = ("bfloat16", "float16")


class Static:
    """An argument that is no array: passed on as it is, equal where it is the same value."""

    __slots__ = ("key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            hash(value)
            self.key: Any = (type(value), value)  # 1, True and 1.0 are equal, and not the same
        except TypeError:
            self.key = id(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class Arguments:
    """How the arguments of one call lie in a list of arrays.

    Attributes
    ----------
    tree : PyTreeDef
        Of ``(args, kwargs)``.
    statics : tuple of (Static or None)
        For each leaf; None where the leaf is an array.
    leaf_places : tuple of (int or str)
        For each leaf the position, or the keyword, of the argument that it belongs to.
    """

    tree: Any
    statics: tuple[Static | None, ...]
    leaf_places: tuple[int | str, ...]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Arguments, list[Any]]:
        """The structure of a call, and its arrays."""
        found, tree = jax.tree_util.tree_flatten_with_path(
            (args, kwargs), is_leaf=is_list_of_numbers
        )
        statics = tuple(None if is_array(leaf) else Static(leaf) for _, leaf in found)
        places = tuple(getattr(path[1], "idx", getattr(path[1], "key", "")) for path, _ in found)
        return cls(tree, statics, places), [leaf for _, leaf in found if is_array(leaf)]

    def rebuild(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``(args, kwargs)`` with these arrays."""
        if self.plain:
            return tuple(arrays), {}
        left = iter(arrays)
        leaves = [next(left) if static is None else static.value for static in self.statics]
        args, kwargs = jax.tree.unflatten(self.tree, leaves)
        return args, kwargs

    @functools.cached_property
    def plain(self) -> bool:
        """Whether there are positional arguments alone, each of them one array."""
        arrays = [0] * len(self.statics)
        plain = self.tree == jax.tree.structure((tuple(arrays), {}))
        return plain and not any(self.statics)

    @property
    def places(self) -> list[int | str]:
        """For each array the position, or the keyword, of its argument."""
        pairs = zip(self.leaf_places, self.statics, strict=True)
        return [place for place, static in pairs if static is None]

    @property
    def count(self) -> int:
        """How many positional arguments there are."""
        return len(jax.tree.unflatten(self.tree, self.leaf_places)[0])

    def part(self, place: int | str) -> Any:
        """The structure of one argument."""
        args, kwargs = jax.tree.unflatten(self.tree, self.leaf_places)
        return jax.tree.structure(kwargs[place] if isinstance(place, str) else args[place])

    def arrays_in(self, place: int | str) -> list[tuple[int, int]]:
        """The arrays of one argument: their places among its leaves, and among all arrays."""
        pairs = zip(self.statics, self.leaf_places, strict=True)
        mine = [static for static, p in pairs if p == place]
        leaves = [k for k, static in enumerate(mine) if static is None]
        numbers = [i for i, p in enumerate(self.places) if p == place]
        return list(zip(leaves, numbers, strict=True))


def is_array(leaf: Any) -> bool:
    """Whether JAX may take hold of an argument: arrays, floats, and lists of numbers."""
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.dtype.kind in "biufcV" and leaf.dtype.names is None
    return isinstance(leaf, float | complex | list | jax.Array) or hasattr(leaf, "__jax_array__")


def is_list_of_numbers(value: Any) -> bool:
    """A list that stands for an array, as everywhere in this library; others are containers."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Number | np.generic) or is_list_of_numbers(item) for item in value)
    )


def leaves_of(value: Any) -> tuple[list[Any], Any]:
    """The arrays of an output, and its structure."""
    leaves, tree = jax.tree.flatten(value, is_leaf=is_list_of_numbers)
    return [np.asarray(checks.returned(leaf, "an output of fun")) for leaf in leaves], tree


def pack(leaves: Sequence[Any]) -> Any:
    """One array as itself, several as a tuple: what a ``Gradiator`` takes and gives."""
    return leaves[0] if len(leaves) == 1 else tuple(leaves)


def unpack(value: Any) -> tuple[Any, ...]:
    """The inverse of ``pack``."""
    return value if isinstance(value, tuple) else (value,)


def half(dtype: Any) -> bool:
    return str(dtype) in HALVES


def inexact(dtype: Any) -> bool:
    """Whether there are derivatives by, or of, numbers of this type."""
    return half(dtype) or np.dtype(dtype).kind in "fc"
