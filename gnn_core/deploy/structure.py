"""Compares an object with its shape in `schema`."""

from __future__ import annotations

from collections.abc import Iterator

from gnn_core.deploy.documents import Finding
from gnn_core.deploy.objects import Object, title_of
from gnn_core.deploy.schema import SCHEMAS
from gnn_core.deploy.shapes import compare, shown
from gnn_core.usage import did_you_mean


def structure_findings(file: str, one: Object) -> Iterator[Finding]:
    """What is wrong with the object's fields, as long as nobody asks what they mean."""
    kind = one.get("kind")
    if not isinstance(kind, str) or kind not in SCHEMAS:
        known = ", ".join(SCHEMAS)
        hint = did_you_mean(str(kind), SCHEMAS)
        yield Finding(file, f"{title_of(one)}: kind", f"expected {known}; got {shown(kind)}{hint}")
        return
    for path, message in compare(one, SCHEMAS[kind]):
        yield Finding(file, f"{title_of(one)}: {path}", message)
