"""Looks at the files of a tokenizer before a library is given their folder and trusts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.errors import FormatError
from edgeq.formats.json_file import kind_of, read_json, read_json_object
from edgeq.reading import check_regular

TOKENIZER_FILE = "tokenizer.json"
_JSON_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
VOCABULARY_FILES = (
    *("vocab.txt", "vocab.json", "merges.txt", "spm.model", "spiece.model", "tokenizer.model"),
    *("sentencepiece.bpe.model", "source.spm", "target.spm"),
)
"""What tokenizers of different kinds are read from where there is no ``tokenizer.json``."""
_OTHER_FILES = (*VOCABULARY_FILES, "chat_template.jinja")
LARGEST_ID = 1 << 24
"""Ids that tokenizers may give; libraries make tables as long as the largest one."""


def check_tokenizer_files(folder: Path) -> None:
    """Refuses files of a tokenizer that would make a library wait, take memory without end, or fail unclearly.

    Raises:
        FormatError: If one of them is no regular file, is not valid JSON, or gives a token an impossible id.
    """
    check_regular(folder / name for name in (TOKENIZER_FILE, *_JSON_FILES, *_OTHER_FILES))
    for name in _JSON_FILES:
        if (folder / name).exists():
            table = read_json_object(folder / name)
            if name in ("added_tokens.json", "vocab.json"):
                _check_ids(table.values(), folder / name)
    if (folder / TOKENIZER_FILE).exists():
        check_tokenizer_json(folder / TOKENIZER_FILE)


def check_tokenizer_json(path: Path) -> None:
    """Checks one ``tokenizer.json``; see :func:`check_tokenizer_files`.

    Raises:
        FormatError: If it is damaged.
    """
    check_tokenizer_table(read_json(path), path)


def check_tokenizer_table(table: Any, path: Path) -> None:
    """Checks the ids in the contents of a ``tokenizer.json``.

    Raises:
        FormatError: If a token has an impossible id.
    """
    if not isinstance(table, dict) or not isinstance(table.get("model"), dict):
        raise FormatError(f"{path} is damaged: it should hold an object with a 'model', found {kind_of(table)}")
    vocabulary = table["model"].get("vocab")
    if isinstance(vocabulary, dict):
        _check_ids(vocabulary.values(), path)
    added = table.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise FormatError(f"{path} is damaged: 'added_tokens' should list objects")
    _check_ids([token.get("id") for token in added], path)


def _check_ids(ids: Any, path: Path) -> None:
    for number in ids:
        if type(number) is not int or not 0 <= number < LARGEST_ID:
            raise FormatError(f"{path}: a token's id should be an integer in 0..{LARGEST_ID - 1}, found {number!r}")
