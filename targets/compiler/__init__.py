"""ONNX to machine code: importer, graph passes, converters, kernels, instruction sets, lowering."""
