"""Everything about what lies on disk, once, without torch."""
