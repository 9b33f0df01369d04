"""ONNX to device: target descriptions, kernels, compiler, bundle, runtimes. Never imports torch."""
