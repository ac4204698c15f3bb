"""Designs: which points to run, and what to make of their values."""

from gradiator_np.designs.auto import Auto
from gradiator_np.designs.complex_step import ComplexStep
from gradiator_np.designs.directional import (
    Directions,
    Hadamard,
    Pairs,
    Simplex,
    choose_design,
)
from gradiator_np.designs.stencil import Stencil

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
