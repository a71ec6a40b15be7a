"""A line plot as SVG: no library, readable in every browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 300, 70, 50, 40, 20
STYLE = "font: 12px sans-serif; fill: #222"


@dataclass(frozen=True)
class Panel:
    """One pair of axes: x is logarithmic, y begins at 0."""

    title: str
    x_label: str
    y_label: str
    points: Sequence[tuple[float, float]]

    def x(self, value: float) -> float:
        """Where a value lies, in pixels."""
        low, high = (math.log10(pick(p[0] for p in self.points)) for pick in (min, max))
        return LEFT + (math.log10(value) - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """The same for the other axis."""
        most = max(p[1] for p in self.points) * 1.25 or 1
        return HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP)

    def svg(self, offset: int) -> str:
        """The panel, so many pixels to the right."""
        base = HEIGHT - BOTTOM
        axes = f"M{LEFT},{TOP} V{base} H{WIDTH - RIGHT}"
        line = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in self.points)
        marks = [
            f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="4" fill="#06c"/>'
            + _text(self.x(x), self.y(y) - 10, f"{y:.3g}")
            + _text(self.x(x), base + 18, f"{x:,g}")
            for x, y in self.points
        ]
        named = [
            _text(WIDTH / 2, 20, self.title),
            _text((WIDTH + LEFT) / 2, HEIGHT - 8, self.x_label),
            _text(LEFT, TOP - 6, self.y_label),
        ]
        drawn = f'<path d="{axes}" fill="none" stroke="#222"/><polyline points="{line}" fill="none" stroke="#06c"/>'
        return f'<g transform="translate({offset},0)">{drawn}{"".join(marks + named)}</g>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'


def svg(panels: Sequence[Panel]) -> str:
    """The panels side by side, as a document."""
    width = WIDTH * len(panels)
    size = f'width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" style="{STYLE}"'
    drawn = "".join(panel.svg(number * WIDTH) for number, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect width="100%" height="100%" fill="#fff"/>{drawn}</svg>\n'
    )
