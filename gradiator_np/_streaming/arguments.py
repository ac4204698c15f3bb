"""What a stream is given: rows, vectors and options, checked and coerced."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import blas

from gradiator_np import _checks as checks
from gradiator_np._typing import Array, Mask, NanPolicy
from gradiator_np.sparsity import Coloring, SparsityPattern


def floats(a: ArrayLike, what: str) -> Array:
    """``a`` as float64.

    Raises
    ------
    TypeError
        For complex numbers, and what is no number.
    """
    if type(a) is np.ndarray and a.dtype is checks.FLOAT64:
        return a
    a = checks.numeric(a, what)
    if a.dtype.kind == "c":
        raise TypeError(f"{what} is complex: give real and imaginary parts as outputs of their own")
    return a.astype(np.float64, copy=False)


def squares_finite(a: Array) -> bool:
    """Whether all squares are finite, in one fast pass: sums of them must not overflow."""
    flat = a if a.ndim == 1 else a.ravel()
    # SciPy's wrapper, because NumPy's dot warns of the overflow that is looked for here, and
    # silencing it costs more than the sample (measured).
    return not flat.size or math.isfinite(blas.ddot(flat, flat))


def row_pairs(
    a: ArrayLike, b: ArrayLike, sizes: tuple[int, int], names: tuple[str, str], policy: NanPolicy
) -> tuple[Array, Array, Mask]:
    """Rows (k, m) and (k, n), and which of them (k,) are finite.

    Raises
    ------
    ValueError
        If shapes disagree, and for a row that is not finite where ``policy`` is "raise".
    """
    a, b = floats(a, names[0]), floats(b, names[1])
    m, n = sizes
    if a.ndim < 2 and b.ndim < 2 and a.size == m and b.size == n:
        a, b = a.reshape(1, m), b.reshape(1, n)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != m or b.shape != (len(a), n):
        raise ValueError(
            f"{names[0]} must have shape ({m},) or (k, {m}) and {names[1]} ({n},) or (k, {n}), "
            f"got {a.shape} and {b.shape}"
        )
    if squares_finite(a) and squares_finite(b):
        return a, b, np.ones(len(a), np.bool_)
    with np.errstate(over="ignore"):
        good = np.isfinite(np.square(a).sum(axis=1) + np.square(b).sum(axis=1))
    if not good.all() and policy == "raise":
        raise ValueError(
            f"row {int(np.argmin(good))} of {names[0]} and {names[1]} is not finite (or above "
            "1e150): leave it out, or use nan_policy='omit' to drop such rows"
        )
    return a, b, good


def vectors(a: ArrayLike, size: int, what: str) -> Array:
    """Vectors of shape (..., size).

    Raises
    ------
    ValueError
        For another shape.
    """
    a = floats(a, what)
    if a.ndim == 0 and size == 1:
        a = a.reshape(1)
    if a.ndim == 0 or a.shape[-1] != size:
        raise ValueError(f"{what} must have shape ({size},) or (..., {size}), got {a.shape}")
    return a


def prior_jacobian(jac0: ArrayLike | None, n: int, m: int) -> Array | None:
    """A copy of ``jac0``, shape (n, m), or None.

    Raises
    ------
    ValueError
        If it is not finite or of another shape.
    """
    if jac0 is None:
        return None
    a = np.array(floats(jac0, "jac0"), order="C")
    if a.shape != (n, m) or not np.isfinite(a).all():
        raise ValueError(f"jac0 must be finite and of shape ({n}, {m}), got shape {a.shape}")
    return a


def noise_levels(noise: ArrayLike | None, n: int) -> Array | None:
    """Standard deviation of each output, shape (n,), or None.

    Raises
    ------
    ValueError
        If it is negative, not finite or of another shape.
    """
    if noise is None:
        return None
    a = floats(noise, "noise")
    if a.shape not in ((), (n,)) or not (np.isfinite(a) & (a >= 0)).all():
        raise ValueError(
            f"noise must be a number or of shape ({n},), finite and not negative, got "
            f"{noise!r:.60}: use None to learn it from the residuals"
        )
    return np.broadcast_to(a, (n,)).copy()


def refuse_merge(a: Any, b: Any) -> None:
    """Refuse two streams whose samples could not have been those of one."""
    reasons = {
        "their modes differ": a.mode != b.mode,
        "one of them forgets, so the order of samples matters": (
            a.forgetting != 1 or b.forgetting != 1
        ),
        "one of them follows a moving point": bool(a._trail or b._trail),
        "their sizes differ": (a.n_inputs, a.n_outputs) != (b.n_inputs, b.n_outputs),
        "their jac0 differ": not _same(a._jac0, b._jac0),
        "their prior_scale differ": not _same(a._prior_scale, b._prior_scale),
        "their noise differ": not _same(a._noise, b._noise),
        "their sparsity differs": not _same_pattern(a.sparsity, b.sparsity),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"the streams cannot be merged: {reason}")


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def _same_pattern(a: SparsityPattern | None, b: SparsityPattern | None) -> bool:
    return a is b or (
        a is not None
        and b is not None
        and np.array_equal(a.indptr, b.indptr)
        and np.array_equal(a.indices, b.indices)
    )


def pattern_of(sparsity: Any, n: int, m: int, mode: str, jac0: Array | None) -> Any:
    """The pattern of a stream, or None.

    Raises
    ------
    TypeError, ValueError
        For what is no pattern of that shape, in Kaczmarz mode, and where ``jac0`` has entries that
        the pattern has not.
    """
    if sparsity is None:
        return None
    if isinstance(sparsity, str):
        raise ValueError(f"sparsity={sparsity!r} is no pattern, and a stream looks for none")
    if mode == "kaczmarz":
        raise ValueError("Kaczmarz updates have no sparsity: leave it out, or mode")
    pattern = SparsityPattern.of(
        sparsity.pattern if isinstance(sparsity, Coloring) else sparsity, (n, m)
    )
    if jac0 is not None:
        extra = np.argwhere((jac0 != 0) & ~pattern.to_csr().toarray())
        if len(extra):
            raise ValueError(
                f"jac0 has an entry at {tuple(extra[0].tolist())} that sparsity has not: leave it "
                "out there, or add it to the pattern"
            )
    return pattern
