"""The user's functions as functions of flat arrays: what a ``Gradiator`` of leaves is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._differentiable.function import Gradiator, exact_nested_vjp
from gradiator_np.adapters.jax._structure import Arguments, inexact, leaves_of, pack, unpack

#: Options with a number for each number of x; ``bounds`` is a pair of them.
LIKE_X = ("rel_step", "abs_step", "x_scale", "min_step", "max_step")


class FlatFunction:
    """``fun`` of the arrays of its arguments, to those of its output; picklable if ``fun`` is.

    Attributes
    ----------
    tree : PyTreeDef or None
        Structure of the output, from the first run where it was not given.
    floating : tuple of int or None
        The leaves of the output to return, those that have derivatives; None for all.
    """

    def __init__(self, owner: Gradiator, arguments: Arguments) -> None:
        self.fun, self.context, self.arguments = owner.fun, owner.context, arguments
        self.tree: Any = None
        self.floating: tuple[int, ...] | None = None

    def keeping(self, floating: tuple[int, ...]) -> FlatFunction:
        """The same function, with these leaves of the output only."""
        out = object.__new__(FlatFunction)
        out.__dict__ |= self.__dict__ | {"floating": floating}
        return out

    def __call__(self, *arrays: Any) -> Any:
        args, kwargs = self.arguments.rebuild(arrays)
        out, kept = self.fun(*args, **kwargs), None
        if self.context:
            if not (isinstance(out, tuple) and len(out) == 2):
                raise ValueError(
                    f"with context=True fun must return (y, context), got {type(out).__name__}"
                )
            out, kept = out
        y = pack(self.leaves(out))
        return (y, kept) if self.context else y

    def leaves(self, out: Any) -> list[Any]:
        """The arrays of an output, whose structure must stay the same."""
        if self.tree is not None and jax.tree_util.treedef_is_leaf(self.tree):
            leaf = np.asarray(out)
            if leaf.dtype.kind == "O":
                raise TypeError(
                    f"fun returned {type(out).__name__}, but one array was promised, by out= or by "
                    "an earlier call; return the same structure each time"
                )
            leaf = np.asarray(checks.returned(out, "fun(x)"))
            return [leaf] if self.floating is None or self.floating else []
        leaves, tree = leaves_of(out)
        if self.tree is None:
            self.tree = tree
        if tree != self.tree:
            raise TypeError(
                f"fun returned the structure {tree}, but {self.tree} was promised, by out= or by "
                "an earlier call; return the same structure each time"
            )
        if not leaves:
            raise TypeError(f"fun must return an array or a pytree of arrays, got {out!r:.60}")
        return leaves if self.floating is None else [leaves[i] for i in self.floating]


class FlatDerivatives:
    """The derivatives of a ``Gradiator`` in terms of arrays of inputs and outputs.

    Parameters
    ----------
    owner : Gradiator
    arguments : Arguments
    dtypes : tuple of dtype
        Of the arrays.
    fun : FlatFunction

    Attributes
    ----------
    places : tuple of (int or str)
        The arguments to differentiate by.
    moved : tuple of int
        Their floating-point arrays.
    """

    def __init__(
        self, owner: Gradiator, arguments: Arguments, dtypes: Sequence[Any], fun: FlatFunction
    ) -> None:
        self.owner, self.arguments, self.fun = owner, arguments, fun
        self.floating: tuple[int, ...] = ()
        self.rest: list[Any] = []
        self.places = _positions(owner, arguments, dtypes)
        self.moved = tuple(
            i
            for i, place in enumerate(arguments.places)
            if place in self.places and inexact(dtypes[i])
        )
        # For each of them its structure, and (place among its leaves, number among all arrays).
        self._parts = {
            place: (arguments.part(place), arguments.arrays_in(place)) for place in self.places
        }
        single = owner.argnums is None and arguments.count == 1 and len(self.places) == 1
        self.bare = isinstance(owner.argnums, int) or single
        # One array alone: nothing to take apart, which is most of the time of a fast function.
        self._whole = self.bare and all(
            jax.tree_util.treedef_is_leaf(tree) for tree, _ in self._parts.values()
        )

    def learn(self, y: Sequence[Any]) -> None:
        """See the arrays of an output: which have derivatives, and the shapes of the others."""
        self.floating = tuple(i for i, a in enumerate(y) if inexact(a.dtype))
        self.rest = [np.zeros(a.shape) for a in y]
        self.fun = self.fun.keeping(self.floating)

    @property
    def given(self) -> dict[str, Callable[..., Any] | None]:
        """The derivatives, by the names under which a ``Gradiator`` takes them."""
        owner = self.owner
        return {
            "grad_fun": owner.grad_fun and self.grad,
            "jvp_fun": owner.jvp_fun and self.jvp,
            "jac_fun": owner.jac_fun and self.jac,
        }

    def grad(self, x: Any, v: Any, *context: Any) -> Any:
        """v^T J, for the arrays moved."""
        point, kwargs = self._point(x)
        assert self.owner.grad_fun is not None
        out = self.owner.grad_fun(point, self._like_y(v), *context, **kwargs)
        return pack(self._x_leaves(out, "grad_fun"))

    def jvp(self, x: Any, u: Any, *context: Any) -> Any:
        """J u, for tangents of the arrays moved."""
        point, kwargs = self._point(x)
        assert self.owner.jvp_fun is not None
        out = self.owner.jvp_fun(point, self._like_x(u, x), *context, **kwargs)
        return pack(self._y_leaves(out, "jvp_fun"))

    def jac(self, x: Any, *context: Any) -> Any:
        """The Jacobian: for each floating output one block for each array moved."""
        point, kwargs = self._point(x)
        assert self.owner.jac_fun is not None
        out = self.owner.jac_fun(point, *context, **kwargs)
        if len(self.floating) == 1 and len(self.moved) == 1 and not isinstance(out, tuple | dict):
            return out
        rows = self._y_leaves(out, "jac_fun")
        return pack([pack(self._x_leaves(row, "jac_fun")) for row in rows])

    def nested(self, x: Any, v: Any, w: Any) -> Any:
        """The Hessian of v . f times w, by the backward pass of ``grad_fun``."""
        point, kwargs = self._point(x)
        if kwargs:
            raise NotImplementedError(
                "a grad_fun with a backward pass of its own takes no keyword arguments; give all "
                "arguments by position"
            )
        hessian, _ = exact_nested_vjp(self.owner, point, self._like_y(v), self._like_x(w, x))
        return pack(self._x_leaves(hessian, "the backward pass of grad_fun"))

    def _point(self, x: Any) -> tuple[Any, dict[str, Any]]:
        args, kwargs = self.arguments.rebuild(unpack(x))
        return (args[0] if len(args) == 1 else args), kwargs

    def _like_y(self, v: Any) -> Any:
        if jax.tree_util.treedef_is_leaf(self.fun.tree):
            return v
        leaves = list(self.rest)
        for i, item in zip(self.floating, unpack(v), strict=True):
            leaves[i] = item
        return jax.tree.unflatten(self.fun.tree, leaves)

    def _y_leaves(self, out: Any, who: str) -> list[Any]:
        leaves = _up_to(self.fun.tree, out, who, "y")
        return [leaves[i] for i in self.floating]

    def _like_x(self, u: Any, x: Any) -> Any:
        leaves = [np.zeros(np.shape(a)) for a in unpack(x)]
        for i, item in zip(self.moved, unpack(u), strict=True):
            leaves[i] = item
        args, _ = self.arguments.rebuild(leaves)
        found = tuple(args[p] for p in self.places if isinstance(p, int))
        return found[0] if self.bare else found

    def _x_leaves(self, out: Any, who: str) -> list[Any]:
        """The arrays moved, of a value of the structure of the arguments to differentiate by."""
        if self._whole:
            return [out]
        found: dict[int, Any] = {}
        for place, part in zip(self.places, self._by_place(out, who), strict=True):
            tree, numbers = self._parts[place]
            leaves = _up_to(tree, part, who, f"argument {place!r}")
            found |= {i: leaves[k] for k, i in numbers}
        return [found[i] for i in self.moved]

    def _by_place(self, value: Any, who: str) -> Sequence[Any]:
        """The part of ``value`` for each of the arguments to differentiate by."""
        one = len(self.places) == 1
        if self.bare or (one and not (isinstance(value, tuple) and len(value) == 1)):
            return (value,)
        if not isinstance(value, tuple | list) or len(value) != len(self.places):
            raise ValueError(
                f"{who} must be a tuple with one part for each of the arguments "
                f"{list(self.places)}, got {value!r:.60}"
            )
        return value

    def spread(self, value: Any, who: str, sizes: Sequence[int]) -> list[Any]:
        """An option like the arguments to differentiate by as one for each array moved."""
        total = sum(sizes[i] for i in self.moved)
        if isinstance(value, np.ndarray) and value.shape == (total,) and len(self.moved) > 1:
            return np.split(value, np.cumsum([sizes[i] for i in self.moved])[:-1])
        found: dict[int, Any] = {}
        for place, part in zip(self.places, self._by_place(value, who), strict=True):
            tree, numbers = self._parts[place]
            leaves = [part] * tree.num_leaves if one_for_all(part) else _up_to(
                tree, part, who, f"argument {place!r}"
            )  # fmt: skip
            found |= {i: leaves[k] for k, i in numbers}
        return [found[i] for i in self.moved]


def _positions(
    owner: Gradiator, arguments: Arguments, dtypes: Sequence[Any]
) -> tuple[int | str, ...]:
    """The arguments to differentiate by; keywords only where all is estimated."""
    floating = [p for p, t in zip(arguments.places, dtypes, strict=True) if inexact(t)]
    argnums = owner.argnums
    if argnums is None:
        given = (owner.grad_fun, owner.jvp_fun, owner.jac_fun)
        exact = any(function is not None for function in given)
        return tuple(dict.fromkeys(p for p in floating if not (exact and isinstance(p, str))))
    argnums = (argnums,) if isinstance(argnums, int) else argnums
    for i in argnums:
        if i not in floating:
            raise TypeError(
                f"argnums={owner.argnums}, but argument {i} of this call holds no floating-point "
                "array to differentiate by"
            )
    return argnums


def _up_to(tree: Any, value: Any, who: str, like: str) -> list[Any]:
    """The parts of ``value`` at the leaves of ``tree``."""
    try:
        return list(tree.flatten_up_to(value))
    except ValueError as exc:
        raise ValueError(f"{who} must return the structure of {like}, {tree}: {exc}") from None


def options_for(
    options: Mapping[str, Any], where: tuple[int, ...], flat: FlatDerivatives, sizes: Sequence[int]
) -> dict[str, Any]:
    """Options that have a number for each number of x or y, in terms of arrays.

    Parameters
    ----------
    options : mapping
        As the user gave them, like the arguments to differentiate by.
    where : tuple of int
        The arrays to differentiate by.
    flat : FlatDerivatives
    sizes : sequence of int
        Numbers in each array.
    """
    out = dict(options)

    def by_x(value: Any, what: str) -> Any:
        if one_for_all(value):
            return value
        parts = dict(zip(flat.moved, flat.spread(value, f"{what}=", sizes), strict=True))
        return _keyed([parts[i] for i in where])

    for name in LIKE_X:
        if out.get(name) is not None:
            out[name] = by_x(out[name], name)
    limits = out.get("bounds")
    if limits is not None:
        low, high = (limits.lb, limits.ub) if hasattr(limits, "lb") else limits
        out["bounds"] = by_x(low, "lower bound"), by_x(high, "upper bound")
    noise = out.get("noise")
    if noise is not None and not one_for_all(noise) and flat.fun.tree.num_leaves > 1:
        leaves = _up_to(flat.fun.tree, noise, "noise=", "y")
        out["noise"] = _keyed([leaves[i] for i in flat.floating])
    return out


def one_for_all(value: Any) -> bool:
    """Whether an option is one number."""
    return not isinstance(value, Mapping | tuple | list) and np.ndim(value) == 0


def _keyed(parts: list[Any]) -> Any:
    """One part for each of several arrays, as layouts name them."""
    return parts[0] if len(parts) == 1 else {str(k): part for k, part in enumerate(parts)}
