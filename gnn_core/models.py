"""The names of the models that `--model` takes, which are checked before a framework is imported.

`horovod_gnn.models` and `tf_mirrored.models` have the builders.
"""

from __future__ import annotations

DEFAULT = "sage"
# Name -> title. `horovod_gnn.models.register` adds to it, and `--model` then takes the name.
MODELS: dict[str, str] = {DEFAULT: "GraphSAGE"}
