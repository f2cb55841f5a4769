"""One phase of a training: its steps, its checkpoints, its early stop."""

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnexp.data.balance import members
from cnnexp.data.loading import ImageLoader
from cnnexp.data.pipeline import TrainBatches
from cnnexp.data.randomness import Purpose, stream
from cnnexp.metrics.names import is_better
from cnnexp.metrics.registry import Table, figures
from cnnexp.models.classifier import class_probabilities
from cnnexp.models.kept import once_for, trainable_flags
from cnnexp.training.callbacks import EpochListener, EpochMetrics, EpochReport, ShowProgress, Validation
from cnnexp.training.checkpoint import PhaseReport, StateDict, TrainState, write_checkpoint
from cnnexp.training.devices import replicated, shared_out, signature
from cnnexp.training.inputs import PhaseData, predict
from cnnexp.training.optimizers import OptimizerPlan, averaged_weights
from cnnexp.training.recipe import accuracy, loss_and_accuracy, mixed, targets

MAX_STEPS_PER_EXECUTION = 16
FIRST_CHECKPOINT_S = 1.0  # seconds after the start of a phase
CHECKPOINT_SHARE = 0.05  # of the time, at most: epochs on cached features can be shorter than writing a checkpoint


@dataclass(frozen=True)
class Phase:
    """What is trained, how, and for how long; `freeze` sets `trainable` on the layers of the model."""

    name: str
    epochs: int
    freeze: Callable[[], None]
    optimizer: OptimizerPlan


