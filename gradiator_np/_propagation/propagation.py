"""From the covariance of the inputs to that of the outputs, with what errors of J do to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from gradiator_np import _checks as checks
from gradiator_np._covariance import ConfidenceInterval, Row
from gradiator_np._propagation.form_intervals import hidden, intervals
from gradiator_np._propagation.input_errors import InputErrors
from gradiator_np._propagation.quadratic_form import QuadraticForm
from gradiator_np._propagation.source import interval_factors, jacobian_of
from gradiator_np._propagation.tables import data_frame, with_error
from gradiator_np._results import JacobianEstimate
from gradiator_np._status import Status
from gradiator_np._structure import blocks
from gradiator_np._text import MOST_ROWS, aligned, error, extent, number, verdict
from gradiator_np._typing import Array
from gradiator_np.solvers._solution import Solution, student_quantile

#: Shares that a line of the table names.
SHOWN = 3
#: An exact derivative.
EXACT = Row(np.zeros(1), np.zeros((1, 0)), np.ones(1))


class Output(NamedTuple):
    """One output: its variance is that of ``form`` times ``unit`` squared.

    ``t_factor``: half widths of intervals in units of those by Student's t with ``dof``;
    ``hidden``: whether errors of J would explain the whole of the variance (95 %).
    """

    unit: float
    form: QuadraticForm
    lost: bool
    known: bool
    dof: float
    t_factor: float
    hidden: bool

    @property
    def std(self) -> tuple[float, float]:
        """Standard deviation of the output, and the standard error of that."""
        if self.lost:
            return np.inf, np.inf
        v, bias = self.form.plug_in, self.form.bias
        # d sqrt(v) = dv / (2 sqrt(v)); where v is noise, its size is that of the bias.
        size = np.sqrt(max(v, bias))
        err = np.sqrt(self.form.variance) / (2 * size) if size > 0 else 0.0
        return self.unit * float(np.sqrt(v)), self.unit * float(err) if self.known else np.nan

    def shares(self) -> tuple[Array, Array]:
        """Share of each input, and its standard error."""
        unknown = np.full(self.form.g.shape, np.nan)
        if self.lost or self.hidden:
            return unknown, unknown
        share, err = self.form.shares()
        return share, err if self.known else unknown

    def of_variance(self, value: float) -> float:
        """What errors of J do to the variance, in its unit."""
        return np.inf if self.lost else value * self.unit**2 if self.known else np.nan


@dataclass(frozen=True, eq=False, repr=False)
class Propagation:
    """Uncertainty of outputs by that of the inputs; `propagate` says how it comes about.

    Attributes
    ----------
    estimate : JacobianEstimate
        The Jacobian that was used.
    status : Status
        That of the estimate, or "undetermined" where an output takes a derivative that no sample
        determines.
    message : str
        Outputs whose numbers say less than they seem to, and what the estimate had to say.

    Examples
    --------
    >>> from gradiator_np import jacobian, propagate
    >>> power = jacobian(lambda x: x["U"] ** 2 / x["R"], {"U": 10.0, "R": 50.0})
    >>> result = propagate(power, std_x={"U": 0.1, "R": 1.0})
    >>> float(round(result.std_y, 6)), {k: float(round(v, 6)) for k, v in result.shares.items()}
    (0.056569, {'U': 0.5, 'R': 0.5})
    """

    estimate: JacobianEstimate
    status: Status
    message: str
    _inputs: InputErrors
    _outputs: tuple[Output, ...]

    def _like_y(self, values: Any) -> Any:
        return self.estimate.frame.y_layout.unflatten(np.array(values, float))

    def _like_jac(self, rows: list[Array]) -> Any:
        frame = self.estimate.frame
        return blocks(np.array(rows), frame.y_layout, frame.x_layout)

    @cached_property
    def cov_y(self) -> Any:
        """J C J^T: covariance of the outputs, shape y.shape + y.shape, or dicts of blocks.

        Too large on average by ``bias`` on its diagonal; inf there, and nan beside it, for outputs
        that take a derivative that no sample determines.
        """
        weighted = np.array([o.form.g for o in self._outputs])
        unit = np.array([o.unit for o in self._outputs])
        with np.errstate(over="ignore", under="ignore"):
            cov = weighted @ self._inputs.correlated(weighted.T) * unit[:, None] * unit
        lost = np.array([o.lost for o in self._outputs])
        cov[lost], cov[:, lost] = np.nan, np.nan
        cov[lost, lost] = np.inf
        y = self.estimate.frame.y_layout
        return blocks(cov, y, y)

    @cached_property
    def std_y(self) -> Any:
        """Standard deviations of the outputs, like y: roots of the diagonal of ``cov_y``."""
        return self._like_y([o.std[0] for o in self._outputs])

    @cached_property
    def std_stderr(self) -> Any:
        """One standard error of ``std_y`` by the errors of J: inf where no sample determines J,
        nan where nothing tells its errors, 0 for a Jacobian given as an array."""
        return self._like_y([o.std[1] for o in self._outputs])

    @cached_property
    def bias(self) -> Any:
        """By how much errors of J raise each variance on average, like y, in units of y^2.

        ``std_y**2 - bias`` has no bias, but may be negative where errors of J are all there is.
        """
        return self._like_y([o.of_variance(o.form.bias) for o in self._outputs])

    @cached_property
    def variance_stderr(self) -> Any:
        """One standard error of each variance, ``std_y**2`` or that less ``bias``, like y."""
        return self._like_y([o.of_variance(float(np.sqrt(o.form.variance))) for o in self._outputs])

    @cached_property
    def shares(self) -> Any:
        """Share of each input in the variance of each output, like jac; they add up to 1.

        nan where errors of J would explain the whole of the variance.
        """
        return self._like_jac([o.shares()[0] for o in self._outputs])

    @cached_property
    def shares_stderr(self) -> Any:
        """One standard error of each share by the errors of J, like jac."""
        return self._like_jac([o.shares()[1] for o in self._outputs])

    @property
    def success(self) -> bool:
        """Whether the Jacobian is what was asked for: ``status.success``."""
        return self.status.success

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """The interval that holds what ``std_y`` would be at the true J.

        Parameters
        ----------
        confidence_level : float
            Between 0 and 1.

        Returns
        -------
        ConfidenceInterval
            ``low`` and ``high``, each like y. The bias is allowed for. (0, inf) where no sample
            determines J, nan where nothing tells its errors.
        """
        level = checks.level(confidence_level)
        low, high = _intervals(self._outputs, level)
        return ConfidenceInterval(self._like_y(low), self._like_y(high))

    def to_dataframe(self) -> Any:
        """A row for each output and input: their names, ``std_y``, its error, share, its error.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            Where pandas is not installed.
        """
        frame = self.estimate.frame
        m = frame.x_layout.size
        std = np.array([o.std for o in self._outputs])
        shares = [o.shares() for o in self._outputs]
        return data_frame({
            "output": np.repeat([f"y{name}" for name in frame.y_layout.names], m),
            "input": [f"x{name}" for name in frame.x_layout.names] * len(std),
            "std_y": np.repeat(std[:, 0], m),
            "std_stderr": np.repeat(std[:, 1], m),
            "share": np.concatenate([share for share, _ in shares]),
            "share_stderr": np.concatenate([err for _, err in shares]),
        })  # fmt: skip

    def __repr__(self) -> str:
        frame = self.estimate.frame
        rows = [("output", "std_y", "stderr", "95 % interval", "largest shares of its variance")]
        shown = self._outputs[:MOST_ROWS]
        for name, output, *ends in zip(frame.y_layout.names, shown, *_intervals(shown, 0.95)):
            std, err = output.std
            low, high = (number(end, err) for end in ends)
            rows.append((f"y{name}", number(std, err), error(err), f"{low} to {high}",
                         self._largest(output)))  # fmt: skip
        more = len(self._outputs) - MOST_ROWS
        left = [f"... {more} more: .std_y, .std_stderr, .shares"] if more > 0 else []
        size = extent(self.estimate.solution.coef.shape)
        return "\n".join([f"Propagation: {size}", *aligned(rows), *left, verdict(self)])

    def _largest(self, output: Output) -> str:
        """The largest shares of one output, with their errors."""
        share, err = output.shares()
        if np.isnan(share).any():
            return "unknown"
        names = self.estimate.frame.x_layout.names
        order = np.argsort(-np.abs(share), kind="stable")[:SHOWN]
        return ", ".join(f"x{names[j]} {with_error(share[j], err[j])}" for j in order)


def propagate(estimate: Any, cov_x: Any = None, *, std_x: Any = None) -> Propagation:
    r"""Propagate the uncertainty of the inputs through a Jacobian to the outputs.

    Parameters
    ----------
    estimate : JacobianEstimate, ProductEstimate or array_like, shape (n, m)
        What `jacobian`, `gradient`, `vjp` or `fit_jacobian` return; an array is taken as exact.
    cov_x : array_like, shape (m, m) or x.shape + x.shape, or dict of dicts of such blocks
        Covariance of the inputs, in units of x times x.
    std_x : float or like x
        In its place standard deviations of independent inputs, in units of x; one number serves
        all. 0 for an input that is known.

    Returns
    -------
    Propagation
        ``cov_y``, ``std_y`` and ``shares`` with their standard errors, ``bias`` and
        ``confidence_interval()``; ``print`` it for an overview.

    Raises
    ------
    ValueError
        Where both or none of ``cov_x`` and ``std_x`` is given, for another shape, for what is no
        covariance, and for batches.
    TypeError
        For a complex Jacobian, for J u, and what is no Jacobian at all.

    Notes
    -----
    The covariance of y is :math:`J C J^T` (JCGM 100:2008, equation 13 and H.2), the first order of
    a Taylor series: it says nothing about outputs that bend within a standard deviation of x.
    Where that may be so (at an extremum the first order is 0), run ``fun`` on samples of x
    (JCGM 101:2008).

    Input j's share in the variance of output i is :math:`J_{ij} (C J_i)_j / (J_i C J_i)`, the
    covariance of what that input contributes with y_i, as a part of the whole: its own variance
    and half of what it shares with each other input. Shares add up to 1; for correlated inputs
    one may be negative, or above 1.

    Errors of the estimated J, of covariance S_i for output i, raise its variance by
    :math:`\mathrm{tr}(C S_i)` on average, ``bias``, which ``shares`` and intervals allow for and
    ``cov_y`` does not (so that it stays positive semi-definite). Its variance is
    :math:`4 J_i C S_i C J_i + 2\,\mathrm{tr}(C S_i C S_i)`. Covariances between outputs have no
    bias where the noise of these is independent, which it is not for several cotangents of one
    `vjp`.

    Examples
    --------
    Resistance and reactance from voltage, current and phase (JCGM 100:2008, H.2):

    >>> import numpy as np
    >>> from gradiator_np import jacobian, propagate
    >>> def impedance(x):
    ...     z = x["V"] / x["I"]
    ...     return {"R": z * np.cos(x["phi"]), "X": z * np.sin(x["phi"])}
    >>> estimate = jacobian(impedance, {"V": 4.999, "I": 19.661e-3, "phi": 1.04446})
    >>> std = np.array([0.0032, 0.0095e-3, 0.00075])
    >>> r = np.array([[1, -0.36, 0.86], [-0.36, 1, -0.65], [0.86, -0.65, 1]])
    >>> cov = r * np.outer(std, std)
    >>> names = ["V", "I", "phi"]
    >>> cov_x = {a: {b: cov[i, j] for j, b in enumerate(names)} for i, a in enumerate(names)}
    >>> {k: float(round(v, 2)) for k, v in propagate(estimate, cov_x).std_y.items()}
    {'R': 0.07, 'X': 0.3}
    """
    estimate = jacobian_of(estimate, "propagate")
    frame, solution = estimate.frame, estimate.solution
    inputs = InputErrors.of(cov_x, std_x, frame.x_layout)
    with checks.underflow_is_zero():
        outputs = _outputs(solution, inputs)
        status, message = _verdict(estimate, inputs, outputs)
    return Propagation(estimate, status, message, inputs, outputs)


def _outputs(solution: Solution, inputs: InputErrors) -> tuple[Output, ...]:
    """Each output with the moments of its variance, in a unit of its own."""
    std, moves = inputs.std, inputs.std > 0
    stderr = np.broadcast_to(solution.cov.stderr(), solution.coef.shape)[:, moves]
    factor = interval_factors(solution)
    out = []
    for i, (coef, row) in enumerate(zip(solution.coef, solution.cov.rows())):
        g = coef * std
        lost = bool(np.isinf(stderr[i]).any())
        known = not lost and not np.isnan(stderr[i]).any()
        size = max(np.abs(g).max(), (stderr[i] * std[moves]).max(initial=0.0) if known else 0.0)
        unit = float(np.ldexp(1.0, np.clip(np.frexp(size)[1], -1022, 1023)))
        scaled = EXACT
        if known:
            scaled = Row(
                np.where(moves, row.diag, 0.0),
                np.where(moves[:, None], row.factor, 0.0),
                row.unit * std / unit,
            )
        form = QuadraticForm.of(g / unit, scaled, inputs)
        weight = np.square(form.moments.rg) * form.moments.s
        total = float(weight.sum())
        wide = float(np.sqrt(weight @ np.square(factor[i]) / total)) if total > 0 else 1.0
        out.append(Output(unit, form, lost, known, float(solution.dof[i]), wide, hidden=False))
    which = [i for i, o in enumerate(out) if o.known]
    some = [out[i] for i in which]
    for i, dark in zip(which, hidden([o.form for o in some], _tails(some, 0.95))):
        out[i] = out[i]._replace(hidden=bool(dark))
    return tuple(out)


def _tails(outputs: Sequence[Output], level: float) -> Array:
    """The tails of a normal variable beyond the half widths of intervals."""
    dof, factor = (np.array([getattr(o, of) for o in outputs]) for of in ("dof", "t_factor"))
    return np.asarray(ndtr(-factor * student_quantile(0.5 + level / 2, dof)))


def _intervals(outputs: Sequence[Output], level: float) -> tuple[Array, Array]:
    """Of the standard deviations of outputs, at the true J."""
    lost = np.array([o.lost for o in outputs])
    low, high = np.where(lost, 0.0, np.nan), np.where(lost, np.inf, np.nan)
    which = np.array([o.known for o in outputs])
    some = [o for o in outputs if o.known]
    unit = np.array([o.unit for o in some])
    ends = intervals([o.form for o in some], _tails(some, level))
    low[which], high[which] = (unit * np.sqrt(end) for end in ends)
    return low, high


def _verdict(
    estimate: JacobianEstimate, inputs: InputErrors, outputs: tuple[Output, ...]
) -> tuple[Status, str]:
    """How far to trust the numbers, and which outputs to look at."""
    y, x = estimate.frame.y_layout, estimate.frame.x_layout
    lost = [o.lost for o in outputs]
    parts = []
    if any(lost):
        stderr = np.broadcast_to(estimate.solution.cov.stderr(), (y.size, x.size))
        by = np.flatnonzero((np.isinf(stderr) & (inputs.std > 0)).any(0))
        parts.append(
            f"no sample determines the derivative of {y.listed('y', np.flatnonzero(lost))} by "
            f"{x.listed('x', by)}, so std_y is inf: sample along these inputs, or give them a "
            "standard deviation of 0"
        )
    for which, text in (
        ([not o.lost and not o.known for o in outputs],
         "nothing tells the errors of J for {0}, so neither those of std_y (nan): give noise= to "
         "the estimate, or let method='auto' find it"),
        ([o.hidden and o.form.bias > 0 for o in outputs],
         "errors of J would explain the whole variance of {0}: only the upper end of "
         "confidence_interval() says something, shares are nan"),
        ([o.known and not o.hidden and o.form.bias**2 > o.form.variance for o in outputs],
         "errors of J raise the variance of {0} by more than its standard error: take "
         "std_y**2 - bias, or confidence_interval()"),
        ([o.known and o.form.plug_in == 0 and o.form.bias == 0 for o in outputs],
         "to first order {0} does not depend on inputs that are uncertain: run fun on samples of x "
         "to see higher orders"),
    ):  # fmt: skip
        if any(which):
            parts.append(text.format(y.listed("y", np.flatnonzero(which))))
    if estimate.message:
        parts.append(f"The Jacobian: {estimate.message}")
    return Status.UNDETERMINED if any(lost) else estimate.status, ". ".join(parts)
