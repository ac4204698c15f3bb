"""Run what a sparse Jacobian asks for."""
