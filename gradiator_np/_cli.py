"""The command line: the embedded example, and the Jacobian of a function named on it."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

OK, FAILED, USAGE = 0, 1, 2

# Options of jacobian() that are a number for all inputs (or outputs), or one for each.
VALUES = {
    "rel_step": "steps relative to |x|, or to --x-scale",
    "abs_step": "steps in units of x",
    "x_scale": "typical size of each input",
    "min_step": 'no smaller steps of "auto", in units of x',
    "max_step": 'no larger steps of "auto", in units of x',
    "noise": "standard deviation of one evaluation, where it is known",
    "atol": "wanted standard error, in y per x",
}

# Longer tables are for machines.
MOST_LINES = 200

EPILOG = """\
exit codes: 0 estimated, 1 the estimation failed (the function raised, or has no value at the
point), 2 the command made no sense (or the function returns no numbers).

--json prints one object in strict JSON: jac, stderr, x, y, noise, dof and step in the shapes of
the function, and rank, cond, n_samples, nfev, n_failed, design, status, message. Numbers that
JSON does not have are the strings "NaN", "Infinity" and "-Infinity", which float() in Python and
Number() in JavaScript read; a complex number is {"re": ..., "im": ...}.

What the function itself prints goes to the standard error stream.
"""


class UsageError(Exception):
    """The command makes no sense; the text says what to write instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is returned."""
    arguments = _joined(list(sys.argv[1:] if argv is None else argv))
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has said what is wrong, or printed its help
        return USAGE if stop.code else OK
    try:
        if options.command is None:
            from gradiator_np import _example as example

            print(example.report())
            return OK
        return _jacobian(options)
    except UsageError as exc:
        print(f"gradiator_np: {exc}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # | head: Python would complain once more when it closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _parser() -> argparse.ArgumentParser:
    from gradiator_np import __version__

    parser = argparse.ArgumentParser(
        prog="python -m gradiator_np",
        description="Jacobians with error bars, of functions that can only be run. Without a "
        "command: an example, the sensitivities of a simulated epidemic.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    command = commands.add_parser(
        "jacobian",
        help="the Jacobian of a function of yours",
        description="Estimate the Jacobian of a function at a point.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("fun", metavar="MODULE:FUNCTION", help="such as mypackage.model:simulate")
    add(
        "--at",
        required=True,
        metavar="POINT",
        help="1,2,3 (an array); 2.5 (a number; an array of one is 2.5,); a file.npy; or JSON: "
        '[[1, 2], [3, 4]] or {"rate": 0.5}',
    )
    add("--method", default="auto", help='"2-point" to "9-point", "cs" or "auto" (default)')
    for name, text in VALUES.items():
        option = f"--{name.replace('_', '-')}"
        add(option, metavar="VALUE", default=argparse.SUPPRESS, help=f"{text}; written as --at is")
    add("--max-nfev", type=int, metavar="N", help='evaluations that "auto" may use')
    add("--rtol", type=float, help="wanted standard error, relative to the norm of each row")
    add("--lower", metavar="VALUE", default="-inf", help="lower bound: no evaluation below")
    add("--upper", metavar="VALUE", default="inf", help="upper bound: no evaluation above")
    add("--workers", type=int, default=1, help="processes; -1: one for each core")
    add("--vectorized", action="store_true", help="the function takes many points at once")
    add("--on-error", choices=("adapt", "drop", "raise"), default="adapt",
        help="what to do where a run fails")  # fmt: skip
    add("--seed", type=int, help="of designs that draw random numbers")
    add("--progress", action="store_true", help="show a bar (needs tqdm)")
    add("--json", action="store_true", help="strict JSON, for machines")
    add("--out", metavar="FILE.npz", help="write jac, stderr, x and y to a file")
    return parser


def _joined(arguments: list[str]) -> list[str]:
    """``--at -1,2`` as ``--at=-1,2``: argparse takes the second for an option."""
    out: list[str] = []
    for argument in arguments:
        value = argument[:1] == "-" and argument[1:2] in "0123456789.i" and len(argument) > 1
        if value and out and out[-1].startswith("--") and "=" not in out[-1]:
            out[-1] += "=" + argument
        else:
            out.append(argument)
    return out


# -- jacobian --------------------------------------------------------------------------------


def _jacobian(options: argparse.Namespace) -> int:
    from gradiator_np import EvaluationError, GradiatorWarning, Run, jacobian
    from gradiator_np._results import summary

    x = _value(options.at, "--at")
    values: dict[str, Any] = {
        name: _value(text, f"--{name.replace('_', '-')}")
        for name, text in vars(options).items()
        if name in VALUES
    }
    bounds = (_value(options.lower, "--lower"), _value(options.upper, "--upper"))
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        fun = _function(options.fun)
        # What this warning says is the status, which is printed in any case.
        warnings.simplefilter("ignore", GradiatorWarning)
        try:
            estimate = jacobian(
                fun, x, method=options.method, bounds=bounds, workers=options.workers,
                vectorized=options.vectorized, rng=options.seed, on_error=options.on_error,
                max_nfev=options.max_nfev, rtol=options.rtol,
                run=Run(progress=options.progress), **values,
            )  # fmt: skip
        except EvaluationError as exc:
            _blame(exc)
            return FAILED
        except (TypeError, ValueError, ImportError) as exc:
            raise UsageError(str(exc)) from exc
    if options.out is not None:
        _write(options.out, estimate)
    text = summary(estimate, MOST_LINES, "--out FILE.npz or --json")
    print(_json(estimate) if options.json else text, flush=True)
    return OK


def _blame(exc: Exception) -> None:
    """What failed, with the traceback of the user's own frames."""
    cause = exc.__cause__
    if cause is not None:
        trace = cause.__traceback__
        while trace and trace.tb_frame.f_globals.get("__name__", "").startswith("gradiator_np."):
            trace = trace.tb_next
        traceback.print_exception(type(cause), cause, trace)
    print(f"gradiator_np: {exc}", file=sys.stderr)


