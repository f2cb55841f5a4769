"""The names of the methods and of the ImageNet networks, for those who do not want to load TensorFlow."""

METHOD_NAMES = ("gradcam", "gradcam_plusplus", "hirescam", "layercam", "scorecam")
