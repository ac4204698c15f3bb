"""Simulators inside deep-learning frameworks.

``gradiator_np.adapters.torch`` and ``gradiator_np.adapters.jax`` each have a ``gradiator`` that
makes a function of NumPy arrays a differentiable one of tensors. They need their framework, and
are imported on use: ``from gradiator_np.adapters.torch import gradiator``.
"""

from importlib import import_module
from types import ModuleType

__all__ = ["jax", "torch"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return __all__
