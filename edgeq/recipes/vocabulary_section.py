"""The table ``[vocabulary]`` of a recipe: which tokens stay in embedding table, tokenizer and output head."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic
import regex

from edgeq.recipes.section import Section


class VocabularySection(Section):
    """Tokens that stay; all others leave.

    Attributes:
        keep: A text file: the tokens of its lines stay, so that these are encoded as before. In a recipe file, a path
            from the file's own folder.
        min_count: Tokens that the lines hold less often do not count.
        keep_special: Keep every special token, not only those with a role, those that encoding a text adds, and those
            that the model's settings name.
        characters: Keep the tokens of a single character, from which any other text of the tokenizer's alphabet can be
            encoded; without them, characters that the file lacks are unknown. Tokens of bytes always stay.
        scripts: Keep all tokens of these scripts, by their names in Unicode, such as ``Latin`` or ``Devanagari``.
    """

    path_keys: ClassVar[frozenset[str]] = frozenset({"keep"})

    keep: Annotated[str, pydantic.Field(min_length=1)]
    min_count: Annotated[int, pydantic.Field(ge=1)] = 1
    keep_special: bool = True
    characters: bool = True
    scripts: tuple[str, ...] = ()

    @pydantic.field_validator("scripts")
    @classmethod
    def _known(cls, scripts: tuple[str, ...]) -> tuple[str, ...]:
        for name in scripts:
            try:
                regex.compile(rf"\p{{Script={name}}}")
            except regex.error:
                raise ValueError(f"Unicode has no script {name!r}; names are such as Latin, Greek, Han") from None
        return scripts
