"""What searches around a point found, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradiator_np._status import Status, warn
from gradiator_np._structure import enumerated


class Finding(Protocol):
    """What a search around x ends with."""

    @property
    def status(self) -> Status: ...
    @property
    def message(self) -> str: ...


Found = TypeVar("Found", bound=Finding)


def findings(
    found: NDArray[Any], words: Mapping[Any, tuple[Status, str]], names: Sequence[str]
) -> tuple[Status, str]:
    """What was found of which entries in words.

    Parameters
    ----------
    found : array of str, shape (q,)
    words : dict
        The status and the text of each finding that is worth words, the worst first.
    names : sequence of q str
    """
    status, parts = Status.OK, []
    for finding, (worse, text) in words.items():
        which = [names[i] for i in np.flatnonzero(found == finding).tolist()]
        if which:
            parts.append(f"{enumerated(which)}: {text}")
            status = worse if status is Status.OK else status
    return status, "; ".join(parts)


def warned(result: Found) -> Found:
    """The result, with a warning where it could not tell all that was asked."""
    if result.status is not Status.OK:
        warn(result.message, result)
    return result
