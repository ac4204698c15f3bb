"""Jacobians, VJPs and JVPs with honest error bars, of functions that can only be run."""

from gradiator_np.estimate import gradient, jacobian
from gradiator_np.estimator import JacobianEstimator
from gradiator_np.evaluate import Run
from gradiator_np.linearize import jvp, linearize, prepare, vjp
from gradiator_np.results import JacobianEstimate, ProductEstimate
from gradiator_np.samples import EvaluationError, SampleError, Samples
from gradiator_np.status import GradiatorWarning, Status

__version__ = "0.1.0"

__all__ = [
    "EvaluationError",
    "GradiatorWarning",
    "JacobianEstimate",
    "JacobianEstimator",
    "ProductEstimate",
    "Run",
    "SampleError",
    "Samples",
    "Status",
    "gradient",
    "jacobian",
    "jvp",
    "linearize",
    "prepare",
    "vjp",
]
