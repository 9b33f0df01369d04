"""Evaluation data, and correlation, accuracy and perplexity of a model on any backend."""
