"""Jacobians of noisy functions: ours, its peers, and the limit of what any stencil can do.

``python -m benchmarks.noise [--quick]`` prints tables, and writes ``results/noise.json`` and
``results/noise.png`` (error against evaluations).

The limit is the expected error of the best central stencil of order 2 to 8, with the best step of
each column reaching at most half of |x_j|, chosen knowing f, J and the noise, at the same number
of evaluations per input; stencils of fewer points are repeated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradiator_np as gn
from benchmarks._common import RESULTS, quick, table, write
from benchmarks.problems import PROBLEMS, Problem

STENCILS = {
    1: [1 / 2],
    2: [2 / 3, -1 / 12],
    3: [3 / 4, -3 / 20, 1 / 60],
    4: [4 / 5, -1 / 5, 4 / 105, -1 / 280],
}
LEVELS = (1e-8, 1e-4, 1e-2)
BUDGETS = (None, 4, 8)


# -- noise -----------------------------------------------------------------------------------


def _rms(p: Problem) -> float:
    return float(np.sqrt(np.mean(np.square(p.fun(p.x0)))))


def additive(p: Problem, level: float, rng: np.random.Generator) -> Callable[..., Any]:
    """Gaussian, of ``level`` times the root mean square of f."""
    sigma = level * _rms(p)
    return lambda x: p.fun(x) + sigma * rng.standard_normal(p.n)


def multiplicative(p: Problem, level: float, rng: np.random.Generator) -> Callable[..., Any]:
    """Gaussian, relative to each output."""
    return lambda x: p.fun(x) * (1 + level * rng.standard_normal(p.n))


def printed(p: Problem, level: float, rng: np.random.Generator) -> Callable[..., Any]:
    """Outputs printed with so many significant digits."""
    digits = round(-np.log10(level)) - 1
    return lambda x: np.array([float(f"{v:.{digits}e}") for v in p.fun(x)])


def deterministic(p: Problem, level: float, rng: np.random.Generator) -> Callable[..., Any]:
    """The smooth high-frequency wiggle of Moré and Wild (2009), equation (4.4)."""

    def phi(x: np.ndarray) -> float:
        one, largest = np.abs(x).sum(), np.abs(x).max()
        a = 0.9 * np.sin(100 * one) * np.cos(100 * largest) + 0.1 * np.cos(np.linalg.norm(x))
        return float(a * (4 * a**2 - 3))

    return lambda x: p.fun(x) * (1 + level * phi(np.asarray(x)))


def outliers(p: Problem, level: float, rng: np.random.Generator) -> Callable[..., Any]:
    """Gaussian, with 5 % of the evaluations hit by Cauchy errors ten times as large."""
    sigma = level * _rms(p)

    def noisy(x: np.ndarray) -> np.ndarray:
        hit = 10 * rng.standard_cauchy(p.n) * (rng.random() < 0.05)
        return p.fun(x) + sigma * (rng.standard_normal(p.n) + hit)

    return noisy


def _oscillator(x: np.ndarray, rtol: float, t: np.ndarray) -> np.ndarray:
    """Van der Pol's equation with mu, amplitude and speed as inputs."""
    from scipy.integrate import solve_ivp

    def rhs(_: float, y: np.ndarray) -> list[float]:
        return [y[1], x[0] * (1 - y[0] ** 2) * y[1] - y[0]]

    return solve_ivp(rhs, (0, t[-1]), [x[1], x[2]], t_eval=t, rtol=rtol, atol=1e-3 * rtol).y[0]


def _predator(x: np.ndarray, rtol: float, t: np.ndarray) -> np.ndarray:
    """Lotka and Volterra's equations with their four rates as inputs."""
    from scipy.integrate import solve_ivp

    def rhs(_: float, y: np.ndarray) -> list[float]:
        return [y[0] * (x[0] - x[1] * y[1]), y[1] * (x[2] * y[0] - x[3])]

    return solve_ivp(rhs, (0, t[-1]), [10.0, 5.0], t_eval=t, rtol=rtol, atol=1e-3 * rtol).y.ravel()


