"""Numba loops over plain arrays: numpy and numba only, nothing checked, nothing raised.

Callers coerce dtype and layout once, and turn the integer status that a kernel returns into a
message. The kernels may be called from a user's own ``@njit`` code.
"""
