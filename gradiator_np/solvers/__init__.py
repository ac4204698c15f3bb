"""Solvers over plain arrays: samples in, a Jacobian and its covariance out.

Objects with options (``Pinv``, ``Huber``, ``Spectral``, ``RankOne``, ``Taylor``) have one method,
``solve(dx, df)``, and return a ``Solution``; ``fit_jacobian(..., solver=)`` takes them. Functions
work on arrays alone. The loops beneath, in ``gradiator_np.kernels``, may be called from a user's
own ``@njit`` code: ``gradiator_np.kernels.lstsq.lstsq_batch`` solves stacks of small problems.

Modules are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradiator_np.solvers.influence import leave_one_out, leverage
    from gradiator_np.solvers.linear import LinearFit, least_squares
    from gradiator_np.solvers.pinv import Pinv
    from gradiator_np.solvers.rank_one import RankOne
    from gradiator_np.solvers.robust import Huber
    from gradiator_np.solvers.solution import Constraints, Solution, Solver
    from gradiator_np.solvers.spectral import Spectral
    from gradiator_np.solvers.taylor import Taylor

_MODULES = {
    "Constraints": "solution",
    "Huber": "robust",
    "LinearFit": "linear",
    "Pinv": "pinv",
    "RankOne": "rank_one",
    "Solution": "solution",
    "Solver": "solution",
    "Spectral": "spectral",
    "Taylor": "taylor",
    "least_squares": "linear",
    "leave_one_out": "influence",
    "leverage": "influence",
}

__all__ = [
    "Constraints",
    "Huber",
    "LinearFit",
    "Pinv",
    "RankOne",
    "Solution",
    "Solver",
    "Spectral",
    "Taylor",
    "least_squares",
    "leave_one_out",
    "leverage",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
