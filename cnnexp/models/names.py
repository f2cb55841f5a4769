"""The networks of keras.applications by name, without importing Keras: config checks use them too."""

from __future__ import annotations

from typing import NamedTuple

IMAGENET_NETWORKS = ("efficientnet_lite0", "vgg16")


class Application(NamedTuple):
    """Where to find a network, and what its ImageNet weights were trained on.

    attribute:     the name of the function in keras.applications.
    preprocessing: a mode of `cnnexp.models.preprocessing`; "none" where the network scales for itself.
    """

    attribute: str
    preprocessing: str


APPLICATIONS = {
    "vgg16": Application("VGG16", "caffe"),
    "vgg19": Application("VGG19", "caffe"),
    "resnet50": Application("ResNet50", "caffe"),
    "resnet101": Application("ResNet101", "caffe"),
    "resnet152": Application("ResNet152", "caffe"),
    "resnet50_v2": Application("ResNet50V2", "tf"),
    "resnet101_v2": Application("ResNet101V2", "tf"),
    "resnet152_v2": Application("ResNet152V2", "tf"),
    "inception_v3": Application("InceptionV3", "tf"),
    "inception_resnet_v2": Application("InceptionResNetV2", "tf"),
    "xception": Application("Xception", "tf"),
    "mobilenet": Application("MobileNet", "tf"),
    "mobilenet_v2": Application("MobileNetV2", "tf"),
    "mobilenet_v3_small": Application("MobileNetV3Small", "none"),
    "mobilenet_v3_large": Application("MobileNetV3Large", "none"),
    "densenet121": Application("DenseNet121", "torch"),
    "densenet169": Application("DenseNet169", "torch"),
    "densenet201": Application("DenseNet201", "torch"),
    "nasnet_mobile": Application("NASNetMobile", "tf"),
    "nasnet_large": Application("NASNetLarge", "tf"),
    "efficientnet_b0": Application("EfficientNetB0", "none"),
    "efficientnet_b1": Application("EfficientNetB1", "none"),
    "efficientnet_b2": Application("EfficientNetB2", "none"),
    "efficientnet_b3": Application("EfficientNetB3", "none"),
    "efficientnet_b4": Application("EfficientNetB4", "none"),
    "efficientnet_b5": Application("EfficientNetB5", "none"),
    "efficientnet_b6": Application("EfficientNetB6", "none"),
    "efficientnet_b7": Application("EfficientNetB7", "none"),
    "efficientnet_v2_b0": Application("EfficientNetV2B0", "none"),
    "efficientnet_v2_b1": Application("EfficientNetV2B1", "none"),
    "efficientnet_v2_b2": Application("EfficientNetV2B2", "none"),
    "efficientnet_v2_b3": Application("EfficientNetV2B3", "none"),
    "efficientnet_v2_s": Application("EfficientNetV2S", "none"),
    "efficientnet_v2_m": Application("EfficientNetV2M", "none"),
    "efficientnet_v2_l": Application("EfficientNetV2L", "none"),
    "convnext_tiny": Application("ConvNeXtTiny", "none"),
    "convnext_small": Application("ConvNeXtSmall", "none"),
    "convnext_base": Application("ConvNeXtBase", "none"),
    "convnext_large": Application("ConvNeXtLarge", "none"),
    "convnext_xlarge": Application("ConvNeXtXLarge", "none"),
}
