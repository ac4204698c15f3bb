"""Names and units that a report uses for the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradiator_np._structure import Layout


def parameter_names(names: Any, layout: Layout) -> list[str]:
    """One name for each parameter; by default ".a" for entries of a dict, "x[0]" for others."""
    own = layout.names if layout.fields is not None else [f"x{name}" for name in layout.names]
    if names is None:
        return own
    given = _words(names, layout, "names", tails=True)
    if len(set(given)) < len(given):
        twice = next(name for name in given if given.count(name) > 1)
        raise ValueError(f"names has {twice!r} more than once; give each parameter one of its own")
    return given


def parameter_units(units: Any, layout: Layout) -> list[str]:
    """The unit of each parameter, "" where there is none."""
    return [""] * layout.size if units is None else _words(units, layout, "units", tails=False)


def _words(value: Any, layout: Layout, what: str, tails: bool) -> list[str]:
    """Words like x, flat. One word serves an array, with indices behind it for ``tails``.

    Raises
    ------
    TypeError
        For what are no words.
    ValueError
        For other keys, or another number of them.
    """
    if isinstance(value, Mapping):
        if layout.fields is None or value.keys() != layout.fields.keys():
            known = list(layout.fields or {})
            raise ValueError(f"{what} has the keys {list(value)}, but the parameters have {known}")
        parts = (_words(value[k], inner, f"{what}[{k!r}]", tails)
                 for k, (inner, _) in layout.fields.items())  # fmt: skip
        return [word for part in parts for word in part]
    if isinstance(value, str):
        return [value + name if tails else value for name in layout.names]
    words = np.asarray(value, object).ravel().tolist()
    if not all(isinstance(word, str) for word in words):
        raise TypeError(f"{what} must be words, got {value!r:.60}")
    if len(words) != layout.size:
        raise ValueError(f"{what} has {len(words)} words for {layout.size} parameters")
    return words
