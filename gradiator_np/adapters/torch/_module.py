"""Simulators as layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from gradiator_np.adapters.torch._function import TorchFunction, gradiator
from gradiator_np.adapters.torch._state import load_learned, state_of_learned


class Module(torch.nn.Module):
    """A simulator as a layer, with parameters of its own where ``params`` names some.

    Parameters
    ----------
    fun, *args, **kwargs
        As in ``gradiator``.
    params : mapping of str to array_like or Tensor, optional
        Parameters of the simulator to be learned: ``fun`` gets them by keyword, derivatives given
        as further inputs, ``grad_fun((x, *params), v) -> (g_x, *g_params)``. In a batch
        (``batch_dims``) each has the axes of the batch in front, as x has; autograd adds up.

    Attributes
    ----------
    function : TorchFunction
    params : torch.nn.ParameterDict

    Notes
    -----
    ``state_dict`` holds, beside the parameters, what the noise-aware default has learned of noise
    and steps: a model that is loaded spends as few evaluations as the one that was saved.

    Examples
    --------
    >>> import torch
    >>> from gradiator_np.adapters.torch import Module
    >>> spring = Module(lambda x, stiffness: stiffness * x, params={"stiffness": 2.0})
    >>> torch.nn.Sequential(torch.nn.Linear(3, 2), spring)(torch.ones(3)).shape
    torch.Size([2])
    >>> sorted(spring.state_dict())
    ['_extra_state', 'params.stiffness']
    """

    function: TorchFunction

    def __init__(
        self,
        fun: Callable[..., Any],
        *args: Any,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        params = params or {}
        made = gradiator(fun, *args, **kwargs)
        if params:
            if made.function.argnums is not None:
                raise TypeError("argnums leaves out the params; give one of the two")
            own = made.function.replace(fun=_Named(made.function.fun, tuple(params)))
            made = TorchFunction(own, made.out)
        self.function = made
        self._names = tuple(params)
        self.params = torch.nn.ParameterDict()
        for name, value in params.items():  # ParameterDict sorts what it is given as a dict
            self.params[name] = torch.nn.Parameter(torch.as_tensor(value).detach().clone())

    def extra_repr(self) -> str:
        """What a model prints of this layer."""
        return repr(self.function)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """``fun`` of the inputs and of the parameters, differentiable by both.

        Parameters
        ----------
        *inputs : Tensor
            As ``fun`` takes them; others than floating-point tensors are passed on as they are.
        **named
            Inputs by keyword.

        Returns
        -------
        Tensor, or tuple or dict of Tensor
            On the device of the first input, of the dtype that the inputs have in common.
        """
        batch = self.function.function.batch_dims
        own = tuple(self.params[name] for name in self._names)
        if batch and own:
            lead = next(x.shape[:batch] for x in inputs if isinstance(x, torch.Tensor))
            own = tuple(p.expand((*lead, *p.shape)) for p in own)
        return self.function(*inputs, *own, **named)

    def get_extra_state(self) -> Any:
        """What was learned of noise and steps, for ``state_dict``."""
        return state_of_learned(self.function)

    def set_extra_state(self, state: Any) -> None:
        """Start from what another model has learned."""
        load_learned(self.function, state)


class _Named:
    """A function whose last positional inputs go on by keyword; picklable if ``fun`` is."""

    def __init__(self, fun: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.fun, self.names = fun, names
        self.__qualname__ = str(getattr(fun, "__qualname__", type(fun).__name__))

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        cut = len(inputs) - len(self.names)
        return self.fun(*inputs[:cut], **named, **dict(zip(self.names, inputs[cut:], strict=True)))
