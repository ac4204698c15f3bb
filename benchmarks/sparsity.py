"""Sparse Jacobians: colours and time beside SciPy's ``group_columns``, evaluations of detection.

python -m benchmarks.sparsity [--quick]
"""

from __future__ import annotations

import resource
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize._numdiff import approx_derivative, group_columns
from scipy.spatial import Delaunay

from benchmarks import _common
from gradiator_np import GradiatorWarning, detect_sparsity, prepare
from gradiator_np.sparsity import (
    SparsityPattern,
    banded_pattern,
    color,
    color_symmetric,
    grid_pattern,
)

SEEDS, SEARCHES = 10, 4


def random_pattern(n: int, m: int, s: int, seed: int) -> Any:
    """s random columns a row."""
    rows, cols = np.repeat(np.arange(n), s), np.random.default_rng(seed).integers(0, m, n * s)
    return sparse.coo_array((np.ones(n * s, bool), (rows, cols)), shape=(n, m)).tocsr()


def arrowhead(n: int) -> Any:
    """A diagonal, a dense first row and a dense first column."""
    i, none = np.arange(n), np.zeros(n, int)
    rows, cols = np.concatenate([i, none, i]), np.concatenate([i, i, none])
    return sparse.coo_array((np.ones(3 * n, bool), (rows, cols)), shape=(n, n)).tocsr()


def triangulation(n: int, seed: int) -> Any:
    """Linear finite elements on a Delaunay triangulation of random nodes."""
    corners = Delaunay(np.random.default_rng(seed).random((n, 2))).simplices
    rows, cols = np.repeat(corners, 3, axis=1).ravel(), np.tile(corners, 3).ravel()
    return sparse.coo_array((np.ones(len(rows), bool), (rows, cols)), shape=(n, n)).tocsr()


