"""Fits when runs fail, lie, end at a bound, or go side by side; noise 1e-4 of rms r(x0).

Share of problems solved to 1e-3 and runs / (m + 1), as in ``benchmarks.least_squares``.

    python -m benchmarks.lsq_trouble [--quick]

5 % of the runs return nan; 2 % are wrong as a whole (one factor between -20 and 20); 2 % of the
residuals are off by 20 times their rms; runs fail behind a plane close to the solution; one bound
lies half way; a box of 0.3 |x0| about x0, without noise, whose best point is often a corner; two,
four and eight points at once, where rounds count.
"""

from __future__ import annotations

import numpy as np

from benchmarks._common import quick, table, write
from benchmarks.least_squares import summarise
from benchmarks.lsq_held_out import held_out
from benchmarks.lsq_problems import problems
from benchmarks.lsq_runs import Recorder, available, one
from gradiator_np._calibration import LeastSquares, least_squares
from gradiator_np._status import Status

LEVEL = "1e-4"
LARGEST = 8


class Troubled(Recorder):
    """Runs that may fail or lie; ``luck`` is apart from the noise."""

    def __init__(self, problem, level, seed):
        super().__init__(problem, level, seed)
        self.luck = np.random.default_rng([seed, 11])

    def wasted(self, r):
        """A run that failed brings no point closer to the solution."""
        self.log[-1] = np.inf
        return np.full(r.shape, np.nan)


class Failing(Troubled):
    def __call__(self, x):
        r = super().__call__(x)
        return self.wasted(r) if self.luck.uniform() < 0.05 else r


class Wrong(Troubled):
    def __call__(self, x):
        r = super().__call__(x)
        return r * self.luck.uniform(-20, 20) if self.luck.uniform() < 0.02 else r


class Spotted(Troubled):
    def __call__(self, x):
        r = super().__call__(x)
        off = self.luck.uniform(size=r.shape) < 0.02
        return r + 20 * off * np.sqrt(np.mean(r**2)) * self.luck.normal(size=r.shape)


class Walled(Troubled):
    """Fails behind a plane that a tenth of the way from x0 lies beyond the solution."""

    def __init__(self, problem, level, seed):
        super().__init__(problem, level, seed)
        self.goal = solution(problem)
        self.scale = np.where(problem.x0 == 0, 1.0, np.abs(problem.x0))
        way = (problem.x0 - self.goal) / self.scale
        out = self.luck.normal(size=way.size)
        self.out = -out if out @ way > 0 else out
        self.out /= np.linalg.norm(out)
        self.room = 0.1 * np.linalg.norm(way)

    def __call__(self, x):
        r = super().__call__(x)
        beyond = self.out @ ((np.asarray(x) - self.goal) / self.scale) > self.room
        return self.wasted(r) if beyond else r


def solution(problem):
    """The noise-free minimiser as our driver finds it."""
    return least_squares(problem.fun, problem.x0, max_nfev=50 * (problem.x0.size + 1)).x


def half_way(problem):
    """Bounds with one that lies half way to the solution, for the input that goes farthest."""
    low, high = np.full(problem.x0.size, -np.inf), np.full(problem.x0.size, np.inf)
    way = solution(problem) - problem.x0
    j = int(np.argmax(np.abs(way) / np.where(problem.x0 == 0, 1.0, np.abs(problem.x0))))
    (high if way[j] > 0 else low)[j] = problem.x0[j] + 0.5 * way[j]
    return low, high


def tight(problem):
    """A box of 0.3 |x0| about x0."""
    size = 0.3 * np.where(problem.x0 == 0, 1.0, np.abs(problem.x0))
    return problem.x0 - size, problem.x0 + size


#: Bounds of a problem, and the noise at which they are tried.
BOXES = {"bound half way": (half_way, LEVEL), "tight box, no noise": (tight, "0")}


