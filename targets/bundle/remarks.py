"""What a bundle cannot do, said when it is made rather than on the board."""

from __future__ import annotations

from pathlib import Path

from edgeq.formats.tokenizer_files import TOKENIZER_FILE
from edgeq.targets.bundle.tokenizer.table import reason_of
from edgeq.targets.runtime.names import TOKENIZER_TABLE_FILE


def bundle_remarks(bundle: Path) -> list[str]:
    """Returns a sentence for each thing that the user of a bundle should know.

    Args:
        bundle: The bundle, complete.
    """
    if not (bundle / TOKENIZER_TABLE_FILE).is_file():
        return [
            f"the model's tokenizer has no {TOKENIZER_FILE} (it is Python code): this bundle takes token ids only, in "
            "Python, edgeq-run and libedgeq alike"
        ]
    reason = reason_of(bundle / TOKENIZER_TABLE_FILE)
    if reason is None:
        return []
    return [
        f"libedgeq does not know this model's tokenizer ({reason}): this bundle takes token ids only, in Python and in "
        "edgeq-run alike"
    ]
