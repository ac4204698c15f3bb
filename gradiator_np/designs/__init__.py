"""Designs: which points to run, and what to make of their values."""

from gradiator_np.designs._adaptive.design import Auto
from gradiator_np.designs._complex_step import ComplexStep
from gradiator_np.designs._factorial.design import (
    Directions,
    Hadamard,
    Pairs,
    Simplex,
    choose_design,
)
from gradiator_np.designs._finite_difference.stencil import Stencil

__all__ = [
    "Auto",
    "ComplexStep",
    "Directions",
    "Hadamard",
    "Pairs",
    "Simplex",
    "Stencil",
    "choose_design",
]
