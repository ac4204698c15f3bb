"""The ask-and-tell form of the fit: somebody else runs the points, residuals come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from gradiator_np import checks
from gradiator_np.evaluate import output
from gradiator_np.lsq.search import Search, default_scale
from gradiator_np.lsq.trust_region import LocalModel, parameter_covariance, step
from gradiator_np.samples import EvaluationError, Samples
from gradiator_np.settings import UNBOUNDED
from gradiator_np.structure import Layout

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Array = NDArray[np.float64]

#: Runs allowed by default, per parameter and one.
BUDGET = 100

MESSAGES = {
    "noise": "the noise of the runs hides what is left to gain; average runs, or set x_tol for "
    "narrower intervals of the parameters",
    "converged": "no run can lower the sum of squares by more than 1e-8 of it",
    "budget": "max_evals runs are used; raise it to go on from here",
    "no signal": "the residuals do not answer to the parameters beyond their noise, however far "
    "these are moved; check x0, x_scale and which parameters fun reads",
    "running": "runs are still wanted",
}


@dataclass(frozen=True)
class Intervals:
    """Intervals of the parameters: ``confidence(level)`` of a fit.

    Attributes
    ----------
    x, stderr : array, shape (m,)
    layout : Layout
        The shape in which they are given.
    """

    x: Array
    stderr: Array
    layout: Layout

    def __call__(self, level: float = 0.95) -> tuple[Any, Any]:
        """Interval (low, high) that holds each parameter with probability ``level``."""
        half = float(ndtri(0.5 + checks.level(level) / 2)) * self.stderr
        return self.layout.unflatten(self.x - half), self.layout.unflatten(self.x + half)


class LeastSquares:
    """Ask-and-tell form of `least_squares`: somebody else runs the points.

    Parameters
    ----------
    x0 : array_like or dict
        Where the search starts.
    bounds : (lower, upper) or scipy.optimize.Bounds
        Each a scalar or of the shape of x. No point outside of them is ever asked for.
    x_scale : like x, optional
        Unit of each parameter: it is first moved by 0.2 of it. Default |x0|; where that is 0,
        the median of the others, or 1.
    noise : float or array, optional
        Standard deviation of one residual of one run, where it is known; an array, of the shape
        of the residuals, where they differ.
    x_tol, x_rtol : like x, optional
        Go on until the half width of every parameter's 95 % interval is at most
        ``x_tol + x_rtol |x|``, with runs where they determine most. inf where any width will do.
    max_evals : int, optional
        Points that may be asked for; default 100 (m + 1).
    samples : Samples, optional
        Earlier runs: they are used and not paid again.
    jac0 : array_like, shape (n, m), optional
        An earlier Jacobian at x0, in residual per x: it takes the place of the first m runs.
    rng : int or Generator
        On which side of the centre the few runs next to it lie, which tell noise from curvature.

    Examples
    --------
    >>> search = LeastSquares([1.0, 1.0])
    >>> while True:
    ...     ids, points = search.ask()
    ...     if len(ids) == 0:
    ...         break
    ...     search.tell([[x[0] - 3, x[0] * x[1] - 6] for x in points], ids)
    >>> search.result().x.round(6)
    array([3., 2.])
    """

    def __init__(
        self,
        x0: Any,
        *,
        bounds: Any = UNBOUNDED,
        x_scale: Any = None,
        noise: ArrayLike | None = None,
        x_tol: Any = None,
        x_rtol: Any = None,
        max_evals: int | None = None,
        samples: Samples | None = None,
        jac0: ArrayLike | None = None,
        rng: Any = 0,
    ) -> None:
        flat, self.x_layout = checks.point(x0)
        flat = flat.astype(np.float64)
        low, high = checks.bounds(bounds, flat, self.x_layout)
        m = self.x_layout.size
        sigma = None if noise is None else known_noise(noise)
        self._noise_shape = () if sigma is None else sigma.shape
        tol = _half_widths(x_tol, x_rtol, self.x_layout)
        if max_evals is not None and max_evals < 1:
            raise ValueError(f"max_evals={max_evals} must be at least 1")
        self.max_evals = BUDGET * (m + 1) if max_evals is None else int(max_evals)
        self.y_layout: Layout | None = None
        scale = _scale(flat, x_scale, self.x_layout)
        start = None if jac0 is None else checks.float_array(jac0, 2, "jac0")
        if start is not None and start.shape[1] != m:
            raise ValueError(f"jac0 has shape {start.shape}; give (n, {m})")
        self._search = Search(
            flat, scale, low, high, None if sigma is None else sigma.reshape(-1), tol, start,
            np.random.default_rng(rng),
        )  # fmt: skip
        self._told: dict[int, Array | None] = {}
        self._errors: dict[int, str] = {}
        self._raw: dict[int, Array] = {}
        self._free = 0  # samples that were given
        self.rounds = 0
        if samples is not None:
            self._start_from(samples)

    def _start_from(self, samples: Samples) -> None:
        points = np.asarray(samples.points, float).reshape(len(samples), -1)
        outputs = np.asarray(samples.outputs, float).reshape(len(samples), -1)
        if points.shape[1] != self.x_layout.size:
            raise ValueError(
                f"samples have {points.shape[1]} parameters, x0 has {self.x_layout.size}"
            )
        for point, value in zip(points, outputs):
            self._raw[self._search.add(point, value)] = value
        self._free = len(points)
        self._search.warm_start()

    @property
    def nfev(self) -> int:
        """Points told so far."""
        done = len(self._search.points) - self._free - len(self._search.invented)
        if self._search.proposal is not None:
            done -= len(self._search.proposal.ids) - len(self._told)
        return done

    @property
    def status(self) -> str:
        """What ended the search: "noise", "converged", "budget" or "no signal"; "running"."""
        if self._search.status:
            return self._search.status
        left = self.max_evals - self.nfev
        return "budget" if left <= 0 and self._search.proposal is None else "running"

    def ask(self, k: int = 1) -> tuple[NDArray[np.intp], Any]:
        """Points to run next, at most k where there is a choice (the first m + 1 go at once).

        Returns
        -------
        ids : array of int
            Their names, for ``tell``; empty at the end.
        points : array, shape (len(ids), *x.shape), or dict of such arrays
            Asking again before telling gives the same points.
        """
        ids, flat = self.request(k)
        return ids, self.x_layout.unflatten(flat)

    def request(self, k: int = 1) -> tuple[NDArray[np.intp], Array]:
        """``ask`` with flat points (k, m)."""
        fresh = self._search.proposal is None
        if fresh and self.status != "running":
            return np.empty(0, np.intp), np.empty((0, self.x_layout.size))
        wanted = self._search.propose(max(1, min(k, self.max_evals - self.nfev)))
        if fresh and wanted:
            self.rounds += 1
        ids = [i for i in wanted if i not in self._told]
        points = [self._search.points[i] for i in ids]
        return np.array(ids, np.intp), np.array(points).reshape(-1, self.x_layout.size)

    def tell(
        self,
        outputs: Any,
        ids: Sequence[int] | NDArray[np.intp] | None = None,
        errors: Mapping[int, str] | None = None,
    ) -> None:
        """Take residuals back, all or some of those asked for.

        Parameters
        ----------
        outputs : sequence of k values of fun
            None or nan marks a failed run.
        ids : sequence of int, optional
            Which points these are; by default all that are pending.
        errors : dict of int to str, optional
            Why runs failed, by id.

        Raises
        ------
        ValueError
            For unknown ids, or residuals of another shape; nothing is taken then.
        """
        pending, _ = self.request()
        ids = pending if ids is None else np.asarray(ids, np.intp).reshape(-1)
        strange = np.setdiff1d(ids, pending)
        if len(strange) or len(np.unique(ids)) != len(ids):
            raise ValueError(
                f"ids {strange[:5].tolist()} are not pending, or one is named twice; "
                f"pending are {pending[:10].tolist()}"
            )
        rows = list(outputs)
        if len(rows) != len(ids):
            raise ValueError(f"{len(rows)} outputs for {len(ids)} ids; give one for each")
        flats = [None if row is None else self._flat(row) for row in rows]
        self._errors.update(errors or {})
        for i, value in zip(ids.tolist(), flats):
            self._told[i] = value
            if value is not None:
                self._raw[i] = value
        proposal = self._search.proposal
        if proposal is not None and len(self._told) == len(proposal.ids):
            told, self._told = self._told, {}
            self._search.tell(told)

    def _flat(self, row: Any) -> Array:
        layout, flat = output(row, 0)
        if flat.dtype.kind == "c":
            raise TypeError("fun returned complex residuals; give real and imaginary parts apart")
        if self.y_layout is None:
            jac0 = self._search.jac0
            if jac0 is not None and len(jac0) != layout.size:
                raise ValueError(f"jac0 has {len(jac0)} rows, fun returned {layout.size} residuals")
            if self._noise_shape not in ((), layout.shape):
                raise ValueError(
                    f"noise has shape {self._noise_shape}, fun returned {layout.shape}; "
                    "give one number, or one for each residual"
                )
            self.y_layout = layout
        elif layout.size != self.y_layout.size:
            raise ValueError(
                f"fun returned {layout.size} residuals, earlier {self.y_layout.size}; "
                "mark a failed run by None"
            )
        return np.array(flat, np.float64)

    @property
    def samples(self) -> Samples:
        """Every run, failed ones as nan."""
        size = next((len(v) for v in self._raw.values()), 1)
        runs = [i for i in range(len(self._search.points)) if i not in self._search.invented]
        failed = np.full(size, np.nan)
        points = np.array([self._search.points[i] for i in runs])
        outputs = np.array([self._raw.get(i, failed) for i in runs])
        errors = {row: self._errors[i] for row, i in enumerate(runs) if i in self._errors}
        return Samples(points, outputs, errors)

    def result(self) -> OptimizeResult:
        """The answer so far, as SciPy's ``OptimizeResult``; see `least_squares`.

        Raises
        ------
        EvaluationError
            Where no run has succeeded yet.
        """
        from scipy.optimize import OptimizeResult

        if self._search.centre < 0:
            raise EvaluationError("no run has succeeded yet: there is nothing to report",
                                  self.samples)  # fmt: skip
        x, model, held = self._search.answer()
        unit = self._search.radius * self._search.scale
        x_stderr, lost = _intervals(model, held, unit)
        status = self.status
        names = [f"x{self.x_layout.names[i]}" for i in np.flatnonzero(lost)[:5]]
        message = MESSAGES[status]
        if names:
            message += f". The runs do not determine {', '.join(names)}"
        view = self.x_layout.unflatten
        shaped = np.asarray if self.y_layout is None else self.y_layout.unflatten
        jac_var = np.diagonal(model.covs, axis1=1, axis2=2)[model.group, 1:]
        fields = {
            "x": view(x),
            "cost": 0.5 * float(model.c @ model.c),
            "fun": shaped(model.c),
            "jac": model.jac / unit,
            "jac_stderr": np.sqrt(jac_var) / unit,
            "x_stderr": view(x_stderr),
            "confidence": Intervals(x, x_stderr, self.x_layout),
            "undetermined": view(lost),
            "noise": shaped(model.sigma) if self._noise_shape else float(model.sigma[0]),
            "nfev": self.nfev,
            "rounds": self.rounds,
            "status": status,
            "success": status in ("noise", "converged"),
            "message": message,
            "samples": self.samples,
        }
        found = OptimizeResult()
        found.update(fields)
        return found


def _scale(x: Array, x_scale: Any, layout: Layout) -> Array:
    return default_scale(x) if x_scale is None else checks.positive(x_scale, layout, "x_scale")


def known_noise(noise: ArrayLike) -> Array:
    """Standard deviations of one run as an array, checked."""
    sigma = np.asarray(checks.numeric(noise, "noise"), float)
    if not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        raise ValueError(f"noise must be finite and not negative, got {noise!r:.60}")
    return sigma


def _half_widths(x_tol: Any, x_rtol: Any, layout: Layout) -> tuple[Array, Array] | None:
    """Wanted half widths of intervals: absolute, relative."""
    if x_tol is None and x_rtol is None:
        return None
    absolute = checks.like_x(0.0 if x_tol is None else x_tol, layout, "x_tol")
    relative = checks.like_x(0.0 if x_rtol is None else x_rtol, layout, "x_rtol")
    if not ((absolute >= 0) & (relative >= 0) & (absolute + relative > 0)).all():
        raise ValueError("x_tol and x_rtol must not be negative, and one of them above 0")
    return absolute, relative


def _intervals(
    model: LocalModel, held: NDArray[np.bool_], unit: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Standard errors of the parameters, in units of x; inf where nothing determines them.

    What a Gauss-Newton step from x would still move counts as an error: a search that noise
    ended early is not at the minimum.
    """
    cov, lost = parameter_covariance(model, held)
    free = np.where(held, 0.0, np.inf)
    ahead, _ = step(model.c, model.jac, -free, free)
    err = np.sqrt(np.maximum(np.diagonal(cov), 0.0) + ahead**2) * unit
    return np.where(lost, np.inf, err), lost
