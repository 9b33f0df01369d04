"""What the tables of the first series have in common."""

from __future__ import annotations

FIRST_SERIES = (
    "First series: its runs are of revision 1 of the code, which the code as it is does not repeat, and of a teacher "
    "that was trained 2.2 epochs and still improving, so that they measure training on as much as compression."
)
