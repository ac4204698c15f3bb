"""The chain planner on random chains: cost against the plain orders, and the time to plan.

``python -m benchmarks.chain``: chains of Naumann's kind (sizes and costs at random, a fifth of
the factors without adjoint), lengths 10 to 200; cost of the plan over the best of forward,
reverse and preaccumulation.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from benchmarks._common import measure, quick, table, write
from gradiator_np._chain.plan import plan_chain

LENGTHS = (10, 50, 100, 200)


def random_chain(rng: np.random.Generator, q: int) -> dict[str, Any]:
    """Sizes from 1 to 50, costs per product from one to fifty multiply-adds an entry."""
    dims = rng.integers(1, 51, q + 1)
    entries = dims[1:] * dims[:-1]
    tangent, adjoint = entries * rng.uniform(1, 50, q), entries * rng.uniform(1, 50, q)
    adjoint[rng.random(q) < 0.2] = np.inf
    return {"dims": dims, "tangent": tangent, "adjoint": adjoint, "multiply": 1.0}


def main() -> None:
    chains = 3 if quick() else 30
    rows, out = [], {}
    for q in LENGTHS:
        problems = [random_chain(np.random.default_rng(seed), q) for seed in range(chains)]
        ratios = []
        for problem in problems:
            plan = plan_chain(**problem)
            ratios.append(plan.cost / min(plan.forward, plan.reverse, plan.preaccumulation))
        first = problems[0]
        seconds = measure({"plan": lambda first=first: plan_chain(**first)}, 3 if quick() else 15)
        out[q] = {
            "cost over best plain order, median": statistics.median(ratios),
            "worst": max(ratios),
            "milliseconds": 1e3 * seconds["plan"],
        }
        rows.append([q, *out[q].values()])
    print(table(["factors", *out[LENGTHS[0]]], rows))
    write("chain", out)


if __name__ == "__main__":
    main()
