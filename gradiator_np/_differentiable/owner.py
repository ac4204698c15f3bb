"""What a point knows of the function that it belongs to, and of its own run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gradiator_np._differentiable.inputs import tree
from gradiator_np._differentiable.reuse import Memory, PreparedFunctions
from gradiator_np._structure import Layout

Argnums = int | tuple[int, ...] | None


@dataclass
class Counts:
    """How often each function of a differentiable function has run, and for how long.

    Attributes
    ----------
    fun, grad, jvp, jac : int
        Calls; ``fun`` counts evaluations, those spent on estimates included.
    seconds : dict of str to float
        Least time of one call, for those that have run: a first call may have compiled something.

    Examples
    --------
    >>> from gradiator_np import gradiator
    >>> f = gradiator(lambda x: x**2, lambda x, v: 2 * x * v)
    >>> g = f.vjp([1.0, 2.0], [1.0, 0.0])
    >>> f.counts.fun, f.counts.grad
    (0, 1)
    """

    fun: int = 0
    grad: int = 0
    jvp: int = 0
    jac: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, what: str, started: float) -> None:
        """Count one call of ``what`` that began at ``started`` (perf_counter)."""
        took = time.perf_counter() - started
        setattr(self, what, getattr(self, what) + 1)
        self.seconds[what] = min(took, self.seconds.get(what, took))


class Owner(Protocol):
    """What a point needs to know of its function: the attributes of ``Gradiator``."""

    fun: Callable[..., Any]
    grad_fun: Callable[..., Any] | None
    jvp_fun: Callable[..., Any] | None
    jac_fun: Callable[..., Any] | None
    argnums: Argnums
    context: bool
    batch_dims: int
    options: dict[str, Any]
    counts: Counts
    selective: bool
    _memory: Memory | None
    _prepared: PreparedFunctions

    @property
    def single(self) -> tuple[Owner, tuple[int, ...]] | None: ...


class ForwardRun(NamedTuple):
    """What a run left: the value, how it lies in a flat vector, and what derivatives may use."""

    value: Any
    y_layout: Layout
    context: Any

    @classmethod
    def of(cls, value: Any, batch_dims: int, context: Any = None) -> ForwardRun:
        """What is known of a run that returned ``value``."""
        return cls(value, Layout.of(tree(value), batch_dims), context)
