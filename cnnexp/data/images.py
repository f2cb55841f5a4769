"""Image files to arrays, with OpenCV inside: everything that comes out is uint8, 0..255, RGB or grey."""

import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock

import numpy as np

from cnnexp.data.headers import JPEG_START, PNG_START, Header, jpeg_segments, other_kind, png_fault, read_header
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError, first_line
from cnnexp.files import read_file
from cnnexp.process import MOST_PIXELS

MOST_BYTES = 3 * MOST_PIXELS  # of a file: the largest picture, uncompressed
LARGE_PIXELS = 2**24  # pictures from here on are in memory one after the other, and are not copied as a whole
LARGE_BYTES = 3 * LARGE_PIXELS
JPEG_END = b"\xff\xd9"
REDUCED = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
    (1, cv2.IMREAD_COLOR),
)
PNG_END = b"IEND\xaeB`\x82"  # the last chunk's name and check sum

# jerror.h, those given to WARNMS; png.c, png_default_warning and png_default_error
WARNING = re.compile(
    r"Corrupt JPEG data: |Premature end of JPEG file|Warning: unknown JFIF revision|Inconsistent progression sequence"
    r"|Invalid SOS parameters|Unknown Adobe color transform|libpng (warning|error): "
)
DAMAGE = re.compile(r"Corrupt JPEG data: (premature end of data segment|bad Huffman code|found marker .*)")
SURPLUS = re.compile(r"Corrupt JPEG data: \d+ extraneous bytes before marker \w+")
_caught_by_one = RLock()
_one_large = RLock()


class ImageError(UserError):
    """A file that is no whole image; `reason` says why, in words."""

    reason = ""


def read_image(path: str, least: int | None = None) -> np.ndarray:
    """Decode an image file.

    A rotation noted in the EXIF data is applied; grey is repeated in three channels, CMYK converted, 16 bits
    are reduced to 8, transparency is dropped; of an animation the first frame is taken.

    Args:
        path: a JPEG, PNG, GIF, BMP, WebP, TIFF or other file that OpenCV reads.
        least: pixels that neither side may fall below. A JPEG that is at least twice as large is then decoded to
            a half, a quarter or an eighth, from the low frequencies of its 8x8 blocks alone, in about half the time.

    Returns:
        (H, W, 3) uint8 RGB, 0..255.

    Raises:
        ImageError: the file is missing, no regular file, empty, cut short, damaged, or not an image.
    """
    data = _read(path)
    return decode_image(path, data, read_header(data), least)


def _read(path: str) -> bytes:
    try:
        return read_file(path, MOST_BYTES)  # unlike `cv2.imread`, takes any file name on every system
    except OSError as error:
        raise refusal(path, error.strerror or str(error)) from error


def decode_image(path: str, data: bytes, header: Header | None, least: int | None = None) -> np.ndarray:
    """`read_image` for the bytes of a file and what `read_header` says of them; `path` is for messages."""
    if not data:
        raise refusal(path, "it is empty")
    if not _is_whole(data):
        raise refusal(path, "it is cut short (its end marker is missing)")
    if data.startswith(PNG_START) and (fault := png_fault(data)):  # libpng would say so on the console
        raise refusal(path, f"it is damaged: {fault}")
    try:
        image = _decoded(data, decoded_pixels(header, least), _decoding(header, least))
    except cv2.error as error:
        too_large = "CV_IO_MAX_IMAGE" in error.err
        raise refusal(path, f"it has more than {MOST_PIXELS:,} pixels" if too_large else error.err) from error
    if image is None:
        kind = other_kind(data)
        if kind == "HEIC":
            return _decoded_heif(path, data)
        raise refusal(path, f"it is {f'{kind},' if kind else 'damaged, or'} in no format that OpenCV reads")
    return _to_rgb(image)


