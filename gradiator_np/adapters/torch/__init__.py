"""Simulators inside PyTorch: autograd, forward mode, vmap, graphs, modules."""

try:
    import torch as _torch  # noqa: F401
except ImportError as exc:
    raise ImportError(
        "gradiator_np.adapters.torch needs PyTorch: pip install 'gradiator-np[torch]'"
    ) from exc

from gradiator_np.adapters.torch._function import TorchFunction, gradiator
from gradiator_np.adapters.torch._module import Module

__all__ = ["Module", "TorchFunction", "gradiator"]
