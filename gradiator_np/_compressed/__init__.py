"""Sparse Jacobians: inputs that share no output move together, and one column tells of them all."""

from gradiator_np._compressed.compression import Compression
from gradiator_np._compressed.estimate import SparseJacobianEstimate
from gradiator_np._compressed.pattern_check import PatternCheck
from gradiator_np._compressed.products import sparse_vjp
from gradiator_np._compressed.runs import SparseRuns, coloring_of, sparse_estimate
from gradiator_np._compressed.symmetric import symmetric_jacobian

__all__ = [
    "Compression",
    "PatternCheck",
    "SparseJacobianEstimate",
    "SparseRuns",
    "coloring_of",
    "sparse_estimate",
    "sparse_vjp",
    "symmetric_jacobian",
]
