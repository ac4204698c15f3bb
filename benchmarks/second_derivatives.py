"""Second derivatives of random functions: errors, intervals and evaluations, beside peers.

    python -m benchmarks.second_derivatives [--quick] [--noise | --smooth | --trouble | --silent]

With noise of 1e-4 errors are held against a limit that knows the function: the best of all common
relative steps for the same second differences at as many evaluations, by the median over entries of
the root mean square of exact truncation and of noise. Peers: numdifftools.Hessian, statsmodels'
approx_hess and scipy.differentiate.hessian with their defaults.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._common import quick, table, write
from benchmarks.second_derivatives_cases import Case, draw
from gradiator_np import hessian, hessian_diagonal, hvp

NOISE = 1e-4
STEPS = np.geomspace(0.02, 1.5, 24)
SIZES = (2, 3, 4, 5, 6, 8, 10)


class Counted:
    """A function with noise that counts its runs; ``scipy`` and others call it with columns."""

    def __init__(self, case: Callable[[Any], Any], noise: float = 0.0, rng: Any = None) -> None:
        self.case, self.noise, self.rng, self.nfev = case, noise, rng, 0

    def __call__(self, x: Any) -> Any:
        value = self.case(x)
        self.nfev += np.size(value)
        if self.noise:
            value = value + self.noise * self.rng.normal(size=np.shape(value))
        return value


def limit(case: Case, nfev: int) -> float:
    """The median error of the best common step: second differences by both corners of as many
    entries as ``nfev`` allows, one corner of the others, six runs shared by the value at x."""
    m, x, exact = len(case.x), case.x, case.hess
    unit = np.abs(x)
    exact = exact * np.outer(unit, unit)
    places = [(i, j) for i in range(m) for j in range(i)]
    corners = len(places)
    both = int(np.clip(nfev - 7 - 2 * m - corners, 0, corners))
    centre = 1 / max(1, nfev - 2 * m - corners - both)
    y, best = case(x), np.inf
    for s in STEPS:
        up = np.array([case(x + s * unit * e) for e in np.eye(m)])
        down = np.array([case(x - s * unit * e) for e in np.eye(m)])
        noise = NOISE / s**2
        errors = list(
            np.hypot((up + down - 2 * y) / s**2 - np.diag(exact), noise * np.sqrt(2 + 4 * centre))
        )
        for k, (i, j) in enumerate(places):
            at = np.zeros(m)
            at[[i, j]] = s * unit[[i, j]]
            corner = case(x + at)
            if k < both:
                sides = up[i] + down[i] + up[j] + down[j]
                value = (corner + case(x - at) - sides + 2 * y) / 2 / s**2
                errors.append(np.hypot(value - exact[i, j], noise * np.sqrt(1.5 + centre)))
            else:
                value = (corner - up[i] - up[j] + y) / s**2
                errors.append(np.hypot(value - exact[i, j], noise * np.sqrt(3 + centre)))
        best = min(best, float(np.median(errors)))
    return best


def peers() -> dict[str, Callable[[Any, Any], Any]]:
    """Hessians of other libraries, by name."""
    import numdifftools
    import scipy.differentiate
    from statsmodels.tools.numdiff import approx_hess

    return {
        "numdifftools": lambda f, x: numdifftools.Hessian(f)(x),
        "statsmodels": lambda f, x: approx_hess(x, f),
        "scipy": lambda f, x: scipy.differentiate.hessian(f, x).ddf,
    }


def relative(found: Any, case: Case) -> Any:
    """Errors of the entries in units of |x| each, as a share of the largest."""
    unit = np.outer(np.abs(case.x), np.abs(case.x))
    triangle = np.tril_indices(len(case.x))
    return (np.abs(np.asarray(found) - case.hess) * unit)[triangle] / np.abs(case.hess * unit).max()


def noisy(count: int) -> list[dict[str, Any]]:
    """Errors against the limit, coverage and cost with noise."""
    others = peers()
    rows = []
    for m in SIZES:
        ours, limits, inside, widths, cost = [], [], [], [], []
        foreign: dict[str, list[float]] = {name: [] for name in others}
        for seed in range(count):
            rng = np.random.default_rng(1000 * m + seed)
            case = draw(m, rng)
            fun = Counted(case, NOISE, rng)
            found = hessian(fun, case.x, rng=seed)
            unit = np.outer(np.abs(case.x), np.abs(case.x))
            size = np.abs(case.hess * unit).max()
            triangle = np.tril_indices(m)
            ours.append(np.median(relative(found.hess, case)))
            limits.append(limit(case, fun.nfev) / size)
            low, high = found.confidence_interval()
            inside.append(((low <= case.hess) & (case.hess <= high))[triangle].mean())
            widths.append(np.median((found.stderr * unit)[triangle]) / size)
            cost.append(fun.nfev)
            for name, peer in others.items():
                foreign[name].append(
                    np.median(relative(peer(Counted(case, NOISE, rng), case.x), case))
                )
        allowed = 1.2 * (m + 1) * (m + 2) / 2 + 10
        rows.append({
            "m": m, "evaluations": max(cost), "allowed": allowed,
            "median error": float(np.median(ours)), "limit": float(np.median(limits)),
            "ratio": float(np.median(ours) / np.median(limits)),
            "ratio, median": float(np.median(np.array(ours) / limits)),
            "coverage": float(np.mean(inside)), "stderr": float(np.median(widths)),
            **{name: float(np.median(values)) for name, values in foreign.items()},
        })  # fmt: skip
    return rows


def smooth(count: int) -> list[dict[str, Any]]:
    """Errors and cost without noise."""
    others = peers()
    rows = []
    for m in SIZES:
        ours, inside, cost, along, along_cost = [], [], [], [], []
        foreign: dict[str, list[float]] = {name: [] for name in others}
        runs: dict[str, list[int]] = {name: [] for name in others}
        for seed in range(count):
            case = draw(m, np.random.default_rng(1000 * m + seed), 1.0)
            fun = Counted(case)
            found = hessian(fun, case.x, rng=seed)
            ours.append(np.median(relative(found.hess, case)))
            low, high = found.confidence_interval()
            inside.append(((low <= case.hess) & (case.hess <= high)).mean())
            cost.append(fun.nfev)
            quadratic = hvp(Counted(case), case.x, case.x, quadratic=True)
            exact = case.x @ case.hess @ case.x
            along.append(
                abs(quadratic.value - exact) / np.abs(case.hess * np.outer(case.x, case.x)).max()
            )
            along_cost.append(quadratic.nfev)
            for name, peer in others.items():
                fun = Counted(case)
                foreign[name].append(np.median(relative(peer(fun, case.x), case)))
                runs[name].append(fun.nfev)
        rows.append({
            "m": m, "evaluations": float(np.mean(cost)), "median error": float(np.median(ours)),
            "coverage": float(np.mean(inside)), "u'Hu": float(np.median(along)),
            "u'Hu evaluations": max(along_cost),
            **{name: float(np.median(values)) for name, values in foreign.items()},
            **{f"{name} runs": float(np.mean(values)) for name, values in runs.items()},
        })  # fmt: skip
    return rows


def _kinked(case: Case) -> Callable[[Any], Any]:
    return lambda x: case(x) + 0.3 * np.abs((x[0] - case.x[0]) / case.scale[0])


def _broken(case: Case) -> Callable[[Any], Any]:
    return lambda x: case(x) + 0.1 * (x[0] >= case.x[0])


def _printed(digits: int) -> Callable[[Case], Callable[[Any], Any]]:
    return lambda case: lambda x: float(f"{case(x):.{digits - 1}e}")


def _failing(case: Case) -> Callable[[Any], Any]:
    def fun(x: Any) -> Any:
        outside = np.any((x - case.x) * np.sign(case.x) > 0.05 * np.abs(case.x))
        return np.nan if outside else case(x)

    return fun


def _plain(case: Case) -> Callable[[Any], Any]:
    return case


def trouble(count: int) -> list[dict[str, Any]]:
    """Functions that are no easy ones: shares of intervals that hold, and of statuses ok."""
    kinds: dict[str, tuple[Any, float, dict[str, Any], dict[str, Any]]] = {
        "sizes over 12 decades": (_plain, 0.0, {"decades": 6.0}, {}),
        "the same, noise": (_plain, NOISE, {"decades": 6.0}, {}),
        "x = 0": (_plain, 0.0, {"decades": 0.5, "where": "origin"}, {}),
        "x = 0, noise": (_plain, NOISE, {"decades": 0.5, "where": "origin"}, {}),
        "x = 1e6 scales": (_plain, 0.0, {"where": "far"}, {}),
        "printed to 10 digits": (_printed(10), 0.0, {}, {}),
        "printed to 6 digits": (_printed(6), 0.0, {}, {}),
        "noise 1e-2": (_plain, 1e-2, {}, {}),
        "noise 1e-6": (_plain, 1e-6, {}, {}),
        "noise 1e-8": (_plain, 1e-8, {}, {}),
        "fails beyond 1.05 x": (_failing, 0.0, {}, {}),
        "kink at x": (_kinked, 0.0, {}, {}),
        "kink at x, noise": (_kinked, NOISE, {}, {}),
        "jump at x": (_broken, 0.0, {}, {}),
        "jump at x, noise": (_broken, NOISE, {}, {}),
    }
    rows = []
    for name, (wrap, level, how, options) in kinds.items():
        inside, states, errors, bars, cost = [], [], [], [], []
        for seed in range(count):
            rng = np.random.default_rng(seed)
            case = draw(int(rng.integers(2, 7)), rng, **how)
            found = hessian(Counted(wrap(case), level, rng), case.x, rng=seed, **options)
            low, high = found.confidence_interval()
            inside.append(((low <= case.hess) & (case.hess <= high)).mean())
            unit = np.outer(case.scale, case.scale)
            size = np.abs(case.hess * unit).max()
            errors.append(np.median(np.abs(found.hess - case.hess) * unit) / size)
            bars.append(np.median(found.stderr * unit) / size)
            states.append(str(found.status))
            cost.append(found.nfev)
        names, counts = np.unique(states, return_counts=True)
        rows.append({
            "kind": name, "median error": float(np.median(errors)),
            "stderr": float(np.median(bars)), "coverage": float(np.mean(inside)),
            "evaluations": float(np.mean(cost)),
            "statuses": ", ".join(f"{s} {c}" for s, c in zip(names, counts)),
        })  # fmt: skip
    return rows


#: Second derivatives of all kinds at x, and what they are given the exact Hessian; u is of ones.
KINDS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]] = {
    "H": (hessian, lambda h: h),
    "diagonal": (hessian_diagonal, np.diag),
    "H u": (lambda f, x: hvp(f, x, np.ones(len(x))), lambda h: h.sum(1)),
    "u'H u": (lambda f, x: hvp(f, x, np.ones(len(x)), quadratic=True), np.sum),
}


def _hiding(case: Case, shift: Any, width: float, kink: float, rng: Any) -> Callable[[Any], Any]:
    def fun(p: Any) -> Any:
        at = (p - shift) / width
        return case(at) + kink * abs(at[0] - case.x[0]) + NOISE * rng.normal()

    return fun


def _wrong(kind: str, m: int, far: bool, kink: float, seed: int) -> bool:
    """Whether a call with noise is ok beside a kink at x, or five bars off."""
    rng = np.random.default_rng(seed)
    case, width, shift = draw(m, rng, 0.0), 0.1 if far else 1.0, np.zeros(m)
    shift[0] = 10.0 ** rng.uniform(3, 7) if far else 0.0
    x = shift + width * case.x
    case.x[:] = (x - shift) / width  # as rounded
    call, part = KINDS[kind]
    found = call(_hiding(case, shift, width, kink, rng), x)
    off = np.abs(found.coef[0] - part(case.hess / width**2)) > 5 * found.error[0]
    return bool(found.success and (kink > 0 or np.any(off)))


def silent(count: int) -> list[dict[str, Any]]:
    """Shares of calls that say nothing though they should: inputs of the size of x, or the first
    one of 0.1 at 1e3 to 1e7."""
    return [
        {"m": m, "x": "1e3 to 1e7" if far else "as drawn", "kink": kink, "calls": 3 * count}
        | {
            kind: float(np.mean([_wrong(kind, m, far, kink, seed) for seed in range(3 * count)]))
            for kind in KINDS
        }
        for m in (2, 5) for far in (False, True) for kink in (0.0, 0.3)
    ]  # fmt: skip


def main() -> None:
    """Run all, or what was asked for."""
    warnings.simplefilter("ignore")
    asked = [
        name for name in ("noise", "smooth", "trouble", "silent") if f"--{name}" in sys.argv[1:]
    ]
    count = 3 if quick() else 40
    results = {}
    for name, make in (
        ("noise", noisy), ("smooth", smooth), ("trouble", trouble), ("silent", silent),
    ):  # fmt: skip
        if asked and name not in asked:
            continue
        results[name] = make(count)
        print(f"\n{name}, {count} functions each\n")
        print(table(results[name][0], [row.values() for row in results[name]]), flush=True)
    if not asked:
        write("second_derivatives", results)


if __name__ == "__main__":
    main()
