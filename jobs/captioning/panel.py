"""The strip with the verdict: over the lowest fifth of a picture, or below one that is too small for that."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.captioning.captions import Caption, shown_at
from jobs.captioning.letters import font_of

PALETTE = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7",
    "#9c755f", "#bab0ac",
)  # fmt: skip
"""Colour of a class by its place in alphabetical order, so that it never changes within a film."""

MAX_SIDE = 1920
"""Longer side of the film that is written [px]; a 4K picture gains nothing from a caption."""

LARGEST_SHARE = 0.2
"""Of the height of a picture that a caption may cover."""

LINES = 4.0
"""Height of the panel, in sizes of its letters: title, names, bars, and the room between them."""

LEGIBLE_PX = 11
"""Smallest letters."""

COLUMN = 8
"""Least width of the column of a class, in sizes of its letters."""


class Painter:
    """Draws captions into pictures; each caption's panel is drawn once.

    Args:
        width: of the pictures [px].
        height: of the pictures [px].
        captions: in order of time.
        font: file of letters; None: one that has those of the captions.
    """

    def __init__(
        self, width: int, height: int, captions: Sequence[Caption], font: str | None
    ) -> None:
        shrink = min(1.0, MAX_SIDE / max(width, height))
        self.picture = max(2, int(width * shrink)), max(2, int(height * shrink))
        fitting = int(self.picture[1] * LARGEST_SHARE / LINES)
        self.over = fitting >= LEGIBLE_PX
        self.size = (
            min(fitting, max(LEGIBLE_PX, min(self.picture) // 24)) if self.over else LEGIBLE_PX
        )
        self.panel_px = int(self.size * LINES)
        below = 0 if self.over else self.panel_px
        # H.264 with 4:2:0 colour wants even sides: at most a row and a column are repeated.
        self.width = self.picture[0] + self.picture[0] % 2
        self.height = (self.picture[1] + below) + (self.picture[1] + below) % 2
        self.captions = captions
        texts = [text for each in captions for text in (each.title, *each.order)]
        self.font = font_of(font, self.size, texts)
        self._panels: dict[int, Any] = {}

    def draw(self, image: np.ndarray, time_s: float) -> np.ndarray:
        """One frame, RGB height x width x 3, with what holds at `time_s` drawn into it."""
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(image))
        if picture.size != self.picture:
            picture = picture.resize(self.picture)
        canvas = Image.new("RGB", (self.width, self.height))
        if picture.size != canvas.size:
            canvas.paste(picture.resize((self.width, self.picture[1])), (0, 0))
        canvas.paste(picture, (0, 0))
        index = shown_at(self.captions, time_s)
        if index is not None:
            if index not in self._panels:
                self._panels = {index: self._panel(self.captions[index])}
            panel = self._panels[index]
            canvas.paste(panel, (0, self.height - panel.height), panel)
        return np.asarray(canvas)

    def _panel(self, caption: Caption) -> Any:
        """A half-transparent strip: the title, and below it the classes side by side, each with a bar."""
        from PIL import Image, ImageDraw

        panel = Image.new("RGBA", (self.width, self.panel_px), (0, 0, 0, 170))
        draw = ImageDraw.Draw(panel)
        edge = self.size // 2
        draw.text(
            (edge, edge // 2),
            self._fitted(draw, caption.title, self.width - 2 * edge),
            font=self.font,
            fill="white",
        )
        bars = caption.bars[: max(1, self.width // (COLUMN * self.size))]
        wide = (self.width - edge) // max(1, len(bars))
        for place, (name, probability) in enumerate(bars):
            left, top = edge + place * wide, int(self.size * 1.7)
            room = wide - edge
            share = f" {probability:.0%}"
            text = self._fitted(draw, name, room - draw.textlength(share, font=self.font))
            draw.text((left, top), text, font=self.font, fill="white")
            # By itself: in one line with a label that is written from right to left it would stand reversed.
            behind = left + draw.textlength(text, font=self.font)
            draw.text((behind, top), share, font=self.font, fill="white")
            colour = PALETTE[caption.order[name] % len(PALETTE)]
            low, high = top + int(self.size * 1.4), top + int(self.size * 1.9)
            draw.rectangle((left, low, left + room, high), outline="#888888")
            draw.rectangle((left, low, left + int(room * probability), high), fill=colour)
        return panel

    def _fitted(self, draw: Any, text: str, width: float) -> str:
        """A text, cut so that it is no wider than `width` [px]."""
        text = " ".join(text.split())
        if draw.textlength(text, font=self.font) <= width:
            return text
        while text and draw.textlength(text + "...", font=self.font) > width:
            text = text[:-1]
        return text + "..."
