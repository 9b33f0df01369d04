"""Kernels in TIR, one file per operator; ``numerics`` holds the float functions that they share.

Every float result is fixed by construction, whatever the core, tile or thread count: one accumulator per
output in ascending order of k with fused multiply-accumulates, or a 16-lane partial sum per row followed by one
fixed tree; division and square root are the correctly rounded instructions.
"""