class PhaseTrainer:
    """One phase in the making.

    Args:
        phase: what is trained, and for how long.
        inputs: what it runs on.
        progress: how far the training is; kept up to date.
        checkpointed: the variables that a checkpoint holds, by name.
    """

    def __init__(
        self, phase: Phase, inputs: PhaseData, progress: TrainState, checkpointed: dict[str, keras.Variable]
    ) -> None:
        self.training, self.phase, self.inputs = inputs.training, phase, inputs
        self.progress, self.checkpointed = progress, checkpointed
        self.best: StateDict = {}
        self.unwritten: tuple[TrainState, StateDict] | None = None
        self.next_write = 0.0  # on the clock of `time.perf_counter`
        self.before = frozen_digest(self.training.model)
        self.train_model = replicated(inputs.train_model, self.training.strategy)
        self.batches = training_batches(inputs)
        with self._scope():
            self._compile()
        inputs.eval_model.jit_compile = False

    def _compile(self) -> None:
        """Compile the model; where it was compiled for the same steps before, make its optimizer as good as new."""
        key = self._steps_key()
        compiled = once_for(self.train_model, "compiled", dict[str, Any])
        if key and compiled.get("key") == key:
            optimizer = self.train_model.optimizer
            for variable, value in zip(optimizer.variables, compiled["new"], strict=True):
                variable.assign(value)
            if self.phase.optimizer.constant:
                optimizer.learning_rate = self.phase.optimizer.learning_rate
            return
        training, strategy = self.training, self.training.strategy
        classes, one_hot = training.data.num_classes, training.one_hot
        shown = [accuracy(classes, one_hot)]
        whole_batches = strategy is not None or isinstance(self.inputs.train, ImageLoader)
        self.train_model.compile(
            optimizer=self.phase.optimizer.build(
                self.phase.epochs,
                len(self.batches),
                fused=strategy is None,
                scale_loss=self._scales_loss(),
            ),
            loss=training.loss.build(classes, one_hot),
            metrics=shown if strategy is None else None,
            weighted_metrics=shown if strategy is not None else None,
            jit_compile=False,
            steps_per_execution=1 if whole_batches else _steps_per_execution(len(self.batches)),
        )
        self.train_model.optimizer.build(self.train_model.trainable_variables)
        compiled.update(
            key=key, new=[keras.ops.convert_to_numpy(value) for value in self.train_model.optimizer.variables]
        )

    def _scales_loss(self) -> bool:
        return any(layer.dtype_policy.compute_dtype == "float16" for layer in self.train_model.layers)

    def _steps_key(self) -> str | None:
        """What the compiled steps of this phase depend on, beside the network; None where that is not all known.

        A traced step holds every number that Python handed it: the hyper-parameters of the optimizer and the loss, but
        for a constant learning rate, which is a variable; and the shapes of all batches.
        """
        training, data, config = self.training, self.training.data, self.training.config
        optimizer = self.phase.optimizer.traced(self.phase.epochs)
        if optimizer is None or training.loss.traced is None or training.strategy is not None or self._scales_loss():
            return None
        facts = [optimizer, data.num_classes, training.one_hot, training.loss.traced, data.augmentation.mixup]
        facts += [trainable_flags(self.train_model), type(self.inputs.train).__name__, self.inputs.augment_batches]
        facts += [config.batch_size, config.steps_per_epoch, config.evaluation_batch_size, config.deterministic]
        facts += [len(split.labels) for split in (data.train, data.validation, data.test)]
        facts += [first_batch_types(self.batches)]
        return repr(facts)

    def _scope(self) -> AbstractContextManager[object]:
        return self.training.strategy.scope() if self.training.strategy else nullcontext()

    def run(self, on_epoch: EpochListener) -> PhaseReport:
        """Train what is left of the phase, and leave the weights that are to be kept in the model."""
        first = len(self.progress.history) - self.progress.phase_epochs
        done = self.progress.phase_epochs
        if done < self.phase.epochs and not self.progress.stopped:
            self._fit(first, done, on_epoch)
        self.train_model.optimizer.finalize_variable_values(self.train_model.trainable_variables)
        for name, value in self.best.items():
            self.checkpointed[name].assign(value)
        after = frozen_digest(self.training.model)
        assert after == self.before, f"phase {self.phase.name}: frozen weights changed"
        variables = self.train_model.trainable_variables
        return PhaseReport(
            name=self.phase.name,
            epochs=self.progress.phase_epochs,
            trainable_parameters=sum(int(np.prod(variable.shape)) for variable in variables),
            trainable_tensors=len(variables),
            frozen_digest=after,
            seconds=self.progress.seconds,
        )

    def _fit(self, first: int, done: int, on_epoch: EpochListener) -> None:
        last = first + self.phase.epochs
        steps = len(self.batches)
        shown = ShowProgress(last, steps)
        self.began = time.perf_counter()
        self.next_write = self.began + FIRST_CHECKPOINT_S
        report = EpochReport(
            self.batches.images_per_epoch, [on_epoch, self._after_epoch, shown.show_epoch]
        )  # what is printed is kept
        try:
            self.train_model.fit(
                self._steps(first + done, last),
                steps_per_epoch=steps,
                initial_epoch=first + done,
                epochs=last,
                callbacks=[Validation(self._validate), report, shown],
                shuffle=False,  # the stream has its own order
                verbose=0,
            )
        finally:
            shown.progress.stop()
            self.write(late=True)

    def _steps(self, first: int, last: int) -> Any:
        """Every batch of the epochs `first` to `last` - 1 in order, prepared while the steps before it run."""
        batches, at_once = self.batches, self.train_model.steps_per_execution
        if self.training.strategy is not None:
            return shared_out(batches, first, last, self.training.strategy)
        one = signature(batches.batch(first, 0))
        if at_once == 1 or batches.images_per_epoch % batches.batch_size:  # the last batch of an epoch may be smaller
            epochs = partial(batches.epochs, first, last)
            return tf.data.Dataset.from_generator(epochs, output_signature=one).prefetch(2)
        stacks = partial(batches.stacks, first, last, at_once)
        many = tf.nest.map_structure(lambda spec: tf.TensorSpec((at_once, *spec.shape), spec.dtype), one)
        return tf.data.Dataset.from_generator(stacks, output_signature=many).unbatch().prefetch(2 * at_once)

    def _validate(self) -> dict[str, float]:
        """The figures of the validation images, by name; all that are asked for, nan where one is not defined."""
        with averaged_weights(self.train_model.optimizer, self.train_model.trainable_variables):
            size = self.training.config.evaluation_batch_size
            outputs = predict(self.inputs.eval_model, self.inputs.validation, size)
        labels, names = self.training.data.validation.labels, self.training.epoch_figures
        mean_loss, share = loss_and_accuracy(outputs, labels)
        found = (
            figures(Table(labels, class_probabilities(outputs), positive=self.training.positive), names)
            if names
            else {}
        )
        return {"loss": mean_loss, "acc": share, **{name: found.get(name, math.nan) for name in names}}

    def _after_epoch(self, epoch: int, metrics: EpochMetrics) -> bool:
        """Note the epoch, and its weights if they are the best; returns whether it was the last."""
        progress = self.progress
        progress.history.append(metrics)
        progress.phase_epochs += 1
        now = time.perf_counter()
        progress.seconds += now - self.began
        self.began = now
        stopping, monitor = self.training.config.early_stopping, self.training.config.monitor
        if stopping.patience is not None or self.training.config.keep_best:
            best = progress.best_epoch
            if best is None or is_better(
                monitor, metrics[monitor], progress.history[best][monitor], stopping.min_delta
            ):
                progress.best_epoch = best = epoch
                with averaged_weights(self.train_model.optimizer, self.train_model.trainable_variables):
                    self.best = _values(self.checkpointed)
            progress.stopped = stopping.patience is not None and epoch - best >= stopping.patience
        self.save()
        return progress.stopped

    # -------------------------------------------------------------------------------------------- checkpoint

    def save(self) -> None:
        """Take down the state at the end of an epoch for the checkpoint, if there is to be one, and write it."""
        if self.training.checkpoint is None:
            return
        arrays = {f"model/{name}": value for name, value in _values(self.checkpointed).items()}
        arrays |= {f"best/{name}": value for name, value in self.best.items()}
        for number, variable in enumerate(self.train_model.optimizer.variables):
            arrays[f"optimizer/{number}"] = np.array(keras.ops.convert_to_numpy(variable))
        self.unwritten = deepcopy(self.progress), arrays
        self.write()

    def write(self, late: bool = False) -> None:
        """Write what `save` took down, unless that would take more than a part of the training's time.

        A run that is killed meanwhile goes on some seconds further back; one that is interrupted, or fails, or is done
        with the phase, does not: it writes then, `late`.
        """
        if self.unwritten is None or not (late or time.perf_counter() >= self.next_write):
            return
        assert self.training.checkpoint is not None
        began = time.perf_counter()
        write_checkpoint(self.training.checkpoint, *self.unwritten)
        self.unwritten = None
        ended = time.perf_counter()
        self.next_write = ended + (ended - began) / CHECKPOINT_SHARE

    def restore(self, arrays: StateDict) -> None:
        """Take over what `save` wrote in the middle of this phase."""
        self.best = {name.removeprefix("best/"): value for name, value in arrays.items() if name.startswith("best/")}
        for number, variable in enumerate(self.train_model.optimizer.variables):
            variable.assign(arrays[f"optimizer/{number}"])


