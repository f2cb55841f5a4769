"""The schema: limits, relations between values, what `_target_` calls, and that every number has limits."""

import math
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from omegaconf import OmegaConf

from cnnexp.config import SCHEMAS, Config, data, decision, loss, network, phases, training, validated
from cnnexp.config.limits import check_limits, option
from cnnexp.config.targets import find, partial_from_config
from cnnexp.errors import UserError, nearest

# ---------------------------------------------------------------------------------------------- limits

LIMITED = make_dataclass(
    "LIMITED",
    [
        ("closed", float, option(1.0, minimum=1, maximum=2)),
        ("open", float, option(1.5, above=1, below=2)),
        ("half", float, option(1.0, minimum=1, below=2)),
        ("from_one", int, option(1, minimum=1)),
        ("choice", str, option("red", choices=("red", "green", "blue"))),
        ("maybe", float | None, option(None, minimum=0)),
        ("free", float, field(default=0.0)),
    ],
)


@pytest.mark.parametrize(
    "values",
    [
        {"closed": 1},
        {"closed": 2},
        {"open": 1.001},
        {"open": 1.999},
        {"half": 1},
        {"half": 1.999},
        {"from_one": 10**9},
        {"choice": "blue"},
        {"maybe": None},
        {"maybe": 0},
        {"free": math.nan},
    ],
)
def test_values_inside_their_limits_pass(values: dict[str, Any]) -> None:
    check_limits("a.", LIMITED(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"closed": 0.999}, "a.closed=0.999: must be at least 1 and at most 2"),
        ({"closed": 2.001}, "a.closed=2.001: must be at least 1 and at most 2"),
        ({"open": 1.0}, "a.open=1.0: must be more than 1 and less than 2"),
        ({"open": 2.0}, "a.open=2.0: must be more than 1 and less than 2"),
        ({"half": 2.0}, "a.half=2.0: must be at least 1 and less than 2"),
        ({"from_one": 0}, "a.from_one=0: must be at least 1"),
        ({"closed": math.nan}, "a.closed=nan: must be at least 1 and at most 2"),
        ({"open": math.nan}, "a.open=nan: must be more than 1 and less than 2"),
        ({"maybe": math.inf}, "a.maybe=inf: must be at least 0"),  # not above any bound, and still no number
        ({"choice": "gren"}, "a.choice=gren: must be one of green, red, blue"),
    ],
)
def test_values_outside_their_limits_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_limits("a.", LIMITED(**values))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("node", "name", "allowed", "refused"),
    [
        (data.DatasetConfig, "image_size", [8, 4096], [7, 4097]),
        (data.DatasetConfig, "limit", [2, None], [1, 0]),
        (data.ImageFilesConfig, "on_bad", ["error", "skip"], ["ignore"]),
        (data.FolderConfig, "validation_fraction", [0.01, 0.99], [0.0, 1.0]),
        (data.FolderConfig, "test_fraction", [0.01, 0.99], [0.0, 1.0]),
        (data.MnistConfig, "validation_size", [10, 50000], [9, 50001]),
        (data.SyntheticConfig, "size", [32, 1024], [31, 1025]),
        (data.SyntheticConfig, "train", [2], [1]),
        (data.GeometricConfig, "rotation_range", [0.0, 180.0], [-1.0, 181.0]),
        (data.GeometricConfig, "width_shift_range", [0.0, 30.0], [-0.1]),
        (data.GeometricConfig, "shear_range", [0.0, 89.0], [90.0]),
        (data.GeometricConfig, "zoom_range", [0.0, 0.99], [1.0]),
        (data.GeometricConfig, "fill_mode", ["nearest", "reflect", "constant"], ["wrap"]),
        (data.StrongConfig, "erasing_probability", [0.0, 1.0], [1.1]),
        (data.StrongConfig, "erasing_min_aspect", [0.1, 1.0], [0.0, 1.1]),
        (network.BackboneConfig, "preprocessing", list(network.PREPROCESSING), ["imagenet"]),
        (network.FlattenDenseConfig, "units", [1], [0]),
        (network.FlattenDenseConfig, "input_dropout", [0.0, 0.9], [1.0, -0.1]),
        (network.PooledConfig, "units", [0], [-1]),
        (network.FreezePolicyConfig, "mode", ["none", "full", "until_layer"], ["frozen"]),
        (training.OptimizerConfig, "learning_rate", [1e-9, 10.0], [0.0, -1.0, math.nan]),
        (training.RmspropConfig, "rho", [0.0, 0.99], [1.0]),
        (training.AdamwConfig, "weight_decay", [0.0, None], [-0.1]),
        (training.OptimizerConfig, "ema_momentum", [0.01, 0.999, None], [0.0, 1.0]),
        (training.OptimizerConfig, "layer_decay", [0.01, 1.0], [0.0, 1.1]),
        (training.EarlyStoppingConfig, "patience", [1, None], [0]),
        (training.TrainerConfig, "label_smoothing", [0.0, 0.9], [1.0, -0.1]),
        (training.TrainerConfig, "feature_dtype", ["float32", "float16"], ["bfloat16"]),
        (training.TrainerConfig, "feature_cache_limit", [0.5, None], [0.0]),
        (training.TrainerConfig, "augmented_passes", [1, None], [0]),
        (training.TrainerConfig, "max_epochs", [1, None], [0]),
        (data.AugmentationConfig, "mixup", [0.0, 1.0], [-0.1]),
        (phases.PhaseConfig, "epochs", [1, None], [0]),
        (phases.PhaseConfig, "learning_rate", [1e-9, None], [0.0]),
        (training.ScheduleConfig, "name", ["constant", "cosine", "exponential"], ["linear"]),
        (training.ScheduleConfig, "final_fraction", [0.0, 1.0], [1.1]),
        (training.TrainerConfig, "epochs", [1], [0]),
        (training.TrainerConfig, "steps_per_epoch", [1, None], [0]),
        (training.TrainerConfig, "monitor", ["val/acc", "train/loss", "val/f1_macro"], ["val_acc", "train/f1_macro"]),
        (Config, "seed", [0, 2147483647], [-1, 2147483648]),
        (Config, "reference_accuracy", [0.0, 1.0, None], [1.01]),
    ],
)
def test_limits_of_the_schema(node: Any, name: str, allowed: list[Any], refused: list[Any]) -> None:
    for value in allowed:
        check_limits("", node(**{name: value}))
    for value in refused:
        with pytest.raises(UserError, match=f"^{name}={value}: must be"):
            check_limits("", node(**{name: value}))


