"""Random functions under random conditions, in search of wrong numbers that say ok.

    python -m benchmarks.strangers --help

For each cell of ``strangers_cases``: *silent*, the share of calls in which a column of J is off by
more than five of its bars though the status is ok or failed_runs; *useless*, the share in which the
bars of a column are ten times its error and a tenth of the row (in the root mean square over
outputs, rows scaled to one), unless noise allows no better; the largest error of a column, median
and 90 %; the same of SciPy's 3-point rule (``--peers``: of numdifftools and jacobi as well);
evaluations a input beyond ten; how often the limit, 5 m + 10, is passed; and how often 95 %
intervals hold under noise. ``--door`` asks for J by another way than ``jacobian`` (see ``DOORS``),
``--most`` for another limit. ``--shrink`` searches a cell for a failing draw
and makes it small.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._common import quick, table, write
from benchmarks.strangers_cases import CELLS, NOISE, Case, Draw
from gradiator_np import JacobianEstimate, JacobianEstimator, jacobian, jvp, prepare, vjp

#: Statuses under which numbers are to be relied on.
SAID_OK = ("ok", "failed_runs")
#: Rounding that no bar has to cover.
ROUNDING = 1e-10


#: J, its standard errors, a status, and evaluations.
Products = tuple[np.ndarray, np.ndarray, str, int]


class Judged(dict):
    """Figures of one call."""


def columns(a: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Root mean square over outputs of each column, rows scaled to one."""
    return np.sqrt(np.mean(np.square(a / row[:, None]), axis=0))


def judge(case: Case, jac: np.ndarray, err: np.ndarray, status: str, nfev: int) -> Judged:
    truths = [np.asarray(t, float) for t in case.truths]
    row = np.sqrt(np.square(truths[0]).sum(axis=1))
    used = row > 0
    if not used.any():
        used, row = np.ones(len(row), bool), np.ones(len(row))
    row = np.where(used, row, 1.0)
    errors = [columns((jac - t)[used], row[used]) for t in truths]
    # each column may be right by a truth of its own
    error = np.min(errors, axis=0)
    bar = columns(np.asarray(err, float)[used], row[used])
    known = np.isfinite(bar)
    wrong = known & (error > 5 * bar + ROUNDING)
    fine = np.full(error.shape, True)
    if case.best is not None:
        fine = columns(case.best[used], row[used]) < 0.02
    # where two readings are right, bars that reach both are of use
    apart = np.max([columns((t - truths[0])[used], row[used]) for t in truths], axis=0)
    useless = fine & (bar > 10 * np.maximum(error, apart)) & (bar > 0.1)
    return Judged(
        silent=bool(wrong.any()) and status in SAID_OK,
        wrong=bool(wrong.any()),
        useless=bool(useless.any()),
        error=float(np.max(np.where(np.isfinite(error), error, np.inf))),
        status=status,
        nfev=nfev,
        m=len(case.x),
    )


def by_jacobian(case: Case, seed: int) -> JacobianEstimate:
    return jacobian(case.fun, case.x, rng=seed, **case.options)


def by_second_point(case: Case, seed: int) -> JacobianEstimate:
    """With what was learned a percent away."""
    low, high = case.options.get("bounds", (-np.inf, np.inf))
    start = np.clip(case.x * case.x.dtype.type(1.01), low, high).astype(case.x.dtype)
    return prepare(case.fun, start, rng=seed, **case.options)(case.x)


def by_ask_and_tell(case: Case, seed: int) -> JacobianEstimate:
    """Told in parts and out of order."""
    rng = np.random.default_rng(seed)
    estimator = JacobianEstimator(case.x, rng=seed, **case.options)
    while True:
        points, ids = estimator.ask()
        if not len(ids):
            return estimator.estimate()
        order = rng.permutation(len(ids))
        for part in np.array_split(order, min(2, len(order))):
            outputs, errors = [], {}
            for k in part:
                try:
                    outputs.append(case.fun(points[k]))
                except Exception as exc:  # a run that failed is told as such
                    outputs.append(None)
                    errors[int(ids[k])] = str(exc)
            estimator.tell(outputs, ids[part], errors=errors)


