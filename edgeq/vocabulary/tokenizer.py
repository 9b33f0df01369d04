"""A tokenizer with some of its tokens: ``tokenizer.json`` and the files beside it, with the numbers that follow."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq.checkpoint import load_tokenizer
from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.formats.json_file import read_json_object
from edgeq.vocabulary.corpus import Corpus, encoded
from edgeq.vocabulary.kinds import Kind, kind_of_model

_PLAIN_STEPS = ("ByteLevel",)
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_LISTS = ("additional_special_tokens", "extra_special_tokens")


class TokenizerState:
    """What ``tokenizer.json`` says.

    Attributes:
        table: Its contents.
        kind: The tokens of its model.
        added: Tokens that are looked for before anything else, by number.

    Args:
        tokenizer: A ``transformers`` tokenizer.
        folder: Where it comes from, for complaints.

    Raises:
        UnsupportedError: If it is of a kind whose vocabulary is not pruned.
    """

    def __init__(self, tokenizer: Any, folder: Path) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UnsupportedError(f"the tokenizer in {folder} is Python code, whose vocabulary is not pruned")
        self.tokenizer = tokenizer
        self.backend: Any = backend
        self.table: dict[str, Any] = json.loads(backend.to_str())
        self.kind: Kind = kind_of_model(self.table["model"], folder)
        self.added: dict[int, dict[str, Any]] = {int(one["id"]): one for one in self.table["added_tokens"]}
        self.folder = folder

    @property
    def is_of_bytes(self) -> bool:
        """Whether texts are bytes to it, so that single characters are all that any text needs."""
        steps = [self.table.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]
        return any(_has_step(step, "ByteLevel") for step in steps if step is not None)

    def special(self, *, all_of_them: bool) -> set[int]:
        """Returns the numbers of special tokens: those with a role, and those that encoding adds, or all."""
        roles = {value for name, value in self.tokenizer.special_tokens_map.items() if name not in _LISTS}
        numbers = {self.backend.token_to_id(str(token)) for token in roles if isinstance(token, str)}
        numbers |= set(_ids_of_step(self.table.get("post_processor"), self.folder))
        if all_of_them:
            numbers |= {number for number, token in self.added.items() if token.get("special")}
            numbers |= set(self.tokenizer.all_special_ids)
        return {number for number in numbers if number is not None}

    def reduced(self, kept: Sequence[int]) -> Any:
        """Returns a ``transformers`` tokenizer with these tokens alone, numbered in this order."""
        new_ids = {number: place for place, number in enumerate(kept)}
        own = set(self.kind.tokens.values())
        table = {
            **self.table,
            "model": self.kind.reduced([number for number in kept if number in own]),
            "added_tokens": [
                {**token, "id": new_ids[number]} for number, token in sorted(self.added.items()) if number in new_ids
            ],
            "post_processor": _renumbered_step(self.table.get("post_processor"), new_ids),
        }
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.tokenizer.save_pretrained(folder)
            for path in folder.iterdir():
                if path.is_file() and path.name not in (*_SETTINGS, "tokenizer.json", "chat_template.jinja"):
                    path.unlink()  # the old vocabulary in another form
            (folder / "tokenizer.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
            for setting in _SETTINGS:
                if (folder / setting).is_file():
                    values = self._renumbered_settings(read_json_object(folder / setting), new_ids)
                    (folder / setting).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
            return load_tokenizer(folder)

    def _renumbered_settings(self, values: dict[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
        left = {str(token["content"]) for number, token in self.added.items() if number not in new_ids}
        if isinstance(decoder := values.get("added_tokens_decoder"), dict):
            values["added_tokens_decoder"] = {
                str(new_ids[int(number)]): token for number, token in decoder.items() if int(number) in new_ids
            }
        for key in _LISTS:
            if isinstance(values.get(key), list):
                values[key] = [token for token in values[key] if _content(token) not in left]
        return values


def check_same_tokens(old: Any, new: Any, corpus: Corpus, *, new_ids: Mapping[int, int]) -> None:
    """Encodes the corpus with both tokenizers; texts that need a token that has left are passed over.

    Args:
        old: The tokenizer of the float model.
        new: The reduced one.
        corpus: The texts.
        new_ids: The number of each token that stays, by the one that it had.

    Raises:
        EdgeqError: If a text is encoded in another way.
    """
    pairs = zip(
        encoded(old.backend_tokenizer, corpus.texts()), encoded(new.backend_tokenizer, corpus.texts()), strict=True
    )
    for before, after in pairs:
        wanted = [new_ids.get(number) for number in before]
        if None not in wanted and wanted != after:
            place = next((at for at, (x, y) in enumerate(zip(wanted, after, strict=False)) if x != y), len(after))
            raise EdgeqError(
                f"a text of {corpus.path} would be encoded in another way by the pruned tokenizer, from its token "
                f"{place + 1} on ({old.convert_ids_to_tokens(before[place : place + 1])}); leave [vocabulary] out"
            )


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _has_step(step: dict[str, Any], wanted: str) -> bool:
    inner = [one for value in step.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
    return step.get("type") == wanted or any(_has_step(one, wanted) for one in inner)


def _ids_of_step(step: dict[str, Any] | None, folder: Path) -> list[int]:
    """Returns the numbers of the tokens that encoding a text adds."""
    kind = None if step is None else step.get("type")
    if step is None or kind in _PLAIN_STEPS:
        return []
    if kind == "Sequence":
        return [number for one in step["processors"] for number in _ids_of_step(one, folder)]
    if kind == "TemplateProcessing":
        return [number for token in step["special_tokens"].values() for number in token["ids"]]
    if kind in ("BertProcessing", "RobertaProcessing"):
        return [step["sep"][1], step["cls"][1]]
    raise UnsupportedError(f"the tokenizer in {folder} adds tokens by {kind!r}, which is not known to the pruning")


def _renumbered_step(step: dict[str, Any] | None, new_ids: Mapping[int, int]) -> dict[str, Any] | None:
    if step is None or step["type"] in _PLAIN_STEPS:
        return step
    if step["type"] == "Sequence":
        return {**step, "processors": [_renumbered_step(one, new_ids) for one in step["processors"]]}
    if step["type"] == "TemplateProcessing":
        tokens = {
            name: {**token, "ids": [new_ids[number] for number in token["ids"]]}
            for name, token in step["special_tokens"].items()
        }
        return {**step, "special_tokens": tokens}
    return {**step, **{part: [step[part][0], new_ids[step[part][1]]] for part in ("sep", "cls")}}
