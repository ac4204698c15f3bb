"""Sparse Jacobians: patterns, the colours that make few evaluations of many, and back.

A pattern says which outputs may depend on which inputs (``SparsityPattern.of`` reads all its
forms); where it is not known, ``gradiator_np.detect_sparsity`` finds it. ``color`` groups columns
that can be moved together, and ``Coloring.decompress`` turns what came back into a sparse matrix;
``color_symmetric`` does with fewer where the matrix is symmetric.
"""

from gradiator_np.sparsity._coloring import Coloring, Conflict, color
from gradiator_np.sparsity._pattern import SparsityPattern
from gradiator_np.sparsity._star import StarColoring, StarConflict, color_symmetric
from gradiator_np.sparsity._structures import (
    banded_pattern,
    block_diagonal_pattern,
    grid_pattern,
)

__all__ = [
    "Coloring",
    "Conflict",
    "SparsityPattern",
    "StarColoring",
    "StarConflict",
    "banded_pattern",
    "block_diagonal_pattern",
    "color",
    "color_symmetric",
    "grid_pattern",
]
