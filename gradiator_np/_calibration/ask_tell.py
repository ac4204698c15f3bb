"""The ask-and-tell form of the fit: somebody else runs the points, residuals come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._calibration.assembly import result_of
from gradiator_np._calibration.problem import FitProblem
from gradiator_np._calibration.result import LeastSquaresResult
from gradiator_np._calibration.search import Search
from gradiator_np._evaluate import output
from gradiator_np._options import FitOptions, takes
from gradiator_np._samples import Samples
from gradiator_np._signatures import complete
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._typing import Array


@takes(FitOptions)
class LeastSquares:
    """Ask-and-tell form of `least_squares`: somebody else runs the points.

    It can be pickled and copied at any time, with points on their way.

    Parameters
    ----------
    x0 : array_like or dict
        Where the search starts.
    **options : Options

    Raises
    ------
    TypeError, ValueError
        For arguments that are no numbers, of another shape, or out of range.

    Examples
    --------
    >>> from gradiator_np import LeastSquares
    >>> search = LeastSquares([1.0, 1.0])
    >>> while True:
    ...     points, ids = search.ask()
    ...     if len(ids) == 0:
    ...         break
    ...     search.tell([[x[0] - 3, x[0] * x[1] - 6] for x in points], ids)
    >>> search.result().x.round(6)
    array([3., 2.])
    """

    def __init__(self, x0: Any, **options: Unpack[FitOptions]) -> None:
        known = complete(options, FitOptions)
        self._problem = FitProblem.of(x0, known)
        self._search = Search(self._problem, checks.generator(known["rng"]))
        self._y_layout: Layout | None = None

    @property
    def nfev(self) -> int:
        """Points told so far, failed ones included."""
        return self._search.nfev

    @property
    def rounds(self) -> int:
        """How often fresh points were asked for."""
        return self._search.rounds

    @property
    def reason(self) -> Status:
        """Why the search ended, as in `least_squares`; INCOMPLETE while runs are wanted."""
        return self._search.reason

    @property
    def samples(self) -> Samples:
        """Every run told so far, those given at the start included, failed ones as nan."""
        return self._search.log.samples

    def __repr__(self) -> str:
        search, m = self._search, self._problem.x_layout.size
        cost = f", cost {search.cost:.3g}" if np.isfinite(search.cost) else ""
        pending = f" ({len(search.pending)} pending)" if search.pending else ""
        return (
            f"LeastSquares({m} parameter{'s' * (m != 1)}, {self.nfev} of "
            f"{self._problem.max_nfev} runs{pending}{cost}, {self.reason})"
        )

    def ask(self, k: int = 1) -> tuple[Any, NDArray[np.intp]]:
        """Points to run next.

        Parameters
        ----------
        k : int
            At most so many, where there is a choice: the first m + 1 go at once, and so do those
            that make J afresh, or that J is due with more than 20 parameters.

        Returns
        -------
        points : array, shape (len(ids), *x.shape), or dict of such arrays
            Asking again before telling gives the same points.
        ids : array of int
            Their names, for ``tell``; empty at the end.

        Raises
        ------
        EvaluationError
            Where every run failed, at x0 and beside it on either side; its ``samples`` hold why.
        """
        flat, ids = self._search.ask(checks.integer(k, "k"))
        return self._problem.x_layout.unflatten(self._problem.coordinates.expand(flat)), ids

    def tell(
        self,
        outputs: Any,
        ids: Sequence[int] | NDArray[np.intp] | None = None,
        errors: Mapping[int, str] | None = None,
    ) -> None:
        """Take residuals back, all or some of those asked for, in any order.

        Parameters
        ----------
        outputs : sequence of k values of fun
            None or nan marks a failed run.
        ids : sequence of int, optional
            Which points these are; by default all that are pending.
        errors : dict of int to str, optional
            Why runs failed, by id; their outputs are ignored.

        Raises
        ------
        TypeError, ValueError
            For unknown ids, or residuals that are no numbers or of another shape; nothing of
            this call is taken then.
        """
        pending = np.array(self._search.pending, np.intp)
        told, rows = checks.told(outputs, ids, errors, pending)
        layout, flats = self._y_layout, dict[int, Array | None]()
        for i, row in zip(told.tolist(), rows):
            flats[i] = None
            if row is not None:
                layout, flats[i] = self._residuals(row, layout)
        self._y_layout = layout
        self._search.tell(flats, dict(errors or {}))

    def _residuals(self, row: Any, known: Layout | None) -> tuple[Layout, Array]:
        """Layout of the residuals of one run, and the residuals flat, in our own memory."""
        layout, flat = output(row, 0)
        self._problem.check_residuals(layout, flat.dtype)
        if known is not None and layout.size != known.size:
            raise ValueError(
                f"fun returned {layout.size} residuals, earlier {known.size}; "
                "mark a failed run by None"
            )
        return known or layout, np.array(flat, np.float64)

    def result(self) -> LeastSquaresResult:
        """The answer so far; see `least_squares`.

        Raises
        ------
        EvaluationError
            Where no run has succeeded yet.
        """
        return result_of(self._search, self._y_layout)
