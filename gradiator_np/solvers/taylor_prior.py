"""What the outputs of one cloud teach each other: prior of the states, bends of the inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradiator_np.solvers.taylor_kernel import ADDITIVE, kernel, kernel_gradient
from gradiator_np.solvers.taylor_model import N_S, N_Z, PER, S_MIN, Z_MIN, Rows

Array = NDArray[np.float64]

#: Outputs count as at most so many observations of their common prior. With 3, intervals of
#: outputs with one contrast each (k = 1.5 m) were twice as wide; errors are the same.
SHARE = 20.0
#: log-sd of the relative bend of the inputs, and the power of their slopes that it is about:
#: bends go with slopes to the power 0.8 (median of 54 functions), but not everywhere.
TAU = 0.3
GUIDE = 0.4
#: log-sd of the weight of functions of one input each: learned, errors are 0.65 to 0.97 of those
#: with one weight for all; with 2 they are the same.
OMEGA = 1.0


def shared_prior(like: Array, rounds: int = 8) -> Array:
    """Prior of the states as the outputs tell it to each other (empirical Bayes, EM).

    Outputs are functions of the same inputs and share their truncation, so the weight of what
    they tell together is bounded.
    """
    n = len(like)
    base = base_prior(like.shape[1])
    if n == 1:
        return base
    flat = like.reshape(n, -1)
    weight = min(float(n), SHARE)
    out = base
    for _ in range(rounds):
        p = out.ravel()
        found = (p * ((1.0 / (flat @ p)) @ flat) / n).reshape(base.shape)
        out = (base + weight * _blur(_blur(found, 1), 2)) / (1.0 + weight)
    return out


def likely(like: Array, prior: Array) -> NDArray[np.bool_]:
    """The rho that matter to any output, shape (R,)."""
    by_rho = (like * prior).sum((2, 3))
    return np.asarray((by_rho > 1e-2 * by_rho.sum(1, keepdims=True)).any(0))


def _blur(p: Array, axis: int) -> Array:
    """[1, 2, 1] / 4 along an axis; what would leave the grid stays at its end."""
    q = np.moveaxis(p, axis, 0)
    padded = np.concatenate([q[:1], q, q[-1:]])
    return np.moveaxis(0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:], 0, axis)


def base_prior(n_rho: int) -> Array:
    """Curvature about 0.8 of the output's spread, within 0.3 decades; longer rho and less noise
    are likelier: where one contrast is all that an output has, the tail of short rho would make
    the interval."""
    z = (np.arange(N_Z) + Z_MIN) / PER
    s = (np.arange(N_S) + S_MIN) / PER
    curvature = np.exp(-0.5 * ((z + 0.1) / 0.3) ** 2)
    length = np.exp(0.3 * np.arange(n_rho))
    out = length[:, None, None] * curvature[:, None] * np.exp(-0.1 * s)
    return np.asarray(out / out.sum())


def bends(rows: Rows, y: Array, rho: float) -> tuple[Array, float]:
    """How inputs bend f, alone and together: what maximises the pooled likelihood.

    Parameters
    ----------
    rows : Rows
        With equal bends.
    y : array, shape (k, n)
        Scaled outputs.
    rho : float
        Where the search starts, in the units of u.

    Returns
    -------
    bend : array, shape (m,)
        Normalised to keep the largest |v|.
    additive : float
        Weight of functions of one input each.
    """
    from scipy.optimize import minimize

    lin, root, size = rows.linear(contrasts=True), rows.root, _largest(rows.u)
    d, n = len(y) - lin.rank, y.shape[1]
    if d < 2 or size == 0:
        return rows.bend, rows.additive
    weight = root * root.T
    guide = _guide((lin.back @ (lin.q1.T @ (root * y)))[int(rows.intercept) :])
    u = rows.u * guide
    rho = max(rho, _largest(u) / 3.0)  # exp(|v|^2) stays below 1e16 within the bounds
    zy, share = lin.z.T @ (root * y), min(n, 4.0) / n
    usual = lin.z.T @ (weight * kernel(u / rho, ADDITIVE)) @ lin.z
    start = np.log(np.trace(usual) / d + 1e-300)
    spread = np.append(np.full(u.shape[1], TAU), OMEGA)

    def negative(par: Array) -> tuple[float, Array]:
        v, r = u * (np.exp(par[:-2]) / rho), np.exp(par[-1])
        additive = ADDITIVE * np.exp(par[-2])
        k = kernel(v, additive)
        lam, vec = np.linalg.eigh(lin.z.T @ (weight * k) @ lin.z)
        lam = np.maximum(lam, 0.0) + r
        zv = lin.z @ vec
        part = vec.T @ zy
        quad = np.maximum((part * part / lam[:, None]).sum(0), 1e-300)
        value = 0.5 * (d * np.log(quad).sum() + n * np.log(lam).sum())
        # d value / d K, restricted to the contrasts.
        alpha = zv @ (part / lam[:, None])
        push = weight * (d * (alpha / quad) @ alpha.T - n * (zv / lam) @ zv.T)
        grad = kernel_gradient(v, additive, k, push)
        past = (np.square(part / lam[:, None]) / quad).sum()
        grad_r = 0.5 * r * (d * past - n * (1.0 / lam).sum())
        far = par[:-1] / spread
        slope = np.append(far / spread - share * grad, -share * grad_r)
        return share * value + 0.5 * (far @ far), slope

    found = minimize(
        negative, np.append(np.zeros(u.shape[1] + 1), start - 4.0), jac=True, method="L-BFGS-B",
        bounds=[(-1.5, 0.7)] * u.shape[1] + [(-3.0, 4.0), (start - 30.0, start + 10.0)],
        options={"maxiter": 8, "maxfun": 10},
    )  # fmt: skip
    bend = guide * np.exp(found.x[:-2])
    return bend * (size / _largest(rows.u * bend)), float(ADDITIVE * np.exp(found.x[-2]))


def _guide(slopes: Array) -> Array:
    """Bends to be expected of inputs with these slopes (m, n), of geometric mean 1."""
    square = np.square(slopes)
    share = (square / np.maximum(square.sum(0), np.finfo(float).tiny)).mean(1)
    log = 0.5 * GUIDE * np.log(share + 1e-3)
    return np.asarray(np.exp(log - log.mean()))


def _largest(u: Array) -> float:
    return float(np.linalg.norm(u, axis=1).max(initial=0.0))
