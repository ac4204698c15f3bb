"""Simulators inside PyTorch: autograd, forward mode, vmap, modules."""

# Function.apply has no types in PyTorch.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import itertools
import operator
import weakref
from collections.abc import Callable
from typing import Any, Unpack

import numpy as np
import torch

from gradiator_np._differentiable import function as core
from gradiator_np._differentiable.function import Gradiator
from gradiator_np._options import AdapterOptions, takes
from gradiator_np.adapters.torch._autograd import Run
from gradiator_np.adapters.torch._call import (
    SITES,
    UNKNOWN,
    Call,
    Family,
    Site,
)
from gradiator_np.adapters.torch._outputs import Outputs, outputs_of, packed
from gradiator_np.adapters.torch._structures import (
    LEAF,
    Arranged,
    ArrangedProduct,
    Skeleton,
    arranged,
    count,
    flat_options,
    is_complex,
)

_NUMBERS = itertools.count()
_OUTSIDE: list[Callable[..., Any]] = []

#: Functions by their numbers, for graphs.
FUNCTIONS: weakref.WeakValueDictionary[str, TorchFunction] = weakref.WeakValueDictionary()


@takes(AdapterOptions)
def gradiator(
    fun: Callable[..., Any],
    grad_fun: Callable[..., Any] | None = None,
    *,
    out: Any = None,
    **options: Unpack[AdapterOptions],
) -> TorchFunction:
    """A function of NumPy arrays as a differentiable function of tensors.

    Parameters
    ----------
    fun, grad_fun, jvp_fun, jac_fun, argnums, context, **options
        As in ``gradiator_np.gradiator``: all of them take and return NumPy arrays. Give
        ``batch_dims=1`` where the first axis of x and y holds independent points: a gradient then
        costs the runs of one point, each of the whole batch.
    out : Tensor, array, or tuple or dict of these, optional
        What ``fun`` returns for one point: its shape. Needed where the first call happens inside
        of ``torch.compile(fullgraph=True)``, ``torch.export`` or with tensors without numbers;
        learned from calls otherwise.

    Returns
    -------
    TorchFunction
        Call it with tensors; inputs that are no floating-point tensors are passed on as they are.

    Notes
    -----
    Inputs may be dicts, tuples and lists of tensors, and may come by keyword; outputs arrays, dicts
    and tuples of them. CPU tensors reach ``fun`` without a copy, in their own dtype (half precision
    as float32); outputs come back on the device of the first input, in the dtype that the inputs
    differentiated by have in common. Only inputs that a backward pass goes on to cost evaluations,
    and it starts from the value of the forward one; a second backward pass through a graph that is
    retained costs none where the Jacobian has no more than 32768 entries.

    Complex tensors are differentiated by their real and imaginary parts, so ``fun`` need not be
    analytic; derivatives given are for real inputs.

    Second derivatives by a cotangent are products with J. Those by x are exact where ``grad_fun``
    is a ``gradiator_np.gradiator`` with a ``grad_fun`` of its own, differences of the derivatives
    that were given, or, where none were, second differences of values: a product with a Hessian
    takes 16 m + 7 evaluations of a smooth function of m inputs, all second derivatives at a point
    at most twice 4 m (m + 1) + 7. Third derivatives are an error.

    In graphs the function is an operator, ``torch.ops.gradiator_np.value``, that knows it by name:
    a graph runs in the process that made it, as long as the function lives.

    Examples
    --------
    >>> import torch
    >>> from gradiator_np.adapters.torch import gradiator
    >>> square = gradiator(lambda x: x**2, lambda x, v: 2 * x * v)
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> square(x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """
    return TorchFunction(core.gradiator(fun, grad_fun, **options), out)