def power_law(n: int, exponent: float, seed: int) -> Any:
    """Rows of very different density, whose columns crowd at one end."""
    rng = np.random.default_rng(seed)
    counts = np.minimum(rng.zipf(exponent, n) + 1, n // 10)
    rows, cols = np.repeat(np.arange(n), counts), (n * rng.random(counts.sum()) ** 3).astype(int)
    return sparse.coo_array((np.ones(len(rows), bool), (rows, cols)), shape=(n, n)).tocsr()


def patterns(size: int) -> dict[str, Callable[[int], Any]]:
    """Patterns by seed, of about ``size`` unknowns."""
    side, cube = int(size**0.5), int(size ** (1 / 3))
    return {
        "5-point grid": lambda seed: grid_pattern((side, side), 5),
        "9-point grid": lambda seed: grid_pattern((side, side), 9),
        "5-point, 2 fields": lambda seed: grid_pattern((side * 2 // 3, side * 2 // 3), 5, fields=2),
        "7-point grid": lambda seed: grid_pattern((cube, cube, cube), 7),
        "27-point grid": lambda seed: grid_pattern((cube, cube, cube), 27),
        "random, 5 a row": lambda seed: random_pattern(size, size, 5, seed),
        "random, 8 a row, wide": lambda seed: random_pattern(size // 3, size, 8, seed),
        "triangulation": lambda seed: triangulation(size, seed),
        "power law, 2.2": lambda seed: power_law(size, 2.2, seed),
        "power law, 1.5": lambda seed: power_law(size // 4, 1.5, seed),
        "arrowhead": lambda seed: arrowhead(size // 4),
    }


def colors(size: int, seeds: int) -> list[list[Any]]:
    """Colours, medians over seeds; and in how many cases there were more than SciPy's."""
    rows = []
    for name, make in patterns(size).items():
        found, worse, plain = [], 0, 0
        for seed in range(1000, 1000 + seeds):
            pattern = make(seed)
            mine, natural = color(pattern), color(pattern, order="natural")
            assert mine.conflict is None
            theirs = int(group_columns(pattern).max()) + 1
            both = color(pattern, by="both").n_colors
            worse += mine.n_colors > theirs
            plain += mine.n_colors > natural.n_colors
            found.append((mine.lower_bound, mine.n_colors, natural.n_colors, theirs, both))
        rows.append([name, *np.median(found, axis=0).astype(int).tolist(), worse, plain])
    return rows


def stars(size: int, seeds: int) -> list[list[Any]]:
    """Colours of symmetric patterns, by stars and by columns, medians; and seconds of both."""
    rows = []
    for name, make in patterns(size).items():
        found = []
        for seed in range(1000, 1000 + seeds):
            pattern = make(seed)
            if pattern.shape[0] != pattern.shape[1]:
                break
            symmetric = (pattern + pattern.T).tocsr()
            started = time.perf_counter()
            columns = color(symmetric).n_colors
            between = time.perf_counter()
            mine = color_symmetric(symmetric)
            assert mine.conflict is None
            found.append((mine.n_colors, columns, time.perf_counter() - between, between - started))
        if found:
            most = np.median(found, axis=0)
            rows.append([name, int(most[0]), int(most[1]), *most[2:].tolist()])
    return rows


def speed(side: int, repeats: int) -> list[list[Any]]:
    """Processor time of colouring over that of ``group_columns``, of large patterns."""
    rows = []
    for name, pattern in {
        "5-point grid": grid_pattern((side, side), 5),
        "9-point grid": grid_pattern((side, side), 9),
        "random, 5 a row": random_pattern(side**2, side**2, 5, 1),
    }.items():
        csc = pattern.tocsc()
        seconds = _common.measure(
            {
                "saturation": partial(color, pattern, order="saturation"),
                "auto": partial(color, pattern),
                "scipy": partial(group_columns, csc),
            },
            repeats,
            time.process_time,
        )
        mine = color(pattern)
        rows.append([
            name, pattern.shape[1], mine.n_colors, int(group_columns(csc).max()) + 1,
            seconds["saturation"] / seconds["scipy"], seconds["auto"] / seconds["scipy"],
        ])  # fmt: skip
    return rows


def detected(pattern: Any, seed: int, noise: float, method: Any) -> tuple[int, int, int, int]:
    """Evaluations, entries that are wrong, and that are missed, and all, for one function.

    Entries are normal numbers, the function bends, and inputs lie between 0.5 and 1.5.
    """
    rng = np.random.default_rng(seed)
    jac = pattern.astype(float)
    jac.data = rng.standard_normal(jac.nnz)

    def fun(points: Any) -> Any:
        y = (jac @ (points + 0.2 * points**2).T).T
        return y + noise * rng.standard_normal(y.shape) if noise else y

    x = rng.uniform(0.5, 1.5, pattern.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradiatorWarning)
        found = detect_sparsity(fun, x, vectorized=True, method=method, rng=seed)
    seen, true = found.pattern.to_csr().astype(int), SparsityPattern.of(pattern).to_csr()
    apart = (seen - true.astype(int)).data
    return found.nfev, int((apart > 0).sum()), int((apart < 0).sum()), true.nnz


def detection(size: int, seeds: int) -> list[list[Any]]:
    """Evaluations (the most of all seeds), precision and recall (all seeds together)."""
    side = int(size**0.5)
    cases: dict[str, tuple[Callable[[int], Any], float, str]] = {
        "random, 5 a row": (lambda seed: random_pattern(size, size, 5, seed), 0.0, "perturb"),
        "5-point grid": (lambda seed: grid_pattern((side, side), 5), 0.0, "perturb"),
        "band of 5": (lambda seed: banded_pattern(size, lower=2, upper=2), 0.0, "perturb"),
        "random, noise 1e-6": (lambda seed: random_pattern(size, size, 5, seed), 1e-6, "perturb"),
        "random, noise 1e-6, auto": (
            lambda seed: random_pattern(size, size, 5, seed),
            1e-6,
            "auto",
        ),
        "random, noise 1e-4": (lambda seed: random_pattern(size, size, 5, seed), 1e-4, "perturb"),
        "arrowhead": (lambda seed: arrowhead(size), 0.0, "perturb"),
        "triangulation": (lambda seed: triangulation(size, seed), 0.0, "perturb"),
        "power law, 2.2": (lambda seed: power_law(size // 4, 2.2, seed), 0.0, "perturb"),
    }
    rows = []
    for name, (make, noise, method) in cases.items():
        found = np.array([
            detected(make(seed), seed, noise, method) for seed in range(2000, 2000 + seeds)
        ])  # fmt: skip
        nfev, wrong, missed, true = found[:, 0], *found[:, 1:].sum(0)
        right = true - missed
        rows.append([
            name, make(0).shape[1], int(nfev.max()), f"{right / (right + wrong):.6f}",
            f"{right / true:.6f}", int((found[:, 1:3].sum(1) == 0).sum()), seeds,
        ])  # fmt: skip
    return rows


def jacobians(side: int, repeats: int) -> list[Any]:
    """The whole J of a nonlinear grid, one point after the other, in times of its runs alone."""
    m = side * side

    def heat(u: np.ndarray) -> np.ndarray:
        g = np.pad(u.reshape(side, side), 1)
        near = g[2:, 1:-1] + g[:-2, 1:-1] + g[1:-1, 2:] + g[1:-1, :-2]
        return (near - 4 * g[1:-1, 1:-1] + 0.1 * np.exp(g[1:-1, 1:-1])).ravel()

    pattern = grid_pattern((side, side), 5)
    structure = pattern.astype(float).tocsc()
    groups = group_columns(structure)
    x = np.random.default_rng(1).uniform(0.5, 1.5, m)
    spent = {"bare": [], "ours": [], "scipy": []}
    with prepare(heat, x, sparsity=pattern, method="2-point") as prepared:
        prepared(x)
        for k in range(repeats):
            z = x * (1 + 0.01 * k)
            started = time.perf_counter()
            heat(z)
            spent["bare"].append(time.perf_counter() - started)
            started = time.perf_counter()
            found = prepared(z)
            jac, runs = found.jac, found.nfev
            spent["ours"].append(time.perf_counter() - started)
            started = time.perf_counter()
            theirs = approx_derivative(heat, z, "2-point", sparsity=(structure, groups))
            spent["scipy"].append(time.perf_counter() - started)
    assert abs(jac - theirs).max() < 1e-5
    bare, ours, scipy = (float(np.median(times)) for times in spent.values())
    their_runs = int(groups.max()) + 2
    return [
        m, runs, their_runs, f"{ours / (runs * bare):.1f}", f"{scipy / (their_runs * bare):.1f}",
        f"{scipy / ours:.1f}",
    ]  # fmt: skip


def large(size: int) -> list[Any]:
    """One large pattern: evaluations, errors, processor time, and memory of the whole process."""
    pattern = random_pattern(size, size, 5, 3)
    detected(random_pattern(300, 300, 5, 3), 3, 0.0, "perturb")  # compilation
    start = time.process_time()
    nfev, wrong, missed, _ = detected(pattern, 3, 0.0, "perturb")
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return [size, nfev, wrong, missed, seconds, peak / 2**10]


def main() -> None:
    """Measure, print, write."""
    quick = _common.quick()
    size, seeds = (400, 2) if quick else (10_000, SEEDS)
    by_pattern = colors(size, seeds)
    heads = ["pattern", "bound", "colours", "natural", "scipy", "both", "> scipy", "> natural"]
    print(_common.table(heads, by_pattern))
    by_star = stars(size, 1 if quick else 3)
    print("\n" + _common.table(["symmetric", "stars", "columns", "seconds", "columns'"], by_star))
    times = speed(30 if quick else 1000, 1 if quick else 3)
    heads = ["pattern", "m", "colours", "scipy", "saturation / scipy", "auto / scipy"]
    print("\n" + _common.table(heads, times))
    whole = [jacobians(side, 5) for side in ((20, 40) if quick else (100, 300, 1000))]
    heads = [
        "5-point grid, m",
        "runs",
        "scipy",
        "time / runs",
        "scipy's / its runs",
        "scipy / ours",
    ]
    print("\n" + _common.table(heads, whole))
    patterns_found = detection(size, 2 if quick else SEARCHES)
    heads = ["detection", "m", "evaluations, most", "precision", "recall", "exact", "of"]
    print("\n" + _common.table(heads, patterns_found))
    one = large(2000 if quick else 100_000)
    heads = ["m, random 5 a row", "evaluations", "wrong", "missed", "CPU seconds", "MiB, peak"]
    print("\n" + _common.table(heads, [one]))
    _common.write(
        "sparsity",
        {
            "colours": by_pattern,
            "stars": by_star,
            "times": times,
            "jacobians": whole,
            "detection": patterns_found,
            "large": one,
        },
    )


if __name__ == "__main__":
    main()
