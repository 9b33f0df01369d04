"""What a bundle would cost on a processor that is not here: an estimate from its machine code."""
