"""What failed runs tell: whether runs fail by chance, or where a domain ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradiator_np._typing import Array, Index
from gradiator_np.designs._adaptive.evaluation_log import GROUP, EvaluationLog
from gradiator_np.designs._adaptive.outputs import real_outputs

# A domain that ends before a run is looked for from an eighth of the way on.
SHRINK = 8.0


def share_of_failures(log: EvaluationLog) -> float:
    """Share of the outputs of single runs that failed, of those that have a value at x."""
    if log.told is None or not log.told.done.any():
        return 0.0
    values = real_outputs(log.told.values[log.told.done])
    return float((~np.isfinite(values[:, np.isfinite(log.f0)])).mean())


def is_innermost(log: EvaluationLog) -> bool:
    """Whether a run failed that is as near to x as any: domains hardly end there."""
    lost = set(log.failed().tolist())
    steps = [(min(map(abs, pair.places)), pair.rows) for pair in log.pairs()]
    nearest = min((t for t, _ in steps if t > 0), default=0.0)
    return any(lost & set(rows) for t, rows in steps if 0 < t <= nearest)


def is_erratic(log: EvaluationLog) -> bool:
    """Whether a run failed nearer to x than one that worked, to the same side of one line: where a
    domain ends it is the other way round."""
    lost = set(log.failed().tolist())
    near, far = dict[tuple[int, bool], float](), dict[tuple[int, bool], float]()
    for pair in log.pairs():
        if pair.line == GROUP:
            continue
        for row, t in zip(pair.rows, pair.places):
            ray = pair.line, t > 0
            if row in lost:
                near[ray] = min(near.get(ray, np.inf), abs(t))
            else:
                far[ray] = max(far.get(ray, 0.0), abs(t))
    return any(t < far.get(ray, 0.0) or t == 0 for ray, t in near.items())


@dataclass(frozen=True, slots=True)
class LatestPair:
    """The latest pair of a line, and the side on which it worked (0: both or none)."""

    t: float
    side: int
    works: int


def latest_pair(log: EvaluationLog, line: int) -> LatestPair:
    """The latest pair of a line."""
    *_, pair = log.pairs(line)
    ahead, behind = np.all(log.worked(pair.rows), axis=1)
    return LatestPair(abs(pair.places[0]), pair.side, int(ahead) - int(behind))


def side_at_work(log: EvaluationLog, line: int) -> int:
    """The side on which every run of a line worked that failed on the other (0: there is none)."""
    sides = set()
    for pair in log.pairs(line):
        ahead, behind = np.all(log.worked(pair.rows), axis=1)
        if pair.side == 0 and not (ahead and behind):
            sides.add(int(ahead) - int(behind))
    return sides.pop() if len(sides) == 1 else 0


def clear_room(log: EvaluationLog, line: int, side: int) -> float:
    """How far an input may be moved to a side: to its bound, and not to where a run failed."""
    places = [
        (abs(t), bool(worked.all()))
        for pair in log.pairs(line)
        for t, worked in zip(pair.places, log.worked(pair.rows))
        if t * side > 0
    ]
    end = min((t for t, worked in places if not worked), default=np.inf)
    inside = max((t for t, worked in places if worked and t < end), default=0.0)
    room = float(log.up[line] if side > 0 else log.down[line])
    return min(room, max(inside, end / SHRINK))


def clear_rooms(log: EvaluationLog, inputs: Index) -> tuple[Array, Array]:
    """The same of several inputs, up and down."""
    if not log.failed().size:
        return log.up[inputs], log.down[inputs]
    up, down = (np.array([clear_room(log, int(j), side) for j in inputs]) for side in (1, -1))
    return up, down
