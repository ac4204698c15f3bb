"""Runs of least-squares solvers on noisy problems, recorded so that they are made only once."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gradiator_np._calibration import least_squares
from gradiator_np._status import Status

#: Runs allowed, in m + 1.
BUDGET = 50
LEVELS = ("0", "1e-6", "1e-4", "1e-2", "multiplicative 1e-3", "deterministic 1e-3")
#: CPU seconds for one run of one solver: one of the peers goes round in circles now and then.
PATIENCE = 60


class Spent(BaseException):
    """The budget or the time is used up; no peer's ``except Exception`` may hide it."""


@contextlib.contextmanager
def patience():
    """Raise Spent after the CPU seconds allowed."""

    def spent(*_):
        raise Spent

    before = signal.signal(signal.SIGVTALRM, spent)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Recorder:
    """The problem with noise; remembers the noise-free sum of squares of every run."""

    def __init__(self, problem, level, seed):
        self.problem = problem
        *kind, size = level.split()
        self.kind, self.level = kind[0] if kind else "additive", float(size)
        self.rng = np.random.default_rng([seed, 7])
        first = problem.fun(problem.x0)
        self.unit = self.level * np.sqrt(np.mean(first**2))
        self.budget = BUDGET * (problem.x0.size + 1)
        self.log: list[float] = []

    def __call__(self, x):
        if len(self.log) >= self.budget:
            raise Spent
        x = np.asarray(x, float)
        r = self.problem.fun(x)
        size = float(r @ r)
        self.log.append(size if np.isfinite(size) else np.inf)
        if self.kind == "additive":
            return r + self.unit * self.rng.normal(size=r.shape)
        if self.kind == "multiplicative":
            return r * (1 + self.level * self.rng.normal(size=r.shape))
        wiggle = np.sin(1e4 * x.sum() * np.arange(1, r.size + 1))
        return r * (1 + self.level * wiggle)

    def scalar(self, x):
        r = self(x)
        return float(r @ r)


def driver(fun):
    result = least_squares(fun, fun.problem.x0, max_nfev=fun.budget)
    return result.x, result.reason is not Status.BUDGET


def dfols(fun, has_noise=False):
    import dfols

    s = dfols.solve(
        fun, fun.problem.x0.copy(), maxfun=fun.budget, objfun_has_noise=has_noise,
        do_logging=False, print_progress=False,
    )  # fmt: skip
    return s.x, len(fun.log) < fun.budget


def pounders(fun):
    import optimagic as om

    def marked(x):
        return fun(x)

    s = om.minimize(om.mark.least_squares(marked), fun.problem.x0, algorithm="pounders",
                    algo_options={"stopping_maxiter": fun.budget})  # fmt: skip
    return s.params, True


def scipy_differences(fun, jac):
    from scipy.optimize import least_squares as trf

    return trf(fun, fun.problem.x0, jac=jac, x_scale="jac").x, True


def bobyqa(fun):
    import pybobyqa

    s = pybobyqa.solve(fun.scalar, fun.problem.x0.copy(), maxfun=fun.budget, do_logging=False,
                       print_progress=False, objfun_has_noise=fun.level > 0)  # fmt: skip
    return s.x, len(fun.log) < fun.budget


SOLVERS = {
    "least_squares": driver,
    "DFO-LS": dfols,
    "DFO-LS noise": lambda fun: dfols(fun, has_noise=True),
    "POUNDERS": pounders,
    "SciPy 2-point": lambda fun: scipy_differences(fun, "2-point"),
    "SciPy 3-point": lambda fun: scipy_differences(fun, "3-point"),
    "Py-BOBYQA": bobyqa,
}


def available(names):
    """Solvers whose packages are installed."""
    modules = {"DFO-LS": "dfols", "DFO-LS noise": "dfols", "POUNDERS": "optimagic",
               "Py-BOBYQA": "pybobyqa"}  # fmt: skip
    found = []
    for name in names:
        try:
            __import__(modules.get(name, "numpy"))
            found.append(name)
        except ImportError:
            print(f"{name}: not installed, left out")
    return found


@dataclass
class Ran:
    """One run of one solver.

    ``best`` holds (number of the evaluation, noise-free sum of squares) where that was a new
    best; ``final`` is the sum of squares of the point returned, ``stopped`` whether the solver
    ended before its budget.
    """

    solver: str
    problem: str
    level: str
    seed: int
    used: int
    best: list[tuple[int, float]]
    final: float
    stopped: bool

    @property
    def key(self):
        return self.solver, self.problem, self.level, self.seed

    def needed(self, target):
        """Evaluations until the target was reached, or None."""
        return next((i for i, value in self.best if value <= target), None)


def one(problem, level, seed, solver, solve=None, recorder=Recorder):
    """A run of a solver from the problem's start."""
    fun = recorder(problem, level, seed)
    final, stopped = np.inf, False
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            with patience():
                x, stopped = (solve or SOLVERS[solver])(fun)
            r = problem.fun(np.asarray(x, float))
            final = float(r @ r)
        except (Exception, Spent):  # a peer's failure is a figure, not an end
            stopped = False
    best: list[tuple[int, float]] = []
    for i, value in enumerate(fun.log, 1):
        if not best or value < best[-1][1]:
            best.append((i, value))
    final = final if np.isfinite(final) else np.inf
    return Ran(solver, problem.name, level, seed, len(fun.log), best, final, bool(stopped))


class Store:
    """Runs in a file of JSON lines, or in memory only; ``frozen``: none is added."""

    def __init__(self, path=None, again=(), frozen=False):
        self.frozen = frozen
        self.path = None if path is None else Path(path)
        self.runs: dict[tuple, Ran] = {}
        if self.path is not None and self.path.exists():
            for line in self.path.read_text().splitlines():
                ran = Ran(**json.loads(line))
                if ran.solver not in again:
                    self.runs[ran.key] = ran

    def get(self, problem, level, seed, solver):
        """The recorded run, or a new one; None where a frozen store has none."""
        key = solver, problem.name, level, seed
        if key not in self.runs and not self.frozen:
            self.runs[key] = ran = one(problem, level, seed, solver)
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps(asdict(ran)) + "\n")
        return self.runs.get(key)
