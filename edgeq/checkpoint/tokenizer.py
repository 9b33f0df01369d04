"""The tokenizer of a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from tokenizers import normalizers

from edgeq.checkpoint.config import one_line
from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats.json_file import read_json_object
from edgeq.formats.tokenizer_files import check_tokenizer_files
from edgeq.models.transformers_release import RELEASE, TOKENIZER_OF_RELEASE_5
from edgeq.quiet import quiet_transformers


def load_tokenizer(folder: Path, *, lower_case: bool = False) -> Any:
    """Loads the tokenizer of a checkpoint folder.

    Args:
        folder: The folder.
        lower_case: Lower-case texts before anything else, as sentence-transformers can be told to.

    Raises:
        FormatError: If there is none, or it is damaged.
    """
    check_tokenizer_files(folder)
    try:
        with quiet_transformers():
            tokenizer = _tokenizer(folder)
    except Exception as error:  # the tokenizers library raises bare Exception for damaged files
        raise FormatError(f"the tokenizer in {folder} cannot be loaded: {one_line(error)}") from error
    # Some publishers leave "pad everything to 128" in tokenizer.json; edgeq pads and cuts by itself.
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        if lower_case:
            _lower_case_first(tokenizer.backend_tokenizer)
    elif lower_case:
        raise UnsupportedError(f"{folder}: 'do_lower_case' is not supported for a tokenizer that is Python code")
    return tokenizer


def _tokenizer(folder: Path) -> Any:
    """Release 5 has other names for the class that ``tokenizer.json`` describes, and for further special tokens."""
    path = folder / "tokenizer_config.json"
    settings = read_json_object(path) if path.is_file() else {}
    kind: Any = transformers.AutoTokenizer
    options: dict[str, Any] = {}
    if RELEASE < 5 and settings.get("tokenizer_class") == TOKENIZER_OF_RELEASE_5:
        kind = transformers.PreTrainedTokenizerFast
    if RELEASE < 5 and isinstance(further := settings.get("extra_special_tokens"), list):
        options = {"extra_special_tokens": {}, "additional_special_tokens": further}
    return kind.from_pretrained(folder, local_files_only=True, **options)


def _lower_case_first(backend: Any) -> None:
    """Puts a lower-casing step before the others, unless there is one."""
    before = backend.normalizer
    stored = json.loads(backend.to_str())["normalizer"] or {}
    steps = stored.get("normalizers", [stored])
    if any(step.get("type") == "Lowercase" or step.get("lowercase") is True for step in steps):
        return
    parts = list(before) if isinstance(before, normalizers.Sequence) else [before] if before is not None else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
