"""Options that several functions share: one table of names, types, defaults and meanings.

A TypedDict holds names, types and (as what ``Annotated`` carries) defaults, its docstring what they
mean. ``shows`` puts them into the signature and the docstring of a function that has them as
``**options``; ``complete`` checks the names that a call gave and fills in the rest.
"""

from collections.abc import Callable, Mapping
from functools import cache
from inspect import Parameter, cleandoc, signature
from textwrap import indent
from typing import Any, TypeVar, get_type_hints

F = TypeVar("F", bound=Callable[..., Any])

#: What stands in docstrings in place of the text of all options.
PLACE = "**options : Options"

#: Names that other libraries use, and what to write instead.
ELSEWHERE = {
    "n_jobs": "workers=",
    "noise": "run_noise= (repeatability of the program) or sigma= (errors of the data)",
    "progress": "run=Run(progress=True)",
    "seed": "rng=, or seed_arg= where fun takes a seed",
    "tol": "atol=",
}


@cache
def defaults(kind: type) -> Mapping[str, Any]:
    """The options of one kind with their defaults."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def complete(options: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """All options of one kind, from those that a call gave.

    Raises
    ------
    TypeError
        For a name that is none of them.
    """
    known = defaults(kind)
    if not options.keys() <= known.keys():
        raise _unknown(next(name for name in options if name not in known), known)
    return {**known, **options}


def _unknown(name: str, known: Mapping[str, Any]) -> TypeError:
    """The error for a name that is no option."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1, 0.6)
    likely = ELSEWHERE.get(name, "")
    if likely.partition("=")[0] not in known:
        likely = f"{near[0]}=" if near else ""
    text = f"unknown option {name!r}{': did you mean ' + likely + '?' if likely else '.'} The "
    text += f"options are {', '.join(known)}"
    if "args" in known:
        text += "; what fun itself takes goes into args= and kwargs="
    return TypeError(text)


def shows(kind: type, *pieces: type) -> Callable[[F], F]:
    """Show the options of one kind where a function or a class says ``**options``.

    ``inspect.signature`` and completion see their names, types and defaults; in the docstring the
    texts of those ``pieces`` that are of this kind (of itself by default) replace ``PLACE``.
    """

    def show(target: F) -> F:
        function: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        own = signature(function)
        named = [p for p in own.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        types = get_type_hints(kind)
        named += [
            Parameter(name, Parameter.KEYWORD_ONLY, default=value, annotation=types[name])
            for name, value in defaults(kind).items()
        ]
        function.__signature__ = own.replace(parameters=named)
        text = "\n".join(
            cleandoc(part.__doc__ or "").partition("\n\n")[2]
            for part in pieces or (kind,)
            if defaults(part).keys() <= defaults(kind).keys()
        )
        target.__doc__ = with_shared(target.__doc__, PLACE, text)
        return target

    return show


def with_shared(doc: str | None, place: str, text: str) -> str | None:
    """A docstring with ``text``, which others have too, where it has the line ``place``."""
    if doc is None or place not in doc:  # None: python -OO
        return doc
    before, _, after = doc.partition(place)
    margin = before[before.rfind("\n") + 1 :]
    return before + indent(text, margin).lstrip() + after
