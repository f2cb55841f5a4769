"""Files that are called images: some cannot be used, some can although they are unusual. Written by Pillow."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 48


def picture(seed: int, side: int = SIDE) -> Image.Image:
    """Soft blotches of colour, other ones for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0, **options: object) -> bytes:
    return encoded(picture(seed), "JPEG", **options)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_that_says(width: int, height: int) -> bytes:
    """A PNG whose header is right, with the data of a few rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 + 3 * min(width, 1000)) * 10)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_wrong_check_sum() -> bytes:
    data = bytearray(encoded(picture(1), "PNG"))
    data[data.index(b"IDAT") + 20] ^= 0xFF
    return bytes(data)


def with_damaged_scan() -> bytes:
    """A JPEG in whose pixels a marker appears that does not belong there."""
    data = bytearray(jpeg(2, quality=95))
    middle = data.index(b"\xff\xda") + 300
    data[middle : middle + 2] = b"\xff\xd4"
    return bytes(data)


# name of the file, its bytes, and a part of the reason that is given
BAD: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "it is empty"),
    "early.jpg": (jpeg()[:200], "cut short"),
    "half.jpg": (jpeg()[: len(jpeg()) // 2], "cut short"),
    "last.jpg": (jpeg()[:-2], "cut short"),
    "scan.jpg": (with_damaged_scan(), "damaged"),
    "half.png": (encoded(picture(0), "PNG")[:-40], "cut short"),
    "sum.png": (with_wrong_check_sum(), "check sum of its IDAT chunk"),
    "half.gif": (encoded(picture(0), "GIF")[:900], "damaged"),
    "text.jpg": (b"this is a note about a cat\n", "text"),
    "page.png": (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "archive.jpg": (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
    "document.jpg": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
    "zeros.jpg": (bytes(5000), "nothing but zeros"),
    "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
    "bomb.png": (png_that_says(60_000, 60_000), "60,000 x 60,000 pixels, more than"),
    "flat.png": (png_that_says(0, 10), "no pixels"),
}


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(picture(20).resize((40, 24)), "JPEG", exif=exif, quality=95)


def _animated() -> bytes:
    frames = [picture(seed).quantize(64) for seed in (30, 31, 32)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


def _transparent(seed: int) -> Image.Image:
    image = picture(seed).convert("RGBA")
    image.putalpha(100)
    return image


def _sixteen_bits() -> Image.Image:
    levels = np.array(picture(40).convert("L"), np.uint16) * 257
    return Image.fromarray(levels)


# name of the file, its bytes, and the note about it
ODD: dict[str, tuple[bytes, str]] = {
    "png.jpg": (encoded(picture(11), "PNG"), "PNG called .jpg"),
    "cmyk.jpg": (encoded(picture(12).convert("CMYK"), "JPEG"), "CMYK: converted"),
    "grey.jpg": (encoded(picture(13).convert("L"), "JPEG"), "grey"),
    "alpha.png": (encoded(_transparent(14), "PNG"), "alpha: dropped"),
    "deep.png": (encoded(_sixteen_bits(), "PNG"), "16 bits: reduced to 8"),
    "deep.tif": (encoded(_sixteen_bits(), "TIFF"), "16 bits: reduced to 8"),
    "moving.gif": (_animated(), "animated: the first of 3 frames"),
    "turned.jpg": (_turned(6), "turned: EXIF orientation 6"),
    "pages.tif": (encoded(picture(15), "TIFF", save_all=True, append_images=[picture(16)]), "pages: the first of 2"),
}
PLAIN: dict[str, bytes] = {
    "plain.jpg": jpeg(50),
    "plain.png": encoded(picture(51), "PNG"),
    "plain.webp": encoded(picture(52), "WEBP"),
    "plain.bmp": encoded(picture(53), "BMP"),
    "plain.gif": encoded(picture(54), "GIF"),
    "plain.tif": encoded(picture(55), "TIFF"),
    "progressive.jpeg": jpeg(56, progressive=True),
}

turned = _turned


def other_kinds(folder: Path) -> dict[str, str]:
    """Put what is no file at all into a folder; returns the name and a part of the reason of each."""
    makers: dict[str, tuple[Callable[[Path], object], str]] = {
        "nowhere.jpg": (lambda path: path.symlink_to("missing"), "No such file"),
        "pipe.jpg": (os.mkfifo, "no regular file"),
    }
    for name, (make, _) in makers.items():
        make(folder / name)
    return {name: reason for name, (_, reason) in makers.items()}
