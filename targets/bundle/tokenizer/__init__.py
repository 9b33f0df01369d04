"""Translates a bundle's ``tokenizer.json`` into ``tokenizer.bin``, which ``edgeq-run`` maps and uses as it is."""
