"""How far to step? Where truncation meets noise, input by input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._diagnose.findings import findings, warned
from gradiator_np._diagnose.noise import estimate_noise
from gradiator_np._diagnose.step_search import StepOutcome, StepSearch
from gradiator_np._options import ProbeOptions, takes
from gradiator_np._site import Site
from gradiator_np._status import Status
from gradiator_np._structure import Layout, blocks
from gradiator_np._text import listing, written
from gradiator_np._typing import Array
from gradiator_np.solvers._taylor.solver import Taylor

# Values this much nearer to x than the step say nothing of the slope, and their crowd misleads
# the model's idea of the distance over which f bends.
NEAR = 0.2


@dataclass(frozen=True, eq=False, repr=False)
class StepEstimate:
    """The difference step of each input.

    Attributes
    ----------
    step : like x
        In units of x; negative where only a backward step fits; nan where the input is fixed.
    ratio : like x
        The testing ratio there, ideally 3: curvature over noise.
    found : like x, of str
        A value of ``StepOutcome`` for each input.
    noise : like y
        The noise that was used.
    nfev : int
        Evaluations of ``fun``.
    status : Status
        How far this can be trusted.
    message : str
        What stands in the way for which inputs.

    Examples
    --------
    >>> from gradiator_np import optimal_step
    >>> found = optimal_step(lambda x: x[0] ** 3, [1.0], noise=1e-6)
    >>> found.step.shape, found.stderr.shape, found.success
    ((1,), (1,), True)
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
    def success(self) -> bool:
        """Whether every input has a step: ``status.success``."""
        return self.status.success

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
                fit = Taylor().solve(dx, df, noise=search.noise)
                jac[:, j], err[:, j] = fit.coef[:, 0], fit.cov.stderr()[:, 0]
        return jac, err

    def __repr__(self) -> str:
        columns = {
            "input": [f"x{name}" for name in self._x.names],
            "step": written(self.step, ".3g"),
            "ratio": written(self.ratio, ".2g"),
            "found": written(self.found),
        }
        return listing(self, columns, ".step")


_OUTCOME_WORDS = {
    StepOutcome.NOT_SMOOTH: (
        Status.LACK_OF_FIT,
        "no step balances truncation and noise: a kink or a jump at x, or a region around it "
        "where fun fails; check the noise, or take a one-sided method",
    ),
    StepOutcome.NO_ANSWER: (
        Status.NO_SIGNAL,
        "the outputs do not answer within their noise, up to the largest step; give a larger "
        "x_scale if they should",
    ),
    StepOutcome.LINEAR: (Status.OK, "no curvature to the largest step: any step up to it will do"),
}


@takes(ProbeOptions)
def optimal_step(
    fun: Callable[..., Any],
    x: Any,
    noise: Any = None,
    method: str = "3-point",
    *,
    rng: Any = None,
    **options: Unpack[ProbeOptions],
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
        As in ``estimate_noise``.
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

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import optimal_step
    >>> found = optimal_step(np.exp, [0.5], noise=1e-6)
    >>> bool(0.003 < found.step[0] < 0.03), bool(abs(found.jac[0, 0] - np.exp(0.5)) < 1e-3)
    (True, True)
    """
    central = checks.choice(method, ("2-point", "3-point"), "method") == "3-point"
    spent = 0
    if noise is None:
        told = estimate_noise(fun, x, rng=rng, **options)
        noise, spent = told.noise, told.nfev
    site = Site.of(fun, x, options)
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
    layout = site.x_layout
    status, message = findings(search.found, _OUTCOME_WORDS, [f"x{name}" for name in layout.names])
    return warned(StepEstimate(
        layout.unflatten(search.step * search.sign), layout.unflatten(search.ratio),
        layout.unflatten(search.found), site.y_layout.unflatten(sigma),
        spent + site.nfev, status, message, search, layout, site.y_layout,
    ))  # fmt: skip
