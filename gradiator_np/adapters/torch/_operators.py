"""Simulators as operators of torch: what graphs (compile, export, make_fx) hold of them.

``gradiator_np::value(site, inputs)`` runs the simulator that this process knows by the name
``site``; ``gradiator_np::product`` is a product with its derivatives (see ``_rules``). Inputs are
all tensors of a call, those among them that are not differentiated by included.
"""

from __future__ import annotations

from typing import Any

import torch

from gradiator_np.adapters.torch import _rules as rules
from gradiator_np.adapters.torch._call import SITES, Site
from gradiator_np.adapters.torch._tensors import spread, to_front

VALUE = "(str site, Tensor[] inputs) -> Tensor[]"
PRODUCT = (
    "(str site, str kind, int lead, bool[] wanted, Tensor[] inputs, Tensor[] directions)"
    " -> Tensor[]"
)


def _site(name: str) -> Site:
    site = SITES.get(name)
    if site is None:
        raise RuntimeError(
            f"the simulator {name!r} is not known here: a graph holds its name, and runs only in "
            "the process that made it, as long as the function made by gradiator lives"
        )
    return site


def _moved(site: Site, tensors: Any) -> tuple[Any, ...]:
    return tuple(tensors[i] for i in site.at_work)


def _value(site: str, inputs: list[Any]) -> list[Any]:
    here = _site(site)
    tensors = tuple(t.detach() for t in inputs)
    xs, call = _moved(here, tensors), here.recent(tensors)
    expected = here.foreseen(xs)
    out = call.value(xs)
    if expected is not None and call.outputs(xs) != expected:
        raise RuntimeError(
            f"fun returned {call.outputs(xs).words}, but a graph was made for {expected.words}, "
            "what it returned at these shapes before"
        )
    return list(out)


def _product(
    site: str, kind: str, lead: int, wanted: list[bool], inputs: list[Any], directions: list[Any]
) -> list[Any]:
    here = _site(site)
    tensors = tuple(t.detach() for t in inputs)
    call, moved = here.recent(tensors), _moved(here, tensors)
    along = tuple(d.detach() for d in directions)
    return list(call.product(kind, lead, tuple(wanted), moved, along))


value: Any = torch.library.custom_op("gradiator_np::value", _value, mutates_args=(), schema=VALUE)
product: Any = torch.library.custom_op(
    "gradiator_np::product", _product, mutates_args=(), schema=PRODUCT
)


# -- without numbers -----------------------------------------------------------------------------


@value.register_fake
def _(site: str, inputs: list[Any]) -> list[Any]:
    here = _site(site)
    return here.unfilled("value", _moved(here, inputs))


@product.register_fake
def _(
    site: str, kind: str, lead: int, wanted: list[bool], inputs: list[Any], directions: list[Any]
) -> list[Any]:
    here = _site(site)
    return here.unfilled(kind, _moved(here, inputs), directions[0].shape[:lead], wanted)


# -- derivatives ---------------------------------------------------------------------------------


def _applied(site: str, inputs: list[Any]) -> rules.Apply:
    here = _site(site)

    def apply(kind: str, lead: int, wanted: Any, xs: Any, directions: Any) -> tuple[Any, ...]:
        tensors = list(inputs)
        for i, x in zip(here.at_work, xs, strict=True):
            tensors[i] = x
        return tuple(product(site, kind, lead, list(wanted), tensors, list(directions)))

    return apply


def _among(site: Site, inputs: list[Any], found: Any) -> list[Any]:
    """Cotangents of all tensors, from those of what is differentiated by."""
    out: list[Any] = [None] * len(inputs)
    for i, g in zip(site.at_work, found, strict=True):
        out[i] = g
    return out


def _keep_value(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.site, tensors = inputs
    ctx.like = [(t.shape, t.dtype, t.device) for t in output]
    ctx.save_for_backward(*tensors)


def _pull_value(ctx: Any, cotangents: Any) -> Any:
    here, inputs = _site(ctx.site), list(ctx.saved_tensors)
    xs = _moved(here, inputs)
    vs = _without_gaps(cotangents, ctx.like)
    needs = ctx.needs_input_grad[1]
    wanted = tuple(needs[i] for i in here.at_work)
    found = _applied(ctx.site, inputs)("vjp", 0, wanted, xs, vs)
    return None, _among(here, inputs, spread(found, wanted))


def _keep_product(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.site, ctx.kind, ctx.lead, ctx.wanted, tensors, directions = inputs
    ctx.like = [(t.shape, t.dtype, t.device) for t in output]
    ctx.count = len(tensors)
    ctx.save_for_backward(*tensors, *directions)


def _pull_product(ctx: Any, cotangents: Any) -> Any:
    saved = ctx.saved_tensors
    inputs, directions = list(saved[: ctx.count]), tuple(saved[ctx.count :])
    here = _site(ctx.site)
    xs = _moved(here, inputs)
    cotangents = _without_gaps(cotangents, ctx.like)
    of_inputs, of_directions = ctx.needs_input_grad[4:]
    needs = tuple(of_inputs[i] for i in here.at_work) + tuple(of_directions)
    if ctx.kind in rules.SECOND and any(needs[: len(xs)]):
        raise NotImplementedError(rules.THIRD)
    by_x, by_directions = rules.pull(
        _applied(ctx.site, inputs), ctx.kind, ctx.lead, tuple(ctx.wanted), xs, directions,
        cotangents, needs,
    )  # fmt: skip
    return None, None, None, None, _among(here, inputs, by_x), by_directions


def _without_gaps(cotangents: Any, like: Any) -> tuple[Any, ...]:
    return tuple(
        torch.zeros(shape, dtype=dtype, device=device) if c is None else c
        for c, (shape, dtype, device) in zip(cotangents, like, strict=True)
    )


value.register_autograd(_pull_value, setup_context=_keep_value)
product.register_autograd(_pull_product, setup_context=_keep_product)


# -- vmap ----------------------------------------------------------------------------------------


@value.register_vmap
def _(info: Any, in_dims: Any, site: str, inputs: list[Any]) -> Any:
    here = _site(site)
    tensors = _batched_inputs(here, info, in_dims[1], inputs)
    out = value(here.batched().name, tensors)
    return out, [0] * len(out)


@product.register_vmap
def _(
    info: Any,
    in_dims: Any,
    site: str,
    kind: str,
    lead: int,
    wanted: list[bool],
    inputs: list[Any],
    directions: list[Any],
) -> Any:
    here, dims = _site(site), in_dims[5]
    if all(d is None for d in in_dims[4]):
        several = list(to_front(directions, dims, info.batch_size))
        out = product(site, kind, lead + 1, wanted, inputs, several)
        return out, [0] * len(out)
    tensors = _batched_inputs(here, info, in_dims[4], inputs)
    each = list(to_front(directions, dims, info.batch_size, lead))
    out = product(here.batched().name, kind, lead, wanted, tensors, each)
    return out, [lead] * len(out)


def _batched_inputs(site: Site, info: Any, dims: Any, inputs: list[Any]) -> list[Any]:
    out = list(inputs)
    for i, (t, d) in enumerate(zip(inputs, dims, strict=True)):
        if i in site.at_work:
            (out[i],) = to_front((t,), (d,), info.batch_size)
        elif d is not None:
            raise NotImplementedError(
                f"vmap over input {site.slots[i]}, which is not differentiated by: make it a "
                "floating-point tensor"
            )
    return out
