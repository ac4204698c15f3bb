"""What was learned of noise and steps as plain values, which torch.load takes without trust."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from gradiator_np.adapters.torch._function import TorchFunction
from gradiator_np.designs._adaptive.model.differences import NoiseGrowth
from gradiator_np.designs._adaptive.state import FunctionProfile

KINDS: dict[str, Any] = {kind.__name__: kind for kind in (FunctionProfile, NoiseGrowth)}


def state_of_learned(function: TorchFunction) -> list[Any]:
    """Rows of call, shapes, dtype, inputs and what was learned of them."""
    return [
        [call, *key, _plain(learned)]
        for call, owner in function.owners()
        for key, learned in owner._prepared.learned.items()
    ]


def load_learned(function: TorchFunction, state: Any) -> None:
    """The inverse of ``state_of_learned``."""
    calls: dict[Any, dict[Any, Any]] = {}
    for call, shapes, dtype, where, learned in state:
        where = tuple(where) if isinstance(where, list) else where
        calls.setdefault(call, {})[shapes, dtype, where] = _built(learned)
    function.tell(calls)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        inner = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, **inner}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.item() if isinstance(value, np.generic) else value


def _built(value: Any) -> Any:
    if isinstance(value, dict):
        kind = KINDS[value["kind"]]
        return kind(**{name: _built(item) for name, item in value.items() if name != "kind"})
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else value
