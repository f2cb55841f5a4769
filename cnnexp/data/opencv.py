"""OpenCV, imported in one place: `from cnnexp.data.opencv import cv2`."""

from cnnexp.errors import UserError
from cnnexp.process import limit_opencv

limit_opencv()

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
