"""cnnexp: config-driven experiments in image classification with convolutional networks."""

__version__ = "0.1.0"
