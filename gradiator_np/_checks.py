"""The only place that coerces arguments and words their errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Number
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np._structure import Layout
from gradiator_np._typing import Array, Index

FLOAT64 = np.dtype(np.float64)
EPS, EPS32 = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)
#: The default of ``bounds``.
UNBOUNDED = (-math.inf, math.inf)
_FLOATS = (np.dtype(np.float64), np.dtype(np.float32))


def random_direction(rng: np.random.Generator, shape: int | tuple[int, ...]) -> Array:
    """Entries of either sign and of 0.5 to 1: with entries of 1 and -1 terms would cancel."""
    return np.asarray(rng.uniform(0.5, 1.0, shape) * rng.choice([-1.0, 1.0], shape))


def underflow_is_zero() -> np.errstate:
    """For the library's own arithmetic, whatever ``np.seterr`` says: tails of densities, and
    squares of what is nothing beside the rest. The caller's functions run under the caller's rules.
    """
    return np.errstate(under="ignore")


def numeric(value: Any, what: str) -> NDArray[Any]:
    """``value`` as an array of float32, float64 or complex numbers.

    Raises
    ------
    TypeError
        For strings, objects, None.
    """
    if type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
        value = np.ma.filled(value.astype(np.result_type(value.dtype, np.float32)), np.nan)
    a = value if type(value) is np.ndarray else _asarray(value, what)
    if a.dtype is FLOAT64 or a.dtype in _FLOATS:
        return a
    kind = a.dtype.kind
    if kind in "iuf":
        return a.astype(np.float64)
    if kind == "c":
        return a.astype(np.complex128)
    # Lists that mix ints, Fractions and 0-d arrays come as objects now and then.
    if kind == "O" and a.size and all(isinstance(v, Number) or _is_scalar(v) for v in a.ravel()):
        return a.astype(np.complex128 if any(map(np.iscomplexobj, a.ravel())) else np.float64)
    raise TypeError(
        f"{what} must be numbers, got {_describe(value, a)}; "
        "give a float, an array of floats, or a dict of them"
    )


def returned(value: Any, what: str) -> Any:
    """What a function returned, as it is where it is numbers or truths; nan where it is masked.

    Raises
    ------
    TypeError
        For None, strings, objects.
    """
    if value is None:
        raise TypeError(f"{what} is None: does fun return its result?")
    masked = type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray)
    a = value if type(value) is np.ndarray else _asarray(value, what)
    if masked or a.dtype.kind not in "biufcV":  # V: bfloat16 and its like
        return numeric(value, what)
    return a if isinstance(value, list) else value


def _asarray(value: Any, what: str) -> NDArray[Any]:
    try:
        if isinstance(value, list | tuple) and any(isinstance(v, np.ma.MaskedArray) for v in value):
            rows = np.ma.stack([np.ma.asarray(v) for v in value])  # asarray drops masks
            return np.asarray(np.ma.filled(rows.astype(np.result_type(rows, np.float32)), np.nan))
        return np.asarray(value)
    except ValueError:  # lists of several lengths
        raise ValueError(
            f"{what} is no array of one shape: {value!r:.60}; flatten it, or give a dict of arrays"
        ) from None
    except (RuntimeError, TypeError) as exc:  # tensors that require gradients, traced arrays
        raise TypeError(
            f"{what} cannot be read as an array ({exc}); inside of PyTorch and JAX take gradiator "
            "of gradiator_np.adapters.torch or .jax"
        ) from exc


def precision(value: Any) -> float:
    """Machine epsilon of the coarsest floating-point type in a value of fun."""
    if type(value) is not np.ndarray and isinstance(value, Mapping):
        return max(map(precision, value.values()))
    dtype = value.dtype if type(value) is np.ndarray else np.asarray(value).dtype
    return float(np.finfo(dtype).eps) if dtype is not FLOAT64 and dtype.kind in "fc" else EPS


def _is_scalar(value: Any) -> bool:
    return getattr(value, "ndim", 1) == 0 and value.dtype.kind in "biufc"


def isfinite(a: NDArray[Any]) -> bool:
    """Whether every number is finite, in one pass over memory where they are."""
    flat = a.reshape(-1)
    # Both sums are nan or inf if any term is; that finite terms overflowed is told by the second
    # look. A dot product is the quicker call (it is no ufunc), but BLAS may spread a long one over
    # threads, which on a busy machine took milliseconds.
    if flat.size <= 1000:
        total = np.vdot(flat, flat)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.add.reduce(flat)
    return math.isfinite(abs(total)) or bool(np.isfinite(flat).all())


def _describe(value: Any, a: NDArray[Any]) -> str:
    text = f"{type(value).__name__} {value!r:.60}"
    if isinstance(value, np.ndarray):
        text = f"an array of dtype {a.dtype}"
    if a.dtype.kind == "O" and a.ndim:
        strange = (i for i, v in np.ndenumerate(a) if not isinstance(v, Number))
        where = next(strange, None)
        if where is not None:
            at = where[0] if len(where) == 1 else where
            text += f", with {a[where]!r:.40} at {at}"
    return text


class Point(NamedTuple):
    """A point that has been checked: flat, shape batch + (m,), and its layout."""

    flat: NDArray[Any]
    layout: Layout


def point(x: Any, batch_dims: int = 0) -> Point:
    """The point x as a flat real array, shape batch + (m,), and its layout.

    Raises
    ------
    TypeError
        Where x is complex or no number.
    ValueError
        Where x is empty or not finite.
    """
    if type(x) is Point:
        return x
    if type(batch_dims) is not int or batch_dims < 0:
        integer(batch_dims, "batch_dims", 0)
    if callable(x):
        raise TypeError(f"x is a function, {x!r:.60}: fun comes first, then x")
    if type(x) is not np.ndarray and isinstance(x, Mapping):
        if not x:
            raise ValueError("x is an empty dict: there is nothing to differentiate by")
        x = {k: (v if isinstance(v, Mapping) else numeric(v, f"x[{k!r}]")) for k, v in x.items()}
        layout = Layout.of(x, batch_dims)
        flat = layout.flatten(x)
    else:
        a = numeric(x, "x")
        layout = Layout.of(a, batch_dims)
        # The caller may go on to change x; what is estimated, and told later, holds at this one.
        flat = layout.flatten(a.copy())
    if flat.dtype is FLOAT64 and flat.size and isfinite(flat):
        return Point(flat, layout)
    if flat.dtype.kind == "c":
        raise TypeError(
            "x is complex: a derivative by a complex input is ambiguous unless fun is analytic; "
            "give real and imaginary parts as inputs of their own"
        )
    if flat.dtype not in _FLOATS:  # entries of a dict, of several types
        flat = flat.astype(np.float64)
    if flat.size == 0:
        raise ValueError(f"x is empty (shape {np.shape(x)}): there is nothing to differentiate by")
    if not np.isfinite(flat).all():
        bad = np.flatnonzero(~np.isfinite(flat.reshape(-1, layout.size)).all(0))
        names = layout.listed("x", bad)
        masked = " (masked there)" if isinstance(x, np.ma.MaskedArray) else ""
        raise ValueError(f"x must be finite, but {names} is not{masked}: {flat.ravel()[bad[:5]]}")
    return Point(flat, layout)


def like_x(value: Any, layout: Layout, what: str, each: str = "inputs") -> Array:
    """A per-input argument (step, scale, bound) as float64, shape batch + (m,).

    A scalar serves all inputs; a dict names them; an array without the batch axes serves all
    points of a batch.
    """
    shape = (*layout.batch, layout.size)
    if isinstance(value, Mapping):
        layout_keys = list(layout.fields or {})
        if layout.fields is None or set(value) - set(layout_keys):
            raise ValueError(
                f"{what} has the keys {sorted(value)}, but the {each} have {layout_keys}"
            )
        out = np.full(shape, np.nan)
        for name, (inner, where) in layout.fields.items():
            if name not in value:
                raise ValueError(
                    f"{what} has no entry {name!r}; give one for each of {layout_keys}"
                )
            out[..., where] = like_x(value[name], inner, f"{what}[{name!r}]", each)
        return out
    a = numeric(value, what)
    if a.dtype.kind == "c":
        raise TypeError(f"{what} must be real, got complex")
    inner_shape = layout.shape if layout.shape is not None else (layout.size,)
    full = layout.batch + inner_shape
    if a.ndim and a.shape not in (full, inner_shape, shape, (layout.size,)):
        raise ValueError(
            f"{what} has shape {a.shape}; give one number, or one for each of the {layout.size} "
            f"{each}, shape {full}"
        )
    if a.ndim:
        tail = a.shape == inner_shape or a.shape == (layout.size,)
        a = a.reshape((layout.size,) if tail else shape)
    return np.array(np.broadcast_to(a, shape), dtype=np.float64)


def bounds(value: Any, x: NDArray[Any], layout: Layout) -> tuple[Array, Array]:
    """Lower and upper bounds, each of the shape of the flat x; x must lie within them.

    ``value`` is a pair (lower, upper) or an object with ``lb`` and ``ub`` (scipy's Bounds).
    """
    if hasattr(value, "lb") and hasattr(value, "ub"):
        # SciPy keeps Bounds(0, 1) as arrays of one number, that serve all inputs.
        value = [np.squeeze(side) if np.size(side) == 1 else side for side in (value.lb, value.ub)]
    try:
        low, high = value
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds must be a pair (lower, upper), got {value!r:.80}; "
            "each of the two is a scalar or has the shape of x (pairs for each input: zip(*pairs))"
        ) from None
    if low is None or high is None:
        raise TypeError("a bound is None; use -inf and inf where inputs have none")
    lower, upper = like_x(low, layout, "lower bound"), like_x(high, layout, "upper bound")
    if np.isnan(lower).any() or np.isnan(upper).any():
        raise ValueError("bounds must not be nan; use -inf and inf where an input has none")
    for bad, text in (
        (lower > upper, "has lower bound {0} above upper bound {1}; exchange them"),
        (
            (x < lower) | (x > upper),
            "= {2} lies outside of its bounds [{0}, {1}]; move it inside "
            "(bounds are (lower, upper) of all inputs, no list of pairs)",
        ),
    ):
        if bad.any():
            i = tuple(np.argwhere(bad)[0])
            name = layout.names[i[-1]]
            raise ValueError(f"x{name} " + text.format(lower[i], upper[i], x[i]))
    return lower, upper


def inward(lower: Array, upper: Array) -> tuple[Array, Array]:
    """The outermost float32 numbers between the bounds, as float64."""
    with np.errstate(over="ignore"):
        low, high = lower.astype(np.float32), upper.astype(np.float32)
    low = np.where(low < lower, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > upper, np.nextafter(high, np.float32(-np.inf)), high)
    return low.astype(np.float64), high.astype(np.float64)


def real(value: Any, what: str) -> float:
    """One real number, nan and inf among them."""
    a = numeric(value, what)
    if a.ndim or a.dtype.kind == "c":
        raise TypeError(f"{what} must be one real number, got {value!r:.60}")
    return float(a)


def fraction(value: Any, what: str, hint: str) -> float:
    """A number strictly between 0 and 1."""
    number = real(value, what)
    if not 0 < number < 1:
        raise ValueError(f"{what}={value!r} must lie strictly between 0 and 1; {hint}")
    return number


def level(value: Any) -> float:
    """A confidence level."""
    return fraction(value, "confidence_level", "0.95 means 95 %")


def integer(value: Any, what: str, least: int = 1) -> int:
    """One whole number, ``least`` or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{what} must be a whole number of {least} or more, got {value!r:.60}")
    return int(value)


def whole(value: Any, what: str) -> Index:
    """Whole numbers."""
    a = np.asarray(value)
    if a.size and a.dtype.kind not in "iu":
        raise TypeError(f"{what} must be whole numbers, got {value!r:.60}")
    return a.astype(np.intp)


def positive(value: Any, layout: Layout, what: str) -> Array:
    """A per-input argument that must be positive and finite."""
    a = like_x(value, layout, what)
    if not (np.isfinite(a).all() and (a > 0).all()):
        i = tuple(np.argwhere(~(np.isfinite(a) & (a > 0)))[0])
        raise ValueError(
            f"{what} must be positive and finite, got {a[i]} for x{layout.names[i[-1]]}"
        )
    return a


def noise(value: Any, y: Layout | int | None = None, what: str = "noise") -> Array:
    """Standard deviations of one evaluation, one for each output of y (n,).

    ``y`` is its layout, or n; without it, where it is not known yet, they are as they were given.
    """
    if y is None:
        a = numeric(value, what)
    else:
        a = like_x(value, Layout((y,)) if isinstance(y, int) else y.single, what, "outputs")
    if a.dtype.kind == "c" or not (np.isfinite(a).all() and (a >= 0).all()):
        raise ValueError(
            f"{what} must be finite and not negative, got {value!r:.60}; leave it out (None) where "
            "it is to be found"
        )
    return a.astype(np.float64, copy=False)


def told(
    outputs: Any, ids: Any, errors: Mapping[int, str] | None, pending: Index
) -> tuple[Index, list[Any]]:
    """Ids of points that come back, all of ``pending`` by default, and the value of each.

    Returns
    -------
    ids : array of int, shape (k,)
    values : list
        None where a run failed.

    Raises
    ------
    ValueError
        For ids that are not pending or named twice, errors of other points, or another number of
        outputs.
    """
    if ids is None and not len(pending):
        raise ValueError("no points are pending: call ask() first, and run what it returns")
    ids = pending if ids is None else whole(ids, "ids").reshape(-1)
    if not isinstance(errors, Mapping | None):
        raise TypeError(f"errors must be a dict of texts by id, got {errors!r:.60}")
    errors, named = errors or {}, set(ids.tolist())
    strange = sorted(named - set(pending.tolist()))
    if strange or len(named) != len(ids):
        raise ValueError(
            f"ids {strange[:5]} are not pending (told before, or never asked for), or one is named "
            f"twice; pending are {pending[:10].tolist()}"
        )
    if not errors.keys() <= named:
        strange = sorted(errors.keys() - named)
        raise ValueError(f"errors names ids {strange[:5]}, which are not among those told")
    if isinstance(outputs, Mapping):
        seen = {len(v) if np.ndim(v) else 0 for v in outputs.values()} or {0}
    else:
        seen = {len(outputs) if isinstance(outputs, Sequence) or np.ndim(outputs) else 0}
    if seen != {len(ids)}:
        raise ValueError(
            f"{' or '.join(map(str, sorted(seen)))} outputs for {len(ids)} ids; give one for "
            "each, None for a failed run"
        )
    if isinstance(outputs, Mapping):
        outputs = [{k: v[i] for k, v in outputs.items()} for i in range(len(ids))]
    return ids, [None if i in errors else value for i, value in zip(ids.tolist(), outputs)]


def choice(value: Any, allowed: tuple[str, ...], what: str) -> str:
    """One of a few words."""
    if value not in allowed:
        raise ValueError(
            f"{what}={value!r} is unknown; choose one of {', '.join(map(repr, allowed))}"
        )
    return str(value)


def direction(
    value: Any, layout: Layout, what: str, finite: bool = False
) -> tuple[NDArray[Any], int]:
    """Tangents or cotangents as a flat array, lead axes + batch + (size,), and the lead axes."""
    if isinstance(value, Mapping):
        value = {k: (v if isinstance(v, Mapping) else numeric(v, f"{what}[{k!r}]"))
                 for k, v in value.items()}  # fmt: skip
    else:
        value = numeric(value, what)
    lead = layout.lead_axes(value, what)
    flat = layout.flatten(value, lead)
    if flat.dtype.kind != "c":
        flat = flat.astype(np.float64, copy=False)
    if finite and not isfinite(flat):
        raise ValueError(f"{what} must be finite, got {flat[~np.isfinite(flat)][0]}")
    return flat, lead


def generator(rng: Any) -> np.random.Generator:
    """The generator that ``rng`` stands for; None stands for seed 0."""
    try:
        return np.random.default_rng(0 if rng is None else rng)
    except (TypeError, ValueError) as exc:
        raise TypeError(
            f"rng must be None, an int of 0 or more, or a numpy.random.Generator, got "
            f"{rng!r:.60} ({exc})"
        ) from None


def float_array(value: ArrayLike, ndim: int, what: str) -> Array:
    """A finite real float64 array of ``ndim`` axes, contiguous."""
    a = numeric(value, what)
    if a.dtype.kind == "c":
        raise TypeError(f"{what} must be real, got complex numbers")
    if a.ndim != ndim:
        raise ValueError(f"{what} must have {ndim} axes, got shape {a.shape}")
    return np.ascontiguousarray(a, dtype=np.float64)


def like_output(value: Any) -> Any:
    """A value of fun that the caller knows already."""
    return value if isinstance(value, Mapping) else numeric(value, "f0")
