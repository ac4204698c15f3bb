"""Coordinate stencils: where to look, and the weights that make J of it."""
