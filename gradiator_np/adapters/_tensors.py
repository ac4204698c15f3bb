"""Tensors and arrays, to and fro; axes that vmap puts in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

#: NumPy has no bfloat16, and steps in half precision would drown in rounding.
_HALVES = (torch.bfloat16, torch.float16)


def several(product: Callable[[Any], Any], directions: Any, lead: int, many: bool) -> Any:
    """A product with directions that have ``lead`` leading axes, as a tuple of arrays."""
    arrays = tuple(to_numpy(d) for d in directions)
    shape = arrays[0].shape[:lead]
    if lead > 1:
        arrays = tuple(a.reshape(-1, *a.shape[lead:]) for a in arrays)
    out = as_tuple(product(arrays if many else arrays[0]))
    return tuple(np.reshape(a, shape + np.shape(a)[1:]) for a in out) if lead > 1 else out


def filled(given: Any, wanted: Any, xs: Any, lead: Any) -> tuple[Any, ...]:
    """One direction for each input: zeros for those that have none."""
    left = iter(given)
    return tuple(
        next(left) if want else torch.zeros_like(x).expand(*lead, *x.shape)
        for want, x in zip(wanted, xs, strict=True)
    )


def to_front(tensors: Any, dims: Any, size: int, to: int = 0) -> tuple[Any, ...]:
    """Batch axes moved to place ``to``; made where there are none."""
    return tuple(
        t.unsqueeze(to).expand(*t.shape[:to], size, *t.shape[to:])
        if d is None
        else t.movedim(d, to)
        for t, d in zip(tensors, dims, strict=True)
    )


def only(items: Any, wanted: Any) -> tuple[Any, ...]:
    return tuple(item for item, want in zip(items, wanted, strict=True) if want)


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def is_float(value: Any) -> bool:
    return torch.is_tensor(value) and value.is_floating_point()


def to_numpy(tensor: Any) -> Any:
    tensor = tensor.detach()
    if tensor.dtype in _HALVES:
        tensor = tensor.float()
    return tensor.cpu().numpy()


def to_torch(value: Any, like: Any) -> Any:
    """A copy as a tensor: the caller may change it in place, and fun may reuse its memory."""
    a = np.asarray(value)
    dtype = like.dtype
    if a.dtype.kind == "c":
        dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return torch.tensor(a, dtype=dtype, device=like.device)
