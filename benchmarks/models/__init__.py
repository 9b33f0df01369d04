"""Real models that people have published as packages, through ``deploy``."""
