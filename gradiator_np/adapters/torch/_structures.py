"""Inputs in dicts, tuples and keywords as a row of leaves, and functions of such rows.

A skeleton is what is left of a value without its leaves: nested tuples of plain constants, which
can be hashed, and which torch.compile traces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from gradiator_np._differentiable.inputs import name_of

Skeleton = tuple[Any, ...]

LEAF: Skeleton = ("leaf",)
#: A complex tensor: its leaf is real, with an axis of real and imaginary part at the end.
COMPLEX: Skeleton = ("complex",)

#: Options that may come in the structure of x.
LIKE_X = ("x_scale", "rel_step", "abs_step", "min_step", "max_step")


def flatten(value: Any, leaves: list[Any]) -> Skeleton:
    """The skeleton of an input; its leaves are appended to ``leaves``."""
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            # not view_as_real, whose backward pass refuses tensors without numbers
            leaves.append(torch.stack([value.real, value.imag], -1))
            return COMPLEX
        leaves.append(value)
        return LEAF
    if isinstance(value, dict) and has_tensors(value):
        return ("dict", tuple(value), tuple([flatten(v, leaves) for v in value.values()]))
    if isinstance(value, tuple | list) and has_tensors(value):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return (kind, (), tuple([flatten(v, leaves) for v in value]))
    leaves.append(value)
    return LEAF


def arranged(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Skeleton | None]:
    """The leaves of a call, and its skeleton; None where each positional input is a leaf."""
    if not kwargs and not any(_inside(a) for a in args):
        return list(args), None
    leaves: list[Any] = []
    positional = tuple([flatten(a, leaves) for a in args])
    named = tuple([flatten(a, leaves) for a in kwargs.values()])
    pair = (("tuple", (), positional), ("dict", tuple(kwargs), named))
    return leaves, ("tuple", (), pair)


def _inside(value: Any) -> bool:
    """Whether an input is more than one leaf, or not its own."""
    if isinstance(value, torch.Tensor):
        return value.is_complex()
    return isinstance(value, dict | tuple | list) and has_tensors(value)


def has_tensors(value: Any) -> bool:
    """Whether an input holds tensors anywhere."""
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, dict):
        return any(has_tensors(v) for v in value.values())
    return isinstance(value, tuple | list) and any(has_tensors(v) for v in value)


def unflatten(skeleton: Skeleton, leaves: Iterator[Any]) -> Any:
    """The inverse of ``flatten``, with arrays in place of tensors."""
    if skeleton == LEAF:
        return next(leaves)
    if skeleton == COMPLEX:
        pairs = next(leaves)
        return None if pairs is None else pairs[..., 0] + 1j * pairs[..., 1]
    kind, keys, children = skeleton
    items = [unflatten(child, leaves) for child in children]
    if kind == "dict":
        return dict(zip(keys, items, strict=True))
    return tuple(items) if kind == "tuple" else items


def count(skeleton: Skeleton) -> int:
    """How many leaves there are."""
    if skeleton in (LEAF, COMPLEX):
        return 1
    return sum(map(count, skeleton[2]))


def is_complex(skeleton: Skeleton) -> bool:
    """Whether there is a complex leaf."""
    if skeleton in (LEAF, COMPLEX):
        return skeleton == COMPLEX
    return any(map(is_complex, skeleton[2]))


def leaves_like(skeleton: Skeleton, value: Any, what: str) -> list[Any]:
    """The leaves of a value in a structure, in its order; a number serves all of them."""
    if skeleton in (LEAF, COMPLEX):
        return [value]
    kind, keys, children = skeleton
    if value is None or (np.ndim(value) == 0 and not isinstance(value, Mapping)):
        return [value] * count(skeleton)
    if kind == "dict":
        if not isinstance(value, Mapping) or value.keys() != set(keys):
            seen = list(value) if isinstance(value, Mapping) else type(value).__name__
            raise ValueError(f"{what} must be a dict with the keys {list(keys)}, got {seen}")
        value = [value[key] for key in keys]
    elif not isinstance(value, tuple | list) or len(value) != len(children):
        raise ValueError(f"{what} must be a {kind} of {len(children)}, got {value!r:.60}")
    pairs = zip(children, value, strict=True)
    return [leaf for child, item in pairs for leaf in leaves_like(child, item, what)]


class Arranged:
    """A function of inputs in a structure as one of their leaves.

    Parameters
    ----------
    fun : callable
    skeleton : Skeleton
        Of ``(args, kwargs)``.
    """

    def __init__(self, fun: Callable[..., Any], skeleton: Skeleton) -> None:
        self.fun, self.skeleton = fun, skeleton
        self.__qualname__ = name_of(fun)  # for messages

    def __call__(self, *leaves: Any) -> Any:
        args, kwargs = unflatten(self.skeleton, iter(leaves))
        return self.fun(*args, **kwargs)


class ArrangedProduct:
    """A derivative by inputs in a structure as one by their leaves.

    Parameters
    ----------
    product : callable
        ``grad_fun(x, v)`` or ``jvp_fun(x, u)``.
    skeleton : Skeleton
        Of ``(args, kwargs)``.
    by : tuple of int
        The positional inputs that it differentiates by.
    single : bool
        Whether these come as they are, not in a tuple.
    moved : tuple of int
        The leaves that are differentiated by.
    forward : bool
        Whether the direction is one of the inputs (a tangent).
    """

    def __init__(
        self,
        product: Callable[..., Any],
        skeleton: Skeleton,
        by: tuple[int, ...],
        single: bool,
        moved: tuple[int, ...],
        forward: bool,
    ) -> None:
        self.product, self.skeleton, self.by, self.single = product, skeleton, by, single
        self.moved, self.forward = moved, forward
        parts = skeleton[2][0][2]
        starts = np.concatenate([[0], np.cumsum([count(part) for part in parts])])
        #: The structure of what it differentiates by, and where its leaves are.
        self.part: Skeleton = ("tuple", (), tuple(parts[i] for i in by))
        self.at = [j for i in by for j in range(starts[i], starts[i + 1])]
        self.owners = [i for i in by for _ in range(starts[i], starts[i + 1])]

    def __call__(self, x: Any, direction: Any, *context: Any, **told: Any) -> Any:
        leaves = x if isinstance(x, tuple) else (x,)
        args, kwargs = unflatten(self.skeleton, iter(leaves))
        if self.forward:
            given = direction if isinstance(direction, tuple) else (direction,)
            known = dict(zip(self.moved, given, strict=True))
            direction = unflatten(self.part, iter([known.get(j) for j in self.at]))
            direction = direction[0] if self.single else direction
        if "needs_input_grad" in told:
            wanted = dict(zip(self.moved, told["needs_input_grad"], strict=True))
            pairs = list(zip(self.at, self.owners, strict=True))
            told["needs_input_grad"] = tuple(
                any(wanted.get(j, False) for j, owner in pairs if owner == i) for i in self.by
            )
        point = args[0] if len(args) == 1 else args
        out = self.product(point, direction, *context, **kwargs, **told)
        if self.forward:
            return out
        parts = leaves_like(self.part, (out,) if self.single else out, "what grad_fun returns")
        found = dict(zip(self.at, parts, strict=True))
        gradients = tuple(found[j] for j in self.moved)
        return gradients if isinstance(x, tuple) else gradients[0]


def flat_options(
    options: Mapping[str, Any], skeleton: Skeleton, moved: tuple[int, ...]
) -> dict[str, Any]:
    """Options in the structure of a single positional input as ones of its leaves."""
    parts = skeleton[2][0][2]
    out = dict(options)
    if len(parts) != 1 or parts[0][0] != "dict":
        return out

    def flat(value: Any, name: str) -> Any:
        if not isinstance(value, Mapping):
            return value
        leaves = leaves_like(parts[0], value, name)
        return {str(i): leaves[j] for i, j in enumerate(moved)} if len(leaves) > 1 else leaves[0]

    for name in LIKE_X:
        if name in out:
            out[name] = flat(out[name], name)
    if isinstance(out.get("bounds"), tuple | list):
        out["bounds"] = tuple(flat(end, "a bound") for end in out["bounds"])
    return out
