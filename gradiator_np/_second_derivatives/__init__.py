"""Second derivatives with error bars: Hessians, their products with tangents, their diagonals."""

from gradiator_np._second_derivatives.estimate import CurvatureEstimate, HessianEstimate
from gradiator_np._second_derivatives.functions import hessian, hessian_diagonal, hvp

__all__ = ["CurvatureEstimate", "HessianEstimate", "hessian", "hessian_diagonal", "hvp"]
