"""Checkpoints: whole or not there at all, never of another run, and the same in every framework.

`last.safetensors` is where a run goes on, `previous.safetensors` the one before it, should that be
damaged; `best.safetensors` holds the weights that did best on the validation split. The format is
that of the safetensors library: named arrays and a header of text, so a file is read without
trusting it. Nothing in it shows which framework wrote it: what Horovod has begun, Keras can go on
with. A checksum over all of the file stands in its header.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from gnn_core.config import RunConfig, UsageError
from gnn_core.files import is_file, is_folder, read_regular
from gnn_core.measure.strict_json import build
from gnn_core.training.fit import require_fit
from gnn_core.training.learner import Learner
from gnn_core.training.state import RunProgress, State, Weights
from gnn_core.whole_file import replace_file

FORMAT = 3
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
UNFINISHED = ".unfinished"
_KEY = "ringsage"  # of the header's one entry
_PARTS = ("model", "optimizer", "best")
_HEADER_BYTES = 64 << 20  # far more than names and settings take
_SUM, _BLANK = "sha256", "0" * 64  # taken while these zeros stand in its place


class _Damaged(Exception):
    """A file is no checkpoint, or not a whole one."""


class Checkpoints:
    """The checkpoints of one run in one folder; None as folder keeps none.

    Args:
        folder: where they lie.
        config: the run's configuration.
        fingerprint: of the graph.
        num_replicas: matters only with `--scale-lr`.
        run_id: goes into what is saved.
    """

    def __init__(
        self,
        folder: str | None,
        config: RunConfig,
        fingerprint: str,
        num_replicas: int,
        run_id: str,
        class_names: Sequence[str] | None = None,
    ):
        self.folder = Path(folder) if folder else None
        self._identity = {
            "format": FORMAT,
            "digest": config.digest(),
            "fingerprint": fingerprint,
            "ranks_scaling_lr": num_replicas if config.scale_lr else 0,
        }
        self._settings = config.curve_settings()
        self._config = config
        self._run_id = run_id
        self._class_names = class_names
        self.damage: str | None = None  # of the last checkpoint, in whose place `read_last` went on

    def pack(
        self, weights: Weights, optimizer: Weights, progress: RunProgress, best: Weights
    ) -> bytes:
        """The bytes of a checkpoint, which `state_of` reads."""
        parts = {"model": weights, "optimizer": optimizer, "best": best}
        arrays = {f"{part}.{name}": a for part, some in parts.items() for name, a in some.items()}
        return self._pack(LAST, arrays, progress)

    def save_last(
        self, weights: Weights, optimizer: Weights, progress: RunProgress, best: Weights
    ) -> None:
        """Replace the checkpoint; a kill at any moment leaves the old one or the new one."""
        if self.damage is None:
            self._keep_last()
        self.damage = None
        self._save(LAST, self.pack(weights, optimizer, progress, best))

    def save_best(self, weights: Weights, progress: RunProgress) -> None:
        """Replace the best weights."""
        arrays = {f"model.{name}": array for name, array in weights.items()}
        self._save(BEST, self._pack(BEST, arrays, progress))

    def require_free(self) -> None:
        """Refuse to start over where a run has left its checkpoint. Raises UsageError."""
        if self.folder and _is_there(self.folder / LAST):
            raise UsageError(
                f"{self.folder} already holds the checkpoint of a run: add --resume to go on with "
                "it, or give another --checkpoint-dir"
            )

    def read_last(self, learner: Learner | None = None) -> bytes:
        """The bytes of the checkpoint, b"" if there is none; of the one before if it is damaged.

        Raises UsageError if both are damaged or one is of another run, or if the state in it is
        none that `learner` can have been in with this configuration.
        """
        if not self.folder or not _is_there(path := self.folder / LAST):
            return b""
        try:
            return self._read_checked(path, learner)
        except _Damaged as error:
            self.damage = str(error)
        try:
            if _is_there(path := self.folder / PREVIOUS):
                return self._read_checked(path, learner)
        except (_Damaged, UsageError):
            pass
        damage, self.damage = self.damage, None
        raise UsageError(f"{damage}: remove it, or give another --checkpoint-dir")

    def _read_checked(self, path: Path, learner: Learner | None) -> bytes:
        try:
            _require_sensible_size(path, learner)
            data = _bytes_of(path)
            header, state = _read(data)
            if header["file"] != LAST:
                raise ValueError(f"a copy of {header['file']}, which has no optimizer in it")
            found = {name: header[name] for name in self._identity}
        except Exception as error:  # whatever a foreign file makes its parts raise
            raise _Damaged(
                f"{path}: expected a checkpoint of Ringsage, got a damaged or foreign file "
                f"({_in_short(error)})"
            ) from None
        if found != self._identity:
            raise UsageError(f"{path}: it is of another run: {self._difference(found, header)}")
        if learner is not None:
            require_fit(path, state, learner, self._config)
        return data

    def _difference(self, found: dict[str, Any], header: dict[str, Any]) -> str:
        theirs = header.get("settings", {})
        changed = [
            f"--{name.replace('_', '-')} was {theirs.get(name)}, now {value}"
            for name, value in self._settings.items()
            if theirs.get(name) != value
        ]
        if changed:
            return ", ".join(changed) + "; give it the same settings or another --checkpoint-dir"
        if found["fingerprint"] != self._identity["fingerprint"]:
            return "the graph has other content; prepare the same one or start in another folder"
        if found["ranks_scaling_lr"] != self._identity["ranks_scaling_lr"]:
            return "--scale-lr ties it to another number of ranks"
        return f"its format is {found['format']}, expected {FORMAT}; start in another folder"

    def _pack(
        self, name: str, arrays: Mapping[str, npt.NDArray[Any]], progress: RunProgress
    ) -> bytes:
        header = {
            _SUM: _BLANK,
            **self._identity,
            "file": name,
            "run_id": self._run_id,
            "settings": self._settings,
            **({"class_names": self._class_names} if self._class_names else {}),
            "progress": asdict(progress),
        }
        # Not `ascontiguousarray`, which makes a number an array of one.
        whole = {key: np.asarray(array, order="C") for key, array in arrays.items()}
        data = safetensors.numpy.save(whole, metadata={_KEY: json.dumps(header)})
        place = data.index(_BLANK.encode())  # nothing but the name of the entry is before it
        digest = hashlib.sha256(data).hexdigest()
        return b"".join([data[:place], digest.encode(), memoryview(data)[place + len(_BLANK) :]])

    @property
    def _mark(self) -> str:
        """How files of this process alone end; `claim` removes those of killed runs."""
        return f"{self._run_id[:8]}-{os.getpid()}{UNFINISHED}"

    def _keep_last(self) -> None:
        """Give the last checkpoint a second name, under which it stays when it is replaced."""
        if not self.folder:
            return
        second = self.folder / f".{PREVIOUS}.{self._mark}"
        with contextlib.suppress(OSError):  # there is none; or a file has one name here
            os.link(self.folder / LAST, second)
            second.replace(self.folder / PREVIOUS)
        with contextlib.suppress(OSError):  # is left where both were the same file already
            second.unlink()

    def _save(self, name: str, data: bytes) -> None:
        if not self.folder:
            return
        try:
            replace_file(self.folder / name, data, self._mark)
        except OSError as error:
            raise UsageError(
                f"cannot write {self.folder / name} ({_in_short(error)}): the checkpoint before it "
                "is intact; make room, or give a --checkpoint-dir that can be written"
            ) from None


def state_of(data: bytes) -> State:
    """The state in bytes that `Checkpoints.pack` made or `read_last` found sound."""
    return _read(data)[1]


def has_checksum(data: bytes) -> bool:
    """Whether a checkpoint says what its bytes have to be; those of older versions do not."""
    return _SUM in _header(data)


@dataclass(frozen=True)
class SavedModel:
    """What a checkpoint tells of a model, whichever framework trained it."""

    settings: dict[str, Any]  # of the run, as `RunConfig.curve_settings` gives them
    fingerprint: str  # of the graph that it was trained on
    weights: Weights
    class_names: list[str] | None = None  # of the classes; None where they have none


def read_model(folder: Path, name: str) -> bytes:
    """The bytes of a checkpoint file, BEST or LAST, which `model_of` reads. Raises UsageError."""
    path = folder / name
    if not is_folder(folder):
        raise UsageError(
            f"--checkpoint-dir: expected a folder of checkpoints, got no folder {folder}; check "
            "the path"
        )
    if not is_file(path):
        others = [other for other in (BEST, LAST) if is_file(folder / other)]
        change = "train with --checkpoint-dir first, or name another folder"
        if others:
            change = f"it has {others[0]}, which --weights {Path(others[0]).stem} takes"
        raise UsageError(f"--checkpoint-dir {folder}: expected {name} in it, got none; {change}")
    try:
        data = _bytes_of(path)
        model_of(data)
    except Exception as error:  # whatever a foreign file makes its parts raise
        raise UsageError(
            f"{path}: expected a checkpoint of Ringsage, got a damaged or foreign file "
            f"({_in_short(error)})"
        ) from None
    return data


def model_of(data: bytes) -> SavedModel:
    """The model in bytes that `read_model` gave."""
    header, state = _read(data)
    names = header.get("class_names")
    return SavedModel(
        dict(header["settings"]),
        str(header["fingerprint"]),
        state.weights,
        list(map(str, names)) if names else None,
    )


def weights_of(path: Path) -> Weights:
    """The weights in a checkpoint file, whichever framework wrote it. Raises UsageError."""
    try:
        return state_of(_bytes_of(path)).weights
    except Exception as error:
        raise UsageError(
            f"{path}: expected a checkpoint of Ringsage, got a damaged or foreign file "
            f"({_in_short(error)})"
        ) from None


def _read(data: bytes) -> tuple[dict[str, Any], State]:
    """Header and state; raises whatever a damaged file calls for."""
    arrays = safetensors.numpy.load(data)  # checks lengths and bounds
    header = _header(data)
    if _SUM in header:
        _require_sum(data, header[_SUM])
    parts: dict[str, Weights] = {part: {} for part in _PARTS}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = array
    progress = build(RunProgress, header["progress"])
    return header, State(
        parts["model"], parts["optimizer"], parts["best"], progress, header["run_id"]
    )


def _require_sensible_size(path: Path, learner: Learner | None) -> None:
    """Raise ValueError for a file far larger than a checkpoint of this model."""
    if learner is None:
        return
    one_copy = sum(array.nbytes for array in learner.weights().values())
    most = len(_PARTS) * 2 * one_copy + _HEADER_BYTES
    if (size := path.stat().st_size) > most:
        raise ValueError(f"{size:,} bytes, where this model takes at most {most:,}")


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    header: dict[str, Any] = json.loads(metadata[_KEY])
    return header


def _require_sum(data: bytes, checksum: str) -> None:
    """Raise ValueError unless `checksum` is SHA-256 of the file with zeros in its place."""
    place = data.index(checksum.encode())
    summed = hashlib.sha256(memoryview(data)[:place])
    summed.update(_BLANK.encode())
    summed.update(memoryview(data)[place + len(checksum) :])
    if summed.hexdigest() != checksum:
        raise ValueError("its checksum is that of other content")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a closed folder
        raise UsageError(f"cannot read {path}: {error.strerror}; open its folder") from None


def _bytes_of(path: Path) -> bytes:
    return read_regular(path, path.stat().st_size)


def _in_short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
