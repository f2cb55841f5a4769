import importlib
import io
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnexp.data import images, opencv
from cnnexp.data.folders import LeftAside, images_below
from cnnexp.data.headers import Header
from cnnexp.data.images import ImageError, read_image, read_square, resize, to_channels
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("GIF", {}),
    ("BMP", {}),
    ("WEBP", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]


def noise(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(noise())).save(buffer, kind, **options)
    return buffer.getvalue()


def written(folder: Path, data: bytes, name: str = "image") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


# ------------------------------------------------------------------------------------------------ reading


def test_read_image_gives_rgb_in_rows_and_columns(tmp_path: Path) -> None:
    pixels = np.array([[RED, GREEN, BLUE], [WHITE, (1, 2, 3), (0, 0, 0)]], np.uint8)
    image = read_image(written(tmp_path, encoded("PNG", Image.fromarray(pixels))))
    assert image.dtype == np.uint8 and image.tolist() == pixels.tolist()


def test_read_image_takes_any_file_name(tmp_path: Path) -> None:
    path = written(tmp_path, encoded("PNG"), "Кошка 猫 é.png")
    assert (read_image(path) == noise()).all()


def test_read_image_applies_the_exif_rotation(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: white on top
    image = read_image(written(tmp_path, encoded("JPEG", Image.fromarray(pixels), exif=exif)))
    assert image.shape == (32, 16, 3)
    assert image[:16].min() > 250 and image[16:].max() < 5


@pytest.mark.parametrize(
    ("mode", "kind", "colour", "expected"),
    [
        ("L", "PNG", 77, (77, 77, 77)),
        ("L", "JPEG", 77, (77, 77, 77)),
        ("LA", "PNG", (77, 128), (77, 77, 77)),
        ("RGBA", "PNG", (10, 20, 30, 128), (10, 20, 30)),
        ("P", "PNG", 0, (0, 0, 0)),
        ("I;16", "PNG", 0x4D00, (0x4D, 0x4D, 0x4D)),
        ("CMYK", "JPEG", (0, 255, 255, 0), RED),
        ("RGB", "GIF", GREEN, GREEN),
    ],
)
def test_read_image_converts_to_rgb(
    tmp_path: Path, mode: str, kind: str, colour: Any, expected: tuple[int, int, int]
) -> None:
    data = encoded(kind, Image.new(mode, (16, 8), colour))
    image = read_image(written(tmp_path, data))
    assert image.shape == (8, 16, 3) and image.dtype == np.uint8
    assert abs(image.astype(int) - expected).max() <= 2


def test_read_image_takes_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    data = encoded("GIF", frames[0], save_all=True, append_images=frames[1:])
    assert (read_image(written(tmp_path, data)) == RED).all()


# ---------------------------------------------------------------------------------------------- bad files


def refusal(path: str) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be read as an image: ") and "\n" not in message
    assert isinstance(caught.value, UserError)
    return message


def test_read_image_says_why_a_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(str(tmp_path / "missing.jpg"))
    assert "directory" in refusal(str(tmp_path))
    assert "it is empty" in refusal(written(tmp_path, b""))
    assert "in no format" in refusal(written(tmp_path, b"<html>not found</html>"))
    assert "cut short" in refusal(written(tmp_path, encoded("JPEG")[:-2]))
    assert "damaged" in refusal(written(tmp_path, encoded("BMP")[:-2]))


@pytest.mark.parametrize(("kind", "options"), FORMATS)
def test_read_image_refuses_a_file_cut_short_and_nothing_else_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, options: dict[str, Any]
) -> None:
    data = encoded(kind, **options)
    for length in (20, len(data) // 2, len(data) - 20, len(data) - 1):
        refusal(written(tmp_path, data[:length]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_read_image_refuses_half_a_file_filled_up_with_zeros(tmp_path: Path, kind: str) -> None:
    data = encoded(kind)
    half = len(data) // 2
    assert "cut short" in refusal(written(tmp_path, data[:half] + bytes(len(data) - half)))


@pytest.mark.parametrize(("kind", "options"), FORMATS)
@pytest.mark.parametrize("rest", [bytes(100), b"appended by a camera" * 5], ids=["zeros", "text"])
def test_read_image_does_not_mind_what_follows_the_image(
    tmp_path: Path, kind: str, options: dict[str, Any], rest: bytes
) -> None:
    data = encoded(kind, **options)
    whole = read_image(written(tmp_path, data, "whole"))
    assert (read_image(written(tmp_path, data + rest, "longer")) == whole).all()


def test_read_image_is_not_deceived_by_a_preview_inside_a_jpeg(tmp_path: Path) -> None:
    preview, photo = encoded("JPEG", Image.new("RGB", (16, 16))), encoded("JPEG")
    fill_byte, application_data = b"\xff", b"\xff\xe1"
    segment = fill_byte + application_data + (len(preview) + 2).to_bytes(2, "big") + preview
    data = photo[:2] + segment + photo[2:]
    assert read_image(written(tmp_path, data)).shape == (40, 60, 3)
    assert "cut short" in refusal(written(tmp_path, data[:-2]))
    assert "cut short" in refusal(written(tmp_path, data[:100]))


# ------------------------------------------------------------------------------------- resizing, channels


def test_resize_averages_areas_when_shrinking() -> None:
    image = noise(12, 12)
    means = image.reshape(4, 3, 4, 3, 3).mean(axis=(1, 3))
    assert abs(resize(image, 4) - means).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_shrinks_to_the_last_bit_as_opencv_does_bytes(channels: int) -> None:
    rng = np.random.default_rng(0)
    for shape in (*rng.integers(40, 200, (40, 2)).tolist(), [80, 120], [60, 80], [40, 60], [61, 40]):
        image = rng.integers(0, 256, (*shape, channels), np.uint8) // 85 * 85  # four levels make many ties
        expected = cv2.resize(image, (40, 40), interpolation=cv2.INTER_AREA)
        assert (resize(image, 40) == expected.reshape(40, 40, channels)).all(), shape


def test_resize_interpolates_linearly_when_enlarging() -> None:
    image = np.array([[[0], [100]], [[100], [200]]], np.uint8)
    expected = np.add.outer([0, 25, 75, 100], [0, 25, 75, 100])  # pixel centres at -0.25, 0.25, 0.75, 1.25
    assert resize(image, 4)[:, :, 0].tolist() == expected.tolist()


def test_resize_treats_each_axis_by_itself() -> None:
    image = np.array([[0, 200, 100, 100, 60, 20, 7, 9]] * 2, np.uint8)[:, :, np.newaxis]
    assert resize(image, 4)[:, :, 0].tolist() == [[100, 100, 40, 8]] * 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(50, 40), (40, 50), (20, 10), (20, 90), (32, 32)])
def test_resize_keeps_the_channel_axis(shape: tuple[int, int], channels: int) -> None:
    image = np.full((*shape, channels), 9, np.uint8)
    assert resize(image, 32).shape == (32, 32, channels) and (resize(image, 32) == 9).all()


def test_to_channels() -> None:
    image = np.array([[RED, GREEN, BLUE, WHITE]], np.uint8)
    grey = to_channels(image, 1)
    assert grey.shape == (1, 4, 1) and grey.dtype == np.uint8
    assert grey.ravel().tolist() == [76, 150, 29, 255]  # 255 times 0.299, 0.587, 0.114
    assert to_channels(grey, 3).tolist() == [[[level] * 3 for level in (76, 150, 29, 255)]]
    assert to_channels(image, 3) is image and to_channels(grey, 1) is grey


# ------------------------------------------------------------------------------------------------ loading


@pytest.mark.parametrize(
    ("height", "width", "least", "expected"),
    [
        (400, 300, None, (400, 300)),
        (400, 300, 151, (400, 300)),
        (400, 300, 150, (200, 150)),
        (401, 301, 150, (201, 151)),  # rounded up
        (400, 300, 75, (100, 75)),
        (400, 300, 37, (50, 38)),
        (400, 300, 8, (50, 38)),  # an eighth at most
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_jpeg_is_decoded_to_a_part(
    tmp_path: Path, height: int, width: int, least: int | None, expected: tuple[int, int], progressive: bool
) -> None:
    photo = Image.fromarray(noise(height, width))
    path = written(tmp_path, encoded("JPEG", photo, progressive=progressive))
    assert read_image(path, least).shape == (*expected, 3)


def test_a_part_shows_the_same_picture(tmp_path: Path) -> None:
    """Against the mean over blocks of 4x4 pixels of the whole picture, a smooth one."""
    y, x = np.mgrid[0:320, 0:240] / 40
    smooth = np.stack([128 + 100 * np.sin(x), 128 + 100 * np.cos(y), 128 + 100 * np.sin(x + y)], axis=2)
    photo = Image.fromarray(smooth.astype(np.uint8))
    path = written(tmp_path, encoded("JPEG", photo, quality=95))
    means = read_image(path).reshape(80, 4, 60, 4, 3).mean(axis=(1, 3))
    assert np.abs(read_image(path, 60) - means).mean() < 1.5


def test_other_formats_are_decoded_whole(tmp_path: Path) -> None:
    photo = Image.fromarray(noise(64, 48))
    for kind in ("PNG", "BMP", "TIFF"):
        assert (read_image(written(tmp_path, encoded(kind, photo)), 8) == noise(64, 48)).all(), kind


def test_the_rotation_of_a_part_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    path = written(tmp_path, encoded("JPEG", Image.fromarray(noise(40, 60)), exif=exif))
    assert read_image(path, 20).shape == (30, 20, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_read_square(tmp_path: Path, channels: int) -> None:
    path = written(tmp_path, encoded("JPEG", Image.fromarray(noise(40, 60))))
    expected = to_channels(resize(read_image(path, 20), 16), channels)  # 40 pixels are more than twice 16
    assert (read_square(path, 16, channels) == expected).all()
    assert (read_square(path, 30, channels) == to_channels(resize(read_image(path), 30), channels)).all()


# ------------------------------------------------------------------------------------------------- OpenCV


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            'ImportError("libGL.so.1: cannot open shared object file")',
            "opencv-python cannot load its system library (libGL.so.1: cannot open shared object file): "
            "install it (Debian: apt-get install libgl1 libglib2.0-0) or use opencv-python-headless",
        ),
        (
            "ModuleNotFoundError(\"No module named 'cv2'\")",
            "opencv-python is not installed (No module named 'cv2'): pip install opencv-python",
        ),
    ],
)
def test_an_opencv_that_cannot_be_imported_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, expected: str
) -> None:
    (tmp_path / "cv2.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2")
    with pytest.raises(UserError) as caught:
        importlib.reload(opencv)
    assert str(caught.value) == expected


