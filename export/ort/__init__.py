"""edgeq's operators for ONNX Runtime: the compiled kernels as a library that it loads."""

from edgeq.export.ort.library import LIBRARY_NAME, build_library
from edgeq.export.ort.session import cached_library, session_options

__all__ = ["LIBRARY_NAME", "build_library", "cached_library", "session_options"]
