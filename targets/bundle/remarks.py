"""What a bundle cannot do or leaves out, said when it is made rather than on the board."""

from __future__ import annotations

from pathlib import Path

from edgeq.targets.bundle.generation_config import left_out_sampling
from edgeq.targets.bundle.model_info import WRITING_TASKS
from edgeq.targets.bundle.tokenizer.table import reason_of
from edgeq.targets.runtime.schema import TOKENIZER_TABLE_FILE
from edgeq.targets.runtime.tokenizer import TOKENIZER_FILE


def bundle_remarks(bundle: Path, source: Path, *, task: str) -> list[str]:
    """Returns a sentence for each thing that the user of a bundle should know.

    Args:
        bundle: The bundle, complete.
        source: The ONNX folder that it was compiled from.
        task: What its model is for.
    """
    remarks = _about_texts(bundle)
    if task in WRITING_TASKS and (keys := left_out_sampling(source)):
        remarks.append(
            f"generation_config.json sets {', '.join(map(repr, keys))} without 'do_sample': this bundle takes the most "
            "likely token, and where a temperature is given when it runs, it draws without them; give them as well"
        )
    return remarks


def _about_texts(bundle: Path) -> list[str]:
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