def test_every_number_of_the_schema_has_limits() -> None:
    nodes = [getattr(part, name) for part in (data, network, training, phases, loss, decision) for name in dir(part)]
    nodes = [node for node in nodes if getattr(node, "__module__", "").startswith("cnnexp.config")]
    nodes = [node for node in nodes if hasattr(node, "__dataclass_fields__")]
    assert {node for options in SCHEMAS.values() for node in options.values()} < set(nodes)
    numbers, without = 0, []
    for node in [Config, *nodes]:
        hints = get_type_hints(node)
        for item in fields(node):
            if {int, float} & {hints[item.name], *get_args(hints[item.name])} and item.name != "filters":
                numbers += 1
                without += [f"{node.__name__}.{item.name}"] * (not item.metadata)
    assert numbers > 40
    assert without == []


def test_each_config_has_its_own_list_and_dict() -> None:
    first, second = network.ConvnetConfig(), network.ConvnetConfig()
    first.filters.append(1)
    first.arguments["a"] = 1
    assert second.filters == [32, 64, 128, 128]
    assert second.arguments == {}


def test_nearest_name_first() -> None:
    assert nearest("vgg17", ["resnet50", "vgg19", "xception", "vgg16"])[:2] == ["vgg19", "vgg16"]
    assert nearest("SGD", ["adam", "sgd"])[0] == "sgd"


# ------------------------------------------------------------------------------- relations between values

