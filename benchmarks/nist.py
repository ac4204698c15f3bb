"""NIST's certified nonlinear regressions: digits of parameters and standard deviations, and runs.

All 27 sets of the Statistical Reference Datasets from both of their starts, 54 fits without noise
of the runs. Digits: -log10 of the relative error of the worst parameter, at most 11, and of the
worst standard deviation, from s^2 (J'J)^-1 with the Jacobian that the solver returns.

Some of the 54 follow paths on which rounding decides: another BLAS ends two or three of them
elsewhere. So they are also run from starts shifted by 1e-9 of their size, with random signs, six
times, and the figure of a solver is the mean over these.

    python -m benchmarks.nist [--quick]

Source: McCullough and Wilson, Comput. Stat. Data Anal. 31 (1999) 27 (measure of digits);
https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml (data in ``tests/data/nist.json``).
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import optimize

from benchmarks._common import quick, table, write
from gradiator_np import least_squares

DATA = Path(__file__).parents[1] / "tests" / "data" / "nist.json"
#: Digits that NIST certifies.
MOST_DIGITS = 11.0
#: Relative shift of starts, and how many sets of shifted ones there are.
SHIFT, SETS = 1e-9, 6


def _gauss(b, x):
    first = b[2] * np.exp(-((x - b[3]) ** 2) / b[4] ** 2)
    return b[0] * np.exp(-b[1] * x) + first + b[5] * np.exp(-((x - b[6]) ** 2) / b[7] ** 2)


def _decays(b, x):
    return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-b[3] * x) + b[4] * np.exp(-b[5] * x)


def _cubics(b, x):
    return np.polyval(b[3::-1], x) / np.polyval([b[6], b[5], b[4], 1.0], x)


def _enso(b, x):
    def wave(cos, sin, period):
        return cos * np.cos(2 * np.pi * x / period) + sin * np.sin(2 * np.pi * x / period)

    return b[0] + wave(b[1], b[2], 12.0) + wave(b[4], b[5], b[3]) + wave(b[7], b[8], b[6])


def _chwirut(b, x):
    return np.exp(-b[0] * x) / (b[1] + b[2] * x)


MODELS = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": lambda b, x: b[0] * (1 - np.exp(-b[1] * x)),
    "Chwirut1": _chwirut,
    "Chwirut2": _chwirut,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": _enso,
    "Eckerle4": lambda b, x: b[0] / b[1] * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": _gauss,
    "Gauss2": _gauss,
    "Gauss3": _gauss,
    "Hahn1": _cubics,
    "Kirby2": lambda b, x: (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2),
    "Lanczos1": _decays,
    "Lanczos2": _decays,
    "Lanczos3": _decays,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH10": lambda b, x: b[0] * np.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4]),
    "Misra1a": lambda b, x: b[0] * (1 - np.exp(-b[1] * x)),
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2.0),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * np.exp(-b[2] * x[1]),  # of log(y)
    "Rat42": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi,
    "Thurber": _cubics,
}


@dataclass(frozen=True)
class Regression:
    """One data set.

    Attributes
    ----------
    starts : list of array, shape (m,)
    certified, stderr : array, shape (m,)
        Parameters and their standard deviations.
    """

    name: str
    level: str
    starts: list
    certified: np.ndarray
    stderr: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def model(self, x, *b):
        with np.errstate(all="ignore"):
            return MODELS[self.name](np.asarray(b), x)

    def residuals(self, b):
        return self.model(self.x, *b) - self.y

    def digits(self, b):
        """Digits of the worst parameter."""
        return digits(b, self.certified)

    def stderr_digits(self, b, jac):
        """Digits of the worst standard deviation, by the Jacobian of some solver."""
        r = self.residuals(b)
        _, triangle = np.linalg.qr(jac)
        try:
            root = np.linalg.inv(triangle)
        except np.linalg.LinAlgError:
            return 0.0
        variance = r @ r / (len(r) - len(b))
        return digits(np.sqrt(variance * np.square(root).sum(1)), self.stderr)


def digits(found, certified):
    """-log10 of the largest relative error, from 0 to ``MOST_DIGITS``."""
    with np.errstate(all="ignore"):
        error = np.max(np.abs(np.asarray(found) - certified) / np.abs(certified))
    if not np.isfinite(error):
        return 0.0
    return float(np.clip(-np.log10(max(error, 1e-300)), 0.0, MOST_DIGITS))


def regressions():
    """All data sets."""
    found = []
    for name, row in json.loads(DATA.read_text()).items():
        y = np.array(row["y"], float)
        found.append(Regression(
            name, row["level"], [np.array(b, float) for b in row["starts"]],
            np.array(row["certified"]), np.array(row["stderr"]), np.array(row["x"], float),
            np.log(y) if name == "Nelson" else y,
        ))  # fmt: skip
    return found


class Counted:
    """A function that counts its runs."""

    def __init__(self, fun):
        self.fun, self.runs = fun, 0

    def __call__(self, *args):
        self.runs += 1
        return self.fun(*args)


def _curve_fit(problem, start):
    model = Counted(problem.model)
    x, cov = optimize.curve_fit(model, problem.x, problem.y, start)
    return x, digits(np.sqrt(np.diagonal(cov)), problem.stderr), True, model.runs


def _scipy_best(problem, start):
    fun = Counted(problem.residuals)
    fit = optimize.least_squares(
        fun, start, jac="3-point", x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15,
        max_nfev=1000,
    )  # fmt: skip
    return fit.x, problem.stderr_digits(fit.x, fit.jac), fit.success, fun.runs


def _ours(problem, start):
    fit = least_squares(problem.residuals, start)
    return fit.x, problem.stderr_digits(fit.x, fit.jac), fit.success, fit.nfev


SOLVERS = {"least_squares": _ours, "curve_fit": _curve_fit, "SciPy, tight": _scipy_best}


def one(solver, problem, start):
    """What a solver makes of a start; a peer's exception is a figure, not an end."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            x, of_stderr, success, runs = SOLVERS[solver](problem, start)
        except (RuntimeError, ValueError):
            return {"digits": 0.0, "stderr_digits": 0.0, "success": False, "runs": 0}
    row = {"digits": problem.digits(x), "stderr_digits": of_stderr, "success": bool(success)}
    return row | {"runs": int(runs)}


