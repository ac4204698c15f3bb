"""Solvers over arrays: samples in, a Jacobian and its covariance out.

Objects with options have one method, ``solve(dx, df)``, and return a ``Solution``;
``fit_jacobian(..., solver=)`` takes them, or their names. ``lstsq``, ``leverage``,
``leave_one_out`` and ``parrott`` are functions of arrays. The loops beneath, in
``gradiator_np.kernels``, may be called from a user's own ``@njit`` code:
``gradiator_np.kernels.lstsq.lstsq_batch`` solves stacks of small problems.

Modules are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradiator_np.solvers._registry import ROWS

if TYPE_CHECKING:  # the same names for static checkers; a test holds that they are the same
    from gradiator_np.solvers._least_squares.huber import Huber as Huber
    from gradiator_np.solvers._least_squares.influence import leave_one_out as leave_one_out
    from gradiator_np.solvers._least_squares.influence import leverage as leverage
    from gradiator_np.solvers._least_squares.linear import LinearFit as LinearFit
    from gradiator_np.solvers._least_squares.linear import lstsq as lstsq
    from gradiator_np.solvers._least_squares.pinv import Pinv as Pinv
    from gradiator_np.solvers._operator_norm.consistent import ConsistentSet as ConsistentSet
    from gradiator_np.solvers._operator_norm.spectral import Spectral as Spectral
    from gradiator_np.solvers._operator_norm.two_sided import parrott as parrott
    from gradiator_np.solvers._recursive.rank_one import RankOne as RankOne
    from gradiator_np.solvers._solution import Constraints as Constraints
    from gradiator_np.solvers._solution import Solution as Solution
    from gradiator_np.solvers._solution import Solver as Solver
    from gradiator_np.solvers._taylor.solver import Taylor as Taylor

_ON_USE = {row.cls: row.module for row in ROWS} | {
    "ConsistentSet": "_operator_norm.consistent",
    "Constraints": "_solution",
    "LinearFit": "_least_squares.linear",
    "Solution": "_solution",
    "Solver": "_solution",
    "leave_one_out": "_least_squares.influence",
    "leverage": "_least_squares.influence",
    "lstsq": "_least_squares.linear",
    "parrott": "_operator_norm.two_sided",
}

__all__ = sorted(_ON_USE)

# The names that ``solver=`` takes, for help(): one row each, as everywhere.
__doc__ += "\n".join(["\nName, class, what it minimises:\n", *(
    f"- {row.name!r}, ``{row.cls}``: {row.minimises}" for row in ROWS
)])  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_USE})