BACKBONE = {"_target_": "a.b", "name": "vgg16"}


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (
            data.FolderConfig(validation_fraction=0.5, test_fraction=0.5),
            ["dataset.validation_fraction=0.5", "less than 1"],
        ),
        (data.DigitsConfig(validation_fraction=0.4, test_fraction=0.7), ["dataset.test_fraction=0.7", "less than 1"]),
        (data.SyntheticConfig(train=3), ["dataset.train=3", "even"]),
        (data.SyntheticConfig(validation=5), ["dataset.validation=5", "even"]),
        (data.SyntheticConfig(test=7), ["dataset.test=7", "even"]),
        (
            data.StrongConfig(erasing_min_area=0.3, erasing_max_area=0.2),
            ["augmentation.erasing_min_area=0.3", "at most augmentation.erasing_max_area=0.2"],
        ),
        (
            network.BackboneConfig(**BACKBONE, weights="no/file.h5"),
            ["backbone.weights=no/file.h5", "imagenet, or null"],
        ),
        (network.ConvnetConfig(**BACKBONE, weights="no/file.h5"), ["backbone.weights=no/file.h5", "no such file"]),
        (network.ConvnetConfig(**BACKBONE, weights="imagenet"), ["backbone.weights=imagenet", "or null"]),
        (network.ConvnetConfig(**BACKBONE, filters=[]), ["backbone.filters=[]", "[32,64,128]"]),
        (network.ConvnetConfig(**BACKBONE, filters=[32, 0]), ["backbone.filters=[32, 0]", "positive"]),
        (
            network.FreezePolicyConfig(mode="until_layer"),
            ["freeze_policy.first_trainable_layer=null", "cnnexp summary"],
        ),
        (training.ScheduleConfig(name="exponential"), ["optimizer.schedule.final_fraction=0", "as 0.01"]),
        (
            Config(
                optimizer=training.OptimizerConfig(schedule=training.ScheduleConfig(warmup_epochs=3)),
                trainer=training.TrainerConfig(epochs=2),
            ),
            ["optimizer.schedule.warmup_epochs=3", "trainer.epochs=2"],
        ),
        (
            Config(
                optimizer=training.OptimizerConfig(schedule=training.ScheduleConfig(warmup_epochs=3)),
                trainer=training.TrainerConfig(epochs=5),
                phases={"head": phases.PhaseConfig(), "block5": phases.PhaseConfig(epochs=2)},
            ),
            ["phases.block5.optimizer.schedule.warmup_epochs=3", "phases.block5.epochs=2"],
        ),
        (
            Config(
                optimizer=training.OptimizerConfig(schedule=training.ScheduleConfig(warmup_epochs=3)),
                trainer=training.TrainerConfig(epochs=5, max_epochs=2),
            ),
            ["optimizer.schedule.warmup_epochs=3", "trainer.epochs=2"],
        ),
        (
            Config(
                optimizer=training.OptimizerConfig(),
                trainer=training.TrainerConfig(augmented_passes=2, feature_cache=False),
            ),
            ["trainer.augmented_passes=2", "trainer.feature_cache=false"],
        ),
        (
            Config(
                optimizer=training.OptimizerConfig(),
                augmentation=data.AugmentationConfig(mixup=0.2),
                trainer=training.TrainerConfig(augmented_passes=2),
            ),
            ["augmentation.mixup=0.2", "trainer.augmented_passes=2"],
        ),
    ],
)
def test_values_that_contradict_each_other(node: Any, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        node.check()
    for text in said:
        assert text in str(caught.value)


def test_values_that_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "some.weights.h5"
    file.write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path))
    for node in (
        data.FolderConfig(validation_fraction=0.5, test_fraction=0.25),
        data.SyntheticConfig(train=4, validation=2, test=2),
        data.StrongConfig(erasing_min_area=0.2, erasing_max_area=0.2),
        network.BackboneConfig(**BACKBONE, weights=None),
        network.BackboneConfig(**BACKBONE, weights="imagenet"),
        network.BackboneConfig(**BACKBONE, weights=str(file)),
        network.BackboneConfig(**BACKBONE, weights="~/some.weights.h5"),
        network.ConvnetConfig(**BACKBONE, filters=[1], weights=str(file)),
        network.FreezePolicyConfig(mode="until_layer", first_trainable_layer="block5_conv1"),
        network.FreezePolicyConfig(mode="full"),
        training.ScheduleConfig(name="exponential", final_fraction=0.01),
        training.ScheduleConfig(name="cosine"),
    ):
        node.check()


