"""What turns noise into error bars of J, of J u and of v^T J, and an interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradiator_np._text import MOST_ROWS, error, extent, largest, leaves
from gradiator_np._typing import Array, Mask

ArrayMap = Callable[..., NDArray[Any]]
Fields = TypeVar("Fields")

# A null vector is orthonormal in scaled inputs; what rounding leaves of an entry that is truly
# zero is some m * eps, so anything below this is no part of the direction.
NULL_TOL = 1e-10
SPAN_TOL = 1e-7
# Variances below this, or above its inverse, may have lost parts that under- or overflowed.
SAFE = 1e-260
# Where the noise is within these powers of two, infinite variances are of what is undetermined.
ORDINARY = 300


def map_fields(cls: type[Fields], fn: ArrayMap, *records: Fields) -> Fields:
    """A ``cls`` whose arrays are ``fn`` of the same arrays of all ``records``.

    Raises
    ------
    TypeError
        For a value that has no batch axes and is none that all members of a batch share.
    """
    names, values = _fields_of(cls)  # type: ignore[arg-type]
    return cls(*[_map(fn, *same) for same in zip(names, *map(values, records))])


@cache
def _fields_of(cls: Any) -> tuple[list[str], Callable[[Any], tuple[Any, ...]]]:
    names = [field.name for field in fields(cls)]
    return names, attrgetter(*names)


def _map(fn: ArrayMap, name: str, value: Any, *others: Any) -> Any:
    if isinstance(value, np.ndarray):
        return fn(value, *others)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Covariance):
        return value.map(fn, *others)
    if isinstance(value, dict):
        return {key: _map(fn, key, a, *[o[key] for o in others]) for key, a in value.items()}
    raise TypeError(
        f"{name} is a {type(value).__name__}, which no batch can hold: make it an array, with the "
        "batch axes in front"
    )


@dataclass(frozen=True, slots=True, repr=False)
class Covariance:
    r"""Covariance of the rows of an estimated Jacobian.

    Row i of J (the derivative of output i with respect to all inputs) has covariance

    .. math:: s_i^2 (\mathrm{diag}(d) + F F^T) + \mathrm{diag}(e_i)

    and rows of different outputs are independent. All leading axes are batch axes.

    Attributes
    ----------
    scale : array, shape (..., n)
        Standard deviation of one evaluation, per output, in units of y; nan where nothing tells
        it: the error bars are then nan as well.
    diag : array, shape (..., m) or (..., n, m), or None
        Variance of an entry at unit noise, in 1 / x^2, independent between inputs.
    factor : array, shape (..., m, r) or (..., n, m, r), or None
        Square-root factor F of what inputs share, such as the noise of a common base point.
    extra : array, shape (..., n, m), or None
        Variance of an entry that is not noise (truncation), in (y per x)^2.
    null : array, shape (..., m, q) or (..., n, m, q), or None
        Directions in which no sample tells anything: the variance of J u is infinite unless
        u is orthogonal to all of them. Entries of rounding size must be exact zeros.
    per_output : bool
        Whether ``diag``, ``factor`` and ``null`` carry the output axis n.
    lost : array of bool, shape (..., n, m) or (..., 1, m), or None
        Entries that no sample determines: unit vectors of ``null``, as a mask.
    loading : array, shape (..., n, r), or None
        What output i multiplies the columns of a shared ``factor`` with: noise that differs from
        sample to sample, where each column stands for one sample.
    span : array, shape (..., m, r), or None
        In place of ``null`` where r is far below m: orthonormal basis of the directions that the
        samples show, in inputs divided by ``unit``. The variance of J u is infinite unless
        u / unit lies in it. Shared by all outputs.
    unit : array, shape (..., m), or None
    octave : int
        ``extra`` is in units of 4^octave (y per x)^2: squares of very large and very small bars are
        no floats.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import jacobian
    >>> covariance = jacobian(np.sin, [1.0, 2.0], method="3-point", noise=1e-3).covariance
    >>> covariance.jvp_variance(np.array([1.0, 1.0])).shape
    (2,)
    """

    scale: Array
    diag: Array | None = None
    factor: Array | None = None
    extra: Array | None = None
    null: Array | None = None
    per_output: bool = False
    lost: Mask | None = None
    loading: Array | None = None
    span: Array | None = None
    unit: Array | None = None
    octave: int = 0

    def __repr__(self) -> str:
        stderr = self.stderr()
        return f"Covariance({extent(stderr.shape)}, {largest(stderr)})"

    def map(self, fn: ArrayMap, *others: Covariance) -> Covariance:
        """``fn`` applied to every array, together with the same array of each of ``others``."""
        return map_fields(Covariance, fn, self, *others)

    def in_units(self, unit: Array) -> Covariance:
        """The same covariance, where inputs were divided by ``unit``, shape (..., m)."""
        each = unit if not self.per_output else unit[..., None, :]

        def per(a: Array | None, by: Array) -> Array | None:
            return None if a is None else a / by

        return replace(
            self,
            diag=per(self.diag, np.square(each)),
            factor=per(self.factor, each[..., None]),
            extra=per(self.extra, np.square(unit)[..., None, :]),
            null=per(self.null, each[..., None]),
            unit=None if self.unit is None else self.unit * unit,
        )

    def variance(self) -> Array:
        """Variance of every entry, shape (..., n, m): inf where undetermined."""
        with np.errstate(over="ignore"):  # inf is what it is
            s2 = np.square(self.scale)[..., None]
        unit = None if self.diag is None else self._rows(self.diag, 1)
        if self.factor is not None:
            if self.loading is None:
                # einsum makes no copy of the squares: a quarter of the time for small batches.
                shared = self._rows(np.einsum("...r,...r->...", self.factor, self.factor), 1)
            else:
                shared = np.square(self.loading) @ np.square(self.factor).swapaxes(-1, -2)
            unit = shared if unit is None else unit + shared
        with np.errstate(over="ignore"):
            var = np.zeros_like(s2) if unit is None else s2 * unit
        if self.extra is not None:
            var = var + np.ldexp(self.extra, 2 * self.octave)
        return np.asarray(var if self.complete else np.where(self.undetermined(), np.inf, var))

    def stderr(self) -> Array:
        """One standard error of every entry, shape (..., n, m)."""
        with np.errstate(all="ignore"):
            var = self.variance()
            if self._in_range(var):
                return np.sqrt(var, out=var)
            cov, x, y = self._scaled()
            return np.sqrt(cov.variance()) * x[..., None, :] * y[..., None]

    def jvp_stderr(self, u: NDArray[Any], *, each_output: bool = False) -> Array:
        """Standard error of J u for tangents u as ``jvp_variance`` takes them: shape (..., n)."""
        with np.errstate(all="ignore"):
            var = self.jvp_variance(u, each_output=each_output)
            if self._in_range(var):
                return np.sqrt(var, out=var)
            cov, x, y = self._scaled()
            u = u * (x[..., None, :] if each_output else x)
            size = _power_of_two(np.abs(u).max(-1, keepdims=True, initial=0.0))
            error = np.sqrt(cov.jvp_variance(u / size, each_output=each_output))
            return error * (size[..., 0] if each_output else size) * y

    def vjp_stderr(self, v: Array) -> Array:
        """Standard error of v^T J for cotangents v of shape (..., n): shape (..., m)."""
        with np.errstate(all="ignore"):
            var = self.vjp_variance(v)
            if self._in_range(var):
                return np.sqrt(var, out=var)
            cov, x, y = self._scaled()
            v = v * y
            size = _power_of_two(np.abs(v).max(-1, keepdims=True, initial=0.0))
            return np.sqrt(cov.vjp_variance(v / size)) * size * x

    def jvp_variance(self, u: NDArray[Any], *, each_output: bool = False) -> Array:
        """Variance of J u for tangents u of shape (..., m): shape (..., n).

        With ``each_output`` every output has a tangent of its own, u (..., n, m). That of real and
        imaginary part together, where u is complex.
        """
        if u.dtype.kind == "c":
            real, imaginary = (
                self.jvp_variance(part.copy(), each_output=each_output) for part in (u.real, u.imag)
            )
            return real + imaginary
        rows = u if each_output else u[..., None, :]
        var = np.square(self.scale) * self._quadratic(rows)
        if self.extra is not None:
            extra = np.ldexp(self.extra, 2 * self.octave)
            var = var + np.einsum(
                "...nm,...nm->...n",
                extra,
                np.broadcast_to(rows * rows, np.broadcast_shapes(rows.shape, extra.shape)),
            )
        return np.where(self.undetermined_along(rows), np.inf, var)

    def rows(self) -> Iterator[Row]:
        """The covariance of each row of J by itself, without batch axes."""
        with np.errstate(all="ignore"):
            cov, x, y = self._scaled()
            for i in range(len(y)):
                at = i if cov.per_output else 0
                s2, diag = np.square(cov.scale[i]), np.zeros(1)
                factor = np.zeros((1, 0))
                if cov.diag is not None:
                    diag = s2 * cov._rows(cov.diag, 1)[at]
                if cov.factor is not None:
                    factor = cov.scale[i] * cov._rows(cov.factor, 2)[at]
                    if cov.loading is not None:
                        factor = factor * cov.loading[i]
                if cov.extra is not None:
                    diag = diag + cov.extra[i]
                yield Row(diag, factor, x * y[i])

    # -- what no sample determines -----------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether samples determine every entry."""
        return self.null is None and self.lost is None and self.span is None

    def undetermined(self) -> Mask:
        """Entries that no sample determines, broadcastable to (..., n, m)."""
        out: Any = np.zeros((1, 1), bool)
        if self.null is not None:
            out = out | self._rows((self.null != 0).any(-1), 1)
        if self.lost is not None:
            out = out | self.lost
        if self.span is not None:
            # 1 - |row|^2 is the squared part of an input outside of the span; SPAN_TOL squared
            # is above its rounding.
            shown = np.einsum("...r,...r->...", self.span, self.span) > 1 - SPAN_TOL**2
            out = out | ~shown[..., None, :]
        return np.asarray(out)

    def undetermined_along(self, u: Array) -> Mask:
        """Whether no sample determines J u, broadcastable to (..., n).

        Tangents u (..., n or 1, m) have an output axis.
        """
        out: Any = np.zeros(1, bool)
        if self.null is not None:
            out = out | has_part(u, self._rows(self.null, 2))
        if self.lost is not None:
            out = out | (self.lost & (u != 0)).any(-1)
        if self.span is not None:
            assert self.unit is not None
            span, scaled = self.span[..., None, :, :], u / self.unit[..., None, :]
            rest = scaled - np.matvec(span, np.vecmat(scaled, span))
            out = out | (np.linalg.norm(rest, axis=-1) > SPAN_TOL * np.linalg.norm(scaled, axis=-1))
        return np.asarray(out)

    # -- products ----------------------------------------------------------------------------

    def vjp_variance(self, v: Array) -> Array:
        """Variance of v^T J for cotangents v of shape (..., n): shape (..., m)."""
        # Outputs are independent: entry variances add up, weighted by v^2. An output with
        # v_i = 0 takes no part, so its inf must not turn into 0 * inf = nan.
        var = self.variance()
        v2 = np.square(v)[..., None]
        terms = np.multiply(v2, var, where=v2 != 0, out=np.zeros(np.broadcast(v2, var).shape))
        return np.asarray(terms.sum(-2))

    def _in_range(self, var: Array) -> bool:
        """Whether variances show that nothing on the way to them left the range of floats."""
        good = (var > SAFE) & (var < 1 / SAFE)
        if good.all():
            return True
        if not self.complete and (np.abs(np.log2(self.scale)) < ORDINARY).all():
            good |= var == np.inf
        if not np.isfinite(self.scale).all():
            good |= np.isnan(var)
        return bool(good.all())

    def _scaled(self) -> tuple[Covariance, Array, Array]:
        """The same with numbers of order one, and the units of 1/x (..., m) and y (..., n)."""
        size = np.zeros((*self.scale.shape, 1))
        if self.factor is not None:
            size = np.maximum(size, self._rows(np.abs(self.factor).max(-1, initial=0.0), 1))
        if self.diag is not None:
            size = np.maximum(size, np.sqrt(self._rows(self.diag, 1)))
        x = _power_of_two(size.max(-2))
        unit, level = x[..., None, :], self.scale
        root = None if self.extra is None else np.ldexp(np.sqrt(self.extra), self.octave) / unit
        if root is not None:
            level = np.fmax(level, root.max(-1, initial=0.0))
        y = _power_of_two(level)

        own = unit if self.per_output else x
        factor, diag, null = self.factor, self.diag, self.null
        cov = Covariance(
            self.scale / y,
            None if diag is None else np.square(np.sqrt(diag) / own),
            None if factor is None else factor / own[..., None],
            None if root is None else np.square(root / y[..., None]),
            None if null is None else null / own[..., None],
            self.per_output,
            self.lost,
            self.loading,
            self.span,
            None if self.unit is None else self.unit * x,
        )
        return cov, x, y

    def _rows(self, a: NDArray[Any], trailing: int) -> NDArray[Any]:
        """Give ``a`` an output axis before its last ``trailing`` axes."""
        return a if self.per_output else np.expand_dims(a, -1 - trailing)

    def _quadratic(self, u: Array) -> Array:
        """u^T (diag(d) + F F^T) u for u (..., n or 1, m), broadcastable to (..., n)."""
        out: Array = np.zeros(u.shape[:-1])
        if self.diag is not None:
            out = out + (self._rows(self.diag, 1) * u * u).sum(-1)
        if self.factor is not None:
            along = (self._rows(self.factor, 2) * u[..., None]).sum(-2)
            if self.loading is not None:
                along = along * self.loading
            out = out + np.square(along).sum(-1)
        return out


