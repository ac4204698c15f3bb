"""Questions about a function beside its Jacobian: how noisy, how far to step, is this J right?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import checks
from gradiator_np.designs.ecnoise import Line, NoiseSearch
from gradiator_np.designs.intervals import Found, StepSearch
from gradiator_np.evaluate import Evaluator, Run
from gradiator_np.settings import scale_of as input_scale
from gradiator_np.solvers.taylor import Taylor
from gradiator_np.status import GradiatorWarning, Status
from gradiator_np.structure import Layout, blocks

Array = NDArray[np.float64]

# The outermost point of a noise line: the sign of every input is kept.
REACH = 0.5
# Values this much nearer to x than the step say nothing of the slope, and their crowd misleads
# the model's idea of the distance over which f bends.
NEAR = 0.2


class Running(TypedDict, total=False):
    """What the functions of this module take beside fun and x; as in ``jacobian``."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None
    x_scale: Any
    bounds: Any
    workers: Any
    vectorized: bool
    run: Run | None


class _Site:
    """A function, a point, the value there, and the room around it."""

    def __init__(self, fun: Callable[..., Any], x: Any, options: Running) -> None:
        known = set(Running.__annotations__)
        if unknown := set(options) - known:
            raise TypeError(f"unknown arguments {sorted(unknown)}; choose from {sorted(known)}")
        self.flat, self.x_layout = checks.point(x)
        self.evaluate = Evaluator(
            fun,
            self.x_layout,
            args=options.get("args", ()),
            kwargs=options.get("kwargs"),
            vectorized=options.get("vectorized", False),
            workers=options.get("workers", 1),
            run=options.get("run"),
        )
        self.x = self.flat.astype(np.float64)
        lower, upper = checks.bounds(
            options.get("bounds", (-np.inf, np.inf)), self.flat, self.x_layout
        )
        self.up, self.down = upper - self.x, self.x - lower
        self.scale = input_scale(self.x[None], options.get("x_scale"), self.x_layout)[0][0]
        self.eps = float(np.finfo(self.flat.dtype).eps)
        self.y = self.evaluate.keep(self.evaluate.first(self.flat))[0]
        assert self.evaluate.y_layout is not None
        self.y_layout: Layout = self.evaluate.y_layout

    def at(self, offsets: Array) -> NDArray[Any]:
        """Values (k, n) at x + offsets (k, m); nan where a run failed."""
        points = (self.x + offsets).astype(self.flat.dtype)
        return self.evaluate(np.clip(points, self.x - self.down, self.x + self.up)).values

    def names(self, wrong: NDArray[np.bool_]) -> str:
        """The outputs of a mask (n,), for messages."""
        which = np.flatnonzero(wrong)
        text = ", ".join(f"y{self.y_layout.names[i]}" for i in which[:5])
        return text + (f" and {len(which) - 5} more" if len(which) > 5 else "")


