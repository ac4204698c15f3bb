"""Questions about a function: its noise, its steps, its sparsity, whether a Jacobian is right."""

from gradiator_np._diagnose.check import JacobianCheck, check_jacobian
from gradiator_np._diagnose.noise import NoiseEstimate, estimate_noise
from gradiator_np._diagnose.sparsity import SparsityEstimate, detect_sparsity
from gradiator_np._diagnose.steps import StepEstimate, optimal_step

__all__ = [
    "JacobianCheck",
    "NoiseEstimate",
    "SparsityEstimate",
    "StepEstimate",
    "check_jacobian",
    "detect_sparsity",
    "estimate_noise",
    "optimal_step",
]
