"""Fits of noisy simulators: our own driver, and an object for SciPy's."""

from gradiator_np.lsq.asktell import LeastSquares
from gradiator_np.lsq.driver import least_squares
from gradiator_np.lsq.modelled import Modelled

__all__ = ["LeastSquares", "Modelled", "least_squares"]