def ours(fun, bounds=(-np.inf, np.inf)):
    r = least_squares(fun, fun.problem.x0, max_nfev=fun.budget, bounds=bounds)
    assert np.all((r.samples.points >= bounds[0]) & (r.samples.points <= bounds[1]))
    return r.x, r.reason is not Status.BUDGET


def robust(fun):
    r = least_squares(fun, fun.problem.x0, max_nfev=fun.budget, loss="soft_l1")
    return r.x, r.reason is not Status.BUDGET


def peer(fun, bounds=None):
    import dfols

    s = dfols.solve(fun, fun.problem.x0.copy(), maxfun=fun.budget, objfun_has_noise=True,
                    bounds=bounds, do_logging=False, print_progress=False)  # fmt: skip
    return s.x, len(fun.log) < fun.budget


class Wide:
    """Several points at once by ask and tell; keeps the rounds of every fit."""

    def __init__(self, width):
        self.width, self.rounds, self.runs = width, [], []

    def __call__(self, fun):
        search = LeastSquares(fun.problem.x0, max_nfev=fun.budget)
        while True:
            points, ids = search.ask(self.width)
            if not len(ids):
                break
            search.tell([fun(x) for x in points], ids)
        m = fun.problem.x0.size
        self.rounds.append(search.rounds)
        self.runs.append(search.nfev / (m + 1))
        return search.result().x, search.reason is not Status.BUDGET


def main():
    chosen = [p for p in held_out() + problems() if p.x0.size <= LARGEST]
    if quick():
        chosen = chosen[:3]
    solvers = {"ours": ours} | ({"DFO-LS noise": peer} if available(["DFO-LS"]) else {})
    runs = {}
    kinds = {"none": Recorder, "5 % fail": Failing, "2 % of runs wrong": Wrong,
             "2 % of residuals wrong": Spotted, "failing region": Walled}  # fmt: skip
    for name, kind in kinds.items():
        for solver, solve in solvers.items():
            runs[name, solver] = [one(p, LEVEL, 0, solver, solve, kind) for p in chosen]
    wrong = "2 % of residuals wrong"
    runs[wrong, "ours, soft_l1"] = [one(p, LEVEL, 0, "ours", robust, Spotted) for p in chosen]
    for name, (box, level) in BOXES.items():
        for solver, solve in solvers.items():
            runs[name, solver] = [
                one(p, level, 0, solver, lambda fun, s=solve, b=box: s(fun, b(fun.problem)))
                for p in chosen
            ]
    wide = {width: Wide(width) for width in (1, 2, 4, 8)}
    for width, solve in wide.items():
        runs[f"{width} at once", "ours"] = [one(p, LEVEL, 0, "ours", solve) for p in chosen]
    group = {p.name: p for p in chosen}
    rows, results = [], {}
    for (trouble, solver), ran in runs.items():
        best = {}
        for (other, _), others in runs.items():
            if BOXES.get(other) == BOXES.get(trouble):
                for r in others:
                    least = min([r.final] + [v for _, v in r.best])
                    best[r.problem] = min(best.get(r.problem, np.inf), least)
        row = summarise(ran, group, best, 1e-3)
        results[f"{trouble}, {solver}"] = row
        cells = [row[k] for k in ("solved", "runs", "stopped", "stops_right", "used")]
        rows.append([trouble, solver, *cells])
    print(f"{len(chosen)} problems, noise {LEVEL}\n")
    print(table(["trouble", "solver", "solved", "runs", "stopped itself", "of these right",
                 "runs used / needed"], rows))  # fmt: skip
    for width, solve in wide.items():
        row = results[f"{width} at once, ours"]
        row["rounds"], row["all runs"] = (float(np.median(v)) for v in (solve.rounds, solve.runs))
        print(f"{width} at once: {row['rounds']:.3g} rounds, {row['all runs']:.3g} (m + 1) runs, "
              "medians to the stop")  # fmt: skip
    print(write("lsq_trouble", results))


if __name__ == "__main__":
    main()
