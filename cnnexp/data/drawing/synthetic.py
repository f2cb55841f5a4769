"""Drawn cats and dogs: the offline stand-in for the dogs-vs-cats photos, each with the mask of its evidence.

What tells the classes apart is only what `drawing.evidence` draws (ears, muzzle, nose, whiskers, tongue).
Pose, coat, body, head, eyes, objects, decoys, light and camera are drawn without knowing the class: the same state of
the generator gives a cat and a dog in one and the same scene. So a heat map that points outside the mask
points at something that cannot help.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cnnexp.config.data import SyntheticConfig
from cnnexp.console import progress
from cnnexp.data.drawing.animals import CAT, DOG, Coat, Pose, body, coat, head, pose
from cnnexp.data.drawing.canvas import SUPERSAMPLING, Canvas, Part, mark
from cnnexp.data.drawing.evidence import evidence
from cnnexp.data.drawing.scenery import background, decoys, distractors, occluders, photograph
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.files import atomic_folder, exclusive
from cnnexp.formats import read_json

DRAWN_BY = "cnnexp.data.synthetic"  # the mark in a folder of drawings; what bears it may be drawn anew
VERSION = 1  # of the drawing code: raise it when the same seed gives other pictures
CLASSES = ("cat", "dog")
SPLITS = ("train", "validation", "test")
LEAST_SEEN = 0.45  # of the evidence is left by what stands before it, on a coarse grid
DECOY_LEAVES = 0.95  # of the evidence is left by a decoy that stands before it
COARSE = 96  # pixels along the side of that grid
JPEG_QUALITY = 92
THREADS = 2


@dataclass(frozen=True, eq=False)
class Scene:
    """A cat and a dog in the same pose and place; parts are listed from back to front.

    Attributes:
        behind: objects and the animal's body.
        evidence: for each kind the parts behind the head and those before it.
        before: objects that may hide some of the animal.
        backdrop_seed, camera_seed: of the background, and of light and noise.
    """

    coat: Coat
    behind: list[Part]
    head: list[Part]
    evidence: dict[int, tuple[list[Part], list[Part]]]
    before: list[Part]
    backdrop_seed: int
    camera_seed: int

    def animal(self, kind: int) -> list[Part]:
        """Head and evidence of the cat (0) or dog (1)."""
        back, front = self.evidence[kind]
        return [*back, *self.head, *front]


def compose(rng: np.random.Generator, size: int = 180, decoy_count: int = 0) -> Scene:
    """What is to be seen in a picture of `size` pixels, with so many decoys.

    Each aspect has a generator of its own, so that none depends on how many numbers another one draws.
    """
    seeds = rng.integers(0, 2**63, 9).tolist()
    streams = [np.random.default_rng(seed) for seed in seeds[:6]]
    at = pose(streams[0])
    fur = coat(streams[1], size, at.radius)
    face = head(streams[2], at, fur)
    behind = distractors(streams[3]) + body(streams[4], at, fur)
    both = {kind: evidence(kind, np.random.default_rng(seeds[6]), at, fur) for kind in (CAT, DOG)}
    scene = Scene(fur, behind, face, both, [], backdrop_seed=seeds[7], camera_seed=seeds[8])
    scene = replace(scene, before=_before(streams[5], at, scene))
    return _with_decoys(np.random.default_rng([seeds[8], 1]), scene, decoy_count)


def _before(rng: np.random.Generator, at: Pose, scene: Scene) -> list[Part]:
    """Objects that leave enough of the evidence of both kinds to be seen."""
    for _ in range(6):
        parts = occluders(rng, at)
        if all(_seen(scene.animal(kind), parts) >= LEAST_SEEN for kind in (CAT, DOG)):
            return parts
    return []


def _with_decoys(rng: np.random.Generator, scene: Scene, count: int) -> Scene:
    """Each stands before the animal unless it would hide evidence of either kind; then it stands behind."""
    behind, before = list(scene.behind), list(scene.before)
    for parts in decoys(rng, count):
        hides = any(_seen(scene.animal(kind), parts) < DECOY_LEAVES for kind in (CAT, DOG))
        (behind if hides else before).extend(parts)
    return replace(scene, behind=behind, before=before)


def _seen(animal: list[Part], before: list[Part]) -> float:
    mask = np.zeros((COARSE, COARSE), np.uint8)
    mark(mask, animal)
    whole = cv2.countNonZero(mask)
    mark(mask, before)
    return cv2.countNonZero(mask) / max(whole, 1)


def draw(kind: int, rng: np.random.Generator, size: int = 180, decoy_count: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a cat or a dog.

    Args:
        kind: 0 = cat, 1 = dog. It changes ears, muzzle, nose, whiskers and tongue, and nothing else.
        rng: decides everything else.
        size: height and width in pixels.
        decoy_count: of objects with sharper contrasts than the evidence has, in pictures of either kind alike. A
            network that has learned nothing points at them; without them, evidence is what stands out most.

    Returns:
        The picture, (size, size, 3) uint8 RGB in 0..255, and the mask of the evidence that can be seen,
        (size, size) uint8, 255 = evidence and 0 = anything else. At least a third of the evidence is seen.
    """
    assert kind in (CAT, DOG)
    scene = compose(rng, size, decoy_count)
    backdrop = background(np.random.default_rng(scene.backdrop_seed), size)
    large = (SUPERSAMPLING * size, SUPERSAMPLING * size)
    canvas = Canvas(cv2.resize(backdrop, large), cv2.resize(scene.coat.texture, large))
    canvas.paint(scene.behind)
    canvas.paint(scene.animal(kind))
    canvas.paint(scene.before)
    image = cv2.resize(canvas.image, (size, size), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(canvas.mask, (size, size), interpolation=cv2.INTER_AREA)
    image = photograph(image, np.random.default_rng(scene.camera_seed))
    return image, np.where(mask > 127, 255, 0).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ data set


def draw_dataset(folder: Path, options: SyntheticConfig) -> None:
    """Write a data set of drawn cats and dogs; `folder` appears when everything is in it.

    `folder/{train,validation,test}/{cat,dog}/{cat,dog}.{i}.jpg` are the pictures, i from 0 in each split and
    class. `folder/masks/` has the same tree of PNG masks (see `draw`), `folder/dataset.json` says with which
    options all was drawn. A picture depends on seed, size, decoys, split, class and number alone: a larger
    data set holds the smaller one.

    Args:
        folder: where to; a data set drawn there before is replaced. The caller keeps other processes out.
        options: of which `train`, `validation`, `test`, `size`, `seed` and `decoys` say what is drawn.

    Raises:
        UserError: a count that is odd or less than 2; `folder` holds something else.
    """
    options.check()
    folder = Path(folder).absolute()
    if folder.exists() and _recorded(folder) is None and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"dataset.path={folder}: holds other files than drawn pictures; give another folder")
    with atomic_folder(folder, replace=True) as unfinished:
        _draw_all(unfinished, options)
        (unfinished / "dataset.json").write_text(json.dumps(_facts(options), indent=2) + "\n")


