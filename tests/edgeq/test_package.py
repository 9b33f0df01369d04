import subprocess
import sys
from pathlib import Path

import pytest

import edgeq
from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError, nearest_name_hint


def test_importing_edgeq_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgeq, edgeq.formats.low_bit, edgeq.formats.packing, edgeq.files\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'tvm', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_top_level_functions_are_found_lazily() -> None:
    assert edgeq.compress_model.__module__ == "edgeq.compress"
    assert "compress_model" in dir(edgeq)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = edgeq.nonsense


def test_deploy_is_a_function_and_a_package(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a file; give the name of a folder"):
        edgeq.deploy(tmp_path, _file(tmp_path), recipe="ptq-w8a8")
    with pytest.raises(TypeError, match="recipes"):
        edgeq.deploy(tmp_path, tmp_path / "run", recipes="ptq-w8a8")
    assert edgeq.deploy.DeployRequest(source="x", recipe="y").targets == ("host",)


def _file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def test_exit_codes() -> None:
    assert UsageError.exit_code == 2
    assert {EdgeqError.exit_code, FormatError.exit_code, UnsupportedError.exit_code} == {1}


def test_nearest_name_hint() -> None:
    assert nearest_name_hint("ptq-w4a9", ["ptq-w4a8", "ptq-w8a8"]) == "; did you mean 'ptq-w4a8'?"
    assert nearest_name_hint("zzz", ["ptq-w4a8"]) == ""
