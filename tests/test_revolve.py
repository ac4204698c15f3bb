"""Checkpoint schedules: the fewest forward steps there are, in the memory allowed."""

from functools import cache

import pytest

from gradiator_np._recurrence.revolve import forward_steps, schedule


@cache
def least(steps, checkpoints):
    """Bellman's recursion over the place of the next checkpoint: the optimum by definition."""
    if steps <= 1:
        return 0
    if checkpoints == 1:
        return steps * (steps - 1) // 2
    return min(
        s + least(steps - s, checkpoints - 1) + least(s, checkpoints) for s in range(1, steps)
    )


def replay(steps, checkpoints):
    """Follow a schedule with real states; returns the steps run and the most states held."""
    kept, state, run, most, pulled = [0], 0, 0, 1, []
    for name, i in schedule(steps, checkpoints):
        if name == "restore":
            state = kept[-1]
            assert state == i
        elif name == "advance":
            assert i > state
            run += i - state
            state = i
        elif name == "keep":
            assert state == i
            kept.append(state)
            most = max(most, len(kept))
        elif name == "drop":
            assert kept.pop() == i
        else:
            assert state == i
            pulled.append(i)
    assert not kept
    assert pulled == list(range(steps - 1, -1, -1))
    return run, most


@pytest.mark.parametrize(
    "steps, checkpoints, runs", [(10, 3, 15), (100, 5, 316), (100, 10, 222), (1000, 10, 3636)]
)
def test_published_counts(steps, checkpoints, runs):
    assert forward_steps(steps, checkpoints) == runs
    assert replay(steps, checkpoints) == (runs, checkpoints)


def test_the_formula_is_the_optimum_and_the_schedule_meets_it():
    for steps in range(41):
        for checkpoints in range(1, 9):
            best = least(steps, checkpoints)
            assert forward_steps(steps, checkpoints) == best
            run, most = replay(steps, checkpoints)
            assert run == best
            assert most <= checkpoints


def test_enough_memory_runs_every_step_once():
    assert replay(50, 50) == (49, 50)
    assert replay(50, 1000)[0] == 49


def test_one_checkpoint_restarts_every_time():
    assert forward_steps(100_000, 1) == 100_000 * 99_999 // 2
    assert replay(30, 1) == (435, 1)


@pytest.mark.parametrize("steps, checkpoints", [(-1, 3), (5, 0)])
def test_bad_numbers_are_refused(steps, checkpoints):
    with pytest.raises(ValueError, match="1 or more checkpoints"):
        forward_steps(steps, checkpoints)
    with pytest.raises(ValueError, match=f"checkpoints={checkpoints}"):
        next(schedule(steps, checkpoints))
