"""Least operator norm of the residual, and guaranteed bounds."""
