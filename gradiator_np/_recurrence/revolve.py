"""Which states to keep on the way back through many steps: binomial checkpointing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal

#: A move and its state. A plain tuple: half of a named one's time, at five moves a step.
Action = tuple[Literal["restore", "advance", "keep", "pullback", "drop"], int]


def _repetitions(steps: int, checkpoints: int) -> tuple[int, int, int]:
    """The least r with C(c + r, c) >= steps, with C(c + r - 1, c) and C(c + r - 2, c - 1)."""
    r, reach, before = 0, 1, 0
    while reach < steps:
        r += 1
        before, reach = reach, reach * (checkpoints + r) // r
    # C(c + r - 2, c - 1) = C(c + r - 1, c) c / (c + r - 1)
    fewer = before * checkpoints // (checkpoints + r - 1) if r else 0
    return r, before, fewer


def forward_steps(steps: int, checkpoints: int) -> int:
    """Steps that an optimal schedule runs, pullbacks not counted.

    Parameters
    ----------
    steps : int
        Steps to pull back through.
    checkpoints : int
        States that fit in memory at once, the initial one counted.

    Returns
    -------
    int
        ``r l - C(c + r, c + 1)`` with the least r for which ``C(c + r, c) >= l``.

    References
    ----------
    Griewank and Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000), 19-45.

    Examples
    --------
    >>> forward_steps(100, 5), forward_steps(1000, 10)
    (316, 3636)
    """
    _check(steps, checkpoints)
    if steps == 0:
        return 0
    # One checkpoint reaches one step further with each repetition: no need to walk there.
    r = steps - 1 if checkpoints == 1 else _repetitions(steps, checkpoints)[0]
    return r * steps - math.comb(checkpoints + r, checkpoints + 1)


def schedule(steps: int, checkpoints: int) -> Iterator[Action]:
    """Moves that pull back through ``steps`` steps with the fewest forward steps.

    The initial state is the first one kept. Steps are pulled back last first; the number of
    steps advanced over is ``forward_steps(steps, checkpoints)``.

    Yields
    ------
    name, i
        ``"restore"``: go back to the newest state kept, which is state i. ``"advance"``: run the
        steps up to state i. ``"keep"``: keep the state at hand, which is state i. ``"pullback"``:
        pull back through step i (from state i to i + 1); the state at hand is state i.
        ``"drop"``: forget the newest state kept.
    """
    _check(steps, checkpoints)
    kept, end = [0], steps
    at = 0
    while kept:
        top = kept[-1]
        if top == end:
            yield "drop", top
            kept.pop()
            continue
        if at != top:
            yield "restore", top
            at = top
        while end - at > 1 and len(kept) < checkpoints:
            at += _split(end - at, checkpoints - len(kept) + 1)
            yield "advance", at
            yield "keep", at
            kept.append(at)
        if end - at > 1:
            at = end - 1
            yield "advance", at
        yield "pullback", at
        end = at


def sweep(
    steps: int,
    checkpoints: int,
    start: Any,
    advance: Callable[[Any, int, int], Any],
    pull: Callable[[Any, int], None],
) -> None:
    """Walk back over all steps, from states kept on the way.

    Parameters
    ----------
    steps, checkpoints : int
        As in ``schedule``.
    start : array or tuple of arrays
        State 0.
    advance : callable
        ``advance(state, i, j)`` is state j, from state i.
    pull : callable
        ``pull(state, i)`` pulls back through step i, from state i.
    """
    kept, state, at = [_copy(start)], start, 0
    for name, i in schedule(steps, checkpoints):
        if name == "pullback":
            pull(state, i)
        elif name == "advance":
            state = advance(state, at, i)
        elif name == "restore":
            # A step that works in place must not reach what is kept.
            state = _copy(kept[-1])
        elif name == "keep":
            kept.append(_copy(state))
        else:
            kept.pop()
        at = i


def _copy(state: Any) -> Any:
    return tuple(a.copy() for a in state) if isinstance(state, tuple) else state.copy()


@lru_cache(maxsize=4096)
def _split(steps: int, free: int) -> int:
    """Steps to go before the next state is kept, where ``free`` places hold the first one too."""
    _, before, fewer = _repetitions(steps, free)
    return min(before, steps - fewer)


def _check(steps: int, checkpoints: int) -> None:
    if steps < 0 or checkpoints < 1:
        raise ValueError(
            f"revolve needs 0 or more steps and 1 or more checkpoints (the initial state is one), "
            f"got steps={steps}, checkpoints={checkpoints}"
        )