def _decoded_heif(path: str, data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB by Pillow's plugin, turned upright by it."""
    try:
        import pillow_heif
    except ImportError as error:
        raise refusal(path, "it is HEIC, which `pip install 'cnnexp[heif]'` lets be read") from error
    try:
        found = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        width, height = found.size
        if width * height > MOST_PIXELS:
            raise refusal(path, f"it has more than {MOST_PIXELS:,} pixels")
        return np.array(found.to_pillow().convert("RGB"))
    except (OSError, ValueError, RuntimeError, SyntaxError, EOFError) as error:
        raise refusal(path, f"it is damaged HEIC ({first_line(error)})") from error


def _decoded(data: bytes, pixels: int, flags: int) -> np.ndarray | None:
    """(H, W, 3) uint8 BGR, or None for what is no image.

    What `imdecode` gives is a copy of what it decoded, `imread` decodes to where it stays: large pictures, on Linux, go
    by a file in memory.
    """
    if not (LARGE_PIXELS <= pixels <= MOST_PIXELS and hasattr(os, "memfd_create")):
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    with open(os.memfd_create("picture"), "w+b", buffering=0) as file:
        written = 0
        while written < len(data):
            written += file.write(memoryview(data)[written:])
        image = cv2.imread(f"/proc/self/fd/{file.fileno()}", None, flags)
    return image if image is not None and image.size else None


def decoded_pixels(header: Header | None, least: int | None) -> int:
    """Of what `decode_image` gives; 0 where nothing is known of it."""
    if not header:
        return 0
    part = next(part for part, flag in REDUCED if flag == _decoding(header, least))
    return (header.width // part) * (header.height // part)


def _to_rgb(image: np.ndarray) -> np.ndarray:
    """BGR to RGB; a large picture in its own memory, some rows at a time."""
    height, width, _ = image.shape
    if height * width < LARGE_PIXELS:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    rows = max(1, LARGE_PIXELS // 16 // width)
    for top in range(0, height, rows):
        part = image[top : top + rows]
        part[:] = cv2.cvtColor(part, cv2.COLOR_BGR2RGB)
    return image


def one_if_large(number: int) -> AbstractContextManager[object]:
    """Around work with a picture of so many pixels: of large ones there is one in memory at a time."""
    return _one_large if number >= LARGE_PIXELS else nullcontext()


def refusal(path: str, reason: str) -> ImageError:
    """The error for a file that cannot be used."""
    error = ImageError(f"{path}: cannot be read as an image: {reason}; replace the file or take it away")
    error.reason = reason
    return error


def _is_whole(data: bytes) -> bool:
    """False for a JPEG or PNG without its end marker; what comes after the marker does not matter.

    Of half a JPEG, libjpeg may make a picture that ends in grey. Its marker (FF D9) counts only behind the
    first start of scan, because the EXIF data before it may hold a whole small JPEG as preview; in a scan, FF
    is followed by 00 or is a marker (ITU-T T.81, B.1.1.5). Half a PNG, libpng would announce on the console.
    Of other formats, the decoders refuse half a file in silence.
    """
    if data.startswith(PNG_START):
        return PNG_END in data
    if not data.startswith(JPEG_START):
        return True
    *_, (last, _) = jpeg_segments(data)
    return data.rfind(JPEG_END, last) >= 0


def _decoding(header: Header | None, least: int | None) -> int:
    """OpenCV's flag to decode with as few pixels as `least` allows."""
    if least is None or header is None or header.format != "JPEG":
        return cv2.IMREAD_COLOR
    side = min(header.height, header.width)
    return next(flag for part, flag in REDUCED if part == 1 or side >= part * least)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Scale to a square, without regard to the aspect ratio.

    An axis that shrinks is averaged over pixel areas (INTER_AREA), which does not alias. One that grows is
    interpolated linearly, as in Keras' own image loading: a cubic kernel would overshoot at edges.

    Args:
        image: (H, W, C) uint8, C = 1 or 3.
        size: height and width of the result, in pixels.

    Returns:
        (size, size, C) uint8.
    """
    height, width, channels = image.shape
    smaller = (min(width, size), min(height, size))
    if smaller != (width, height):
        image = _average(image, smaller)
    if smaller != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return image.reshape(size, size, channels)  # OpenCV drops the axis of a single channel


def _average(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """OpenCV's INTER_AREA to (width, height).

    Unless both axes shrink by whole numbers, it takes floats in two thirds of the time of bytes, and their sums,
    rounded to the nearest even number as those of bytes are, are the same. Those of a large picture would fill the
    memory.
    """
    height, width = image.shape[:2]
    if (width % size[0] == 0 and height % size[1] == 0) or height * width >= LARGE_PIXELS:
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    averages = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return cv2.convertScaleAbs(averages)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Turn RGB into grey (0.299 R + 0.587 G + 0.114 B, ITU-R BT.601) or grey into RGB.

    Args:
        image: (H, W, 1) or (H, W, 3) uint8 RGB.
        channels: 1 or 3.

    Returns:
        (H, W, channels) uint8; `image` itself where it has so many channels.
    """
    assert image.shape[2] in (1, 3) and channels in (1, 3), (image.shape, channels)
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, np.newaxis]


def read_square(path: str, size: int, channels: int = 3) -> np.ndarray:
    """The image of a file as a network takes it: `read_image`, `resize`, `to_channels`.

    Returns:
        (size, size, channels) uint8.

    Raises:
        ImageError: as `read_image`.
    """
    data = _read(path)
    header = read_header(data)
    with one_if_large(decoded_pixels(header, size)):
        return to_channels(resize(decode_image(path, data, header, least=size), size), channels)


def damage(warnings: str) -> str:
    """Why a picture cannot be used, in words, if one of the warnings is of data that are missing or wrong."""
    found = DAMAGE.search(warnings)
    return f"it is damaged or cut short ({found.group(1)})" if found else ""


@contextmanager
def warnings_caught() -> Iterator[Callable[[], str]]:
    """Keep the warnings off the console; gives a function that returns them, afterwards.

    The libraries know nothing of `sys.stderr`: the file descriptor itself leads to a file meanwhile. What else was
    written to it is written again at the end. One thread at a time.
    """
    warnings = ""
    with _caught_by_one, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: warnings
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = file.read().decode(errors="surrogateescape").splitlines(keepends=True)
            warnings = "".join(line for line in lines if WARNING.match(line))
            others = "".join(line for line in lines if not WARNING.match(line))
            if others:
                os.write(2, others.encode(errors="surrogateescape"))
