"""The functions that autograd and functorch know: the run, and products with its derivatives."""

# Function.apply has no types in PyTorch.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

import torch

from gradiator_np.adapters.torch import _operators as operators
from gradiator_np.adapters.torch import _rules as rules
from gradiator_np.adapters.torch._call import Call
from gradiator_np.adapters.torch._tensors import (
    abstract,
    filled,
    is_mapped,
    mapped_level,
    spread,
    to_front,
)


class Run(torch.autograd.Function):
    """The forward run. Arguments: the call, xs."""

    @staticmethod
    def forward(call: Call, *xs: Any) -> Any:
        tensors = call.tensors(xs)
        if abstract(tensors):
            return tuple(operators.value(call.site.name, tensors))
        return call.value(xs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.call, *xs = inputs
        ctx.save_for_backward(*xs)
        ctx.save_for_forward(*xs)

    @staticmethod
    def backward(ctx: Any, *vs: Any) -> Any:
        wanted = _asked(ctx, ctx.needs_input_grad[1:])
        if not any(wanted):
            return None, *(None for _ in wanted)
        found = apply(ctx.call)("vjp", 0, wanted, ctx.saved_tensors, vs)
        return None, *spread(found, wanted)

    @staticmethod
    def jvp(ctx: Any, _: None, *us: Any) -> Any:
        xs = ctx.saved_tensors
        return apply(ctx.call)("jvp", 0, (True,) * len(xs), xs, filled(us, xs))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: Call, *xs: Any) -> Any:
        out = Run.apply(call.batched(), *to_front(xs, in_dims[1:], info.batch_size))
        return out, (0,) * len(out)


class Product(torch.autograd.Function):
    """A product of ``_rules``. Arguments: the call, its kind, lead, wanted, xs, directions."""

    @staticmethod
    def forward(call: Call, kind: str, lead: int, wanted: tuple[bool, ...], *tensors: Any) -> Any:
        k = len(wanted)
        level = mapped_level()
        if level and any(map(is_mapped, tensors)):
            return _mapped(level, call, kind, lead, wanted, tensors)
        xs, directions = tensors[:k], tensors[k:]
        if abstract(tensors):
            return tuple(
                operators.product(
                    call.site.name, kind, lead, list(wanted), call.tensors(xs), list(directions)
                )
            )
        return call.product(kind, lead, wanted, xs, directions)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.call, ctx.kind, ctx.lead, ctx.wanted, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        needs, k = _asked(ctx, ctx.needs_input_grad[4:]), len(ctx.wanted)
        xs, directions = ctx.saved_tensors[:k], ctx.saved_tensors[k:]
        if ctx.kind in rules.SECOND and any(needs[:k]):
            # Only an engine that goes on to x asks for it; the gate of ``apply`` says no there.
            by_x: list[Any] = [torch.zeros_like(x) for x in xs]
            needs = (False,) * k + needs[k:]
            _, by_directions = rules.pull(
                apply(ctx.call), ctx.kind, ctx.lead, ctx.wanted, xs, directions, cotangents, needs
            )
        else:
            by_x, by_directions = rules.pull(
                apply(ctx.call), ctx.kind, ctx.lead, ctx.wanted, xs, directions, cotangents, needs
            )
        return None, None, None, None, *by_x, *by_directions

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        k = len(ctx.wanted)
        xs, directions = ctx.saved_tensors[:k], ctx.saved_tensors[k:]
        dxs, changes = tangents[4 : 4 + k], tangents[4 + k :]
        return rules.push(
            apply(ctx.call), ctx.kind, ctx.lead, ctx.wanted, xs, directions, dxs, changes
        )

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        call: Call,
        kind: str,
        lead: int,
        wanted: tuple[bool, ...],
        *tensors: Any,
    ) -> Any:
        b, k, dims = info.batch_size, len(wanted), in_dims[4:]
        xs, rest = tensors[:k], tensors[k:]
        if all(d is None for d in dims[:k]):  # several directions at one point
            out = apply(call)(kind, lead + 1, wanted, xs, to_front(rest, dims[k:], b))
            return out, (0,) * len(out)
        xs = to_front(xs, dims[:k], b)
        rest = to_front(rest, dims[k:], b, lead)
        out = apply(call.batched())(kind, lead, wanted, xs, rest)
        return out, (lead,) * len(out)


def _mapped(
    level: int,
    call: Call,
    kind: str,
    lead: int,
    wanted: tuple[bool, ...],
    tensors: tuple[Any, ...],
) -> tuple[Any, ...]:
    """A product under the vmap of ``is_grads_batched`` and ``vectorize``, which is not functorch's.

    Its tensors know no vmap of a Function: directions come out of it, and results go back in.
    """
    k = len(wanted)
    if any(map(is_mapped, tensors[:k])):
        raise NotImplementedError(
            "is_grads_batched and vectorize map over directions, not over inputs; use torch.func"
        )
    (size, *_) = (torch._remove_batch_dim(t, level, 1, 0).shape[0] for t in tensors if is_mapped(t))
    out = [torch._remove_batch_dim(t, level, size, 0) for t in tensors[k:]]
    found = Product.forward(call, kind, lead + 1, wanted, *tensors[:k], *out)
    return tuple(torch._add_batch_dim(a, 0, level) for a in found)


class _Gate(torch.autograd.Function):
    """An input of a second derivative: whoever wants a third one meets an error, no zero."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(rules.THIRD)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(rules.THIRD)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any) -> Any:
        return _Gate.apply(x), in_dims[0]


def apply(call: Call) -> rules.Apply:
    """Products at a call, as autograd sees them."""

    def product(kind: str, lead: int, wanted: Any, xs: Any, directions: Any) -> tuple[Any, ...]:
        wanted = tuple(wanted)
        if not _watched():
            # Function.apply would only cost time, some 40 microseconds.
            return tuple(Product.forward(call, kind, lead, wanted, *xs, *directions))
        if kind in rules.SECOND:
            xs = tuple(_Gate.apply(x) for x in xs)
        return tuple(Product.apply(call, kind, lead, wanted, *xs, *directions))

    return product


def _watched() -> bool:
    """Whether what a backward pass does may be differentiated, dual or mapped itself."""
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


def _asked(ctx: Any, needs: tuple[bool, ...]) -> tuple[bool, ...]:
    """Which cotangents this backward pass will use, of those that could be needed.

    ``needs_input_grad`` tells what the forward pass knew; grad(y, a) does not go on to b.
    """
    if sum(needs) < 2:
        return tuple(needs)
    try:
        nodes = ctx.next_functions
        if len(nodes) != len(needs):
            return tuple(needs)
        return tuple(
            need and (node is None or _goes_on_to(node))
            for need, (node, _) in zip(needs, nodes, strict=True)
        )
    except (AttributeError, RuntimeError):  # no engine at work, or another release of torch
        return tuple(needs)


def _goes_on_to(node: Any) -> bool:
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # a leaf that the caller named: asked for
        return True