def _kinetics(x: np.ndarray, rtol: float, t: np.ndarray) -> np.ndarray:
    """A -> B -> C with a reverse step; rates as inputs."""
    from scipy.integrate import solve_ivp

    def rhs(_: float, y: np.ndarray) -> list[float]:
        one, two = x[0] * y[0] - x[1] * y[1], x[2] * y[1] ** 2
        return [-one, one - two, two]

    return solve_ivp(rhs, (0, t[-1]), [1.0, 0, 0], t_eval=t, rtol=rtol, atol=1e-3 * rtol).y.ravel()


@dataclass(frozen=True)
class Solver:
    """An adaptive solver at a loose tolerance; the truth is a tight one, differenced."""

    name: str
    run: Callable[..., np.ndarray]
    x0: np.ndarray
    t: np.ndarray
    rtol: float = 1e-3

    def fun(self, x: np.ndarray) -> np.ndarray:
        return self.run(np.asarray(x, float), self.rtol, self.t)

    def jac(self, x: np.ndarray) -> np.ndarray:
        out = []
        for j in range(x.size):
            h = 1e-3 * x[j]
            d = 0.0
            for k, w in enumerate(STENCILS[3], 1):
                up, down = x.copy(), x.copy()
                up[j] += k * h
                down[j] -= k * h
                d = d + w * (self.run(up, 1e-12, self.t) - self.run(down, 1e-12, self.t)) / h
            out.append(d)
        return np.stack(out, axis=1)


SOLVERS = [
    Solver("van der Pol", _oscillator, np.array([1.5, 2.0, 0.3]), np.linspace(0.5, 6, 12)),
    Solver("Lotka-Volterra", _predator, np.array([1.1, 0.1, 0.075, 1.5]), np.linspace(0.5, 8, 16)),
    Solver("kinetics", _kinetics, np.array([1.0, 0.4, 0.7]), np.linspace(0.5, 6, 12)),
]


# -- the limit -------------------------------------------------------------------------------


def scales(x: np.ndarray) -> np.ndarray:
    """|x_j|, or the median of the others where it is 0."""
    size = np.abs(x)
    return np.where(size > 0, size, np.median(size[size > 0]) if size.any() else 1.0)


