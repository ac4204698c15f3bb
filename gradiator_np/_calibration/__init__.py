"""Fits of noisy simulators: our own driver, and an object for SciPy's."""

from gradiator_np._calibration.ask_tell import LeastSquares
from gradiator_np._calibration.driver import least_squares
from gradiator_np._calibration.prediction import Prediction
from gradiator_np._calibration.report import FitReport
from gradiator_np._calibration.result import LeastSquaresResult
from gradiator_np._calibration.scipy_objective import ScipyObjective

__all__ = [
    "FitReport",
    "LeastSquares",
    "LeastSquaresResult",
    "Prediction",
    "ScipyObjective",
    "least_squares",
]
