"""``edgeq search`` beside uniform recipes of the same bytes, and whether its promises hold."""
