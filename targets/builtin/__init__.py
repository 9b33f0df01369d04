"""Descriptions of processors: one TOML file each, and what reads them."""