# -------------------------------------------------------------------------------------------- large pictures

PEAK = """
import resource, sys
from cnnexp.data.check.look import inspect_file
from cnnexp.data.images import read_square
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
small, large = sys.argv[1:]
read_square(small, 150), inspect_file(small)
before = peak()
read_square(large, 150), inspect_file(large)
print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["PNG", "TIFF 16 bits"])
def test_a_large_picture_is_in_memory_once(kind: str, tmp_path: Path) -> None:
    pixels = np.zeros((4200, 4000, 3), np.uint8 if kind == "PNG" else np.uint16)
    pixels[::7] = 200
    large, small = tmp_path / f"large.{kind[:3].lower()}", written(tmp_path, encoded("PNG"))
    cv2.imwrite(str(large), pixels)
    done = subprocess.run([sys.executable, "-c", PEAK, small, str(large)], capture_output=True, text=True)
    assert float(done.stdout) < 1.5 * 4200 * 4000 * 3 / 2**20, done  # 48 MiB of pixels
    assert not done.stderr


@pytest.mark.parametrize(("kind", "options"), FORMATS)
@pytest.mark.parametrize("size", [16, 40, 50])
def test_a_large_picture_gives_the_same_numbers(
    kind: str, options: dict[str, Any], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image = Image.fromarray(noise(97, 120))
    path = written(tmp_path, encoded(kind, image, **options, **({"exif": exif} if kind in ("JPEG", "PNG") else {})))
    whole, square = read_image(path), read_square(path, size)
    monkeypatch.setattr(images, "LARGE_PIXELS", 1000)
    assert (read_image(path) == whole).all() and (read_square(path, size) == square).all()


def test_large_pictures_are_read_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, inside, most = written(tmp_path, encoded("PNG", Image.fromarray(noise(90, 90)))), [], []
    real = images.resize

    def resize(image: np.ndarray, size: int) -> np.ndarray:
        inside.append(1)
        time.sleep(0.01)
        most.append(len(inside))
        inside.pop()
        return real(image, size)

    monkeypatch.setattr(images, "resize", resize)
    monkeypatch.setattr(images, "LARGE_PIXELS", 90 * 90)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: read_square(path, 8), range(8)))
    assert most == [1] * 8


def test_what_is_decoded_to_a_part_is_not_large() -> None:
    photo = Header("JPEG", 8000, 6000, "RGB")
    assert images.decoded_pixels(photo, 150) == 1000 * 750  # an eighth of each side
    assert images.decoded_pixels(photo, None) == images.decoded_pixels(photo._replace(format="PNG"), 150) == 48_000_000
    assert images.decoded_pixels(None, 150) == 0


def test_heic_is_read_by_pillows_plugin_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red on the left, green and blue on the right; as a telephone writes it that is held upright, turned clockwise."""
    plugin = pytest.importorskip("pillow_heif")
    picture = np.zeros((60, 100, 3), np.uint8)
    red, green, blue = (200, 40, 30), (20, 180, 60), (30, 50, 220)
    picture[:, :50], picture[:30, 50:], picture[30:, 50:] = red, green, blue
    upright = Image.Exif()
    upright[0x0112] = 6
    written = plugin.from_pillow(Image.fromarray(picture))
    written.save(tmp_path / "photo.HEIC", quality=100)
    written.save(tmp_path / "turned.heic", quality=100, exif=upright.tobytes())
    for name, shape, corners in (
        ("photo.HEIC", (60, 100, 3), (red, green, blue, red)),
        ("turned.heic", (100, 60, 3), (red, red, green, blue)),
    ):
        image = read_image(str(tmp_path / name))
        assert image.shape == shape and image.dtype == np.uint8
        np.testing.assert_allclose([image[y, x] for y, x in ((5, 5), (5, -5), (-5, -5), (-5, 5))], corners, atol=3)
    left = LeftAside()
    assert images_below(str(tmp_path), "", "a", left) == ["photo.HEIC", "turned.heic"] and not len(left)
    whole = (tmp_path / "photo.HEIC").read_bytes()
    for size in (40, len(whole) // 2, len(whole) - 5):
        (tmp_path / "cut.heic").write_bytes(whole[:size])
        with pytest.raises(ImageError, match="it is damaged HEIC") as error:
            read_image(str(tmp_path / "cut.heic"))
        assert len(str(error.value).splitlines()) == 1
    (tmp_path / "cut.heic").unlink()
    monkeypatch.setattr(images, "MOST_PIXELS", 5000)
    with pytest.raises(ImageError, match="more than 5,000 pixels"):
        read_image(str(tmp_path / "photo.HEIC"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"it is HEIC, which `pip install 'cnnexp\[heif\]'` lets be read"):
        read_image(str(tmp_path / "photo.HEIC"))
    left = LeftAside()
    assert images_below(str(tmp_path), "", "a", left) == [] and len(left) == 2


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".jp2", ".ppm", ".pgm", ".avif", ".webp", ".dib", ""])
def test_what_opencv_reads_is_read_by_its_content(tmp_path: Path, ending: str) -> None:
    picture = np.full((16, 24, 3), 120, np.uint8)
    kind = {".jfif": ".jpg", ".jpe": ".jpg", ".dib": ".bmp", "": ".png"}.get(ending, ending)
    if ending == ".jp2":  # which OpenCV reads, and writes not into memory
        Image.fromarray(picture).save(tmp_path / "photo.jp2")
    else:
        encoded = cv2.imencode(kind, picture[..., 0] if ending == ".pgm" else picture)[1]
        (tmp_path / f"photo{ending}").write_bytes(encoded.tobytes())
    assert images_below(str(tmp_path), "", "a", LeftAside()) == [f"photo{ending}"]
    image = read_image(str(tmp_path / f"photo{ending}"))
    assert image.shape == (16, 24, 3) and abs(int(image[8, 8, 1]) - 120) < 4
