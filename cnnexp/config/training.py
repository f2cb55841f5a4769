"""The config groups `optimizer`, `trainer`, `tracking` and `paths`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from omegaconf import MISSING

from cnnexp.config.limits import option
from cnnexp.errors import UserError


@dataclass
class ScheduleConfig:
    """Learning rate over the run: linear warm-up to the optimizer's rate, then this shape."""

    name: str = option("constant", choices=("constant", "cosine", "exponential"))
    warmup_epochs: float = option(0.0, minimum=0)
    final_fraction: float = option(0.0, minimum=0, maximum=1)  # of the learning rate, at the last step

    def check(self) -> None:
        if self.name == "exponential" and self.final_fraction == 0:
            raise UserError("optimizer.schedule.final_fraction=0: an exponential schedule needs more than 0, as 0.01")


@dataclass
class OptimizerConfig:
    """A Keras optimizer; its other parameters go into `arguments`."""

    _target_: str = MISSING
    name: str = MISSING
    learning_rate: float = option(1e-3, above=0)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    weight_decay: Optional[float] = option(None, minimum=0)  # decoupled (arXiv 1711.05101)
    ema_momentum: Optional[float] = option(None, above=0, below=1)  # evaluate and keep averaged weights
    layer_decay: float = option(1.0, above=0, maximum=1)  # of the rate, for each layer below the head
    arguments: dict[str, Any] = option({})


@dataclass
class RmspropConfig(OptimizerConfig):
    """keras.optimizers.RMSprop"""

    rho: float = option(0.9, minimum=0, below=1)
    momentum: float = option(0.0, minimum=0, below=1)
    epsilon: float = option(1e-7, above=0)


@dataclass
class AdamConfig(OptimizerConfig):
    """keras.optimizers.Adam"""

    beta_1: float = option(0.9, minimum=0, below=1)
    beta_2: float = option(0.999, minimum=0, below=1)
    epsilon: float = option(1e-7, above=0)


@dataclass
class AdamwConfig(AdamConfig):
    """keras.optimizers.AdamW"""

    weight_decay: Optional[float] = option(0.004, minimum=0)


@dataclass
class SgdConfig(OptimizerConfig):
    """keras.optimizers.SGD"""

    momentum: float = option(0.9, minimum=0, below=1)
    nesterov: bool = False


OPTIMIZERS: dict[str, type] = {"rmsprop": RmspropConfig, "adam": AdamConfig, "adamw": AdamwConfig, "sgd": SgdConfig}

# ------------------------------------------------------------------------------- trainer, tracking, paths


@dataclass
class EarlyStoppingConfig:
    """Stop after `patience` epochs without a better `trainer.monitor`, with the weights of the best; null: never."""

    patience: Optional[int] = option(None, minimum=1)
    min_delta: float = option(0.0, minimum=0)  # what counts as better


@dataclass
class TrainerConfig:
    """The training loop."""

    epochs: int = option(30, minimum=1)  # of each phase that names none
    max_epochs: Optional[int] = option(None, minimum=1)  # of any phase, whatever it names
    batch_size: int = option(20, minimum=1)
    steps_per_epoch: Optional[int] = option(None, minimum=1)  # null: one pass over the images
    evaluation_batch_size: int = option(64, minimum=1)
    monitor: str = option("val/acc", choices=("val/acc", "val/loss", "train/acc", "train/loss"))
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    label_smoothing: float = option(0.0, minimum=0, below=1)  # arXiv 1512.00567, section 7
    flip_averaging: bool = False  # probabilities are the mean over the image and its mirror image
    feature_cache: bool = True  # compute what a frozen part puts out once, and keep it on disk
    feature_dtype: str = option("float32", choices=("float32", "float16"))  # on disk
    feature_cache_limit: Optional[float] = option(20.0, above=0)  # gibibytes; the least recently used goes first
    augmented_passes: Optional[int] = option(None, minimum=1)  # kept and cycled through; null: a new draw each epoch
    loader_threads: int = option(2, minimum=1)  # that decode and augment; the batches do not depend on it
    image_memory_limit: float = option(4.0, minimum=0)  # gibibytes, for the decoded images of a split
    image_cache_limit: float = option(20.0, minimum=0)  # gibibytes on disk, for those of splits beyond that; 0: none
    threads: Optional[int] = option(None, minimum=1)  # of TensorFlow; null: one a core. Decides the last digits
    strategy: str = option("auto", choices=("auto", "mirrored", "multi_worker"))  # auto: all GPUs, if several
    virtual_cpus: Optional[int] = option(None, minimum=1)  # devices the CPU appears as, to try mirrored without GPUs
    dtype_policy: str = option("float32", choices=("float32", "mixed_float16", "mixed_bfloat16"))  # Keras' name
    deterministic: bool = True
    resume: bool = False  # go on with the newest unfinished run of the same config, at its last finished epoch

    def check(self) -> None:
        if self.strategy == "multi_worker":
            raise UserError(
                "trainer.strategy=multi_worker: the fit of Keras 3.15 fails on its first batch under TensorFlow's "
                "MultiWorkerMirroredStrategy; use mirrored for the GPUs of one machine, or share out the jobs of a "
                "sweep with hydra/launcher=ray or submitit_slurm"
            )


@dataclass
class SweepConfig:
    """How the jobs of a sweep are run, beside the group of the same name, which lists jobs."""

    on_failure: str = option("continue", choices=("continue", "stop"))  # stop: no job starts after a failure
    fresh_process: Optional[bool] = None  # each job in a process of its own; null: where the launcher is joblib
    resume: bool = True  # a line given again goes on with its newest sweep: what is done there is not done again


@dataclass
class TrackingConfig:
    """Where runs are recorded; `uri: null` records only into the run folder."""

    uri: Optional[str] = None
    experiment: str = "cnnexp"
    artifact_root: str = MISSING
    log_model: bool = True
    explain: Any = "auto"  # heat maps, and on drawn pictures how well they find the evidence; see `check`
    register: Optional[str] = None  # name in the model registry: of a run's model, or of the best of a sweep
    tags: dict[str, str] = option({})

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

    root: str = "outputs"
    data: str = MISSING
    cache: str = MISSING
    runs: str = MISSING
    weights: dict[str, str] = option({})  # by a backbone's name: the file of its ImageNet weights

    def check(self) -> None:
        for name, file in self.weights.items():
            if not Path(file).expanduser().is_file():
                raise UserError(f"paths.weights.{name}={file}: there is no such file; give that of {name}'s weights")
