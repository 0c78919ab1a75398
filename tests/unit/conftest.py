"""Fixtures for the tests of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gnn_core.config import RunConfig, UsageError, parse_config


@pytest.fixture
def parse() -> Callable[..., RunConfig]:
    """Parse words of a command line as the horovod strategy does; keywords are unsupported."""

    def parse_words(*argv: str, **unsupported: str) -> RunConfig:
        return parse_config(list(argv), "horovod", unsupported)

    return parse_words


@pytest.fixture
def complaint(parse: Callable[..., RunConfig]) -> Callable[..., str]:
    """Give the message with which a command line is refused: always one line."""

    def complaint_about(*argv: str, **unsupported: str) -> str:
        with pytest.raises(UsageError) as caught:
            parse(*argv, **unsupported)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return complaint_about


@pytest.fixture
def yaml_file(tmp_path: Path) -> Callable[[str], str]:
    """Write text to a YAML file and give its path."""

    def write(text: str) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
