"""Pictures that are there twice: found after the usual changes, and not where there are none."""

import io

import numpy as np
import pytest
from odd_files import encoded, picture
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from cnnexp.data.check.duplicates import MOST_BITS, fingerprint, originals, similar

CHANGES = {
    "saved again": lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=20))),
    "smaller": lambda image: image.resize((64, 64), Image.Resampling.LANCZOS),
    "larger and not square": lambda image: image.resize((400, 300), Image.Resampling.BICUBIC),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
}
OTHERS = {
    "mirrored": ImageOps.mirror,
    "inverted": ImageOps.invert,
    "turned": lambda image: image.rotate(90),
    "cut by a fifth": lambda image: image.crop((30, 30, 150, 150)),
}


def found(images: list[Image.Image], digests: list[str] | None = None) -> list[int]:
    prints = [fingerprint(np.asarray(image)) for image in images]
    bits = np.array([each.bits for each in prints], np.uint64)
    thumbnails = np.stack([each.thumbnail for each in prints])
    return originals(digests or [str(n) for n in range(len(images))], bits, thumbnails).tolist()


def test_the_hash_is_that_of_scipy() -> None:
    fft = pytest.importorskip("scipy.fft")
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (32, 32, 1), np.uint8)
    low = fft.dctn(grey[:, :, 0].astype(float), norm="ortho")[1:9, 1:9].ravel()
    expected = int("".join("1" if value > np.median(low) else "0" for value in low), 2)
    assert fingerprint(grey).bits == expected
    assert fingerprint(grey).thumbnail[3, 5] == round(grey[6:8, 10:12].mean())


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_the_same(change: str) -> None:
    images = [picture(seed, 180) for seed in range(10)]
    assert found([*images, *map(CHANGES[change], images)]) == [-1] * 10 + list(range(10))


@pytest.mark.parametrize("change", OTHERS)
def test_another_picture_is_not(change: str) -> None:
    images = [picture(seed, 180) for seed in range(10)]
    assert found([*images, *map(OTHERS[change], images)]) == [-1] * 20


def test_the_same_bytes_are_the_same_though_nothing_is_to_be_seen() -> None:
    black = Image.new("RGB", (48, 48))
    assert found([black, black, black], ["a", "b", "a"]) == [-1, -1, 0]


def test_a_copy_of_a_copy_leads_to_the_first() -> None:
    image = picture(0, 180)
    again = CHANGES["saved again"](image)
    assert found([image, again, again, picture(1, 180), again], ["a", "b", "b", "c", "d"]) == [-1, 0, 0, -1, 0]


def test_similar_finds_what_a_comparison_of_all_pairs_finds() -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**63, 400, np.uint64)
    for number in range(200, 400):  # near ones: up to eight bits differ
        flipped = sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 9), replace=False))
        bits[number] = bits[number - 200] ^ np.uint64(flipped)
    thumbnails = np.tile(rng.integers(0, 256, (1, 16, 16), np.uint8), (400, 1, 1))
    distances = np.bitwise_count(bits[:, np.newaxis] ^ bits[np.newaxis])
    expected = [next((j for j in range(i) if distances[i, j] <= MOST_BITS), -1) for i in range(400)]
    assert similar(bits, thumbnails).tolist() == expected


def test_many_pictures_of_one_scene_take_no_more_time_than_others() -> None:
    count = 20_000
    bits = np.zeros(count, np.uint64)
    thumbnails = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (count, 1, 1))
    assert similar(bits, thumbnails).tolist() == [-1] + [0] * (count - 1)
