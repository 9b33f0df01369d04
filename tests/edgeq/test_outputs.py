"""What the verbs and their functions do with a folder or file that is there already."""

import shutil
from pathlib import Path

import pytest

import edgeq
from edgeq.cli.main import main
from edgeq.compress import compress_model
from edgeq.deploy import deploy
from edgeq.errors import UsageError
from edgeq.export.exporter import export_onnx
from edgeq.export.ort import build_library
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle import writer
from edgeq.targets.bundle.signing import new_key, sign_bundle


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with someone's work."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    return folder


def _is_untouched(home: Path) -> bool:
    return [p.name for p in home.iterdir()] == ["thesis.txt"] and [p.name for p in home.parent.iterdir()] == ["home"]


@pytest.mark.parametrize("verb", ["compress", "export", "compile", "deploy"])
def test_no_verb_erases_a_folder_that_it_did_not_make(
    verb: str, home: Path, float_checkpoint: Path, gpt2_onnx: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "compress": [float_checkpoint, home, "-r", "ptq-w8a8"],
        "export": [float_checkpoint, home],
        "compile": [gpt2_onnx, home],
        "deploy": [float_checkpoint, home, "-r", "ptq-w8a8"],
    }
    assert main([verb, *map(str, arguments[verb])]) == 2
    assert str(home) in capsys.readouterr().err
    assert _is_untouched(home)


def test_neither_do_the_functions(home: Path, float_checkpoint: Path, gpt2_onnx: Path) -> None:
    with pytest.raises(UsageError, match="was not written by 'edgeq compress'"):
        compress_model(float_checkpoint, home, recipe="ptq-w8a8")
    with pytest.raises(UsageError, match="was not written by 'edgeq export'"):
        export_onnx(float_checkpoint, home)
    with pytest.raises(UsageError, match="was not written by 'edgeq compile'"):
        edgeq.compile_bundle(gpt2_onnx, home, target=load_target("host"))
    with pytest.raises(UsageError, match="not a run"):
        deploy(float_checkpoint, home, recipe="ptq-w8a8")
    assert _is_untouched(home)


def test_a_model_of_someone_else_is_no_output_of_ours(float_checkpoint: Path, tmp_path: Path) -> None:
    theirs = Path(shutil.copytree(float_checkpoint, tmp_path / "theirs"))
    for write in (lambda: compress_model(float_checkpoint, theirs, recipe="ptq-w8a8"),
                  lambda: export_onnx(float_checkpoint, theirs)):  # fmt: skip
        with pytest.raises(UsageError, match="was not written by"):
            write()
    assert sorted(p.name for p in theirs.iterdir()) == sorted(p.name for p in float_checkpoint.iterdir())


def test_an_output_of_the_same_verb_is_replaced(float_checkpoint: Path, tmp_path: Path) -> None:
    for recipe in ("ptq-w8a8", "ptq-w4a8"):
        compress_model(float_checkpoint, tmp_path / "out", recipe=recipe)
    assert edgeq.checkpoint.load_checkpoint(tmp_path / "out").manifest.recipe == "ptq-w4a8"
    for _ in range(2):
        export_onnx(tmp_path / "out", tmp_path / "onnx")
    with pytest.raises(UsageError, match="would replace the source"):
        export_onnx(tmp_path / "out", tmp_path / "out", force=True)


def test_force_erases_what_is_there(home: Path, float_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(float_checkpoint), str(home), "-r", "ptq-w8a8", "--force"]) == 0, capsys.readouterr()
    assert not (home / "thesis.txt").exists()
    assert (home / "model.safetensors").is_file()


def test_a_bundle_is_known_by_its_manifest(gpt2_bundle: Path, tmp_path: Path) -> None:
    listed = writer.OUTPUT.files_of(gpt2_bundle)
    present = {str(p.relative_to(gpt2_bundle)) for p in gpt2_bundle.rglob("*") if p.is_file()}
    assert listed is not None
    assert present <= set(listed)
    (tmp_path / "manifest.json").write_text('{"name": "a web page", "files": {"thesis.txt": {}}}')
    assert writer.OUTPUT.files_of(tmp_path) is None


def test_a_file_that_is_no_operator_library_stays(tmp_path: Path) -> None:
    (tmp_path / "libedgeq_ort.so").write_text("mine")
    with pytest.raises(UsageError, match=r"libedgeq_ort\.so was not written by 'edgeq ort-library'"):
        build_library(tmp_path)
    assert (tmp_path / "libedgeq_ort.so").read_text() == "mine"


def test_a_signature_by_other_hands_stays(gpt2_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(gpt2_bundle, tmp_path / "bundle"))
    new_key(tmp_path / "team.key")
    signature = bundle / "manifest.json.minisig"
    signature.write_text("untrusted comment: signature from minisign secret key\nRUQ=\n")
    with pytest.raises(UsageError, match="was not written by 'edgeq sign'"):
        sign_bundle(bundle, tmp_path / "team.key")
    sign_bundle(bundle, tmp_path / "team.key", force=True)
    sign_bundle(bundle, tmp_path / "team.key")
