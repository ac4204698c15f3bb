"""The first runs of a search: x0, and a displacement of each parameter."""

from __future__ import annotations

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.geometry import InitialDesign
from gradiator_np._calibration.problem import FitProblem
from gradiator_np._calibration.selection import samples_about
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._samples import EvaluationError, Samples
from gradiator_np._typing import Array, Mask

#: Change of the residuals, as a share of them, that a displacement is to make.
AIM = 0.2


class Opening:
    """Points to run before there is a model; an earlier Jacobian takes their place."""

    def __init__(self, problem: FitProblem) -> None:
        self._problem = problem
        self._design = InitialDesign(len(problem.x0))
        self._jac0 = problem.jac0

    def from_given(self, samples: Samples, log: FitLog, region: TrustRegion, most: int) -> int:
        """Id of the best run given, -1 where none is within the bounds: then x0 is the start.

        Parameters that those runs move need no displacement.
        """
        log.add_given(samples)
        if not len(log.usable):
            return -1
        center = best_within(region, log)
        base = log.points[center] if center >= 0 else self._problem.x0
        rows = samples_about(base, log, region, most)
        u = (np.array([log.points[i] for i in rows]) - base) / region.scale
        if np.linalg.matrix_rank(u, tol=1e-6) == len(base):
            self._design.end()
        return center

    def points(self, center: int, log: FitLog, region: TrustRegion, left: int) -> list[Array]:
        """x0 and a displacement of each parameter, at most so many; none where that is done.

        Raises
        ------
        EvaluationError
            Where every run failed and nothing is left to try.
        """
        x0 = self._problem.x0
        points: list[Array] = []
        if center < 0 and not any(np.array_equal(p, x0) for p in log.points):
            points.append(x0)
        if self._jac0 is not None and not points:
            if center >= 0:
                self._add_predictions(center, log, self._jac0)
            self._jac0 = None
        if self._jac0 is None:
            base = log.points[center] if center >= 0 else x0
            factors = _factors(len(base), log) if center >= 0 else None
            points += self._design.points(base, region, left - len(points), factors)
        if not points and center < 0:
            samples = log.samples
            raise EvaluationError(
                f"no run has succeeded, at x0 or beside it: all {len(samples)} raised or returned "
                "nan or inf (samples.errors holds what they raised); start where fun has a value",
                samples,
            )
        return points

    def _add_predictions(self, center: int, log: FitLog, jac0: Array) -> None:
        residuals, x = log.output(center), log.points[center]
        assert residuals is not None
        predictions = self._design.predicted(x, residuals, jac0, self._problem.scale)
        for point, predicted in predictions:
            log.add_pseudo(point, predicted)

    def told(self, best: int, found_before: bool, log: FitLog) -> None:
        """Parameters that no run beside the best one moves are tried again."""
        x = log.points[best]
        moved: Mask = np.any([log.points[i] != x for i in log.usable], axis=0)
        if not found_before and log.residuals[0] is None:
            self._design.restart(~moved)
        self._design.moved(moved)


def best_within(region: TrustRegion, log: FitLog) -> int:
    """Id of the least sum of squares; -1 where there is none. Given runs may lie anywhere."""
    inside = [i for i in log.usable.tolist() if region.contains(log.points[i])]
    return min(inside, key=log.sum_of_squares, default=-1)


def _factors(m: int, log: FitLog) -> Array:
    """What displacements (m,) have to be multiplied by, by how far off the latest one led.

    Their runs came back, with a sum of squares that says nothing local; nan where none did.
    """
    factors = np.full(m, np.nan)
    bases = [log.points[i] for i in log.usable]
    for i in log.failed:
        moves = (np.flatnonzero(log.points[i] != base) for base in bases)
        alone = next((int(moved[0]) for moved in moves if len(moved) == 1), None)
        if alone is not None:
            growth = log.growth(i)
            factors[alone] = AIM / growth if np.isfinite(growth) else np.nan
    return factors
