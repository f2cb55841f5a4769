"""Sheets of pictures with captions, drawn with Pillow: a sheet of 24 pictures takes Matplotlib twenty times as long.

Lengths are in pixels, places are (left, top) of the sheet's upper left corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cnnexp.console import shorten, visible
from cnnexp.data.opencv import cv2
from cnnexp.files import write_atomic

INK, MUTED, PAPER, RED, GREEN = "#1c2733", "#66727f", "#ffffff", "#c23b3b", "#23855a"
ENLARGED_BELOW = 64  # pixels: the pixels of smaller pictures are shown as squares
PANEL, MARGIN, HEAD = 270, 10, 50  # pixels
SIDE = PANEL - 2 * MARGIN  # of the square that a picture is fitted into
LINE, LETTERS = 17, 12  # of a caption, and the size of its letters
LINE_LETTERS = 34
SCREEN = 1600  # pixels: a higher sheet of pictures gets wider instead


class Sheet:
    """An empty sheet of `width` x `height` pixels to put pictures and lines of text on."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def picture(  # noqa: PLR0913 - a rectangle is four numbers
        self, picture: np.ndarray, left: int, top: int, width: int, height: int, frame: str = ""
    ) -> None:
        """Put a picture on the sheet, scaled to `width` x `height`.

        Args:
            picture: (H, W, 3) uint8 RGB or (H, W, 1) uint8 grey, 0..255.
            left, top, width, height: where, and how large.
            frame: colour of a line around it; "" for none.
        """
        colours = np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))
        filter = Image.Resampling.NEAREST if max(picture.shape[:2]) < ENLARGED_BELOW else Image.Resampling.BOX
        if width > picture.shape[1] >= ENLARGED_BELOW:
            filter = Image.Resampling.BICUBIC
        self.image.paste(Image.fromarray(colours).resize((width, height), filter), (left, top))
        if frame:
            self.pen.rectangle((left - 2, top - 2, left + width + 1, top + height + 1), outline=frame, width=2)

    def text(  # noqa: PLR0913 - where a line stands and how it looks, as Pillow and Matplotlib take it
        self,
        text: str,
        left: int,
        top: int,
        size: int = 12,
        colour: str = INK,
        bold: bool = False,
        middle: bool = False,
    ) -> None:
        """Write one line, as `visible` gives it; with `middle` its middle stands at `left`."""
        self.pen.text((left, top), visible(text), colour, font(size, bold), anchor="ma" if middle else "la")

    def save(self, path: str | Path) -> None:
        """Write the sheet as a PNG that appears whole or not at all; its folder is made."""
        write_png(path, np.asarray(self.image))


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet: `image` (H, W, 3) uint8 RGB or (H, W, 1) grey, a `caption` of some lines."""

    image: np.ndarray
    caption: str


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB as a PNG that appears whole or not at all; its folder is made."""
    packed = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    write_atomic(path, packed.tobytes())


def contact_sheet(path: str | Path, rows: Sequence[Sequence[Panel]], title: str = "") -> None:
    """Write pictures with captions as a PNG: one row a photo, the photo first, then its overlays.

    Where that would be higher than a screen, two or more photos stand beside each other, down the sheet first.

    Args:
        path: the PNG file; its folder is made.
        rows: the panels, each 270 pixels wide; rows may differ in length. A long line of a caption is cut.
        title: headline of the sheet.
    """
    down, height, width = len(rows), _sheet_height(rows), PANEL * max(len(row) for row in rows)
    while height > max(SCREEN, width) and down > 1:
        down -= 1
        groups = [rows[start : start + down] for start in range(0, len(rows), down)]
        height, width = max(map(_sheet_height, groups)), PANEL * sum(max(map(len, group)) for group in groups)
    sheet = Sheet(width, round(height) + (HEAD if title else 0))
    if title:
        line, size = fitted(title, 18, width - 2 * MARGIN, bold=True)
        sheet.text(line, MARGIN, 14, size, bold=True)
    left = 0
    for start in range(0, len(rows), down):
        group = rows[start : start + down]
        _draw_rows(sheet, group, left, HEAD if title else 0)
        left += PANEL * max(map(len, group))
    sheet.save(path)


def fitted(text: str, size: int, room: int, bold: bool = False, end: str = "") -> tuple[str, int]:
    """A line that is at most `room` pixels wide, and the size of its letters.

    They get smaller by a third at most; then the middle of the text is left out.

    Args:
        text: of any length.
        size: of the letters, in pixels.
        room: in pixels.
        bold: as it is drawn.
        end: stands behind the text, and stays whole.
    """
    line, smallest = visible(text) + end, size - size // 3
    while font(size, bold).getlength(line) > room and size > smallest:
        size -= 1
    for longest in range(len(line) - len(end), 0, -1):
        if font(size, bold).getlength(line) <= room:
            break
        line = shorten(text, longest) + end
    return line, size


def _sheet_height(rows: Sequence[Sequence[Panel]]) -> float:
    return sum(_head(row) + max(map(_height, row)) + 2 * MARGIN for row in rows)


def _head(row: Sequence[Panel]) -> int:
    """How high its captions are."""
    return LINE * max(len(panel.caption.splitlines()) for panel in row)


def _draw_rows(sheet: Sheet, rows: Sequence[Sequence[Panel]], beside: int, below: int) -> None:
    """One below the other, from (beside, below) on."""
    top = float(below)
    for row in rows:
        head, picture = _head(row), max(map(_height, row))
        top += MARGIN
        for column, panel in enumerate(row):
            left, lines = beside + column * PANEL + MARGIN, panel.caption.splitlines()
            first = top + head - LINE * len(lines)
            for number, line in enumerate(lines):
                sheet.text(_shortened(line), left, round(first + LINE * number), LETTERS)
            high = _height(panel)
            wide = min(SIDE, high * panel.image.shape[1] / panel.image.shape[0])
            sheet.picture(panel.image, left, round(top + head), round(wide), round(high))
        top += head + picture + MARGIN


def _height(panel: Panel) -> float:
    """Of the picture in pixels, fitted into a square of SIDE."""
    height, width = panel.image.shape[:2]
    return SIDE * min(height / width, 1.0)


def _shortened(line: str) -> str:
    """A line cut to what a panel is wide."""
    return line if len(line) <= LINE_LETTERS else f"{line[: LINE_LETTERS - 1]}…"


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib, with letters of `size` pixels."""
    package = find_spec("matplotlib")
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), size)
