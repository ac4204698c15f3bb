"""The trust-region subproblem: least squares within a ball and a box, by an active set."""

from __future__ import annotations

import numpy as np

from gradiator_np._calibration.constraints import constrained_step
from gradiator_np._calibration.triangles import regular_inverse
from gradiator_np._typing import Array, Mask

#: A step that ends so near to a bound, in radii, is on it: rounding of NNLS.
NEAR_BOUND = 1e-9


def solve_subproblem(
    residuals: Array, jac: Array, low: Array, high: Array, rows: Array, room: Array
) -> tuple[Array, Mask]:
    """min |r + J u| over |u| <= 1, low <= u <= high, rows u <= room: u, and the bounds it meets.

    Inputs that hit a bound join the active set and the others are solved again; then one at a
    time is released whose slope points inside, as long as that gains.

    Parameters
    ----------
    residuals : array, shape (n,)
    jac : array, shape (n, m)
    low, high : array, shape (m,)
        About u = 0, which lies within them.
    rows, room : array, shape (q, m) and (q,)
        Half-spaces, none for bounds alone.
    """
    if len(rows):
        each = np.eye(len(low))
        g, h = np.vstack([rows, each, -each]), np.concatenate([room, high, -low])
        u = constrained_step(residuals, jac, g[np.isfinite(h)], h[np.isfinite(h)])
        u = np.clip(u, low, high)
        return u, (u <= low + NEAR_BOUND) | (u >= high - NEAR_BOUND)
    fixed = high <= low
    u, active = _step_with_active(residuals, jac, low, high, fixed)
    best = float(np.square(residuals + jac @ u).sum())
    for _ in range(jac.shape[1]):
        slope = jac.T @ (residuals + jac @ u)
        inward = np.where(u <= low, -slope, slope)
        inward[~active | fixed] = 0.0
        released = int(np.argmax(inward))
        if inward[released] <= 0.0:
            break
        kept = active.copy()
        kept[released] = False
        v, now = _step_with_active(residuals, jac, low, high, kept, u)
        value = float(np.square(residuals + jac @ v).sum())
        if value >= best:
            break
        u, active, best = v, now, value
    return u, active


def _step_with_active(
    residuals: Array, jac: Array, low: Array, high: Array, active: Mask, start: Array | None = None
) -> tuple[Array, Mask]:
    """The step with ``active`` inputs where ``start`` has them; more join as they hit a bound."""
    u = np.clip(np.zeros(len(low)) if start is None else start, low, high)
    free = ~active
    for _ in range(len(u) + 1):
        room = 1.0 - u[~free] @ u[~free]
        if not free.any() or room <= 0:
            break
        rest = residuals + jac[:, ~free] @ u[~free]
        u[free] = _step_in_ball(rest, jac[:, free], float(np.sqrt(room)))
        out = free & ((u < low) | (u > high))
        if not out.any():
            break
        u = np.clip(u, low, high)
        free = free & ~out
    return np.clip(u, low, high), ~free


def _step_in_ball(residuals: Array, jac: Array, radius: float) -> Array:
    """min |r + J u|, |u| <= radius: by QR where that is within, else the secular equation, from the
    singular values of J."""
    q, r = np.linalg.qr(jac)
    inverse = regular_inverse(r, 1e-10)
    if inverse is not None:
        step = -(inverse @ (q.T @ residuals))
        if np.sqrt(step @ step) <= radius:
            return np.asarray(step)
    left, s, vt = np.linalg.svd(jac, full_matrices=False)
    b = -(left.T @ residuals)
    good = s > 1e-13 * s[0] if s.size and s[0] > 0 else np.zeros(s.size, bool)
    s, b, vt = s[good], b[good], vt[good]
    if not s.size:
        return np.zeros(jac.shape[1])
    w = b / s
    if np.sqrt(w @ w) <= radius:
        return np.asarray(w @ vt)
    low, high = 0.0, float(np.sqrt(np.square(s * b).sum())) / radius
    for _ in range(60):  # |u| falls as the damping grows
        lam = np.sqrt(low * high) if low > 0 else 1e-3 * high
        w = s * b / (s * s + lam)
        if np.sqrt(w @ w) > radius:
            low = lam
        else:
            high = lam
            if np.sqrt(w @ w) > 0.999 * radius or lam < 1e-30 * s[0] ** 2:
                break
    return np.asarray(w @ vt)
