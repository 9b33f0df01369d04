"""Calibrated recipes beside rounding to the nearest level, on real models."""
