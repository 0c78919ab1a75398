"""Manifests as they are read: YAML files, folders of kustomize, and what is found wrong in them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gnn_core.deploy import overlay
from gnn_core.deploy.yaml_objects import Object, load, name_of, parse, text_in

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = REPOSITORY / "mpi-operator"

_STDIN = "standard input"


@dataclass(frozen=True)
class ManifestProblem:
    """One thing that is wrong."""

    file: str
    path: str  # from the document's top, such as MPIJob/pi: spec.slotsPerWorker
    message: str  # what was expected, what came, what to change

    def __str__(self) -> str:
        line = ": ".join(part for part in (self.file, self.path, self.message) if part)
        return " ".join(line.split())  # one line, whatever files and fields are called


@dataclass(frozen=True)
class Manifests:
    """The objects that are applied together."""

    file: str  # as the user named it
    objects: Sequence[Object]

    def of_kind(self, kind: str) -> list[Object]:
        """The objects of that kind."""
        return [one for one in self.objects if one.get("kind") == kind]

    def names(self, kind: str) -> set[str]:
        """The names of the objects of that kind."""
        return {name_of(one) for one in self.of_kind(kind)}


def read_manifests(given: str) -> Manifests:
    """A file of YAML, `-` for standard input, or a folder with a kustomization.yaml.

    Raises UsageError where it cannot be read.
    """
    if given == "-":
        return Manifests(_STDIN, parse(text_in(sys.stdin.buffer, _STDIN), _STDIN))
    path = Path(given)
    if overlay.is_folder(path):
        return Manifests(given, overlay.build(path))
    return Manifests(given, load(path))