def _power_of_two(size: Array) -> Array:
    """Powers of two of the order of ``size``; 1 for what is 0 or not finite."""
    known = np.isfinite(size) & (size > 0)
    # 2^1023 is the largest, and 2^-1022 the least that has all its digits
    power = np.clip(np.frexp(np.where(known, size, 1.0))[1], -1022, 1023)
    return np.where(known, np.ldexp(1.0, power), 1.0)


def has_part(u: NDArray[Any], null: Array) -> Mask:
    """Whether vectors u (..., m) have a part along any column of ``null`` (..., m, q)."""
    terms = null * u[..., None]
    # Free of units: a sum that cancels to rounding is orthogonal.
    return np.asarray((np.abs(terms.sum(-2)) > NULL_TOL * np.abs(terms).sum(-2)).any(-1))


class Row(NamedTuple):
    """Covariance diag(d) + F F^T of the derivatives of one output, times unit unit^T.

    ``diag`` (m,) or (1,), ``factor`` (m, r) or (1, 0), ``unit`` (m,) or (1,): what is of length 1
    is the same for all inputs. Entries that no sample determines hold any finite number.
    """

    diag: Array
    factor: Array
    unit: Array


class ConfidenceInterval(NamedTuple):
    """Ends of an interval, in the shape of what it holds; unpacks as ``low, high``.

    Examples
    --------
    >>> from gradiator_np import jacobian
    >>> estimate = jacobian(lambda x: x**2, [1.0, 2.0], noise=1e-6)
    >>> interval = estimate.confidence_interval(0.99)
    >>> bool((interval.low <= estimate.jac).all() and (estimate.jac <= interval.high).all())
    True
    """

    low: Any
    high: Any

    def __repr__(self) -> str:
        low, high = leaves(self.low), leaves(self.high)
        if low.size <= MOST_ROWS:
            return f"ConfidenceInterval(low={self.low!r}, high={self.high!r})"
        width = high - low
        known = width[np.isfinite(width)]
        parts = [f"{low.size} entries"]
        if known.size:
            parts.append(f"width: median {error(np.median(known))}, largest {error(known.max())}")
        if known.size < width.size:
            parts.append(f"{width.size - known.size} endless or unknown")
        return f"ConfidenceInterval({'; '.join(parts)}; all of them: .low, .high)"
