"""One output file of all ranks: each writes a part, rank 0 joins them in the order of ranks.

A part holds the rows of a structured array as they lie in memory. Parts and what is joined have
temporary names; the file appears whole or not at all. On several hosts rank 0 is sent the parts of
the others in pieces.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gnn_core.files import reason, remedy
from gnn_core.inference.tables import Blocks
from gnn_core.training.world import World

_BLOCK_BYTES = 8 << 20


class Output:
    """The output of all ranks: `with Output(...) as output`, then `add` and `finish`.

    Args:
        path: of the file.
        dtype: of its rows.
        world: the other ranks. Making it is collective.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], world: World):
        self.dtype = dtype
        self._path, self._world = path, world
        self._mark = f".{path.name}.{world.gather(uuid.uuid4().hex[:8])[0]}"
        beside = world.rank == 0 or world.single_host
        folder = path.parent if beside else Path(tempfile.gettempdir())
        self._part = folder / f"{self._mark}.part-{world.rank}"
        self._rows_per_block = max(1, _BLOCK_BYTES // dtype.itemsize)
        self._problem: str | None = None
        self._file: IO[bytes] = io.BytesIO()  # until there is one

    def __enter__(self) -> Output:
        """Open this rank's part."""
        with contextlib.ExitStack() as stack:
            stack.push(self.__exit__)  # also where only another rank cannot
            with self._noting_problems():
                self._file = self._part.open("wb")
            self._world.require_agreement(self._problem)
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what has a temporary name."""
        with contextlib.suppress(OSError):
            self._file.close()
        # Of a rank that was lost the others remove the part, where they share its host.
        mine = self._world.rank == 0 or error is not None
        for left in self._part.parent.glob(f"{_escaped(self._mark)}.*") if mine else [self._part]:
            with contextlib.suppress(OSError):
                left.unlink()

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Append rows of this rank. Where that fails, `finish` says so on every rank."""
        if self._problem is None:
            with self._noting_problems():
                self._file.write(np.ascontiguousarray(rows).tobytes())

    def finish(
        self, files: Sequence[Path], write: Callable[[Blocks, Sequence[Path]], None]
    ) -> None:
        """Let rank 0 write the files from all rows. Collective.

        Args:
            files: all of them in one folder, `path` the first.
            write: gets the rows in blocks, and the temporary names of the files.

        Raises:
            UsageError: the disk is full, or whatever else keeps a file from being written.
            Stopped: a signal came.
        """
        with self._noting_problems():
            self._file.close()
        self._world.require_agreement(self._problem)
        unfinished = [file.with_name(f"{self._mark}.{file.name}") for file in files]
        blocks = self._blocks()
        with self._noting_problems():
            if self._world.rank == 0:
                write(blocks, unfinished)
                for file in unfinished:
                    _sync(file)
        for _ in blocks:  # what the other ranks send has to be taken
            pass
        self._world.require_agreement(self._problem)
        self._world.stop_together()
        with self._noting_problems():
            if self._world.rank == 0:
                for one, file in zip(unfinished, files, strict=True):
                    one.replace(file)
        self._world.require_agreement(self._problem)

    def _blocks(self) -> Iterator[npt.NDArray[Any]]:
        """All rows, in blocks, at least one of them; where ranks do not share a host, on each."""
        world = self._world
        empty = True
        for root in range(world.world_size):
            if world.rank == 0 and (root == 0 or world.single_host):
                pieces = self._read(self._part.with_suffix(f".part-{root}"))
            elif world.single_host or root == 0:
                continue
            else:
                pieces = self._sent_by(root)
            for piece in pieces:
                empty = False
                yield np.frombuffer(piece, self.dtype)
        if empty:
            yield np.empty(0, self.dtype)

    def _read(self, part: Path) -> Iterator[bytes]:
        with part.open("rb") as file:
            while piece := file.read(self._rows_per_block * self.dtype.itemsize):
                if self._world.stop_signal is not None:
                    return
                yield piece

    def _sent_by(self, root: int) -> Iterator[bytes]:
        """The pieces of that rank's part, on every rank."""
        mine = self._read(self._part) if root == self._world.rank else iter(())
        while piece := self._world.broadcast_bytes(next(mine, b""), root):
            yield piece

    @contextlib.contextmanager
    def _noting_problems(self) -> Iterator[None]:
        """Keep the first failure of the disk for `require_agreement`: others wait for this rank."""
        try:
            yield
        except OSError as error:
            self._problem = self._problem or (
                f"cannot write {self._path}: {reason(error)}; {remedy(error, '--output')}"
            )


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _escaped(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)
