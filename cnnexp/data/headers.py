"""What the first bytes of an image file say about it, whatever its name: read without decoding, without allocating."""

import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

JPEG_START = b"\xff\xd8"
JPEG_START_OF_SCAN = 0xDA
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; the others are tables (T.81, table B.1)
JPEG_EXIF = 0xE1  # the application segment 1
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey+alpha", 6: "RGBA"}
TIFF_COLOURS = {0: "grey", 1: "grey", 3: "palette", 5: "CMYK", 8: "Lab"}  # the others are converted to RGB
MOST_FRAMES = 100_000  # counted; ends a loop of TIFF directories

ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of the second header, by version
OTHERS = (  # first bytes of files that are called like images by mistake
    (b"version https://git-lfs.github.com/spec", "a Git LFS pointer (`git lfs pull` gets the files)"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "XML"),
)
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}


class Header(NamedTuple):
    """What a file says about itself.

    format: a key of `ENDINGS`.
    colour: grey, grey+alpha, RGB, RGBA, palette, palette+alpha, CMYK or Lab.
    bits: of one channel.
    frames: of an animation, or pages; 1 for one picture.
    orientation: of the EXIF data, 1 (upright) to 8; 0 for none.
    """

    format: str
    width: int
    height: int
    colour: str
    bits: int = 8
    frames: int = 1
    orientation: int = 0


def read_header(data: bytes) -> Header | None:
    """The header of a JPEG, PNG, GIF, BMP, WebP or TIFF; None for what is none of them, or too short for a header."""
    try:
        if data.startswith(JPEG_START):
            return _jpeg(data)
        if data.startswith(PNG_START):
            return _png(data)
        if data[:6] in (b"GIF87a", b"GIF89a"):
            return _gif(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data)
    except (ValueError, IndexError):  # from `_number`: it ends in the header
        pass
    return None


def other_kind(data: bytes) -> str | None:
    """What a file that is none of those seems to be, in words."""
    if not data.strip(b"\0"):
        return "nothing but zeros"
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12])
    start = data[:200].lstrip().lower()
    for beginning, kind in OTHERS:
        if data.startswith(beginning) or start.startswith(beginning):
            return kind
    try:
        is_text = data[:200].decode("ascii").replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable()
    except UnicodeDecodeError:
        return None
    return "text" if is_text else None


