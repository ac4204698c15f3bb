r"""The calculus of products: derivatives of each of them are others.

Four products with derivatives of f at x, by directions v of the shape of y, u and w of that of x:

- ``vjp``: :math:`v^T J`, shape of x, by v;
- ``jvp``: :math:`J u`, shape of y, by u;
- ``curvature``: :math:`\nabla^2 (v \cdot f) w`, shape of x, by v and w;
- ``bend``: :math:`D^2 f[u, w]`, shape of y, by u and w.

All are linear in each direction, so their derivatives by directions are always among them; those by
x are of one order more, and the fourth level is missing: third derivatives are an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradiator_np.adapters.torch._tensors import filled, spread

Tensors = tuple[Any, ...]
#: ``apply(kind, lead, wanted, xs, directions)``; ``lead`` leading axes hold several directions,
#: ``wanted`` tells which inputs a result of the shape of x is wanted for.
Apply = Callable[[str, int, tuple[bool, ...], Tensors, Tensors], Tensors]

#: Products whose results have the shape of x.
OF_X = ("vjp", "curvature")
#: Products of second order.
SECOND = ("curvature", "bend")

THIRD = (
    "third derivatives through gradiator are not available: what it is given ends at second ones"
)


def parts(kind: str, k: int, directions: Tensors) -> list[Tensors]:
    """The directions of a product, apart: k tensors for each of the shape of x."""
    if kind not in SECOND:
        return [directions]
    cut = k if kind == "bend" else len(directions) - k
    return [directions[:cut], directions[cut:]]


def pull(
    apply: Apply,
    kind: str,
    lead: int,
    wanted: tuple[bool, ...],
    xs: Tensors,
    directions: Tensors,
    cotangents: Tensors,
    needs: tuple[bool, ...],
) -> tuple[list[Any], list[Any]]:
    """The cotangents of xs and of the directions of a product, where they are needed.

    ``needs`` has one entry for each of xs and directions.
    """
    k, every = len(xs), (True,) * len(xs)
    leads = directions[0].shape[:lead]
    c = cotangents
    if kind in OF_X:
        c = filled(spread(cotangents, wanted), xs, leads)
    first, *second = parts(kind, k, directions)
    by_x: list[Any] = [None] * k
    by_first: Any = [None] * len(first)
    by_second: Any = [None] * k if second else []
    needs_x, needs_first = needs[:k], needs[k : k + len(first)]
    needs_second = needs[k + len(first) :]
    bent = {"vjp": first + c, "jvp": c + first}.get(kind)
    if any(needs_x) and bent is not None:
        found = apply("curvature", lead, needs_x, xs, bent)
        over = tuple(range(lead))
        by_x = list(spread([h.sum(over) if lead else h for h in found], needs_x))
    if any(needs_first):
        if kind == "vjp":
            by_first = apply("jvp", lead, every, xs, c)
        elif kind == "jvp":
            by_first = spread(apply("vjp", lead, needs_first, xs, c), needs_first)
        elif kind == "curvature":
            by_first = apply("bend", lead, every, xs, second[0] + c)
        else:
            found = apply("curvature", lead, needs_first, xs, c + second[0])
            by_first = spread(found, needs_first)
    if any(needs_second):
        v = first if kind == "curvature" else c
        w = c if kind == "curvature" else first
        by_second = spread(apply("curvature", lead, needs_second, xs, v + w), needs_second)
    return by_x, [*by_first, *by_second]


def push(
    apply: Apply,
    kind: str,
    lead: int,
    wanted: tuple[bool, ...],
    xs: Tensors,
    directions: Tensors,
    dxs: Tensors,
    changes: Tensors,
) -> Tensors:
    """The tangent of a product by those of xs and of its directions; None is a tangent 0."""
    k = len(xs)
    lead_shape = directions[0].shape[:lead]
    terms = []
    if any(d is not None for d in dxs):
        if kind in SECOND:
            raise NotImplementedError(THIRD)
        w = tuple(d.expand((*lead_shape, *d.shape)) for d in filled(dxs, xs))
        bent = "curvature" if kind == "vjp" else "bend"
        terms.append(apply(bent, lead, wanted, xs, directions + w))
    pieces, moves = parts(kind, k, directions), parts(kind, k, changes)
    for i, moved in enumerate(moves):
        if all(d is None for d in moved):
            continue
        moved = tuple(filled(moved, pieces[i]))
        both = [moved if j == i else piece for j, piece in enumerate(pieces)]
        terms.append(apply(kind, lead, wanted, xs, sum(both, ())))
    return tuple(sum(column[1:], column[0]) for column in zip(*terms, strict=True))
