"""What headers say, beside what Pillow says about the same files."""

import io

import numpy as np
import pytest
from odd_files import BAD, ODD, PLAIN, encoded, picture, png_that_says, turned
from PIL import Image, ImageOps

from cnnexp.data.headers import other_kind, read_header
from cnnexp.data.images import decode_image

FINE = {name: data for name, (data, _) in ODD.items()} | PLAIN
COLOURS = {"L": "grey", "I;16": "grey", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK", "P": "palette"}


@pytest.mark.parametrize("name", FINE)
def test_headers_say_what_pillow_says(name: str) -> None:
    header = read_header(FINE[name])
    assert header is not None
    with Image.open(io.BytesIO(FINE[name])) as image:
        kind = {"WEBP": "WebP"}.get(str(image.format), image.format)
        assert (header.format, header.width, header.height) == (kind, *image.size)
        assert header.frames == getattr(image, "n_frames", 1)
        if kind != "GIF":  # Pillow turns a first frame into RGB
            assert header.colour.removesuffix("+alpha") == COLOURS[image.mode]
        assert header.orientation in (0, image.getexif().get(274, 0))
    assert header.bits == (16 if name.startswith("deep") else 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(orientation: int) -> None:
    data = turned(orientation)
    header = read_header(data)
    assert header is not None and header.orientation == orientation
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.int16)
    found = decode_image("photo.jpg", data, read_header(data))
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 2  # two decoders of JPEG


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_header_that_is_cut_anywhere_is_no_crash(kind: str) -> None:
    data = encoded(picture(0), kind)
    for end in range(min(len(data), 700)):
        header = read_header(data[:end])
        assert header is None or header.format.upper() == kind


def test_what_else_a_file_may_be() -> None:
    kinds = {name: other_kind(data) for name, (data, _) in BAD.items() if data}
    for name in ("text.jpg", "page.png", "drawing.png", "archive.jpg", "document.jpg", "zeros.jpg", "phone.jpg"):
        assert kinds[name] == BAD[name][1]
    assert other_kind(b"\x93\x01\x88" * 50) is None
    assert other_kind(b"\0\0\0\x1cftypavif") == "AVIF"


def test_a_header_may_say_anything() -> None:
    header = read_header(png_that_says(2**31 - 1, 2**31 - 1))
    assert header is not None and header.width == 2**31 - 1
