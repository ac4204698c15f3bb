"""Arrays on disk: npz without pickle, with a version and a checksum, replaced atomically."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIGEST = hashlib.sha256().digest_size * 2  # as hexadecimal text


def write_archive(
    path: str | os.PathLike[str], kind: str, version: int, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write arrays to ``path``, which holds either its old or its new content at any time.

    The SHA-256 of all bytes before it is the comment of the zip archive, so the file is a plain
    npz to NumPy, and any altered or missing byte is found.

    Parameters
    ----------
    path : path
    kind : str
        What the arrays are; asked for again by ``read_archive``.
    version : int
        Version of their layout.
    arrays : mapping of str to array
        Numbers or text; no objects.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, kind=np.array(kind), version=np.array(version), **arrays)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(_DIGEST)
    body = buffer.getvalue()[:-_DIGEST]
    _replace(Path(path), body + hashlib.sha256(body).hexdigest().encode())


def read_archive(path: str | os.PathLike[str], kind: str, version: int) -> dict[str, NDArray[Any]]:
    """Read what ``write_archive`` wrote.

    Raises
    ------
    ValueError
        If the file was cut short or altered, or is of another kind or version.
    """
    data = Path(path).read_bytes()
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError(
            f"{os.fspath(path)!r} was cut short or altered ({len(data)} bytes, checksum does not "
            f"match), or is no {kind} file: restore it from a copy, or start anew"
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    seen = str(arrays.pop("kind")), int(arrays.pop("version"))
    if seen[0] != kind:
        raise ValueError(f"{os.fspath(path)!r} holds a {seen[0]}, not a {kind}")
    if seen[1] != version:
        raise ValueError(
            f"{os.fspath(path)!r} has version {seen[1]} of the {kind} format, this package reads "
            f"version {version}: use the release of gradiator_np that wrote it"
        )
    return arrays


def part_of(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, Any]:
    """The arrays of one part of a file, by their own names."""
    return {key.partition(".")[2]: a for key, a in arrays.items() if key.startswith(f"{name}.")}


def _replace(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` in one step, on disk before the old content goes."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    if os.name == "posix":  # the new name is safe only when its folder is on disk as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
