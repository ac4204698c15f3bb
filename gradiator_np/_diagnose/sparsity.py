"""Which outputs depend on which inputs? Few evaluations tell, where each depends on few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

from gradiator_np import _checks as checks
from gradiator_np._compressed.detection import detect
from gradiator_np._diagnose.findings import warned
from gradiator_np._options import ProbeOptions, takes
from gradiator_np._site import Site
from gradiator_np._status import Status
from gradiator_np._text import verdict
from gradiator_np._typing import Index
from gradiator_np.sparsity._detection import Detection, Method
from gradiator_np.sparsity._pattern import SparsityPattern


@dataclass(frozen=True, eq=False, repr=False)
class SparsityEstimate:
    """The sparsity pattern of a Jacobian, as evaluations near a point show it.

    Attributes
    ----------
    pattern : SparsityPattern
        (n, m), outputs and inputs flat. ``dense_rows`` have all inputs.
    dense_rows : array of int
        Outputs that depend on too many inputs for tests of groups to tell which (or that failed
        at x): given as depending on all.
    unexplained_rows : array of int
        Outputs that answered to inputs none of which is an entry found: noise beyond what is
        known of it, or an entry that answers at times.
    missed : float
        With 95 % confidence no more entries than these are missing in the other rows, of those
        that answer near x at all.
    method : str
        "nan" or "perturb": what was done to inputs.
    threshold : like y
        Changes of an output that its noise hides, and with them entries that change it by less at
        the steps taken; 0 with nan.
    nfev : int
        Evaluations of ``fun``.
    status : Status
        How far this can be trusted.
    message : str
        What stands in the way.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import detect_sparsity
    >>> found = detect_sparsity(lambda x: np.diff(x**2), np.ones(4))
    >>> found.pattern.to_csr().toarray().astype(int)
    array([[1, 1, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 1, 1]])
    """

    pattern: SparsityPattern
    dense_rows: Index
    unexplained_rows: Index
    missed: float
    method: str
    threshold: Any
    nfev: int
    status: Status
    message: str

    @property
    def success(self) -> bool:
        """Whether all rows are told: ``status.success``."""
        return self.status.success

    def __repr__(self) -> str:
        limit = "none missed" if self.missed < 1 else f"at most {self.missed:.0f} missed"
        return (
            f"SparsityEstimate ({self.nfev} evaluations, by {self.method})\n{self.pattern}\n"
            f"{limit}, with 95 % confidence\n{verdict(self)}"
        )


@takes(ProbeOptions)
def detect_sparsity(
    fun: Callable[..., Any],
    x: Any,
    *,
    method: Method = "auto",
    step: float | None = None,
    noise: Any = None,
    max_nfev: int | None = None,
    rng: Any = None,
    **options: Unpack[ProbeOptions],
) -> SparsityEstimate:
    """Find which outputs of ``fun`` depend on which inputs near x.

    Groups of inputs are moved, and each output says whether it answered. With s entries in a row
    that takes about s log m evaluations, not m: 140 for 10 000 inputs and outputs with 5 entries a
    row.

    Parameters
    ----------
    fun : callable
        As in ``jacobian``.
    x : array_like or dict of array_like
    method : str
        "perturb": inputs are displaced from two points near x, so that what is 0 at x by chance is
        found, and an output answers that differs by more than its noise. "nan": inputs are nan,
        and an output answers that is nan, where ``fun`` passes nan on: no noise, but a branch on
        the input, ``fmax`` or ``nansum`` hide entries, and products with stored zeros invent them.
        "auto": nan where it says of a first round what displacements say, else displacements.
        Programs that iterate until an error is small may not end with nan: take "perturb".
    step : float, optional
        Displacements in units of the scale of each input; by default 0.001, and up to 0.25
        where noise is in the way.
    noise : float or like y, optional
        Standard deviation of one evaluation; by default found from 6 evaluations on a line.
    max_nfev : int, optional
        Evaluations after which no more random groups are moved; what is found until then is
        confirmed.
    rng : None, int or numpy.random.Generator
        For groups and displacements; None stands for seed 0.
    **options
        ``args, kwargs, x_scale, bounds, workers, vectorized, run`` as in ``jacobian``.

    Returns
    -------
    SparsityEstimate

    Raises
    ------
    ValueError
        With ``method="nan"``, where ``fun`` does not pass nan on.

    Warns
    -----
    GradiatorWarning
        Where runs failed.

    References
    ----------
    D. Du and F. Hwang, Combinatorial Group Testing and Its Applications, World Scientific (2000).
    A. Griewank and C. Mitev, Detecting Jacobian sparsity patterns by Bayesian probing, Math.
    Program. 93 (2002) 1-25.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import detect_sparsity
    >>> from gradiator_np.sparsity import color
    >>> found = detect_sparsity(lambda x: np.convolve(np.sin(x), [1.0, -2.0, 1.0]), np.ones(1000))
    >>> found.pattern.shape, found.pattern.nnz, color(found.pattern).n_colors
    ((1002, 1000), 3000, 3)
    """
    site = Site.of(fun, x, options)
    with site.evaluate:
        found = detect(
            site, noise, method=method, rng=rng, max_nfev=max_nfev,
            step=None if step is None else checks.real(step, "step"),
        )  # fmt: skip
    status, message = _judged(found, site)
    return warned(SparsityEstimate(
        found.pattern, found.given_up, found.unexplained, found.missed, found.method,
        site.y_layout.unflatten(found.threshold), site.nfev, status, message,
    ))  # fmt: skip


def _judged(found: Detection, site: Site) -> tuple[Status, str]:
    """How far it can be trusted, in words."""
    status, parts = Status.OK, []
    if found.failed:
        status = Status.FAILED_RUNS
        parts.append(
            f"outputs failed in {found.failed} tests, which therefore rule nothing out: give "
            "bounds, or a smaller step"
        )
    if len(found.unexplained):
        status = Status.UNDETERMINED
        names = site.y_layout.listed("y", found.unexplained)
        parts.append(
            f"{names} answered to inputs none of which is among their entries: give noise=, or "
            "look there by themselves"
        )
    if len(found.given_up):
        status = Status.UNDETERMINED
        names = site.y_layout.listed("y", found.given_up)
        parts.append(
            f"{names} depend on too many inputs to tell which, or failed at x: given as "
            "depending on all (color(..., by='both') finds such rows from the left)"
        )
    return status, "; ".join(parts)
