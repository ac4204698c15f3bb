"""Designs that move many inputs at once."""
