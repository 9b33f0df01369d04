"""A registry is what the files of a folder define: each file counts, none is listed, and two cannot have one name."""

import sys

import pytest

from edgeq.discovery import classes_of, modules_of
from edgeq.export.ops.registry import OPERATORS
from edgeq.factor.kinds import KINDS, METHODS
from edgeq.models.registry import adapter_classes
from edgeq.parity.rules.rule import Rule
from edgeq.quant.quantizers import QUANTIZERS
from edgeq.targets.compiler.converters import CONVERTERS


class Base:
    """What the made-up classes are subclasses of."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package ``made_up`` with one class; a test adds files to it."""
    package = tmp_path / "made_up"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "first.py").write_text(f"from {__name__} import Base\nclass First(Base):\n    method = 'first'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] == "made_up"]:
        del sys.modules[name]


def test_a_new_file_is_enough(folder):
    lines = ["from made_up.first import Base, First", "class Second(First): method = 'second'", "class Odd(First): ..."]
    (folder / "second.py").write_text("\n".join(lines))
    (folder / "inside").mkdir()
    (folder / "inside" / "__init__.py").write_text("raise RuntimeError('packages inside are not looked at')")
    found = classes_of("made_up", Base, having="method")
    assert {name: kind.__name__ for name, kind in found.items()} == {"first": "First", "second": "Second"}
    assert [module.__name__ for module in modules_of("made_up")] == ["made_up.first", "made_up.second"]


def test_two_of_one_name_are_refused(folder):
    (folder / "other.py").write_text("from made_up.first import Base\nclass Other(Base):\n    method = 'first'\n")
    with pytest.raises(TypeError, match=r"made_up\.other\.Other and First are both 'first'"):
        classes_of("made_up", Base, having="method")


def test_every_room_is_found_whole():
    """Names of each kind that other tests do not go through one by one."""
    assert {"laq", "lsq", "lsq-symmetric", "module-scaling", "pact", "elastic", "grid"} <= set(QUANTIZERS)
    assert set(KINDS) == {"bank", "blocks", "embedding", "head", "kronecker", "low-rank", "tucker"}
    assert set(METHODS) == {"kronecker", "low-rank", "tucker"}
    assert {"LowBitLinear", "LowBitEmbedding"} <= set(OPERATORS)
    assert {"LowBitLinear", "Attention", "MatMul", "Gelu"} <= set(CONVERTERS)
    rules = classes_of("edgeq.parity.rules", Rule, having="name")
    assert set(rules) == {"bit-identical", "chosen tokens", "decisions", "end-to-end", "isolated"}
    assert [adapter.__name__ for adapter in adapter_classes()["gpt2"]] == ["Gpt2Adapter", "Gpt2ClassifierAdapter"]
    assert [adapter.__name__ for adapter in adapter_classes()["bart"]] == ["BartAdapter", "BartClassifierAdapter"]
