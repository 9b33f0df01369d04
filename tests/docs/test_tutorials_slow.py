"""The tutorials' commands are run as they stand, on tiny models under the names that they use."""

import itertools
import re
import shutil
from pathlib import Path

import pytest

from edgeq.cli.main import main
from tests.docs.test_pages import commands_of

pytestmark = pytest.mark.slow

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
SENTENCES = ["the cat sat", "a good movie", "the lazy dog", "quick brown fox", "the dog jumps over the fox", "a cat"]
WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})


@pytest.fixture
def workplace(make_bert, make_gpt2, tmp_path, monkeypatch):
    """A folder with everything that the tutorials name."""
    shutil.copytree(make_bert(), tmp_path / "my-bert")
    classifier = make_bert("BertForSequenceClassification", num_hidden_layers=12, num_labels=2)
    shutil.copytree(classifier, tmp_path / "my-classifier")
    shutil.copytree(make_gpt2(), tmp_path / "my-gpt2")
    pairs = [f"{one}\t{other}\t{rank}" for rank, (one, other) in enumerate(itertools.pairwise(SENTENCES))]
    many = [f"{one}\t{other}\t{rank}" for rank, (one, other) in enumerate(itertools.product(WORDS, WORDS))]
    labels = [f"{sentence}\t{number % 2}" for number, sentence in enumerate(SENTENCES * 3)]
    (tmp_path / "pairs.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(pairs) + "\n")
    (tmp_path / "many_pairs.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(many) + "\n")
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n" + "\n".join(labels) + "\n")
    texts = [" ".join(words) for words in itertools.product(WORDS, WORDS[:4], ("the cat sat", "a good movie"))]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    for name in ("train.txt", "valid.txt"):
        (tmp_path / name).write_text("the cat sat over the lazy dog. a good movie jumps over the fox. " * 30)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("tutorial", sorted(path.name for path in TUTORIALS.glob("*.md")))
def test_a_tutorial_works(tutorial, workplace, capsys, needs):
    if "cortex-" in (TUTORIALS / tutorial).read_text():
        needs("arm64-emulator")
    data = {"training.md": "train.tsv", "search.md": "many_pairs.tsv"}.get(tutorial, "pairs.tsv")
    shutil.copy(workplace / data, workplace / "dev.tsv")
    commands = [line for line in commands_of(TUTORIALS / tutorial) if "ssh://" not in line]
    assert commands
    for line in commands:
        words = [word.strip("\"'") for word in re.findall(r'"[^"]*"|\S+', line)]
        short = ["--rounds", "2", "--sequence", "8"] if words[0] == "deploy" else []
        code = main([*words, *short])
        assert code == 0, f"edgeq {line}\n{capsys.readouterr().err}"
