"""What `conf/` composes to: every file, sweeps, and who overrides whom. The experiments' values: test_golden.py."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import OmegaConf

from cnnexp.config import SCHEMAS, Config, hydra_driver, schema_of, validated
from cnnexp.config.composition import compose_config, load_config, plan_jobs
from cnnexp.config.data import SyntheticConfig
from cnnexp.config.hydra_driver import _jobs_checked, conf_dir, hydra_context
from cnnexp.errors import UserError
from cnnexp.models.names import APPLICATIONS

CONF = conf_dir()
EXPERIMENTS = sorted(
    str(file.relative_to(CONF / "experiment").with_suffix("")) for file in (CONF / "experiment").rglob("*.yaml")
)
STEPS = ["baseline", "augmented", "frozen", "frozen_augmented", "finetuned", "finetuned_augmented", "best"]


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    """One initialisation of Hydra for the whole file."""
    with hydra_context():
        yield


@cache
def composed(*overrides: str) -> Config:
    """Not to be changed: tests share it."""
    return validated(compose_config(overrides))


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


APPLICATION_FILES = [name for name in options("backbone") if name in APPLICATIONS]  # all of one form


def groups() -> list[str]:
    special = {"experiment", "sweep", "debug", "hydra"}
    return sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name not in special)


# ---------------------------------------------------------------------------------------- every YAML file


def test_the_groups_of_the_design_are_there() -> None:
    assert set(groups()) >= {"dataset", "augmentation", "backbone", "head", "freeze_policy", "optimizer"}
    assert set(groups()) >= {"trainer", "tracking", "paths"}
    assert set(options("dataset")) >= {"dogs_vs_cats", "folder", "mnist", "digits", "synthetic"}
    assert set(options("backbone")) >= {"small_cnn", "mnist_cnn", "vgg16", "vgg19", "resnet50", "efficientnet_lite0"}
    assert set(options("backbone")) >= {"inception_v3", "inception_resnet_v2", "xception", "mobilenet"}
    assert set(options("backbone")) >= {"efficientnet_v2_b0", "convnext_tiny", "mobilenet_v2", "densenet121"}
    assert set(EXPERIMENTS) >= {"mnist", *STEPS}
    assert {name for name in EXPERIMENTS if "/" in name} == {f"demo/{name}" for name in STEPS}


def composed_options(group: str) -> list[str]:
    return [name for name in options(group) if group != "backbone" or name not in APPLICATION_FILES[2:]]


@pytest.mark.parametrize("chosen", list(zip_longest(*map(composed_options, groups()))))
def test_every_option_composes(chosen: tuple[str | None, ...]) -> None:
    """The first option of every group together, then the second, and so on."""
    choices = {group: option for group, option in zip(groups(), chosen, strict=True) if option}
    needed = {f"{group}._target_=a.b": option == "custom" for group, option in choices.items()}
    needed["freeze_policy.first_trainable_layer=a"] = choices.get("freeze_policy") == "until_layer"
    lines = [f"{group}={option}" for group, option in choices.items()]
    result = composed(*lines, *(line for line, holds in needed.items() if holds))
    for group, option in choices.items():
        node = getattr(result, group)
        if group not in ("trainer", "tracking", "paths", "phases"):
            assert (node.mode if group == "freeze_policy" else node.name) == option


def test_each_backbone_of_a_sweep_may_have_its_weights_file(tmp_path: Path) -> None:
    file = tmp_path / "some.weights.h5"
    file.touch()
    given = f"+paths.weights.vgg16={file}"
    jobs = [validated(compose_config([*job, given])) for job in plan_jobs(["sweep=progression"], multirun=False).jobs]
    assert [job.backbone.weights for job in jobs] == [None, None, *[str(file)] * 4, "imagenet"]
    assert composed(f"+paths.weights.small_cnn={file}").backbone.weights == str(file)
    for weights in (None, "imagenet"):
        chosen = composed("experiment=frozen", given, f"backbone.weights={weights or 'null'}")
        assert chosen.backbone.weights == weights


def test_a_weights_file_is_there_and_its_backbone_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"paths\.weights\.vgg61: there is no backbone=vgg61; allowed: vgg16, "):
        composed(f"+paths.weights.vgg61={tmp_path}")
    with pytest.raises(UserError, match=r"paths\.weights\.vgg16=no/file\.h5: there is no such file"):
        composed("+paths.weights.vgg16=no/file.h5")
    with pytest.raises(UserError, match=r"to add it, write \+paths\.weights\.vgg16"):
        composed("paths.weights.vgg16=no/file.h5")


def test_the_freeze_policy_follows_the_backbone() -> None:
    for name, layer in (("vgg16", "block5_conv1"), ("resnet50", "conv5_block1_1_conv")):
        result = composed("experiment=finetuned", f"backbone={name}")
        assert result.freeze_policy.first_trainable_layer == layer
    chosen = composed("experiment=finetuned", "freeze_policy.first_trainable_layer=block4_conv1")
    assert chosen.freeze_policy.first_trainable_layer == "block4_conv1"
    for phases in ("head_first", "slow_head_first"):  # the last phase does what the policy says
        result = composed(
            "experiment=finetuned", f"phases={phases}", "freeze_policy.first_trainable_layer=block4_conv1"
        )
        assert result.phases["head"].freeze_policy.mode == "full"
        assert result.phases["finetune"].freeze_policy.first_trainable_layer == "block4_conv1"
    late = composed("experiment=frozen", "phases=head_first").phases["finetune"].freeze_policy
    assert (late.mode, late.first_trainable_layer) == ("until_layer", "block5_conv1")


# --------------------------------------------------------------------------------------------------- sweeps


def test_the_progression_is_seven_jobs_in_order() -> None:
    plan = plan_jobs(["sweep=progression"], multirun=False)
    assert plan.multirun  # by the file, without -m
    assert plan.jobs == [[f"experiment={name}", "sweep=progression"] for name in STEPS]
    assert composed(*plan.jobs[3]) == composed("experiment=frozen_augmented")  # the file adds nothing to a job
    of_photos = plan_jobs(["sweep=progression", "dataset.source=photos"], multirun=False)
    assert len(of_photos.jobs) == 7  # a key that the default data set does not have
    assert composed("experiment=mnist", "sweep=progression").dataset.name == "mnist"


def test_the_demo_is_seven_jobs_in_order_which_need_no_download() -> None:
    plan = plan_jobs(["sweep=demo"], multirun=False)
    assert plan.multirun
    assert plan.jobs == [[f"experiment=demo/{name}", "sweep=demo"] for name in STEPS]
    results = [composed(*job) for job in plan.jobs]
    assert [result.name for result in results] == STEPS
    for result in results:
        assert type(result.dataset) is SyntheticConfig  # beats what the experiments choose
        assert result.backbone.name in ("small_cnn", "efficientnet_lite0")
        assert result.reference_accuracy is None  # the published figures are of photos


@pytest.mark.parametrize(
    ("overrides", "multirun", "jobs"),
    [
        (["seed=1"], False, [["seed=1"]]),
        (["seed=1"], True, [["seed=1"]]),
        (["seed=range(3)"], True, [["seed=0"], ["seed=1"], ["seed=2"]]),
        (
            ["optimizer=adam,sgd", "seed=choice(0,1)"],
            True,
            [
                ["optimizer=adam", "seed=0"],
                ["optimizer=adam", "seed=1"],
                ["optimizer=sgd", "seed=0"],
                ["optimizer=sgd", "seed=1"],
            ],
        ),
        (["seed=1,2", "hydra.mode=MULTIRUN"], False, [[f"seed={n}", "hydra.mode=MULTIRUN"] for n in (1, 2)]),
        (["backbone.filters=[8,16]"], False, [["backbone.filters=[8,16]"]]),
    ],
)
def test_jobs_of_a_line(overrides: list[str], multirun: bool, jobs: list[list[str]]) -> None:
    assert plan_jobs(overrides, multirun).jobs == jobs


def test_a_sweep_file_multiplies_with_the_values_of_the_line() -> None:
    jobs = plan_jobs(["sweep=progression", "seed=1,2"], multirun=False).jobs
    assert len(jobs) == 14
    assert jobs[:3] == [
        ["experiment=baseline", "sweep=progression", "seed=1"],
        ["experiment=baseline", "sweep=progression", "seed=2"],
        ["experiment=augmented", "sweep=progression", "seed=1"],
    ]
    assert plan_jobs(["sweep=progression", "experiment=best,mnist"], multirun=False).jobs == [
        ["experiment=best", "sweep=progression"],
        ["experiment=mnist", "sweep=progression"],
    ]


@pytest.mark.parametrize("overrides", [["name=a", "seed=range(2)"], ["experiment=baseline,best"]])
def test_several_values_without_multirun(overrides: list[str]) -> None:
    with pytest.raises(UserError, match="several values run as a sweep; add -m"):
        plan_jobs(overrides, multirun=False)


def test_an_interval_needs_another_sweeper() -> None:
    with pytest.raises(UserError, match=r"seed=interval\(0,3\): .*hydra/sweeper=optuna"):
        plan_jobs(["seed=interval(0,3)"], multirun=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("hydra.sweeper.params=abc", "hydra.sweeper.params=abc: cannot assign str"),
        ("hydra.sweeper.params=[1,2]", "hydra.sweeper.params=[1,2]: cannot merge"),
        (
            "hydra.sweeper.params={seed:'0,1'}",
            "is for a file of the group sweep; on the line, give the keys themselves",
        ),
        ("+hydra.sweeper.params.seed='0,1'", "is for a file of the group sweep; on the line, give the keys themselves"),
        ("hydra.sweeper.max_batch_size=1,2", "is read once, for the whole sweep; give it one value"),
        ("hydra.sweeper=abc", "hydra.sweeper=abc: names no sweeper; choose one, as hydra/sweeper=basic"),
        ("hydra.launcher=null", "names no launcher; choose one, as hydra/launcher=basic"),
        ("hydra/launcher=basic,joblib", "hydra/launcher=basic,joblib: is read once, for the whole sweep"),
    ],
)
def test_what_a_sweep_is_told_wrongly(given: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_jobs([given, "seed=0,1"], multirun=True)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------- who overrides whom


def test_the_command_line_beats_the_experiment() -> None:
    result = composed("experiment=frozen", "trainer.epochs=7", "backbone=resnet50", "dataset=digits")
    assert (result.trainer.epochs, result.trainer.batch_size) == (7, 20)
    assert (result.backbone.name, result.dataset.name) == ("resnet50", "digits")
    assert composed("trainer.epochs=7", "experiment=frozen").trainer.epochs == 7  # wherever it stands


@pytest.mark.parametrize("base", [["experiment=frozen"], ["experiment=demo/finetuned", "sweep=demo"], []])
def test_debug_is_applied_last(base: list[str]) -> None:
    result = composed("debug=smoke", *base)
    trainer = result.trainer
    assert (trainer.epochs, trainer.steps_per_epoch, trainer.batch_size) == (2, 2, 4)
    assert (result.dataset.limit, result.backbone.weights) == (16, None)
    before = composed(*base)
    assert before.trainer.epochs > 2
    assert before.dataset.limit is None


def test_the_command_line_beats_debug() -> None:
    result = composed("experiment=baseline", "debug=smoke", "trainer.epochs=3", "dataset.limit=8")
    assert (result.trainer.epochs, result.dataset.limit, result.trainer.batch_size) == (3, 8, 4)


def test_the_root_moves_everything_that_is_written() -> None:
    result = composed("paths.root=elsewhere")
    written = [result.paths.data, result.paths.cache, result.paths.runs, result.tracking.artifact_root]
    assert all(path.startswith("elsewhere/") for path in written)
    assert result.tracking.uri == "sqlite:///elsewhere/mlflow.db"
    assert isinstance(result.dataset, SyntheticConfig) and result.dataset.path == "elsewhere/data/synthetic"
    assert composed("tracking=none").tracking.uri is None
    hydra = compose_config(["paths.root=elsewhere"], with_hydra=True).hydra
    assert hydra.run.dir.startswith("elsewhere/runs/")
    assert hydra.sweep.dir.startswith("elsewhere/runs/") and hydra.sweep.dir.endswith("_sweep")


def test_run_folders_of_one_second_differ() -> None:
    folders = [compose_config([], with_hydra=True).hydra.run.dir for _ in range(3)]
    assert len(set(folders)) == 3


def test_groups_can_be_merged_and_cleared() -> None:
    both = composed("experiment=[baseline,augmented]")
    assert (both.name, both.augmentation.name) == ("augmented", "geometric")
    assert composed("experiment=frozen", "~experiment").name == "custom"


# ------------------------------------------------------------------------------------------- mistakes


def message(overrides: Sequence[str]) -> str:
    with pytest.raises(UserError) as caught:
        validated(compose_config(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_option_names_the_nearest_first() -> None:
    assert message(["backbone=vgg17"]).startswith("backbone=vgg17: no such option; allowed: vgg16, vgg19, ")
    assert message(["experiment=fine"]).startswith("experiment=fine: no such option; allowed: finetuned, ")
    assert message(["experiment=demo/froz"]).startswith("experiment=demo/froz: no such option; allowed: demo/frozen, ")
    assert message(["backbone=[vgg16,resnet]"]).startswith("backbone=resnet: no such option; allowed: resnet50, ")
    assert message(["trainer=7"]) == "trainer=7: no such option; allowed: default"
    assert message(["hydra/launcher=jobli"]).startswith("hydra/launcher=jobli: no such option; allowed: ")
    assert message(["hydra=cnn"]).startswith("hydra=cnn: no such option; allowed: cnnexp, ")


def test_null_for_a_group_tells_how_to_leave_it_out() -> None:
    assert message(["debug=null"]) == "debug=null: no such option; allowed: smoke; ~debug for none"
    assert not message(["backbone=null"]).endswith("for none")
    assert message(["~backbone"]) == "backbone: no value given; set it, as backbone=VALUE"


@pytest.mark.parametrize(
    ("overrides", "begins"),
    [
        (["sed=3"], "sed=3: no such key; allowed: seed, "),
        (
            ["augmentation=geometric", "augmentation.zoom=1"],
            "augmentation.zoom=1: no such key; allowed: augmentation.zoom_r",
        ),
        (["+foo.bar=1"], "foo={'bar': 1}: no such key; allowed: "),
        (["hydra.mod=RUN"], "hydra.mod=RUN: no such key; allowed: hydra.mode, "),
        (["~trainer.epoch"], "~trainer.epoch: no such key; allowed: trainer.epochs, "),
        (["~trainer.epochs"], "~trainer.epochs: a key of the schema cannot be taken away"),
        (["tracking.tags.why=x"], "tracking.tags.why=x: no such key yet; to add it, write +tracking.tags.why=x"),
        (["+experiment=best"], "+experiment=best: has its place already; write experiment=best"),
        (["+head.arguments.units=3"], "head.arguments.units: is a key of its own; set head.units"),
    ],
)
def test_an_unknown_key_names_the_nearest_first(overrides: list[str], begins: str) -> None:
    assert message(overrides).startswith(begins)


def test_a_key_that_is_added_to_a_leaf_may_be_meant_for_its_function() -> None:
    said = message(["+backbone.alpha=0.5"])
    assert said.startswith("backbone.alpha=0.5: no such key; allowed: backbone.")
    assert said.endswith("for a function of your own: +backbone.arguments.alpha=VALUE")
    assert composed("backbone=mobilenet", "+backbone.arguments.alpha=0.5").backbone.arguments == {"alpha": 0.5}
    assert composed("+tracking.tags.why=x").tracking.tags == {"why": "x"}


def test_the_functions_of_the_options_are_known_by_their_schema() -> None:
    known = set()
    for group in SCHEMAS:
        for name in options(group):
            text = (CONF / group / f"{name}.yaml").read_text()
            kind = text.partition(f"- /schema/{group}/")[2].partition("@_here_")[0]
            target = text.partition("\n_target_: ")[2].partition("\n")[0]
            if schema := schema_of(group, target):
                assert schema is SCHEMAS[group][kind], name
                known.add(kind)
    assert known == {kind for kinds in SCHEMAS.values() for kind in kinds} - {"custom", "none", "pretrained"}
    for group, target in (("augmentation", "my.code.Geometric"), ("dataset", "cnnexp.data.sourcesx.folder")):
        assert schema_of(group, target) is None
    assert schema_of("augmentation", None) is schema_of("optimizer", "keras.optimizers.Lion") is None


GEOMETRIC = ["augmentation=none", "augmentation._target_=cnnexp.data.augment.Geometric"]
STRONG = ["augmentation=geometric", "augmentation._target_=cnnexp.data.augment.Strong"]
FOLDER = ["dataset=custom", "dataset._target_=cnnexp.data.sources.folder"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            [*GEOMETRIC, "+augmentation.arguments.rotation_range=500"],
            "augmentation.arguments.rotation_range=500: must be at least 0 and at most 180",
        ),
        (
            [*GEOMETRIC, "+augmentation.arguments.zoom_range='0.1'"],
            "augmentation.arguments.zoom_range=0.1: must be a number at least 0 and less than 1",
        ),
        (
            [*GEOMETRIC, "+augmentation.arguments.fill_mode=wrap"],
            "augmentation.arguments.fill_mode=wrap: must be one of nearest, reflect, constant",
        ),
        (
            [*GEOMETRIC, "+augmentation.arguments.horizontal_flip=perhaps"],
            "augmentation.arguments.horizontal_flip=perhaps: value 'perhaps' is not a valid bool (type str)",
        ),
        (
            [*STRONG, "+augmentation.arguments.erasing_min_area=0.3"],
            "augmentation.erasing_min_area=0.3: must be at most augmentation.erasing_max_area=0.2",
        ),
        (
            [*FOLDER, "+dataset.arguments.path=photos", "+dataset.arguments.on_bad=ignore"],
            "dataset.arguments.on_bad=ignore: must be one of error, skip",
        ),
        (
            [*FOLDER, "+dataset.arguments.path=photos", "+dataset.arguments.validation_fraction=0.8"],
            "dataset.validation_fraction=0.8: must be less than 1 together with dataset.test_fraction=0.25, so that "
            "images to train on remain",
        ),
        (
            ["optimizer._target_=keras.optimizers.Adam", "+optimizer.arguments.beta_1=1"],
            "optimizer.arguments.beta_1=1: must be at least 0 and less than 1",
        ),
    ],
)
def test_arguments_of_a_known_function_are_checked_as_its_keys(overrides: list[str], said: str) -> None:
    assert message(overrides).partition(". ")[0] == said  # then the key's sentence


def test_good_arguments_are_handed_on_as_they_are() -> None:
    result = composed(
        *GEOMETRIC, "+augmentation.arguments.rotation_range=40", "+augmentation.arguments.horizontal_flip=true"
    )
    assert result.augmentation.arguments == {"rotation_range": 40, "horizontal_flip": True}
    assert type(result.augmentation.arguments["rotation_range"]) is int
    assert composed(*FOLDER, "+dataset.arguments.path=photos").dataset.arguments == {"path": "photos"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.epochs=2.5", "trainer.epochs=2.5: value '2.5' of type 'float' could not be converted to Integer"),
        ("trainer.epochs=true", "trainer.epochs=true: value 'True' of type 'bool' could not be converted to Integer"),
        ("trainer.deterministic=maybe", "trainer.deterministic=maybe: value 'maybe' is not a valid bool"),
        ("name=null", "name=null: field 'name' is not Optional"),
        ("backbone.filters=3", "backbone.filters=3: invalid value assigned"),
        ("optimizer.schedule=cosine", "optimizer.schedule=cosine: invalid type assigned"),
        ("dataset.arguments=3", "dataset.arguments=3: cannot assign int to Dict[str, Any]"),
        ("hydra.mode=MULTI", "hydra.mode=MULTI: invalid value 'MULTI', expected one of [RUN, MULTIRUN]"),
        ("name=???", "name: no value given; set it, as name=VALUE"),
        ("name=${oc.env:CNNEXP_NOT_SET}", "name: KeyError raised while resolving interpolation"),
        ("name=${nonsense:3}", "name: Unsupported interpolation type nonsense"),
        ("=3", "=3: not an override; write KEY=VALUE"),
        ("a b=c", "a b=c: not an override; write KEY=VALUE"),
    ],
)
def test_wrong_values(override: str, said: str) -> None:
    assert message([override]).startswith(said)


# -------------------------------------------------------------------------------- a further folder of YAML files


@pytest.fixture
def further(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "experiment/mine").mkdir(parents=True)
    for name, seed in (("own", 5), ("mine/other", 6)):
        (tmp_path / f"experiment/{name}.yaml").write_text(
            "# @package _global_\ndefaults:\n  - override /backbone: vgg19\n"
            f"name: own\nseed: {seed}\ntrainer:\n  epochs: 4\n"
        )
    (tmp_path / "whole.yaml").write_text("defaults:\n  - config\n  - _self_\nname: whole\n")
    (tmp_path / "bare.yaml").write_text("name: bare\n")
    with hydra_context(str(tmp_path)):
        yield


@pytest.mark.usefixtures("further")
def test_a_further_folder_adds_experiments() -> None:
    result = validated(compose_config(["experiment=own", "seed=9"]))
    assert (result.name, result.seed, result.trainer.epochs, result.backbone.name) == ("own", 9, 4, "vgg19")
    assert validated(compose_config(["experiment=mine/other"])).seed == 6
    assert validated(compose_config(["experiment=baseline"])).name == "baseline"
    assert plan_jobs(["experiment=own,baseline"], True).jobs == [["experiment=own"], ["experiment=baseline"]]


@pytest.mark.usefixtures("further")
def test_a_further_folder_adds_root_files() -> None:
    assert validated(compose_config(["seed=2"], name="whole")).name == "whole"
    assert plan_jobs(["seed=2"], False, "whole").jobs == [["seed=2"]]
    with pytest.raises(UserError, match="begin its defaults list with `- schema`"):
        validated(compose_config([], name="bare"))
    with pytest.raises(UserError, match="Cannot find primary config 'wholy'"):
        compose_config([], name="wholy")


@pytest.mark.usefixtures("further")
def test_mistakes_beside_a_further_folder() -> None:
    assert message(["experiment=owm"]).startswith("experiment=owm: no such option; allowed: own, ")
    assert message(["backbone=vgg17"]).startswith("backbone=vgg17: no such option; allowed: vgg16, ")
    assert message(["experiment=own", "trainer.epoch=1"]).startswith("trainer.epoch=1: no such key; allowed: tr")
    with pytest.raises(UserError, match="--config-dir=lost: there is no such folder"), hydra_context("lost"):
        pass


def test_load_config_leaves_hydra_as_it_was() -> None:
    assert load_config(["experiment=best", "seed=4"]).seed == 4
    assert validated(compose_config(["seed=5"])).seed == 5  # in what the fixture of the file has set up


def test_jobs_of_the_same_options_are_composed_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        ["experiment=frozen", "seed=1", "optimizer.learning_rate=0.1", "augmentation.seed=${seed}"],
        ["experiment=frozen", "seed=2", "optimizer.learning_rate=1e-3", "augmentation.seed=${seed}"],
        ["experiment=frozen", "seed=2", "optimizer=adam", "optimizer.learning_rate=0.2"],
        ["experiment=frozen", "seed=3", "optimizer=adam", "optimizer.learning_rate=0.3"],
        ["experiment=frozen", "seed=3", "optimizer=sgd", "optimizer.learning_rate=0.3"],
        ["experiment=baseline", "backbone.filters=[4,8]", "head.dropout=0.1", "optimizer.weight_decay=null"],
        ["experiment=baseline", "backbone.filters=[2]", "head.dropout=0.2", "optimizer.weight_decay=0.5"],
        ["experiment=baseline", "+tracking.tags.a=1", "seed=4"],
        ["experiment=baseline", "+tracking.tags.a=2", "seed=5"],
        ["experiment=baseline", "optimizer.schedule={name:cosine}"],
        ["experiment=baseline", "optimizer.schedule={warmup_epochs:1}"],
        ["experiment=baseline"],
    ]

    def plain(config):
        return OmegaConf.to_container(config, resolve=True), validated(config)

    with hydra_context():
        for line in lines:
            with monkeypatch.context() as patch:
                patch.setattr(hydra_driver, "_merged", {})
                patch.setattr(hydra_driver, "_listed", {})
                alone = plain(compose_config(line))
            assert plain(compose_config(line)) == alone, line
        with pytest.raises(UserError, match=r"optimizer\.learning_rate=fast"):
            compose_config(["experiment=frozen", "seed=1", "optimizer.learning_rate=fast", "augmentation.seed=3"])


def test_jobs_are_not_composed_once_more_to_see_whether_they_can_be():
    """By Hydra's basic sweeper; those of another sweeper are."""
    asked = []

    class Loader:
        def load_sweep_config(self, master_config, sweep_overrides):
            asked.append(sweep_overrides)

    def sweeper(name):
        made = type(name, (Sweeper,), {"setup": None, "sweep": None})()
        made.hydra_context, made.config = HydraContext(Loader(), None), {}
        return made

    with _jobs_checked():
        sweeper("BasicSweeper").validate_batch_is_legal([["a=1"]])
        sweeper("OptunaSweeper").validate_batch_is_legal([["a=2"]])
    sweeper("BasicSweeper").validate_batch_is_legal([["a=3"]])
    assert asked == [["a=2"], ["a=3"]]


def test_a_published_figure_stands_beside_its_own_images_alone() -> None:
    for overrides, expected in (
        (["experiment=finetuned"], 0.924),
        (["experiment=finetuned", "dataset=folder", "dataset.path=photos"], None),
        (["experiment=frozen", "dataset=synthetic"], None),
        (["experiment=mnist"], 0.9919),
        (["experiment=mnist", "dataset=digits"], None),
        (["experiment=baseline", "dataset=mnist"], None),
        (["experiment=finetuned", "dataset=folder", "dataset.path=photos", "reference_accuracy=0.95"], 0.95),
    ):
        assert composed(*overrides).reference_accuracy == expected, overrides
