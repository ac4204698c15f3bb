"""For SciPy's own optimisers: ``fun`` and ``jac`` of a noisy function, from one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import checks
from gradiator_np.evaluate import Evaluator, Run
from gradiator_np.lsq import trust_region as tr
from gradiator_np.lsq.asktell import known_noise
from gradiator_np.lsq.search import FIRST, Search, default_scale
from gradiator_np.samples import Samples
from gradiator_np.settings import UNBOUNDED

Array = NDArray[np.float64]

#: A run mends the gradient of a scalar where its variance, summed over inputs, is this share of
#: its square (0.1, 0.01, 0.003: BFGS solves 0.66, 0.59, 0.72 noise-free and 0.28, 0.52, 0.48 of
#: 29 problems at a noise of 1e-4).
POOR = 0.003
#: A run mends J where its errors cost this share of what a step can gain (10, 1, 0.1: trf solves
#: 0.55, 0.62, 0.72 at a noise of 1e-2, in no more runs at any level).
LOSS = 0.1


class Modelled:
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
        The moves that mend J stay within them; the optimiser minds its own points.
    x_scale : array_like, shape (m,), optional
        Unit of each input; default |x0|, where that is 0 the median of the others, or 1.
    noise : float or array, optional
        Standard deviation of one output of one run, where it is known.
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
    (``benchmarks/modelled.py``), share solved at a noise of 0, 1e-6, 1e-4, 1e-3, 1e-2 of the first
    residuals' size:

    - `scipy.optimize.least_squares` (trf; lm and dogbox alike): 0.94, 0.94, 0.86, 0.92, 0.56; with
      SciPy's own differences 1.00, 0.03, 0, 0, 0; `gradiator_np.least_squares` 1.00, 1.00, 0.97,
      0.97, 0.92 in 0.3 to 0.73 of the runs. Where the sum of squares is what counts, prefer that
      at any noise.
    - `minimize` of a scalar (BFGS; L-BFGS-B and trust-constr alike): 0.67, 0.67, 0.50, 0.25, 0.14;
      own differences 0.81, 0.06, 0, 0, 0.
    - `root` (hybr, five systems): 0.8, 0.8, 0.8, 1.0, 0.6; own differences 1.0, 0.6, 0, 0, 0.

    So without noise SciPy's own differences are the better choice, and above 1e-3 this is of use
    for residuals only.

    Examples
    --------
    >>> from scipy.optimize import least_squares
    >>> f = Modelled(lambda x: [x[0] - 3, x[0] * x[1] - 6], [1.0, 1.0])
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
        bounds: Any = UNBOUNDED,
        x_scale: Any = None,
        noise: ArrayLike | None = None,
        workers: Any = 1,
        run: Run | None = None,
    ) -> None:
        flat, layout = checks.point(x0)
        if not layout.plain:
            raise ValueError(f"x0 must be a vector, got shape {np.shape(x0)}")
        flat = flat.astype(np.float64)
        low, high = checks.bounds(bounds, flat, layout)
        scale = default_scale(flat) if x_scale is None else checks.positive(
            x_scale, layout, "x_scale"
        )  # fmt: skip
        self._evaluate = Evaluator(fun, layout, args=args, kwargs=kwargs, workers=workers, run=run)
        sigma = None if noise is None else known_noise(noise).reshape(-1)
        # A line search may well jump far off and wants the value there.
        self._search = Search(flat, scale, low, high, sigma, runaway=np.inf)
        self._x = np.full(layout.size, np.nan)
        self._model: tr.LocalModel | None = None
        self._scalar = False
        self._errors: dict[int, str] = {}

    @property
    def nfev(self) -> int:
        return len(self._search.points)

    @property
    def samples(self) -> Samples:
        """Every run, failed ones as nan."""
        values = self._search.values
        size = next((len(v) for v in values if v is not None), 1)
        outputs = [np.full(size, np.nan) if v is None else v for v in values]
        return Samples(np.array(self._search.points), np.array(outputs), dict(self._errors))

    @property
    def noise(self) -> float:
        """Standard deviation of one output of one run (rms), by the model last used."""
        return np.nan if self._model is None else float(np.sqrt(np.mean(self._model.sigma**2)))

    def fun(self, x: ArrayLike) -> Any:
        """The model's value at x, after one run there; nan where the run failed."""
        model = self._at(np.asarray(x, float))
        if model is None:
            return np.nan if self._scalar else np.full(self._size(), np.nan)
        return float(model.c[0]) if self._scalar else model.c.copy()

    def jac(self, x: ArrayLike) -> Array:
        """The model's Jacobian (n, m) at x, or gradient (m,) of a scalar, mended by runs.

        nan where the run at x failed.
        """
        x = np.asarray(x, float)
        model = self._at(x)
        if model is None:
            return np.full(len(x) if self._scalar else (self._size(), len(x)), np.nan)
        for _ in range(2 * len(x)):
            way = self._missing(model)
            if way is None:
                break
            reach = float(np.clip((8.0 * model.ratio) ** 0.25, 1e-3, 1.0))
            self._run(self._near(x, way * reach))
            model = self._fit(x)
        self._model = model
        jac = model.jac / self._unit
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
        """
        found = solve(np.asarray(x0, float))
        for _ in range(most):
            value = self._loss(found.x)
            again = solve(found.x)
            if self._loss(again.x) >= value - self._blur():
                return again if self._loss(again.x) < value else found
            found = again
        return found

    # -- inside ------------------------------------------------------------------------------

    @property
    def _unit(self) -> Array:
        return np.asarray(self._search.radius * self._search.scale)

    def _size(self) -> int:
        return next((len(v) for v in self._search.values if v is not None), 1)

    def _loss(self, x: Array) -> float:
        """What is minimised: the value of a scalar, else half the sum of squares."""
        model = self._at(x)
        if model is None:
            return np.inf
        return float(model.c[0]) if self._scalar else 0.5 * float(model.c @ model.c)

    def _blur(self) -> float:
        """Standard deviation of ``_loss`` by the noise that is left in the model."""
        assert self._model is not None
        model = self._model
        if self._scalar:
            return float(np.sqrt(model.covs[0, 0, 0]))
        return float(np.sqrt(model.summed(model.c**2)[0, 0]))

    def _at(self, x: Array) -> tr.LocalModel | None:
        """The model about x, with a run at x; None where that run failed."""
        if np.array_equal(x, self._x):
            return self._model
        before = self._x
        if self._run(x) is None:
            return None
        if np.isnan(before).all():
            for j, unit in enumerate(np.eye(len(x))):
                for size in (FIRST, -FIRST, 0.1 * FIRST, -0.1 * FIRST):
                    point = self._inside(x + size * self._search.scale[j] * unit)
                    if point[j] != x[j] and self._run(point) is not None:
                        break
            self._search.radius = FIRST
        else:
            # Steps of the optimiser set the length over which J is wanted.
            step = float(np.linalg.norm((x - before) / self._search.scale))
            if step > 0:
                self._search.radius = float(np.clip(step, 0.5 * self._search.radius, FIRST))
        self._x, self._model = x.copy(), self._fit(x)
        return self._model

    def _fit(self, x: Array) -> tr.LocalModel:
        model, _ = self._search.model(x)
        self._search.grain = self._search.radius * float(
            np.clip((8.0 * model.ratio) ** 0.25, 1e-3, 1.0)
        )
        return model

    def _missing(self, model: tr.LocalModel) -> Array | None:
        """The direction that J knows least, where that matters."""
        if self._scalar:
            p = model.covs[0, 1:, 1:]
            if np.trace(p) <= POOR * float(np.square(model.jac).sum()):
                return None
            return np.asarray(np.linalg.eigh(p)[1][:, -1])
        u, held = tr.step(model.c, model.jac, *self._box())
        size = float(model.c @ model.c)
        ahead = model.c + model.jac @ u
        loss = tr.expected_loss(model, held)
        gain = size - float(ahead @ ahead)
        if loss.jac <= LOSS * gain or not len(loss.worst):
            return None
        return np.asarray(loss.worst[0])

    def _box(self) -> tuple[Array, Array]:
        low, high = self._search.low, self._search.high
        return (low - self._x) / self._unit, (high - self._x) / self._unit

    def _near(self, x: Array, step: Array) -> Array:
        """x + step, or x - step where a bound cuts that shorter."""
        there, back = self._inside(x + self._unit * step), self._inside(x - self._unit * step)
        far = np.linalg.norm((back - x) / self._unit) > 1.5 * np.linalg.norm(
            (there - x) / self._unit
        )
        return back if far else there

    def _inside(self, x: Array) -> Array:
        return np.clip(x, self._search.low, self._search.high)

    def _run(self, x: Array) -> Array | None:
        """One run, kept; its value, or None where it failed."""
        if self._evaluate.y_layout is None:
            flat = self._evaluate.first(x)
            flat, layout = self._evaluate.keep(flat)
            self._scalar = layout.shape == ()
            value: Array | None = np.array(flat, float)
        else:
            out = self._evaluate(x[None])
            for text in out.errors.values():
                self._errors[len(self._search.points)] = text
            ok = not out.errors and np.isfinite(out.values).all()
            value = np.array(out.values[0], float) if ok else None
        i = self._search.add(x.copy(), value)
        return self._search.values[i]
