"""A picture of a stack: its networks and machines."""

from __future__ import annotations

from html import escape

from gnn_core.deploy.heat import HeatSettings
from gnn_core.deploy.heat_template import MASTER, NETWORK, worker_address

_WIDTH, _GAP = 240, 20  # pixels, of a box and between two
_MOST_DRAWN = 3  # workers


def draw(settings: HeatSettings) -> str:
    """The picture, as SVG."""
    count = settings.workers or 0
    numbers = [*range(count)] if count <= _MOST_DRAWN else [0, 1, count - 1]
    boxes = [("master", MASTER, f"floating IP, ssh from {settings.ssh_from}")]
    boxes += [(f"worker {one}", worker_address(one), "no access from outside") for one in numbers]
    width = max(2, len(boxes)) * (_WIDTH + _GAP) + _GAP
    middle = _GAP + _WIDTH // 2
    parts = [
        _box(_GAP, 20, ("external network", str(settings.network), "")),
        _line(middle, 80, 110),
        _box(_GAP, 110, ("router", MASTER.rpartition(".")[0] + ".1", "")),
        _line(middle, 170, 210),
        f'<line x1="{_GAP}" y1="210" x2="{width - _GAP}" y2="210" stroke="#06c" stroke-width="4"/>',
        _text(width - _GAP, 200, f"private network {NETWORK}", "end"),
    ]
    for place, box in enumerate(boxes):
        shift = place * (_WIDTH + _GAP)
        parts += [_line(middle + shift, 210, 250), _box(_GAP + shift, 250, box)]
    if count > len(numbers):
        text = f"and {count - len(numbers)} workers between the last two"
        parts.append(_text(width - _GAP, 335, text, "end"))
    parts.append(_text(_GAP, 335, f"{settings.launcher} {settings.entrypoint}"))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 350" width="{width}" '
            'height="350" font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _text(x: int, y: int, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x: int, top: int, bottom: int) -> str:
    return f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="black"/>'


def _box(x: int, y: int, lines: tuple[str, str, str]) -> str:
    frame = f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="60" fill="#eef" stroke="black"/>'
    words = [_text(x + 8, y + 18 + 17 * row, line) for row, line in enumerate(lines) if line]
    return "\n".join([frame, *words])