def test_a_config_without_the_schema_is_refused() -> None:
    with pytest.raises(UserError, match="begin its defaults list with `- schema`"):
        validated(OmegaConf.create({"seed": 1}))


# ---------------------------------------------------------------------------------------- what _target_ calls


@dataclass
class Leaf:
    """A config leaf as those of the schema are."""

    _target_: str
    name: str = "leaf"
    units: int = 3
    image_size: int = 150
    arguments: dict[str, Any] = field(default_factory=dict)


def keywords_only(units: int, scale: float = 1.0) -> tuple[int, float]:
    return units, scale


def with_name(first: int, name: str, units: int) -> tuple[int, str, int]:
    return first, name, units


def with_arguments(units: int, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return units, arguments


def takes_all(**keywords: Any) -> dict[str, Any]:
    return keywords


NO_FUNCTION = 3


def leaf(function: str, **values: Any) -> Leaf:
    return Leaf(f"{__name__}.{function}", **values)


def test_bind_passes_the_keys_of_the_leaf() -> None:
    assert partial_from_config("head", leaf("keywords_only"), omit=("image_size",))() == (3, 1.0)
    assert partial_from_config("head", leaf("keywords_only", units=5), omit=("image_size",))() == (5, 1.0)


def test_bind_spreads_arguments() -> None:
    assert partial_from_config("head", leaf("keywords_only", arguments={"scale": 2.0}), omit=("image_size",))() == (
        3,
        2.0,
    )


def test_bind_passes_arguments_whole_to_a_function_that_takes_them() -> None:
    bound = partial_from_config("head", leaf("with_arguments", arguments={"scale": 2.0}), omit=("image_size",))
    assert bound() == (3, {"scale": 2.0})


def test_bind_passes_the_name_only_where_it_is_taken() -> None:
    assert partial_from_config("head", leaf("with_name"), omit=("image_size",))(7) == (7, "leaf", 3)
    assert partial_from_config("head", leaf("takes_all"))() == {"units": 3, "image_size": 150}


def test_bind_takes_further_keywords_which_win() -> None:
    assert partial_from_config("head", leaf("takes_all"), units=9, extra=1)() == {
        "units": 9,
        "image_size": 150,
        "extra": 1,
    }


def test_bind_refuses_an_argument_that_the_function_lacks() -> None:
    with pytest.raises(UserError) as caught:
        partial_from_config("head", leaf("keywords_only", arguments={"scal": 2.0}), omit=("image_size",))
    assert str(caught.value) == (
        f"head._target_={__name__}.keywords_only: got an unexpected keyword argument 'scal'; it takes units, scale"
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (f"{__name__}.no_such_function", "cannot be imported"),
        ("no_such_package.function", "No module named 'no_such_package'"),
        ("function", "write package.module.function"),
        ("", "write package.module.function"),
        (f"{__name__}.NO_FUNCTION", "is not a function or class"),
    ],
)
def test_find_names_what_cannot_be_called(target: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^head._target_={target}: ") as caught:
        find("head._target_", target)
    assert said in str(caught.value)


def test_bind_refuses_a_builtin_without_a_signature() -> None:
    with pytest.raises(UserError, match=r"head\._target_=builtins\.max: does not tell what it takes"):
        partial_from_config("head", Leaf("builtins.max"))


def test_find_returns_functions_and_classes() -> None:
    assert find("a", "math.hypot")(3, 4) == 5
    assert find("a", f"{__name__}.Leaf") is Leaf
