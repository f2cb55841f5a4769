"""Every method by its name; each is called as `heatmap(model, images, class_index, layer)`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cnnexp.explain import gradcam, gradcam_plusplus, hirescam, layercam, scorecam

Heatmap = Callable[..., np.ndarray]

METHODS: dict[str, Heatmap] = {
    "gradcam": gradcam.heatmap,
    "gradcam_plusplus": gradcam_plusplus.heatmap,
    "hirescam": hirescam.heatmap,
    "layercam": layercam.heatmap,
    "scorecam": scorecam.heatmap,
}
