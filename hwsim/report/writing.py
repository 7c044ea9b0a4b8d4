"""Files are written all at once: a temporary file beside the target, then a rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsim.errors import UsageError, shorten


def resolved(path: str | Path, flag: str) -> Path:
    """The file that a path leads to.

    Raises
    ------
    UsageError
        If the path, which `flag` gave, is no file name, or a folder.
    """
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):
        msg = f"{flag} {shorten(path, 200)}: is no file name"
        raise UsageError(msg) from None
    if target.is_dir():
        msg = f"{flag} {shorten(path, 200)}: is a folder"
        raise UsageError(msg)
    return target


def write_with(path: str | Path, flag: str, write: Callable[[Path], Any]) -> None:
    """Let `write` make a temporary file beside `path` (or what it links to), then rename: never half a file.

    Raises
    ------
    UsageError
        If the path, which `flag` gave, cannot be written.
    """
    try:
        target = resolved(path, flag)
        if target.exists() and not target.is_file():
            write(target)
            return
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:50]}.", suffix=target.suffix)
        os.close(handle)
        try:
            write(Path(temporary))
            mask = os.umask(0)
            os.umask(mask)
            Path(temporary).chmod(0o666 & ~mask)
            Path(temporary).replace(target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        msg = f"{flag} {shorten(path, 200)}: {getattr(error, 'strerror', None) or 'is a symbolic link to itself'}"
        raise UsageError(msg) from None
    except ValueError:
        msg = f"{flag} {shorten(path, 200)}: is no file name"
        raise UsageError(msg) from None


def capital(text: str) -> str:
    """A text that begins a line; the rest of it stays as it is."""
    return text[:1].upper() + text[1:]
