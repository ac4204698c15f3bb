"""The solvers of this package: one row each.

A row makes a solver known by name, exported, held to what it claims by ``tests/test_solvers.py``,
and listed in ``docs/solvers.md``. A new solver is a file and a row. The file holds a frozen class
with its options, ``solve = _regression.solve``, and a method ``fit`` that turns a
`RegressionProblem` into a `Solution`. (The tests then ask for the table of the document, and for an
import that shows the class to static checkers.)
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any

from gradiator_np.solvers._solution import Solver


class Capability(StrEnum):
    """What a solver can be asked for; the value is the word for it."""

    OUTPUT_WEIGHTS = "weights per output"
    BATCHES = "batches"
    SPARSITY = "sparsity"
    KNOWN = "known entries"
    SYMMETRY = "symmetry"
    PRIOR = "prior jac0"
    COMPLEX = "complex outputs"
    INTERCEPT = "intercept"
    ERROR_BARS = "error bars"


ALL = frozenset(Capability)
_STRUCTURE = frozenset({Capability.SPARSITY, Capability.KNOWN, Capability.SYMMETRY})


@dataclass(frozen=True, slots=True)
class Row:
    """One solver.

    Attributes
    ----------
    name : str
        As in ``solver="pinv"``.
    module, cls : str
        Where its class is, below ``gradiator_np.solvers``; imported on use.
    minimises, suits, costs : str
        What it minimises, which errors of the samples that suits, and what it costs.
    capabilities : set of Capability
        What it can do, with the options that allow for it.
    """

    name: str
    module: str
    cls: str
    minimises: str
    suits: str
    costs: str
    capabilities: frozenset[Capability]


ROWS = (
    Row(
        "pinv", "_least_squares.pinv", "Pinv",
        "sum of squares; least norm where k < m",
        "independent, Gaussian or bounded",
        "one QR",
        ALL,
    ),
    Row(
        "huber", "_least_squares.huber", "Huber",
        "squares, linear in the tails",
        "some samples far off",
        "a few QRs",
        ALL - {Capability.SYMMETRY},
    ),
    Row(
        "spectral", "_operator_norm.spectral", "Spectral",
        "operator norm of the misfit",
        "the worst case over errors bounded as a whole",
        "closed form; iteration with structure",
        ALL - {Capability.OUTPUT_WEIGHTS},
    ),
    Row(
        "rank-one", "_recursive.rank_one", "RankOne",
        "squares, one sample at a time (recursive least squares; Kaczmarz)",
        "streams",
        "a QR update each",
        ALL - _STRUCTURE,
    ),
    Row(
        "taylor", "_taylor.solver", "Taylor",
        "squares weighted by a Gaussian process for curvature, and noise (kriging, REML)",
        "samples wide enough to see curvature",
        "k^3 for each of up to nine lengths",
        ALL - _STRUCTURE,
    ),
)  # fmt: skip


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
        row = next((row for row in ROWS if row.name == solver), None)
        if row is None:
            raise ValueError(
                f"solver={solver!r} is unknown; choose one of "
                f"{', '.join(repr(row.name) for row in ROWS)}, or give an object such as "
                "Pinv(ridge=1e-6)"
            )
        made: Solver = getattr(import_module(f"gradiator_np.solvers.{row.module}"), row.cls)()
        return made
    if isinstance(solver, type) or not hasattr(solver, "solve"):
        raise TypeError(
            f"solver must be a name or an object with solve(), got {solver!r:.80}; "
            "a class needs its brackets, as in Pinv()"
        )
    found: Solver = solver
    return found


def refuse_unsupported(cls: type, demands: Set[Capability]) -> None:
    """Refuse what the solver ``cls`` cannot do, and name those that can.

    Raises
    ------
    ValueError
    """
    names = {c.__name__ for c in cls.__mro__}
    own = next((row for row in ROWS if row.cls in names), None)
    if own is None or demands <= own.capabilities:
        return
    lacking = " and ".join(c for c in Capability if c in demands - own.capabilities)
    able = ", ".join(f"{row.cls}()" for row in ROWS if demands <= row.capabilities)
    raise ValueError(
        f"{own.cls} cannot take {lacking}: leave that out" + (f", or use {able}" if able else "")
    )
