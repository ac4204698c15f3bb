"""What the outputs share: the prior of their hyperparameters, and the anisotropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradiator_np._typing import Array, Mask
from gradiator_np.solvers._taylor.kernel import ADDITIVE, Kernel, kernel, kernel_gradient
from gradiator_np.solvers._taylor.spectrum import N_S, N_Z, PER, S_MIN, Z_MIN, SharedSamples

#: Outputs count as at most so many observations of their common prior. With 3, intervals of
#: outputs with one contrast each (k = 1.5 m) were twice as wide; errors are the same.
SHARE = 20.0
#: Power of the length scale that series are likely with.
LONGER = 0.26
#: A stationary process of length scale ``ONCE_MORE`` radii would be as likely as a series that
#: bends within the samples; shorter ones are rarer by this power. With that of a series, every
#: tenth noisy data set had an interval four times as wide as its noise; with a steeper one
#: functions that turn within the samples hold no less.
ONCE_MORE = 10.0**0.5
RARER = 2.26
#: log-sd of the relative inverse length scales of the inputs, and the power of their slopes that
#: they are about: they go with slopes to the power 0.8 (median of 54 functions), not everywhere.
TAU = 0.3
GUIDE = 0.4
#: log-sd of the weight of functions of one input each: learned, errors are 0.65 to 0.97 of those
#: with one weight for all; with 2 they are the same.
OMEGA = 1.0


def empirical_bayes_prior(like: Array, lengths: Array, rounds: int = 8) -> Array:
    """Prior of the hyperparameter states, learned from all outputs (empirical Bayes, by EM).

    Outputs are functions of the same inputs and share their truncation, so they do not count as
    that many independent observations: the weight of all together is bounded, and one output alone
    has nothing to share.

    Parameters
    ----------
    like : array, shape (n, R, Z, S)
        Restricted likelihood of each output in every state.
    lengths : array, shape (R,)
        Weight of each length scale before any output; see `length_weights`.
    rounds : int
        EM steps.

    Returns
    -------
    array, shape (R, Z, S)
    """
    n = len(like)
    base = hyperprior(lengths)
    flat = like.reshape(n, -1)
    weight = min(float(n - 1), SHARE)
    out = base
    for _ in range(rounds):
        p = out.ravel()
        found = (p * ((1.0 / (flat @ p)) @ flat) / n).reshape(base.shape)
        out = (base + weight * _blur(_blur(found, 1), 2)) / (1.0 + weight)
    return out


def plausible_lengths(like: Array, prior: Array) -> Mask:
    """Length scales with more than 1 % of the posterior of any output, shape (R,)."""
    by_rho = (like * prior).sum((2, 3))
    return np.asarray((by_rho > 1e-2 * by_rho.sum(1, keepdims=True)).any(0))


def _blur(p: Array, axis: int) -> Array:
    """[1, 2, 1] / 4 along an axis; what would leave the grid stays at its end."""
    q = np.moveaxis(p, axis, 0)
    padded = np.concatenate([q[:1], q, q[-1:]])
    return np.moveaxis(0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:], 0, axis)


def length_weights(kernels: Sequence[Kernel], unit: float) -> Array:
    """How likely length scales are before any output, relative to each other, shape (R,).

    Longer ones are likelier: where one contrast is all that an output has, the tail of short length
    scales would make the interval. ``unit`` is the median radius of the samples.
    """
    rho = np.array([k.rho for k in kernels]) / unit
    is_series = np.array([k.is_series for k in kernels])
    return np.asarray(np.where(is_series, rho**LONGER, (rho / ONCE_MORE) ** RARER))


def hyperprior(lengths: Array) -> Array:
    """Prior of the states before any output: shape (R, Z, S).

    Curvature about 0.8 of the output's spread, within 0.3 decades; less noise is likelier.
    """
    z = (np.arange(N_Z) + Z_MIN) / PER
    s = (np.arange(N_S) + S_MIN) / PER
    curvature = np.exp(-0.5 * ((z + 0.1) / 0.3) ** 2)
    out = lengths[:, None, None] * curvature[:, None] * np.exp(-0.1 * s)
    return np.asarray(out / out.sum())


def learn_anisotropy(rows: SharedSamples, y: Array, rho: float) -> tuple[Array, float]:
    """Relative inverse length scales of the inputs (automatic relevance determination).

    They and the weight of functions of one input each maximise the restricted likelihood of all
    outputs together, with a penalty on unequal inputs.

    Parameters
    ----------
    rows : SharedSamples
        Isotropic as yet.
    y : array, shape (k, n)
        Scaled outputs.
    rho : float
        Where the search starts, in the units of u.

    Returns
    -------
    anisotropy : array, shape (m,)
        Normalised to keep the largest |u * anisotropy|.
    additive : float
        Weight of functions of one input each.
    """
    from scipy.optimize import minimize

    lin, root, size = rows.linear(contrasts=True), rows.root, _largest(rows.u)
    d, n = len(y) - lin.rank, y.shape[1]
    if d < 2 or size == 0:
        return rows.anisotropy, rows.additive
    weight = root * root.T
    expected = _expected_anisotropy((lin.back @ (lin.q1.T @ (root * y)))[int(rows.intercept) :])
    u = rows.u * expected
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
    anisotropy = expected * np.exp(found.x[:-2])
    return anisotropy * (size / _largest(rows.u * anisotropy)), float(
        ADDITIVE * np.exp(found.x[-2])
    )


def _expected_anisotropy(slopes: Array) -> Array:
    """Anisotropy to be expected of inputs with these slopes (m, n), of geometric mean 1."""
    square = np.square(slopes)
    share = (square / np.maximum(square.sum(0), np.finfo(float).tiny)).mean(1)
    log = 0.5 * GUIDE * np.log(share + 1e-3)
    return np.asarray(np.exp(log - log.mean()))


def _largest(u: Array) -> float:
    return float(np.linalg.norm(u, axis=1).max(initial=0.0))
