"""Several inputs and outputs, as tuples: what the layouts of dicts do not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._structure import Layout


class PartialFunction:
    """A function of several inputs as one of some of them; picklable if ``fun`` is.

    Attributes
    ----------
    where : int or tuple of int
        The inputs that it is a function of; the others are those of ``bind``.
    """

    def __init__(
        self, fun: Callable[..., Any], args: tuple[Any, ...], where: Any, context: bool
    ) -> None:
        self.fun, self.where, self.context = fun, where, context
        self.bind(args)

    def bind(self, args: tuple[Any, ...]) -> None:
        """Hold the other inputs at those of ``args``."""
        self.args = args

    def __call__(self, z: Any) -> Any:
        args = list(self.args)
        if isinstance(self.where, int):
            args[self.where] = shaped_like(z, args[self.where])
        else:
            for i, item in zip(self.where, z.values(), strict=True):
                args[i] = shaped_like(item, args[i])
        out = self.fun(*args)
        return tree(out[0] if self.context else out)


def name_of(fun: Callable[..., Any]) -> str:
    """What a function is called, for printing."""
    return str(getattr(fun, "__qualname__", type(fun).__name__))


def tree(value: Any) -> Any:
    """Tuples as dicts, at every level: what layouts understand."""
    if isinstance(value, tuple):
        return {str(i): tree(item) for i, item in enumerate(value)}
    if isinstance(value, Mapping):
        return {key: tree(item) for key, item in value.items()}
    return value


def has_tuples(value: Any) -> bool:
    """Whether ``tree`` would change something."""
    if isinstance(value, Mapping):
        return any(map(has_tuples, value.values()))
    return isinstance(value, tuple)


def shaped_like(value: Any, template: Any) -> Any:
    """The inverse of ``tree``: dicts as tuples where ``template`` has those."""
    if isinstance(template, tuple):
        return tuple(map(shaped_like, value.values(), template))
    if isinstance(template, Mapping):
        return {key: shaped_like(value[key], item) for key, item in template.items()}
    return value


def untree(value: Any, to_tuple: bool) -> Any:
    """The inverse of ``tree`` for one level of tuples."""
    return tuple(value.values()) if to_tuple else value


def rows_of(value: Any) -> list[Any]:
    """Several values on a leading axis, one by one."""
    if isinstance(value, Mapping):
        columns = [rows_of(item) for item in value.values()]
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(value, tuple):
        return list(zip(*map(rows_of, value), strict=True))
    return list(value)


def stacked(rows: list[Any]) -> Any:
    """Several values of one structure as one with a leading axis: the inverse of ``rows_of``."""
    if isinstance(rows[0], Mapping):
        return {key: stacked([row[key] for row in rows]) for key in rows[0]}
    if rows[0] is None:  # an input that was not wanted
        return None
    if isinstance(rows[0], tuple):
        return tuple(stacked(list(column)) for column in zip(*rows, strict=True))
    return np.stack(rows)


def zeros_like(value: Any) -> Any:
    """Zeros in the structure of ``value``."""
    if isinstance(value, Mapping):
        return {key: zeros_like(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(zeros_like, value))
    return np.zeros(np.shape(value))


def plus(a: Any, b: Any) -> Any:
    """The sum of two values of one structure."""
    if isinstance(a, Mapping):
        return {key: plus(item, b[key]) for key, item in a.items()}
    if isinstance(a, tuple):
        return tuple(map(plus, a, b))
    return a + b


def own(value: Any) -> Any:
    """A copy that later changes of the caller's array do not reach, nor a buffer used again."""
    if type(value) is tuple:
        return tuple(own(item) for item in value)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: own(item) for key, item in value.items()}
    return np.asarray(value) if isinstance(value, list) else value


def own_output(value: Any, what: str = "fun(x)") -> Any:
    """``own`` of what ``fun`` returned: numbers, and nan where they are masked."""
    if type(value) is tuple:
        return tuple(own_output(item, f"{what}[{i}]") for i, item in enumerate(value))
    if isinstance(value, Mapping):
        return {key: own_output(item, f"{what}[{key!r}]") for key, item in value.items()}
    return own(checks.returned(value, what))


def same(a: Any, b: Any) -> bool:
    """Whether two inputs are equal."""
    if isinstance(a, Mapping) or isinstance(b, Mapping):
        return (
            isinstance(a, Mapping)
            and isinstance(b, Mapping)
            and a.keys() == b.keys()
            and all(same(a[key], b[key]) for key in a)
        )
    return a is b or bool(np.array_equal(a, b))


def same_inputs(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether two tuples hold equal inputs."""
    return len(a) == len(b) and all(map(same, a, b))


def shapes(value: Any) -> Any:
    """Shapes in the structure of ``value``, for messages."""
    if isinstance(value, Mapping):
        return {key: shapes(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(shapes(item) for item in value)
    return np.shape(value)


def expect(out: Any, layout: Layout, who: str, like: str) -> Any:
    """``out`` where it has the layout of ``like``; an error that names both shapes elsewhere."""
    if not layout.same(tree(out)):
        want = layout.shapes
        if isinstance(want, dict) and isinstance(out, tuple):
            want = tuple(want.values())
        raise ValueError(
            f"{who} returned shape {shapes(out)}, expected {want}, the shape of {like}; "
            f"return one number for each number of {like}"
        )
    return np.asarray(out) if isinstance(out, list) else out


def join(parts: Any, y: Layout, x: Layout) -> NDArray[Any]:
    """Blocks in the user's shapes as one flat array, shape batch + (n, m)."""
    if y.fields is not None:
        rows = [join(parts[key], inner, x) for key, (inner, _) in y.fields.items()]
        return np.concatenate(rows, axis=-2)
    if x.fields is not None:
        columns = [join(parts[key], y, inner) for key, (inner, _) in x.fields.items()]
        return np.concatenate(columns, axis=-1)
    if hasattr(parts, "toarray"):
        parts = parts.toarray()
    elif hasattr(parts, "matmat"):
        parts = parts.matmat(np.eye(x.size))
    a = np.asarray(parts)
    want = y.batch + (y.shape or ()) + (x.shape or ())
    if a.shape not in (want, (*y.batch, y.size, x.size)):
        raise ValueError(f"jac_fun returned shape {a.shape}, expected {want}, y.shape + x.shape")
    return a.reshape((*y.batch, y.size, x.size))
