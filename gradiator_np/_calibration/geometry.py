"""Where runs tell most: the first ones, and steps that improve the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gradiator_np._calibration.iterate import Iterate
from gradiator_np._calibration.triangles import triangle
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._calibration.uncertainty import minimiser_covariance
from gradiator_np._typing import Array, Mask

#: First displacements, in units of the scale: the steps that follow are this long, and at a noise
#: of 1e-2 the best forward step is 1.7 sqrt(sigma / rms r) = 0.17.
DISPLACEMENT = 0.2
#: Attempts at moving one parameter, every second one as far to the other side. Distances fall by
#: the first factor four times, then by the other: a share of |x| may be years of a date.
MOST_ATTEMPTS, CLOSER, FAR_CLOSER, CLOSE_ATTEMPTS = 14, 0.25, 1e-2, 8
#: What a run far off tells of the next distance is believed down to this factor: an exponential
#: falls by much less.
LEAST_FACTOR = 1e-6
DONE = -1
#: A run next to the centre goes this share of the difference step.
NEXT_TO_CENTER = 0.05


class InitialDesign:
    """One displaced run for each parameter; failed ones are reversed, then shortened."""

    def __init__(self, m: int) -> None:
        self._attempts = np.zeros(m, np.intp)
        self._shares = np.ones(m)  # of the first displacement, with signs

    def points(
        self, base: Array, region: TrustRegion, most: int, factors: Array | None = None
    ) -> list[Array]:
        """Points to run, one for each parameter that has not been moved, at most ``most``.

        ``factors`` (m,): what the latest displacement has to be multiplied by where its run came
        back, far off; nan where it failed. None where no run has succeeded: then fun is at fault,
        not the unit.
        """
        attempts = CLOSE_ATTEMPTS if factors is None else MOST_ATTEMPTS
        found: list[Array] = []
        for j in np.flatnonzero((self._attempts != DONE) & region.movable).tolist():
            factor = np.nan if factors is None else factors[j]
            while self._attempts[j] < attempts and len(found) < most:
                if self._attempts[j]:
                    self._next_share(j, factor)
                    factor = np.nan
                self._attempts[j] += 1
                point = base.copy()
                point[j] += DISPLACEMENT * self._shares[j] * region.scale[j]
                if region.contains(point) and point[j] != base[j]:
                    found.append(point)
                    break
        return found

    def _next_share(self, j: int, factor: float) -> None:
        attempt = self._attempts[j]
        if np.isfinite(factor):
            self._shares[j] *= np.clip(factor, LEAST_FACTOR, CLOSER)
            return
        self._shares[j] *= -1.0
        if attempt % 2 == 0:
            self._shares[j] *= CLOSER if attempt < CLOSE_ATTEMPTS else FAR_CLOSER

    def predicted(
        self, base: Array, residuals: Array, jac: Array, scale: Array
    ) -> Iterator[tuple[Array, Array]]:
        """Points and residuals that an earlier Jacobian predicts, in place of runs."""
        for j in np.flatnonzero(self._attempts != DONE):
            point = base.copy()
            point[j] += DISPLACEMENT * scale[j]
            yield point, residuals + jac[:, j] * (DISPLACEMENT * scale[j])
        self.end()

    def moved(self, parameters: Mask) -> None:
        """Runs beside the centre exist for these parameters."""
        self._attempts[parameters] = DONE

    def restart(self, parameters: Mask) -> None:
        """The base of the displacements failed: these parameters start again from another."""
        self._attempts[parameters] = 0
        self._shares[parameters] = 1.0

    def end(self) -> None:
        self._attempts[:] = DONE


# -- steps, in radii of the trust region ---------------------------------------------------------


def step_along(
    direction: Array, length: float, low: Array, high: Array, rows: Array, room: Array
) -> Array:
    """A step of that length within the limits; see ``reflected``."""
    size = np.linalg.norm(direction)
    step = direction * (length / size) if size > 0 else direction
    return reflected(step, low, high, rows, room)


def reflected(step: Array, low: Array, high: Array, rows: Array, room: Array) -> Array:
    """A step within low <= u <= high and rows u <= room: reversed where that cuts it short.

    At half-spaces also where bounds turn it and not its reverse: what is left of the way out of a
    corner may be the way out of another limit.
    """
    forth, back = (_cut(np.clip(s, low, high), rows, room) for s in (step, -step))
    inside = [bool(((low <= s) & (s <= high)).all()) for s in (step, -step)]
    turned = len(rows) > 0 and inside == [False, True]
    longer: Array = back if turned or np.linalg.norm(back) > 1.5 * np.linalg.norm(forth) else forth
    return longer


def _cut(step: Array, rows: Array, room: Array) -> Array:
    """The part of a step that keeps to half-spaces, in which u = 0 lies."""
    gain = rows @ step
    rounding = 1e-12 * np.linalg.norm(rows, axis=1) * np.linalg.norm(step)  # along what holds
    share = np.divide(room, gain, out=np.ones_like(gain), where=gain > rounding)
    return np.asarray(step * min(1.0, float(share.min(initial=1.0))))


def downhill_steps(
    it: Iterate, region: TrustRegion, length: float, most: int, taken: int
) -> list[Array]:
    """Along what J knows least, downhill, so that one of them may be a better point as well.

    ``taken`` steps were made before: where the slope is 0 they take sides in turn.
    """
    steps = []
    for count, direction in enumerate(it.loss.directions[:most], taken + 1):
        side = -np.sign(float(direction @ it.model.gradient) or (-1.0) ** count)
        steps.append(step_along(side * direction, length, *region.box(it.x)))
    return steps


def narrowing_steps(it: Iterate, region: TrustRegion, wanted: Array, most: int) -> list[Array]:
    """Where runs tell most of parameters whose intervals are wider than wanted.

    By errors of the residuals: next to the centre. By errors of J: along the widest direction, on
    both sides in turn, where noise equals curvature. Where nothing determines some parameters:
    along what J knows least.

    Parameters
    ----------
    wanted : array, shape (m,)
        Half widths; inf where any width will do.
    most : int
    """
    model, weight = it.model, region.unit / wanted
    cov, undetermined = minimiser_covariance(model, it.active)
    directions, share = it.loss.directions, 1.0
    if not undetermined.any():
        exact_jac = replace(model, residuals=np.zeros_like(model.residuals))
        by_residuals, _ = minimiser_covariance(exact_jac, it.active)
        _, vecs = np.linalg.eigh(cov * np.outer(weight, weight))
        directions = (cov @ (vecs * weight[:, None])).T[::-1]
        if np.diagonal(by_residuals) @ weight**2 > 0.5 * (np.diagonal(cov) @ weight**2):
            share = NEXT_TO_CENTER
    # On the side where fewer samples lie: pairs cancel their curvature. Counted, since in a sum of
    # distances one sample far off outweighs hundreds next to the centre (of 60 fits 3 spent all
    # their runs on one side).
    sides = np.sign(np.sign(model.samples @ directions.T).sum(0))
    directions = directions * np.where(sides == 0, 1.0, -sides)[:, None]
    length = region.in_radii(share * region.difference_step)
    return [step_along(direction, length, *region.box(it.x)) for direction in directions[:most]]


def confirming_step(
    it: Iterate, region: TrustRegion, share: float, rng: np.random.Generator
) -> Array:
    """A run along what J answers to least, due before the search ends.

    Next to the centre it finds curvature that passed for noise. As far as noise equals curvature
    (``share`` 1 of the difference step) it finds inputs that do nothing: samples on one path mix
    their columns of J with others', and next to the centre noise hides that (10 % of inert inputs
    passed for determined at a noise of 1e-4, 1 % with it).
    """
    length, side = region.in_radii(share * region.difference_step), rng.choice((-1, 1))
    direction = np.zeros(len(it.x))
    direction[region.movable] = np.linalg.svd(triangle(it.model.jac[:, region.movable]))[2][-1]
    # rounding alone gives singular vectors their sign
    direction *= np.sign(direction[np.argmax(np.abs(direction))]) or 1.0
    return step_along(side * direction, length, *region.box(it.x))


def single_steps(it: Iterate, region: TrustRegion, parameters: Mask) -> list[Array]:
    """A step along each of these parameters, off its bound, as far as tells most of J."""
    length = region.in_radii(region.difference_step)
    steps = []
    for j in np.flatnonzero(parameters & region.movable):
        axis = np.zeros(len(it.x))
        axis[j] = 1.0
        steps.append(step_along(axis, length, *region.box(it.x)))
    return steps
