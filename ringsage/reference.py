"""The reference of the library, made from its docstrings.

python -m ringsage.reference docs/api.md            # write it anew
python -m ringsage.reference docs/api.md --check    # fail if it is not what the docstrings say
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator

import ringsage
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.usage import Parser, UsageError
from gnn_core.whole_file import write_whole

_FIELD = re.compile(r"    \w+: ")
_HEAD = """# Reference of the library

`import ringsage` gives these names. `python -m ringsage.reference docs/api.md` makes this page;
[library.md](library.md) shows how they are used.
"""


def main() -> int:
    """Write the reference, or compare it; the exit code."""
    parser = Parser.of(__doc__, prog="python -m ringsage.reference")
    parser.add_argument("file", type=path_argument, help="where the reference is")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    text = reference()
    if not options.check:
        write_whole(options.file, text)
    elif not options.file.is_file() or options.file.read_text("utf-8") != text:
        raise UsageError(
            f"{options.file}: expected what the docstrings say, got another text: run "
            f"`python -m ringsage.reference {options.file}`"
        )
    return 0


def reference() -> str:
    """The reference as Markdown."""
    parts = [part for name in ringsage.__all__ for part in _entry(name, getattr(ringsage, name))]
    return "\n".join([_HEAD, *parts])


def _entry(name: str, thing: object) -> Iterator[str]:
    """A function with its signature, or a class with its public methods and properties."""
    yield f"## {name}\n"
    if inspect.isclass(thing):
        yield from _text(thing, "")
        if fields := _fields(thing):
            yield "```text\n{}\n```\n".format("\n".join(fields))
        for member, value in vars(thing).items():
            if member.startswith("_") or not (value.__doc__ or "").strip():
                continue
            function = getattr(value, "__func__", value)
            if isinstance(value, property):
                yield from _text(value, f"`{name}.{member}`")
            elif inspect.isfunction(function):
                yield from _text(function, f"`{name}.{member}{_signature(function)}`")
    else:
        yield from _text(thing, f"`{name}{_signature(thing)}`")


def _fields(thing: type) -> list[str]:
    """The fields of a dataclass as they are written, with the shapes in their comments."""
    names = thing.__dict__.get("__dataclass_fields__", {})
    lines = inspect.getsource(thing).splitlines() if names else []
    return [
        line[4:] for line in lines if _FIELD.match(line) and line.split(":")[0].strip() in names
    ]


def _signature(function: object) -> str:
    text = str(inspect.signature(function)).replace("'", "")  # type: ignore[arg-type]
    return re.sub(r"<function .*? at \w+>", "...", text)


def _text(thing: object, heading: str) -> Iterator[str]:
    if heading:
        yield f"{heading}\n"
    yield f"```text\n{inspect.getdoc(thing)}\n```\n"


if __name__ == "__main__":
    sys.exit(guarded(main))
