"""BART's relatives: Marian (translation), Pegasus (summaries) and mBART, BART with parts left out or moved."""

from __future__ import annotations

from typing import Any, ClassVar

from edgeq.errors import UnsupportedError
from edgeq.models.adapter import Task
from edgeq.models.bart import UNDERSTOOD, BartAdapter
from edgeq.models.stacks import LayerStack


class _WithoutEmbeddingNorm(BartAdapter):
    """What Marian and Pegasus have in common: computed positions, and nothing behind the sum of token and position."""

    normed_embeddings: ClassVar[bool] = False
    scaled_by_tables: ClassVar[bool] = False
    learned_positions: ClassVar[bool] = False
    untrained_because: ClassVar[str] = "has no module whose output is what its first layer reads"

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """None: the sum of token and position, which the first block reads, is no module's output."""
        return ()

    @property
    def computed_names(self) -> list[str]:
        """See :attr:`ModelAdapter.computed_names`: the sines and cosines of positions."""
        return [f"{name}.weight" for name in self.float_names]


class MarianAdapter(_WithoutEmbeddingNorm):
    """``MarianMTModel``, such as opus-mt."""

    family: ClassVar[str] = "marian"
    display_name: ClassVar[str] = "Marian"
    architectures: ClassVar[dict[str, Task]] = {"MarianMTModel": "seq2seq"}
    understood: ClassVar[frozenset[str]] = UNDERSTOOD | {"decoder_vocab_size", "share_encoder_decoder_embeddings"}

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        config: Any = self.config
        if not config.share_encoder_decoder_embeddings or config.decoder_vocab_size != config.vocab_size:
            raise UnsupportedError(
                "Marian with a table of tokens for each side (share_encoder_decoder_embeddings in config.json) is not "
                "supported, only with one for both"
            )


class PegasusAdapter(_WithoutEmbeddingNorm):
    """``PegasusForConditionalGeneration``."""

    family: ClassVar[str] = "pegasus"
    display_name: ClassVar[str] = "Pegasus"
    architectures: ClassVar[dict[str, Task]] = {"PegasusForConditionalGeneration": "seq2seq"}
    norms_before: ClassVar[bool] = True


class MBartAdapter(BartAdapter):
    """``MBartForConditionalGeneration``, mBART-50 included."""

    family: ClassVar[str] = "mbart"
    display_name: ClassVar[str] = "mBART"
    architectures: ClassVar[dict[str, Task]] = {"MBartForConditionalGeneration": "seq2seq"}
    norms_before: ClassVar[bool] = True
