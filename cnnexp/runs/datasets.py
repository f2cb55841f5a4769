"""From the config to the data set; without TensorFlow."""

from cnnexp.config import Config
from cnnexp.config.targets import bind
from cnnexp.data.dataset import Dataset
from cnnexp.errors import UserError


def load_dataset(config: Config) -> Dataset:
    """The data set that `dataset` names; draws or prepares it where it does not lie ready."""
    dataset = bind("dataset", config.dataset, omit=("image_size",))()
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"dataset._target_={config.dataset._target_}: returned {type(dataset).__name__}, "
            f"not cnnexp.data.dataset.Dataset"
        )
    return dataset
