"""How far second derivatives can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from gradiator_np._samples import last_line
from gradiator_np._second_derivatives.found import Found
from gradiator_np._second_derivatives.runs import Runs
from gradiator_np._status import Status
from gradiator_np._structure import enumerated
from gradiator_np._typing import Array

#: Bars of this share of the second derivatives are of no use.
WIDE = 0.5
#: Second derivatives are as good as 0 where their bars are below this share of the slopes: over
#: the scale of the inputs curvature changes no slope by more. A linear function has no larger ones,
#: and its bars say how well 0 is known.
FLAT = 0.05
#: And where over that scale they change no value by more than this share of it (by the value
#: itself, where there is noise).
VALUE = 1e-6
#: A second derivative shows above the noise where its interval of this level leaves out 0.
SHOWS = 0.95


class Verdict(NamedTuple):
    """A status, and what was seen."""

    status: Status
    message: str


def judge(
    found: Found, runs: Runs, scale: Callable[[int], float], names: list[str], axes: Array
) -> Verdict:
    """The status of second derivatives.

    Parameters
    ----------
    found : Found
    runs : Runs
    scale : callable
        Of a form, by its place: the product of the scales of its inputs.
    names : list of str
        Of forms.
    axes : array, shape (m, p)
        Take displacements of x to the units in which ``scale`` has second derivatives.
    """
    lost = np.isinf(found.stderr).any(1)
    y_names = runs.y_layout.names
    y_names = y_names * (len(found.level.noise) // len(y_names))  # complex: both parts
    broken = [y_names[o] for o in np.flatnonzero(found.level.broken)]
    values = runs.wide()
    finite = values[np.isfinite(values).any(1)]
    if len(finite) and (np.nan_to_num(finite - runs.value(()), nan=0.0) == 0).all():
        return Verdict(
            Status.NO_RESPONSE, "no run differed from that at x in any bit: second derivatives are "
            "0 as far as steps reach; does fun read its argument? Else give a larger x_scale",
        )  # fmt: skip
    if runs.evaluate.counts:
        return Verdict(
            Status.UNRESOLVED, "fun(x) is of whole numbers, which no small step moves as a smooth "
            "function would; give x_scale, the distance over which they change by many",
        )  # fmt: skip
    if broken:
        return Verdict(
            Status.LACK_OF_FIT, f"y{enumerated(broken)} has a kink or a jump at x: there is no "
            "second derivative; move x off it",
        )  # fmt: skip
    if found.diverging:
        text = enumerated([names[e] for e in found.diverging])
        return Verdict(
            Status.LACK_OF_FIT, f"second differences {text} grow as fast as steps shrink: f has a "
            "kink at x, and no second derivative; move x off it",
        )  # fmt: skip
    if found.wiggling:
        text = enumerated([names[e] for e in found.wiggling])
        return Verdict(
            Status.TWO_SCALES, f"second differences {text} at wide steps are others than close "
            "to x, where f wiggles: those close to x are given; for the trend give noise=, the "
            "size of the wiggles",
        )  # fmt: skip
    if found.changing:
        text = enumerated([names[e] for e in found.changing])
        return Verdict(
            Status.TWO_SCALES, f"second differences {text} are others at shorter steps: f changes "
            "within those that were taken, which noise hides next to x; give x_scale, the distance "
            "over which f changes",
        )  # fmt: skip
    if lost.any():
        text = enumerated([names[e] for e in np.flatnonzero(lost)])
        why = "no room within the bounds"
        if runs.n_failed:
            errors = list(runs.samples.errors.values())
            why = f"runs failed ({last_line(errors[0]) if errors else 'nan or inf'})"
        return Verdict(Status.UNDETERMINED, f"second derivatives {text} are undetermined: {why}")
    return _of_bars(found, runs, scale, names, axes)


def of_gradients(status: Status, message: str, bar: Array, gradient: Array) -> Verdict:
    """The status of second derivatives, from that of the slopes of a gradient.

    A gradient that does not answer is that of a linear function.

    Parameters
    ----------
    status : Status
    message : str
        Of the slopes.
    bar : array, shape (n,)
        Of the second derivatives, in units of the scales of the inputs.
    gradient : array, shape (n,)
        The size of the gradient, in those units.
    """
    flat = status is Status.NO_RESPONSE or (
        status is Status.NO_SIGNAL and bool((bar <= FLAT * gradient).all())
    )
    return Verdict(Status.OK, "") if flat else Verdict(status, message)


def _slopes(runs: Runs, axes: Array) -> Array:
    """How steep each output is along each axis (p, n), by least squares over all runs."""
    samples = runs.samples
    moved = (samples.points - runs.flat) @ axes
    values = runs.real(samples.outputs)
    values = values - values[0]
    seen = np.isfinite(values).all(1)
    slopes, *_ = np.linalg.lstsq(moved[seen], values[seen], rcond=None)
    return np.asarray(np.abs(slopes))


def _sizes(runs: Runs) -> Array:
    """The size (m, n) of values at x and of their changes where one input alone was moved."""
    samples = runs.samples
    values = runs.real(samples.outputs)
    moved = samples.points != runs.flat
    alone = moved.sum(1) == 1
    change = np.abs(values - values[0])
    change[~np.isfinite(change)] = 0.0
    own = [change[alone & moved[:, i]].max(0, initial=0.0) for i in range(moved.shape[1])]
    return np.asarray(np.maximum(own, np.abs(runs.value(()))))


def _say_nothing(found: Found, runs: Runs, weight: Array, axes: Array) -> list[int]:
    """Forms along inputs whose bars are too wide for them, whatever others are.

    The unit of an entry is the larger of itself and of what both inputs have alone; but curvature
    that changes no slope of either input, and no value, by a share that matters is as good as 0.
    """
    single = {  # roots: products of what overflowed nearly would
        form.a: np.sqrt(np.abs(found.value[e]))
        for e, form in enumerate(found.forms)
        if form.a == form.b
    }
    if not len(single) == axes.shape[1] == axes.shape[0]:
        return []
    slopes = _slopes(runs, axes)
    size = _sizes(runs) * (1.0 if found.noisy else VALUE)
    out = []
    for e, form in enumerate(found.forms):
        own = np.maximum(np.abs(found.value[e]), single[form.a] * single[form.b])
        matters = np.maximum(FLAT * slopes, size)[[form.a, form.b]].min(0)
        bar = found.stderr[e]
        if ((bar > WIDE * own) & (bar * weight[e] > matters)).any():
            out.append(e)
    return out


def _of_bars(
    found: Found, runs: Runs, scale: Callable[[int], float], names: list[str], axes: Array
) -> Verdict:
    """The status that the width of bars gives."""
    weight = np.array([scale(e) for e in range(len(found.forms))])[:, None]
    # Of steps that reach where f overflows, squares would as well.
    with np.errstate(over="ignore"):
        size, bar, noise = (
            np.hypot.reduce(part * weight, axis=0)
            for part in (found.value, found.stderr, found.noise)
        )
    # stdtrit of so many degrees of freedom is the normal quantile; of inf it is nan.
    shows = stdtrit(np.minimum(found.level.dof, 1e10), 0.5 + SHOWS / 2)
    useless = bar > WIDE * size
    hidden = ~(np.abs(found.value) > shows * found.stderr).any(0) & found.noisy
    if (useless | hidden).any():
        bent = bar > FLAT * np.hypot.reduce(_slopes(runs, axes), axis=0)
        useless, hidden = useless & bent, hidden & bent
    y_names = runs.y_layout.names * 2
    truncated = useless & (noise < np.sqrt(0.5) * bar)
    if truncated.any():
        text = enumerated([f"y{y_names[o]}" for o in np.flatnonzero(truncated)])
        return Verdict(
            Status.UNRESOLVED, f"bars of {text} are wider than half of its second derivatives, by "
            "truncation: " + (
                "the noise asks for steps over which f bends; more runs (max_nfev) narrow them"
                if found.noisy else "f changes within the steps; give x_scale, the distance over "
                "which each input changes something"
            ),
        )  # fmt: skip
    if hidden.any():
        text = enumerated([f"y{y_names[o]}" for o in np.flatnonzero(hidden)])
        return Verdict(
            Status.NO_SIGNAL, f"noise hides the curvature of {text}: no entry exceeds "
            f"{shows[hidden].max():.2g} standard errors; give a larger x_scale, more runs "
            "(max_nfev), or less noise",
        )  # fmt: skip
    nothing = _say_nothing(found, runs, weight, axes)
    if nothing:
        return Verdict(
            Status.UNRESOLVED, f"bars of {enumerated([names[e] for e in nothing])} say nothing: "
            "they are wider than half of what these inputs have, though others are known; give "
            "x_scale, the distance over which each input changes something",
        )  # fmt: skip
    if runs.n_failed:
        return Verdict(
            Status.FAILED_RUNS, f"{runs.n_failed} runs failed and were worked around: bars of what "
            "they were to tell are wider",
        )  # fmt: skip
    return Verdict(Status.OK, "")
