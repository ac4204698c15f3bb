"""What all benchmarks share: interleaved timing, tables, results as JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def quick() -> bool:
    """Whether ``--quick`` was asked for: a run that only proves that the benchmark still works."""
    return "--quick" in sys.argv[1:]


def measure(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int = 30,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each function, run in turn so that a slow moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    loops = {}
    for name, function in functions.items():
        function()  # compilation and caches
        start = clock()
        function()
        # Calls of microseconds are timed by the dozen: one alone would be timed with the caches
        # that the function before it left behind.
        loops[name] = max(1, int(1e-3 / max(clock() - start, 1e-7)))
    for _ in range(repeats):
        for name, function in functions.items():
            start = clock()
            for _ in range(loops[name]):
                function()
            times[name].append((clock() - start) / loops[name])
    return {name: statistics.median(values) for name, values in times.items()}


def table(headers: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table as Markdown."""
    cells = [[str(h) for h in headers]] + [[_text(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def _text(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def write(name: str, data: Any) -> Path:
    """Write a benchmark's figures to ``benchmarks/results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(data, indent=1) + "\n")
    return path
