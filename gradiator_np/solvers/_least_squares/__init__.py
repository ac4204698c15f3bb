"""Least squares: pseudo-inverse, structure, robust weights, influence."""
