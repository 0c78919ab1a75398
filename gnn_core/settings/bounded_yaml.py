"""YAML of bounded size and meaning: what every reader of configurations, plans and manifests uses.

PyYAML builds whatever a text asks for: an alias may stand for gigabytes in a line, a key that is
given twice silently has its second value, and a tag or an escape may raise any exception. Here all
of that is a YAMLError or a ValueError, within a second.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MOST_BYTES = 2**20
"""The largest file: the API server of Kubernetes takes less, and PyYAML reads it within seconds."""

_MOST_LEVELS = 64
_TEXT_PER_VALUE = 256  # characters
_PLAIN = (None, "!", "tag:yaml.org,2002:str")  # of a value that is what it looks like
_SURROGATE = re.compile("[\ud800-\udfff]")


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader without duplicate keys, tags, and aliases that make megabytes of a line.

    Raises YAMLError for whatever is no YAML of that kind; `value_of` also takes in what PyYAML
    raises besides.
    """

    most_values = 100_000  # with those that aliases stand for; a long text counts for several

    def __init__(self, text: str):
        super().__init__(text)
        self._num_values = self._level = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one value, counting what it holds."""
        before, event = self._num_values, self.peek_event()
        is_alias = isinstance(event, yaml.AliasEvent)
        if not is_alias and getattr(event, "tag", None) not in _PLAIN:
            raise _refused(f"the tag {event.tag!r}: write the value without it", event)
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise _refused(f"too many levels, more than {_MOST_LEVELS}: flatten it", event)
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None:
            return None
        if is_alias and node not in self._sizes:
            raise _refused("an alias inside of what it stands for", event)
        self._num_values += self._sizes[node] if is_alias else 1
        if isinstance(node, yaml.ScalarNode) and not is_alias:
            self._num_values += len(node.value) // _TEXT_PER_VALUE
            if _SURROGATE.search(node.value):
                raise _refused("half of a surrogate pair, which is no character", event)
        self._sizes[node] = self._num_values - before
        if self._num_values > self.most_values:
            problem = f"more than {self.most_values} values, those of aliases counted: split it"
            raise _refused(problem, event)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dict, of keys that stand there once."""
        seen = set()
        for key, _ in node.value:
            word = key.value if isinstance(key, yaml.ScalarNode) else None
            if word in seen:
                problem = f"the key {word!r} stands twice: remove one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(word)
        return super().construct_mapping(node, deep)


class SettingsLoader(BoundedLoader):
    """The same for settings: a number is what a person reads, as in YAML 1.2.

    `010` is no eight, `1:30` no ninety and `2026-01-01` no date: they stay text, which a setting
    that wants a number refuses. `yes`, `no`, `on` and `off` are still true and false.
    """

    most_values = 10_000


def _without(*tags: str) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """The resolvers of plain words, by first character, but for those of `tags`."""
    left = {
        first: [(tag, word) for tag, word in resolvers if tag not in tags]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return {first: resolvers for first, resolvers in left.items() if resolvers}


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
SettingsLoader.yaml_implicit_resolvers = _without(_INT, _FLOAT, "tag:yaml.org,2002:timestamp")
SettingsLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
SettingsLoader.add_implicit_resolver(
    _INT, re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
)


def problem_of(error: Exception) -> str:
    """What is wrong with the text, in one line with its place."""
    mark = getattr(error, "problem_mark", None)
    found = getattr(error, "problem", None) or str(error) or type(error).__name__
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return " ".join(str(found).split()) + place


def _refused(problem: str, event: Any) -> yaml.composer.ComposerError:
    return yaml.composer.ComposerError(None, None, problem, event.start_mark)
