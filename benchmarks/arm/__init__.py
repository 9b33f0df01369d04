"""Executed instructions and estimated cycles of a call on ARM processors, beside peers, in an emulator."""
