"""The parts of a report, in words and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gradiator_np._calibration.fit_record import FitRecord
from gradiator_np._calibration.fit_statistics import FitStatistics
from gradiator_np._calibration.identifiability import Combination, determined_by_data
from gradiator_np._calibration.labels import combination
from gradiator_np._calibration.objective import Objective
from gradiator_np._calibration.parameter_covariance import HETEROSCEDASTIC
from gradiator_np._calibration.tables import Section
from gradiator_np._samples import Samples
from gradiator_np._status import Status
from gradiator_np._structure import enumerated
from gradiator_np._text import MOST_ROWS, error, number
from gradiator_np._typing import Array

#: Shares of a variance below which, and above which, what it means is said.
LITTLE, MUCH = 0.1, 0.5
#: Combinations that are listed, of the best, of the worst and of those that nothing determines.
LISTED = 3
#: Weights of a combination that are not listed are below this.
LEAST_WEIGHT = 0.1

KINDS = {
    "gauss-newton": "by J'J (Gauss-Newton)",
    "hessian": "by the Hessian of the sum of squares",
    "runs": "by the noise of the runs alone",
} | {kind: f"by the residuals themselves ({kind})" for kind in HETEROSCEDASTIC}


class Ended(Protocol):
    """How a search ended."""

    nfev: int
    rounds: int
    message: str
    reason: Status
    samples: Samples


class Named(Protocol):
    """A correlation with the names of its two."""

    @property
    def first(self) -> str: ...
    @property
    def second(self) -> str: ...
    @property
    def value(self) -> float: ...


def percent(share: float) -> str:
    """A share or a relative error in percent, two digits; nothing where it is not known."""
    if not np.isfinite(share):
        return ""
    value = 100.0 * share
    if 0 < value < 0.01:
        return "<0.01 %"
    return (
        f"{value:.2g} %" if value < 99.5 else f"{value:.0f} %" if value < 1e4 else f"{value:.1e} %"
    )


def ending(fit: Ended, statistics: FitStatistics) -> Section:
    """What was fitted, in how many runs, and why it ended."""
    failed, held = int((~fit.samples.ok).sum()), len(fit.samples)
    title = f"Fit of {statistics.n_fitted} parameters to {statistics.n_data} residuals"
    runs = f"{fit.nfev} runs in {fit.rounds} rounds"
    if held > fit.nfev:
        runs += f", and {held - fit.nfev} earlier ones"
    return Section(title, (), (f"{runs}, {failed or 'none'} failed. How it ended: {fit.reason}, "
                               f"{fit.message}.",))  # fmt: skip


def parameters(
    record: FitRecord, kind: str, names: Sequence[str], units: Sequence[str], stderr: Array,
    state: Sequence[str], runs: Array, prior: Array | None,
) -> Section:  # fmt: skip
    """The table of the parameters, and how its errors are meant."""
    named = [f"{name} [{unit}]" if unit else name for name, unit in zip(names, units)]
    relative = np.divide(stderr, np.abs(record.x), out=np.full(len(stderr), np.nan),
                         where=record.x != 0)  # fmt: skip
    columns = {
        "parameter": named,
        "value": [
            f"{x:.3g}" if np.isinf(err) else number(x, err) for x, err in zip(record.x, stderr)
        ],
        "stderr": [error(err) if err > 0 else "-" for err in stderr],
        "relative": [percent(r) if r > 0 else "" for r in relative],
        "start": [f"{x:.6g}" for x in record.facts.start],
        "by runs": [percent(share) for share in runs],
        "rest by prior": None if prior is None else [percent(share) for share in prior],
        "bounds": _bounds(record),
        "": state if any(state) else None,
    }
    shown = {head: column for head, column in columns.items() if column is not None}
    rows = [tuple(shown), *zip(*shown.values())]
    more = len(rows) - 1 - MOST_ROWS
    lines = [f"... {more} more: to_dataframe()"] if more > 0 else []
    return Section("Parameters", rows[: MOST_ROWS + 1], (*lines, _meaning(record, kind)))


def _bounds(record: FitRecord) -> list[str] | None:
    """Bounds of the fitted parameters; None where there are none at all."""
    both = list(zip(record.low, record.high, record.free))
    if not any(free and (np.isfinite(low) or np.isfinite(high)) for low, high, free in both):
        return None
    return [f"{low:.6g} to {high:.6g}" if free else "" for low, high, free in both]


def _meaning(record: FitRecord, kind: str) -> str:
    """What the standard errors are, and how wide a 95 % interval."""
    quantile, dof = record.quantile(0.95, kind), record.quantile_dof(kind)
    law = f"Student's t, {dof:.0f} degrees of freedom" if np.isfinite(dof) else "normal law"
    text = f"Standard errors {KINDS[kind]}"
    if kind != "runs":
        text += ", noise of the runs included (its share of the variance under 'by runs')"
    if np.isnan(quantile):
        return text + "; no more residuals than parameters: nothing tells the errors of the data."
    return text + f"; 95 % intervals are {quantile:.3g} of them to either side ({law})."


def limits_that_hold(record: FitRecord, names: Sequence[str]) -> Section | None:
    """Bounds and constraints that hold with equality, and how hard."""
    limits = record.held.limits
    if not limits:
        return None
    beyond = record.held.standard_errors_beyond(record.data.covariance("gauss-newton"))
    rows = [("", "limit", "multiplier", "beyond")]
    for limit, z in zip(limits, beyond):
        what = combination(limit.normal.tolist(), names)
        sign = "<=" if limit.side == "upper" else ">="
        far = f"{z:.2g} stderr" if np.isfinite(z) else ""
        multiplier = f"{limit.multiplier:+.3g}" if limit.multiplier else "0"
        rows.append((what, f"{sign} {limit.value:.6g}", multiplier, far))
    lines = [
        "Multiplier: what the cost falls by for one unit of the limit, positive for upper limits. "
        "Beyond: how far past each limit the minimum without it lies. Standard errors are those "
        "of the normal law where it keeps to the limits: the farther beyond, the nearer they are "
        "to those with the limit as an equality."
    ]
    more = len(rows) - 1 - MOST_ROWS
    lines += [f"... {more} more: .held"] if more > 0 else []
    return Section("Bounds and constraints that hold", rows[: MOST_ROWS + 1], lines)


def worth_of_runs(
    record: FitRecord, names: Sequence[str], stderr: Array, share: Array, reason: Status
) -> Section | None:
    """What more runs would do to the bars."""
    known = [j for j in range(len(share)) if np.isfinite(share[j]) and np.isfinite(stderr[j])]
    if not known:
        return None
    much = [j for j in known if share[j] > MUCH]
    some = [j for j in known if LITTLE < share[j] <= MUCH]
    little = [j for j in known if share[j] <= LITTLE]
    lines = []
    if little:
        of = "" if len(little) == len(known) else f" of {_listed(names, little)}"
        lines.append(
            f"Noise of the runs has a share of {percent(max(share[little]))} at most in the "
            f"variance behind the bars{of}: more runs will not help."
        )
    if some:
        lines.append(f"{_makes(names, share, some)}: {_gain(record, share, some)}.")
    if much:
        remedy = {
            Status.BUDGET: "raise max_nfev and go on with samples=fit.samples",
            Status.INCOMPLETE: "make the runs that are wanted",
        }.get(reason, "average runs, or set x_half_width")
        lines.append(f"{_makes(names, share, much)}: {remedy}; {_gain(record, share, much)}.")
    return Section("What more runs are worth", (), lines)


def _makes(names: Sequence[str], share: Array, which: list[int]) -> str:
    bars = "bar" if len(which) == 1 else "bars"
    return (
        f"Noise of the runs makes {_span(share[which])} of the variance behind the {bars} of "
        f"{_listed(names, which)}"
    )


def _gain(record: FitRecord, share: Array, which: list[int]) -> str:
    """How much narrower bars get without it, and by one run more.

    The variance by k runs falls at least as 1 / k: as k^-1.45 in the mean of 12 fits of 30
    residuals with 3 parameters from 14 to 84 runs, none of them slower than k^-1.09.
    """
    most = 1.0 - np.sqrt(1.0 - share[which])
    each = 1.0 - np.sqrt(1.0 - share[which] / (record.facts.runs + 1))
    bars, them = ("bar", "it") if len(which) == 1 else ("bars", "them")
    return (
        f"without it the {bars} would be {_span(most)} narrower, and the next run narrows {them} "
        f"by {_span(each)} or more"
    )


def _span(shares: Array) -> str:
    """The least and the largest of some shares."""
    low, high = percent(shares.min()), percent(shares.max())
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _listed(names: Sequence[str], which: Sequence[int]) -> str:
    return enumerated([names[j] for j in which])


def goodness(s: FitStatistics, objective: Objective) -> Section:
    """Chi-squared and what is made from it."""
    divided = "residuals" if objective.sigma is None else "residuals / sigma"
    title = f"Goodness of fit: N = {s.n_data + s.n_prior}, m = {s.n_fitted}"
    rows = [("chi-squared", f"{s.chi_squared:.6g}", f"sum of squares of {divided}")]
    if s.n_prior:
        rows[0] = (*rows[0][:2], f"of {divided}, and {s.chi_squared_prior:.4g} of the prior")
    rows.append(("degrees of freedom", str(s.degrees_of_freedom), "N - m"))
    if np.isfinite(s.r_squared):
        rows.append(("R-squared", f"{s.r_squared:.6g}", "of the data about their mean"))
    if objective.loss != "linear":
        lines = [
            f"With loss={objective.loss!r} chi-squared is not what is minimised: AIC, BIC and "
            "reduced chi-squared are left out.",
            f"{s.down_weighted} of {s.n_data} residuals count less than half.",
        ]
        return Section(title, _table(rows), lines)
    if s.degrees_of_freedom > 0:
        rows.append(("reduced chi-squared", f"{s.reduced_chi_squared:.6g}", "1 where sigma is the "
                     "error of the data" if s.absolute else ""))  # fmt: skip
    if np.isfinite(s.probability):
        rows.append(("probability", f"{s.probability:.3g}", "of a larger chi-squared by chance"))
    elif np.isfinite(s.residual_sd):
        rows.append(("residual sd", f"{s.residual_sd:.6g}", "root of reduced chi-squared"))
    law = "chi-squared" if s.absolute else "N ln(chi-squared / N)"
    rows.append(("AIC", f"{s.aic:.6g}", f"{law} + 2 m"))
    rows.append(("BIC", f"{s.bic:.6g}", f"{law} + m ln N"))
    lines = []
    if s.chi_squared_by_runs > 0.01 * s.chi_squared > 0:
        lines.append(
            f"About {percent(s.chi_squared_by_runs / s.chi_squared)} of chi-squared is noise of "
            "the runs that the model of all of them leaves."
        )
    return Section(title, _table(rows), lines)


def _table(rows: list[tuple[str, str, str]]) -> list[tuple[str, ...]]:
    """With a head, and definitions on their left margin."""
    width = max(len(row[2]) for row in rows)
    return [("", "value", "".ljust(width)), *((a, b, c.ljust(width)) for a, b, c in rows)]


def correlated(found: Sequence[Named], least: float) -> Section:
    """Correlations above the threshold."""
    title = f"Correlations of {least:g} and more"
    if not found:
        return Section(title, (), ("none",))
    rows = [("", "", "correlation"), *((p.first, p.second, f"{p.value:+.3f}") for p in found)]
    more = len(found) - MOST_ROWS
    lines = [f"... {more} more: .correlations"] if more > 0 else []
    return Section(title, rows[: MOST_ROWS + 1], lines)


def identifiable(
    found: Sequence[Combination], names: Sequence[str], scale: str, prior: bool
) -> Section | None:
    """The combinations that the data determine best and worst, and those that they do not."""
    if len(found) < 2:
        return None
    known = [c for c in found if np.isfinite(c.stderr)]
    lost = [c for c in found if np.isinf(c.stderr)]
    hidden = max(len(known) - 2 * LISTED, 0)
    best, worst = known[: LISTED if hidden else None], known[-LISTED:] if hidden else []
    rows = [("stderr", *(("by prior",) if prior else ()), "combination")]
    for c in [*best, *worst, *lost[: 2 * LISTED]]:
        err = error(c.stderr) if np.isfinite(c.stderr) else "undetermined"
        share = (percent(c.prior_share) if np.isfinite(c.stderr) else "",) if prior else ()
        rows.append((err, *share, _combination(c, names)))
    width = max(len(row[-1]) for row in rows)
    rows = [(*row[:-1], row[-1].ljust(width)) for row in rows]
    lines = [
        f"Parameters in units of {scale}; singular vectors of J so scaled, the one that the data "
        f"determine best first. Weights below {LEAST_WEIGHT:g} are left out."
    ]
    if left := hidden + max(len(lost) - 2 * LISTED, 0):
        lines.append(f"{left} more: .combinations")
    if lost:
        lines.append(
            f"Not determined: {len(lost)} of {len(found)}. Fix a parameter in each (fixed=), or "
            "give a prior or other data."
        )
    return Section("Combinations of parameters that the data determine", rows, lines)


def _combination(c: Combination, names: Sequence[str]) -> str:
    """The largest weights with their names."""
    order = np.argsort(-np.abs(c.weights), kind="stable")
    large = [j for j in order[: 2 * LISTED] if abs(c.weights[j]) >= LEAST_WEIGHT]
    text = " ".join(f"{'+' if c.weights[j] > 0 else '-'} {abs(c.weights[j]):.2f} {names[j]}"
                    for j in large)  # fmt: skip
    return text.removeprefix("+ ")


def prior_knowledge(record: FitRecord, names: Sequence[str], share: Array) -> Section:
    """What the data add to the prior."""
    free = record.free
    mostly = [j for j in range(len(free)) if free[j] and share[j] > MUCH]
    count, all_of = determined_by_data(record), int(record.data.free.sum())
    lines = [f"The data determine {count:.2f} of {all_of} parameters (trace of the averaging "
             "kernel), the prior the rest."]  # fmt: skip
    if mostly:
        lines.append(f"More prior than data: {_listed(names, mostly)}.")
    return Section("Prior", (), lines)
