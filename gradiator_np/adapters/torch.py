"""Simulators inside PyTorch: autograd, forward mode, vmap, modules."""

# Function.apply has no types in PyTorch.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Unpack

import numpy as np

from gradiator_np._differentiable.function import Gradiator
from gradiator_np._differentiable.point import Argnums, DifferentiablePoint
from gradiator_np._options import GradiatorOptions, takes

try:
    import torch
except ImportError as exc:
    raise ImportError(
        "gradiator_np.adapters.torch needs PyTorch: pip install 'gradiator-np[torch]'"
    ) from exc

from gradiator_np.adapters._tensors import (
    as_tuple,
    filled,
    is_float,
    only,
    several,
    to_front,
    to_numpy,
    to_torch,
)

__all__ = ["Module", "TorchFunction", "gradiator"]

#: TorchFunction._run where a compiled model breaks its graph; filled late, since
#: torch.compiler.disable imports two seconds of compiler. (Dynamo warns of functools.cache.)
_OUTSIDE: list[Callable[..., Any]] = []


@takes(GradiatorOptions)
def gradiator(
    fun: Callable[..., Any],
    grad_fun: Callable[..., Any] | None = None,
    *,
    jvp_fun: Callable[..., Any] | None = None,
    jac_fun: Callable[..., Any] | None = None,
    argnums: Argnums = None,
    context: bool = False,
    **estimation_options: Unpack[GradiatorOptions],
) -> TorchFunction:
    """A function of NumPy arrays as a differentiable function of tensors.

    Parameters
    ----------
    fun, grad_fun, jvp_fun, jac_fun, argnums, context, **estimation_options
        As in ``gradiator_np.gradiator``: all of them take and return NumPy arrays.

    Returns
    -------
    TorchFunction
        Call it with tensors; inputs that are no floating-point tensors are passed on as they are.

    Notes
    -----
    CPU tensors reach ``fun`` without a copy, in their own dtype (half precision as float32);
    outputs come back in the dtype and on the device of the first input. Only inputs that require
    a gradient cost evaluations, and the backward pass starts from the value of the forward one.
    Second derivatives need ``grad_fun``; without it they raise an error.

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
    return TorchFunction(
        Gradiator(
            fun,
            grad_fun,
            jvp_fun=jvp_fun,
            jac_fun=jac_fun,
            argnums=argnums,
            context=context,
            options=estimation_options,
        )
    )


class TorchFunction:
    """A simulator as a function of tensors; made by ``gradiator``.

    Attributes
    ----------
    function : Gradiator
        What is run; ``function.nfev`` counts evaluations.

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

    def __init__(self, function: Gradiator) -> None:
        self.function = function

    def __repr__(self) -> str:
        return f"TorchFunction({self.function!r})"

    def __call__(self, *inputs: Any) -> Any:
        if "torch._dynamo" in sys.modules:
            if not _OUTSIDE:
                _OUTSIDE.append(torch.compiler.disable(TorchFunction._run))
            return _OUTSIDE[0](self, *inputs)
        return self._run(*inputs)

    def _run(self, *inputs: Any) -> Any:
        moved = self.function.argnums
        if moved is None:
            moved = tuple(i for i, a in enumerate(inputs) if is_float(a))
        elif isinstance(moved, int):
            moved = (moved,)
        for i in moved:
            if i >= len(inputs) or not is_float(inputs[i]):
                got = type(inputs[i]).__name__ if i < len(inputs) else "nothing"
                raise TypeError(
                    f"input {i} must be a floating-point tensor to be differentiated by, got {got}"
                )
        if not moved:
            raise TypeError("no input is a floating-point tensor; call the function itself")
        rest = tuple(
            to_numpy(a) if torch.is_tensor(a) and i not in moved else a
            for i, a in enumerate(inputs)
        )
        return _Value.apply(_Call(self.function, rest, moved), *(inputs[i] for i in moved))


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


