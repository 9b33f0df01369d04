"""Architecture adapters: what edgeq must know about a model family to compress and export it."""
