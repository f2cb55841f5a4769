"""The config groups `optimizer`, `trainer`, `tracking` and `paths`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from cnnexp.config.limits import option
from cnnexp.errors import UserError, nearest
from cnnexp.metrics.names import FIGURE_NAMES, MONITORED


@dataclass
class ScheduleConfig:
    """Learning rate over the run: linear warm-up to the optimizer's rate, then this shape."""

    name: str = option(
        "constant",
        choices=("constant", "cosine", "exponential"),
        doc="The shape of the learning rate over a phase, after the warm-up.",
    )
    warmup_epochs: float = option(0.0, minimum=0, doc="Epochs in which the rate rises from 0 (arXiv 1706.02677).")
    final_fraction: float = option(
        0.0, minimum=0, maximum=1, doc="The rate at the last step, as a fraction of the optimizer's."
    )

    def check(self) -> None:
        if self.name == "exponential" and self.final_fraction == 0:
            raise UserError("optimizer.schedule.final_fraction=0: an exponential schedule needs more than 0, as 0.01")


@dataclass
class OptimizerConfig:
    """A Keras optimizer; its other parameters go into `arguments`."""

    _target_: str = option(doc="The optimizer's class, as keras.optimizers.Adam; another goes with optimizer=custom.")
    name: str = option(doc="The optimizer's name.")
    learning_rate: float = option(1e-3, above=0, doc="The rate after the warm-up.")
    schedule: ScheduleConfig = option(ScheduleConfig, doc="The learning rate over a phase.")
    weight_decay: Optional[float] = option(
        None, minimum=0, doc="Decoupled weight decay (arXiv 1711.05101); null: none."
    )
    ema_momentum: Optional[float] = option(
        None,
        above=0,
        below=1,
        doc="Momentum of a moving average of the weights, which is then validated, tested and saved; null: none.",
    )
    layer_decay: float = option(
        1.0,
        above=0,
        maximum=1,
        doc="Factor on the rate for each layer further below the head (arXiv 1801.06146); 1: none.",
    )
    arguments: dict[str, Any] = option({}, doc="Other parameters of the optimizer's class.")


@dataclass
class RmspropConfig(OptimizerConfig):
    """keras.optimizers.RMSprop"""

    rho: float = option(0.9, minimum=0, below=1, doc="Discount of the past squared gradients.")
    momentum: float = option(0.0, minimum=0, below=1, doc="Momentum of the updates.")
    epsilon: float = option(1e-7, above=0, doc="Keeps the division from growing without bound.")


@dataclass
class AdamConfig(OptimizerConfig):
    """keras.optimizers.Adam"""

    beta_1: float = option(0.9, minimum=0, below=1, doc="Decay of the mean of the gradients.")
    beta_2: float = option(0.999, minimum=0, below=1, doc="Decay of the mean of the squared gradients.")
    epsilon: float = option(1e-7, above=0, doc="Keeps the division from growing without bound.")


@dataclass
class AdamwConfig(AdamConfig):
    """keras.optimizers.AdamW"""

    weight_decay: Optional[float] = option(
        0.004, minimum=0, doc="Decoupled weight decay (arXiv 1711.05101); null: none."
    )


@dataclass
class SgdConfig(OptimizerConfig):
    """keras.optimizers.SGD"""

    momentum: float = option(0.9, minimum=0, below=1, doc="Momentum of the updates.")
    nesterov: bool = option(False, doc="Whether the momentum is Nesterov's.")


OPTIMIZERS: dict[str, type] = {
    "custom": OptimizerConfig,
    "rmsprop": RmspropConfig,
    "adam": AdamConfig,
    "adamw": AdamwConfig,
    "sgd": SgdConfig,
}

# ------------------------------------------------------------------------------- trainer, tracking, paths


@dataclass
class EarlyStoppingConfig:
    """Stop after `patience` epochs without a better `trainer.monitor`, with the weights of the best; null: never."""

    patience: Optional[int] = option(
        None,
        minimum=1,
        doc="Epochs without a better trainer.monitor that end a phase, with the weights of its best; null: never.",
    )
    min_delta: float = option(0.0, minimum=0, doc="By how much a figure must be better to count.")


