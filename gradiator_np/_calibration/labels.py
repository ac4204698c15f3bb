"""Names and units that a report uses for the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradiator_np._structure import Layout

#: Terms of a sum that are written out.
MOST_TERMS = 4


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


def combination(weights: Sequence[float], names: Sequence[str]) -> str:
    """A sum of parameters, as "x[0] + 2 x[1] - x[2]"; the first terms of a long one."""
    used = [j for j, w in enumerate(weights) if w]
    text = ""
    for j in used[:MOST_TERMS]:
        size = abs(weights[j])
        text += (" + " if weights[j] > 0 else " - ") + ("" if size == 1 else f"{size:.4g} ")
        text += names[j]
    text = text.removeprefix(" + ").replace(" - ", "-", 1 if text.startswith(" - ") else 0)
    return text + " + ..." * (len(used) > MOST_TERMS)


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
