"""The words in which an estimate says how far it can be trusted."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """How far an estimate can be trusted; its ``message`` names the cause and the remedy."""

    OK = "ok"
    #: Some entries are determined by no sample: ``stderr`` is inf there.
    UNDETERMINED = "undetermined"
    #: Runs failed and were worked around; J rests on the others.
    FAILED_RUNS = "failed_runs"
    #: The rows asked for have not all been told yet.
    INCOMPLETE = "incomplete"
    #: The samples disagree with the model beyond their noise (kink, jump, curvature).
    LACK_OF_FIT = "lack_of_fit"
    #: The function wiggles or bends at a scale that cannot be told from its trend.
    TWO_SCALES = "two_scales"
    #: Noise hides the response altogether.
    NO_SIGNAL = "no_signal"
    #: The evaluations allowed ended before the tolerance was met.
    BUDGET = "budget"
    #: An iteration ended before its certificate was reached.
    NOT_CONVERGED = "not_converged"
    #: The centre lies outside of the samples.
    EXTRAPOLATION = "extrapolation"


def warn(message: str) -> None:
    """Warn at the line of the caller's own code that led here."""
    import sys
    import warnings

    package = __name__.partition(".")[0]
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").partition(".")[0] == package
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, GradiatorWarning, stacklevel=level)


class GradiatorWarning(UserWarning):
    """An estimate may be wrong; the text says why and what to do."""