class TorchFunction:
    """A simulator as a function of tensors; made by ``gradiator``.

    Attributes
    ----------
    function : Gradiator
        What is run; ``function.nfev`` counts evaluations.
    out : optional
        As given to ``gradiator``.

    Examples
    --------
    >>> import torch
    >>> from gradiator_np.adapters.torch import gradiator
    >>> product = gradiator(lambda a, b: a * b, method="3-point")
    >>> a = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> product(a, torch.tensor([3.0, 4.0])).sum().backward()
    >>> a.grad.round(decimals=6).tolist()
    [3.0, 4.0]
    """

    def __init__(self, function: Gradiator, out: Any = None) -> None:
        self.function, self.out = function, out
        self._out = None if out is None else _outputs(out)
        self._told: dict[str, Any] = {}
        self._families: dict[Any, Family] = {}
        self._kept: list[Any] = []
        self._number = str(next(_NUMBERS))  # an int would become a symbol of graphs
        FUNCTIONS[self._number] = self

    def __repr__(self) -> str:
        graphs = f", in graphs as {', '.join(s.name for s in self._kept)}" if self._kept else ""
        return f"TorchFunction({self.function!r}{graphs})"

    def __reduce__(self) -> Any:
        # a copy has a name of its own in graphs, and what it learns is its own
        return TorchFunction, (self.function, self.out)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, skeleton = arranged(args, kwargs)
        if torch.compiler.is_compiling():
            return self._traced(leaves, skeleton)
        return self._run(leaves, skeleton)

    def owners(self) -> list[tuple[str, Gradiator]]:
        """The functions over leaves, each with a name of its kind of call."""
        return [(repr(key), family.owner) for key, family in self._families.items()]

    def tell(self, learned: dict[str, Any]) -> None:
        """Start from what others have learned of noise and steps, by names as in ``owners``."""
        self._told = learned
        for key, owner in self.owners():
            owner._prepared.learn(learned.get(key, {}))

    def _run(self, leaves: list[Any], skeleton: Skeleton | None) -> Any:
        """A call with numbers, or one that some mode records."""
        given = tuple([None if isinstance(a, torch.Tensor) else a for a in leaves])
        site = self._site(given, tuple([_kind(a) for a in leaves]), skeleton)
        moved = site.moved
        for i in site.family.held:
            if leaves[i].requires_grad:
                raise TypeError(
                    "an input by keyword requires a gradient, but the derivatives given go by "
                    "positional inputs: pass it by position"
                )
        xs = tuple([leaves[i] for i in moved])
        call = Call(site, {i: leaves[i] for i in site.slots if i not in moved})
        out = Run.apply(call, *xs)
        return packed(call.outputs(xs).structure, iter(out))

    def _traced(self, leaves: list[Any], skeleton: Skeleton | None) -> Any:
        """A call inside of a graph: the operator, with what it needs as constants."""
        tensors = [a for a in leaves if isinstance(a, torch.Tensor)]
        given = tuple([_static(a) for a in leaves])
        kinds = tuple([_kind(a) for a in leaves])
        skip = self.function.batch_dims
        shapes = tuple([tuple([operator.index(n) for n in t.shape[skip:]]) for t in tensors])
        name = _constant(self._number, skeleton, given, kinds)
        if not _ready(name, shapes):
            return _outside()(self, leaves, skeleton)
        out = torch.ops.gradiator_np.value(name, tensors)
        return packed(_structure(name), iter(out))

    def _site(
        self, given: tuple[Any, ...], kinds: tuple[str, ...], skeleton: Skeleton | None
    ) -> Site:
        key = (skeleton, kinds)
        family = self._families.get(key)
        if family is None:
            moved, held = self._moved(given, kinds, skeleton)
            owner = self._owner(skeleton, moved, len(kinds))
            family = Family(owner, moved, self._out, self._kept, held)
            self._families[key] = family
            if repr(key) in self._told:
                owner._prepared.learn(self._told[repr(key)])
        slots = tuple([i for i, kind in enumerate(kinds) if kind])
        return Site(family, given, slots)

    def _moved(
        self, given: tuple[Any, ...], kinds: tuple[str, ...], skeleton: Skeleton | None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The leaves to differentiate by, and those that no derivative given reaches."""
        spans = _spans(skeleton, len(kinds))
        argnums = self.function.argnums
        if argnums is None:
            last = len(kinds)
            if self.function._given() and spans:  # they go by positional inputs
                last = spans[-1][1]
            moved = tuple([i for i in range(last) if kinds[i] == "float"])
            held = tuple([i for i in range(last, len(kinds)) if kinds[i] == "float"])
        else:
            argnums = (argnums,) if isinstance(argnums, int) else argnums
            found: list[int] = []
            for i in argnums:
                here = range(*spans[i]) if i < len(spans) else range(0)
                floats = [j for j in here if kinds[j] == "float"]
                if not floats:
                    got = "nothing" if i >= len(spans) else "a structure without any"
                    if i < len(spans) and len(here) == 1:
                        got = "Tensor" if kinds[here[0]] else type(given[here[0]]).__name__
                    raise TypeError(
                        f"input {i} must be a floating-point tensor to be differentiated by, "
                        f"got {got}"
                    )
                found += floats
            moved, held = tuple(found), ()
        if not moved:
            raise TypeError("no input is a floating-point tensor; call the function itself")
        return moved, held

    def _owner(self, skeleton: Skeleton | None, moved: tuple[int, ...], size: int) -> Gradiator:
        """The function over leaves."""
        function = self.function
        if skeleton is None:
            every = function.argnums is not None or len(moved) == size
            return function if every else function.with_argnums(moved)
        positional = skeleton[2][0][2]
        argnums = function.argnums
        by = tuple(range(len(positional))) if argnums is None else argnums
        by = (by,) if isinstance(by, int) else by
        single = isinstance(argnums, int) or (argnums is None and len(positional) == 1)
        given: dict[str, Any] = dict.fromkeys(("grad_fun", "jvp_fun", "jac_fun"))
        for name in function._given():
            if is_complex(skeleton) or name == "jac_fun":
                what = "complex tensors" if is_complex(skeleton) else "inputs in a structure"
                raise TypeError(
                    f"{name} is not defined for {what}: leave it out, or pass real tensors by "
                    "position"
                )
            given[name] = ArrangedProduct(
                getattr(function, name), skeleton, by, single, moved, name == "jvp_fun"
            )
        owner = function.replace(
            fun=Arranged(function.fun, skeleton),
            argnums=None if len(moved) == size else moved,
            options=flat_options(function.options, skeleton, moved),
            **given,
        )
        owner.selective = function.selective
        owner.counts = function.counts
        return owner


def _constant(number: str, *key: Any) -> str:
    """The name of a call in graphs, a constant of theirs."""
    skeleton, static, kinds = key
    given = tuple(float.fromhex(a) if how == "hex" else a for how, a in static)
    return FUNCTIONS[number]._site(given, kinds, skeleton).name


def _ready(name: str, shapes: Any) -> bool:
    """Whether the outputs of a call are known before it runs, a constant of graphs."""
    site = SITES[name]
    return site.knows(tuple(shapes[i] for i in site.at_work))


def _structure(name: str) -> Any:
    """The structure of the outputs, a constant of graphs."""
    return SITES[name].structure


def _outside() -> Callable[..., Any]:
    """``TorchFunction._run`` where the graph of a compiled model breaks around it."""
    if not _OUTSIDE:  # made late: it imports two seconds of compiler
        _OUTSIDE.append(torch.compiler.disable(TorchFunction._run, reason=UNKNOWN))
    return _OUTSIDE[0]


# What torch.compiler.assume_constant_result does, without the two seconds of its imports.
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]
_ready._dynamo_marked_constant = True  # type: ignore[attr-defined]
_structure._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _static(leaf: Any) -> tuple[str, Any]:
    """A leaf that is no tensor, as a constant of a graph.

    torch.compile makes numbers that change from call to call symbols; these ways of asking for one
    make it a constant again.
    """
    if isinstance(leaf, torch.Tensor):
        return ("", None)
    if isinstance(leaf, bool) or not isinstance(leaf, int | float):
        return ("", leaf)
    return ("", operator.index(leaf)) if isinstance(leaf, int) else ("hex", leaf.hex())


def _kind(leaf: Any) -> str:
    """What a leaf is, as far as derivatives go: '' for one that is no tensor."""
    if not isinstance(leaf, torch.Tensor):
        return ""
    if not (leaf.is_floating_point() or leaf.is_complex()):
        return "tensor"
    return "float"


def _spans(skeleton: Skeleton | None, size: int) -> list[tuple[int, int]]:
    """Where the leaves of each positional input begin and end."""
    parts = (LEAF,) * size if skeleton is None else skeleton[2][0][2]
    spans, start = [], 0
    for part in parts:
        spans.append((start, start + count(part)))
        start += count(part)
    return spans


def _outputs(out: Any) -> Outputs:
    """What the caller says of the outputs: anything with a shape, in a structure."""

    def described(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: described(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return tuple(map(described, value))
        if not hasattr(value, "shape"):
            raise TypeError(
                f"out must be a tensor or an array of the shape of the output (or a tuple or dict "
                f"of them), got {type(value).__name__}"
            )
        kind = np.complex128 if "complex" in str(value.dtype) else np.float64
        return np.broadcast_to(np.zeros((), kind), tuple(value.shape))

    return outputs_of(described(out), 0)
