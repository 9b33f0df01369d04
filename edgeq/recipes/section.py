"""The base of every table of a recipe file: unknown keys and wrong types are refused, nothing can be changed."""

from __future__ import annotations

import pydantic


class Section(pydantic.BaseModel):
    """A table of a recipe file."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)