# -- noise -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """The noise of each output near a point.

    Attributes
    ----------
    noise : like y
        Standard deviation of one evaluation, in units of y; 0 where the values show none, nan
        where no spacing shows it.
    dof : like y
        Degrees of freedom: with 7 values 2 to 4, so within a factor of about 2 either way.
    verdict : like y, of str
        A value of ``Line`` for each output.
    spacing : like y
        Distance between the points, in units of ``direction``.
    levels : array, shape (points - 1, n)
        The estimates from differences of order 1, 2, ...: level where they show noise.
    direction : like x
        The line: points are x + t * direction.
    nfev : int
    status : Status
    message : str
    """

    noise: Any
    dof: Any
    verdict: Any
    spacing: Any
    levels: Array
    direction: Any
    nfev: int
    status: Status
    message: str


_LINE_WORDS = {
    Line.FAILED: (
        Status.FAILED_RUNS,
        "fun failed on the line at every spacing that was tried; give another direction or a "
        "smaller h",
    ),
    Line.TOO_SMALL: (
        Status.UNDETERMINED,
        "values hardly change on the line (rounded or printed to few digits?); give a larger h",
    ),
    Line.TOO_LARGE: (
        Status.UNDETERMINED,
        "no three orders of differences agree at any spacing that was tried; give a smaller h, "
        "or more points",
    ),
    Line.BOUND: (
        Status.UNDETERMINED,
        "values range over more than a tenth of their size at every spacing; the noise given is "
        "an upper bound. Add a constant to the output, or look elsewhere",
    ),
    Line.CONSTANT: (
        Status.OK,
        "constant on the line, noise 0: the output does not depend on these inputs here, or only "
        "beyond this distance (give h)",
    ),
    Line.EXACT: (
        Status.OK,
        "a polynomial on the line without any noise, noise 0; rounding of y is all there is",
    ),
}


def estimate_noise(
    fun: Callable[..., Any],
    x: Any,
    *,
    h: float | None = None,
    direction: Any = None,
    points: int = 7,
    rng: Any = None,
    **options: Unpack[Running],
) -> NoiseEstimate:
    """Estimate the noise of each output of ``fun`` near x.

    Parameters
    ----------
    fun : callable
        As in ``jacobian``.
    x : array_like or dict of array_like
    h : float, optional
        First spacing of the points, in units of ``direction``; by default the square root of the
        machine epsilon. Too small or too large a spacing is noticed and changed by 100. Noise
        that appears only at larger steps (an adaptive solver that is quiet at 1e-8 and loud at
        1e-4) is seen only at such a spacing: give the steps that will be used.
    direction : like x, optional
        By default random signs, of half to the whole scale of each input.
    points : int
        Values on the line, odd, at least 5.
    rng : None, int or numpy.random.Generator
    **options
        ``args, kwargs, x_scale, bounds, workers, vectorized, run`` as in ``jacobian``.

    Returns
    -------
    NoiseEstimate
        Takes ``points`` evaluations, and ``points - 1`` for each further spacing, at most 5.

    Raises
    ------
    ValueError
        For a direction that cannot be followed both ways within the bounds.

    Warns
    -----
    GradiatorWarning
        Where the noise of an output could not be told.

    References
    ----------
    J. J. More and S. M. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011)
    1292-1314.
    """
    site = _Site(fun, x, options)
    with site.evaluate:
        along, most = _line(site, direction, rng)
        search = NoiseSearch(np.sqrt(site.eps) if h is None else h, points, site.y, most)
        while (t := search.ask()) is not None:
            search.tell(site.at(t[:, None] * along))
    said: list[str] = []
    status = Status.OK
    for verdict, (worse, text) in _LINE_WORDS.items():
        if (mine := search.verdict == verdict).any():
            said.append(f"{site.names(mine)}: {text}")
            status = worse if status is Status.OK else status
    message = "; ".join(said)
    if status is not Status.OK:
        warnings.warn(message, GradiatorWarning, stacklevel=2)
    y = site.y_layout
    return NoiseEstimate(
        y.unflatten(search.noise), y.unflatten(search.dof), y.unflatten(search.verdict),
        y.unflatten(search.spacing), search.levels, site.x_layout.unflatten(along),
        site.evaluate.nfev, status, message,
    )  # fmt: skip


def _line(site: _Site, direction: Any, rng: Any) -> tuple[Array, float]:
    """The line's direction (m,), and the largest spacing that stays within bounds and reach."""
    room = np.minimum(site.up, site.down)
    if direction is None:
        draw = np.random.default_rng(rng)
        along = site.scale * draw.uniform(0.5, 1, len(room)) * draw.choice([-1.0, 1.0], len(room))
        along = np.where(room > 0, along, 0.0)
    else:
        along = checks.like_x(direction, site.x_layout, "direction")
    if not along.any() or ((room <= 0) & (along != 0)).any():
        raise ValueError(
            "the line cannot leave x both ways: every input that it moves lies on a bound or is "
            "fixed; move x inside, widen the bounds or give another direction"
        )
    moved = along != 0
    reach = np.minimum(room, REACH * site.scale)[moved] / np.abs(along[moved])
    return along, float(reach.min()) / 3


