"""Every method by its name; each is called as `heatmap(model, images, class_index, layer)`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cnnexp.explain import gradcam, gradcam_plusplus, hirescam, layercam, scorecam
from cnnexp.explain.cam import Combination

Heatmap = Callable[..., np.ndarray]

METHODS: dict[str, Heatmap] = {
    "gradcam": gradcam.heatmap,
    "gradcam_plusplus": gradcam_plusplus.heatmap,
    "hirescam": hirescam.heatmap,
    "layercam": layercam.heatmap,
    "scorecam": scorecam.heatmap,
}

# those that need activations and gradients only, for `cam.gradient_heatmaps`
COMBINATIONS: dict[str, Combination] = {
    "gradcam": gradcam.combine,
    "gradcam_plusplus": gradcam_plusplus.combine,
    "hirescam": hirescam.combine,
    "layercam": layercam.combine,
}
