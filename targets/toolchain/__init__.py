"""C compilers and linkers for every target, and what they link against."""
