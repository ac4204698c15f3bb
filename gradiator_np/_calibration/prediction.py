"""Forecasts from fitted parameters, with what their errors leave open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._calibration.fit_record import FitRecord
from gradiator_np._covariance import ConfidenceInterval
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._text import MOST_ROWS, aligned, error, number, verdict
from gradiator_np._typing import Array


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Forecasts with their errors: `LeastSquaresResult.predict` makes them.

    Attributes
    ----------
    status : Status
        "undetermined" where a forecast depends on what the data do not determine, else that of the
        Jacobian of the forecasts.
    message : str
        Which forecasts, and what else limits them.
    nfev : int
        Runs of the forecast.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import least_squares
    >>> t, y = np.arange(6.0), np.array([2.1, 3.8, 6.2, 7.9, 10.1, 11.8])
    >>> fit = least_squares(lambda x: x[0] + x[1] * t - y, [1.0, 1.0])
    >>> forecast = fit.predict(lambda x: x[0] + x[1] * np.array([6.0, 9.0]))
    >>> forecast.value.round(2), forecast.stderr.round(3)
    (array([13.89, 19.82]), array([0.172, 0.297]))
    """

    status: Status
    message: str
    nfev: int
    _layout: Layout
    _value: Array  # of the forecasts, flat, as all below
    _variance: Array
    _stderr_error: Array
    _sigma: Array | None
    _draws: Array | None
    _new: Array | None  # draws of new observations
    _record: FitRecord
    _kind: str

    @property
    def value(self) -> Any:
        """The forecasts at the parameters found."""
        return self._layout.unflatten(self._value)

    @property
    def stderr(self) -> Any:
        """One standard error of each, to first order; inf where the data do not determine it."""
        return self._layout.unflatten(np.sqrt(self._variance))

    @property
    def stderr_error(self) -> Any:
        """One standard error of ``stderr`` by errors of the Jacobian of the forecasts."""
        return self._layout.unflatten(self._stderr_error)

    @property
    def draws(self) -> Any:
        """Forecasts at parameters drawn from their law, on a leading axis; those that failed nan.

        Raises
        ------
        AttributeError
            Without ``sampling``.
        """
        return self._layout.unflatten(self._drawn)

    @property
    def mean(self) -> Any:
        """Mean of ``draws``."""
        return self._layout.unflatten(np.nanmean(self._drawn, 0))

    @property
    def median(self) -> Any:
        """Median of ``draws``."""
        return self._layout.unflatten(np.nanmedian(self._drawn, 0))

    @property
    def _drawn(self) -> Array:
        if self._draws is None:
            raise AttributeError("nothing was drawn: predict(..., sampling=1000) draws")
        return self._draws

    @property
    def success(self) -> bool:
        """Whether the forecasts are what was asked for: ``status.success``."""
        return self.status.success

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """The band that holds each forecast of the true parameters with that probability.

        Returns
        -------
        ConfidenceInterval
            ``low`` and ``high``, like the forecasts: quantiles of the draws with ``sampling``, else
            by Student's t where the intervals of the parameters have it. Endless where ``stderr``
            is.
        """
        return self._interval(checks.level(confidence_level), self._variance, self._draws)

    def prediction_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """The band that holds one new observation at each place with that probability.

        Returns
        -------
        ConfidenceInterval

        Raises
        ------
        ValueError
            Where ``predict`` was given no ``sigma``.
        """
        level = checks.level(confidence_level)
        if self._sigma is None:
            raise ValueError(
                "a new observation has an error of its own: give its standard deviation, "
                "predict(..., sigma=), or sigma='residuals' for that of the residuals"
            )
        return self._interval(level, self._variance + np.square(self._sigma), self._new)

    def _interval(self, level: float, variance: Array, draws: Array | None) -> ConfidenceInterval:
        if draws is None:
            half = self._record.quantile(level, self._kind) * np.sqrt(variance)
            low, high = self._value - half, self._value + half
        else:
            low, high = np.nanquantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        lost = np.isinf(self._variance)
        like = self._layout.unflatten
        return ConfidenceInterval(
            like(np.where(lost, -np.inf, low)), like(np.where(lost, np.inf, high))
        )

    def __repr__(self) -> str:
        stderr = np.sqrt(self._variance)
        low, high = map(self._layout.flatten, self.confidence_interval())
        rows = [("forecast", "value", "stderr", "95 % interval")]
        for name, y, err, a, b in zip(self._layout.names, self._value, stderr, low, high):
            width = (b - a) / 4  # of draws, which may spread otherwise than stderr says
            band = f"{number(a, width)} to {number(b, width)}" if np.isfinite(width) else "endless"
            shown = number(y, min(err, width)) if err < np.inf else f"{y:.3g}"
            rows.append((f"y{name}", shown, error(err), band))
        more = len(rows) - 1 - MOST_ROWS
        left = [f"... {more} more: .value, .stderr"] if more > 0 else []
        drawn = "" if self._draws is None else f", {len(self._draws)} draws"
        head = f"Prediction ({self.nfev} runs{drawn})"
        return "\n".join([head, *aligned(rows[: MOST_ROWS + 1]), *left, verdict(self)])
