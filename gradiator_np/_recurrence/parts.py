"""What a recurrence is given, as differentiable functions and arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._differentiable.function import Gradiator
from gradiator_np._differentiable.owner import Argnums


def with_tangents(x0: Any, theta: Any, u: Any, w: Any) -> tuple[Any, Any, Any, Any]:
    """Point and tangents as arrays of one shape each; a tangent that is None is zero."""
    x0, theta = array(x0), array(theta)
    u = np.zeros(x0.shape) if u is None else array(u)
    w = np.zeros(theta.shape) if w is None else array(w)
    for a, b, name in ((u, x0, "x0"), (w, theta, "theta")):
        if a.shape != b.shape:
            raise ValueError(f"a tangent has shape {a.shape}, expected {b.shape}, that of {name}")
    return x0, theta, u, w


def given_loss(loss: Gradiator | None) -> Gradiator:
    """The loss, or an error where there is none."""
    if loss is None:
        raise ValueError("there is no loss: give Recurrence(..., loss=), or use vjp")
    return loss


def part(fun: Callable[..., Any], argnums: Argnums, options: Mapping[str, Any]) -> Gradiator:
    """A step, an observation or a loss, differentiable by what the recurrence differentiates by."""
    if not isinstance(fun, Gradiator):
        return Gradiator(fun, argnums=argnums, options=options)
    return fun.replace(argnums=argnums, options={**options, **fun.options})


def array(value: Any) -> NDArray[Any]:
    """A state, parameter or direction as an array of numbers."""
    return checks.numeric(value, "a state, parameter or direction")
