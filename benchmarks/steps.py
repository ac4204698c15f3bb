"""Designs, noise levels, step lengths and checks against their published figures and peers.

Run as ``python -m benchmarks.steps [--quick]``.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.optimize._numdiff import approx_derivative

from benchmarks._common import quick, table, write
from benchmarks.problems import PROBLEMS
from gradiator_np import GradiatorWarning, jacobian
from gradiator_np._diagnose.check import check_jacobian
from gradiator_np._diagnose.ecnoise import ecnoise
from gradiator_np._diagnose.noise import estimate_noise
from gradiator_np._diagnose.steps import optimal_step
from gradiator_np.designs._factorial.design import Directions, Hadamard, Pairs, Simplex

M = 11


def gaussian_rows(m: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Random directions on the unit sphere, the usual choice elsewhere."""
    d = rng.standard_normal((k, m))
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def designs(seeds: int) -> list[dict]:
    """Variance of an entry at unit noise and unit step: by the covariance, and as it scatters."""
    rng = np.random.default_rng(0)
    jac = rng.standard_normal((1, M))
    x = np.zeros(M)
    cases = {
        "forward, one at a time": (Directions(rows=np.eye(M)), "box", 2.0),
        "Plackett-Burman": (Hadamard(step=1, fold_over=False, spare=0), "box", None),
        "Hadamard fold-over": (Hadamard(step=1, spare=0), "box", None),
        "Hadamard fold-over, default": (Hadamard(step=1), "box", None),
        "central, one at a time": (Pairs(step=1, spare=0, rotate=False), "ball", None),
        "rotated pairs": (Pairs(step=1), "ball", None),
        "simplex": (Simplex(step=1), "ball", None),
        "peer: 24 on the sphere": (Directions(rows=gaussian_rows(M, 24, rng)), "ball", None),
        "peer: 12 antithetic on the sphere": (
            Directions(rows=gaussian_rows(M, 12, rng), fold_over=True), "ball", None,
        ),
    }  # fmt: skip
    out = []
    for name, (design, limit, bound) in cases.items():
        errors = []
        for seed in range(seeds):
            noise = np.random.default_rng(seed)
            estimate = jacobian(
                lambda p, r=noise: jac @ p + r.standard_normal(1), x, method=design, noise=1.0,
                rng=seed,
            )  # fmt: skip
            errors.append(estimate.jac - jac)
        runs = estimate.nfev - 1
        variance = float(np.mean(estimate.stderr**2))
        if bound is None:
            bound = 1 / runs if limit == "box" else M / runs
        out.append({
            "design": name, "runs": runs, "limit": limit, "variance": variance,
            "bound": bound, "scattered": float(np.mean(np.square(errors))),
        })  # fmt: skip
    return out


def noise_levels(seeds: int) -> list[dict]:
    """Ratio of estimated to true noise."""
    t = 0.01 * np.arange(7)[:, None]
    rng = np.random.default_rng(0)
    uniform = rng.uniform(0, 2 * np.sqrt(3), (7, 10 * seeds))
    one = ecnoise(np.cos(t) + np.sin(t) + 1e-3 * uniform).noise / 1e-3
    out = [row("one table, published example (0.92, 0.43 to 1.55)", one, 7)]
    for sigma in (1e-10, 1e-6, 1e-3, 0.3):
        ratio, nfev = [], []
        for seed in range(seeds):
            draw = np.random.default_rng(seed)
            told = estimate_noise(
                lambda x, d=draw, s=sigma: np.exp(x) + s * d.standard_normal(), 1.0, rng=seed
            )
            ratio.append(told.noise / sigma)
            nfev.append(told.nfev)
        out.append(row(f"e^x + {sigma:g} N(0, 1)", np.array(ratio), np.mean(nfev)))
    for digits in (4, 6, 8):
        unit = 10.0 ** (1 - digits)
        told = [
            estimate_noise(lambda x, d=digits: float(f"{np.exp(x):.{d - 1}e}"), 1.0, rng=seed)
            for seed in range(seeds)
        ]
        ratio = np.array([one.noise for one in told]) / (unit / np.sqrt(12))
        out.append(row(f"e^x in {digits} digits", ratio, np.mean([one.nfev for one in told])))
    return out


def row(name: str, ratio: np.ndarray, nfev: float) -> dict:
    low, middle, high = np.nanquantile(ratio, [0.05, 0.5, 0.95])
    return {
        "case": name, "median": float(middle), "5 %": float(low), "95 %": float(high),
        "not told": float(np.isnan(ratio).mean()), "evaluations": float(nfev),
    }  # fmt: skip


def published_table() -> list[dict]:
    """The difference table printed by Moré and Wild, from its first differences."""
    first = np.array([7.54, 9.69, 12.02, 8.67, 8.38, 9.52]) * 1e-3
    printed = [6.65e-3, 8.69e-4, 7.39e-4, 7.34e-4, 7.97e-4, 8.20e-4]
    levels = ecnoise((1.003 + np.concatenate([[0.0], np.cumsum(first)]))[:, None]).levels[:, 0]
    return [{"order": j + 1, "printed": printed[j], "ours": float(levels[j])} for j in range(6)]