# -- steps -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class StepEstimate:
    """The difference step of each input.

    Attributes
    ----------
    step : like x
        In units of x; negative where only a backward step fits; nan where the input is fixed.
    ratio : like x
        The testing ratio there, ideally 3: curvature over noise.
    found : like x, of str
        A value of ``Found`` for each input.
    noise : like y
        The noise that was used.
    nfev : int
    status : Status
    message : str
    """

    step: Any
    ratio: Any
    found: Any
    noise: Any
    nfev: int
    status: Status
    message: str
    _search: StepSearch
    _x: Layout
    _y: Layout

    @property
    def jac(self) -> Any:
        """The Jacobian, y per x, by all values of the search together.

        Each input's values are one fit of a random Taylor series, which is closer than the
        difference quotient at ``step``: 1.1 to 5 times on the problems of the paper.
        """
        return blocks(self._fits[0], self._y, self._x)

    @property
    def stderr(self) -> Any:
        """Standard errors of ``jac``: inf for fixed inputs."""
        return blocks(self._fits[1], self._y, self._x)

    @cached_property
    def _fits(self) -> tuple[NDArray[Any], Array]:
        n, m = self._y.size, self._x.size
        search = self._search
        jac, err = np.zeros((n, m), search.y.dtype), np.full((n, m), np.inf)
        for j, values in enumerate(search.values):
            t = np.array([t for t in values if abs(t) >= NEAR * abs(search.step[j])])
            if len(t):
                rises = np.array([values[s] - search.y for s in t])
                dx, df = np.append(0.0, t)[:, None], np.concatenate([np.zeros((1, n)), rises])
                fit = Taylor(noise=search.noise).solve(dx, df)
                jac[:, j], err[:, j] = fit.coef[:, 0], fit.cov.stderr()[:, 0]
        return jac, err


_STEP_WORDS = {
    Found.NOT_SMOOTH: (
        Status.LACK_OF_FIT,
        "no step balances truncation and noise: a kink or a jump at x, or a region around it "
        "where fun fails; check the noise, or take a one-sided method",
    ),
    Found.NO_ANSWER: (
        Status.NO_SIGNAL,
        "the outputs do not answer within their noise, up to the largest step; give a larger "
        "x_scale if they should",
    ),
    Found.LINEAR: (Status.OK, "no curvature to the largest step: any step up to it will do"),
}


def optimal_step(
    fun: Callable[..., Any],
    x: Any,
    noise: Any = None,
    method: str = "3-point",
    *,
    rng: Any = None,
    **options: Unpack[Running],
) -> StepEstimate:
    """The step of each input at which truncation and noise of a difference balance.

    Parameters
    ----------
    fun : callable
        As in ``jacobian``.
    x : array_like or dict of array_like
    noise : scalar or like y, optional
        Standard deviation of one evaluation; by default ``estimate_noise`` finds it first.
    method : {"3-point", "2-point"}
        Central or forward differences.
    rng : None, int or numpy.random.Generator
        For ``estimate_noise``.
    **options
        ``args, kwargs, x_scale, bounds, workers, vectorized, run`` as in ``jacobian``.

    Returns
    -------
    StepEstimate
        Takes 2 to 10 evaluations an input ("2-point"), or 4 to 20. Several outputs share a step,
        the best for the sum of their squared errors in units of their noise.

    Raises
    ------
    ValueError
        For noise that is negative or not finite, or cannot be told.

    Warns
    -----
    GradiatorWarning
        Where an input shows no answer, or no step is good.

    References
    ----------
    H.-J. M. Shi, Y. Xie, M. Q. Xuan and J. Nocedal, SIAM J. Sci. Comput. 44 (2022) A2302-A2321.
    """
    central = checks.choice(method, ("2-point", "3-point"), "method") == "3-point"
    spent = 0
    if noise is None:
        told = estimate_noise(fun, x, rng=rng, **options)
        noise, spent = told.noise, told.nfev
    site = _Site(fun, x, options)
    sigma = checks.like_x(noise, site.y_layout, "noise")
    if not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        raise ValueError(
            f"noise must be finite and not negative, got {noise!r:.80}; where estimate_noise "
            "cannot tell it, give your own"
        )
    with site.evaluate:
        search = StepSearch(site.y, sigma, site.scale, site.up, site.down, central=central)
        while (asked := search.ask()) is not None:
            inputs, t = asked
            offsets = np.zeros((len(t), len(site.x)))
            offsets[np.arange(len(t)), inputs] = t
            search.tell(site.at(offsets))
    status, message = Status.OK, []
    for found, (worse, text) in _STEP_WORDS.items():
        if len(mine := np.flatnonzero(search.found == found)):
            names = ", ".join(f"x{site.x_layout.names[j]}" for j in mine[:5])
            message.append(f"{names}{' and more' if len(mine) > 5 else ''}: {text}")
            status = worse if status is Status.OK else status
    if status is not Status.OK:
        warnings.warn("; ".join(message), GradiatorWarning, stacklevel=2)
    layout = site.x_layout
    return StepEstimate(
        layout.unflatten(search.step * search.sign), layout.unflatten(search.ratio),
        layout.unflatten(search.found), site.y_layout.unflatten(sigma),
        spent + site.evaluate.nfev, status, "; ".join(message), search, layout, site.y_layout,
    )  # fmt: skip
