"""What a board needs to run a bundle from Python: numpy, tvm, and tokenizers for text."""
