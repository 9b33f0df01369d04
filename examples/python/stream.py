"""Continues a text and prints every piece of it as it is made.

    python stream.py BUNDLE "The river" 40

It needs `pip install edgeq[runtime]`, which brings numpy and nothing else.
"""

import sys

import edgeq
from edgeq.errors import EdgeqError


def main() -> int:
    """Reads the arguments and prints the text."""
    if len(sys.argv) != 4 or not sys.argv[3].isdigit():
        print("usage: stream.py BUNDLE TEXT NUMBER-OF-TOKENS", file=sys.stderr)
        return 2
    try:
        for token in edgeq.load(sys.argv[1]).generate(sys.argv[2], max_new_tokens=int(sys.argv[3])):
            print(token.text, end="", flush=True)
    except EdgeqError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
