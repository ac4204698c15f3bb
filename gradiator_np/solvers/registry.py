"""Solvers by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gradiator_np.solvers.solution import Solver

#: Name of a solver: module and class, imported on use.
SOLVERS = {
    "pinv": ("gradiator_np.solvers.pinv", "Pinv"),
    "huber": ("gradiator_np.solvers.robust", "Huber"),
    "spectral": ("gradiator_np.solvers.spectral", "Spectral"),
    "rank-one": ("gradiator_np.solvers.rank_one", "RankOne"),
    "taylor": ("gradiator_np.solvers.taylor", "Taylor"),
}


def find_solver(solver: Any) -> Solver:
    """A solver object from its name, with default options, or the object itself.

    Raises
    ------
    ValueError
        For an unknown name.
    TypeError
        For what is neither a name nor a solver.
    """
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ValueError(
                f"solver={solver!r} is unknown; choose one of {', '.join(map(repr, SOLVERS))}, "
                "or give an object such as Pinv(ridge=1e-6)"
            )
        module, name = SOLVERS[solver]
        made: Solver = getattr(import_module(module), name)()
        return made
    if isinstance(solver, type) or not hasattr(solver, "solve"):
        raise TypeError(
            f"solver must be a name or an object with solve(), got {solver!r:.80}; "
            "a class needs its brackets, as in Pinv()"
        )
    found: Solver = solver
    return found
