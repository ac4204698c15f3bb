"""Progress of many runs, as the caller wants to see it."""

from __future__ import annotations

from collections.abc import Callable


def ticker(
    progress: bool | Callable[[int, int], object], total: int
) -> Callable[[int], object] | None:
    """What to call with the number of runs done; None where nobody wants to know."""
    if not progress:
        return None
    if callable(progress):
        return lambda done: progress(done, total)
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError(
            "Run(progress=True) needs the package tqdm: pip install 'gradiator-np[progress]'"
        ) from None
    bar = tqdm(total=total, unit="run")

    def tick(done: int) -> None:
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return tick
