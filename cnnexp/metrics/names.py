"""The names of the figures that a run records, and which way each is better."""

# by epoch
TRAIN_LOSS, TRAIN_ACC = "train/loss", "train/acc"
VAL_LOSS, VAL_ACC = "val/loss", "val/acc"
LEARNING_RATE = "lr"
EPOCH_SECONDS = "time/epoch_s"  # of the training steps, without the validation
IMAGES_PER_SECOND = "images_per_s"
MONITORED = (VAL_ACC, VAL_LOSS, TRAIN_ACC, TRAIN_LOSS)  # what `trainer.monitor` may be

# of the weights that were kept
FINAL_VAL_LOSS, FINAL_VAL_ACC = "final/val_loss", "final/val_acc"
TEST_LOSS, TEST_ACC = "test/loss", "test/acc"
TEST_ECE, TEST_BRIER = "test/ece", "test/brier"
TEST_ROC_AUC, TEST_AVERAGE_PRECISION = "test/roc_auc", "test/average_precision"
AGREEMENT = "agreement/max_difference"  # of a probability, between the whole network and the cached features

# what they cost
TRAIN_SECONDS, FEATURES_SECONDS, TOTAL_SECONDS = "time/train_s", "time/features_s", "time/total_s"
EPOCHS = "count/epochs"
PARAMETERS = "count/parameters"
TRAINABLE_PARAMETERS, TRAINABLE_TENSORS = "count/trainable_parameters", "count/trainable_tensors"
JOBS, FAILED_JOBS = "count/jobs", "count/failed"  # of a sweep


def image_count(split: str) -> str:
    """The name of the number of images of a split: train, validation or test."""
    return f"count/{split}_images"


def rises(name: str) -> bool:
    """Whether a figure is the better the higher it is."""
    return not name.endswith("loss")


def is_better(name: str, one: float, other: float, min_delta: float = 0.0) -> bool:
    """Whether one value of a figure is better than another by more than `min_delta`; NaN never is."""
    gain = one - other if rises(name) else other - one
    return gain > min_delta