SHI = {
    "(e^x - 1)^2 at -8": (
        lambda x: np.expm1(x) ** 2, -8.0,
        [2 * np.exp(-8) * np.expm1(-8), 2 * np.exp(-8) * (2 * np.exp(-8) - 1),
         2 * np.exp(-8) * (4 * np.exp(-8) - 1)], (2.4e-6, 2.0e-7),
    ),
    "e^(100x) at 0.01": (
        lambda x: np.exp(100 * x), 0.01, [100 * np.e, 1e4 * np.e, 1e6 * np.e], (1.6e-2, 3.0e-4),
    ),
    "x^4 + 3x^2 - 10x at 0.99999": (
        lambda x: x**4 + 3 * x**2 - 10 * x, 0.99999,
        [4 * 0.99999**3 + 6 * 0.99999 - 10, 12 * 0.99999**2 + 6, 24 * 0.99999], (4.5e-4, 5.1e-6),
    ),
    "1e4x^3 + 0.01x^2 + 5x at 1e-9": (
        lambda x: 1e4 * x**3 + 0.01 * x**2 + 5 * x, 1e-9,
        [5 + 2e-11, 0.02 + 6e-5, 6e4], (8.0e-5, 4.3e-5),
    ),
}  # fmt: skip


def limit(derivatives: list[float], sigma: float, central: bool) -> float:
    """Least median error of one difference over all steps, Taylor terms up to the third known."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal(4000)
    best = np.inf
    for h in np.geomspace(1e-8, 1, 400):
        bias = derivatives[2] * h**2 / 6 + (0 if central else derivatives[1] * h / 2)
        noise = sigma / h * (np.sqrt(0.5) if central else np.sqrt(2))
        best = min(best, float(np.median(np.abs(bias + noise * z))))
    return best


def steps(seeds: int) -> list[dict]:
    """Median errors on the four problems of Shi, Xie, Xuan and Nocedal, noise of 1e-8."""
    sigma = 1e-8
    out = []
    for name, (fun, x, derivatives, published) in SHI.items():
        for central in (False, True):
            method = "3-point" if central else "2-point"
            errors: dict[str, list[float]] = {"step": [], "fit": [], "default": [], "scipy": []}
            nfev, default_nfev = [], []
            for seed in range(seeds):
                rng = np.random.default_rng(seed)

                def noisy(t, f=fun, r=rng):
                    return f(t) + sigma * r.standard_normal()

                told = optimal_step(noisy, x, sigma, method)
                h = told.step
                back = noisy(x - h) if central else noisy(x)
                slope = (noisy(x + h) - back) / (2 * h if central else h)
                errors["step"].append(abs(slope - derivatives[0]))
                errors["fit"].append(abs(told.jac - derivatives[0]))
                with np.errstate(all="ignore"):
                    peer = approx_derivative(lambda t: noisy(t[0]), [x], method=method)
                errors["scipy"].append(abs(peer[0] - derivatives[0]))
                nfev.append(told.nfev)
                default = jacobian(noisy, x, rng=seed)
                errors["default"].append(abs(default.jac - derivatives[0]))
                default_nfev.append(default.nfev)
            out.append({
                "problem": name, "method": method, "published": published[central],
                "limit of one difference": limit(derivatives, sigma, central),
                "at the step found": float(np.median(errors["step"])),
                "fit to its values": float(np.median(errors["fit"])),
                "jacobian, no hint": float(np.median(errors["default"])),
                "SciPy default": float(np.median(errors["scipy"])),
                "evaluations": float(np.mean(nfev)),
                "evaluations of jacobian": float(np.mean(default_nfev)),
            })  # fmt: skip
    return out


def checks(seeds: int) -> list[dict]:
    """How often right Jacobians are called wrong (stated rate 1e-3), and wrong ones are found."""
    out = []
    for level in (0.0, 1e-8, 1e-4, 1e-2):
        alarms, sound, found, wrong = 0, 0, {"sign": 0, "factor 1.01": 0, "missing": 0}, 0
        for problem in PROBLEMS:
            if problem.m > 12:
                continue
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                x = problem.x0 * (1 + 0.1 * rng.uniform(-1, 1, problem.m))
                x = np.where(x == 0, 0.1 * rng.uniform(-1, 1, problem.m), x)
                sigma = level * np.sqrt(np.mean(problem.fun(x) ** 2))

                def noisy(p, f=problem.fun, s=sigma, n=problem.n, r=rng):
                    return f(p) + s * r.standard_normal(n)

                exact = problem.jac(x)
                sound += 1
                alarms += check_jacobian(noisy, exact, x, rng=seed).p_value < 1e-3
                if seed:
                    continue
                wrong += 1
                k = np.unravel_index(np.argmax(np.abs(exact * x)), exact.shape)
                for name, change in (("sign", -1.0), ("missing", 0.0), ("factor 1.01", None)):
                    mutant = 1.01 * exact if change is None else exact.copy()
                    if change is not None:
                        mutant[k] *= change
                    check = check_jacobian(noisy, mutant, x, rng=seed)
                    found[name] += check.p_value < 1e-3
        out.append({
            "noise": level, "right": sound, "called wrong": int(alarms), "mutants": wrong,
            **{name: int(value) for name, value in found.items()},
        })  # fmt: skip
    return out


def main() -> None:
    warnings.simplefilter("ignore", GradiatorWarning)
    few = quick()
    data = {
        "designs": designs(20 if few else 400),
        "published table": published_table(),
        "noise": noise_levels(20 if few else 300),
        "steps": steps(5 if few else 50),
        "checks": checks(1 if few else 4),
    }
    for name, rows in data.items():
        print(f"\n{name}\n")
        print(table(rows[0], ([*r.values()] for r in rows)))
    print(f"\nwritten to {write('steps', data)}")


if __name__ == "__main__":
    main()
