"""Caches of keys and values: what their types cost in time, in memory and in perplexity."""
