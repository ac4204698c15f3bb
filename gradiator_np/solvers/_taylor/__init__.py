"""Samples lying anywhere: universal kriging with a random Taylor series."""
