"""Pruned checkpoints of every family: the same answers for texts of the corpus, in transformers as well."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import edgeq.hf  # noqa: F401
from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import FormatError, UsageError
from edgeq.ledger import ledger
from edgeq.recipes import load_recipe

LINES = ["the cat sat over the dog", "a quick fox", "good movie", "word1 word2 word33"]
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("make_bert", {}),
    "classifier": ("make_bert", {"architecture": "BertForSequenceClassification"}),
    "masked": ("make_bert", {"architecture": "BertForMaskedLM"}),
    "gpt2": ("make_gpt2", {}),
    "gpt2, a head of its own": ("make_gpt2", {"tie_word_embeddings": False}),
    "bart": ("make_bart", {}),
    "llama": ("make_decoder", {"architecture": "LlamaForCausalLM"}),
    "roberta": ("make_bert_relative", {"architecture": "RobertaModel"}),
    "albert": ("make_encoder", {"architecture": "AlbertModel"}),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    file.write_text("\n".join(LINES) + "\n")
    return file


def _recipe(corpus: Path, *, bits: int = 0, extra: str = "", characters: str = "true") -> Path:
    file = corpus.parent / f"prune-{bits}.toml"
    file.write_text(
        f'name = "prune"\nsummary = "a test"\n[vocabulary]\nkeep = "{corpus.name}"\ncharacters = {characters}\n{extra}'
        f"[weights]\nbits = {bits}\n[embeddings]\nbits = {bits}\n"
    )
    return file


def _answer(folder: Path, text: str) -> torch.Tensor:
    checkpoint = load_checkpoint(folder)
    ids = torch.tensor([checkpoint.tokenizer(text)["input_ids"]])
    options = {"decoder_input_ids": ids} if checkpoint.adapter.task == "seq2seq" else {}
    with torch.no_grad():
        result = checkpoint.model(input_ids=ids, **options)
    made: torch.Tensor = result[checkpoint.adapter.output_names[0]]
    return made


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_texts_of_the_corpus_have_the_same_answers(
    family: str, corpus: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    maker, options = FAMILIES[family]
    source = request.getfixturevalue(maker)(**options)
    before = load_checkpoint(source)
    compress_model(source, tmp_path / "out", recipe=_recipe(corpus))
    after = load_checkpoint(tmp_path / "out")
    assert after.manifest is None  # nothing but the vocabulary has changed: a plain float model
    assert len(after.tokenizer) == after.model.config.vocab_size < before.model.config.vocab_size
    new_ids = {n: after.tokenizer.convert_tokens_to_ids(t) for t, n in before.tokenizer.get_vocab().items()
               if t in after.tokenizer.get_vocab()}  # fmt: skip
    kept = [old for old, _ in sorted(new_ids.items(), key=lambda pair: pair[1])]
    for line in LINES:
        old, new = before.tokenizer(line)["input_ids"], after.tokenizer(line)["input_ids"]
        assert new == [new_ids[number] for number in old]
        wanted, made = _answer(source, line), _answer(tmp_path / "out", line)
        if made.shape != wanted.shape:
            wanted = wanted[..., kept]
        torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)
    roles = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    for role in roles:
        old_id = getattr(before.model.config, role, None)
        if old_id is not None and old_id < before.model.config.vocab_size:
            assert getattr(after.model.config, role) == new_ids[old_id], role


@pytest.mark.parametrize("family", ["bert", "gpt2", "gpt2, a head of its own", "bart"])
def test_packed_checkpoints_load_in_transformers_and_the_ledger_shows_what_left(
    family: str, corpus: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    maker, options = FAMILIES[family]
    source = request.getfixturevalue(maker)(**options)
    compress_model(source, tmp_path / "whole", recipe=_plain(corpus))
    result = compress_model(source, tmp_path / "out", recipe=_recipe(corpus, bits=8))
    assert result.vocabulary is not None
    assert len(result.vocabulary.matrices) == (2 if family == "gpt2, a head of its own" else 1)
    checkpoint = load_checkpoint(tmp_path / "out")
    loaded = type(checkpoint.model).from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer(LINES[0])["input_ids"] == checkpoint.tokenizer(LINES[0])["input_ids"]
    assert loaded.get_input_embeddings().num_embeddings == result.vocabulary.tokens
    own, whole = ledger(tmp_path / "out"), ledger(tmp_path / "whole")
    biases = 4 * (result.vocabulary.of - result.vocabulary.tokens) * sum(
        name.startswith("final_logits_bias") for name in (row.tensor for row in whole.rows)
    )
    assert own.vocabulary == (result.vocabulary.tokens, result.vocabulary.of)
    assert own.left_out_bytes == whole.stored_bytes - own.stored_bytes - biases > 0
    assert own.to_json()["vocabulary"]["left_out_bytes"] == own.left_out_bytes


def _plain(corpus: Path) -> Path:
    file = corpus.parent / "plain.toml"
    file.write_text('name = "plain"\nsummary = "a test"\n[weights]\nbits = 8\n[embeddings]\nbits = 8\n')
    return file


def test_what_is_generated_has_the_same_settings(
    make_gpt2: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    source = make_gpt2()
    tokenizer = load_checkpoint(source).tokenizer
    banned, ended, left = (tokenizer.convert_tokens_to_ids(token) for token in ("a", "z", "</s>"))
    used = {number for line in LINES for number in tokenizer(line)["input_ids"]} | set(tokenizer.all_special_ids)
    gone = next(n for t, n in tokenizer.get_vocab().items() if len(t) > 1 and n not in used)
    settings = {"eos_token_id": [ended, left], "suppress_tokens": [banned, gone], "do_sample": False}
    (source / "generation_config.json").write_text(json.dumps(settings))
    compress_model(source, tmp_path / "out", recipe=_recipe(corpus, bits=8))
    stored = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    new = load_checkpoint(tmp_path / "out").tokenizer
    assert stored["eos_token_id"] == [new.convert_tokens_to_ids("z"), new.convert_tokens_to_ids("</s>")]
    assert stored["suppress_tokens"] in ([new.convert_tokens_to_ids("a")], [
        new.convert_tokens_to_ids("a"), new.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(gone))
    ])  # fmt: skip
    assert stored["do_sample"] is False


def test_min_count_scripts_and_special_tokens(make_bert: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    source = make_bert()

    def tokens(name: str, **options: str) -> set[str]:
        compress_model(source, tmp_path / name, recipe=_recipe(corpus, **options))
        return set(load_checkpoint(tmp_path / name).tokenizer.get_vocab())

    plain = tokens("plain", characters="false")
    assert {"cat", "the", "word33", "[MASK]"} <= plain
    assert not {"lazy", "word9"} & plain
    assert "cat" not in tokens("often", extra="min_count = 2\n") >= {"the"}
    assert {"lazy", "brown"} <= tokens("latin", extra='scripts = ["Latin"]\n')
    assert not {"lazy"} & tokens("greek", extra='scripts = ["Greek"]\n')


def test_what_makes_no_sense_is_refused(make_gpt2: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    source = make_gpt2(seed=9)
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    for file, complaint in ((empty, "holds no text"), (tmp_path / "none.txt", "does not exist")):
        recipe = tmp_path / "mine.toml"
        recipe.write_text(_recipe(corpus).read_text().replace(corpus.name, file.name))
        with pytest.raises(UsageError, match=complaint):
            compress_model(source, tmp_path / "out", recipe=recipe)
    table = json.loads((source / "tokenizer.json").read_text())
    table["added_tokens"].append({**table["added_tokens"][0], "id": len(table["model"]["vocab"]), "content": "dog"})
    (source / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(FormatError, match=r"'dog' of .* the number .* rows"):
        compress_model(source, tmp_path / "out", recipe=_recipe(corpus))
    assert not (tmp_path / "out").exists()


def test_the_digest_is_of_the_name_and_the_path_is_from_the_recipe(corpus: Path, tmp_path: Path) -> None:
    first = _recipe(corpus)
    second = tmp_path / first.name
    second.write_text(first.read_text())
    assert load_recipe(first).sha256 == load_recipe(second).sha256
    section = load_recipe(first).vocabulary
    assert section is not None
    assert Path(section.keep) == corpus
