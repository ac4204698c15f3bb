"""A Jacobian from one sample at a time."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np.covariance import Covariance
from gradiator_np.results import JacobianEstimate
from gradiator_np.solvers.rank_one import Mode, check_options, on_lines, pin, prior_lengths
from gradiator_np.solvers.solution import Solution
from gradiator_np.solvers.square_root import BLOCK, Fit, SquareRoot, solution_of
from gradiator_np.streaming.archive import read_archive, write_archive
from gradiator_np.streaming.arguments import (
    NanPolicy,
    floats,
    noise_levels,
    prior_jacobian,
    refuse_still,
    row_pairs,
    sizes,
    squares_finite,
    vectors,
)
from gradiator_np.streaming.trail import Trail

Array = NDArray[np.float64]

_KIND, _VERSION = "StreamingJacobian", 1


class StreamingJacobian:
    r"""A Jacobian that is corrected by every sample, with error bars.

    Parameters
    ----------
    n_inputs, n_outputs : int
        m and n.
    prior_scale : float or array, shape (m,), or None
        Weight of the prior, as a displacement in units of x: it counts as one earlier sample of
        this length along each input, which saw ``jac0``. None: the flattest prior that works, so
        that ``jac`` is the least-norm fit.
    jac0 : array, shape (n, m), or None
        Prior Jacobian, in y per x; None for zero.
    noise : float or array, shape (n,), or None
        Standard deviation of one sample of ``df``, in units of y (of one evaluation ``f`` where
        points are given); None to learn it from the residuals.
    forgetting : float
        Weight, in (0, 1], that each row leaves of earlier information *along its own direction*;
        directions that are not visited are kept. A direction's memory is some
        1 / (1 - forgetting) visits.
    mode : {"least-squares", "pin"}
        "least-squares" averages noise. "pin" fits the newest sample exactly and leaves what is
        orthogonal to it alone (Kaczmarz; Broyden's update): cheaper for large n and m, and without
        error bars.
    nan_policy : {"raise", "omit"}
        What to do with a row that is not finite in ``dx`` or in any output: refuse it, or drop
        all of it (counted in ``n_dropped``). A row is never used in part, because all outputs
        share one triangular factor.

    Attributes
    ----------
    n_inputs, n_outputs : int
    n_samples, n_dropped : int
        Rows taken (differences, where points are given) and rows left out.
    mode, forgetting, nan_policy
        As given.

    Notes
    -----
    With :math:`\Lambda = \Lambda_0 + \sum d d^T` and :math:`\Lambda_0 = \mathrm{diag}(p^2)`, p the
    ``prior_scale``, row i of J has covariance :math:`\sigma_i^2 \Lambda^{-1}` (Bayesian linear
    regression). Lambda is held by its triangular factor R, updated by QR; single samples wait
    in a buffer and are factored 64 at a time, or when something is read. The standard errors
    hold noise, not curvature nor the pull of a wrong prior; where the prior outweighs the samples
    they are infinite.

    ``forgetting`` depends on the order of the samples, not on how they are cut into blocks:
    with q = R d / |R d| each row d does [R | Z] <- (I - (1 - sqrt(forgetting)) q q^T) [R | Z]
    first (Lai and Bernstein, SIFt-RLS, arXiv:2404.10844).
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        prior_scale: ArrayLike | None = None,
        jac0: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        forgetting: float = 1.0,
        mode: Mode = "least-squares",
        nan_policy: NanPolicy = "raise",
    ) -> None:
        self.n_inputs, self.n_outputs = sizes(n_inputs, n_outputs)
        check_options(mode, forgetting)
        if nan_policy not in ("raise", "omit"):
            raise ValueError(f"nan_policy must be 'raise' or 'omit', got {nan_policy!r}")
        self.mode: Mode = mode
        self.forgetting = float(forgetting)
        self.nan_policy: NanPolicy = nan_policy
        self._prior_scale = prior_lengths(prior_scale, self.n_inputs)
        self._jac0 = prior_jacobian(jac0, self.n_outputs, self.n_inputs)
        self._noise = noise_levels(noise, self.n_outputs)
        self.reset()

    def reset(self) -> StreamingJacobian:
        """Forget all samples; the prior and the options stay."""
        m, n = self.n_inputs, self.n_outputs
        self.n_samples = self.n_dropped = 0
        self._held = 0
        self._fitted: Fit | None = None
        self._trail: Trail | None = None
        if self.mode == "pin":
            self._jac = on_lines(np.zeros((n, m)) if self._jac0 is None else self._jac0)
            return self
        self._state = SquareRoot.zeros(m, n, self.forgetting)
        self._prior = None if self._prior_scale is None else self._prior_scale.copy()
        self._dx = np.empty((BLOCK, m), order="F")
        self._df = np.empty((BLOCK, n), order="F")
        return self

    # -- samples in --------------------------------------------------------------------------

    def partial_fit(
        self,
        dx: ArrayLike | None = None,
        df: ArrayLike | None = None,
        *,
        x: ArrayLike | None = None,
        f: ArrayLike | None = None,
        move: bool = True,
    ) -> StreamingJacobian:
        """Take one sample, or a block of samples as rows.

        Parameters
        ----------
        dx, df : array, shape (m,) and (n,), or (k, m) and (k, n)
            Displacements from a common point and the changes of the outputs there, with noise
            that is independent between rows.
        x, f : array, shape (m,) and (n,), or (k, m) and (k, n)
            Points and the values there, in the order of a moving point's trail: the first is the
            point to start from, each next one gives a difference to the present point. The
            Jacobian is that at the present point: samples weigh less the longer they are and the
            further the point has moved on (see ``gradiator_np.streaming.trail``).
        move : bool
            Whether the present point moves to ``x``; False for a point that was only tried, such
            as a step that an optimiser rejected.

        Returns
        -------
        StreamingJacobian
            Itself.

        Raises
        ------
        ValueError
            If shapes disagree; for a row that is not finite (``nan_policy="raise"``); in pin mode
            for a row that did not move, named by its index. The state is then as it was.
        """
        if dx is not None and df is not None and x is None and f is None:
            dx, df = floats(dx, "dx"), floats(df, "df")
            # The path of a single good sample: a dot product finds what is not finite.
            if (
                self.mode != "pin"
                and dx.shape == (self.n_inputs,)
                and df.shape == (self.n_outputs,)
                and self._trail is None
                and squares_finite(dx)
                and squares_finite(df)
            ):
                held = self._held
                self._dx[held] = dx
                self._df[held] = df
                self._held = held + 1
                self._fitted = None
                self.n_samples += 1
                if self._held == BLOCK:
                    self._flush()
                return self
            if self._trail is not None:
                raise ValueError(
                    "this stream follows a moving point: give x= and f=, or call reset() first"
                )
            self._take(*self._rows(dx, df, "dx", "df"))
            return self
        if x is None or f is None or dx is not None or df is not None:
            raise TypeError("give either dx and df, or x= and f=")
        if self._trail is None and self.n_samples:
            raise ValueError(
                "this stream holds differences from a fixed point: go on with dx and df, or call "
                "reset() before it follows points x="
            )
        self._follow(*self._rows(x, f, "x", "f"), move)
        return self

    def _rows(self, a: ArrayLike, b: ArrayLike, first: str, second: str) -> tuple[Array, Array]:
        """Rows (k, m) and (k, n), all of them finite; counts those that are dropped."""
        both = self.n_inputs, self.n_outputs
        a, b, good = row_pairs(a, b, both, (first, second), self.nan_policy)
        dropped = int((~good).sum())
        if dropped:
            a, b = a[good], b[good]
        if self.mode == "pin":
            steps, index = a, np.flatnonzero(good)
            if first == "x":  # the very first point is no step
                index = index[self._trail is None :]
                start = a[:0] if self._trail is None else self._trail.x[None]
                steps = np.diff(a, axis=0, prepend=start)
            refuse_still(steps, index, first)
        self.n_dropped += dropped
        return a, b

    def _take(self, dx: Array, df: Array) -> None:
        if self.mode == "pin":
            pin(self._jac, np.ascontiguousarray(dx), np.ascontiguousarray(df))
        elif self._held + len(dx) < BLOCK:
            rows = slice(self._held, self._held + len(dx))
            self._dx[rows], self._df[rows] = dx, df
            self._held += len(dx)
        else:
            self._flush()
            self._state.absorb(dx, df if self._jac0 is None else df - dx @ self._jac0.T)
        self._fitted = None
        self.n_samples += len(dx)

    def _flush(self) -> None:
        """Factor the rows that wait in the buffer."""
        if self._held:
            dx, df = self._dx[: self._held], self._df[: self._held]
            self._held = 0
            self._state.absorb(dx, df if self._jac0 is None else df - dx @ self._jac0.T)

    def _follow(self, points: Array, values: Array, move: bool) -> None:
        if not len(points):
            return
        trail = self._trail or Trail.start(points[0], values[0])
        fresh = self._trail is None
        self._trail = trail
        for x, f in zip(points[fresh:], values[fresh:]):
            dx, df = x - trail.x, f - trail.f
            if self.mode == "pin":
                self._take(dx[None], df[None])
            elif dx.any():
                growth = trail.stretch(dx)
                if not self._noise_known:
                    # Weights are then relative to curvature alone, 1 / length^4.
                    self._state.rescale(growth**2)
                surprise = self._surprise(dx, df) if self._noise_known else None
                weight, drift = trail.weigh(dx, surprise)
                if move:
                    self._state.drift(drift)
                    if self._prior is not None:
                        self._prior /= np.sqrt(1 + self._prior**2 * drift)
                self._take(math.sqrt(weight) * dx[None], math.sqrt(weight) * df[None])
                self._flush()
            if move:
                trail.x, trail.f = x.copy(), f.copy()

    @property
    def _noise_known(self) -> bool:
        return self._noise is not None and bool(self._noise.all())

    def _surprise(self, dx: Array, df: Array) -> float:
        """Mean squared misfit of a predicted difference in units of the noise; nan if it is new."""
        if self._fit().unknown(dx) > 0.5:
            return math.nan
        miss = df - self.jvp(dx)
        return float(np.square(miss if self._noise is None else miss / self._noise).mean())

    # -- answers out -------------------------------------------------------------------------

    def _fit(self) -> Fit:
        if self._fitted is None:
            self._flush()
            self._fitted = self._state.fit(self._prior)
        return self._fitted

    @property
    def jac(self) -> Array:
        """The Jacobian (n, m), y per x: a copy."""
        if self.mode == "pin":
            return self._jac.copy()
        coef = self._fit().coef
        return coef.copy() if self._jac0 is None else coef + self._jac0

    @property
    def solution(self) -> Solution:
        """Jacobian, covariance and what limits them, as flat arrays."""
        if self.mode != "pin":
            return replace(solution_of(self._state, self._fit(), noise=self._noise), coef=self.jac)
        m, n = self.n_inputs, self.n_outputs
        lost = np.full(n, np.nan)
        return Solution(
            coef=self.jac,
            cov=Covariance(lost, diag=np.full(m, np.nan)),
            dof=np.zeros(n),
            rank=np.asarray(min(self.n_samples, m), np.intp),
            cond=np.asarray(np.nan),
            residual=lost,
            message="pin mode keeps no record of directions: no error bars; rank is an upper bound",
        )

    def estimate(self) -> JacobianEstimate:
        """The present state as a frozen result."""
        return JacobianEstimate.from_solution(
            self.solution,
            x_flat=None if self._trail is None else self._trail.x,
            y_flat=None if self._trail is None else self._trail.f,
            design="stream",
            n_samples=self.n_samples,
            n_failed=self.n_dropped,
        )

    @property
    def noise(self) -> Array:
        """Standard deviation of one sample, per output (n,): given, or learned; nan if unknown."""
        return np.asarray(self.solution.cov.scale)

    @property
    def stderr(self) -> Array:
        """Standard error of each entry (n, m): inf where undetermined, nan where untold.

        In pin mode nan everywhere: a pin keeps no record of what it has seen.
        """
        return self.solution.cov.stderr()

    def jvp(self, u: ArrayLike) -> Array:
        """J u for u of shape (m,) or (..., m)."""
        u = vectors(u, self.n_inputs, "u")
        return np.asarray(u @ (self._jac if self.mode == "pin" else self.jac).T)

    def vjp(self, v: ArrayLike) -> Array:
        """v^T J for v of shape (n,) or (..., n)."""
        v = vectors(v, self.n_outputs, "v")
        return np.asarray(v @ (self._jac if self.mode == "pin" else self.jac))

    def jvp_stderr(self, u: ArrayLike) -> Array:
        """Standard error of ``jvp(u)``, from the covariance of whole rows."""
        u = vectors(u, self.n_inputs, "u")
        return np.asarray(np.sqrt(self.solution.cov.jvp_variance(u)))

    def vjp_stderr(self, v: ArrayLike) -> Array:
        """Standard error of ``vjp(v)``."""
        v = vectors(v, self.n_outputs, "v")
        return np.asarray(np.sqrt(self.solution.cov.vjp_variance(v)))

    def unknown(self, u: ArrayLike) -> Any:
        """How much of a direction no sample has shown yet, from 0 (known) to 1 (never seen).

        sqrt(u' Lambda^-1 u / u' Lambda_0^-1 u): the standard error of J u relative to its prior.

        Parameters
        ----------
        u : array, shape (m,) or (..., m)

        Raises
        ------
        ValueError
            If a direction is zero, and in pin mode, which keeps no record of directions.
        """
        if self.mode == "pin":
            raise ValueError(
                "pin mode keeps no record of the directions it has seen: use mode='least-squares'"
            )
        u = vectors(u, self.n_inputs, "u")
        if not u.any(axis=-1).all():
            raise ValueError("u is zero: that is no direction")
        return self._fit().unknown(u)[()]

    # -- whole states ------------------------------------------------------------------------

    def copy(self) -> StreamingJacobian:
        """An independent copy."""
        new = object.__new__(StreamingJacobian)
        new.__dict__.update(self.__dict__)
        if self.mode == "pin":
            new._jac = on_lines(self._jac)
        else:
            new._state = self._state.copy()
            new._dx, new._df = self._dx.copy(order="F"), self._df.copy(order="F")
            new._prior = None if self._prior is None else self._prior.copy()
        new._trail = None if self._trail is None else self._trail.copy()
        return new

    def merge(self, other: StreamingJacobian) -> StreamingJacobian:
        """Add all samples of ``other``, as if this stream had seen them; the prior counts once.

        Raises
        ------
        ValueError
            Unless both are least-squares streams of equal sizes, priors and noise, without
            forgetting, and neither follows a moving point.
        """
        reasons = {
            "one of them is in pin mode": "pin" in (self.mode, other.mode),
            "one of them forgets, so the order of samples matters": (
                self.forgetting != 1 or other.forgetting != 1
            ),
            "one of them follows a moving point": bool(self._trail or other._trail),
            "their sizes differ": (self.n_inputs, self.n_outputs)
            != (other.n_inputs, other.n_outputs),
            "their jac0 differ": not _same(self._jac0, other._jac0),
            "their prior_scale differ": not _same(self._prior_scale, other._prior_scale),
            "their noise differ": not _same(self._noise, other._noise),
        }
        for reason, holds in reasons.items():
            if holds:
                raise ValueError(f"the streams cannot be merged: {reason}")
        # A copy, so that a stream can be merged with itself, and ``other`` keeps its buffer.
        added = other.copy()
        added._flush()
        self._flush()
        self._state.merge(added._state)
        self._fitted = None
        self.n_samples += added.n_samples
        self.n_dropped += added.n_dropped
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole state to one npz file (no pickle).

        The file is replaced in one step: an interrupted write leaves the old one intact.
        """
        meta: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("n_inputs", "n_outputs", "mode", "forgetting", "nan_policy")
        }
        meta |= {"n_samples": self.n_samples, "n_dropped": self.n_dropped}
        arrays: dict[str, Array | None] = {
            "prior_scale": self._prior_scale,
            "jac0": self._jac0,
            "noise": self._noise,
        }
        if self.mode == "pin":
            arrays["jac"] = self._jac
        else:
            self._flush()
            state = self._state
            arrays |= {"r": state.r, "z": state.z, "ssr": state.ssr, "prior": self._prior}
            meta |= {"counts": [state.total, state.degrees, state.squares]}
        if self._trail is not None:
            trail = self._trail
            arrays |= {"trail_x": trail.x, "trail_f": trail.f, "trail_span": trail.span}
            meta |= {"bend": [trail.bend, trail.spread]}
        kept = {name: a for name, a in arrays.items() if a is not None}
        write_archive(path, _KIND, _VERSION, {"meta": np.array(json.dumps(meta)), **kept})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StreamingJacobian:
        """Read what ``save`` wrote.

        Raises
        ------
        ValueError
            If the file was cut short or altered, or is of another kind or version.
        """
        arrays = read_archive(path, _KIND, _VERSION)
        meta = json.loads(str(arrays.pop("meta")))
        sizes = meta.pop("n_inputs"), meta.pop("n_outputs")
        options = {name: meta[name] for name in ("mode", "forgetting", "nan_policy")}
        options |= {name: arrays.get(name) for name in ("prior_scale", "jac0", "noise")}
        new = cls(*sizes, **options)
        new.n_samples, new.n_dropped = meta["n_samples"], meta["n_dropped"]
        if new.mode == "pin":
            new._jac[:] = arrays["jac"]
        else:
            state = new._state
            state.r[:], state.z[:], state.ssr[:] = arrays["r"], arrays["z"], arrays["ssr"]
            state.total, state.degrees, state.squares = meta["counts"]
            new._prior = arrays.get("prior")
        if "trail_x" in arrays:
            x, f, span = (arrays[f"trail_{name}"] for name in ("x", "f", "span"))
            new._trail = Trail(x, f, span, *meta["bend"])
        return new


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
