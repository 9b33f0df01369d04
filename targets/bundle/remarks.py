"""What a bundle cannot do, said when it is made rather than on the board."""

from __future__ import annotations

from pathlib import Path

from edgeq.targets.bundle.tokenizer.table import reason_of
from edgeq.targets.runtime.schema import TOKENIZER_TABLE_FILE
from edgeq.targets.runtime.tokenizer import TOKENIZER_FILE


def bundle_remarks(bundle: Path) -> list[str]:
    """Returns a sentence for each thing that the user of a bundle should know.

    Args:
        bundle: The bundle, complete.
    """
    if not (bundle / TOKENIZER_FILE).is_file():
        return [
            f"the model's tokenizer has no {TOKENIZER_FILE} (it is Python code): this bundle takes token ids only, in "
            "Python, edgeq-run and libedgeq alike"
        ]
    reason = reason_of(bundle / TOKENIZER_TABLE_FILE)
    if reason is None:
        return []
    return [
        f"edgeq-run and libedgeq do not know this model's tokenizer ({reason}): they take token ids only; texts work "
        "from Python"
    ]
