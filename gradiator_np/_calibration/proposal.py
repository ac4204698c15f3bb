"""What a search asks for: points that are run together, and what was expected of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrialStep:
    """What a trial step promised: decrease, length in radii, largest shrinkage if it fails."""

    predicted_decrease: float
    length: float
    least_factor: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """Points that are run together.

    Attributes
    ----------
    ids : tuple of int
    initial : bool
        Whether they are of the initial design.
    trial : TrialStep or None
        Where the first of them is the step of the model; else they improve the model.
    along_lines : bool
        Whether they look for the units of parameters.
    """

    ids: tuple[int, ...]
    initial: bool = False
    trial: TrialStep | None = None
    along_lines: bool = False
