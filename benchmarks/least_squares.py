"""Fits of noisy simulators: share of problems solved, and runs that it took, beside the peers.

Solved: the noise-free sum of squares at some run fell by 1 - tol of the best decrease that any
solver reached. Runs are counted in m + 1, at most 50 (m + 1); unsolved counts as 100. The problems
are in two groups: those that the driver was made on, and those that its constants never saw.

    python -m benchmarks.least_squares [--quick] [--only=name,name] [--noise=level,level]
        [--seeds=3] [--store=FILE] [--again=name,name] [--recorded]

All peers take hours. ``--store`` keeps every run in a file and makes none twice; with ``--again``
those of the named solvers are made anew; with ``--recorded`` none is made, and the table is of
what the file holds.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks._common import RESULTS, quick, table, write
from benchmarks.lsq_held_out import held_out
from benchmarks.lsq_problems import problems
from benchmarks.lsq_runs import BUDGET, LEVELS, SOLVERS, Store, available
from gradiator_np._calibration import LeastSquares

UNSOLVED = 100.0
#: Seeds and problems for solvers whose own work takes a minute a run at m = 30.
SEEDS = {"Py-BOBYQA": 1, "POUNDERS": 1}
LARGEST = {"Py-BOBYQA": 12}


def summarise(runs, group, best, tol):
    """Share solved, mean runs, share of the stops that are solved, runs used per runs needed."""
    needed, right, used = [], [], []
    for ran in runs:
        problem = group[ran.problem]
        start = float(np.square(problem.fun(problem.x0)).sum())
        target = start - (1 - tol) * (start - best[problem.name])
        hit = ran.needed(target)
        needed.append(UNSOLVED if hit is None else hit / (problem.x0.size + 1))
        if ran.stopped:
            right.append(ran.final <= target)
            if hit is not None:
                used.append(ran.used / hit)
    return {
        "solved": float(np.mean(np.array(needed) < UNSOLVED)),
        "runs": float(np.exp(np.mean(np.log(needed)))),
        "stopped": len(right) / len(runs),
        "stops_right": float(np.mean(right)) if right else float("nan"),
        "used": float(np.median(used)) if used else float("nan"),
        "needed": needed,
    }


def profiles(data, path):
    """Share solved against runs/(m + 1), a panel for each noise."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colors = {solver: f"C{i}" for i, solver in enumerate(SOLVERS)}
    wide = min(3, len(data))
    high = -(-len(data) // wide)
    fig, axes = plt.subplots(high, wide, figsize=(4.4 * wide, 3.2 * high), squeeze=False,
                             sharey=True, sharex=True)  # fmt: skip
    for ax, (level, cell) in zip(axes.flat, data.items()):
        for solver, row in cell.items():
            needed = np.sort([v for v in row["needed"] if v < UNSOLVED])
            share = np.arange(len(needed) + 1) / len(row["needed"])
            ax.step(np.r_[1, needed, BUDGET], np.r_[share, share[-1]], where="post",
                    color=colors[solver])  # fmt: skip
        ax.set(xscale="log", xlim=(1, BUDGET), ylim=(0, 1.02), title=f"noise {level}")
        ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("runs / (m + 1)")
    for ax in axes[:, 0]:
        ax.set_ylabel("share solved to 1e-3")
    shown = [s for s in SOLVERS if any(s in cell for cell in data.values())]
    fig.legend([plt.Line2D([], [], color=colors[s]) for s in shown], shown,
               loc="lower center", ncol=len(shown), fontsize=8)  # fmt: skip
    fig.tight_layout(rect=(0, 0.06, 1, 1))
    fig.savefig(path, dpi=110)


def own_time():
    """Seconds of the driver's own work per iteration at m = 10, n = 50."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 10)), rng.normal(size=50)
    search = LeastSquares(np.ones(10))
    spent = []
    for _ in range(60):
        start = time.process_time()
        points, ids = search.ask()
        spent.append(time.process_time() - start)
        if not len(ids):
            break
        values = [np.tanh(a @ x / 10) + 0.1 * b + 1e-3 * rng.normal(size=50) for x in points]
        start = time.process_time()
        search.tell(values, ids)
        spent[-1] += time.process_time() - start
    return float(np.median(spent[1:]))


def options():
    """Arguments of the command line."""
    given = dict(arg[2:].split("=", 1) for arg in sys.argv[1:] if "=" in arg)
    solvers = available(SOLVERS)
    if "only" in given:
        solvers = [s for s in solvers if s in given["only"].split(",")]
    levels = list(LEVELS)
    if "noise" in given:
        levels = [v for v in levels if v in given["noise"].split(",")]
    frozen = "--recorded" in sys.argv[1:]
    store = Store(given.get("store"), given.get("again", "").split(","), frozen)
    return solvers, levels, int(given.get("seeds", 3)), store


def collect(groups, levels, seeds, solvers, store):
    """All runs, the first seed of every level first."""
    raw = {}
    for seed in range(seeds):
        for level in levels:
            for solver in solvers:
                if seed >= (SEEDS.get(solver, seeds) if level != "0" else 1):
                    continue
                for name, group in groups.items():
                    rows = raw.setdefault((name, level, solver), [])
                    for problem in group.values():
                        if problem.x0.size <= LARGEST.get(solver, np.inf):
                            ran = store.get(problem, level, seed, solver)
                            rows += [] if ran is None else [ran]
            print(f"seed {seed}, noise {level} done", flush=True)
    return raw


def main():
    solvers, levels, seeds, store = options()
    groups = {
        "made on": {p.name: p for p in problems()},
        "held out": {p.name: p for p in held_out()},
    }
    if quick():
        groups = {k: dict(list(g.items())[:4]) for k, g in groups.items()}
        seeds, levels = 1, ["0", "1e-2"]
    raw = collect(groups, levels, seeds, solvers, store)
    best = {}
    for ran in store.runs.values():
        least = min([ran.final] + [value for _, value in ran.best])
        best[ran.problem] = min(best.get(ran.problem, np.inf), least)
    results = {}
    everything = groups["made on"] | groups["held out"]
    for name in (*groups, "all"):
        for tol in (1e-3, 1e-5):
            rows = []
            for level in levels:
                for solver in solvers:
                    runs = [r for g in groups if name in (g, "all")
                            for r in raw[g, level, solver]]  # fmt: skip
                    if not runs:
                        continue
                    row = summarise(runs, everything, best, tol)
                    cells = results.setdefault(name, {}).setdefault(f"{tol:g}", {})
                    cells.setdefault(level, {})[solver] = row
                    columns = ("solved", "runs", "stopped", "stops_right", "used")
                    rows.append([level, solver, len(runs), *(row[k] for k in columns)])
            size = len(groups.get(name, everything))
            print(f"\n{size} problems ({name}), solved to {tol:g}: runs/(m + 1), geometric mean\n")
            print(table(["noise", "solver", "fits", "solved", "runs", "stopped itself",
                         "of these right", "runs used / needed"], rows))  # fmt: skip
    results["own_time"] = own_time()
    print(f"\nown time per iteration, m = 10, n = 50: {1e3 * results['own_time']:.2f} ms")
    print(write("least_squares", results))
    try:
        profiles(results["all"]["0.001"], RESULTS / "least_squares.png")
    except ImportError:
        print("matplotlib is not installed: no plot")


if __name__ == "__main__":
    main()