def limit(
    p: Problem, sigma: float, pairs: int, orders: tuple[int, ...] = (1, 2, 3, 4), points: int = 80
) -> float:
    """Relative Frobenius error expected of the best stencil and step of every column."""
    jac, s = p.jac(p.x0), scales(p.x0)
    total = 0.0
    for j in range(p.m):
        best = np.inf
        for q in orders:
            if q > pairs:
                continue
            w = np.array(STENCILS[q])
            for h in np.geomspace(1e-6, 0.5, points) * s[j] / q:
                d = np.zeros(p.n)
                with np.errstate(all="ignore"):
                    for k in range(q):
                        e = np.zeros(p.m)
                        e[j] = (k + 1) * h
                        d = d + w[k] * (p.fun(p.x0 + e) - p.fun(p.x0 - e)) / h
                    error = np.square(d - jac[:, j]).sum()
                error += p.n * sigma**2 * 2 * np.square(w).sum() / h**2 / (pairs // q)
                best = min(best, error) if np.isfinite(error) else best
        total += best
    return float(np.sqrt(total) / np.linalg.norm(jac))


# -- estimators ------------------------------------------------------------------------------


def ours(budget: int | None) -> Callable[..., Any]:
    """``jacobian`` as it comes, or with a budget per input."""

    def run(fun: Callable[..., Any], x: np.ndarray, seed: int) -> Any:
        most = None if budget is None else budget * x.size + 10
        return gn.jacobian(fun, x, max_nfev=most, rng=seed)

    return run


def scipy(method: str) -> Callable[..., Any]:
    from scipy.optimize._numdiff import approx_derivative

    return lambda fun, x, seed: approx_derivative(fun, x, method=method)


def peers() -> dict[str, Callable[..., Any]]:
    """The defaults of the packages that are installed."""
    out: dict[str, Callable[..., Any]] = {
        "SciPy 2-point": scipy("2-point"),
        "SciPy 3-point": scipy("3-point"),
    }
    try:
        import numdifftools

        out["numdifftools"] = lambda fun, x, seed: numdifftools.Jacobian(fun)(x)
    except ImportError:
        pass
    try:
        from derivkit import CalculusKit

        out["derivkit"] = lambda fun, x, seed: CalculusKit(fun, x).jacobian()
    except ImportError:
        pass
    try:
        from jacobi import jacobi

        out["jacobi"] = lambda fun, x, seed: jacobi(fun, x)[0]
    except ImportError:
        pass
    return out


@dataclass
class Run:
    """One estimate against the truth."""

    error: float
    nfev: int
    silent: float = np.nan
    held: float = np.nan
    width: float = np.nan


def trial(
    estimator: Callable[..., Any], fun: Callable[..., Any], p: Any, truth: Any, seed: int
) -> Run:
    """Run an estimator once; a crash counts as an error of infinity."""
    calls = 0

    def counted(x: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return fun(x)

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = estimator(counted, p.x0.copy(), seed)
    except Exception:  # a peer's crash is a result
        return Run(np.inf, calls)
    jac = np.asarray(getattr(found, "jac", found)).reshape(truth.shape)
    error = np.linalg.norm(jac - truth) / np.linalg.norm(truth)
    run = Run(float(error) if np.isfinite(error) else np.inf, calls)
    if hasattr(found, "stderr"):
        off = np.abs(jac - truth)
        low, high = found.confidence_interval(0.95)
        # a column in error by more than 5 standard errors, and nobody was told
        wrong = np.linalg.norm(off, axis=0) > 5 * np.linalg.norm(found.stderr, axis=0)
        run.silent = float(np.mean(wrong)) if found.status in ("ok", "failed_runs") else 0.0
        run.held = float(np.mean((low <= truth) & (truth <= high)))
        run.width = float(np.median(found.stderr) / max(np.sqrt(np.mean(off**2)), 1e-300))
    return run


def summary(runs: list[Run], m: list[int]) -> dict[str, float]:
    """Medians over problems and seeds, means of what is counted."""

    def of(name: str) -> np.ndarray:
        return np.array([getattr(r, name) for r in runs])

    return {
        "error": float(np.median(of("error"))),
        "worst": float(of("error").max()),
        "evaluations per input": float(np.median((of("nfev") - 10) / np.array(m))),
        "runs": float(np.median(of("nfev"))),
        "held": float(np.mean(of("held"))),
        "silent": float(np.mean(of("silent"))),
        "stderr / error": float(np.median(of("width"))),
    }


def compare(
    title: str,
    problems: list[Any],
    noise: Callable[..., Any],
    estimators: dict[str, Any],
    seeds: int,
) -> dict[str, dict[str, float]]:
    """Every estimator on every problem; prints a table."""
    out = {}
    truths = [p.jac(p.x0) for p in problems]
    for name, estimator in estimators.items():
        runs, m = [], []
        for p, truth in zip(problems, truths):
            for seed in range(seeds):
                fun = noise(p, np.random.default_rng(seed))
                runs.append(trial(estimator, fun, p, truth, seed))
                m.append(p.x0.size)
        out[name] = summary(runs, m)
    print(f"\n### {title}\n")
    columns = ["error", "worst", "runs", "held", "silent", "stderr / error"]
    print(table(["", *columns], [[k, *(v[c] for c in columns)] for k, v in out.items()]))
    return out


def gaussian_table(problems: list[Problem], seeds: int, results: dict[str, Any]) -> None:
    """Ours beside the limit, the best 3-point rule in hindsight, and peers."""
    for level in LEVELS:
        sigmas = [level * _rms(p) for p in problems]
        limits = {k: [limit(p, s, k // 2) for p, s in zip(problems, sigmas)] for k in (2, 4, 8)}
        best3 = [limit(p, s, 1, orders=(1,)) for p, s in zip(problems, sigmas)]
        estimators = {f"ours {'default' if b is None else f'{b} m + 10'}": ours(b) for b in BUDGETS}

        def noise(p: Problem, rng: np.random.Generator, level: float = level) -> Any:
            return additive(p, level, rng)

        found = compare(f"additive {level:g}", problems, noise, estimators | peers(), seeds)
        rows = [["best 3-point in hindsight", float(np.median(best3))]]
        rows += [[f"limit at {k}", float(np.median(v))] for k, v in limits.items()]
        print("\n" + table(["", "error"], rows))
        ratio = {}
        for b, k in ((4, 4), (8, 8)):
            each = []
            for p, bound in zip(problems, limits[k]):
                for seed in range(seeds):
                    fun = noise(p, np.random.default_rng(seed))
                    each.append(trial(ours(b), fun, p, p.jac(p.x0), seed).error / bound)
            ratio[str(b)] = float(np.median(each))
        print(f"\nours over the limit, median: {ratio}")
        results[f"additive {level:g}"] = {
            "estimators": found,
            "limit": {str(k): float(np.median(v)) for k, v in limits.items()},
            "best 3-point": float(np.median(best3)),
            "ratio": ratio,
        }


def plot(results: dict[str, Any]) -> None:
    """Error against evaluations, a panel a level."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(LEVELS), figsize=(5 * len(LEVELS), 4.5), sharey=False)
    for ax, level in zip(axes, LEVELS):
        r = results[f"additive {level:g}"]
        ax.plot([int(k) for k in r["limit"]], list(r["limit"].values()), "k--", label="limit")
        for name, v in r["estimators"].items():
            if np.isfinite(v["error"]):
                per = max(v["evaluations per input"], 1.0)
                ax.plot(per, v["error"], "o" if name.startswith("ours") else "s", label=name)
        ax.set(xscale="log", yscale="log", title=f"noise {level:g} of rms f")
        ax.set(xlabel="evaluations per input beyond 10", ylabel="relative error of J (median)")
    axes[-1].legend(fontsize=7)
    fig.tight_layout()
    fig.savefig(RESULTS / "noise.png", dpi=120)


def main() -> None:
    """Run everything."""
    problems = PROBLEMS[::6] if quick() else PROBLEMS
    seeds = 1 if quick() else 3
    results: dict[str, Any] = {}
    gaussian_table(problems, seeds, results)
    every = {"ours": ours(None), "ours 8 m + 10": ours(8)} | peers()
    kinds = {
        "noise free": lambda p, rng: p.fun,
        "multiplicative 1e-4": lambda p, rng: multiplicative(p, 1e-4, rng),
        "4 printed digits": lambda p, rng: printed(p, 1e-4, rng),
        "6 printed digits": lambda p, rng: printed(p, 1e-6, rng),
        "deterministic wiggle 1e-4": lambda p, rng: deterministic(p, 1e-4, rng),
        "deterministic wiggle 1e-3": lambda p, rng: deterministic(p, 1e-3, rng),
        "5 % Cauchy outliers, 1e-4": lambda p, rng: outliers(p, 1e-4, rng),
    }
    for title, noise in kinds.items():
        results[title] = compare(title, problems, noise, every, seeds)
    results["adaptive solvers"] = compare(
        "adaptive solvers at rtol 1e-3", SOLVERS, lambda p, rng: p.fun, every, seeds
    )
    write("noise", results)
    plot(results)


if __name__ == "__main__":
    main()
