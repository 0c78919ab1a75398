"""The project's documents, as the tests read them: fenced blocks, commands in them, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("results/README.md", "CONTRIBUTING.md", "mpi-operator/README.md")),
]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_IN_TEXT = re.compile(r"`((?:make|python) [^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SEPARATORS = frozenset((";", "|", "&&", "||", "&"))
_REDIRECTIONS = frozenset((">", ">>", "<"))


@dataclass(frozen=True)
class Command:
    """One simple command of a block of shell commands."""

    document: Path
    words: tuple[str, ...]  # without variables before it and redirections

    def __str__(self) -> str:
        return f"{name_of(self.document)}: {shlex.join(self.words)}"


def name_of(document: Path) -> str:
    """Return the path in the repository."""
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return [
        text for named, text in _BLOCK.findall(document.read_text("utf-8")) if named == language
    ]


def languages(document: Path) -> set[str]:
    """Return the languages that the fenced blocks name, "" of one that names none."""
    return {named for named, _ in _BLOCK.findall(document.read_text("utf-8"))}


def commands(document: Path) -> Iterator[Command]:
    """Yield the commands of all blocks of shell commands, and those in the running text."""
    text = _BLOCK.sub("", document.read_text("utf-8"))
    for block in [*blocks(document, "bash"), *_IN_TEXT.findall(text)]:
        for line in block.replace("\\\n", " ").splitlines():
            for words in _simple_commands(line):
                yield Command(document, words)


def _simple_commands(line: str) -> Iterator[tuple[str, ...]]:
    tokens = shlex.shlex(line, posix=True, punctuation_chars=True)
    tokens.whitespace_split = True
    words: list[str] = []
    for token in [*tokens, ";"]:
        if token in _SEPARATORS:
            yield from filter(None, [_bare(words)])
            words = []
        else:
            words.append(token)


def _bare(words: list[str]) -> tuple[str, ...]:
    """Return a command without keywords of the shell, variables before it and redirections."""
    while words and (words[0] in ("do", "done", "then", "fi") or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    if words[:1] == ["for"]:
        return ()
    ends = [at for at, word in enumerate(words) if word in _REDIRECTIONS]
    return tuple(words[: ends[0]] if ends else words)


def links(document: Path) -> list[str]:
    """Return the targets of the links outside code, those to other places on the web left out."""
    text = re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", document.read_text("utf-8")))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    text = _BLOCK.sub("", document.read_text("utf-8"))
    titles = re.findall(r"^#+ +(.*?) *$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
