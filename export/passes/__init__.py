"""Graph passes that run between torch's exporter and the file, on :mod:`onnx_ir` models, in place."""
