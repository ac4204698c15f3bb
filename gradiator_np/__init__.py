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
    from gradiator_np.chain import Chain, ChainPlan, StageCosts, plan_chain
    from gradiator_np.diagnose import check_jacobian, estimate_noise, optimal_step
    from gradiator_np.differentiable import Gradiator, Reuse, gradiator
    from gradiator_np.lsq import LeastSquares, Modelled, least_squares
    from gradiator_np.recurrence import Recurrence
    from gradiator_np.streaming import StreamingJacobian

__version__ = "0.1.0"

# Imported on first use, so that a script that only needs a Jacobian does not wait for the rest.
_ON_USE = {
    "Chain": "chain",
    "ChainPlan": "chain",
    "Gradiator": "differentiable",
    "LeastSquares": "lsq",
    "Modelled": "lsq",
    "Recurrence": "recurrence",
    "Reuse": "differentiable",
    "StageCosts": "chain",
    "StreamingJacobian": "streaming",
    "check_jacobian": "diagnose",
    "estimate_noise": "diagnose",
    "gradiator": "differentiable",
    "least_squares": "lsq",
    "optimal_step": "diagnose",
    "plan_chain": "chain",
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
    "ChainPlan",
    "EvaluationError",
    "Gradiator",
    "GradiatorWarning",
    "JacobianEstimate",
    "JacobianEstimator",
    "LeastSquares",
    "Modelled",
    "ProductEstimate",
    "Recurrence",
    "Reuse",
    "Run",
    "SampleError",
    "Samples",
    "StageCosts",
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
    "plan_chain",
    "prepare",
    "vjp",
]
