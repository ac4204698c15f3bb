"""Fits of noisy simulators: our own driver, and an object for SciPy's."""

from gradiator_np._calibration.ask_tell import LeastSquares
from gradiator_np._calibration.driver import least_squares
from gradiator_np._calibration.result import LeastSquaresResult
from gradiator_np._calibration.scipy_objective import ScipyObjective

__all__ = ["LeastSquares", "LeastSquaresResult", "ScipyObjective", "least_squares"]
