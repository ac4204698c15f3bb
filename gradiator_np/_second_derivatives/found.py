"""What a plan of second derivatives found, in units of x."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradiator_np._second_derivatives.forms import Form
from gradiator_np._second_derivatives.noise import Level
from gradiator_np._typing import Array


@dataclass(frozen=True, slots=True)
class Found:
    """Second derivatives of all forms, in units of x.

    Attributes
    ----------
    forms : list of Form
    value, stderr : array, shape (forms, n)
        inf in ``stderr`` where no run tells.
    noise : array, shape (forms, n)
        The part of ``stderr`` that noise has.
    level : Level
    noisy : bool
    step : array, shape (p,)
        Of each direction, in units of it.
    diverging : list of int
        Forms whose second differences grow as steps shrink.
    wiggling : list of int
        Forms whose second derivatives are others at the steps that were tried first.
    changing : list of int
        Forms whose second derivatives are others at shorter steps than those that were taken.
    """

    forms: list[Form]
    value: Array
    stderr: Array
    noise: Array
    level: Level
    noisy: bool
    step: Array
    diverging: list[int]
    wiggling: list[int]
    changing: list[int] = field(default_factory=list)
