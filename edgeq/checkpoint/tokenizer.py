"""The tokenizer of a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from tokenizers import normalizers

from edgeq.checkpoint.config import one_line
from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats.json_file import read_json_object
from edgeq.formats.tokenizer_files import TOKENIZER_FILE, VOCABULARY_FILES, check_tokenizer_files
from edgeq.models.transformers_release import RELEASE, TOKENIZER_OF_RELEASE_5
from edgeq.quiet import quiet_transformers

_SETTINGS = "tokenizer_config.json"
_MANY = 0.05
"""Part of a vocabulary; a few tokens may be there for nobody's use."""


def load_tokenizer(folder: Path, *, lower_case: bool = False, config: Any = None) -> Any:
    """Loads the tokenizer of a checkpoint folder.

    Args:
        folder: The folder.
        lower_case: Lower-case texts before anything else, as sentence-transformers can be told to.
        config: The model's configuration, for a folder whose ``config.json`` names no family: ``transformers`` would
            guess it by the name of the folder.

    Raises:
        FormatError: If there is none, or it is damaged.
    """
    check_tokenizer_files(folder)
    try:
        with quiet_transformers():
            tokenizer = _tokenizer(folder, config)
    except Exception as error:  # the tokenizers library raises bare Exception for damaged files
        if missing := _missing_files(folder, config):
            raise FormatError(missing) from error
        raise FormatError(f"the tokenizer in {folder} cannot be loaded: {one_line(error)}") from error
    # Release 5 of transformers makes a tokenizer of a few special tokens where it finds no file.
    if missing := _missing_files(folder, config, loaded=type(tokenizer)):
        raise FormatError(missing)
    # Some publishers leave "pad everything to 128" in tokenizer.json; edgeq pads and cuts by itself.
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        if lower_case:
            _lower_case_first(tokenizer.backend_tokenizer)
    elif lower_case:
        raise UnsupportedError(f"{folder}: 'do_lower_case' is not supported for a tokenizer that is Python code")
    return tokenizer


def _missing_files(folder: Path, config: Any, *, loaded: type | None = None) -> str:
    """Says which file of a tokenizer a folder lacks; empty if that is not what is wrong, or not known.

    Args:
        folder: The folder.
        config: The model's configuration, or None.
        loaded: The class of what was loaded all the same, which may be that of another model.
    """
    kinds = transformers.models.auto.tokenization_auto.TOKENIZER_MAPPING.get(type(config), ())
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if loaded is not None and loaded not in kinds:
        return ""
    read = [name for kind in kinds if kind is not None for name in kind.vocab_files_names.values()]
    if not read or (folder / TOKENIZER_FILE).exists() or any((folder / name).exists() for name in read):
        return ""
    others = [name for name in VOCABULARY_FILES if (folder / name).exists()]
    found = f"; it holds {' and '.join(others)}, which tokenizers of other models read" if others else ""
    wanted = " or ".join(dict.fromkeys([TOKENIZER_FILE, *read]))
    return (
        f"{folder} holds no tokenizer of a model of type {config.model_type!r}, which is read from {wanted}{found}; "
        f"save the tokenizer that the model was trained with as {TOKENIZER_FILE}"
    )


def _tokenizer(folder: Path, config: Any) -> Any:
    """Release 5 has other names for the class that ``tokenizer.json`` describes, and for further special tokens."""
    path = folder / _SETTINGS
    settings = read_json_object(path) if path.is_file() else {}
    kind: Any = transformers.AutoTokenizer
    options: dict[str, Any] = {}
    if RELEASE < 5 and settings.get("tokenizer_class") == TOKENIZER_OF_RELEASE_5:
        kind = transformers.PreTrainedTokenizerFast
    if RELEASE < 5 and isinstance(further := settings.get("extra_special_tokens"), list):
        options = {"extra_special_tokens": {}, "additional_special_tokens": further}
    if config is not None and not read_json_object(folder / "config.json").get("model_type"):
        options["config"] = config
    return kind.from_pretrained(folder, local_files_only=True, **options)


def lost_tokens(tokenizer: Any) -> str:
    """Says which part of a vocabulary never occurs because texts are lower-cased first; empty if that is little.

    Where a folder says nothing of it, ``transformers`` lower-cases texts for a BERT, in whatever its vocabulary is.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not _lower_cases(backend.normalizer):
        return ""
    vocabulary = backend.get_vocab(with_added_tokens=False)
    special = {str(token.content) for token in backend.get_added_tokens_decoder().values()}
    lost = [token for token in vocabulary if token != token.lower() and token not in special]
    if len(lost) < len(vocabulary) * _MANY:
        return ""
    first = ", ".join(repr(token) for token in sorted(lost, key=vocabulary.__getitem__)[:3])
    return (
        f"the tokenizer lower-cases texts, so that {len(lost)} of its {len(vocabulary)} tokens never occur ({first}, "
        f'...): if the model was trained otherwise, put "do_lower_case": false into {_SETTINGS}'
    )


def _lower_cases(step: Any) -> bool:
    if isinstance(step, normalizers.Sequence):
        return any(map(_lower_cases, step))
    return isinstance(step, normalizers.Lowercase) or (
        isinstance(step, normalizers.BertNormalizer) and bool(step.lowercase)
    )


def _lower_case_first(backend: Any) -> None:
    """Puts a lower-casing step before the others, unless there is one."""
    before = backend.normalizer
    if _lower_cases(before):
        return
    parts = list(before) if isinstance(before, normalizers.Sequence) else [before] if before is not None else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
