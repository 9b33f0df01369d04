"""A bundle as a model of transformers, whose ``generate`` is the oracle of libedgeq's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def as_transformers_model() -> Callable[..., Any]:
    """Returns a function that makes a model of transformers with the logits of a bundle.

    It reads every prefix from its start. An encoder-decoder with a given source is a decoder whose prompt is the token
    that starts a text.
    """
    import torch
    import transformers
    from transformers.modeling_outputs import CausalLMOutput

    from edgeq.targets.runtime.decoder import Decoder
    from edgeq.targets.runtime.source_decoder import SourceDecoder

    class BundleModel(transformers.PreTrainedModel, transformers.GenerationMixin):
        config_class = transformers.GPT2Config
        _supports_cache_class = False

        def __init__(self, bundle: Any, source: list[int] | None) -> None:
            super().__init__(transformers.GPT2Config(vocab_size=bundle.outputs[0].shape[-1], pad_token_id=1))
            self.bundle, self.source = bundle, source
            self.anchor = torch.nn.Parameter(torch.zeros(1))  # a model must have a device
            self.generation_config = transformers.GenerationConfig(pad_token_id=1, use_cache=False)

        def prepare_inputs_for_generation(self, input_ids: Any, **_given: Any) -> dict[str, Any]:
            return {"input_ids": input_ids}

        def forward(self, input_ids: Any, **_given: Any) -> Any:
            rows = input_ids.tolist()
            if self.source is None:
                decoder: Any = Decoder(self.bundle, batch=len(rows))
            else:
                decoder = SourceDecoder(self.bundle, [self.source] * len(rows))
            return CausalLMOutput(logits=torch.from_numpy(decoder.append(rows))[:, None])

    return lambda bundle, source=None: BundleModel(bundle, source)
