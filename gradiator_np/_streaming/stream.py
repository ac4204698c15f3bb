"""A Jacobian from one sample at a time."""

from __future__ import annotations

import json
import os
import threading
from copy import copy
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from gradiator_np import _checks as checks
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._streaming.archive import part_of, read_archive, write_archive
from gradiator_np._streaming.arguments import (
    floats,
    noise_levels,
    pattern_of,
    prior_jacobian,
    refuse_merge,
    row_pairs,
    squares_finite,
    vectors,
)
from gradiator_np._streaming.kaczmarz import KaczmarzState
from gradiator_np._streaming.least_squares import LeastSquaresState
from gradiator_np._streaming.sparse import SparseState
from gradiator_np._streaming.state import StreamState
from gradiator_np._streaming.trail import Trail
from gradiator_np._text import extent
from gradiator_np._typing import Array, NanPolicy
from gradiator_np.solvers._recursive.kaczmarz import refuse_zero_steps
from gradiator_np.solvers._recursive.rank_one import Mode, check_options, prior_lengths
from gradiator_np.solvers._solution import Solution
from gradiator_np.sparsity import SparsityPattern

_KIND, _VERSION = "StreamingJacobian", 2
_META = (
    "n_inputs", "n_outputs", "mode", "forgetting", "nan_policy", "n_samples", "n_dropped",
)  # fmt: skip