class _Call:
    """One call of a function: what its forward run leaves for the products with its Jacobian.

    ``inner`` is the call over a whole batch, where ``vmap`` turned this one into it.
    """

    def __init__(self, owner: Gradiator, inputs: tuple[Any, ...], moved: tuple[int, ...]) -> None:
        if owner.argnums is None and len(moved) < len(inputs):
            owner = owner.with_argnums(moved)
        self.owner, self.inputs, self.moved = owner, inputs, moved
        self.point: DifferentiablePoint | None = None
        self.inner: _Call | None = None

    def at(self, tensors: tuple[Any, ...]) -> DifferentiablePoint:
        """The point of this call; made anew where no forward run has been here."""
        if self.point is None:
            args = list(self.inputs)
            for i, x in zip(self.moved, tensors, strict=True):
                args[i] = to_numpy(x)
            self.point = DifferentiablePoint(self.owner, tuple(args))
        return self.point

    def batched(self) -> _Call:
        """The call for all points of a leading axis."""
        if self.inner is None:
            self.inner = _Call(self.owner.batched(self.moved), self.inputs, self.moved)
        return self.inner


class _Value(torch.autograd.Function):
    """The forward run."""

    @staticmethod
    def forward(call: _Call, *xs: Any) -> Any:
        value = call.at(xs).value
        if isinstance(value, tuple):
            return tuple(to_torch(y, xs[0]) for y in value)
        return to_torch(value, xs[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, *xs = inputs
        ctx.many = isinstance(output, tuple)
        ctx.save_for_backward(*xs)
        ctx.save_for_forward(*xs)

    @staticmethod
    def backward(ctx: Any, *vs: Any) -> Any:
        wanted = tuple(ctx.needs_input_grad[1:])
        vjp = _Vjp.apply if _watched() else _Vjp.forward
        found = iter(vjp(ctx.call, 0, wanted, *ctx.saved_tensors, *vs))
        return None, *(next(found) if want else None for want in wanted)

    @staticmethod
    def jvp(ctx: Any, _: None, *us: Any) -> Any:
        xs = ctx.saved_tensors
        us = tuple(torch.zeros_like(x) if u is None else u for u, x in zip(us, xs, strict=True))
        out = _Jvp.apply(ctx.call, 0, (True,) * len(xs), *xs, *us)
        return out if ctx.many else out[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: _Call, *xs: Any) -> Any:
        out = _Value.apply(call.batched(), *to_front(xs, in_dims[1:], info.batch_size))
        return out, (0,) * len(out) if isinstance(out, tuple) else 0


class _Product(torch.autograd.Function):
    """A product with derivatives at xs, by directions; ``lead`` leading axes hold several of them.

    Arguments of each: the call, lead, which of the inputs are wanted, xs, directions.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, ctx.lead, ctx.wanted, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @classmethod
    def mapped(
        cls, info: Any, in_dims: Any, call: _Call, lead: int, wanted: Any, *tensors: Any
    ) -> Any:
        """The rule of vmap, for all products alike."""
        b, k, dims = info.batch_size, len(wanted), in_dims[3:]
        xs, rest = tensors[:k], tensors[k:]
        if all(d is None for d in dims[:k]):  # several directions at one point
            out = cls.apply(call, lead + 1, wanted, *xs, *to_front(rest, dims[k:], b))
            return out, (0,) * len(out)
        xs = to_front(xs, dims[:k], b)
        rest = to_front(rest, dims[k:], b, lead)
        out = cls.apply(call.batched(), lead, wanted, *xs, *rest)
        return out, (lead,) * len(out)


class _Vjp(_Product):
    """v^T J, for the inputs wanted."""

    @staticmethod
    def forward(call: _Call, lead: int, wanted: tuple[bool, ...], *tensors: Any) -> Any:
        k = len(wanted)
        xs, vs = tensors[:k], tensors[k:]
        point = call.at(xs)
        many = isinstance(point.value, tuple)
        some = not (all(wanted) or point.exact)
        if some:  # evaluations are spent only on what is wanted
            point = point.again(tuple(i for i, w in zip(call.moved, wanted, strict=True) if w))
        found = several(point.pullback, vs, lead, many)
        if not some:
            found = only(found, wanted)
        return tuple(to_torch(g, x) for g, x in zip(found, only(xs, wanted), strict=True))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *ws: Any) -> Any:
        k, needs = len(ctx.wanted), ctx.needs_input_grad[3:]
        xs, vs = ctx.saved_tensors[:k], ctx.saved_tensors[k:]
        ws = filled(ws, ctx.wanted, xs, vs[0].shape[: ctx.lead])
        every = (True,) * k
        by_v: Any = [None] * len(vs)
        by_x: Any = [None] * k
        if any(needs[k:]):
            by_v = _Jvp.apply(ctx.call, ctx.lead, every, *xs, *ws)
        if any(needs[:k]):
            bent = _Curvature.apply(ctx.call, ctx.lead, every, *xs, *vs, *ws)
            by_x = [h.sum(tuple(range(ctx.lead))) if ctx.lead else h for h in bent]
        return None, None, None, *by_x, *by_v

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        k = len(ctx.wanted)
        xs, vs = ctx.saved_tensors[:k], ctx.saved_tensors[k:]
        dxs, dvs = tangents[3 : 3 + k], tangents[3 + k :]
        lead, total = vs[0].shape[: ctx.lead], None
        if any(d is not None for d in dxs):
            ws = filled([d for d in dxs if d is not None], [d is not None for d in dxs], xs, ())
            ws = tuple(w.expand(*lead, *w.shape) for w in ws)
            total = _Curvature.apply(ctx.call, ctx.lead, (True,) * k, *xs, *vs, *ws)
            total = only(total, ctx.wanted)
        if any(d is not None for d in dvs):
            dvs = tuple(torch.zeros_like(v) if d is None else d for d, v in zip(dvs, vs))
            moved = _Vjp.apply(ctx.call, ctx.lead, ctx.wanted, *xs, *dvs)
            total = moved if total is None else tuple(a + b for a, b in zip(total, moved))
        return total

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _Vjp.mapped(info, in_dims, *args)


class _Jvp(_Product):
    """J u."""

    @staticmethod
    def forward(call: _Call, lead: int, wanted: tuple[bool, ...], *tensors: Any) -> Any:
        k = len(wanted)
        xs, us = tensors[:k], tensors[k:]
        point = call.at(xs)
        out = several(point.pushforward, us, lead, not isinstance(point.where, int))
        return tuple(to_torch(t, xs[0]) for t in out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *vs: Any) -> Any:
        k, needs = len(ctx.wanted), ctx.needs_input_grad[3:]
        xs, us = ctx.saved_tensors[:k], ctx.saved_tensors[k:]
        by_u: Any = [None] * k
        by_x: Any = [None] * k
        if any(needs[k:]):
            by_u = _Vjp.apply(ctx.call, ctx.lead, ctx.wanted, *xs, *vs)
        if any(needs[:k]):
            bent = _Curvature.apply(ctx.call, ctx.lead, ctx.wanted, *xs, *vs, *us)
            by_x = [h.sum(tuple(range(ctx.lead))) if ctx.lead else h for h in bent]
        return None, None, None, *by_x, *by_u

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _Jvp.mapped(info, in_dims, *args)


class _Curvature(_Product):
    """The Hessian of v . f times w: what a second derivative needs of the first ones."""

    @staticmethod
    def forward(call: _Call, lead: int, wanted: tuple[bool, ...], *tensors: Any) -> Any:
        if call.owner.grad_fun is None:
            raise RuntimeError(
                "second derivatives through gradiator need grad_fun: give "
                "gradiator(fun, grad_fun); without it they would be differences of differences"
            )
        k = len(wanted)
        xs, rest = tensors[:k], tensors[k:]
        point = call.at(xs)
        outputs = isinstance(point.value, tuple)
        inputs = not isinstance(point.where, int)

        def product(both: tuple[Any, ...]) -> Any:
            v, w = both[:-k], both[-k:]
            x = point.args if len(point.args) > 1 else point.args[0]
            hessian, _ = call.owner.nested_vjp(x, v if outputs else v[0], w if inputs else w[0])
            return hessian

        if lead == 0:
            out = as_tuple(product(tuple(to_numpy(t) for t in rest)))
        else:
            rows = zip(*(to_numpy(t.flatten(0, lead - 1)) for t in rest), strict=True)
            columns = zip(*(as_tuple(product(row)) for row in rows), strict=True)
            shape = rest[0].shape[:lead]
            out = tuple(np.stack(c).reshape(*shape, *np.shape(c[0])) for c in columns)
        return tuple(to_torch(h, x) for h, x in zip(out, xs, strict=True))

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError("gradiator has no third derivatives")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _Curvature.mapped(info, in_dims, *args)


def _watched() -> bool:
    """Whether what a backward pass does may be differentiated, dual or mapped itself.

    Where it is not, Function.apply would only cost time, some 40 microseconds.
    """
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )
