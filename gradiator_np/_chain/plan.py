"""The cheapest order in which to multiply a chain of Jacobians, before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import _checks as checks
from gradiator_np._typing import Array
from gradiator_np.kernels import chain as kernel

#: Seconds of one multiply-add in a product of small matrices: ten billion of them a second, what
#: one core of an ordinary machine does. Only its ratio to the stages' own costs matters.
MULTIPLY_ADD = 1e-10


class Operation(NamedTuple):
    """One instruction of a plan, for a machine with a stack of matrices.

    ``accumulate`` pushes the Jacobian of factor ``first``, made from its own, tangents or adjoints
    (``how``). ``product`` pops B, then A, and pushes A B. ``tangent`` replaces the top F by
    J_last ... J_first F, ``adjoint`` by F J_last ... J_first.

    Examples
    --------
    >>> from gradiator_np import plan_chain
    >>> for step in plan_chain([2, 3, 1], tangent=[1.0, 1.0], adjoint=[1.0, 1.0]).operations:
    ...     print(step.name, step.first, step.last, step.how)
    accumulate 1 1 adjoint
    adjoint 0 0
    """

    name: Literal["accumulate", "product", "tangent", "adjoint"]
    first: int
    last: int
    how: Literal["", "given", "tangent", "adjoint"] = ""


@dataclass(frozen=True, repr=False)
class ChainPlan:
    """The order chosen for a product of Jacobians, with what it costs.

    Attributes
    ----------
    cost : float
        Of the order chosen, in the unit of the costs given (seconds in a ``Chain``).
    forward, reverse, preaccumulation : float
        Of tangents all the way, of adjoints all the way, and of every factor's own Jacobian
        multiplied in the best order; inf where a factor does not allow it.
    bracketing : str
        ``A * B`` is a product of matrices, ``J3 J2 <- F`` pushes the columns of F through stages
        2 and 3 (tangents), ``F -> J3 J2`` pulls the rows of F back through them (adjoints);
        ``[J2]`` is the stage's own Jacobian.
    operations : tuple of Operation
        The same as instructions, in order.

    Examples
    --------
    >>> from gradiator_np import plan_chain
    >>> plan_chain([2, 3, 1], tangent=[1.0, 1.0], adjoint=[1.0, 1.0]).bracketing
    '[J2] -> J1'
    """

    cost: float
    forward: float
    reverse: float
    preaccumulation: float
    bracketing: str
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        rows = [
            ("chosen", self.cost),
            ("forward", self.forward),
            ("reverse", self.reverse),
            ("preaccumulation", self.preaccumulation),
        ]
        lines = [self.bracketing] + [f"  {name:<16}{value:.4g}" for name, value in rows]
        return "\n".join(lines)

    __repr__ = __str__


def plan_chain(
    dims: Sequence[int],
    tangent: ArrayLike,
    adjoint: ArrayLike,
    accumulate: ArrayLike | None = None,
    *,
    multiply: float = MULTIPLY_ADD,
    names: Sequence[str] | None = None,
) -> ChainPlan:
    """Find the cheapest way to compute the product J_q ... J_1.

    Parameters
    ----------
    dims : sequence of int, length q + 1
        Sizes of the variables between the factors: factor j is ``(dims[j + 1], dims[j])``.
    tangent, adjoint : array_like, shape (q,)
        Cost of one product J u and of one product v^T J; inf where there is none.
    accumulate : array_like, shape (q,), optional
        Cost of the whole matrix by other means (0 where it is at hand, m evaluations for a
        black box); inf where there are none, which is the default.
    multiply : float
        Cost of one multiply-add, in the same unit as all the others.
    names : sequence of str, optional
        What to call the factors; ``J1`` to ``Jq`` by default.

    Returns
    -------
    ChainPlan

    Raises
    ------
    ValueError
        If shapes disagree, a cost is negative or nan, or some factor has no way at all.

    References
    ----------
    Naumann, "Optimization of generalized Jacobian chain products", arXiv:2003.05755: a dynamic
    programme over all brackets, O(q^3).

    Examples
    --------
    A narrow waist: the first factor is formed row by row, the second one column by column.

    >>> from gradiator_np import plan_chain
    >>> plan = plan_chain([100, 1, 100], tangent=[1.0, 1.0], adjoint=[1.0, 1.0])
    >>> plan.cost < min(plan.forward, plan.reverse)
    True
    """
    sizes = checks.whole(dims, "dims").reshape(-1)
    q = sizes.size - 1
    if q < 1 or (sizes < 1).any():
        raise ValueError(f"dims must hold at least two sizes of 1 or more, got {list(dims)}")
    t, a = _costs(tangent, q, "tangent"), _costs(adjoint, q, "adjoint")
    own = np.full(q, np.inf) if accumulate is None else _costs(accumulate, q, "accumulate")
    if not 0 <= checks.real(multiply, "multiply") < np.inf:
        raise ValueError(f"multiply must be a finite cost of 0 or more, got {multiply!r}")
    cost, kind, split = _solve(sizes, t, a, own, multiply)
    labels = list(names) if names is not None else [f"J{j + 1}" for j in range(q)]
    if not np.isfinite(cost[q - 1, 0]):
        lost = labels[int(np.argmax(np.isinf(np.diag(cost))))]
        raise ValueError(
            f"{lost} has neither tangents nor adjoints nor a Jacobian: give one of the costs"
        )
    operations = _operations(kind, split)
    # No tangents and no adjoints across factors: what is left are products of own Jacobians.
    never = np.full(q, np.inf)
    products, _, _ = _solve(sizes, never, never, np.diag(cost).copy(), multiply)
    return ChainPlan(
        cost=float(cost[q - 1, 0]),
        # The end that a plain order starts from may be at hand, such as a seed.
        forward=float(min(own[0], sizes[0] * t[0]) + sizes[0] * t[1:].sum()),
        reverse=float(min(own[-1], sizes[-1] * a[-1]) + sizes[-1] * a[:-1].sum()),
        preaccumulation=float(products[q - 1, 0]),
        bracketing=_bracketing(operations, labels),
        operations=operations,
    )


def _costs(value: ArrayLike, q: int, what: str) -> Array:
    a = checks.numeric(value, what).astype(np.float64)
    if a.shape != (q,):
        raise ValueError(f"{what} has shape {a.shape}, expected {(q,)}: one cost a factor")
    if not (a >= 0).all():
        raise ValueError(f"{what} must hold costs of 0 or more, or inf, got {a}")
    return a


def _solve(
    sizes: NDArray[np.int64], tangent: Array, adjoint: Array, own: Array, multiply: float
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    q = sizes.size - 1
    cost = np.zeros((q, q))
    kind, split = np.zeros((q, q), np.int64), np.zeros((q, q), np.int64)
    kernel.bracket(sizes, tangent, adjoint, own, multiply, cost, kind, split)
    return cost, kind, split


def _operations(kind: NDArray[np.int64], split: NDArray[np.int64]) -> tuple[Operation, ...]:
    """Walk the tree of splits; without recursion, for chains of thousands of factors."""
    out: list[Operation] = []
    leaves = {
        kernel.LEAF_GIVEN: "given",
        kernel.LEAF_TANGENT: "tangent",
        kernel.LEAF_ADJOINT: "adjoint",
    }
    todo: list[Operation | tuple[int, int]] = [(len(kind) - 1, 0)]
    while todo:
        item = todo.pop()
        if isinstance(item, Operation):
            out.append(item)
            continue
        j, i = item
        what, k = int(kind[j, i]), int(split[j, i])
        if what in leaves:
            out.append(Operation("accumulate", i, j, leaves[what]))  # type: ignore[arg-type]
        elif what == kernel.PRODUCT:
            todo += [Operation("product", i, j), (k, i), (j, k + 1)]
        elif what == kernel.TANGENT:
            todo += [Operation("tangent", k + 1, j), (k, i)]
        else:
            todo += [Operation("adjoint", i, k), (j, k + 1)]
    return tuple(out)


def _bracketing(operations: Sequence[Operation], labels: Sequence[str]) -> str:
    stack: list[str] = []
    for name, first, last, _ in operations:
        through = " ".join(labels[j] for j in range(last, first - 1, -1))
        if name == "accumulate":
            stack.append(f"[{through}]")
        elif name == "product":
            right = stack.pop()
            stack.append(f"({stack.pop()} * {right})")
        elif name == "tangent":
            stack.append(f"({through} <- {stack.pop()})")
        else:
            stack.append(f"({stack.pop()} -> {through})")
    (text,) = stack
    return text[1:-1] if text.startswith("(") else text
