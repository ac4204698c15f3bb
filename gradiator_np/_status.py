"""The words in which an estimate says how far it can be trusted."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How far a result can be trusted, or why a search ended; ``message`` names what to do here.

    Every member is a string (``estimate.status == "ok"``). ``code`` is the int that results in
    SciPy's form carry as ``status``: positive for a success, 0 where the budget ended, negative
    where something else was in the way. ``remedy`` is what to do in general.
    """

    code: int
    remedy: str

    def __new__(cls, value: str, code: int, meaning: str, remedy: str) -> Status:
        member = str.__new__(cls, value)
        member._value_ = value
        member.code = code
        member.remedy = remedy
        member.__doc__ = meaning
        return member

    OK = (
        "ok", 1, "The answer and its error bars hold as far as the samples can tell.",
        "Nothing.",
    )  # fmt: skip
    FAILED_RUNS = (
        "failed_runs", 2, "Runs failed and were worked around; the rest is ok.",
        "Look at samples.errors where that was not expected.",
    )  # fmt: skip
    CONVERGED = (
        "converged", 3, "No run can lower the sum of squares any further.",
        "Nothing.",
    )  # fmt: skip
    NOISE_LIMIT = (
        "noise_limit", 4, "The noise of the runs hides what is left to gain.",
        "Nothing; for narrower intervals of the parameters give x_half_width.",
    )  # fmt: skip
    BUDGET = (
        "budget", 0, "The evaluations allowed ended before the errors wanted were met.",
        "Raise max_nfev, or ask for less.",
    )  # fmt: skip
    UNDETERMINED = (
        "undetermined", -1, "No sample determines some entries: their stderr is inf.",
        "Sample along those inputs too, or give bounds that leave them room.",
    )  # fmt: skip
    INCOMPLETE = (
        "incomplete", -2, "Points asked for have not all been told yet.",
        "Run what ask() returns and tell it.",
    )  # fmt: skip
    LACK_OF_FIT = (
        "lack_of_fit", -3, "Samples disagree with the model beyond their noise (kink, jump, bend).",
        "Move x off the kink, or take smaller displacements where f bends.",
    )  # fmt: skip
    TWO_SCALES = (
        "two_scales", -4, "Slopes at small and at wide steps differ: f wiggles, or bends sharply.",
        "Say which scale is meant: min_step above the wiggle, max_step below the bend.",
    )  # fmt: skip
    NO_SIGNAL = (
        "no_signal", -5, "Noise hides the response altogether.",
        "Allow wider displacements (max_step, x_scale, bounds), or make f less noisy.",
    )  # fmt: skip
    NOT_CONVERGED = (
        "not_converged", -6, "An iteration ended before its certificate was reached.",
        "Raise the solver's max_iter, or loosen its tolerance.",
    )  # fmt: skip
    EXTRAPOLATION = (
        "extrapolation", -7, "The centre lies outside of the samples.",
        "Sample around x, or fit at a point among the samples.",
    )  # fmt: skip
    UNRESOLVED = (
        "unresolved", -8, "The function changes within steps too small for x.",
        "Give x_scale, the distance over which each input changes something, or move the origin.",
    )  # fmt: skip
    FAILING_REGION = (
        "failing_region", -10, "Runs fail on the way to where the sum of squares is lower.",
        "Look at samples.errors; make fun run there, or give bounds that leave it out.",
    )  # fmt: skip
    TRUNCATION = (
        "truncation", -11, "Steps so long that f may bend by more than the error bars hold.",
        "Take shorter steps, or '3-point', whose own values tell of bends.",
    )  # fmt: skip
    PATTERN = (
        "pattern", -12, "Outputs answer to inputs that the sparsity pattern leaves out.",
        "Add the missing entries to the pattern (detect_sparsity finds them).",
    )  # fmt: skip
    NO_RESPONSE = (
        "no_response", -9, "No run differed from that at x in any bit.",
        "Check that fun reads its argument and returns new numbers; else give a larger min_step.",
    )  # fmt: skip

    @property
    def success(self) -> bool:
        """Whether the result is what was asked for."""
        return self.code > 0

    @property
    def doubtful(self) -> bool:
        """Whether numbers may be wrong: results with such a status come with a warning."""
        told = self in (Status.UNDETERMINED, Status.INCOMPLETE)  # inf in stderr says it
        return self is Status.FAILED_RUNS or not (self.success or told)


# help(Status) tells what each value means, from the one place where it is written.
Status.__doc__ = "\n".join(
    [Status.__doc__ or "", "    Members", "    -------"]
    + [f'    {s.name} = "{s.value}", {s.code}\n{" " * 8}{s.__doc__}\n{" " * 8}To do: {s.remedy}'
       for s in Status]
    + ["", "    Examples", "    --------", "    >>> from gradiator_np import Status, jacobian",
       "    >>> status = jacobian(lambda x: x**2, [1.0, 2.0]).status",
       '    >>> status == "ok", status is Status.OK, status.success', "    (True, True, True)"]
)  # fmt: skip


def warn(message: str, result: Any) -> None:
    """Warn at the line of the caller's own code that led here.

    Where warnings are errors the caller still gets ``result``, as ``estimate``: nothing that was
    run is lost.
    """
    import sys
    import warnings

    package = __name__.partition(".")[0]
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").partition(".")[0] == package
    ):
        level, frame = level + 1, frame.f_back
    warning = GradiatorWarning(message)
    warning.estimate = result
    warnings.warn(warning, stacklevel=level)


class GradiatorWarning(UserWarning):
    """An estimate may be wrong; the text says why and what to do.

    Attributes
    ----------
    estimate : JacobianEstimate, or what else the call returns
        The result, which is not lost where this is raised as an error
        (``warnings.simplefilter("error")``).

    Examples
    --------
    >>> import warnings
    >>> from gradiator_np import GradiatorWarning, jacobian
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", GradiatorWarning)
    ...     try:
    ...         jacobian(abs, 0.0)
    ...     except GradiatorWarning as warning:
    ...         print(warning.estimate.status)
    lack_of_fit
    """

    estimate: Any = None
