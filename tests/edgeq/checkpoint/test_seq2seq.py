"""Checkpoints of BART: one table for both sides and the head, and a bias of zeros that is not stored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.numpy import load_file

from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.errors import EdgeqError, FormatError
from edgeq.models import adapter_for
from edgeq.recipes import apply_recipe, load_recipe

TABLE = "model.shared"
BIAS = "final_logits_bias"


@pytest.fixture(scope="module")
def compressed(make_bart: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compressed") / "bart"
    compress_model(make_bart(), out, recipe="ptq-w2e2a8")
    return out


def _outputs(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(4, 283, (2, length), generator=generator) for length in (9, 6))
    with torch.no_grad():
        first: torch.Tensor = model.eval()(input_ids=source, decoder_input_ids=target)[0]
    return first


def _auto(folder: Path) -> Any:
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)


@pytest.mark.parametrize("recipe", ["ptq-w8a8", "ptq-w2e2a8", "ptq-w4"])
def test_round_trip_is_exact_to_the_last_bit(
    recipe: str, make_bart: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_bart()
    result = compress_model(source, tmp_path / "out", recipe=recipe)
    in_memory = transformers.BartForConditionalGeneration.from_pretrained(source)
    apply_recipe(in_memory, load_recipe(recipe), adapter_for(in_memory))
    expected = _outputs(in_memory)
    assert torch.equal(_outputs(_auto(tmp_path / "out")), expected)
    assert torch.equal(_outputs(load_checkpoint(tmp_path / "out").model), expected)
    assert set(result.kept_float) == {"model.encoder.embed_positions", "model.decoder.embed_positions"}


def test_the_table_is_stored_once_and_the_zero_bias_not_at_all(compressed: Path) -> None:
    tensors = load_file(compressed / "model.safetensors")
    assert [name for name in tensors if tensors[name].shape == (18, 3, 16, 4)] == [f"{TABLE}.weight_packed"]
    assert not [name for name in tensors if "embed_tokens" in name or "lm_head" in name or name == BIAS]
    quantization = json.loads((compressed / "config.json").read_text())["quantization_config"]
    assert quantization["zero_buffers"] == [BIAS]
    assert set(quantization["tied"]) == {
        "lm_head",
        "model.encoder.embed_tokens",
        "model.decoder.embed_tokens",
    }
    model = load_checkpoint(compressed).model
    assert torch.equal(model.final_logits_bias, torch.zeros(1, 283))
    assert (
        model.model.encoder.embed_tokens.table is model.model.decoder.embed_tokens.table is model.model.shared
    )
    assert model.lm_head.table is model.model.shared


def test_a_bias_that_is_not_zero_is_kept(make_bart: Callable[..., Path], tmp_path: Path) -> None:
    model = transformers.BartForConditionalGeneration.from_pretrained(make_bart())
    model.final_logits_bias[0, 7] = 2.5
    source = Path(shutil.copytree(make_bart(), tmp_path / "source"))
    model.save_pretrained(source)
    compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
    assert load_file(tmp_path / "out" / "model.safetensors")[BIAS][0, 7] == 2.5
    assert load_checkpoint(tmp_path / "out").model.final_logits_bias[0, 7] == 2.5


def test_beam_search_runs_on_a_packed_model(compressed: Path) -> None:
    made = _auto(compressed).generate(torch.tensor([[0, 9, 8, 2]]), num_beams=3, max_new_tokens=4)
    assert made.shape[0] == 1


def test_a_loaded_model_can_be_saved_again(compressed: Path, tmp_path: Path) -> None:
    model = _auto(compressed)
    model.save_pretrained(tmp_path / "again")
    again = _auto(tmp_path / "again")
    assert torch.equal(_outputs(again), _outputs(model))
    assert not again.final_logits_bias.any()


def test_the_body_loads_without_its_head(compressed: Path) -> None:
    body = transformers.AutoModel.from_pretrained(compressed)
    assert torch.equal(_outputs(body), _outputs(_auto(compressed).model))


def test_untied_models_are_refused(make_bart: Callable[..., Path], tmp_path: Path) -> None:
    # transformers saves them without the tables of the two sides, and then makes up new ones.
    source = make_bart(tie_word_embeddings=False)
    with pytest.raises(FormatError, match="embed_tokens"):
        compress_model(source, tmp_path / "out", recipe="ptq-w4a8")


def test_a_float_table_keeps_everything_on_it_float(make_bart: Callable[..., Path], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\nsummary = "a test"\n[weights]\nbits = 8\n[embeddings]\nbits = 0\n')
    result = compress_model(make_bart(), tmp_path / "out", recipe=recipe)
    assert {TABLE, "lm_head", "model.decoder.embed_tokens"} <= set(result.kept_float)
    assert torch.equal(_outputs(_auto(tmp_path / "out")), _outputs(load_checkpoint(tmp_path / "out").model))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda q: q.update(zero_buffers=["nowhere"]), "no buffer 'nowhere'"),
        (lambda q: q.update(zero_buffers=[f"{TABLE}.scale"]), "no buffer"),
        (lambda q: q.update(zero_buffers="x"), "must list names"),
        (lambda q: q.update(zero_buffers=[3]), "must list names"),
        (lambda q: q["tied"].pop("model.encoder.embed_tokens"), "encoder.embed_tokens"),
    ],
)
def test_a_config_that_makes_no_sense(
    change: Callable[[dict[str, Any]], object], found: str, compressed: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(compressed, tmp_path / "copy"))
    values = json.loads((folder / "config.json").read_text())
    change(values["quantization_config"])
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(EdgeqError, match=found) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
