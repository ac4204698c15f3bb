"""Who runs the points: processes, any executor, or a map."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from numbers import Integral
from typing import Any

from gradiator_np._calls import Call, Failure
from gradiator_np._samples import EvaluationError


def workers_of(workers: Any, call: Call) -> Workers | None:
    """Who runs ``call``; None for ``workers=1``, a plain loop.

    Raises
    ------
    TypeError, ValueError
        For what is no number of processes, no map-like callable and no Executor.
    """
    if isinstance(workers, Integral) and not isinstance(workers, bool):
        workers = int(workers)
        if workers == 0 or workers < -1:
            raise ValueError(f"workers={workers} must be positive, or -1 for one for each core")
        return None if workers == 1 else Workers(workers, call)
    if isinstance(workers, bool) or not (isinstance(workers, Executor) or callable(workers)):
        raise TypeError(
            f"workers must be an int, a map-like callable or an Executor, got {workers!r:.60}"
        )
    return Workers(workers, call)


def width(workers: Any) -> int:
    """How many runs ``workers`` does side by side; 1 where nothing tells."""
    if isinstance(workers, Executor):
        return int(getattr(workers, "_max_workers", 1))  # there is no public name for it
    if isinstance(workers, Integral):
        return (os.cpu_count() or 1) if workers == -1 else int(workers)
    return 1


class Workers:
    """Rows to results, in the order of the rows, whoever computes them.

    Parameters
    ----------
    workers : int, callable or Executor
        A number of processes (-1: one for each core), a map-like callable, or any
        ``concurrent.futures.Executor``.
    call : Call
        What runs one row.
    """

    def __init__(self, workers: int | Callable[..., Any] | Executor, call: Call) -> None:
        self.workers, self.call = workers, call
        self._own_pool: ProcessPoolExecutor | None = None
        self._ending = False

    def end(self) -> None:
        """Begin no further run; those that have begun still come back."""
        self._ending = True

    def close(self) -> None:
        """End the processes that are our own."""
        if self._own_pool is not None:
            self._own_pool.shutdown(wait=True, cancel_futures=True)
            self._own_pool = None

    def __call__(self, rows: Any) -> Iterator[Any]:
        """Results in the order of the rows, whoever computes them."""
        workers = self.workers
        self._ending = False
        if isinstance(workers, Executor):
            return self._gather(workers, rows)
        if isinstance(workers, int):
            return self._gather(self._pool(workers), rows)
        return map(_unpack, self._mapped(workers, rows))

    def _mapped(self, workers: Callable[..., Iterable[Any]], rows: Any) -> Iterator[Any]:
        count = 0
        results = workers(self.call, list(rows))
        if not isinstance(results, Iterable):
            raise TypeError(
                f"workers(f, points) must return its results, as map does, got {results!r:.60}"
            )
        for result in results:
            if not (type(result) is tuple and len(result) == 2):
                raise TypeError(
                    "workers(f, points) must return what f returned for each point, as map does, "
                    f"got {result!r:.60}"
                )
            count += 1
            if count > len(rows):
                break
            yield result
            if self._ending:
                return
        if count != len(rows):
            raise EvaluationError(
                f"workers(f, points) gave {'more than ' if count > len(rows) else ''}"
                f"{min(count, len(rows))} results for {len(rows)} points; a map-like callable "
                "returns one for each, in order"
            )

    def _pool(self, workers: int) -> ProcessPoolExecutor:
        if self._own_pool is None:
            try:
                pickle.dumps(self.call)
            except Exception as exc:
                raise TypeError(
                    f"fun cannot be sent to other processes ({exc}); define it (and its args) at "
                    "the top level of a module, or pass workers=ThreadPoolExecutor(n) if it "
                    "releases the GIL"
                ) from exc
            self._own_pool = ProcessPoolExecutor(width(workers))
        return self._own_pool

    def _gather(self, pool: Executor, rows: Any) -> Iterator[Any]:
        futures: list[Future[Any]] = []
        try:
            try:
                for row in rows:
                    futures.append(pool.submit(self.call, row))
            except BrokenExecutor:
                pass  # a worker died meanwhile: the rest runs alone
            for i, row in enumerate(rows):
                if self._ending:
                    # the last first: a worker that comes free meanwhile takes the next in order
                    for future in reversed(futures[i:]):
                        future.cancel()
                    if all(future.cancelled() for future in futures[i:]):
                        return
                    if futures[i].cancelled():
                        # two workers came free at once, and the second was the quicker to begin
                        futures[i] = pool.submit(self.call, row)
                try:
                    yield _unpack(futures[i].result()) if i < len(futures) else self._alone(row)
                except BrokenExecutor:
                    self._own_pool = None
                    yield self._alone(row)
                except (pickle.PicklingError, AttributeError, TypeError) as exc:
                    # What fun raised came back as text: this was raised on the way.
                    raise TypeError(
                        f"fun or its result cannot be sent between processes ({exc}); define fun "
                        "at the top level of a module and return arrays, or pass workers="
                        "ThreadPoolExecutor(n) if it releases the GIL"
                    ) from exc
        finally:
            for future in futures:
                future.cancel()

    def _alone(self, row: Any) -> Any:
        """Run a row whose pool died, in a fresh pool of one, so that only the culprit fails."""
        if isinstance(self.workers, Executor):
            return Failure(None, "the executor broke (a worker died); give a fresh one")
        with ProcessPoolExecutor(1) as pool:
            try:
                return _unpack(pool.submit(self.call, row).result())
            except BrokenExecutor:
                return Failure(None, "the worker process died in this run")


def _unpack(result: tuple[Any, str | None]) -> Any:
    value, error = result
    return value if error is None else Failure(None, error)
