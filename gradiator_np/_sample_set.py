"""Samples that a caller brings: coerced to flat arrays, with clear errors where that fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._structure import Layout
from gradiator_np._typing import Array, NanPolicy
from gradiator_np.solvers._regression import sample_weights


@dataclass(frozen=True, slots=True)
class SampleSet:
    """Samples as flat arrays.

    Attributes
    ----------
    dx : array, shape batch + (k, m)
    df : array, shape batch + (k, n)
        nan where that output of that sample failed.
    weights : array, shape batch + (k,) or batch + (k, n), or None
    x, y : Layout
    """

    dx: Array
    df: NDArray[Any]
    weights: Array | None
    x: Layout
    y: Layout

    @property
    def batch(self) -> tuple[int, ...]:
        """Leading axes of independent problems."""
        return self.dx.shape[:-2]

    @classmethod
    def of(
        cls,
        dx: Any,
        df: Any,
        *,
        weights: Any = None,
        x: Any = None,
        y: Any = None,
        nan_policy: NanPolicy = "omit",
        names: tuple[str, str, str] = ("dx", "df", "f0"),
    ) -> SampleSet:
        """Samples from what the caller gave; x and y tell the shapes of one input and one output.

        ``names`` are what the caller calls dx, df and y.

        Raises
        ------
        TypeError
            For complex inputs, or what is no number.
        ValueError
            For shapes that disagree, no samples, inputs that are not finite, or (where asked)
            outputs that are not.
        """
        checks.choice(nan_policy, ("omit", "raise"), "nan_policy")
        flat_x, x_layout = _flat(dx, x, None, names[0], "x")
        if flat_x.dtype.kind == "c":
            raise TypeError(
                f"{names[0]} is complex; give real and imaginary parts as inputs of their own"
            )
        lead = flat_x.shape[:-1]
        flat_y, y_layout = _flat(df, y, len(lead), names[1], names[2])
        if flat_y.shape[:-1] != lead:
            raise ValueError(
                f"{names[0]} has samples {lead} and {names[1]} has {flat_y.shape[:-1]}; "
                f"give one row of {names[1]} for each row of {names[0]}"
            )
        for a, name in ((flat_x, names[0]), (flat_y, names[1])):
            if a.size == 0:
                raise ValueError(f"{name} is empty (shape {a.shape}); give at least one sample")
        dx = np.ascontiguousarray(flat_x, dtype=np.float64)
        kind: Any = np.complex128 if flat_y.dtype.kind == "c" else np.float64
        df = np.ascontiguousarray(flat_y, dtype=kind)
        w = None if weights is None else sample_weights(weights, df.shape)
        return cls(*_finite(dx, df, w, nan_policy, names), x_layout, y_layout)


def _flat(
    value: Any, one: Any, n_lead: int | None, what: str, one_name: str
) -> tuple[NDArray[Any], Layout]:
    """Samples as leading axes + (size,), and the layout of one of them, batch axes included.

    ``one`` shows the shape of one sample, or is one for each problem of a batch; without it
    samples are plain rows, or, for dicts, their entries less the first axis. ``n_lead`` is the
    number of leading axes where it is known.
    """
    if isinstance(value, Mapping):
        layout = Layout.of(_first(value, what) if one is None else one)
        if layout.fields is None or layout.fields.keys() != value.keys():
            raise ValueError(
                f"{what} has the keys {list(value)}, but {one_name} is "
                f"{list(layout.fields or []) or 'no dict'}; make them agree"
            )
        return layout.flatten(value, 1), layout
    a = checks.numeric(value, what)
    if one is not None:
        layout = Layout.of(one)
        if layout.shape is None:
            raise ValueError(f"{one_name} is a dict, so {what} must be one with the same keys")
        shape = layout.shape
        if a.ndim > 2 and a.shape[1:] != shape and (*a.shape[:-2], a.shape[-1]) == shape:
            shape = a.shape[-1:]  # a point of its own for every problem of the batch
    elif n_lead is not None and a.ndim == n_lead:
        shape = ()
    elif a.ndim < 2:
        raise ValueError(
            f"{what} has shape {a.shape}; give samples as rows, shape (k, {one_name} entries), "
            f"or {one_name}= to show the shape of one sample"
        )
    else:
        shape = a.shape[-1:]
    lead = a.shape[: a.ndim - len(shape)]
    if not lead or a.shape[len(lead) :] != shape:
        raise ValueError(
            f"{what} has shape {a.shape}; expected one sample of shape {shape} (that of "
            f"{one_name}) behind an axis of samples, {('k', *shape)}"
        )
    layout = Layout(shape, lead[:-1])
    return a.reshape((*lead, layout.size)), layout


def _first(value: Any, what: str) -> Any:
    """The first sample of a dict of samples."""
    if isinstance(value, Mapping):
        return {name: _first(item, f"{what}[{name!r}]") for name, item in value.items()}
    a = checks.numeric(value, what)
    if a.ndim == 0 or not len(a):
        raise ValueError(f"{what} has shape {a.shape}; its first axis must run over samples")
    return a[0]


def _finite(
    dx: Array, df: NDArray[Any], weights: Array | None, nan_policy: NanPolicy,
    names: tuple[str, str, str],
) -> tuple[Array, NDArray[Any], Array | None]:  # fmt: skip
    """Failed outputs as nan; samples whose inputs are nan dropped, where that is asked."""
    if not checks.isfinite(dx):
        lost = np.asarray(np.isnan(dx).any(-1))
        bad = np.asarray(~np.isfinite(dx).all(-1))
        if nan_policy == "raise" or (bad & ~lost).any():
            i = tuple(int(j) for j in np.argwhere(bad if nan_policy == "raise" else bad & ~lost)[0])
            raise ValueError(
                f"{names[0]} is not finite in sample {_index(i)}: {dx[i]}; correct or remove it"
                + ("" if nan_policy == "omit" else " (nan_policy='omit' drops samples with nan)")
            )
        dx = np.where(lost[..., None], 0.0, dx)
        df = np.where(lost[..., None], np.nan, df)
        if dx.ndim == 2:
            dx, df, weights = dx[~lost], df[~lost], None if weights is None else weights[~lost]
            if not len(dx):
                raise ValueError(f"{names[0]} holds nan in every sample; nothing is left to fit")
    if not checks.isfinite(df):
        failed = ~np.isfinite(df)
        if nan_policy == "raise":
            i = tuple(int(j) for j in np.argwhere(failed)[0])
            raise ValueError(
                f"{names[1]} is not finite in sample {_index(i[:-1])}, output {i[-1]}: {df[i]}; "
                "correct it, or let nan_policy='omit' drop it"
            )
        df = np.where(failed, np.nan, df)
    return dx, df, weights


def _index(i: tuple[int, ...]) -> str:
    return str(i[0] if len(i) == 1 else i)
