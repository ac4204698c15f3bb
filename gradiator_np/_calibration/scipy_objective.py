"""For SciPy's own optimisers: ``fun`` and ``jac`` of a noisy function, from one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradiator_np import _checks as checks
from gradiator_np._calibration.fit_log import FitLog, rounding_error
from gradiator_np._calibration.geometry import DISPLACEMENT, reflected
from gradiator_np._calibration.iterate import Iterate
from gradiator_np._calibration.local_model import LocalModel, default_samples, model_about
from gradiator_np._calibration.problem import check_real
from gradiator_np._calibration.trust_region import TrustRegion, within_region
from gradiator_np._evaluate import Evaluator, Run
from gradiator_np._samples import Samples
from gradiator_np._settings import scale_of
from gradiator_np._typing import Array

#: A run improves the gradient of a scalar where its variance, summed over inputs, is this share of
#: its square (0.1, 0.01, 0.003: BFGS solves 0.66, 0.59, 0.72 noise-free and 0.28, 0.52, 0.48 of
#: 29 problems at a noise of 1e-4).
MOST_VARIANCE = 0.003
#: A run improves J where its errors cost this share of what a step can gain (10, 1, 0.1: trf solves
#: 0.55, 0.62, 0.72 at a noise of 1e-2, in no more runs at any level).
MOST_LOSS = 0.1


@dataclass(frozen=True, slots=True)
class _At:
    """The model about the last point that the optimiser asked for and whose run succeeded."""

    x: Array
    model: LocalModel


class ScipyObjective:
    """A noisy function as SciPy's optimisers want it: smooth values and a Jacobian for nothing.

    Every evaluation that the optimiser asks for feeds a local model (value, J, curvature and
    noise), and both what ``fun`` and what ``jac`` return are the model's: a lucky run is no
    progress, and a Jacobian costs m runs at the first point and few or none after it.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args, **kwargs)``: residuals (`scipy.optimize.least_squares`), one number
        (`minimize`) or as many numbers as inputs (`root`).
    x0 : array_like, shape (m,)
        Where the optimiser starts.
    args, kwargs
        Passed on to ``fun``.
    bounds : (lower, upper) or scipy.optimize.Bounds
        The runs that improve J stay within them; the optimiser minds its own points.
    x_scale : array_like, shape (m,), optional
        Unit of each input; default |x0|, where that is 0 the median of the others, or 1.
    run_noise : float or array, optional
        Repeatability of the program, where it is known: standard deviation of one output
        between runs at one x.
    workers, run
        As in `least_squares`.

    Attributes
    ----------
    nfev : int
        Runs so far, those for J included.

    Notes
    -----
    Optimisers compare values as if they were exact, so noise ends them too early: ``restart``
    runs one again from its own end. Measured on 36 problems of up to three inputs
    (``benchmarks/scipy_objective.py``), share solved at a noise of 0, 1e-6, 1e-4, 1e-3, 1e-2 of
    the first residuals' size:

    - `scipy.optimize.least_squares` (trf; lm and dogbox alike): 0.94, 0.94, 0.86, 0.92, 0.56; with
      SciPy's own differences 1.00, 0.03, 0, 0, 0; `gradiator_np.least_squares` 1.00, 1.00, 0.97,
      0.97, 0.92 in 0.3 to 0.73 of the runs. Where the sum of squares is what counts, prefer that
      at any noise.
    - `minimize` of a scalar (BFGS; L-BFGS-B and trust-constr alike): 0.67, 0.67, 0.50, 0.25, 0.14;
      own differences 0.81, 0.06, 0, 0, 0.
    - `root` (hybr, five systems): 0.8, 0.8, 0.8, 1.0, 0.6; own differences 1.0, 0.6, 0, 0, 0.

    So without noise SciPy's own differences are the better choice, and above 1e-3 this is of use
    for residuals only. For a noisy scalar Py-BOBYQA in its noise mode is the better choice from
    1e-6 on: at 1e-4 of the first value it solves 0.93 of 44 problems in 100 (m + 1) runs, this
    0.72 (``benchmarks/scalar_minimise.py``).

    Examples
    --------
    >>> from scipy.optimize import least_squares
    >>> from gradiator_np import ScipyObjective
    >>> f = ScipyObjective(lambda x: [x[0] - 3, x[0] * x[1] - 6], [1.0, 1.0])
    >>> least_squares(f.fun, [1.0, 1.0], jac=f.jac).x.round(4)
    array([3., 2.])
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        x0: ArrayLike,
        *,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        bounds: Any = checks.UNBOUNDED,
        x_scale: Any = None,
        run_noise: ArrayLike | None = None,
        workers: Any = 1,
        run: Run | None = None,
    ) -> None:
        flat, layout = checks.point(x0)
        if not layout.plain:
            raise ValueError(f"x0 must be a vector, got shape {np.shape(x0)}")
        flat = flat.astype(np.float64)
        low, high = checks.bounds(bounds, flat, layout)
        scale = scale_of(flat, x_scale, layout)
        self._region = TrustRegion(scale, low, high, DISPLACEMENT)
        self._evaluate = Evaluator(fun, layout, args=args, kwargs=kwargs, workers=workers, run=run)
        # A line search may well jump far off and wants the value there: no growth is too much.
        self._log = FitLog(None if run_noise is None else checks.noise(run_noise, what="run_noise"))
        self._at: _At | None = None
        self._scalar = False

    @property
    def nfev(self) -> int:
        return self._log.nfev

    @property
    def samples(self) -> Samples:
        """Every run, failed ones as nan."""
        return self._log.samples

    @property
    def run_noise(self) -> float:
        """Standard deviation of one output of one run (rms), by the model last used."""
        if self._at is None:
            return np.nan
        with checks.underflow_is_zero():
            return float(np.sqrt(np.mean(self._at.model.noise**2))) * self._log.unit

    def __repr__(self) -> str:
        m, n = len(self._region.scale), self._n_outputs
        outputs = "" if n is None else f", {n} output{'s' * (n != 1)}"
        noise = "" if np.isnan(self.run_noise) else f", noise {self.run_noise:.2g}"
        return (
            f"ScipyObjective({m} input{'s' * (m != 1)}{outputs}, {self.nfev} "
            f"run{'s' * (self.nfev != 1)}{noise})"
        )

    def fun(self, x: ArrayLike) -> Any:
        """The model's value at x, after one run there; nan where the run failed."""
        model = self._model_at(checks.float_array(x, 1, "x"))
        if model is None:
            value = np.full(self._n_outputs or 1, np.nan)
        else:
            with checks.underflow_is_zero():
                value = model.residuals * self._log.unit
        return float(value[0]) if self._scalar else value

    def jac(self, x: ArrayLike) -> Array:
        """The model's Jacobian (n, m) at x, or gradient (m,) of a scalar, improved by runs.

        nan where the run at x failed.
        """
        x = checks.float_array(x, 1, "x")
        model = self._model_at(x)
        if model is None:
            return np.full(len(x) if self._scalar else (self._n_outputs or 1, len(x)), np.nan)
        for _ in range(2 * len(x)):
            direction = self._uncertain_direction(x, model)
            if direction is None:
                break
            step = direction * within_region(model.difference_step)
            step = reflected(step, *self._region.box(x))
            self._run(self._region.clip(x + self._region.unit * step))
            model = self._fit(x)
        self._at = _At(x.copy(), model)
        with checks.underflow_is_zero():
            jac = model.jac / self._region.unit * self._log.unit
        return np.array(jac[0] if self._scalar else jac)

    def restart(self, solve: Callable[[Array], Any], x0: ArrayLike, most: int = 10) -> Any:
        """Run an optimiser again from its own end, as long as that gains more than the noise.

        Parameters
        ----------
        solve : callable
            ``solve(x0)`` returns SciPy's OptimizeResult, as in
            ``lambda x0: least_squares(f.fun, x0, jac=f.jac)``.
        x0 : array_like, shape (m,)
        most : int
            Restarts at most.

        Returns
        -------
        OptimizeResult
            What ``solve`` returned from the best of its ends.
        """
        found = solve(np.asarray(x0, float))
        for _ in range(most):
            loss = self._loss(found.x)
            again = solve(found.x)
            lowest = self._loss(again.x)
            if lowest >= loss - self._loss_sd():
                return again if lowest < loss else found
            found = again
        return found

    # -- inside ------------------------------------------------------------------------------

    @property
    def _n_outputs(self) -> int | None:
        layout = self._evaluate.y_layout
        return None if layout is None else layout.size

    def _loss(self, x: Array) -> float:
        """What is minimised, in the log's unit: a scalar, else half the sum of squares."""
        model = self._model_at(x)
        if model is None:
            return np.inf
        with checks.underflow_is_zero():
            return float(model.residuals[0]) if self._scalar else 0.5 * model.sum_of_squares

    @checks.underflow_is_zero()
    def _loss_sd(self) -> float:
        """Standard deviation of ``_loss`` by the noise that is left in the model."""
        assert self._at is not None
        model = self._at.model
        if self._scalar:
            return float(np.sqrt(model.covariances[0, 0, 0]))
        return float(np.sqrt(model.summed_covariance(model.residuals**2)[0, 0]))

    def _model_at(self, x: Array) -> LocalModel | None:
        """The model about x, with a run at x; None where that run failed."""
        if self._at is not None and np.array_equal(x, self._at.x):
            return self._at.model
        if not self._run(x):
            return None
        if self._at is None:
            self._displace_each(x)
        else:
            # Steps of the optimiser set the length over which J is wanted.
            step = float(np.linalg.norm((x - self._at.x) / self._region.scale))
            if step > 0:
                radius = float(np.clip(step, 0.5 * self._region.radius, DISPLACEMENT))
                self._region = self._region.with_radius(radius)
        model = self._fit(x)
        self._at = _At(x.copy(), model)
        return model

    def _displace_each(self, x: Array) -> None:
        """A run beside x for each input; a failed one is reversed, then shortened.

        Cut at the bounds, where `InitialDesign` would turn round: J at the first point is all that
        the optimiser has (in a box of 0.01 x it is off by 8e-7 this way, by 5e-4 the other).
        """
        for j, scale in enumerate(self._region.scale):
            for size in (DISPLACEMENT, -DISPLACEMENT, 0.1 * DISPLACEMENT, -0.1 * DISPLACEMENT):
                point = x.copy()
                point[j] += size * scale
                point = self._region.clip(point)
                if point[j] != x[j] and self._run(point):
                    break

    @checks.underflow_is_zero()
    def _fit(self, x: Array) -> LocalModel:
        latest = next(r for r in reversed(self._log.residuals) if r is not None)
        model = model_about(
            x, self._log, self._region, default_samples(len(x)), rounding_error(latest)
        )
        self._region = self._region.with_difference_step(model.difference_step)
        return model

    @checks.underflow_is_zero()
    def _uncertain_direction(self, x: Array, model: LocalModel) -> Array | None:
        """The direction that J knows least, where that matters."""
        if self._scalar:
            p = model.covariances[0, 1:, 1:]
            if np.trace(p) <= MOST_VARIANCE * float(np.square(model.jac).sum()):
                return None
            return np.asarray(np.linalg.eigh(p)[1][:, -1])
        it = Iterate.at(x, model, self._region, self._log.rounding, 1e-8)
        loss = it.loss
        if loss.jac <= MOST_LOSS * it.predicted_decrease or not len(loss.directions):
            return None
        return np.asarray(loss.directions[0])

    def _run(self, x: Array) -> bool:
        """One run, kept; whether models can use it."""
        error = None
        if self._evaluate.y_layout is None:
            flat = self._evaluate.first(x)
            check_real(flat.dtype)
            self._scalar = self._evaluate.kept_layout.shape == ()
            value: Array | None = np.array(flat, float)
        else:
            out = self._evaluate(x[None])
            error = out.errors.get(0)
            value = None if error is not None else np.array(out.values[0], float)
        i = self._log.add(x.copy(), value, error)
        return self._log.residuals[i] is not None
