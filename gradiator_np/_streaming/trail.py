"""Weights for samples along the trail of a moving point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from gradiator_np._typing import Array

# Steps below this part of the largest gain no more weight: rounding of f competes there.
STEP_FLOOR = 1e-6


@dataclass
class Trail:
    """The present point, and how far a difference along its trail is to be trusted.

    A function with second derivatives of size L changes over a step of length d by J d with an
    error of about L d^2 / 2, while J itself changes by about L d. So a difference has the variance
    v = 2 sigma^2 + L^2 d^4 / 4, and a move adds the variance L^2 d^2 to J in all directions (a
    random walk). Lengths are relative to ``span``, so inputs may be scaled badly. Where sigma is
    not known L is the only scale and drops out; where it is known, L is learned from the normalised
    innovation of each difference. Neighbouring differences share the noise of a point; that is left
    out. Curvature is taken as equal in all directions and outputs, so error bars are rough: on
    walks over a curved function 95 % intervals held 0.94 to 0.99 of all entries, down to 0.79 of a
    single entry where steps are long.

    Attributes
    ----------
    x, f : array, shape (m,) and (n,)
        The present point and the value there.
    span : array, shape (m,)
        Largest step of each input so far.
    bend, spread : float
        Sums of a least-squares fit of L^2, in units of the noise: L^2 = bend / spread.
    """

    x: Array
    f: Array
    span: Array
    bend: float = 0.0
    spread: float = 0.0

    @classmethod
    def start(cls, x: Array, f: Array) -> Trail:
        """At the first point."""
        return cls(x.copy(), f.copy(), np.zeros(len(x)))

    def copy(self) -> Trail:
        """An independent copy; x and f are replaced, never written to."""
        return replace(self, span=self.span.copy())

    def arrays(self) -> dict[str, Array]:
        """All of it, for a file."""
        return {"x": self.x, "f": self.f, "span": self.span,
                "bend": np.array([self.bend, self.spread])}  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Trail:
        """What ``arrays`` gave."""
        return cls(arrays["x"], arrays["f"], arrays["span"], *map(float, arrays["bend"]))

    def move(self, x: Array, f: Array) -> None:
        """Make x the present point, and f the value there."""
        self.x, self.f = x.copy(), f.copy()

    def stretch(self, dx: Array) -> float:
        """Widen ``span`` to hold a step; return how the unit of length grew."""
        wider = np.maximum(self.span, np.abs(dx))
        seen = self.span > 0
        growth = float((wider[seen] / self.span[seen]).max(initial=1.0))
        self.span = wider
        self.bend /= growth**4
        self.spread /= growth**8
        return growth

    def weigh(self, dx: Array, innovation: Array | None) -> tuple[float, Array]:
        """Weight of a difference over the step ``dx``, and the variance that the move adds.

        Parameters
        ----------
        dx : array, shape (m,)
            Not zero; within ``span``.
        innovation : array, shape (n,), or None
            Normalised innovation squared of each output: the squared misfit of the predicted
            difference, in units of the noise; None where that is not known, nan of outputs for
            which nothing was predicted.

        Returns
        -------
        weight : float
            Inverse of v, relative to the noise of one evaluation (or to L = 1).
        inflation : array, shape (m,)
            Variance added to each entry of J, in the same units.
        """
        per_span = np.divide(1.0, self.span, out=np.zeros_like(dx), where=self.span > 0)
        square = float(np.square(dx * per_span).sum())
        if innovation is None:
            return 4 / max(square, STEP_FLOOR**2) ** 2, square * per_span**2
        predicted = innovation[~np.isnan(innovation)]
        if len(predicted):
            # Least squares of (innovation - 2) = L^2 d^4 / 4 through the origin.
            quartic = square**2 / 4
            self.bend += (float(predicted.mean()) - 2) * quartic
            self.spread += quartic**2
        curvature = max(self.bend / self.spread, 0.0) if self.spread else 0.0
        return 1 / (2 + curvature * square**2 / 4), curvature * square * per_span**2


class Follower(Protocol):
    """What takes weighted differences along a trail."""

    def innovation(self, dx: Array, df: Array) -> Array | None:
        """Normalised innovation squared of each output, nan where ``dx`` is a new direction; None
        where the noise is not known."""

    def step(
        self, dx: Array, df: Array, weight: float, inflation: Array | None, growth: float
    ) -> None:
        """Take one difference; ``inflation`` (m,) is the variance that a move adds to J, and
        ``growth`` that of the unit of length in which earlier weights, 1 / length^4, were."""


def follow(state: Follower, dx: Array, df: Array, trail: Trail, move: bool) -> None:
    """Take the difference from the present point of a trail, dx not zero."""
    growth = trail.stretch(dx)
    innovation = state.innovation(dx, df)
    weight, inflation = trail.weigh(dx, innovation)
    state.step(dx, df, weight, inflation if move else None, growth if innovation is None else 1.0)
