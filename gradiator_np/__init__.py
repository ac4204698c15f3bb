"""Jacobians, VJPs and JVPs with honest error bars, of functions that can only be run.

Begin with ``jacobian(fun, x)``. ``designs`` holds designs of points beside the default, ``solvers``
the solvers beneath, ``adapters`` those for PyTorch and JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradiator_np._covariance import ConfidenceInterval, Covariance
from gradiator_np._estimate import gradient, jacobian
from gradiator_np._estimator import JacobianEstimator
from gradiator_np._evaluate import Run
from gradiator_np._fit import fit_jacobian, fit_points, fit_vjp
from gradiator_np._linearize import Linearization, jvp, linearize, vjp
from gradiator_np._prepare import Prepared, prepare
from gradiator_np._products import ProductEstimate
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._samples import EvaluationError, SampleError, Samples
from gradiator_np._status import GradiatorWarning, Status
from gradiator_np._structure import Layout

if TYPE_CHECKING:
    from gradiator_np._calibration import (
        FitReport,
        LeastSquares,
        LeastSquaresResult,
        Prediction,
        ScipyObjective,
        least_squares,
    )
    from gradiator_np._chain import (
        Chain,
        ChainEstimate,
        ChainPlan,
        LinearizedChain,
        Operation,
        StageCosts,
        plan_chain,
    )
    from gradiator_np._compressed import PatternCheck, SparseJacobianEstimate
    from gradiator_np._diagnose import (
        JacobianCheck,
        NoiseEstimate,
        SparsityEstimate,
        StepEstimate,
        check_jacobian,
        detect_sparsity,
        estimate_noise,
        optimal_step,
    )
    from gradiator_np._differentiable import (
        Counts,
        DifferentiablePoint,
        Gradiator,
        Reuse,
        gradiator,
    )
    from gradiator_np._graph import Graph, LinearizedGraph
    from gradiator_np._operators import JacobianOperator
    from gradiator_np._propagation import Propagation, Sensitivities, propagate, sensitivities
    from gradiator_np._recurrence import Recurrence, StepCounts
    from gradiator_np._sampled import SampledFunction
    from gradiator_np._second_derivatives import (
        CurvatureEstimate,
        HessianEstimate,
        hessian,
        hessian_diagonal,
        hvp,
    )
    from gradiator_np._streaming import StreamingJacobian
    from gradiator_np.solvers._operator_norm.consistent import ConsistentSet

__version__ = "0.1.0"

# Imported on first use, so that a script that only needs a Jacobian does not wait for the rest.
_ON_USE = {
    "Chain": "_chain",
    "ChainEstimate": "_chain",
    "ChainPlan": "_chain",
    "ConsistentSet": "solvers._operator_norm.consistent",
    "Counts": "_differentiable",
    "CurvatureEstimate": "_second_derivatives",
    "DifferentiablePoint": "_differentiable",
    "FitReport": "_calibration",
    "Gradiator": "_differentiable",
    "Graph": "_graph",
    "HessianEstimate": "_second_derivatives",
    "JacobianCheck": "_diagnose",
    "JacobianOperator": "_operators",
    "LeastSquares": "_calibration",
    "LeastSquaresResult": "_calibration",
    "LinearizedChain": "_chain",
    "LinearizedGraph": "_graph",
    "NoiseEstimate": "_diagnose",
    "Operation": "_chain",
    "PatternCheck": "_compressed",
    "Prediction": "_calibration",
    "Propagation": "_propagation",
    "Recurrence": "_recurrence",
    "Reuse": "_differentiable",
    "SampledFunction": "_sampled",
    "ScipyObjective": "_calibration",
    "Sensitivities": "_propagation",
    "SparseJacobianEstimate": "_compressed",
    "SparsityEstimate": "_diagnose",
    "StageCosts": "_chain",
    "StepCounts": "_recurrence",
    "StepEstimate": "_diagnose",
    "StreamingJacobian": "_streaming",
    "check_jacobian": "_diagnose",
    "detect_sparsity": "_diagnose",
    "estimate_noise": "_diagnose",
    "gradiator": "_differentiable",
    "hessian": "_second_derivatives",
    "hessian_diagonal": "_second_derivatives",
    "hvp": "_second_derivatives",
    "least_squares": "_calibration",
    "optimal_step": "_diagnose",
    "plan_chain": "_chain",
    "propagate": "_propagation",
    "sensitivities": "_propagation",
}
_PACKAGES = ("adapters", "designs", "solvers", "sparsity")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES, "__version__"])


__all__ = [
    "Chain",
    "ChainEstimate",
    "ChainPlan",
    "ConfidenceInterval",
    "ConsistentSet",
    "Counts",
    "Covariance",
    "CurvatureEstimate",
    "DifferentiablePoint",
    "EvaluationError",
    "FitReport",
    "Frame",
    "Gradiator",
    "GradiatorWarning",
    "Graph",
    "HessianEstimate",
    "JacobianCheck",
    "JacobianEstimate",
    "JacobianEstimator",
    "JacobianOperator",
    "Layout",
    "LeastSquares",
    "LeastSquaresResult",
    "Linearization",
    "LinearizedChain",
    "LinearizedGraph",
    "NoiseEstimate",
    "Operation",
    "PatternCheck",
    "Prediction",
    "Prepared",
    "ProductEstimate",
    "Propagation",
    "Recurrence",
    "Reuse",
    "Run",
    "SampleError",
    "SampledFunction",
    "Samples",
    "ScipyObjective",
    "Sensitivities",
    "SparseJacobianEstimate",
    "SparsityEstimate",
    "StageCosts",
    "Status",
    "StepCounts",
    "StepEstimate",
    "StreamingJacobian",
    "check_jacobian",
    "detect_sparsity",
    "estimate_noise",
    "fit_jacobian",
    "fit_points",
    "fit_vjp",
    "gradiator",
    "gradient",
    "hessian",
    "hessian_diagonal",
    "hvp",
    "jacobian",
    "jvp",
    "least_squares",
    "linearize",
    "optimal_step",
    "plan_chain",
    "prepare",
    "propagate",
    "sensitivities",
    "vjp",
]
