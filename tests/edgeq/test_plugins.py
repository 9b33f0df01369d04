"""A package that adds a model family, a recipe and a target, and packages that are broken."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from edgeq import plugins
from edgeq.errors import UsageError
from edgeq.models import registry
from edgeq.recipes import list_recipes
from edgeq.targets.builtin.target import list_targets
from tests.conftest import save_byte_tokenizer

PACKAGE = Path(__file__).parent / "plugin_package"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was found before a test and in it is looked for again."""
    for cached in (plugins.plugins, registry.adapter_classes):
        cached.cache_clear()
    yield
    for cached in (plugins.plugins, registry.adapter_classes):
        cached.cache_clear()


def _installed(folder: Path, name: str, points: str) -> Path:
    """What pip leaves of a package besides its modules."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The example package as pip would install it."""
    import tomllib

    groups = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["entry-points"]
    points = "\n".join(
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in entries.items())
        for group, entries in groups.items()
    )
    site = _installed(tmp_path / "site", "edgeq_example", points)
    (site / "edgeq_example").symlink_to(PACKAGE / "edgeq_example")
    return site


def _edgeq(site: Path, *arguments: object) -> str:
    code = "import sys; from edgeq.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    paths = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_package_adds_a_recipe_and_a_target(site: Path) -> None:
    recipes = {entry["name"]: entry for entry in json.loads(_edgeq(site, "recipes", "--json"))}
    assert recipes["example-w8"]["summary"] == "8-bit weights and activations, from a plug-in"
    assert "ptq-w8a8" in recipes
    targets = {entry["name"]: entry for entry in json.loads(_edgeq(site, "targets", "--json"))}
    assert targets["example-board"]["isa"] == "neon_dotprod"


def test_an_installed_package_adds_a_family(site: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 76}
    config = transformers.Data2VecTextConfig(
        vocab_size=283, max_position_embeddings=39, type_vocab_size=1, pad_token_id=1, **sizes
    )
    source = tmp_path / "source"
    transformers.Data2VecTextModel(config).save_pretrained(source)
    save_byte_tokenizer(source)
    _edgeq(site, "compress", source, tmp_path / "out", "--recipe", "example-w8")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["architectures"] == ["Data2VecTextModel"]
    assert written["quantization_config"]["tensors"]["encoder.layer.0.output.dense"]["bits"] == 8


@pytest.mark.parametrize(
    ("points", "module", "reason"),
    [
        ("[edgeq.models]\nbad = nowhere_at_all:X", "", r"'bad' of broken cannot be loaded \(ModuleNotFoundError"),
        ("[edgeq.models]\nbad = broken_plugin:X", "X = 3", "should be a subclass of .*ModelAdapter, found 3"),
        ("[edgeq.models]\nbad = broken_plugin:X", "from edgeq.models.bert import BertAdapter as X", "'bert', which"),
        ("[edgeq.models]\nbad = broken_plugin:X", "raise SystemError('no\\nluck')", "SystemError: no luck"),
        ("[edgeq.recipes]\nbad = broken_plugin:X", "X = 3", "should name a package that holds .toml files"),
        ("[edgeq.targets]\nbad = broken_plugin", "", "brings cortex-a76.toml, and there is one of that name"),
    ],
)
def test_a_broken_package_is_named(
    points: str, module: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _installed(tmp_path / "site", "broken", points)
    (site / "broken_plugin").mkdir()
    (site / "broken_plugin" / "__init__.py").write_text(module)
    (site / "broken_plugin" / "cortex-a76.toml").touch()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "broken_plugin", raising=False)
    look = {"models": registry.adapter_classes, "recipes": list_recipes, "targets": list_targets}
    with pytest.raises(UsageError, match=reason):
        look[points.partition("]")[0].removeprefix("[edgeq.")]()
    monkeypatch.delitem(sys.modules, "broken_plugin", raising=False)
