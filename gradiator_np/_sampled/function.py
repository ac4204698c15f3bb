"""A function that is never called: value and derivatives from a log of its runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradiator_np import _checks as checks
from gradiator_np._differentiable import Gradiator
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._sampled.logs import Log, Model, ProductLog, RunLog
from gradiator_np._samples import SampleError, Samples
from gradiator_np._status import Status, warn
from gradiator_np._structure import Layout
from gradiator_np._typing import Array, Index

#: A fit is made anew where one of the nearest samples is not in it; these many times m + 1 of them.
NEAREST = 2
#: ... or where so much of what it rests on came after it.
GROWTH = 1.25


@dataclass(frozen=True, slots=True)
class _LocalFit:
    """A fit about one point, of the samples nearest to it."""

    model: Model
    center: Array
    rows: Index
    known: int  # samples there were


class SampledFunction:
    """A function known by its samples: value, Jacobian, VJP and JVP anywhere among them.

    Nothing is run: the samples are a log, of a rig, a cluster, a colleague. The value is that of
    the fitted model, with its error.

    Parameters
    ----------
    points : array_like, shape (k, m), or dict
        Inputs, one run a row; (k,) + x.shape with ``x_like``.
    values : array_like, shape (k, n) or (k,), or dict
        Outputs there; nan or inf where one failed.
    noise : float or array_like, shape (n,), optional
        Standard deviation of one run, in units of y. By default found with the fit.
    x_scale : scalar or like x, optional
        Displacements over which f bends alike; by default the median distance of the samples from
        their middle, input by input.
    x_like, y_like : array_like or dict, optional
        Of the shape of one input, one output; their numbers do not matter.
    max_samples : int
        The nearest samples that one fit rests on: its time is cubic in their number.

    Raises
    ------
    ValueError, TypeError
        As `fit_points`.

    Warns
    -----
    GradiatorWarning
        Where a value or derivative is asked for at a point from which samples cannot be trusted
        (status extrapolation, two_scales, no_signal); it carries the estimate.

    Notes
    -----
    The model is that of `fit_points`: a linear trend with a Gaussian process, averaged over its
    length scales, amplitudes and noise. One fit, of the samples nearest to the point that was first
    asked for, serves all points whose nearest samples it holds: value and Jacobian there are those
    of the same process (universal kriging), at a matrix product each. Of 400 samples of 4 inputs
    the fit takes a quarter of a second, each further point a millisecond or two. Errors and
    intervals are those of a fit about the point itself (`python -m benchmarks.scattered`).

    Examples
    --------
    A gradient for a training loop, from a log of runs:

    >>> import numpy as np
    >>> from gradiator_np import SampledFunction
    >>> x = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    >>> f = SampledFunction(x, np.exp(x[:, :1]) * x[:, 1:])
    >>> f.vjp([0.2, 0.5], [1.0]).round(3)
    array([0.611, 1.221])
    >>> estimate = f.estimate([0.2, 0.5])
    >>> bool((estimate.stderr < 1e-3).all()), estimate.nfev
    (True, 0)
    """

    def __init__(
        self,
        points: Any,
        values: Any,
        *,
        noise: ArrayLike | None = None,
        x_scale: Any = None,
        x_like: Any = None,
        y_like: Any = None,
        max_samples: int = 400,
    ) -> None:
        log = RunLog(
            points, values, noise=noise, x_scale=x_scale, x_like=x_like, y_like=y_like
        )  # fmt: skip
        self._begin(log, max_samples)

    @classmethod
    def from_products(
        cls,
        x: Any,
        dx: Any,
        v: Any,
        products: ArrayLike,
        *,
        noise: float | None = None,
        x_scale: Any = None,
        x_like: Any = None,
        y_like: Any = None,
        max_samples: int = 400,
    ) -> SampledFunction:
        """A function of which only products are known, at points that vary.

        Parameters
        ----------
        x, dx : array_like, shape (k, m), or dict
            Where each difference began, and its displacement.
        v : array_like, shape (k, n), or dict
            Cotangents, in 1/y.
        products : array_like, shape (k,)
            ``v_k . (f(x_k + dx_k) - f(x_k))``; nan where it failed.
        noise : float, optional
            Standard deviation of one product.
        x_scale, x_like, y_like, max_samples
            As for the class; ``y_like`` shows the shape of one cotangent.

        Returns
        -------
        SampledFunction
            It knows no value of f, and its Jacobian only where there are n times m products at
            least. All outputs share one process, up to their sizes. Errors of the rows of J are
            correlated, which ``vjp_stderr`` of an estimate leaves out.

        Examples
        --------
        >>> import numpy as np
        >>> from gradiator_np import SampledFunction
        >>> rng = np.random.default_rng(0)
        >>> f = lambda x: np.stack([np.exp(x[:, 0]) * x[:, 1], np.sin(x[:, 1])], -1)
        >>> x, dx = rng.uniform(-1, 1, (150, 2)), rng.uniform(-0.1, 0.1, (150, 2))
        >>> v = rng.normal(size=(150, 2))
        >>> log = SampledFunction.from_products(x, dx, v, ((f(x + dx) - f(x)) * v).sum(1))
        >>> log.vjp([0.2, 0.5], [1.0, 0.0]).round(2)
        array([0.61, 1.22])
        """
        log = ProductLog(
            x, dx, v, products, noise=noise, x_scale=x_scale, x_like=x_like, y_like=y_like
        )  # fmt: skip
        out = cls.__new__(cls)
        out._begin(log, max_samples)
        return out

    def _begin(self, log: Log, max_samples: int) -> None:
        self._log = log
        self.max_samples = checks.integer(max_samples, "max_samples", log.x_layout.size + 2)
        self._fit: _LocalFit | None = None
        self._latest: tuple[Array, JacobianEstimate] | None = None

    @property
    def x_layout(self) -> Layout:
        """How one input lies in a flat vector of m numbers."""
        return self._log.x_layout

    @property
    def y_layout(self) -> Layout:
        """How one output lies in a flat vector of n numbers."""
        return self._log.y_layout

    def __len__(self) -> int:
        return len(self._log.store)

    def __repr__(self) -> str:
        fitted = "not fitted yet" if self._fit is None else f"fit of {len(self._fit.rows)}"
        return (
            f"SampledFunction({len(self)} samples, x of shape {self.x_layout.shapes}, "
            f"y of shape {self.y_layout.shapes}, {fitted})"
        )

    @property
    def samples(self) -> Samples | None:
        """A copy of all runs; None where only products are known."""
        return self._log.record(np.arange(len(self)))

    def add(self, *samples: Any) -> None:
        """More samples of the same function, as they come: ``add(points, values)``, or
        ``add(x, dx, v, products)`` where only products are known; one, or several on a leading
        axis.

        The fit that there is goes on serving, until some of them are among the nearest to the
        point asked for, or they are a quarter as many as it rests on.
        """
        wanted = self._log.wanted
        if len(samples) != len(wanted):
            raise TypeError(f"add takes {', '.join(wanted)}; got {len(samples)} arguments")
        self._log.add(*samples)
        self._latest = None

    # -- at a point ------------------------------------------------------------------------------

    def __call__(self, x: Any) -> Any:
        """The fitted value at x, shape of y."""
        estimate = self.estimate(x)
        if estimate.solution.value is None:
            raise SampleError("products alone tell no value of f, only its derivatives", None)
        return estimate.y

    def estimate(self, x: Any) -> JacobianEstimate:
        """Value and Jacobian at x with their error bars; nothing is run.

        Returns
        -------
        JacobianEstimate
            ``y`` is the fitted value, ``solution.value_stderr`` its standard error; ``nfev`` is 0.
        """
        flat, layout = checks.point(x)
        if layout.shapes != self.x_layout.shapes:
            raise ValueError(
                f"x has shape {layout.shapes}, but the samples' inputs have {self.x_layout.shapes}"
            )
        if self._latest is not None and np.array_equal(self._latest[0], flat):
            return self._latest[1]
        fit = self._serving(flat)
        solution = fit.model.at(flat - fit.center)
        estimate = JacobianEstimate(
            solution,
            Frame(self.x_layout, self.y_layout, flat, solution.value),
            "given samples",
            n_samples=len(fit.rows),
            _record=self._log.record(fit.rows),
        )
        self._latest = flat.copy(), estimate
        if solution.status.doubtful:
            warn(f"{solution.status}: {solution.message}", estimate)
        return estimate

    def jacobian(self, x: Any) -> Any:
        """The Jacobian at x, shape ``y.shape + x.shape``."""
        return self._determined(x).jac

    def vjp(self, x: Any, v: Any) -> Any:
        """v^T J at x (no conjugate), shape of x, for v of the shape of y.

        Raises
        ------
        SampleError
            Where the samples leave a direction of x open: no number stands for it.
        """
        return self._determined(x).vjp(v)

    def jvp(self, x: Any, u: Any) -> Any:
        """J u at x, shape of y, for u of the shape of x; raises as `vjp`."""
        return self._determined(x).jvp(u)

    def gradient(self, x: Any) -> Any:
        """The gradient of a single output, shape of x; raises as `vjp`."""
        return self._determined(x).grad

    def as_gradiator(self) -> Gradiator:
        """The same as a `Gradiator`: what the adapters for torch and JAX take."""
        return Gradiator(self, self.vjp, jvp_fun=self.jvp, jac_fun=self.jacobian)

    # -- inside ----------------------------------------------------------------------------------

    def _determined(self, x: Any) -> JacobianEstimate:
        found = self.estimate(x)
        if found.solution.status is Status.UNDETERMINED:
            raise SampleError(
                f"the samples do not determine the derivative: {found.solution.message}. "
                "estimate(x).jac has the least-norm value",
                self.samples,
            )
        return found

    def _serving(self, x: Array) -> _LocalFit:
        """A fit that holds the samples nearest to x."""
        store, fit = self._log.store, self._fit
        if fit is not None and len(store) <= GROWTH * fit.known:
            near = store.nearest(x, NEAREST * (len(x) + 1))
            if np.isin(near, fit.rows).all():
                return fit
        rows = store.nearest(x, self.max_samples)
        model = self._log.model(rows, x, self.max_samples)
        self._fit = _LocalFit(model, x.copy(), np.sort(rows), len(store))
        return self._fit
