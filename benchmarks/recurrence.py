"""A VJP through 10 000 steps with 20 checkpoints, in units of the forward run.

``python -m benchmarks.recurrence``: state 100, derivatives of the step given. The demand is
(steps that revolve runs / steps + 4) times the forward run; the pure Python step of some four
microseconds is the hard case, since everything beside it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._common import measure, quick, table, write
from gradiator_np._differentiable.function import gradiator
from gradiator_np._recurrence.recurrence import Recurrence
from gradiator_np._recurrence.revolve import forward_steps

STATES, CHECKPOINTS = 100, 20


def dense(rng: np.random.Generator) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A network: x + 0.01 tanh(A x + theta)."""
    a = rng.normal(size=(STATES, STATES)) / STATES**0.5

    def step(x: Any, theta: Any, i: int) -> Any:
        return x + 0.01 * np.tanh(a @ x + theta)

    def step_vjp(args: Any, g: Any) -> Any:
        x, theta, _ = args
        t = np.tanh(a @ x + theta)
        s = 0.01 * (1 - t * t) * g
        return g + s @ a, s

    return step, step_vjp


def diffusion(_: np.random.Generator) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Explicit heat equation on a ring with a cubic sink."""

    def step(x: Any, theta: Any, i: int) -> Any:
        return x + 0.1 * (np.roll(x, 1) - 2 * x + np.roll(x, -1)) - 0.01 * theta * x**3

    def step_vjp(args: Any, g: Any) -> Any:
        x, theta, _ = args
        ring = g + 0.1 * (np.roll(g, -1) - 2 * g + np.roll(g, 1))
        return ring - 0.03 * theta * x**2 * g, -0.01 * x**3 * g

    return step, step_vjp


def run(make: Callable[..., Any], steps: int, repeats: int) -> dict[str, float]:
    """Forward run and VJP of one step function."""
    rng = np.random.default_rng(0)
    step, step_vjp = make(rng)
    r = Recurrence(gradiator(step, step_vjp, argnums=(0, 1)), steps, checkpoints=CHECKPOINTS)
    x0, theta, v = rng.normal(size=STATES), 0.1 * rng.normal(size=STATES), np.ones(STATES)
    times = measure(
        {"forward": lambda: r.run(x0, theta), "vjp": lambda: r.vjp(x0, theta, v)}, repeats
    )
    return {
        "microseconds a step": 1e6 * times["forward"] / steps,
        "VJP over forward": times["vjp"] / times["forward"],
        "allowed": forward_steps(steps, CHECKPOINTS) / steps + 4,
    }


def main() -> None:
    steps, repeats = (500, 1) if quick() else (10_000, 7)
    out = {make.__name__: run(make, steps, repeats) for make in (dense, diffusion)}
    rows = [[name, *figures.values()] for name, figures in out.items()]
    print(table(["step", *out["dense"]], rows))
    write("recurrence", out)


if __name__ == "__main__":
    main()
