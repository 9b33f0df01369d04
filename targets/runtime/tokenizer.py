"""The tokenizer that a bundle carries: texts to ids, and ids back to text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError, FormatError, UsageError

TOKENIZER_FILE = "tokenizer.json"


def load_tokenizer(folder: Path) -> Any:
    """Loads the tokenizer of a bundle, a ``tokenizers.Tokenizer`` that neither cuts off nor pads.

    Raises:
        UsageError: If the bundle carries none.
        FormatError: If the file is damaged.
        EdgeqError: If the package tokenizers is missing.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise UsageError(f"bundle {folder} carries no {TOKENIZER_FILE}, so it takes token ids only")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise EdgeqError("running texts needs the package tokenizers: pip install tokenizers") from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise FormatError(f"{path} is no valid tokenizer ({error}); compile the bundle again") from error
    # Published tokenizers cut off and pad to lengths of their own; here nothing is dropped in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Any, text: str, what: str) -> list[int]:
    """Returns the ids of a text.

    Args:
        tokenizer: From :func:`load_tokenizer`.
        text: The text.
        what: What messages call it.

    Raises:
        UsageError: If the text is not valid Unicode or has no tokens.
    """
    check_unicode(text, what)
    ids: list[int] = tokenizer.encode(text).ids
    if not ids:
        raise UsageError(f"{what} has no tokens; give at least one word")
    return ids


def check_unicode(text: str, what: str) -> None:
    """Raises :class:`UsageError` unless a text is valid Unicode; ``what`` is what messages call it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is not valid Unicode (an argument that is not UTF-8?)") from error
