"""Other tools' methods of quantization on the models and data of ``benchmarks.calibration``."""
