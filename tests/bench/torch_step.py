"""The training step of the tutorial's network in PyTorch: `torch_step.py FILE EPOCHS` prints the seconds of an epoch.

FILE is an .npz with `images` (N, 150, 150, 3) uint8 RGB and `labels` (N, 1) float32 0 or 1. See `bench.step`, whose
network, batches and optimizer these are.
"""

import sys
import time
from statistics import median
from typing import Any

import numpy as np
import torch

SIZE, BATCH, RATE = 150, 20, 1e-4
FILTERS, UNITS = (32, 64, 128, 128), 512


def seconds_of_epoch(images: np.ndarray, labels: np.ndarray, epochs: int) -> float:
    """The median of all epochs but the first."""
    nn: Any = torch.nn
    blocks, channels, side = [], 3, SIZE
    for filters in FILTERS:
        blocks += [nn.Conv2d(channels, filters, 3), nn.ReLU(), nn.MaxPool2d(2)]
        channels, side = filters, (side - 2) // 2
    dense = [nn.Flatten(), nn.Linear(channels * side**2, UNITS), nn.ReLU(), nn.Linear(UNITS, 1)]
    model = nn.Sequential(*blocks, *dense)
    optimizer = torch.optim.RMSprop(model.parameters(), RATE, alpha=0.9)
    loss = nn.BCEWithLogitsLoss()
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        for chosen in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss(model(x[chosen].float() / 255), y[chosen]).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


if __name__ == "__main__":
    with np.load(sys.argv[1]) as arrays:
        print(seconds_of_epoch(arrays["images"], arrays["labels"], int(sys.argv[2])))
