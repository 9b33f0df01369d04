"""The rules that a stage must keep, one file a rule."""