def is_drawn(folder: Path, options: SyntheticConfig) -> bool:
    """Whether `draw_dataset` with these very options, and this version of it, filled the folder."""
    return _recorded(Path(folder)) == _facts(options)


def limited(options: SyntheticConfig) -> SyntheticConfig:
    """The options with no more pictures of a split than `limit`, rounded down to an even number."""
    if options.limit is None:
        return options
    most = options.limit - options.limit % 2
    counts = {split: min(getattr(options, split), most) for split in SPLITS}
    return replace(options, limit=None, **counts)


def drawing_folder(options: SyntheticConfig) -> Path:
    """The folder below `options.path` of the pictures that are drawn with these options."""
    numbers = [options.train, options.validation, options.test, options.size, options.seed]
    numbers += [options.decoys] if options.decoys else []
    return Path(str(options.path)).expanduser().absolute() / "-".join(map(str, numbers))


def _facts(options: SyntheticConfig) -> dict[str, object]:
    """What `dataset.json` says of pictures that are drawn with these options."""
    names = (*SPLITS, "size", "seed", *(["decoys"] if options.decoys else []))
    facts = {"drawn_by": DRAWN_BY, "version": VERSION, "classes": list(CLASSES)}
    return facts | {name: getattr(options, name) for name in names}


def _recorded(folder: Path) -> dict[str, Any] | None:
    """What `dataset.json` says, or None where there is none of ours."""
    try:
        found = read_json(folder / "dataset.json", dict[str, Any])
    except UserError:
        return None
    return found if found.get("drawn_by") == DRAWN_BY else None


def _draw_all(folder: Path, options: SyntheticConfig) -> None:
    jobs = []
    for split in SPLITS:
        for kind, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            (folder / "masks" / split / name).mkdir(parents=True)
            numbers = range(getattr(options, split) // 2)
            jobs += [partial(_draw_one, folder, options, split, kind, number) for number in numbers]
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for _ in progress(pool.map(lambda job: job(), jobs), "drawing pictures", total=len(jobs)):
                pass
        except BaseException:  # also Ctrl-C: do not draw the rest first
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _draw_one(folder: Path, options: SyntheticConfig, split: str, kind: int, number: int) -> None:
    rng = np.random.default_rng([options.seed, SPLITS.index(split), kind, number])
    image, mask = draw(kind, rng, options.size, options.decoys)
    name = f"{split}/{CLASSES[kind]}/{CLASSES[kind]}.{number}"
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
    (folder / f"{name}.jpg").write_bytes(jpeg.tobytes())
    (folder / "masks" / f"{name}.png").write_bytes(cv2.imencode(".png", mask)[1].tobytes())


def draw_synthetic(path: Path, options: SyntheticConfig) -> None:
    """Draw cats and dogs into `path` with `synthetic.draw_dataset`, unless they lie there already.

    Of two processes, one waits for the other.

    Raises:
        UserError: `path` holds something else; the disk is full.
    """
    if is_drawn(path, options):
        return
    with exclusive(path):
        if not is_drawn(path, options):
            draw_dataset(path, options)
