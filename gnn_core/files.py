"""Files and folders that users name: checked before use, read up to a bound, all of them found.

What is read here is a regular file: a pipe, a device or a socket might never end. What cannot be
read is named, and never left out in silence.
"""

from __future__ import annotations

import argparse
import errno
import gzip
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from gnn_core.usage import UsageError, shown

_MOST_PATH_BYTES, _MOST_NAME_BYTES = 4095, 255  # of Linux
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_MOST_STEM = 80  # characters, so that there is room for what follows
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors that a full disk, or one that is full for this user, gives."""


def path_problem(text: str) -> str | None:
    """Why no file can be at this path, whatever the disk holds; None if one can."""
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        return f"expected a path, got a character that no file name can have in {shown(text)}"
    if b"\0" in raw:
        return f"expected a path, got a zero byte in {shown(text)}"
    longest = max(map(len, raw.split(b"/")))
    if len(raw) > _MOST_PATH_BYTES or longest > _MOST_NAME_BYTES:
        return (
            f"expected a path of at most {_MOST_PATH_BYTES} bytes whose names have at most "
            f"{_MOST_NAME_BYTES}, got {len(raw)} and {longest}: {shown(text)}"
        )
    if text.startswith("~"):
        try:
            Path(text).expanduser()
        except RuntimeError:
            user = text.partition("/")[0]
            wanted = "HOME to be set" if user == "~" else f"a user called {shown(user[1:])}"
            return f"expected {wanted}, got none, for {shown(text)}: write the whole path"
    return None


def expanded(text: str, setting: str) -> Path:
    """The path with `~` replaced. Raises UsageError, which begins with the name of the setting."""
    if problem := path_problem(text):
        raise UsageError(f"{setting}: {problem}")
    return Path(text).expanduser()


def path_argument(text: str) -> Path:
    """A `type` of argparse: a path at which a file can be, as it is typed."""
    if problem := path_problem(text):
        raise argparse.ArgumentTypeError(problem)
    return Path(text)


def reason(error: OSError) -> str:
    """What the system says of an error, in its own words."""
    return error.strerror or str(error)


def remedy(error: OSError, flag: str) -> str:
    """What to change where something cannot be written: room, or another folder by `flag`."""
    if error.errno in NO_ROOM:
        return f"make room or give another one with {flag}"
    return f"give another one with {flag}"


def open_regular(file: Path) -> IO[bytes]:
    """Open a regular file for reading. Raises UsageError for anything else."""
    try:
        # Without O_NONBLOCK the opening of a pipe waits until somebody writes to it.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {reason(error)}") from None
    except ValueError:  # a zero byte
        raise UsageError(f"cannot read {shown(str(file))}: no file has such a name") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise UsageError(f"{file}: expected a file, got {_kind(mode)}: name another one")
    return os.fdopen(descriptor, "rb")


def read_regular(file: Path, most_bytes: int) -> bytes:
    """The bytes of a regular file, those that a gzipped one (*.gz) holds.

    Raises UsageError for anything else, and for more bytes.
    """
    with open_regular(file) as stream:
        try:
            source = gzip.open(stream) if file.suffix == ".gz" else stream
            content = source.read(most_bytes + 1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UsageError(f"{file}: expected a gzipped file, which ends well: {error}") from None
        except OSError as error:
            raise UsageError(f"cannot read {file}: {reason(error)}") from None
    if len(content) > most_bytes:
        raise UsageError(f"{file}: expected at most {most_bytes} bytes, got more: split it")
    return content


def files_below(folder: Path, ending: str | tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """The regular files below a folder whose names end so, sorted; and what could not be looked at.

    Linked folders are followed, each folder is entered once, and names that begin with a dot are
    left out. The second list has a line for each folder or file that cannot be read.
    """
    found: list[Path] = []
    problems: list[str] = []
    entered: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read: {reason(error)}")

    if not _is_new(folder, entered, note):
        return [], problems

    for place, folders, names in os.walk(folder, onerror=note, followlinks=True):
        folders[:] = sorted(name for name in folders if _is_new(Path(place, name), entered, note))
        for name in sorted(names):
            if not name.endswith(ending) or name.startswith("."):
                continue
            mode = _mode_of(Path(place, name), note)
            if mode is not None and stat.S_ISREG(mode):
                found.append(Path(place, name))
            elif mode is not None:
                problems.append(f"{Path(place, name)}: expected a file, got {_kind(mode)}")
    return sorted(found), problems


def files_among(
    paths: Iterable[Path], ending: str | tuple[str, ...], what: str
) -> tuple[list[Path], list[str]]:
    """The files among and below `paths`, each once; and what could not be looked at, a line each.

    Raises UsageError, which names `what` was expected, when one of `paths` is not there, or is
    neither a folder nor a regular file.
    """
    found: dict[Path, Path] = {}
    problems: list[str] = []
    for one in paths:
        try:
            mode = one.stat().st_mode
        except FileNotFoundError:
            raise UsageError(
                f"expected a folder or file of {what}, but there is no {one}"
            ) from None
        except OSError as error:
            raise UsageError(f"cannot read {one}: {reason(error)}") from None
        except ValueError:  # a zero byte
            raise UsageError(f"cannot read {shown(str(one))}: no file has such a name") from None
        if stat.S_ISDIR(mode):
            files, unread = files_below(one, ending)
            problems += unread
        elif stat.S_ISREG(mode):
            files = [one]
        else:
            raise UsageError(f"expected a folder or file of {what}, got {_kind(mode)}: {one}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values()), problems


def _is_new(folder: Path, entered: set[tuple[int, int]], note: Callable[[OSError], None]) -> bool:
    """Whether the folder was not entered before, by whatever path."""
    try:
        facts = folder.stat()
    except OSError as error:
        note(error)
        return False
    if (facts.st_dev, facts.st_ino) in entered:
        return False
    entered.add((facts.st_dev, facts.st_ino))
    return True


def _mode_of(file: Path, note: Callable[[OSError], None]) -> int | None:
    try:
        return file.stat().st_mode
    except OSError as error:
        note(error)
        return None


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def file_stem(name: str) -> str:
    """The last part of a name or path as the beginning of a file's name: letters, digits, `._-`."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", Path(name).name)[:_MOST_STEM] or "graph"


def file_of_rank(flag: str, name: str, suffix: str, rank: int) -> Path:
    """The file of a rank: `run.prom` becomes `run.rank3.prom`. Raises UsageError."""
    file = Path(name)
    if file.suffix != suffix:
        raise UsageError(f"{flag}: expected a name that ends with {suffix}, got {shown(name)}")
    return file.with_name(f"{file.stem}.rank{rank}{suffix}")


def is_file(file: Path) -> bool:
    """Whether a regular file is there; raises UsageError where its folder is closed."""
    return _is(stat.S_ISREG, file)


def is_folder(folder: Path) -> bool:
    """Whether a folder is there; raises UsageError as `is_file` does."""
    return _is(stat.S_ISDIR, folder)


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    try:
        return kind(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason(error)}") from None
    except ValueError:  # a zero byte
        return False
