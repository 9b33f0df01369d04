"""The operator library of ONNX Runtime, measured."""