@dataclass
class OwnFigure:
    """A figure of the user's own: a function of labels, (N,) int, and probabilities, (N, K) float."""

    _target_: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainerConfig:
    """The training loop."""

    epochs: int = option(30, minimum=1, doc="Epochs of each phase that names none.")
    max_epochs: Optional[int] = option(
        None, minimum=1, doc="At most so many epochs of any phase, whatever it names; null: no limit."
    )
    batch_size: int = option(20, minimum=1, doc="Images of a training step, over all devices together.")
    steps_per_epoch: Optional[int] = option(
        None, minimum=1, doc="Training steps of an epoch; null: one pass over the images."
    )
    evaluation_batch_size: int = option(
        64, minimum=1, doc="Images that are evaluated at a time; decides no figure but in its last digits."
    )
    monitor: str = option(
        "val/acc",
        choices=MONITORED,
        also=lambda node: [f"val/{name}" for name in node.figures],
        doc="The figure by which the best epoch, early stopping, searches and the choice among jobs go.",
    )
    epoch_metrics: Optional[list[str]] = option(
        None,
        doc="Figures of the validation images that each epoch has beside accuracy, loss and trainer.monitor, as "
        "[f1_macro,roc_auc]; null: f1_macro where a class has three times the training images of another.",
    )
    figures: dict[str, Any] = option(
        {},
        doc="Figures of your own, by name, as {kappa:{_target_:mine.kappa}}, beside those of `cnnexp guide figures`; "
        "one whose name ends in loss or error is the better the lower it is.",
    )
    keep_best: bool = option(
        False, doc="A phase ends with the weights of its best epoch by trainer.monitor, without stopping early."
    )
    balanced_sampling: bool = option(
        False,
        doc="Each class is drawn equally often, images of rare ones several times an epoch, which stays as long.",
    )
    early_stopping: EarlyStoppingConfig = option(EarlyStoppingConfig, doc="When a phase ends before its last epoch.")
    label_smoothing: float = option(
        0.0,
        minimum=0,
        below=1,
        doc="The earlier name of loss.label_smoothing, which has this value where it is given none.",
    )
    flip_averaging: bool = option(
        False, doc="The answer is the mean over an image and its mirror image, in the saved model too."
    )
    feature_cache: bool = option(True, doc="Compute what a frozen part puts out once, and keep it on disk.")
    feature_dtype: str = option("float32", choices=("float32", "float16"), doc="The type of cached features on disk.")
    feature_cache_limit: Optional[float] = option(
        20.0, above=0, doc="GiB of cached features on disk; the least recently used go first. null: no limit."
    )
    augmented_passes: Optional[int] = option(
        None, minimum=1, doc="How many augmented passes are cached and cycled through; null: each epoch is drawn anew."
    )
    loader_threads: int = option(2, minimum=1, doc="Threads that decode and augment; the batches do not depend on it.")
    image_memory_limit: float = option(4.0, minimum=0, doc="GiB in memory for the decoded images of a split.")
    image_cache_limit: float = option(
        20.0, minimum=0, doc="GiB on disk for the decoded images of splits beyond image_memory_limit; 0: none."
    )
    threads: Optional[int] = option(
        None, minimum=1, doc="TensorFlow's threads; null: one a core. Decides the last digits."
    )
    strategy: str = option(
        "auto",
        choices=("auto", "mirrored"),
        doc="auto uses all GPUs of the machine where there are several, mirrored says so; a cluster shares out jobs.",
    )
    virtual_cpus: Optional[int] = option(
        None,
        minimum=1,
        doc="So many devices that the CPU appears as, to try strategy=mirrored without GPUs; null: one.",
    )
    dtype_policy: str = option(
        "float32",
        choices=("float32", "mixed_float16", "mixed_bfloat16"),
        doc="Keras' dtype policy: what layers compute in.",
    )
    deterministic: bool = option(
        True, doc="The same line gives the same figures, to the last digit, on the same machine."
    )
    resume: bool = option(
        False, doc="Go on with the newest unfinished run of the same configuration, at its last finished epoch."
    )

    def check(self) -> None:
        for name in self.figures:
            if name in (*FIGURE_NAMES, "loss") or not re.fullmatch(r"[A-Za-z]\w*(?<!_low)(?<!_high)(?<!_before)", name):
                raise UserError(
                    f"trainer.figures.{name}: is no name for a figure of your own; take one of letters, digits and _ "
                    "that is free"
                )
        self.own_figures()
        names = [*FIGURE_NAMES, *self.figures]
        for name in self.epoch_metrics or []:
            if name not in names:
                allowed = ", ".join(nearest(name, names))
                raise UserError(f"trainer.epoch_metrics: {name} is no figure; allowed: {allowed}, or null")

    def own_figures(self) -> dict[str, OwnFigure]:
        """Those of the user's own, by name.

        Raises:
            UserError: there is no target, or something else.
        """
        for name, given in self.figures.items():
            if not isinstance(given, dict) or "_target_" not in given or not {*given} <= {"_target_", "arguments"}:
                raise UserError(
                    f"trainer.figures.{name}={given}: must be a mapping of _target_ and maybe arguments, as "
                    f"+trainer.figures.{name}._target_=MODULE.FUNCTION"
                )
        return {name: OwnFigure(**given) for name, given in self.figures.items()}