def shifted(starts, number):
    """The starts of one set, shifted at random; those of NIST in set 0."""
    if number == 0:
        return starts
    rng = np.random.default_rng(number)
    return [start * (1.0 + SHIFT * rng.choice((-1.0, 1.0), start.size)) for start in starts]


def summary(rows, sets=1):
    """Fits with so many digits, false successes, and runs together: means over so many sets."""
    of_x = np.array([row["digits"] for row in rows])
    of_stderr = np.array([row["stderr_digits"] for row in rows])
    success = np.array([row["success"] for row in rows])
    counts = {
        "4 digits": (of_x >= 4).sum(),
        "6 digits": (of_x >= 6).sum(),
        "stderr to 4": (of_stderr >= 4).sum(),
        "success, no digit": (success & (of_x < 1)).sum(),
        "runs": sum(row["runs"] for row in rows),
    }
    return {name: float(count) / sets for name, count in counts.items()}


def measured(problems, sets):
    """Every fit by every solver, from the starts of all sets."""
    return [
        {"set": number, "solver": solver, "problem": problem.name, "start": k,
         **one(solver, problem, start)}
        for number in range(sets + 1)
        for problem in problems
        for k, start in enumerate(shifted(problem.starts, number), 1)
        for solver in SOLVERS
    ]  # fmt: skip


def cell(row):
    """What became of a fit, in few characters."""
    digits = f"{row['digits']:.1f} {row['stderr_digits']:.1f} {row['runs']}"
    return digits + ("" if row["success"] else " -")


def main():
    """Measure, print, write."""
    problems, sets = (regressions()[:3], 1) if quick() else (regressions(), SETS)
    fits = measured(problems, sets)
    own = [row for row in fits if row["set"] == 0]
    of = {(row["problem"], row["start"], row["solver"]): cell(row) for row in own}
    rows = [
        [problem.name, problem.level, k, *(of[problem.name, k, solver] for solver in SOLVERS)]
        for problem in problems
        for k in (1, 2)
    ]
    print("digits of x, of its standard deviations, runs; -: no success\n")
    print(table(["set", "level", "start", *SOLVERS], rows))
    totals = {}
    for solver in SOLVERS:
        made = [row for row in fits if row["solver"] == solver]
        totals[solver] = {
            "starts of NIST": summary([row for row in made if row["set"] == 0]),
            "shifted": summary([row for row in made if row["set"] > 0], sets),
        }
    columns = list(totals["curve_fit"]["shifted"])
    print(f"\n{len(rows)} fits; shifted: mean over {sets} sets of starts\n")
    print(table(["", "starts", *columns], [
        [solver, starts, *(f"{v:.4g}" for v in row.values())]
        for solver, each in totals.items() for starts, row in each.items()
    ]))  # fmt: skip
    print(write("nist", {"fits": fits, "totals": totals}))


if __name__ == "__main__":
    main()
