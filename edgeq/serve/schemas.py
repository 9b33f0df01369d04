"""Bodies of requests. An unknown field is refused by name: it would have asked for something."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from edgeq.serve.limits import RefusedError

_Ids = list[Annotated[int, pydantic.Field(ge=0, lt=1 << 31)]]
_Texts = str | list[str]
_Prompts = str | _Ids | list[str] | list[_Ids]


class Request(pydantic.BaseModel):
    """What all bodies share.

    Attributes:
        model: Name of a bundle; may be left out where there is only one.
        user: Who asks; OpenAI's clients may send it, and nothing looks at it.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    model: str | None = None
    user: str | None = None


class EmbeddingsRequest(Request):
    """``/v1/embeddings``, as OpenAI has it.

    Attributes:
        input: Texts, or token ids of texts.
        encoding_format: Numbers, or the bytes of float32 as base64.
        dimensions: Must be the model's width, if it is given.
        prompt_name: Which of the model's prompts is put before every text; OpenAI has no such field.
    """

    input: _Prompts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    prompt_name: str | None = None


class StreamOptions(pydantic.BaseModel):
    """``stream_options`` of OpenAI."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class CompletionsRequest(Request):
    """``/v1/completions``, as OpenAI has it; what is left out is as the model's ``generation_config.json`` says.

    Of OpenAI's fields, those that ask for what edgeq does not do are taken only with the value that asks for nothing.
    """

    prompt: _Prompts
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    echo: bool = False
    n: Literal[1] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None
    suffix: None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    @pydantic.field_validator("logit_bias", "presence_penalty", "frequency_penalty")
    @classmethod
    def _must_ask_for_nothing(cls, value: Any) -> Any:
        if value:
            raise ValueError("is not supported; leave it out")
        return value


class RerankRequest(Request):
    """``/rerank``, as Cohere and Jina have it.

    Attributes:
        query: What is looked for.
        documents: Texts to be sorted by how well they answer it.
        top_n: Return the best so many only.
        return_documents: Return the texts besides their numbers.
    """

    query: str
    documents: list[str]
    top_n: Annotated[int, pydantic.Field(ge=1)] | None = None
    return_documents: bool = False


class PredictRequest(Request):
    """``/predict``: what the bundle says of texts.

    Attributes:
        texts: Texts, or pairs of texts that the model reads together.
        prompt_name: Which of the model's prompts is put before every text.
    """

    texts: _Texts | list[tuple[str, str]]
    prompt_name: str | None = None


AnyRequest = TypeVar("AnyRequest", bound=Request)
"""Any body."""


def parse(schema: type[AnyRequest], body: bytes) -> AnyRequest:
    """Reads a body.

    Raises:
        RefusedError: If it is no JSON object with these fields.
    """
    try:
        # A pair is a list in JSON: strict only where values have a type of their own.
        return schema.model_validate_json(body, strict=False if schema is PredictRequest else None)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is no valid JSON: {first['msg']}") from None
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        reason = "is not known" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        field = str(first["loc"][0]) if first["loc"] else None
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{place}: {reason}", field=field) from None
