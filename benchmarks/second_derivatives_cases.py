"""Random functions with exact second derivatives, drawn and not chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def _tanh(t: Any) -> Any:
    u = np.tanh(t)
    return u, 1 - u * u, -2 * u * (1 - u * u)


def _logistic(t: Any) -> Any:
    s = 1 / (1 + np.exp(-2 * t))
    return s, 2 * s * (1 - s), 4 * s * (1 - s) * (1 - 2 * s)


#: A function of one variable with its first two derivatives.
SHAPES = {
    "exp": lambda t: (np.exp(0.7 * t), 0.7 * np.exp(0.7 * t), 0.49 * np.exp(0.7 * t)),
    "sin": lambda t: (np.sin(t), np.cos(t), -np.sin(t)),
    "tanh": _tanh,
    "pole": lambda t: (
        1 / (1 + t * t), -2 * t / (1 + t * t) ** 2, (6 * t * t - 2) / (1 + t * t) ** 3
    ),
    "log": lambda t: (np.log(2 + t * t), 2 * t / (2 + t * t), (4 - 2 * t * t) / (2 + t * t) ** 2),
    "root": lambda t: (np.sqrt(1 + t * t), t / np.sqrt(1 + t * t), (1 + t * t) ** -1.5),
    "cube": lambda t: (t**3 / 3, t * t, 2 * t),
    "logistic": _logistic,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A sum of products of one or two ``SHAPES`` of linear combinations, and where to look.

    Attributes
    ----------
    x, scale : array, shape (m,)
        The point; the size of each input, which its weights are relative to.
    terms : list
        A factor, and the shapes with their weights and offsets.
    """

    x: Any
    scale: Any
    terms: Any

    def __call__(self, x: Any) -> Any:
        out = 0.0
        for factor, parts in self.terms:
            value = factor
            for shape, w, b in parts:
                value = value * SHAPES[shape](np.tensordot(w, x, 1) + b)[0]
            out = out + value
        return out

    @property
    def hess(self) -> Any:
        """The exact Hessian at x, by the product rule."""
        m = len(self.x)
        out = np.zeros((m, m))
        for factor, parts in self.terms:
            values = [SHAPES[shape](w @ self.x + b) for shape, w, b in parts]
            for i, (_, w, _) in enumerate(parts):
                others = np.prod([v[0] for j, v in enumerate(values) if j != i])
                out += factor * others * values[i][2] * np.outer(w, w)
            if len(parts) == 2:
                both = np.outer(parts[0][1], parts[1][1])
                out += factor * values[0][1] * values[1][1] * (both + both.T)
        return out


def draw(m: int, rng: Any, decades: float = 3.0, where: str = "") -> Case:
    """A random case of m inputs, whose sizes differ by ``decades`` either way.

    ``where``: "origin" for x = 0, "far" for an x of a million scales.
    """
    scale = 10.0 ** rng.uniform(-decades, decades, m)
    x = scale * rng.uniform(0.4, 2.5, m) * rng.choice([-1.0, 1.0], m)
    if where == "origin":
        x = np.zeros(m)
    if where == "far":
        x = 1e6 * x
    terms = []
    for _ in range(4):
        parts = []
        for _ in range(rng.integers(1, 3)):
            w = rng.normal(size=m) / np.sqrt(m) * rng.uniform(0.5, 1.5) / scale
            offset = rng.normal() - (w @ x if where == "far" else 0.0)
            parts.append((str(rng.choice(list(SHAPES))), w, offset))
        terms.append((float(rng.normal()), parts))
    return Case(x, scale, terms)
