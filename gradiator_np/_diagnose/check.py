"""Does a Jacobian written by hand agree with its function, given the function's noise?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._diagnose.comparison import Comparison, Look, entry_size
from gradiator_np._estimate import jacobian
from gradiator_np._options import Options, takes
from gradiator_np._results import JacobianEstimate
from gradiator_np._settings import STEERING
from gradiator_np._status import warn
from gradiator_np._structure import NAMED, Layout, blocks
from gradiator_np._text import leaves
from gradiator_np._typing import Array, Mask
from gradiator_np.designs._adaptive.design import Auto
from gradiator_np.designs._factorial.design import Directional
from gradiator_np.designs._finite_difference.stencil import RULES

# An accusation is looked at again, at steps smaller by this: the truncation of a second-order rule
# falls to 1/16, and a mistake stays. Without it error bars that miss truncation, which happens in
# one problem of a hundred, would be called mistakes of the Jacobian.
CLOSER = 4.0
# Options that fix the steps.
STEPS = ("abs_step", "rel_step")


@dataclass(frozen=True, eq=False, repr=False)
class JacobianCheck:
    """The verdict on a Jacobian, entry by entry.

    Attributes
    ----------
    verdict : {"ok", "wrong", "cannot tell"}
        "ok": no entry disagrees, and mistakes of the share ``resolution`` would have been seen.
        "wrong": some entries disagree. "cannot tell": none does, but the error bars of some would
        hide such a mistake.
    p_value : float
        The least of ``p_values``: how often noise alone would make a right Jacobian look at
        least this wrong. nan where nothing could be tested.
    p_values : like jac
        Per entry, adjusted for their number by Holm's method; nan where not tested, 1 where a
        second look did not confirm what the first one saw.
    wrong : like jac, of bool
        Entries with ``p_values < alpha``.
    tested : like jac, of bool
        Entries whose estimate has an error bar.
    detectable : like jac
        The mistake that is found in 95 of 100 calls, in y per x; inf where none is.
    hidden : like jac, of bool
        Entries in which a mistake of the share ``resolution`` may hide.
    alpha, resolution : float
        As given.
    estimate : JacobianEstimate
        What was compared with.
    message : str
        Names the entries that disagree, with both values, and what they look like.

    Examples
    --------
    >>> from gradiator_np import check_jacobian
    >>> check = check_jacobian(lambda x: x**2, [[2.0, 0.0], [0.0, 7.0]], [1.0, 3.0])
    >>> check.verdict, check.wrong.tolist()
    ('wrong', [[False, False], [False, True]])
    """

    verdict: Literal["ok", "wrong", "cannot tell"]
    p_value: float
    p_values: Any
    wrong: Any
    tested: Any
    detectable: Any
    hidden: Any
    alpha: float
    resolution: float
    estimate: JacobianEstimate
    message: str

    @property
    def ok(self) -> bool:
        """Whether the verdict is "ok"."""
        return self.verdict == "ok"

    def __repr__(self) -> str:
        tested, wrong = leaves(self.tested), leaves(self.wrong)
        head = (
            f"JacobianCheck: {self.verdict} (p = {self.p_value:.2g}, "
            f"{tested.sum()} of {tested.size} entries tested, {wrong.sum()} wrong, "
            f"{self.estimate.nfev} evaluations)"
        )
        return head + (f"\n{self.message}" if self.message else "")


@takes(Options)
def check_jacobian(
    fun: Callable[..., Any],
    jac: Any,
    x: Any,
    *,
    alpha: float = 1e-3,
    resolution: float = 1e-2,
    **options: Unpack[Options],
) -> JacobianCheck:
    """Test a hand-written Jacobian against its function.

    Parameters
    ----------
    fun : callable
        As in ``jacobian``.
    jac : array_like, sparse matrix, dict of such, or callable
        The Jacobian at x, of shape ``y.shape + x.shape`` (nested dicts where x or y is a dict),
        or ``jac(x, *args, **kwargs)`` that returns it.
    x : array_like or dict of array_like
        A point where the function is not special: at an optimum or at 0 many mistakes are
        invisible. Random points are best.
    alpha : float
        How often a right Jacobian may be called wrong, over all its entries together.
    resolution : float
        The mistake that "ok" excludes, as a share of the entry: by default a factor of 1.01. An
        entry that is given as 0 counts as the largest of its row (inputs in units of x). Where
        error bars are wider the verdict is "cannot tell"; a larger share asks for less.
    **options
        As in ``jacobian``, which makes the estimate. ``noise=0`` for a deterministic function
        saves evaluations; for a stochastic one more ``max_nfev`` finds smaller mistakes.

    Returns
    -------
    JacobianCheck
        ``verdict``; ``wrong``, ``hidden`` and ``p_values`` per entry; and a ``message`` that names
        what disagrees, and what cannot be told.

    Raises
    ------
    ValueError
        For a Jacobian of another shape, or one with entries that are not finite.

    Warns
    -----
    GradiatorWarning
        Where entries could not be tested. Where warnings are errors, the exception carries the
        check as ``estimate``.

    Notes
    -----
    Each entry is compared with the estimate by Student's t with the degrees of freedom of the
    noise (its own 95 % interval sets the width), and the p-values are adjusted by Holm's method
    (Scand. J. Statist. 6, 1979, 65): whatever the dependence of the entries, a right Jacobian is
    called wrong with probability alpha at most, as far as the error bars hold. Entries that fail
    are estimated again at a quarter of the steps, and are wrong where that second test fails at
    level alpha as well: truncation would have shrunk. What a stencil accuses, whose bars know
    nothing of noise, is left to the default design.

    Of 240 random functions (smooth, bent at 1e-4 of x, printed with 4 to 12 digits, with noise of
    1e-7 to 1e-2; ``tests/test_check_power.py``) no right Jacobian was called wrong. One entry of
    wrong sign was found in 232, one off by a factor 2 in 226, by 1.01 in 161, two exchanged rows in
    all but one; the rest was "cannot tell", never "ok".

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import check_jacobian
    >>> check = check_jacobian(lambda x: x**2, lambda x: np.diag(2 * x), np.array([1.0, 3.0]))
    >>> assert check.ok, check.message
    """
    checks.fraction(alpha, "alpha", "0.001 calls one right Jacobian in 1000 wrong")
    if not 0 < checks.real(resolution, "resolution") < math.inf:
        raise ValueError(
            f"resolution must be positive and finite, got {resolution!r}; 0.01 asks that a factor "
            "of 1.01 be seen"
        )
    if callable(jac):
        copy = {k: np.array(v) for k, v in x.items()} if isinstance(x, Mapping) else np.array(x)
        args = options.get("args", ())
        jac = jac(
            copy, *(args if isinstance(args, tuple) else (args,)), **(options.get("kwargs") or {})
        )
    estimate = jacobian(fun, x, **options)
    y, x_layout = estimate.frame.y_layout, estimate.frame.x_layout
    given = _matrix(jac, y, x_layout)
    if not np.isfinite(given).all():
        i, j = np.argwhere(~np.isfinite(given))[0][-2:]
        raise ValueError(
            f"d y{y.names[i]} / d x{x_layout.names[j]} of the Jacobian to check is not finite"
        )
    found = Comparison.of(Look.of(given, estimate), alpha)
    if found.wrong.any() and _is_stencil(options):
        # Bars of a stencil know nothing of noise: the accusation is the default design's to make.
        options = _without(options, *STEERING, *STEPS, "method")
        estimate = jacobian(fun, x, **options)
        found = Comparison.of(Look.of(given, estimate), alpha)
    if found.wrong.any() and (closer := _closer(options, estimate)) is not None:
        found = found.confirmed_by(Look.of(given, jacobian(fun, x, **closer)), alpha)
    look, adjusted, wrong, detectable = found
    hidden = ~wrong & ~(detectable <= resolution * entry_size(given, estimate))
    message = _words(given, estimate, wrong, look.tested, hidden, alpha, resolution)
    check = JacobianCheck(
        "wrong" if wrong.any() else "cannot tell" if hidden.any() else "ok",
        float(np.nanmin(adjusted)) if look.tested.any() else float("nan"),
        blocks(adjusted, y, x_layout),
        blocks(wrong, y, x_layout),
        blocks(look.tested, y, x_layout),
        blocks(detectable, y, x_layout),
        blocks(hidden, y, x_layout),
        alpha,
        resolution,
        estimate,
        message,
    )
    if not look.tested.all():
        warn(message, check)
    return check


def _matrix(jac: Any, y: Layout, x: Layout) -> NDArray[Any]:
    """The user's Jacobian as (..., n, m)."""
    for layout, axis in ((y, -2), (x, -1)):
        if layout.fields is not None:
            if not isinstance(jac, Mapping) or set(jac) != set(layout.fields):
                seen = sorted(jac) if isinstance(jac, Mapping) else type(jac).__name__
                raise ValueError(
                    f"the Jacobian must be a dict with the keys {list(layout.fields)}, got {seen}"
                )
            parts = [
                _matrix(jac[name], *((inner, x) if axis == -2 else (y, inner)))
                for name, (inner, _) in layout.fields.items()
            ]
            return np.concatenate(parts, axis)
    a = checks.numeric(jac.toarray() if hasattr(jac, "toarray") else jac, "jac")
    batch, want = y.batch, (*(y.shape or ()), *(x.shape or ()))
    flat = (*batch, y.size, x.size)
    if a.shape not in ((*batch, *want), flat):
        hint = "; it looks transposed" if a.shape == (*batch, x.size, y.size) else ""
        raise ValueError(f"the Jacobian has shape {a.shape}, expected {(*batch, *want)}{hint}")
    return a.reshape(flat)


