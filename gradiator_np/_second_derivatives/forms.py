"""Second differences: which runs, with which weights, make up which second derivative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradiator_np._second_derivatives.runs import CENTRE, Node, Runs
from gradiator_np._typing import Array, Index


class Rule(NamedTuple):
    """A second difference along directions 0 and 1 (or 0 alone), in units of their steps.

    Attributes
    ----------
    nodes : tuple of (multiple of direction 0, of direction 1, weight)
    centre : float
        The weight of the value at x.
    even : bool
        Whether the points are symmetric about x.
    centred : bool
        Whether it vanishes with the step.
    """

    nodes: tuple[tuple[int, int, float], ...]
    centre: float
    even: bool
    centred: bool = False

    @property
    def weight(self) -> float:
        """Variance at unit noise of all but the value at x."""
        return sum(w * w for *_, w in self.nodes)


#: f(x + h) - 2 f(x) + f(x - h).
SYMMETRIC = Rule(((1, 0, 1.0), (-1, 0, 1.0)), -2.0, True)
#: f(x + 2 h) - 2 f(x + h) + f(x), where a bound allows one side alone.
FORWARD = Rule(((2, 0, 1.0), (1, 0, -2.0)), 1.0, False)
#: Both corners of a diagonal: odd powers cancel.
PAIR = Rule(
    (
        (1, 1, 0.5), (-1, -1, 0.5), (1, 0, -0.5), (-1, 0, -0.5), (0, 1, -0.5), (0, -1, -0.5)
    ), 1.0, True,
)  # fmt: skip
#: One corner.
CORNER = Rule(((1, 1, 1.0), (1, 0, -1.0), (0, 1, -1.0)), 1.0, False)
#: All four corners: no value of one direction alone is needed.
CROSS = Rule(((1, 1, 0.25), (-1, -1, 0.25), (1, -1, -0.25), (-1, 1, -0.25)), 0.0, True)
#: What a pair tells beside: third derivatives, the error of a corner.
ODD = Rule(
    (
        (1, 1, 0.5), (-1, -1, -0.5), (1, 0, -0.5), (-1, 0, 0.5), (0, 1, -0.5), (0, -1, 0.5)
    ), 0.0, False, True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Form:
    """One second derivative: along directions a and b (a == b: along one), by a rule."""

    a: int
    b: int
    rule: Rule

    def nodes(self, start: Index, level: int) -> list[tuple[Node, float]]:
        """The runs of one size with their weights."""
        a, b = (self.a, int(start[self.a]) + level), (self.b, int(start[self.b]) + level)
        out = []
        for i, j, weight in self.rule.nodes:
            node: Node = ((a[0], i, a[1]),) if i else ()
            if j:
                node += ((b[0], j, b[1]),)
            out.append((node, weight))
        return out


def evaluate(runs: Runs, forms: Sequence[Form], start: Index, levels: Sequence[int]) -> Array:
    """Second differences (E, K, n) over the product of the steps really made; nan where a run is
    missing. In units of the steps at level ``start``."""
    centre = runs.value(CENTRE)
    out = np.zeros((len(forms), len(levels), len(centre)))
    for e, form in enumerate(forms):
        a, b = int(start[form.a]), int(start[form.b])
        for k, level in enumerate(levels):
            total = form.rule.centre * centre
            for node, weight in form.nodes(start, level):
                total = total + weight * runs.value(node)
            made = runs.share(form.a, a + level) * runs.share(form.b, b + level)
            out[e, k] = total / made * 2.0 ** (-(a + b) / 2)
    return out
