"""What the stages of a run are run on, one file a kind of model."""
