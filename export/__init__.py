"""PyTorch to ONNX: the definitions of the ``ai.edgeq`` operators and the exporter."""
