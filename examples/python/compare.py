"""Embeds two sentences and prints how similar they are: -1 to 1.

    python compare.py BUNDLE "A cat sat on the mat." "A kitten was sitting on a rug."

It needs `pip install edgeq[runtime]`, which brings numpy and nothing else.
"""

import sys

import numpy as np

import edgeq
from edgeq.errors import EdgeqError


def main() -> int:
    """Reads the arguments and prints the similarity."""
    if len(sys.argv) != 4:
        print("usage: compare.py BUNDLE TEXT TEXT", file=sys.stderr)
        return 2
    try:
        vectors = edgeq.load(sys.argv[1]).encode(sys.argv[2:])
    except EdgeqError as error:
        print(error, file=sys.stderr)
        return 1
    first, second = vectors.astype(np.float64)
    print(f"{first @ second / np.sqrt((first @ first) * (second @ second)):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
