"""Students of SST-2 beside their teachers, and beside each other.

Each machine fine-tunes a teacher of its own, for the same steps end in other last digits on another processor. A
student is compared with the teacher that it was made of, and with students of that teacher and its seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.claims.intervals import Difference, paired_difference
from benchmarks.claims.measure import TEACHERS, teacher_name
from benchmarks.claims.records import BAG_OF_WORDS
from benchmarks.claims.table import Finished, Row


def teachers_line(rows: Sequence[Row], finished: Finished) -> str:
    """Says what the teachers of these rows are, and how good."""
    taught: dict[str, set[int]] = {}
    for row in rows:
        for result in measured(row, finished):
            taught.setdefault(teacher_name(result["teacher"]), set()).add(result["seed"])
    if not taught:
        return "No student has been trained yet."
    each = []
    for name, seeds in taught.items():
        teacher = finished[name]
        numbers = ", ".join(map(str, sorted(seeds)))
        each.append(
            f"{100 * teacher['accuracy']:.2f} (fine-tuned on {teacher['setting']['processor']}; "
            f"of students with seed {numbers})"
        )
    sentences = len(finished[next(iter(taught))]["correct"])
    return (
        f"Teacher: all-MiniLM-L6-v2 fine-tuned on SST-2, accuracy {' and '.join(each)} on the {sentences} sentences of "
        "the development set. A student is compared with its own."
    )


def measured(row: Row, finished: Finished) -> list[dict[str, Any]]:
    """Returns the results of a row that hold an accuracy: those that did not diverge."""
    return [result for result in row.results(finished) if "accuracy" in result]


def gap_to_teacher(results: Sequence[Mapping[str, Any]], finished: Finished) -> Difference:
    """Returns student less teacher, over the seeds."""
    teachers = [_teacher(result, finished) for result in results]
    return paired_difference([one["correct"] for one in results], [one["correct"] for one in teachers])


def share_of_teacher(results: Sequence[Mapping[str, Any]], finished: Finished) -> float:
    """Returns the mean share of the teacher's accuracy that students keep."""
    return statistics.mean(one["accuracy"] / _teacher(one, finished)["accuracy"] for one in results)


def gap_between(first: Row, second: Row, finished: Finished) -> tuple[Difference, int] | None:
    """Compares two rows on the seeds and teachers that both have.

    Returns:
        First less second and how many pairs there are; None if there are none.
    """
    sides = [
        {(one["seed"], one["teacher"]): one["correct"] for one in measured(row, finished)} for row in (first, second)
    ]
    shared = sorted(sides[0].keys() & sides[1].keys())
    if not shared:
        return None
    return paired_difference(*([side[key] for key in shared] for side in sides)), len(shared)


def above_bag_of_words(results: Sequence[Mapping[str, Any]], finished: Finished) -> str:
    """Returns how many points a row is above the bag of words of its task, with an interval; empty if not measured."""
    bag = finished.get(f"{BAG_OF_WORDS}-{results[0]['task']}")
    if bag is None:
        return ""
    return str(paired_difference([one["correct"] for one in results], [bag["correct"]]))


def bag_of_words_line(finished: Finished) -> str:
    """Says what the words of a sentence alone give away on SST-2, in accuracy and as a share of the teachers'."""
    bag = finished.get(f"{BAG_OF_WORDS}-sst2")
    if bag is None:
        return "Bag of words: not measured yet."
    teachers = [one["accuracy"] for name, one in finished.items() if name.startswith(TEACHERS["sst2"])]
    share = bag["accuracy"] / statistics.mean(teachers)
    return (
        f"Bag of words: logistic regression on the {bag['words']} words that the same training data have twice, "
        f"without their order, has {100 * bag['accuracy']:.2f}, which is {share:.3f} of the teacher's: a share below "
        "that is worth nothing, and points above it are what a student has learned of sentences."
    )


def _teacher(result: Mapping[str, Any], finished: Finished) -> Mapping[str, Any]:
    return finished[teacher_name(result["teacher"])]
