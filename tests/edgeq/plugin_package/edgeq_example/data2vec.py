"""Data2Vec's text encoder: RoBERTa's layers under another name."""

from __future__ import annotations

from typing import ClassVar

from edgeq.models import Task
from edgeq.models.roberta import RobertaAdapter


class Data2VecTextAdapter(RobertaAdapter):
    """``Data2VecTextModel``."""

    family: ClassVar[str] = "data2vec-text"
    display_name: ClassVar[str] = "Data2VecText"
    body_name: ClassVar[str] = "data2vec_text"
    architectures: ClassVar[dict[str, Task]] = {"Data2VecTextModel": "embed"}