@dataclass
class SweepConfig:
    """How the jobs of a sweep are run, beside the group of the same name, which lists jobs."""

    on_failure: str = option(
        "continue",
        choices=("continue", "stop"),
        doc="continue runs the other jobs where one fails, stop starts no more.",
    )
    fresh_process: Optional[bool] = option(
        None, doc="Whether each job has a process of its own; null: where the launcher is joblib."
    )
    resume: bool = option(
        True, doc="A line that is given again goes on with its newest sweep; what is done there is not done again."
    )
    reuse: bool = option(
        True,
        doc="A job that equals a finished one of another sweep is taken from it; sweep.resume=false trains it anyway.",
    )
    report: str = option(
        "auto",
        choices=("auto", "progression", "grid"),
        doc="What the table compares: progression each variant with the one before it, grid all by their validation "
        "figure; auto: a list of experiments is a progression, everything else a grid.",
    )


@dataclass
class TrackingConfig:
    """Where runs are recorded; `uri: null` records only into the run folder."""

    uri: Optional[str] = option(
        None,
        doc="MLflow's tracking URI, as sqlite:///FILE or http://HOST:PORT; null: only the run's folder.",
    )
    experiment: str = option("cnnexp", doc="MLflow's experiment.")
    artifact_root: str = option(doc="The folder of recorded files, where no server keeps them.")
    log_model: bool = option(True, doc="Whether the model is recorded.")
    code: bool = option(
        True,
        doc="Whether the code is recorded: what differs from the git commit, and your own functions and config files.",
    )
    explain: Any = option(
        "auto",
        doc="Whether heat maps are drawn; auto: of a run of its own, of a progression, and of the best job of a grid.",
    )
    register: Optional[str] = option(
        None, doc="A name in the model registry for the run's model, or for the best of a sweep; null: not registered."
    )
    tags: dict[str, str] = option({}, doc="Further tags of the run.")

    def check(self) -> None:
        """`explain=auto` is true for a run of its own and for the jobs of a progression; of a grid or a search the best
        job is explained at the end."""
        if not isinstance(self.explain, bool) and self.explain != "auto":
            raise UserError(f"tracking.explain={self.explain}: must be one of auto, true, false")
        name = self.register
        if name is None:
            return
        if not name.strip() or name in (".", "..") or len(name) > 200 or set("/:@") & set(name):
            raise UserError(f"tracking.register={name}: no model's name; up to 200 characters without / : @, or null")
        for key, value in (("uri=null", self.uri), ("log_model=false", self.log_model)):
            if not value:
                raise UserError(f"tracking.register={name}: tracking.{key} leaves no model to register; take one away")


@dataclass
class PathsConfig:
    """Everything that is written goes under `root`."""

    root: str = option("outputs", place=True, doc="Everything that is written goes below this folder.")
    data: str = option(place=True, doc="The folder of drawn and prepared data sets.")
    cache: str = option(
        place=True, doc="The folder of cached features and decoded images, which may be deleted at any time."
    )
    runs: str = option(place=True, doc="The folder of the runs.")
    weights: dict[str, str] = option(
        {}, place=True, doc="By a backbone's name: the local file of its ImageNet weights."
    )

    def check(self) -> None:
        for name, file in self.weights.items():
            if not Path(file).expanduser().is_file():
                raise UserError(f"paths.weights.{name}={file}: there is no such file; give that of {name}'s weights")
