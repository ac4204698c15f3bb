"""Fit parameters of noisy simulators: min |fun(x)|^2 in few runs, with intervals of x."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import checks
from gradiator_np.evaluate import Evaluator, Outcome, Run, output
from gradiator_np.lsq.search import Search, default_scale
from gradiator_np.lsq.trust_region import LocalModel, parameter_covariance, step
from gradiator_np.samples import EvaluationError, Samples
from gradiator_np.settings import UNBOUNDED
from gradiator_np.structure import Layout

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Array = NDArray[np.float64]

#: Two-sided 95 % of the normal distribution.
NORMAL = 1.959964
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
    noise : float, optional
        Standard deviation of one residual of one run, where it is known.
    x_tol : like x, optional
        Go on until the half width of every parameter's 95 % interval is this small, in units
        of x, with runs where they determine most.
    max_evals : int, optional
        Points that may be asked for; default 100 (m + 1).
    samples : Samples, optional
        Earlier runs: they are used and not paid again.
    jac0 : array_like, shape (n, m), optional
        An earlier Jacobian at x0, in residual per x: it takes the place of the first m runs.
    rng : int or Generator
        Directions of the few runs next to the centre that tell noise from curvature.

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
        noise: float | None = None,
        x_tol: Any = None,
        max_evals: int | None = None,
        samples: Samples | None = None,
        jac0: ArrayLike | None = None,
        rng: Any = 0,
    ) -> None:
        flat, self.x_layout = checks.point(x0)
        flat = flat.astype(np.float64)
        low, high = checks.bounds(bounds, flat, self.x_layout)
        m = self.x_layout.size
        if noise is not None and not (np.ndim(noise) == 0 and 0 <= noise < np.inf):
            raise ValueError(f"noise must be one number, at least 0, got {noise!r:.60}")
        tol = None if x_tol is None else checks.positive(x_tol, self.x_layout, "x_tol")
        if max_evals is not None and max_evals < 1:
            raise ValueError(f"max_evals={max_evals} must be at least 1")
        self.max_evals = BUDGET * (m + 1) if max_evals is None else int(max_evals)
        self.y_layout: Layout | None = None
        scale = _scale(flat, x_scale, self.x_layout)
        start = None if jac0 is None else checks.float_array(jac0, 2, "jac0")
        if start is not None and start.shape[1] != m:
            raise ValueError(f"jac0 has shape {start.shape}; give (n, {m})")
        self._search = Search(
            flat, scale, low, high, noise, tol, start, np.random.default_rng(rng)
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
        half = NORMAL * x_stderr
        view = self.x_layout.unflatten
        fields = {
            "x": view(x),
            "cost": 0.5 * float(model.c @ model.c),
            "fun": model.c if self.y_layout is None else self.y_layout.unflatten(model.c),
            "jac": model.jac / unit,
            "jac_stderr": np.sqrt(np.diagonal(model.cov)[1:]) / unit * np.ones_like(model.jac),
            "x_stderr": view(x_stderr),
            "confidence": (view(x - half), view(x + half)),
            "undetermined": view(lost),
            "noise": model.sigma,
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


def least_squares(
    fun: Callable[..., Any],
    x0: Any,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    bounds: Any = UNBOUNDED,
    x_scale: Any = None,
    noise: float | None = None,
    x_tol: ArrayLike | None = None,
    max_evals: int | None = None,
    samples: Samples | None = None,
    jac0: ArrayLike | None = None,
    rng: Any = 0,
    workers: Any = 1,
    vectorized: bool = False,
    on_error: str = "adapt",
    run: Run | None = None,
) -> OptimizeResult:
    """Minimise the sum of squares of a function that can only be run, noisy or not.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args, **kwargs)`` returns the residuals, an array of any shape.
    x0, bounds, x_scale, noise, x_tol, max_evals, samples, jac0, rng
        As in `LeastSquares`.
    workers : int, map-like callable or Executor
        With w workers up to w points run at once: trial points, points that mend J, and
        neighbours. Fewer rounds for more runs.
    vectorized : bool
        fun takes (k, *x.shape) and returns (k, *y.shape).
    on_error : {"adapt", "raise"}
        "adapt": a failed run (an exception, nan or inf) is a place to keep away from.
    run : Run, optional
        How points are run.

    Returns
    -------
    OptimizeResult
        ``x`` like x0; ``cost`` half the sum of squares and ``fun`` the residuals there, without
        noise where the model knows better than one run; ``jac`` and ``jac_stderr`` (n, m);
        ``x_stderr`` and ``confidence`` (low, high), 95 % for the minimiser of the noise-free sum
        of squares, infinite for parameters that the runs do not determine (``undetermined``):
        they hold what the noise of the runs leaves open, not what errors of data do;
        ``noise`` of one residual; ``nfev``, ``rounds``; ``status`` "noise", "converged",
        "budget" or "no signal", ``success``, ``message``; ``samples``, every run.

    Raises
    ------
    EvaluationError
        Where no run succeeds, or the first failure with ``on_error="raise"``.

    Notes
    -----
    A trust region over the random-Taylor model of all samples near the centre, value + J u +
    curvature + noise, with curvature and noise by restricted likelihood. Points are compared by
    their posterior means, so one lucky run is no progress. Where the errors of J cost more than
    ten predicted decreases, a run mends J instead. It ends after four iterations in which
    neither a Gauss-Newton step nor better values nor a better J could gain more than half a
    standard deviation of the noise in the sum of squares.
    """
    checks.choice(on_error, ("adapt", "raise"), "on_error")
    search = LeastSquares(
        x0, bounds=bounds, x_scale=x_scale, noise=noise, x_tol=x_tol, max_evals=max_evals,
        samples=samples, jac0=jac0, rng=rng,
    )  # fmt: skip
    with Evaluator(
        fun, search.x_layout, args=args, kwargs=kwargs, vectorized=vectorized, workers=workers,
        run=run,
    ) as evaluate:  # fmt: skip
        _drive(search, evaluate, _at_once(workers, vectorized), on_error)
    return search.result()


def _at_once(workers: Any, vectorized: bool) -> int:
    """How many points it pays to run side by side."""
    if isinstance(workers, Executor):
        return int(getattr(workers, "_max_workers", 1))
    if isinstance(workers, (int, np.integer)):
        return (os.cpu_count() or 1) if workers == -1 else int(workers)
    return 4 if vectorized else 1


def _drive(search: LeastSquares, evaluate: Evaluator, width: int, on_error: str) -> None:
    """Run what the search asks for, until it asks for nothing more."""
    while True:
        ids, points = search.request(width)
        if not len(ids):
            return
        if evaluate.y_layout is None:
            ids, points = _first(search, evaluate, ids, points, on_error)
            if not len(ids):
                continue
        try:
            out = evaluate(points, stop="first" if on_error == "raise" else "never")
        except BaseException as exc:
            _take(search, ids, evaluate.outcome)
            _attach(exc, search)
            raise
        _take(search, ids, out)
        if on_error == "raise" and not np.isfinite(out.values[: out.done]).all():
            raise EvaluationError(
                f"a run failed: {next(iter(out.errors.values()), 'it returned nan')}; "
                "on_error='raise' stops here",
                search.samples,
            ) from out.cause


def _take(search: LeastSquares, ids: NDArray[np.intp], out: Outcome) -> None:
    """Tell what has come back, all or a part of it."""
    rows = ids[: out.done]
    if len(rows):
        errors = {int(rows[i]): text for i, text in out.errors.items()}
        values = [None if i in out.errors else out.values[i] for i in range(out.done)]
        search.tell(values, rows, errors)


def _attach(exc: BaseException, search: LeastSquares) -> None:
    """Nothing that was run is lost, whatever ended the work."""
    try:
        exc.samples = search.samples  # type: ignore[attr-defined]
        exc.add_note(f"{search.nfev} runs made before this are in .samples")
    except AttributeError:  # an exception with __slots__
        pass


def _first(
    search: LeastSquares, evaluate: Evaluator, ids: NDArray[np.intp], points: Array, on_error: str
) -> tuple[NDArray[np.intp], Array]:
    """Run points one by one until one has a value, which tells its shape; the rest."""
    cause: EvaluationError | None = None
    for i in range(len(ids)):
        try:
            flat = evaluate.first(points[i])
        except EvaluationError as exc:
            cause = cause or exc
            if on_error == "raise":
                raise
            continue
        _, layout = evaluate.keep(flat)
        search.tell([*[None] * i, flat], ids[: i + 1])
        search.y_layout = layout
        return ids[i + 1 :], points[i + 1 :]
    assert cause is not None
    raise EvaluationError(
        f"fun failed at x0 and at each of the {len(ids) - 1} points around it: "
        f"{cause.__cause__ or cause}",
        search.samples,
    ) from cause
