"""What a simulator returns: arrays in structures, and shapes without numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Output(NamedTuple):
    """One output: its shape, without the axes of a batch, and whether it is complex."""

    shape: tuple[int, ...]
    complex: bool


class Outputs(NamedTuple):
    """The structure of what a simulator returns: None for one array, else nested keys."""

    structure: Any
    leaves: tuple[Output, ...]

    @property
    def words(self) -> Any:
        """Shapes in their structure, for messages."""
        named = [f"{leaf.shape}{' complex' if leaf.complex else ''}" for leaf in self.leaves]
        return packed(self.structure, iter(named))


def outputs_of(value: Any, batch_dims: int) -> Outputs:
    """The structure of what a run returned."""
    leaves = leaves_of(value)
    described = tuple(Output(np.shape(a)[batch_dims:], np.iscomplexobj(a)) for a in leaves)
    return Outputs(structure_of(value), described)


def structure_of(value: Any) -> Any:
    """None for an array, keys and structures for a dict, structures for a tuple."""
    if isinstance(value, Mapping):
        return ("dict", tuple(value), tuple(map(structure_of, value.values())))
    if isinstance(value, tuple):
        return ("tuple", (), tuple(map(structure_of, value)))
    return None


def leaves_of(value: Any) -> tuple[Any, ...]:
    """The arrays of an output."""
    if isinstance(value, Mapping):
        return tuple(leaf for item in value.values() for leaf in leaves_of(item))
    if isinstance(value, tuple):
        return tuple(leaf for item in value for leaf in leaves_of(item))
    return (value,)


def packed(structure: Any, leaves: Any) -> Any:
    """Leaves in the structure of an output: the inverse of ``leaves_of``."""
    if structure is None:
        return next(leaves)
    kind, keys, children = structure
    items = tuple([packed(child, leaves) for child in children])
    return dict(zip(keys, items, strict=True)) if kind == "dict" else items
