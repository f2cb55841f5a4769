"""Image files to arrays, with OpenCV inside: everything that comes out is uint8, 0..255, RGB or grey."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cnnexp.console import progress
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError

JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
JPEG_START_OF_SCAN = 0xDA
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"  # the last chunk's name and check sum


class ImageError(UserError):
    """A file that is no whole image."""


def read_image(path: str) -> np.ndarray:
    """Decode an image file.

    A rotation noted in the EXIF data is applied; grey is repeated in three channels, CMYK converted, 16 bits
    are reduced to 8, transparency is dropped; of an animation the first frame is taken.

    Args:
        path: a JPEG, PNG, GIF, BMP, WebP, TIFF or other file that OpenCV reads.

    Returns:
        (H, W, 3) uint8 RGB, 0..255.

    Raises:
        ImageError: the file is missing, empty, cut short, damaged, or not an image.
    """
    try:
        data = np.fromfile(path, np.uint8)  # unlike `cv2.imread`, takes any file name on every system
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from error
    if data.size == 0:
        raise _refusal(path, "it is empty")
    if not _is_whole(data.tobytes()):
        raise _refusal(path, "it is cut short (its end marker is missing)")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise _refusal(path, error.err) from error
    if image is None:
        raise _refusal(path, "it is damaged, or in no format that OpenCV reads")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _refusal(path: str, reason: str) -> ImageError:
    return ImageError(f"{path}: cannot be read as an image: {reason}; replace the file or take it away")


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
    position = len(JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != JPEG_START_OF_SCAN:
        if data[position + 1] == 0xFF:  # a fill byte before the marker
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return JPEG_END in data[position:]


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
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return image.reshape(size, size, channels)  # OpenCV drops the axis of a single channel


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


def load_images(
    paths: Sequence[str], size: int, channels: int = 3, threads: int = 2, description: str = "reading images"
) -> np.ndarray:
    """Read, scale and stack image files, with a progress bar.

    Args:
        paths: N file names.
        size: height and width, in pixels.
        channels: 3 for RGB, 1 for grey.
        threads: how many files are decoded at a time.
        description: for the progress bar.

    Returns:
        (N, size, size, channels) uint8, in the order of `paths`.

    Raises:
        ImageError: for the first file in `paths` that cannot be read.
    """

    def load(path: str) -> np.ndarray:
        return to_channels(resize(read_image(path), size), channels)

    images = np.empty((len(paths), size, size, channels), np.uint8)
    with ThreadPoolExecutor(threads) as pool:
        for number, image in enumerate(progress(pool.map(load, paths), description, total=len(paths))):
            images[number] = image
    return images