class StreamingJacobian:
    r"""A Jacobian that is corrected by every sample, with error bars.

    Parameters
    ----------
    n_inputs, n_outputs : int
        m and n.
    prior_scale : float or array, shape (m,), or None
        Weight of the prior, as a displacement in units of x: it counts as one earlier sample of
        this length along each input, which saw ``jac0``. None: a prior without weight, so that
        ``jac`` is the fit nearest to ``jac0``, of least norm where none is given.
    jac0 : array, shape (n, m), or None
        Prior Jacobian, in y per x; None for zero.
    noise : float or array, shape (n,), or None
        Standard deviation of one sample of ``df``, in units of y (of one evaluation ``f`` where
        points are given); None to learn it from the residuals.
    forgetting : float
        Weight, in (0, 1], that each row leaves of earlier information *along its own direction*;
        directions that are not visited are kept. A direction's memory is some
        1 / (1 - forgetting) visits.
    mode : {"least-squares", "kaczmarz"}
        "least-squares" averages noise (recursive least squares). "kaczmarz" fits the newest sample
        exactly and leaves what is orthogonal to it alone (Broyden's update): cheaper for large n
        and m, and without error bars, so ``prior_scale`` and ``noise`` have no place in it.
    nan_policy : {"raise", "omit"}
        What to do with a row that is not finite in ``dx`` or in any output: refuse it, or drop
        all of it (counted in ``n_dropped``). A row is never used in part, because all outputs
        share one triangular factor.
    sparsity : pattern, optional
        Which outputs read which inputs, as ``jacobian`` takes it: an output of s inputs is then
        determined by s samples, and entries that the pattern has not are 0. Nothing checks it.

    Attributes
    ----------
    n_inputs, n_outputs : int
    n_samples, n_dropped : int
        Rows taken (differences, where points are given) and rows left out.
    mode, forgetting, nan_policy
        As given.
    sparsity : SparsityPattern or None

    Notes
    -----
    With :math:`\Lambda = \Lambda_0 + \sum d d^T` and :math:`\Lambda_0 = \mathrm{diag}(p^2)`, p the
    ``prior_scale``, row i of J has covariance :math:`\sigma_i^2 \Lambda^{-1}` (Bayesian linear
    regression), and the pseudo-inverse without a prior. What samples add to it is held by its
    triangular factor R, updated by QR; single samples wait in a buffer and are factored 64 at a
    time, or when something is read. The standard errors hold noise, not curvature nor the pull of a
    wrong prior; where the prior outweighs the samples they are infinite. Threads may feed and read
    one stream; with ``forgetting``, along a trail and in Kaczmarz mode the order in which their
    samples come in matters.

    ``forgetting`` depends on the order of the samples, not on how they are cut into blocks:
    with q = R d / |R d| each row d does [R | Z] <- (I - (1 - sqrt(forgetting)) q q^T) [R | Z]
    first (Lai and Bernstein, SIFt-RLS, arXiv:2404.10844).

    Along the trail of a moving point, J is taken to be a random walk: a difference over a step of
    length d has variance 2 sigma^2 + L^2 d^4 / 4, L the size of second derivatives, and a move adds
    the variance L^2 d^2 to J. L is learned from the innovations where ``noise`` is given, and is
    the only scale where it is not.

    Examples
    --------
    >>> from gradiator_np import StreamingJacobian
    >>> stream = StreamingJacobian(2, 1, noise=0.1)
    >>> for dx, df in [([1.0, 0.0], 2.0), ([0.0, 1.0], -1.1), ([1.0, 1.0], 1.0)]:
    ...     stream = stream.partial_fit(dx, [df])
    >>> stream.jac.round(2), stream.stderr.round(2)
    (array([[ 2.03, -1.07]]), array([[0.08, 0.08]]))
    >>> stream
    StreamingJacobian: 1 outputs x 2 inputs, 3 samples (least-squares, forgetting=1, noise=0.1)
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
        sparsity: Any = None,
    ) -> None:
        self.n_inputs = checks.integer(n_inputs, "n_inputs")
        self.n_outputs = checks.integer(n_outputs, "n_outputs")
        check_options(mode, forgetting)
        checks.choice(nan_policy, ("raise", "omit"), "nan_policy")
        if mode == "kaczmarz" and not (prior_scale is None and noise is None):
            raise ValueError(
                "Kaczmarz updates know neither prior_scale nor noise: leave them out, or use "
                "mode='least-squares'"
            )
        self.mode: Mode = mode
        self.forgetting = float(forgetting)
        self.nan_policy: NanPolicy = nan_policy
        self._prior_scale = prior_lengths(prior_scale, self.n_inputs)
        self._jac0 = prior_jacobian(jac0, self.n_outputs, self.n_inputs)
        self._noise = noise_levels(noise, self.n_outputs)
        self.sparsity: SparsityPattern | None = pattern_of(
            sparsity, self.n_outputs, self.n_inputs, mode, self._jac0
        )
        self._x_shape, self._f_shape = (self.n_inputs,), (self.n_outputs,)
        # Reading factors what waits, so that readers take it as well (0.1 us a sample).
        self._lock = threading.RLock()
        self.reset()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    def reset(self) -> StreamingJacobian:
        """Forget all samples; the prior and the options stay."""
        m, n = self.n_inputs, self.n_outputs
        if self.mode == "kaczmarz":
            state: StreamState = KaczmarzState(
                np.zeros((n, m)) if self._jac0 is None else self._jac0
            )
        else:
            options: Any = {
                "forgetting": self.forgetting, "prior_scale": self._prior_scale,
                "jac0": self._jac0, "noise": self._noise,
            }  # fmt: skip
            state = (
                LeastSquaresState(m, n, **options)
                if self.sparsity is None
                else SparseState(self.sparsity, **options)
            )
        with self._lock:
            self.n_samples = self.n_dropped = 0
            self._trail: Trail | None = None
            self._state: StreamState = state
        return self

    def __repr__(self) -> str:
        given = self._noise
        noise = "learned" if given is None else given if np.ptp(given) else given[0]
        dropped = f", {self.n_dropped} dropped" if self.n_dropped else ""
        return (
            f"StreamingJacobian: {extent((self.n_outputs, self.n_inputs))}, "
            f"{self.n_samples} samples{dropped} ({self.mode}, forgetting={self.forgetting:g}, "
            f"noise={noise})"
        )

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
            further the point has moved on.
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
            If shapes disagree; for a row that is not finite (``nan_policy="raise"``); in Kaczmarz
            mode for a row that did not move, named by its index. The state is then as it was.
        """
        if dx is not None and df is not None and x is None and f is None:
            dx, df = floats(dx, "dx"), floats(df, "df")
            # The path of a single good sample: a dot product finds what is not finite.
            if (
                dx.shape == self._x_shape
                and df.shape == self._f_shape
                and self._trail is None
                and not self._state.needs_motion
                and squares_finite(dx)
                and squares_finite(df)
            ):
                with self._lock:
                    self._state.add(dx, df)
                    self.n_samples += 1
                return self
            if self._trail is not None:
                raise ValueError(
                    "this stream follows a moving point: give x= and f=, or call reset() first"
                )
            with self._lock:
                dx, df = self._rows(dx, df, "dx", "df")
                self._state.add(dx, df)
                self.n_samples += len(dx)
            return self
        if x is None or f is None or dx is not None or df is not None:
            raise TypeError("give either dx and df, or x= and f=")
        if self._trail is None and self.n_samples:
            raise ValueError(
                "this stream holds differences from a fixed point: go on with dx and df, or call "
                "reset() before it follows points x="
            )
        with self._lock:
            self._follow(*self._rows(x, f, "x", "f"), move)
        return self

    def _rows(self, a: ArrayLike, b: ArrayLike, first: str, second: str) -> tuple[Array, Array]:
        """Rows (k, m) and (k, n), all of them finite; counts those that are dropped."""
        both = self.n_inputs, self.n_outputs
        a, b, good = row_pairs(a, b, both, (first, second), self.nan_policy)
        dropped = int((~good).sum())
        if dropped:
            a, b = a[good], b[good]
        if self._state.needs_motion:
            steps, index = a, np.flatnonzero(good)
            if first == "x":  # the very first point is no step
                index = index[self._trail is None :]
                start = a[:0] if self._trail is None else self._trail.x[None]
                steps = np.diff(a, axis=0, prepend=start)
            refuse_zero_steps(steps, index, first)
        self.n_dropped += dropped
        return a, b

    def _follow(self, points: Array, values: Array, move: bool) -> None:
        if self._trail is None and len(points):
            self._trail = Trail.start(points[0], values[0])
            points, values = points[1:], values[1:]
        trail = cast(Trail, self._trail)  # there is one where there are points
        for x, f in zip(points, values):
            dx = x - trail.x
            if dx.any():
                self._state.follow(dx, f - trail.f, trail, move)
                self.n_samples += 1
            if move:
                trail.move(x, f)

    # -- answers out -------------------------------------------------------------------------

    @property
    def jac(self) -> Array:
        """The Jacobian (n, m), y per x: a copy."""
        with self._lock:
            return self._state.jac.copy()

    @property
    def solution(self) -> Solution:
        """Jacobian, covariance and what limits them, as flat arrays."""
        with self._lock:
            return self._state.solution(self.n_samples)

    def estimate(self) -> JacobianEstimate:
        """The present state as a frozen result."""
        with self._lock:
            solution, trail = self.solution, self._trail
            point = () if trail is None else (trail.x, trail.f)
            return JacobianEstimate(
                solution, Frame.vectors(solution, *point), "stream", n_samples=self.n_samples,
                n_failed=self.n_dropped,
            )  # fmt: skip

    @property
    def noise(self) -> Array:
        """Standard deviation of one sample, per output (n,): given, or learned; nan if unknown."""
        return np.asarray(self.solution.cov.scale)

    @property
    def stderr(self) -> Array:
        """Standard error of each entry (n, m): inf where undetermined, nan where untold.

        nan everywhere in Kaczmarz mode. Products: ``estimate().jvp_stderr(u)``, ``.vjp_stderr(v)``.
        """
        return self.solution.cov.stderr()

    def jvp(self, u: ArrayLike) -> Array:
        """J u for u of shape (m,) or (..., m)."""
        u = vectors(u, self.n_inputs, "u")
        return np.asarray(u @ self.jac.T)

    def vjp(self, v: ArrayLike) -> Array:
        """v^T J for v of shape (n,) or (..., n)."""
        v = vectors(v, self.n_outputs, "v")
        return np.asarray(v @ self.jac)

    def unknown(self, u: ArrayLike) -> Any:
        """How much of a direction no sample has shown yet, from 0 (known) to 1 (never seen).

        sqrt(u' Lambda^-1 u / u' Lambda_0^-1 u): the standard error of J u relative to its prior;
        without a prior the share of u that no sample moved along, in inputs of equal size.

        Parameters
        ----------
        u : array, shape (m,) or (..., m)

        Raises
        ------
        ValueError
            If a direction is zero, and in Kaczmarz mode, which keeps no record of directions.
        """
        u = vectors(u, self.n_inputs, "u")
        if not u.any(axis=-1).all():
            raise ValueError("u is zero: that is no direction")
        with self._lock:
            return self._state.unknown(u)[()]

    # -- whole states ------------------------------------------------------------------------

    def copy(self) -> StreamingJacobian:
        """An independent copy."""
        with self._lock:
            new = copy(self)
            new._state = self._state.copy()
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
        if not isinstance(other, StreamingJacobian):
            raise TypeError(f"other must be a StreamingJacobian, got {other!r:.60}")
        refuse_merge(self, other)
        other = other.copy()  # so that no thread holds the locks of both
        with self._lock:
            self._state.merge(other._state)
            self.n_samples += other.n_samples
            self.n_dropped += other.n_dropped
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole state to one npz file, in one step: no pickle, no half-written file."""
        write_archive(path, _KIND, _VERSION, _as_arrays(self.copy()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StreamingJacobian:
        """Read what ``save`` wrote.

        Raises
        ------
        ValueError
            If the file was cut short or altered, or is of another kind or version.
        """
        return _from_arrays(cls, read_archive(path, _KIND, _VERSION))


def _as_arrays(stream: StreamingJacobian) -> dict[str, Any]:
    """All that a file holds of a stream."""
    meta: dict[str, Any] = {name: getattr(stream, name) for name in _META}
    arrays: dict[str, Any] = {
        "prior_scale": stream._prior_scale, "jac0": stream._jac0, "noise": stream._noise,
    }  # fmt: skip
    if stream.sparsity is not None:
        arrays |= {
            "pattern.rows": stream.sparsity.indptr,
            "pattern.columns": stream.sparsity.indices,
        }
    parts = {"state": stream._state.arrays()}
    if stream._trail is not None:
        parts["trail"] = stream._trail.arrays()
    for part, own in parts.items():
        arrays |= {f"{part}.{name}": a for name, a in own.items()}
    kept = {name: a for name, a in arrays.items() if a is not None}
    return {"meta": np.array(json.dumps(meta)), **kept}


def _from_arrays(cls: type[StreamingJacobian], arrays: dict[str, Any]) -> StreamingJacobian:
    """The stream that a file holds."""
    meta = json.loads(str(arrays.pop("meta")))
    sizes = meta.pop("n_inputs"), meta.pop("n_outputs")
    options = {name: meta[name] for name in ("mode", "forgetting", "nan_policy")}
    options |= {name: arrays.get(name) for name in ("prior_scale", "jac0", "noise")}
    pattern = part_of(arrays, "pattern")
    if pattern:
        options["sparsity"] = SparsityPattern(sizes[::-1], pattern["rows"], pattern["columns"])
    new = cls(*sizes, **options)
    new.n_samples, new.n_dropped = meta["n_samples"], meta["n_dropped"]
    new._state.restore(part_of(arrays, "state"))
    trail = part_of(arrays, "trail")
    if trail:
        new._trail = Trail.from_arrays(trail)
    return new
