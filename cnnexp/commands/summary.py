"""`cnnexp summary`: the network, layer by layer, without training it."""

from cnnexp.commands.arguments import CommandParser
from cnnexp.config.composition import load_config
from cnnexp.console import say, table
from cnnexp.errors import UserError
from cnnexp.process import import_tensorflow

TEXT = "Layers, output shapes, parameters and the formula behind each count, and what is trained after freezing."


def parser() -> CommandParser:
    """The arguments of `cnnexp summary`."""
    examples = ["experiment=baseline", "experiment=finetuned freeze_policy.first_trainable_layer=block4_conv1"]
    return CommandParser("summary", TEXT, {"[OVERRIDES]": "those of `cnnexp train`"}, examples)


def run(arguments: list[str]) -> int:
    """Build the network and show it; weights are neither read nor downloaded."""
    given = parser().parse(arguments)
    if given.names:
        raise UserError(f"{given.names[0]}: cnnexp summary takes only overrides, as experiment=baseline")
    config = load_config(given.overrides, given.config_dir)
    import_tensorflow()
    from cnnexp.models.counts import layer_rows, totals
    from cnnexp.runs.build import apply, build_without_weights, freeze_policies
    from cnnexp.runs.job import load_dataset
    from cnnexp.runs.planning import channels_and_classes, knows

    dataset = None if knows(config) else load_dataset(config)
    network = build_without_weights(config, *channels_and_classes(config, dataset))
    for layer in network.backbone_layers:
        layer.trainable = True
    before = totals(network)
    trained = []
    for name, policy in zip(list(config.phases) or [""], freeze_policies(config), strict=True):
        apply(policy, network)
        after = totals(network)
        where = f"phase {name}, {policy.mode}" if name else policy.mode
        trained.append((where, after.trainable, after.trainable_tensors))
    rows = [
        [
            row.name,
            row.type,
            str(row.output_shape),
            "yes" if row.trainable else "",
            row.formula,
            f"{row.parameters:,}" if row.parameters else "",
        ]
        for row in layer_rows(network)
    ]
    table(network.model.name, ["layer", "type", "output shape", "trained", "formula", "parameters"], rows, left=5)
    say(f"{after.total:,} parameters: {config.backbone.name} {after.backbone:,}, head {after.head:,}")
    say(f"before freezing {before.trainable:,} are trained, in {before.trainable_tensors} tensors")
    for where, parameters, tensors in trained:
        say(f"after freezing ({where}) {parameters:,} are trained, in {tensors} tensors")
    return 0
