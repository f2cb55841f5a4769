"""`cnnexp explain`: what a tracked run looks at."""

from pathlib import Path
from typing import Any

from cnnexp.commands.arguments import split_overrides, take_flag, take_option
from cnnexp.commands.quiet import import_tensorflow
from cnnexp.composition import load_config
from cnnexp.console import progress, say
from cnnexp.errors import UserError, nearest
from cnnexp.explain.names import METHOD_NAMES

HELP = f"""usage: cnnexp explain RUN IMAGE... [--method M,M] [--layer L] [--class C] [--activations] [OVERRIDES]

Heat maps over images: which places speak for a class. With --activations also every channel of the chosen layers.

  RUN            an MLflow run id, a unique prefix of one, or `latest`
  IMAGE          files, folders, or patterns in quotes, as 'photos/*.jpg'
  --method       {", ".join(METHOD_NAMES)} (gradcam if none is named)
  --layer        the layer whose maps are used; the last convolution if none is named
  --class        the class to speak for; the predicted one if none is named
  --activations  grids of activations too, one PNG a layer; of --layer only, if that is given
"""


def run(arguments: list[str]) -> int:
    """Load, read, explain, draw."""
    methods, arguments = take_option(arguments, "--method")
    layer, arguments = take_option(arguments, "--layer")
    wanted, arguments = take_option(arguments, "--class")
    grids, arguments = take_flag(arguments, "--activations")
    names, overrides = split_overrides(arguments)
    chosen = (methods or "gradcam").split(",")
    unknown = next((name for name in chosen if name not in METHOD_NAMES), None)
    if unknown is not None:
        raise UserError(f"--method {unknown}: no such method; allowed: {', '.join(nearest(unknown, [*METHOD_NAMES]))}")
    if len(names) < 2:
        raise UserError("cnnexp explain: give a run and images, as `cnnexp explain latest photo.jpg`")
    config = load_config(overrides)
    import_tensorflow()
    from cnnexp.commands.heatmaps import draw_heat_maps
    from cnnexp.commands.recorded import class_probabilities, find_images, load_recorded, read_batch

    recorded = load_recorded(config, names[0])
    if wanted is not None and wanted not in recorded.class_names:
        raise UserError(
            f"--class {wanted}: no such class; allowed: {', '.join(nearest(wanted, [*recorded.class_names]))}"
        )
    files, images = read_batch(find_images(names[1:]), recorded)
    if not files:
        raise UserError("cnnexp explain: none of the images could be read")
    recorded.model.jit_compile = False
    probabilities = class_probabilities(recorded.model.predict_on_batch(images))
    classes = probabilities.argmax(axis=1)
    if wanted is not None:
        classes[:] = recorded.class_names.index(wanted)
    folder = Path(config.paths.root) / "explain" / recorded.run_id
    draw_heat_maps(
        folder / "heatmaps.png",
        f"{recorded.name} {recorded.run_id[:8]}",
        recorded.model,
        recorded.class_names,
        [file.name for file in files],
        images,
        probabilities,
        classes,
        chosen,
        layer,
    )
    say(str(folder / "heatmaps.png"))
    if grids:
        for file in _draw_activations(folder, recorded.model, files, images, layer):
            say(str(file))
    return 0


def _draw_activations(folder: Path, model: Any, files: list[Path], images: Any, layer: str | None) -> list[Path]:
    from cnnexp.explain.activations import activation_grids
    from cnnexp.explain.overlay import write_png

    written = []
    for number, (file, image) in enumerate(zip(progress(files, "activations"), images, strict=True)):
        for name, grid in activation_grids(model, image, [layer] if layer else None).items():
            written.append(folder / f"{number}_{file.stem}" / f"{name}.png")
            write_png(written[-1], grid)
    return written
