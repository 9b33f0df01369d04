"""What a board needs to run a bundle from Python: numpy, and the library that the bundle carries."""
