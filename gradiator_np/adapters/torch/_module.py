"""Simulators as layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gradiator_np.adapters.torch._function import gradiator


class Module(torch.nn.Module):
    """A simulator as a layer without parameters of its own.

    Parameters
    ----------
    fun, *args, **kwargs
        As in ``gradiator``.

    Examples
    --------
    >>> import torch
    >>> from gradiator_np.adapters.torch import Module
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), Module(lambda x: x**2))
    >>> model(torch.ones(3)).shape
    torch.Size([2])
    """

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.function = gradiator(fun, *args, **kwargs)

    def extra_repr(self) -> str:
        """What a model prints of this layer."""
        return repr(self.function)

    def forward(self, *inputs: Any) -> Any:
        """``fun`` of the inputs, differentiable by them.

        Parameters
        ----------
        *inputs : Tensor
            As ``fun`` takes them; others than floating-point tensors are passed on as they are.

        Returns
        -------
        Tensor or tuple of Tensor
            On the device and of the dtype of the first input.
        """
        return self.function(*inputs)