def by_batch(case: Case, seed: int) -> Products:
    """As one of several points, up to a third away."""
    rng = np.random.default_rng(seed)
    low, high = case.options.get("bounds", (-np.inf, np.inf))
    beside = case.x * (1 + rng.uniform(-0.3, 0.3, (rng.integers(1, 8), case.x.size)))
    points = np.concatenate([case.x[None], np.clip(beside, low, high)]).astype(case.x.dtype)

    def fun(batch: np.ndarray) -> np.ndarray:
        out = np.full((len(batch), len(case.truths[0])), np.nan)
        for row, p in zip(out, batch):
            with contextlib.suppress(ArithmeticError, RuntimeError, ValueError):
                row[:] = case.fun(p)
        return out

    every = jacobian(fun, points, batch_dims=1, rng=seed, **case.options)
    return every.jac[0], every.stderr[0], str(every.status), every.nfev


def by_rows(case: Case, seed: int) -> Products:
    """A product with each row of the identity."""
    found = [vjp(case.fun, case.x, v, rng=seed, **case.options)
             for v in np.eye(len(case.truths[0]))]  # fmt: skip
    return joined(found)


def by_columns(case: Case, seed: int) -> Products:
    """A product with each column of the identity."""
    found = [jvp(case.fun, case.x, u, rng=seed, **case.options) for u in np.eye(case.x.size)]
    jac, err, status, nfev = joined(found)
    return jac.T, err.T, status, nfev


def joined(found: list[Any]) -> Products:
    doubts = [f.status for f in found if f.status not in SAID_OK]
    return (
        np.array([f.value for f in found]), np.array([f.stderr for f in found]),
        str(doubts[0] if doubts else found[0].status), max(f.nfev for f in found),
    )  # fmt: skip


def by_colors(case: Case, seed: int) -> Products:
    """With the pattern of J: entries that are 0 by chance are no part of it."""
    pattern = np.any([np.asarray(truth) != 0 for truth in case.truths], axis=0)
    e = jacobian(case.fun, case.x, sparsity=pattern, **case.options)
    return e.toarray(), e.stderr.toarray(), str(e.status), e.nfev


#: Ways to J.
DOORS: dict[str, Callable[[Case, int], Any]] = {
    "jacobian": by_jacobian,
    "prepare": by_second_point,
    "ask and tell": by_ask_and_tell,
    "batch": by_batch,
    "vjp": by_rows,
    "jvp": by_columns,
    "sparsity": by_colors,
    "3-point": lambda case, seed: jacobian(case.fun, case.x, method="3-point", **case.options),
    "5-point": lambda case, seed: jacobian(case.fun, case.x, method="5-point", **case.options),
}


def ours(case: Case, seed: int, door: str = "jacobian") -> Judged:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            e = DOORS[door](case, seed)
        except Exception as exc:
            return Judged(silent=False, wrong=True, useless=True, error=np.inf,
                          status=type(exc).__name__, nfev=0, m=len(case.x))  # fmt: skip
    if isinstance(e, tuple):
        return judge(case, *e)
    out = judge(case, e.jac, e.stderr, str(e.status), e.nfev)
    if case.noisy:
        with np.errstate(invalid="ignore"):
            low, high = e.confidence_interval(0.95)
        held = (low <= case.truths[0]) & (case.truths[0] <= high)
        out["held"] = float(held[np.isfinite(e.stderr)].mean()) if held.size else np.nan
    return out


def scipy_3_point(case: Case) -> float:
    """In units of x, where its steps are at their best."""
    from scipy.optimize._numdiff import approx_derivative

    unit = np.where(case.x == 0, np.max(np.abs(case.x)) or 1.0, np.abs(case.x)).astype(float)
    low, high = (np.asarray(b, float) / unit for b in case.options.get("bounds", (-np.inf, np.inf)))
    dtype = case.x.dtype

    def scaled(z: np.ndarray) -> np.ndarray:
        return np.asarray(case.fun((z * unit).astype(dtype)), float)

    return peer(case, lambda: approx_derivative(
        scaled, case.x / unit, bounds=(low, high)) / unit)  # fmt: skip


def numdifftools(case: Case) -> float:
    import numdifftools as nd

    return peer(case, lambda: nd.Jacobian(case.fun)(case.x))


def jacobi(case: Case) -> float:
    import jacobi as package

    return peer(case, lambda: package.jacobi(case.fun, case.x)[0])


