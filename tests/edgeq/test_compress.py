import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from edgeq import compress
from edgeq.compress import compress_model
from edgeq.errors import FormatError, UnsupportedError, UsageError


def test_progress_counts_to_its_total(float_checkpoint: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    compress_model(float_checkpoint, tmp_path / "out", recipe="ptq-w8a8", progress=lambda *s: steps.append(s))
    phases = list(dict.fromkeys(step[0] for step in steps))
    assert phases == ["loading the model", "quantizing layers", "writing the checkpoint"]
    for phase in phases:
        done = [step[1] for step in steps if step[0] == phase]
        assert done == sorted(done)
        assert done[-1] == next(step[2] for step in steps if step[0] == phase)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        compress_model(tmp_path / "nowhere", tmp_path / "out", recipe="ptq-w8a8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [ConnectionError("refused"), huggingface_hub.errors.LocalEntryNotFoundError("x")]
)
def test_hub_name_without_network(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UsageError, match=r"'someone/some-model' is not a folder.*network") as caught:
        compress_model("someone/some-model", tmp_path / "out", recipe="ptq-w8a8")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_the_hub_is_taken_from_its_snapshot(
    float_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(float_checkpoint))
    compress_model("someone/some-model", tmp_path / "out", recipe="ptq-w8a8")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UsageError, match="is a file"):
        compress_model(tmp_path / "model.safetensors", tmp_path / "out", recipe="ptq-w8a8")


@pytest.mark.parametrize("model_type", ["t5", "martian", 3])
def test_unsupported_architecture(model_type: object, float_checkpoint: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(float_checkpoint, tmp_path / "source"))
    text = (source / "config.json").read_text()
    replacement = {"t5": '"t5"', "martian": '"martian"', 3: "3"}[model_type]  # type: ignore[index]
    (source / "config.json").write_text(text.replace('"bert"', replacement))
    with pytest.raises(UnsupportedError, match=str(model_type)):
        compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
    assert not (tmp_path / "out").exists()


def test_a_head_that_is_not_known(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="BertForMultipleChoice"):
        compress_model(make_bert("BertForMultipleChoice"), tmp_path / "out", recipe="ptq-w8a8")


def test_weights_that_are_not_numbers(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert(seed=3)
    tensors = load_file(source / "model.safetensors")
    tensors["encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(FormatError, match=r"encoder\.layer\.1\.output\.dense"):
        compress_model(source, tmp_path / "out", recipe="ptq-w8a8")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_survives_a_failure(compressed_checkpoint: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(compressed_checkpoint, tmp_path / "out"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError, match="compressed already"):
        compress_model(compressed_checkpoint, out, recipe="ptq-w8a8")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_cannot_be_written_is_refused_before_the_work(
    float_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(compress, "load_checkpoint", lambda *_, **__: pytest.fail("the work began"))
    with pytest.raises(UsageError, match="is a file; give the name of a folder to write"):
        compress_model(float_checkpoint, tmp_path / "file" / "out", recipe="ptq-w8a8")


def test_the_source_is_never_replaced(float_checkpoint: Path) -> None:
    for out in (float_checkpoint, float_checkpoint.parent):
        with pytest.raises(UsageError, match="would replace the source"):
            compress_model(float_checkpoint, out, recipe="ptq-w8a8")
    assert (float_checkpoint / "model.safetensors").is_file()


def test_unknown_recipe_is_noticed_before_the_model_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'ptq-w8a8'"):
        compress_model(tmp_path / "nowhere", tmp_path / "out", recipe="ptq-w8a9")


def test_a_random_model_keeps_its_meaning_at_8_bits(float_checkpoint: Path, tmp_path: Path) -> None:
    compress_model(float_checkpoint, tmp_path / "w8", recipe="ptq-w8a8")
    compress_model(float_checkpoint, tmp_path / "w2", recipe="ptq-w2a8")
    ids = torch.randint(5, 80, (4, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = [
            transformers.AutoModel.from_pretrained(folder).eval()(ids)[0]
            for folder in (float_checkpoint, tmp_path / "w8", tmp_path / "w2")
        ]
    error = [float((o - outputs[0]).square().mean() / outputs[0].square().mean()) for o in outputs[1:]]
    assert error[0] < 0.01
    assert error[1] > 5 * error[0]
