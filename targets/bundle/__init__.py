"""Writes bundles: code, weights, manifest, golden runs, tokenizer tables, signatures."""