def _values(variables: dict[str, keras.Variable]) -> StateDict:
    return {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in variables.items()}


def changing_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """What a training may change under the present freezing, by `NUMBER/path`: weights of layers that are not frozen,
    and the states of random generators."""
    frozen = {id(weight) for layer in model.layers if not layer.trainable for weight in layer.weights}
    return {
        f"{number}/{variable.path}": variable
        for number, variable in enumerate(model.variables)
        if id(variable) not in frozen
    }


def frozen_digest(model: keras.Model) -> str:
    """SHA-256, 64 hex digits, over the weights of all frozen layers in their order."""
    digest = hashlib.sha256()
    for layer in model.layers:
        if not layer.trainable:
            for weight in layer.weights:
                digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def first_batch_types(batches: TrainBatches) -> str:
    """Shape and type of what the first batch holds."""
    return repr(signature(batches.batch(0, 0)))


def training_batches(inputs: PhaseData) -> TrainBatches:
    """The batches of the training images or of their features."""
    training = inputs.training
    data, config, augmentation = training.data, training.config, training.data.augmentation

    def mix(x: np.ndarray, y: np.ndarray, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        return mixed(x, y, augmentation.mixup, stream(Purpose.MIXUP, augmentation.seed, epoch, step))

    return TrainBatches(
        inputs.train,
        targets(data.train.labels, data.num_classes, training.one_hot),
        batch_size=config.batch_size,
        steps_per_epoch=config.steps_per_epoch,
        seed=training.seed,
        augmentation=augmentation if inputs.augment_batches else None,
        mix=mix if augmentation.mixup else None,
        balanced=members(data.train.labels) if config.balanced_sampling else None,
        threads=config.loader_threads,
    )


def _steps_per_execution(steps: int) -> int:
    """How many of an epoch's steps run without Python between them: on features a step takes milliseconds.

    A divisor of `steps`, since Keras takes whole executions from the stream.
    """
    return max(number for number in range(1, MAX_STEPS_PER_EXECUTION + 1) if steps % number == 0)
