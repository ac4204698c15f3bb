"""Questions about a function: its noise, its steps, whether a Jacobian is right."""

from gradiator_np._diagnose.check import JacobianCheck, check_jacobian
from gradiator_np._diagnose.noise import NoiseEstimate, estimate_noise
from gradiator_np._diagnose.steps import StepEstimate, optimal_step

__all__ = [
    "JacobianCheck",
    "NoiseEstimate",
    "StepEstimate",
    "check_jacobian",
    "estimate_noise",
    "optimal_step",
]
