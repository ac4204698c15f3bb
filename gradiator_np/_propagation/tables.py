"""Tables of results: for people, and for pandas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradiator_np._text import error, number


def with_error(value: float, stderr: float) -> str:
    """A value with its standard error behind it, where that is known and not 0."""
    return number(value, stderr) + (f" ± {error(stderr)}" if stderr > 0 else "")


def data_frame(columns: Mapping[str, Any]) -> Any:
    """Columns as a pandas DataFrame.

    Raises
    ------
    ImportError
        Where pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as exc:
        raise ImportError(
            "to_dataframe needs pandas, which is not installed: pip install 'gradiator-np[pandas]'"
        ) from exc
    return pd.DataFrame(dict(columns))
