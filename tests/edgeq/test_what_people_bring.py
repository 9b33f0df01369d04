"""Folders as people have them, through the command line to a bundle; transformers says what must come out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

import edgeq
import edgeq.cli.main as cli
from edgeq.errors import UsageError
from edgeq.targets.runtime.text import run_texts

WIDTH = 24
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
TEXTS = ["the cat", "a good movie over the lazy dog"]

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Returns a function that runs the command line and returns exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def _bundle(command: Command, model: Path, out: Path) -> tuple[Path, dict[str, Any]]:
    """Exports and compiles a float model; returns the bundle and what ``compile`` says."""
    assert command("export", model, out / "onnx", "--json")[0] == 0
    code, said, errors = command("compile", out / "onnx", out / "bundle", "--json")
    assert code == 0, errors
    return out / "bundle", json.loads(said)


def _states(folder: Path, text: str, **options: Any) -> np.ndarray:
    """States of the encoder, ``[tokens, width]``."""
    model, tokenizer = transformers.AutoModel.from_pretrained(folder).eval(), _tokenizer(folder)
    with torch.no_grad():
        states: np.ndarray = model(**tokenizer(text, return_tensors="pt", **options)).last_hidden_state[0].numpy()
    return states


def _logits(folder: Path, text: str) -> torch.Tensor:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(**_tokenizer(folder)(text, return_tensors="pt")).logits[0]
    return logits


def _tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def _write(path: Path, table: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table), encoding="utf-8")


def test_everything_that_a_sentence_folder_says(
    command: Command, make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    """Pooling in a folder of another name and with the keys of 5.4, Dense, prompt, longest text."""
    folder = make_bert(**SMALL)
    kind = "sentence_transformers.models."
    modules = [("", "Transformer"), ("pooling", "Pooling"), ("2_Dense", "Dense")]
    table = [{"idx": i, "name": str(i), "path": path, "type": kind + name} for i, (path, name) in enumerate(modules)]
    _write(folder / "modules.json", table)
    pooling = {"embedding_dimension": WIDTH, "pooling_mode": "cls", "include_prompt": True}
    _write(folder / "pooling/config.json", pooling)
    tanh = "torch.nn.modules.activation.Tanh"
    dense = {"in_features": WIDTH, "out_features": 10, "bias": True, "activation_function": tanh}
    _write(folder / "2_Dense/config.json", dense)
    weight, bias = torch.randn(10, WIDTH) * 0.2, torch.randn(10) * 0.1
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense/model.safetensors")
    prompts = {"prompts": {"query": "quick fox ", "passage": "movie "}, "default_prompt_name": "query"}
    _write(folder / "config_sentence_transformers.json", prompts)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 7, "do_lower_case": False})

    bundle, said = _bundle(command, folder, tmp_path)
    assert said["remarks"] == []
    for name, prompt in (("query", "quick fox "), ("passage", "movie "), (None, "quick fox ")):
        chosen = [] if name is None else ["--prompt-name", name]
        code, found, errors = command("run", bundle, "--text", TEXTS[1], "--json", *chosen)
        assert code == 0, errors
        (result,) = json.loads(found)
        first = _states(folder, prompt + TEXTS[1], truncation=True, max_length=7)[0]
        wanted = np.tanh(first @ weight.numpy().T + bias.numpy())
        np.testing.assert_allclose(result["embedding"], wanted, atol=1e-5)
        assert (result["tokens"], result["truncated"]) == (7, True)
    code, _, errors = command("run", bundle, "--text", TEXTS[1], "--prompt-name", "question")
    assert code == 2
    assert "question" in errors
    assert "passage" in errors


def test_a_prompt_that_is_longer_than_a_text_may_be(
    command: Command, make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    """Sentence-transformers cuts the prompt as a text before it counts the tokens that the pooling leaves out."""
    folder = make_bert(**SMALL)
    kind = "sentence_transformers.models."
    modules = [{"path": "", "type": f"{kind}Transformer"}, {"path": "pool", "type": f"{kind}Pooling"}]
    _write(folder / "modules.json", modules)
    _write(folder / "pool/config.json", {"pooling_mode": "mean", "include_prompt": False})
    prompt = "the quick fox sat on the mat "
    _write(folder / "config_sentence_transformers.json", {"prompts": {"p": prompt}, "default_prompt_name": "p"})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 5})
    bundle, _ = _bundle(command, folder, tmp_path)
    _, found, _ = command("run", bundle, "--text", TEXTS[1], "--json")
    states = _states(folder, prompt + TEXTS[1], truncation=True, max_length=5)
    np.testing.assert_allclose(json.loads(found)[0]["embedding"], states[4], atol=1e-5)  # all but the first 4 of 5


def test_one_logit(command: Command, make_bert: Callable[..., Path], tmp_path: Path) -> None:
    """The sigmoid of the one logit, and not 1.0."""
    folder = make_bert("BertForSequenceClassification", num_labels=1, **SMALL)
    bundle, said = _bundle(command, folder, tmp_path)
    assert said["remarks"] == []
    _, found, _ = command("run", bundle, "--text", TEXTS[0], "--json")
    assert json.loads(found)[0]["score"] == pytest.approx(float(_logits(folder, TEXTS[0]).sigmoid()), abs=1e-5)


def test_a_tokenizer_that_libedgeq_does_not_know(
    command: Command, make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    """``compile`` says that the bundle takes token ids only and why; a text is refused with the reason."""
    folder = make_bert("BertForSequenceClassification", num_labels=1, **SMALL)
    table = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    scripts = {"type": "UnicodeScripts"}
    table["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [table["pre_tokenizer"], scripts]}
    _write(folder / "tokenizer.json", table)
    bundle, said = _bundle(command, folder, tmp_path)
    (remark,) = said["remarks"]
    assert "pre-tokenizer UnicodeScripts" in remark
    assert "token ids only" in remark
    code, _, errors = command("run", bundle, "--text", TEXTS[0], "--json")
    assert code != 0
    assert "pre-tokenizer UnicodeScripts" in errors
    code, out, errors = command("compile", tmp_path / "onnx", bundle)
    assert code == 0
    assert remark in " ".join((out + errors).split())


def test_many_labels_of_which_two_have_one_name(
    command: Command, make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    labels = {0: "good", 1: "bad", 2: "good"}
    kind = {"problem_type": "multi_label_classification", "id2label": labels}
    folder = make_bert("BertForSequenceClassification", **kind, **SMALL)
    bundle, _ = _bundle(command, folder, tmp_path)
    (result,) = run_texts(edgeq.load(bundle), TEXTS[:1])
    assert result.scores is not None
    np.testing.assert_allclose(result.scores.values, _logits(folder, TEXTS[0]).sigmoid(), atol=1e-5)
    _, found, _ = command("run", bundle, "--text", TEXTS[0], "--json")
    assert len(json.loads(found)[0]["scores"]) == 3


@pytest.fixture(scope="module")
def roberta(make_bert_relative: Callable[..., Path]) -> Path:
    return make_bert_relative("RobertaModel", **SMALL)


def test_roberta_counts_positions_over_tokens_that_are_not_padding(
    command: Command, roberta: Path, tmp_path: Path
) -> None:
    bundle, _ = _bundle(command, roberta, tmp_path)
    loaded = edgeq.load(bundle)
    tokenizer, model = _tokenizer(roberta), transformers.AutoModel.from_pretrained(roberta).eval()
    tokenizer.padding_side = "left"
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    inside = batch["input_ids"].clone()
    inside[1, 3] = tokenizer.pad_token_id
    for ids in (batch["input_ids"], inside):
        with torch.no_grad():
            wanted = model(ids, batch["attention_mask"]).last_hidden_state.numpy()
        found = loaded(input_ids=ids.numpy(), attention_mask=batch["attention_mask"].numpy())["last_hidden_state"]
        kept = batch["attention_mask"].numpy().astype(bool)
        assert not kept.all()
        np.testing.assert_allclose(found[kept], wanted[kept], atol=1e-5)
    longest = model.config.max_position_embeddings - model.config.pad_token_id - 1
    loaded(input_ids=np.full((1, longest), 5))
    with pytest.raises(UsageError, match=str(longest)):
        loaded(input_ids=np.full((1, longest + 1), 5))
    with pytest.raises(UsageError, match="token_type_ids"):
        loaded(input_ids=np.full((1, 3), 5), token_type_ids=np.ones((1, 3), np.int64))

    claims = shutil.copytree(tmp_path / "onnx", tmp_path / "claims")
    _write(claims / "config.json", json.loads((claims / "config.json").read_text()) | {"max_position_embeddings": 99})
    code, _, errors = command("compile", claims, tmp_path / "out")
    assert code == 1
    assert "'max_position_embeddings' is 99" in " ".join(errors.split())
    assert not (tmp_path / "out").exists()
