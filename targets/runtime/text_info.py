"""What stands between texts and the model, in a manifest: prompts, truncation, and what the results mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgeq.errors import FormatError
from edgeq.targets.runtime.json_table import JsonTable

EMBEDDING = "sentence_embedding"
"""Output that holds one vector a text."""
POOLING_MASK = "pooling_mask"
"""Input that leaves the tokens of a prompt out of that vector."""
SCORES = ("none", "sigmoid", "softmax")
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
SIDES = ("left", "right")


@dataclasses.dataclass(frozen=True)
class TextInfo:
    """How texts are read, and what comes out.

    Attributes:
        prompts: Beginnings of texts by name.
        default_prompt: Name of the prompt that is put before every text, or None.
        max_tokens: Most tokens of a text, where that is less than the model reads, or None.
        cuts: Whether longer texts are cut; otherwise they are refused.
        cut_side: The side on which a text that is too long loses tokens: ``left`` or ``right``.
        similarity: How embeddings are compared, one of :data:`SIMILARITIES`.
        scores: What makes scores of a classifier's logits, one of :data:`SCORES`.
    """

    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    default_prompt: str | None = None
    max_tokens: int | None = None
    cuts: bool = False
    cut_side: str = "right"
    similarity: str = "cosine"
    scores: str = "softmax"

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values."""
        return {**dataclasses.asdict(self), "prompts": dict(self.prompts)}


PLAIN_TEXT = TextInfo()
"""Texts are read as they are, and longer ones are refused."""


def parse_text_info(table: JsonTable) -> TextInfo:
    """Reads the table ``text`` of a manifest.

    Raises:
        FormatError: If something is missing or is not what it should be.
    """
    prompts = table.table("prompts")
    default = table.value("default_prompt")
    info = TextInfo(
        prompts={name: prompts.text(name) for name in prompts.items},
        default_prompt=default,
        max_tokens=None if table.value("max_tokens") is None else table.integer("max_tokens", at_least=1),
        cuts=table.boolean("cuts"),
        cut_side=table.text("cut_side"),
        similarity=table.text("similarity"),
        scores=table.text("scores"),
    )
    if default is not None and (not isinstance(default, str) or default not in info.prompts):
        raise FormatError(f"{table.where}: 'default_prompt' must name one of the prompts, found {default!r}")
    for key, value, known in (
        ("cut_side", info.cut_side, SIDES),
        ("similarity", info.similarity, SIMILARITIES),
        ("scores", info.scores, SCORES),
    ):
        if value not in known:
            raise FormatError(f"{table.where}: {key!r} must be one of {', '.join(known)}, found {value!r}")
    return info
