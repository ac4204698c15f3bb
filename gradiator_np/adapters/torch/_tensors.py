"""Tensors and arrays, to and fro; axes that vmap puts in front."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

#: What arrays of each kind of tensor are. NumPy has no bfloat16, and steps in half precision would
#: drown in rounding.
ARRAYS = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.float32,
    torch.bfloat16: np.float32,
    torch.complex128: np.complex128,
    torch.complex64: np.complex64,
    torch.complex32: np.complex64,
}

_BATCHED = torch._C._dispatch_key_parse("Batched")


def is_float(value: Any) -> bool:
    """Whether it is a tensor that one may differentiate by."""
    return torch.is_tensor(value) and (value.is_floating_point() or value.is_complex())


def to_numpy(tensor: Any) -> Any:
    """The array of a tensor, in its memory where that is possible."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.numpy(force=True)


def to_torch(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A copy as a tensor: the caller may change it in place, and fun may reuse its memory."""
    if np.iscomplexobj(value) and not dtype.is_complex:
        raise TypeError(f"complex numbers would lose their imaginary part as {dtype}")
    array = np.asarray(value, dtype=ARRAYS[dtype], order="C")  # strides may be negative
    return torch.tensor(array, dtype=dtype, device=device)


def common_dtype(tensors: Iterable[Any], *, complex_too: bool = False) -> torch.dtype:
    """The dtype of what is computed from several tensors."""
    first, *rest = (t.dtype for t in tensors)
    for dtype in rest:
        first = torch.promote_types(first, dtype)
    return first.to_complex() if complex_too else first


def abstract(tensors: Iterable[Any]) -> bool:
    """Whether tensors have no numbers, or somebody records what is done with them."""
    return torch._C._len_torch_dispatch_stack() > 0 or any(
        t.device.type == "meta" or _has_own_dispatch(type(t)) for t in tensors
    )


def _has_own_dispatch(kind: type) -> bool:
    if kind is torch.Tensor or kind is torch.nn.Parameter:
        return False
    own = getattr(kind, "__torch_dispatch__", None)
    return own is not None and own is not torch._C._disabled_torch_dispatch_impl


def mapped_level() -> int:
    """The level of the vmap of ``is_grads_batched`` and ``vectorize``; 0 outside of it."""
    level: int = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    return level


def is_mapped(tensor: Any) -> bool:
    """Whether a tensor is one of that vmap."""
    return bool(torch._C._dispatch_keys(tensor).has(_BATCHED))


def on_leading_axes(
    product: Callable[[tuple[Any, ...]], tuple[Any, ...]],
    directions: tuple[Any, ...],
    lead: int,
    one_by_one: bool,
) -> tuple[Any, ...]:
    """A product with arrays that have ``lead`` axes of several directions in front.

    ``product`` takes one axis of several itself unless it must get them ``one_by_one``.
    """
    if lead == 0 or (lead == 1 and not one_by_one):
        return product(directions)
    shape = directions[0].shape[:lead]
    flat = tuple(a.reshape(-1, *a.shape[lead:]) for a in directions)
    if one_by_one and len(flat[0]):
        rows = [product(row) for row in zip(*flat, strict=True)]
        out = tuple(np.stack(column) for column in zip(*rows, strict=True))
    elif one_by_one:  # the shapes of what there is none of
        some = product(tuple(np.zeros(a.shape[1:], a.dtype) for a in flat))
        out = tuple(np.zeros((0, *np.shape(a)), np.asarray(a).dtype) for a in some)
    else:
        out = product(flat)
    return tuple(np.reshape(a, shape + np.shape(a)[1:]) for a in out)


def filled(given: Any, like: Any, lead: tuple[int, ...] = ()) -> tuple[Any, ...]:
    """Tangents with zeros in place of None."""
    return tuple(
        torch.zeros_like(x).expand((*lead, *x.shape)) if g is None else g
        for g, x in zip(given, like, strict=True)
    )


def spread(few: Iterable[Any], wanted: Iterable[bool]) -> tuple[Any, ...]:
    """One entry for each of ``wanted``, None where it is False."""
    left = iter(few)
    return tuple(next(left) if want else None for want in wanted)


def to_front(tensors: Any, dims: Any, size: int, to: int = 0) -> tuple[Any, ...]:
    """Batch axes moved to place ``to``; made where there are none."""
    return tuple(
        t.unsqueeze(to).expand((*t.shape[:to], size, *t.shape[to:]))
        if d is None
        else t.movedim(d, to)
        for t, d in zip(tensors, dims, strict=True)
    )
