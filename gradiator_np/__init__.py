"""Jacobians, VJPs and JVPs with honest error bars, of functions that can only be run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradiator_np.estimate import gradient, jacobian
from gradiator_np.estimator import JacobianEstimator
from gradiator_np.evaluate import Run
from gradiator_np.fit import fit_jacobian, fit_points, fit_vjp
from gradiator_np.linearize import jvp, linearize, prepare, vjp
from gradiator_np.results import JacobianEstimate, ProductEstimate
from gradiator_np.samples import EvaluationError, SampleError, Samples
from gradiator_np.status import GradiatorWarning, Status

if TYPE_CHECKING:
    from gradiator_np.chain.chain import Chain
    from gradiator_np.diagnose.check import check_jacobian
    from gradiator_np.diagnose.noise import estimate_noise, optimal_step
    from gradiator_np.differentiable.gradiator import gradiator
    from gradiator_np.recurrence.recurrence import Recurrence
    from gradiator_np.streaming import StreamingJacobian

__version__ = "0.1.0"

# Imported on first use, so that a script that only needs a Jacobian does not wait for the rest.
_ON_USE = {
    "Chain": "chain",
    "Recurrence": "recurrence",
    "StreamingJacobian": "streaming",
    "check_jacobian": "verify",
    "estimate_noise": "diagnose",
    "gradiator": "differentiable",
    "least_squares": "lsq",
    "optimal_step": "diagnose",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_USE})


__all__ = [
    "Chain",
    "EvaluationError",
    "GradiatorWarning",
    "JacobianEstimate",
    "JacobianEstimator",
    "LeastSquares",
    "Modelled",
    "ProductEstimate",
    "Recurrence",
    "Run",
    "SampleError",
    "Samples",
    "Status",
    "StreamingJacobian",
    "check_jacobian",
    "estimate_noise",
    "fit_jacobian",
    "fit_points",
    "fit_vjp",
    "gradiator",
    "gradient",
    "jacobian",
    "jvp",
    "least_squares",
    "linearize",
    "optimal_step",
    "prepare",
    "vjp",
]
