"""OpenCV, imported in one place: `from cnnexp.data.opencv import cv2`."""

import os

from cnnexp.errors import UserError

# What a decoder may allocate: half a GiB of 24-bit RGB. Pillow refuses the same number (twice its MAX_IMAGE_PIXELS):
# a file of some kB may say that it has billions. OpenCV, which reads the variable at import, asks before it allocates.
MOST_PIXELS = 178_956_970
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))

# A file that cannot be decoded becomes an ImageError; OpenCV's own lines about it would only repeat that.
# The variable, read when cv2 is imported, works in any version; the function for it changed its name twice.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

try:
    import cv2
except ModuleNotFoundError as error:
    raise UserError(f"opencv-python is not installed ({error}): pip install opencv-python") from error
except ImportError as error:
    raise UserError(
        f"opencv-python cannot load its system library ({error}): install it "
        "(Debian: apt-get install libgl1 libglib2.0-0) or use opencv-python-headless"
    ) from error

cv2.setNumThreads(1)  # images are shared out among our threads, and OpenCV's would only stand in their way

__all__ = ["cv2"]
