"""Adds a family, a recipe and a target to edgeq."""