def _is_stencil(options: Options) -> bool:
    """Whether the caller's method is a rule with given steps."""
    method = options.get("method", "auto")
    given = any(options.get(name) is not None for name in STEPS)
    return isinstance(method, str) and (method in RULES or (method == "auto" and given))


def _without(options: Options, *names: str) -> Options:
    return cast(Options, {k: v for k, v in options.items() if k not in names})


def _closer(options: Options, first: JacobianEstimate) -> Options | None:
    """Options for another estimate at smaller steps; None where there is no such thing."""
    method = options.get("method", "auto")
    frame = first.frame
    assert frame.step is not None
    # Inputs that were not moved have no step: any will do.
    step = np.where(np.isfinite(frame.step), np.abs(frame.step), 1.0) / CLOSER
    again = _without(options, *STEERING)
    rough = method.min_step if isinstance(method, Auto) else options.get("min_step")
    if rough is not None:
        return None
    if isinstance(method, Directional):
        again["method"] = replace(method, step=step)
    elif method == "auto" or isinstance(method, Auto):
        again["method"], again["max_step"] = "auto", frame.x_layout.unflatten(step)
    else:
        return None
    return again


def _words(
    given: NDArray[Any],
    estimate: JacobianEstimate,
    wrong: Mask,
    tested: Mask,
    hidden: Mask,
    alpha: float,
    resolution: float,
) -> str:
    """Which entries disagree, what the mistake looks like, and what cannot be told."""
    y, x = estimate.frame.y_layout, estimate.frame.x_layout
    coef, err = estimate.solution.coef, estimate.solution.cov.stderr()
    parts: list[str] = []
    if wrong.any():
        where = np.argwhere(wrong)
        # The largest mistakes first, in units of their error.
        size = np.abs(given - coef)[wrong] / np.maximum(err[wrong], np.finfo(float).tiny)
        named = where[np.argsort(-size)][:NAMED]
        lines = [
            f"d y{y.names[i[-2]]} / d x{x.names[i[-1]]} is {given[tuple(i)]:.6g}, estimated "
            f"{coef[tuple(i)]:.6g} +- {err[tuple(i)]:.2g}"
            for i in named
        ]
        more = f", and {len(where) - NAMED} more" if len(where) > NAMED else ""
        parts.append(
            f"{len(where)} of {wrong.size} entries disagree with the function (a right Jacobian "
            f"is called wrong at a rate of {alpha:g}): " + "; ".join(lines) + more
        )
        parts.extend(_looks_like(given, coef, err, wrong))
    if not tested.all():
        parts.append(
            f"{int((~tested).sum())} of {tested.size} entries could not be tested: "
            + (
                estimate.message
                or "their estimates have no error bar; leave method out, or give noise="
            )
        )
    hidden = hidden & tested
    if hidden.any():
        at = tuple(np.argwhere(hidden)[0])
        parts.append(
            f"The error bars of {int(hidden.sum())} of {tested.size} entries would hide a mistake "
            f"of {resolution:.3g} of the entry, such as d y{y.names[at[-2]]} / d x{x.names[at[-1]]}"
            f" = {given[at]:.6g}, estimated {coef[at]:.6g} +- {err[at]:.2g}: allow more max_nfev, "
            "or ask for less (resolution=)"
        )
    return ". ".join(parts)


def _looks_like(given: NDArray[Any], coef: NDArray[Any], err: Array, wrong: Mask) -> list[str]:
    """Common mistakes that would explain all of what disagrees."""

    def explains(candidate: NDArray[Any]) -> bool:
        close = np.abs(candidate - coef) <= 5 * err + 1e-6 * np.abs(coef)
        return bool(close[wrong].all())

    if explains(-given):
        return ["They have the wrong sign"]
    n, m = given.shape[-2:]
    if n == m and explains(np.swapaxes(given, -1, -2)):
        return ["The Jacobian looks transposed"]
    if (given[wrong] == 0).all():
        return ["They are 0 where the function depends on x: a term is missing"]
    g, c, w = given[wrong], coef[wrong], 1 / np.maximum(err[wrong], np.finfo(float).tiny) ** 2
    power = float(np.sum(w * np.abs(g) ** 2))
    if np.isfinite(power) and power > 0 and wrong.sum() > 1:
        factor = float(np.sum(w * (g.conj() * c).real)) / power
        if factor and explains(given * factor):
            return [f"They are off by one factor: times {factor:.6g} they would agree"]
    return []