def _function(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise UsageError(
            f"{name!r} names no function; write module:function, such as mypackage.model:simulate"
        )
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as python -m does, for the installed command
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module_name + ".").startswith(exc.name + "."):
            raise UsageError(
                f"there is no module {exc.name!r} here or among the installed ones; run the "
                "command where the module lies, or install its package"
            ) from exc
        raise UsageError(_import_failed(module_name)) from exc
    except Exception as exc:
        raise UsageError(_import_failed(module_name)) from exc
    try:
        fun = reduce(getattr, path.split("."), module)
    except AttributeError:
        public = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise UsageError(
            f"module {module_name!r} has no {path!r}; it has {', '.join(public) or 'no functions'}"
        ) from None
    if not callable(fun):
        raise UsageError(f"{name} is a {type(fun).__name__} and no function")
    return fun


def _import_failed(module_name: str) -> str:
    return f"importing {module_name!r} failed:\n{traceback.format_exc().strip()}"


def _value(text: str, option: str) -> Any:
    """A number, an array or a dict, from what was written on the command line."""
    if text.endswith(".npy"):
        try:
            return np.load(text, allow_pickle=False)
        except (OSError, ValueError) as exc:
            raise UsageError(f"{option}: {text!r} cannot be read ({exc})") from exc
    try:
        if text.lstrip()[:1] in ("[", "{"):
            return _arrays(json.loads(text))
        parts = text.split(",")
        if len(parts) == 1:
            return float(text)
        return np.array([float(part) for part in (parts if parts[-1].strip() else parts[:-1])])
    except ValueError as exc:
        raise UsageError(
            f"{option}={text!r} is neither numbers with commas (1,2,3) nor a file.npy nor JSON "
            f"({exc})"
        ) from exc


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _arrays(item) for name, item in value.items()}
    return np.array(value, dtype=np.float64) if isinstance(value, list) else float(value)


def _json(estimate: Any) -> str:
    fields = (
        "jac", "stderr", "x", "y", "noise", "dof", "step", "rank", "cond", "n_samples", "nfev",
        "n_failed", "design", "status", "message",
    )  # fmt: skip
    return json.dumps({f: _strict(getattr(estimate, f)) for f in fields}, allow_nan=False)


def _strict(value: Any) -> Any:
    """``value`` in what strict JSON can say."""
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _strict(value.tolist())
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if isinstance(value, complex):
        return {"re": _strict(value.real), "im": _strict(value.imag)}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _write(path: str, estimate: Any) -> None:
    """The estimate as a .npz file; entries of dicts get the names of their keys."""
    fields = {name: getattr(estimate, name) for name in ("jac", "stderr", "x", "y", "step")}
    try:
        np.savez(path, **dict(_leaves(fields)))
    except OSError as exc:
        raise UsageError(f"--out: {path!r} cannot be written ({exc})") from exc


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for name, item in value.items():
        if isinstance(item, Mapping):
            out += _leaves(item, f"{prefix}{name}.")
        else:
            out.append((prefix + name, np.asarray(item)))
    return out
