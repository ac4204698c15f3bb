"""How noisy is a function? Differences of values on a line tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._diagnose.ecnoise import NoiseSearch, NoiseVerdict
from gradiator_np._diagnose.findings import findings, warned
from gradiator_np._options import ProbeOptions, takes
from gradiator_np._site import Site
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._text import listing, written
from gradiator_np._typing import Array

# The outermost point of a noise line: the sign of every input is kept.
REACH = 0.5


@dataclass(frozen=True, eq=False, repr=False)
class NoiseEstimate:
    """The noise of each output near a point.

    Attributes
    ----------
    noise : like y
        Standard deviation of one evaluation, in units of y; 0 where the values show none, nan
        where no spacing shows it.
    dof : like y
        Degrees of freedom: with 7 values 1.5 to 4, so within a factor of about 2 either way.
    verdict : like y, of str
        A value of ``NoiseVerdict`` for each output.
    spacing : like y
        Distance between the points, in units of ``direction``.
    levels : array, shape (points - 1, n)
        The estimates from differences of order 1, 2, ...: level where they show noise.
    direction : like x
        The line: points are x + t * direction.
    nfev : int
        Evaluations of ``fun``.
    status : Status
        How far this can be trusted.
    message : str
        What stands in the way for which outputs.

    Examples
    --------
    >>> from gradiator_np import estimate_noise
    >>> found = estimate_noise(lambda x: [x[0], 0 * x[0] + 7], [1.0])
    >>> found.verdict.tolist()
    ['detected', 'constant']
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

    @property
    def success(self) -> bool:
        """Whether the noise of every output is told: ``status.success``."""
        return self.status.success

    def __repr__(self) -> str:
        columns = {
            "output": [f"y{name}" for name in Layout.of(self.noise).names],
            "noise": written(self.noise, ".3g"),
            "dof": written(self.dof, ".2g"),
            "verdict": written(self.verdict),
            "spacing": written(self.spacing, ".2g"),
        }
        return listing(self, columns, ".noise")


_VERDICT_WORDS = {
    NoiseVerdict.FAILED: (
        Status.FAILED_RUNS,
        "fun failed on the line at every spacing that was tried; give another direction or a "
        "smaller h",
    ),
    NoiseVerdict.TOO_SMALL: (
        Status.UNDETERMINED,
        "values hardly change on the line (rounded or printed to few digits?); give a larger h",
    ),
    NoiseVerdict.TOO_LARGE: (
        Status.UNDETERMINED,
        "no three orders of differences agree at any spacing that was tried; give a smaller h, "
        "or more points",
    ),
    NoiseVerdict.BOUND: (
        Status.UNDETERMINED,
        "values range over more than a tenth of their size at every spacing; the noise given is "
        "an upper bound. Add a constant to the output, or look elsewhere",
    ),
    NoiseVerdict.CONSTANT: (
        Status.OK,
        "constant on the line, noise 0: the output does not depend on these inputs here, or only "
        "beyond this distance (give h)",
    ),
    NoiseVerdict.EXACT: (
        Status.OK,
        "a polynomial on the line without any noise, noise 0; rounding of y is all there is",
    ),
}


@takes(ProbeOptions)
def estimate_noise(
    fun: Callable[..., Any],
    x: Any,
    *,
    h: float | None = None,
    direction: Any = None,
    points: int = 7,
    rng: Any = None,
    **options: Unpack[ProbeOptions],
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
        For the direction; None stands for seed 0, so that the same call gives the same answer.
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

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import estimate_noise
    >>> found = estimate_noise(lambda x: np.round(np.exp(x), 6), [0.5], h=1e-3)
    >>> bool(1e-7 < found.noise[0] < 1e-6), found.success  # rounded to 1e-6: 2.9e-7
    (True, True)
    """
    site = Site.of(fun, x, options)
    with site.evaluate:
        along, most = _line(site, direction, rng)
        search = NoiseSearch(site.y, np.sqrt(site.eps) if h is None else h, points, most)
        while (t := search.ask()) is not None:
            search.tell(site.at(t[:, None] * along))
    y = site.y_layout
    status, message = findings(search.verdict, _VERDICT_WORDS, [f"y{name}" for name in y.names])
    return warned(NoiseEstimate(
        y.unflatten(search.noise), y.unflatten(search.dof), y.unflatten(search.verdict),
        y.unflatten(search.spacing), search.levels, site.x_layout.unflatten(along),
        site.nfev, status, message,
    ))  # fmt: skip


def _line(site: Site, direction: Any, rng: Any) -> tuple[Array, float]:
    """The line's direction (m,), and the largest spacing that stays within bounds and reach."""
    room = np.minimum(site.up, site.down)
    if direction is None:
        along = site.scale * checks.random_direction(checks.generator(rng), len(room))
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
