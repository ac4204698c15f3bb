"""What was asked for and what came back: points and residuals in the order asked for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._calibration.constraints import Coordinates
from gradiator_np._calibration.objective import Objective
from gradiator_np._calibration.output_basis import OutputBasis, Rows
from gradiator_np._checks import EPS
from gradiator_np._samples import Samples
from gradiator_np._typing import Array, Index
from gradiator_np.solvers._solution import unit_of


def rounding_error(residuals: Array) -> float:
    """What rounding may leave in residuals of that size: a few units in the last place."""
    return 4.0 * EPS * float(np.max(np.abs(residuals)))


class FitLog:
    """Points with what fun returned there, and which of them models may use.

    Parameters
    ----------
    noise : array, shape of the residuals or (), or None
        Standard deviation of one residual of one run, where it is known.
    objective : Objective
        What of the residuals and the point is squared and summed.
    coordinates : Coordinates
        From points to x, where these differ.
    max_growth : float
        A sum of squares this many times ``reference`` counts as failed: it says nothing local.
    reduces : bool
        Whether models may be made from coordinates of the residuals in a basis of all runs.

    Attributes
    ----------
    points : list of array, shape (m,)
    unit : float
        What models count residuals in, so that their squares are floats: a power of two by the
        first run (that is not 0), mostly 1.
    residuals : list of (array, shape (n + p,), or None)
        For models, in ``unit``: n by what fun returned, p by a prior; None where pending, failed
        or rejected.
    n_data : int
        n, 0 before the first run.
    reference : float
        Sum of squares of the first run (that is not 0), in ``unit``; inf before.
    rounding : float
        Error of one residual of that run by rounding, in ``unit``.
    triple : tuple of int, or None
        The last three runs on a line, at equal distances, in its order.
    """

    def __init__(
        self,
        noise: Array | None = None,
        objective: Objective | None = None,
        max_growth: float = np.inf,
        coordinates: Coordinates | None = None,
        reduces: bool = False,
    ) -> None:
        self.points: list[Array] = []
        self.unit = 1.0
        self.residuals: list[Array | None] = []
        self.n_data = 0
        self.reference, self.rounding = np.inf, 0.0
        self.objective = objective or Objective()
        self._coordinates = coordinates
        self.triple: tuple[int, int, int] | None = None
        self._noise, self._max_growth = noise, max_growth
        self._outputs: list[Array | None] = []  # as returned
        self._errors: dict[int, str] = {}
        self._pending: set[int] = set()
        self._given: set[int] = set()  # runs that the caller brought
        self._pseudo: set[int] = set()  # predictions of an earlier Jacobian
        self._reduces = reduces and self.objective.loss == "linear"
        self._basis: OutputBasis | None = None
        self._in_basis: dict[int, Array] = {}  # coordinates of residuals

    # -- taking runs -------------------------------------------------------------------------

    def request(self, point: Array) -> int:
        """A point to be run; its id."""
        self.points.append(point)
        self.residuals.append(None)
        self._outputs.append(None)
        self._pending.add(len(self.points) - 1)
        return len(self.points) - 1

    def store(self, i: int, output: Array | None, error: str | None = None) -> None:
        """Take what came back from a point; models see it once it is accepted."""
        self._outputs[i] = output
        self._pending.discard(i)
        if error is not None:
            self._errors[i] = error

    @checks.underflow_is_zero()
    def accept(self, ids: Iterable[int]) -> None:
        """Let models use what was stored, in that order, where it is finite and local."""
        for i in ids:
            output = self._outputs[i]
            if output is None or not np.isfinite(output).all():
                continue
            self.n_data = output.size
            residuals = self.objective.residuals(self.points[i], output)
            first = self.reference == np.inf and residuals.any()
            if first:
                noise = self._noise_over_sigma
                self.unit = unit_of(residuals if noise is None else np.append(residuals, noise))
            with np.errstate(over="ignore"):
                if self.unit != 1.0:
                    residuals = residuals / self.unit
                roots = self.objective.roots(residuals, self.n_data, self.unit)
                size = float(roots @ roots)
            if not np.isfinite(size) or size > self._max_growth * self.reference:
                continue
            if first:
                self.reference = max(size, 1e-290)
                self.rounding = rounding_error(residuals)
            self.residuals[i] = residuals
            self._reduce(i, residuals[: self.n_data])

    def _reduce(self, i: int, residuals: Array) -> None:
        """Coordinates of one run more, as long as they are fewer than its residuals.

        Not where residuals have losses or noise of their own: what they are in another basis then
        is not what counts.
        """
        if not self._reduces:
            return
        if self._basis is None:
            noise = self.noise
            self._reduces = noise is None or not np.ptp(noise)
            self._basis = OutputBasis(len(residuals))
        self._reduces = self._reduces and self._basis.is_worth_it
        if not self._reduces:
            self._basis, self._in_basis = None, {}
            return
        self._in_basis[i] = self._basis.add(residuals)

    def rows(self, ids: Index) -> Rows:
        """What a model of these samples is made from."""
        if self._basis is None:
            known = (self.residuals[i] for i in ids)
            return Rows.of([r[: self.n_data] for r in known if r is not None])
        return Rows.reduced([self._in_basis[i] for i in ids], self._basis)

    def model_rows(self, i: int) -> Array:
        """What is squared and summed of a usable sample, by the rows of models."""
        residuals = self.residuals[i]
        if self._basis is None or residuals is None:
            return self.roots(i)
        return np.append(self.rows(np.array([i])).values[0], residuals[self.n_data :])

    def add(self, point: Array, output: Array | None, error: str | None = None) -> int:
        """A point and what came back from it; its id."""
        i = self.request(point)
        self.store(i, output, error)
        self.accept((i,))
        return i

    def add_given(self, samples: Samples) -> None:
        """Earlier runs, which cost nothing; the median of them becomes the reference.

        The best of them may be exact: then every new run would be too far off.
        """
        for row, (point, output) in enumerate(zip(samples.points, samples.outputs)):
            self._given.add(self.add(point, output, samples.errors.get(row)))
        if len(self.usable):
            sizes = [self.sum_of_squares(i) for i in self.usable]
            self.reference = max(float(np.median(sizes)), 1e-290)

    def add_pseudo(self, point: Array, residuals: Array) -> None:
        """A sample that no run made."""
        self._pseudo.add(self.add(point, residuals))

    # -- what is there -----------------------------------------------------------------------

    @property
    def noise(self) -> Array | None:
        """The noise that is known of residuals over sigma, shape (n,), in ``unit``."""
        noise = self._noise_over_sigma
        return None if noise is None else np.broadcast_to(noise / self.unit, self.n_data)

    @property
    def _noise_over_sigma(self) -> Array | None:
        if self._noise is None:
            return None
        sigma = self.objective.sigma
        noise = self._noise if sigma is None else self._noise / sigma
        return np.asarray(noise.reshape(-1))

    def roots(self, i: int) -> Array:
        """What is squared and summed of a usable sample."""
        residuals = self.residuals[i]
        assert residuals is not None
        return self.objective.roots(residuals, self.n_data, self.unit)

    @property
    def second_difference(self) -> float | None:
        """Mean square of that of the last three runs on a line that were made for it."""
        if self.triple is None:
            return None
        one, middle, other = (self.residuals[i] for i in self.triple)
        if one is None or middle is None or other is None:
            return None
        return float(np.mean(np.square((one - 2.0 * middle + other)[: self.n_data])))

    def output(self, i: int) -> Array | None:
        """What came back from a point, as returned."""
        return self._outputs[i]

    @property
    def nfev(self) -> int:
        """Runs that came back, failed ones included, given ones not."""
        return len(self.points) - len(self._pending | self._given | self._pseudo)

    def is_pending(self, i: int) -> bool:
        return i in self._pending

    @property
    def usable(self) -> Index:
        """Ids of what models may use."""
        return np.array([i for i, r in enumerate(self.residuals) if r is not None], np.intp)

    @property
    def failed(self) -> list[int]:
        """Ids of runs that failed, or came back with what says nothing local."""
        return [i for i, r in enumerate(self.residuals) if r is None and not self.is_pending(i)]

    @property
    def best(self) -> int:
        """Id of the least sum of squares; the first one where none is usable."""
        return min(range(len(self.points)), key=self.sum_of_squares)

    def sum_of_squares(self, i: int, data: Array | None = None) -> float:
        """Of the residuals of sample i, inf where it failed; with ``data`` (n,) in place of what
        fun returned."""
        residuals = self.residuals[i]
        if residuals is None:
            return np.inf
        if data is not None:
            residuals = np.append(data, residuals[self.n_data :])
        roots = self.objective.roots(residuals, self.n_data, self.unit)
        return float(roots @ roots)

    def growth(self, i: int) -> float:
        """Norm of the residuals of a run that was rejected as far off, over that of the first one.

        inf where it failed.
        """
        output = self._outputs[i]
        if output is None or not np.isfinite(output).all():
            return np.inf
        with np.errstate(over="ignore"):
            residuals = self.objective.residuals(self.points[i], output) / self.unit
            return float(np.linalg.norm(residuals) / np.sqrt(self.reference))

    @property
    def samples(self) -> Samples:
        """Every run that came back, given ones included, failed ones as nan."""
        runs = [i for i in range(len(self.points)) if i not in self._pending | self._pseudo]
        size = next((len(v) for v in self._outputs if v is not None), 1)
        failed = np.full(size, np.nan)
        outputs = [self._outputs[i] for i in runs]
        points = np.array([self.points[i] for i in runs])
        return Samples(
            points if self._coordinates is None else self._coordinates.expand(points),
            np.array([failed if v is None else v for v in outputs]),
            {row: self._errors[i] for row, i in enumerate(runs) if i in self._errors},
        )
