"""The methods of a bundle that read texts. What they do is in other modules, which are loaded when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.runtime import text_reading
from edgeq.targets.runtime.session import Model, Session
from edgeq.targets.runtime.text_batches import TOKEN_BUDGET
from edgeq.targets.runtime.texts import Text

if TYPE_CHECKING:
    import numpy as np

    from edgeq.targets.runtime.tasks import AnswerResult, FillResult, Ranked, TagResult
    from edgeq.targets.runtime.text import TextResult


class TextCalls:
    """Texts in; embeddings, labels, parts, answers, tokens for masks or an order out.

    Attributes:
        path: The bundle's folder.
        model: The opened bundle.
        session: Memory and threads of the calls.
    """

    path: Path
    model: Model
    session: Session

    def encode(
        self,
        texts: str | Iterable[Text],
        *,
        prompt_name: str | None = None,
        token_budget: int = TOKEN_BUDGET,
        on_long: str | None = None,
        max_tokens: int | None = None,
    ) -> np.ndarray:
        """Embeds texts, those of about the same length together.

        Args:
            texts: One text, or any iterable of texts (or of pairs that the model reads together).
            prompt_name: Which of the model's prompts is put before every text; None takes its default, if it has one.
            token_budget: Most tokens of a batch, padding included. It bounds the memory of a call and changes no bit
                of a result.
            on_long: What becomes of a text that is longer than the model takes: ``error`` refuses it, ``cut`` cuts its
                end off (or its beginning, if the model's folder says so), ``split`` reads it in rows and averages
                their embeddings, each counted by its tokens (embeddings of length 1 keep that length). None does what
                the model's folder says.
            max_tokens: Most tokens of a text, special ones included; None is as many as the model takes.

        Returns:
            float32 ``[texts, width]``, in the order of the texts.

        Raises:
            UsageError: If the bundle makes no embeddings or has no such prompt, or a text is empty or longer than the
                model allows.
        """
        given = [texts] if isinstance(texts, str) else texts
        return text_reading.encode(
            self, given, prompt_name=prompt_name, token_budget=token_budget, on_long=on_long, max_tokens=max_tokens
        )

    def predict(
        self,
        texts: str | Iterable[Text],
        *,
        prompt_name: str | None = None,
        token_budget: int = TOKEN_BUDGET,
        on_long: str | None = None,
        max_tokens: int | None = None,
    ) -> list[TextResult]:
        """Classifies texts, those of about the same length together; the arguments are those of :meth:`encode`.

        Scores of a split text are made of the average of its rows' logits, each counted by its tokens.

        Returns:
            The ``label`` and the ``scores`` of each text, in the order of the texts; ``to_json()`` of one is what
            ``edgeq run`` prints.

        Raises:
            UsageError: If the bundle is no classifier or has no such prompt, or a text is empty or longer than the
                model allows.
        """
        from edgeq.targets.runtime import text

        given = [texts] if isinstance(texts, str) else texts
        return text.predict(
            self, given, prompt_name=prompt_name, token_budget=token_budget, on_long=on_long, max_tokens=max_tokens
        )

    def tag(
        self,
        texts: str | Iterable[str],
        *,
        aggregation: str = "simple",
        ignore_labels: Sequence[str] = ("O",),
        on_long: str | None = None,
        overlap: int | None = None,
        max_tokens: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[TagResult]:
        """Labels parts of texts, as transformers' token classification does.

        Args:
            texts: One text, or any iterable of texts.
            aggregation: How labels of tokens become labels of parts: ``none``, ``simple``, ``first``, ``average`` or
                ``max``, as transformers' ``aggregation_strategy``.
            ignore_labels: Labels that are left out.
            on_long: As in :meth:`encode`. The rows of a split text overlap; of entities that do, the longest stays.
            overlap: Tokens that rows have in common; None is a quarter of them.
            max_tokens: Most tokens of a row, special ones included; None is as many as the model takes.
            token_budget: Most tokens of a batch, padding included; it changes no bit of a result.

        Raises:
            UsageError: If the bundle is for another task, or a text is empty or longer than the model allows.
        """
        from edgeq.targets.runtime import tasks

        given = [texts] if isinstance(texts, str) else texts
        reading = {"on_long": on_long, "overlap": overlap, "max_tokens": max_tokens, "token_budget": token_budget}
        return tasks.tag(self, given, aggregation=aggregation, ignore_labels=ignore_labels, **reading)

    def answer(
        self,
        pairs: tuple[str, str] | Iterable[tuple[str, str]],
        *,
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        doc_stride: int | None = None,
        max_seq_len: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[AnswerResult]:
        """Finds answers to questions in contexts of any length, as transformers' question answering does.

        Args:
            pairs: A question and its context, or any iterable of such pairs.
            top_k: Most answers to a question.
            max_answer_len: Most tokens of an answer.
            handle_impossible_answer: That there is no answer counts as one, with an empty text.
            align_to_words: Answers start and end with whole words.
            doc_stride: Tokens that the rows of a long context have in common; None is 128, or half a row where that is
                less.
            max_seq_len: Most tokens of a row; None is 384, or as many as the model takes if that is less.
            token_budget: Most tokens of a batch, padding included; it changes no bit of a result.

        Raises:
            UsageError: If the bundle is for another task, or a text is empty or a question too long.
        """
        from edgeq.targets.runtime import tasks

        alone = isinstance(pairs, tuple) and len(pairs) == 2 and all(isinstance(part, str) for part in pairs)
        given: Any = [pairs] if alone else pairs
        return tasks.answer(
            self,
            given,
            top_k=top_k,
            max_answer_len=max_answer_len,
            handle_impossible_answer=handle_impossible_answer,
            align_to_words=align_to_words,
            overlap=doc_stride,
            max_tokens=max_seq_len,
            token_budget=token_budget,
        )

    def fill(
        self,
        texts: str | Iterable[str],
        *,
        top_k: int = 5,
        targets: Sequence[str] | None = None,
        on_long: str | None = None,
        max_tokens: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[FillResult]:
        """Finds tokens for the masks in texts, as transformers' fill-mask does.

        Args:
            texts: One text, or any iterable of texts, each with the tokenizer's mask token in it.
            top_k: Tokens for each mask.
            targets: Tokens to choose from, by name; a text that is no token's name stands for its first token.
            on_long: ``error`` or ``cut`` as in :meth:`encode`.
            max_tokens: Most tokens of a text, special ones included; None is as many as the model takes.
            token_budget: Most tokens of a batch, padding included; it changes no bit of a result.

        Raises:
            UsageError: If the bundle is for another task, or a text has no mask or is longer than the model allows.
        """
        from edgeq.targets.runtime import tasks

        given = [texts] if isinstance(texts, str) else texts
        reading = {"on_long": on_long, "max_tokens": max_tokens, "token_budget": token_budget}
        return tasks.fill(self, given, top_k=top_k, targets=targets, **reading)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        prompt_name: str | None = None,
        on_long: str | None = None,
        max_tokens: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> list[Ranked]:
        """Sorts documents by how well they fit a query, the best first, as a cross-encoder's ``rank`` does.

        Args:
            query: The query.
            documents: Any iterable of documents, which are held in memory.
            top_k: Most documents to return; None returns all.
            prompt_name: As in :meth:`encode`, before the query.
            on_long: As in :meth:`encode`: the longer one of query and document is cut.
            max_tokens: Most tokens of a pair, special ones included; None is as many as the model takes.
            token_budget: Most tokens of a batch, padding included; it changes no bit of a result.

        Raises:
            UsageError: If the bundle is no classifier with one class, or a text is empty or longer than the model
                allows.
        """
        from edgeq.targets.runtime import tasks

        return tasks.rank(
            self,
            query,
            documents,
            top_k=top_k,
            prompt_name=prompt_name,
            on_long=on_long,
            max_tokens=max_tokens,
            token_budget=token_budget,
        )

    def tokenize(
        self, texts: str | Iterable[Text], *, prompt_name: str | None = None, on_long: str | None = None
    ) -> list[list[int]]:
        """Returns the token ids of texts as the model reads them: with its prompt and special tokens, and cut.

        A text that is too long and that nothing cuts is returned whole: calls that run it refuse it.

        Args:
            texts: One text, or any iterable of texts or pairs.
            prompt_name: Which of the model's prompts is put before every text; None takes its default, if it has one.
            on_long: As in :meth:`encode`; the rows of a split text follow each other.

        Raises:
            UsageError: If the bundle has no tokenizer or no such prompt, or a text is empty.
        """
        from edgeq.targets.runtime import text

        given = [texts] if isinstance(texts, str) else texts
        return text.tokenize(self, given, prompt_name=prompt_name, on_long=on_long)

