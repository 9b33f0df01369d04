"""How each kind of model goes through the stages, one file a kind."""