def peer(case: Case, run: Callable[[], Any]) -> float:
    """The largest error of a column by another library, inf where it raises."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            jac = np.reshape(run(), np.shape(case.truths[0]))
        return judge(case, jac, np.zeros(jac.shape), "ok", 0)["error"]
    except Exception:
        return np.inf


def run_cell(
    name: str, seed: int, draws: int, peers: bool, door: str, most: int | None = None
) -> dict[str, Any]:
    calls, others = [], {"scipy": [], "numdifftools": [], "jacobi": []}
    index = list(CELLS).index(name)
    for k in range(draws):
        case = CELLS[name](Draw(np.random.default_rng([seed, index, k])))
        limit = 5 * len(case.x) + 10
        if most is not None:
            limit = case.options["max_nfev"] = most * len(case.x)
        calls.append(ours(case, seed + k, door))
        calls[-1]["beyond"] = calls[-1]["nfev"] > limit
        for other, run in (("scipy", scipy_3_point), ("numdifftools", numdifftools),
                           ("jacobi", jacobi)):  # fmt: skip
            if other == "scipy" or peers:
                fresh = CELLS[name](Draw(np.random.default_rng([seed, index, k])))
                others[other].append(run(fresh))

    def share(key: str) -> float:
        return float(np.mean([c[key] for c in calls]))

    errors = np.array([c["error"] for c in calls])
    statuses = [c["status"] for c in calls]
    out = {
        "silent": share("silent"),
        "useless": share("useless"),
        "median": float(np.median(errors)),
        "90 %": float(np.quantile(errors, 0.9, method="higher")),
        "evaluations": float(np.mean([(c["nfev"] - 10) / c["m"] for c in calls])),
        "beyond": share("beyond"),
        "held": float(np.nanmean([c.get("held", np.nan) for c in calls]))
        if name in NOISE
        else None,
        "statuses": {s: statuses.count(s) for s in sorted(set(statuses))},
        "which": {key: [k for k, c in enumerate(calls) if c[key]] for key in ("silent", "useless")},
    }
    for other, values in others.items():
        if values:
            out[other] = [
                float(np.median(values)),
                float(np.quantile(values, 0.9, method="higher")),
            ]
    return out


def shrink(name: str) -> None:
    """Search a cell for a draw that fails, and print the smallest that Hypothesis finds."""
    from hypothesis import HealthCheck, find, settings
    from hypothesis import strategies as st

    class Given(Draw):
        def __init__(self, data: Any) -> None:
            self.data = data

        def integer(self, low: int, high: int) -> int:
            return self.data.draw(st.integers(low, high))

        def uniform(self, low: float, high: float) -> float:
            return low + (high - low) * self.data.draw(st.integers(0, 1000)) / 1000

    @st.composite
    def cases(draw: Any) -> Case:
        class Data:
            def draw(self, strategy: Any) -> Any:
                return draw(strategy)

        return CELLS[name](Given(Data()))

    def fails(case: Case) -> bool:
        found = ours(case, 0)
        return found["silent"] or found["useless"]

    many = settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck),
                    database=None)  # fmt: skip
    case = find(cases(), fails, settings=many)
    e = jacobian(case.fun, case.x, **case.options)
    print("x =", case.x.tolist(), case.options)
    print(e, "\nright:\n", *case.truths, sep="\n")
    cells = [c.cell_contents for c in case.fun.__closure__ or ()] if hasattr(
        case.fun, "__closure__") else [case.fun.__self__]  # fmt: skip
    print(*cells, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.strangers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=60, help="functions of each cell")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--door", default="jacobian", choices=sorted(DOORS), help="what is called")
    parser.add_argument(
        "--most", type=int, metavar="K", help="max_nfev = K m, in place of 5 m + 10"
    )
    parser.add_argument("--peers", action="store_true", help="numdifftools and jacobi beside us")
    parser.add_argument("--shrink", metavar="CELL", help="print the smallest draw that fails")
    parser.add_argument("--quick", action="store_true", help="4 draws")
    given = parser.parse_args()
    if given.shrink:
        return shrink(given.shrink)
    draws = 4 if quick() else given.draws
    results = {}
    rows = []
    for name in CELLS:
        if given.only in name:
            out = results[name] = run_cell(
                name, given.seed, draws, given.peers, given.door, given.most
            )
            said = " ".join(f"{s}:{k}" for s, k in out["statuses"].items())
            rows.append([name, out["silent"], out["useless"], out["median"], out["90 %"],
                         *out["scipy"], out["evaluations"], out["beyond"],
                         "-" if out["held"] is None else out["held"], said])  # fmt: skip
            print(name, *rows[-1][1:], out["which"], flush=True, file=sys.stderr)
    print(table(["cell", "silent", "useless", "median error", "90 %", "SciPy median", "90 %",
                 "(runs - 10) / m", "beyond", "held", "status"], rows))  # fmt: skip
    print(write("strangers", results))


if __name__ == "__main__":
    main()