def image_kind(start: bytes) -> str | None:
    """The format of an image file by its first 64 bytes, whatever it is called; None for what is none."""
    for beginning, kind in (
        (JPEG_START + b"\xff", "JPEG"),
        (PNG_START, "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    ):
        if start.startswith(beginning):
            return kind
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in BMP_HEADERS:
        return "BMP"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    return BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else None


def _number(data: bytes, start: int, size: int, order: Literal["big", "little"], signed: bool = False) -> int:
    if start < 0 or start + size > len(data):
        raise ValueError("the data ends here")
    return int.from_bytes(data[start : start + size], order, signed=signed)


# ---------------------------------------------------------------------------------------------------- JPEG


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each segment of a JPEG begins, and its marker's second byte; up to the first scan, or what is no segment.

    ITU-T T.81, B.1.1.4: the marker is followed by the segment's length, two bytes that count themselves.
    """
    position = len(JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF:
        yield position, data[position + 1]
        if data[position + 1] == JPEG_START_OF_SCAN:
            return
        if data[position + 1] == 0xFF:  # a fill byte before the marker
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    yield position, 0


def _jpeg(data: bytes) -> Header | None:
    orientation = 0
    for position, marker in jpeg_segments(data):
        if marker == JPEG_EXIF and data[position + 4 : position + 10] == b"Exif\0\0":
            length = _number(data, position + 2, 2, "big")
            orientation = _orientation(data[position + 10 : position + 2 + length])
        if marker in JPEG_FRAMES:  # then length, precision, height, width and components (ITU-T T.81, B.2.2)
            bits, components = data[position + 4], data[position + 9]
            height, width = _number(data, position + 5, 2, "big"), _number(data, position + 7, 2, "big")
            colour = {1: "grey", 4: "CMYK"}.get(components, "RGB")
            return Header("JPEG", width, height, colour, bits, orientation=orientation)
    return None


# ----------------------------------------------------------------------------------------------------- PNG


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name of each chunk of a PNG, where its content begins, and its length; ends with the data."""
    position = len(PNG_START)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], position + 8, length
        position += 12 + length


def png_fault(data: bytes) -> str | None:
    """What is wrong with the check sums of a PNG, in words; those of chunks that may be ignored do not matter."""
    for name, start, length in _png_chunks(data):
        content = memoryview(data)[start - 4 : start + length]  # the name is summed up too
        told = data[start + length : start + length + 4]
        if name[:1].isupper() and zlib.crc32(content).to_bytes(4, "big") != told:
            return f"the check sum of its {name.decode('latin-1')} chunk is wrong"
        if name == b"IEND":
            return None
    return None


def _png(data: bytes) -> Header:
    width, height = _number(data, 16, 4, "big"), _number(data, 20, 4, "big")
    bits, kind = data[24], data[25]
    colour, frames, orientation = PNG_COLOURS.get(kind, "RGB"), 1, 0
    for name, start, length in _png_chunks(data):
        if name == b"tRNS" and "alpha" not in colour:
            colour = "RGBA" if colour == "RGB" else f"{colour}+alpha"
        elif name == b"acTL":
            frames = _number(data, start, 4, "big")
        elif name == b"eXIf":
            orientation = _orientation(data[start : start + length])
    return Header("PNG", width, height, colour, bits, frames, orientation)


# ---------------------------------------------------------------------------------------------- GIF and BMP


def _gif(data: bytes) -> Header:
    width, height = _number(data, 6, 2, "little"), _number(data, 8, 2, "little")
    return Header("GIF", width, height, "palette", frames=max(1, _gif_frames(data)))


def _gif_frames(data: bytes) -> int:
    """The images of a GIF: it is a row of blocks, each of which ends with an empty part (GIF89a, sections 15 to 27)."""
    position = 13 + _gif_colours(data[10])
    frames = 0
    while position < len(data):
        block = data[position]
        if block == 0x2C and position + 9 < len(data):  # an image, with its own colours and the size of its codes
            frames += 1
            position += 11 + _gif_colours(data[position + 9])
        elif block == 0x21:  # an extension
            position += 2
        else:
            break
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    return frames


def _gif_colours(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp(data: bytes) -> Header:
    if _number(data, 14, 4, "little") == 12:  # OS/2
        width, height, bits = (_number(data, start, 2, "little") for start in (18, 20, 24))
    else:
        width, height = (abs(_number(data, start, 4, "little", signed=True)) for start in (18, 22))
        bits = _number(data, 28, 2, "little")
    return Header("BMP", width, height, "palette" if bits <= 8 else "RGB")


# ---------------------------------------------------------------------------------------------------- WebP


def _webp(data: bytes) -> Header | None:
    """RFC 9649, sections 2.3 to 2.7: chunks, of which the first is VP8, VP8L, or VP8X before those."""
    first = data[12:16]
    frames, orientation, position = 0, 0, 12
    while position + 8 <= len(data):
        name, length = data[position : position + 4], _number(data, position + 4, 4, "little")
        frames += name == b"ANMF"
        if name == b"EXIF":
            orientation = _orientation(data[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    if first == b"VP8X":
        width, height = (1 + _number(data, start, 3, "little") for start in (24, 27))
        colour = "RGBA" if data[20] & 0x10 else "RGB"
    elif first == b"VP8L":
        packed = _number(data, 21, 4, "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        colour = "RGBA" if packed >> 28 & 1 else "RGB"
    elif first == b"VP8 ":
        width, height = (_number(data, start, 2, "little") & 0x3FFF for start in (26, 28))
        colour = "RGB"
    else:
        return None
    return Header("WebP", width, height, colour, frames=max(1, frames), orientation=orientation)


# ------------------------------------------------------------------------------------------- TIFF and EXIF


def _tiff(data: bytes) -> Header:
    order: Literal["big", "little"] = "little" if data[:2] == b"II" else "big"
    first = _number(data, 4, 4, order)
    tags = _tags(data, first, order)
    samples = tags.get(277, 1)
    colour = TIFF_COLOURS.get(tags.get(262, 1), "RGB")
    if samples > {"grey": 1, "palette": 1, "CMYK": 4}.get(colour, 3):
        colour = "RGBA" if colour == "RGB" else f"{colour}+alpha"
    pages, position = 0, first
    while position and pages < MOST_FRAMES and position + 2 <= len(data):
        pages += 1
        end = position + 2 + 12 * _number(data, position, 2, order)
        position = _number(data, end, 4, order) if end + 4 <= len(data) else 0
    return Header("TIFF", tags.get(256, 0), tags.get(257, 0), colour, tags.get(258, 1), max(1, pages), tags.get(274, 0))


def _orientation(exif: bytes) -> int:
    """Of a block of EXIF data, which is a TIFF without a picture; 0 where it says nothing that can be read."""
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 0
    order: Literal["big", "little"] = "little" if exif[:2] == b"II" else "big"
    try:
        return _tags(exif, _number(exif, 4, 4, order), order).get(274, 0)
    except ValueError:
        return 0


def _tags(data: bytes, start: int, order: Literal["big", "little"]) -> dict[int, int]:
    """The first value of each short or long in a directory of TIFF tags (TIFF 6.0, section 2)."""
    tags = {}
    for number in range(_number(data, start, 2, order)):
        entry = start + 2 + 12 * number
        tag, kind = _number(data, entry, 2, order), _number(data, entry + 2, 2, order)
        count = _number(data, entry + 4, 4, order)
        if size := {3: 2, 4: 4}.get(kind):
            here = entry + 8 if count * size <= 4 else _number(data, entry + 8, 4, order)
            if here + size <= len(data):
                tags[tag] = _number(data, here, size, order)
    return tags
