import dataclasses

import numpy as np
import pytest

import edgeq
from edgeq.errors import FormatError, UsageError
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.scores import scores_of
from edgeq.targets.runtime.text import pool, read_pairs, read_texts, run_texts


@pytest.fixture
def bundle(host_bundle):
    return edgeq.load(host_bundle)


def test_embeddings_are_pooled_over_the_real_tokens(bundle):
    vectors = bundle(input_ids=np.array([[2, 5, 9, 3]]))["last_hidden_state"][0].astype(np.float64)
    mean = vectors.mean(axis=0)
    expected = (mean / np.sqrt((mean * mean).sum())).astype(np.float32)
    np.testing.assert_array_equal(bundle.encode(["W1 w5"])[0], expected)


def test_a_batch_and_padding_change_nothing(bundle):
    texts = ["w1", "w2 w3 w4 w5 w6 w7 w8 w9 w10", "w0 w0", "unknown words", *(f"w{i} w3" for i in range(20))]
    together = bundle.encode(texts)
    alone = np.stack([bundle.encode([text])[0] for text in texts])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("token_budget", [1, 7, 64, 10_000])
def test_texts_of_mixed_lengths_keep_their_order_and_their_bits(bundle, token_budget):
    texts = [" ".join(f"w{(number + place) % 40}" for place in range(number * 7 % 30 + 1)) for number in range(40)]
    results = list(run_texts(bundle, iter(texts), token_budget=token_budget))
    assert [result.text for result in results] == texts
    alone = np.concatenate([bundle.encode(text) for text in texts])
    np.testing.assert_array_equal(np.stack([result.embedding for result in results]), alone)


def test_no_batch_is_larger_than_the_budget_and_no_text_is_taken_early(bundle):
    shapes, taken = [], []
    original = bundle.run

    def watched(inputs):
        shapes.append(inputs["input_ids"].shape)
        return original(inputs)

    bundle.run = watched
    texts = (taken.append(number) or " ".join(["w1"] * (number % 9 + 1)) for number in range(1000))
    results = run_texts(bundle, texts, token_budget=24)
    next(results)
    assert len(taken) < 400  # 64 batches of 24 tokens, each text 3 tokens or more
    assert 1 + len(list(results)) == len(taken) == 1000
    assert max(rows * length for rows, length in shapes) <= 24
    assert max(rows for rows, _ in shapes) > 1


def test_without_texts_there_are_no_vectors(bundle):
    found = bundle.encode([])
    assert (found.shape, found.dtype) == ((0, bundle.outputs[0].shape[-1]), np.float32)
    with pytest.raises(UsageError, match="embeds texts and gives no labels; use encode"):
        bundle.predict(["w1"])
    with pytest.raises(UsageError, match="token budget must be at least 1, found 0"):
        bundle.encode(["w1"], token_budget=0)


def test_the_tokenizers_own_truncation_is_switched_off(bundle):
    """The file asks for 8 tokens; a text of 20 words must not lose 14 of them in silence."""
    (result,) = run_texts(bundle, [" ".join(["w1"] * 20)])
    assert result.tokens == 22


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["w1", ""], "text 2 is empty"),
        ([" \t\n"], "text 1 is empty"),
        (["w1", " ".join(["w1"] * 39)], "text 2 has 41 tokens, the model takes at most 40"),
        (["\udcff"], "text 1 is not valid Unicode"),
        (["w1", None], "text 2 should be a text or a pair of texts, found None"),
        ([("w1", "w2", "w3")], "text 1 should be a text or a pair of texts"),
    ],
)
def test_texts_that_cannot_be_run_are_refused_before_any_runs(bundle, texts, message):
    with pytest.raises(UsageError, match=message):
        run_texts(bundle, texts)


def test_classifiers_give_labels_and_probabilities(host_bundle, copy_of):
    copy = copy_of(host_bundle)
    manifest = read_manifest(copy)
    model = dataclasses.replace(manifest.model, task="classify", pooling="none", labels=("no", "yes"))
    write_manifest(copy, dataclasses.replace(manifest, model=model))
    bundle = edgeq.load(copy)
    # The tiny model has no head, so its first token vector plays the logits.
    original = bundle.run

    def logits(inputs):
        return {"logits": original(inputs)["last_hidden_state"][:, 0, :3]}

    bundle.run = logits
    first, second = run_texts(bundle, ["w1", "w2"])
    assert first.label in ("no", "yes", "LABEL_2")
    assert sum(first.scores.values) == pytest.approx(1)
    assert first.scores.score == max(first.scores.values)
    assert second.to_json().keys() == {"text", "tokens", "label", "score", "scores"}
    predicted = bundle.predict(text for text in ["w1", "w2"])
    assert [result.to_json() for result in predicted] == [first.to_json(), second.to_json()]
    (couple,) = bundle.predict([("w1", "w2")])
    assert couple.to_json().keys() == {"text", "text_pair", "tokens", "label", "score", "scores"}
    with pytest.raises(UsageError, match="gives labels, not embeddings; use predict"):
        bundle.encode(["w1"])


def _with_text(copy, **changes):
    manifest = read_manifest(copy)
    write_manifest(copy, dataclasses.replace(manifest, text=dataclasses.replace(manifest.text, **changes)))
    return edgeq.load(copy)


def test_a_prompt_is_put_before_every_text(host_bundle, copy_of):
    prompts = {"query": "w7 w8 ", "none": ""}
    bundle = _with_text(copy_of(host_bundle), prompts=prompts, default_prompt="query")
    want = bundle.encode(["w7 w8 w1"], prompt_name="none")
    np.testing.assert_array_equal(bundle.encode(["w1"]), want)
    np.testing.assert_array_equal(bundle.encode(["w1"], prompt_name="query"), want)
    (result,) = run_texts(bundle, ["w1"])
    assert (result.text, result.tokens) == ("w1", 5)
    with pytest.raises(UsageError, match="has no prompt 'document'; its prompts are: 'query', 'none'"):
        run_texts(bundle, ["w1"], prompt_name="document")


@pytest.mark.parametrize(("side", "kept"), [("right", "w1 w2"), ("left", "w4 w5")])
def test_long_texts_are_cut_where_the_model_says_so(side, kept, host_bundle, copy_of):
    bundle = _with_text(copy_of(host_bundle), max_tokens=4, cuts=True, cut_side=side)
    long, short = run_texts(bundle, ["w1 w2 w3 w4 w5", kept])
    assert (long.tokens, long.truncated, short.tokens, short.truncated) == (4, True, 4, False)
    assert long.to_json()["truncated"] is True
    assert "truncated" not in short.to_json()
    np.testing.assert_array_equal(long.embedding, short.embedding)


def test_long_texts_are_refused_where_nothing_cuts_them(host_bundle, copy_of):
    bundle = _with_text(copy_of(host_bundle), max_tokens=4)
    with pytest.raises(UsageError, match="text 1 has 7 tokens, the model takes at most 4"):
        run_texts(bundle, ["w1 w2 w3 w4 w5"])


def test_pairs_are_read_together(bundle, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("w1 w2\tw3\nw4\tw5\n")
    results = list(run_texts(bundle, read_pairs(path)))
    # The tiny tokenizer puts no special tokens around pairs.
    assert results[0].to_json() | {"embedding": 0} == {"text": "w1 w2", "text_pair": "w3", "tokens": 3, "embedding": 0}
    path.write_text("w1\n")
    with pytest.raises(UsageError, match="pair 1: expected two texts and one tab between them"):
        read_pairs(path)


def test_scores():
    logits = np.float32([0.5, -2, 700])
    soft = scores_of(logits / 100, ["a", "b"], "softmax")
    assert soft.names == ("a", "b", "LABEL_2")
    np.testing.assert_allclose(soft.values, np.exp(logits / 100) / np.exp(logits / 100).sum(), rtol=1e-6)
    apart = scores_of(logits, ["a", "b", "c"], "sigmoid")
    np.testing.assert_allclose(apart.values, [0.6224593, 0.1192029, 1.0], rtol=1e-6)
    assert scores_of(np.float32([-1.5]), ["score"], "none").to_json() == {
        "label": "score", "score": -1.5, "scores": {"score": -1.5}
    }  # fmt: skip
    twice = scores_of(np.float32([1, 3]), ["x", "x"], "none").to_json()
    assert twice == {"label": "x", "score": 3.0, "scores": [{"label": "x", "score": 1.0}, {"label": "x", "score": 3.0}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"default_prompt": "query"}, "'default_prompt' must name one of the prompts"),
        ({"scores": "argmax"}, "'scores' must be one of none, sigmoid, softmax"),
        ({"cut_side": "middle"}, "'cut_side' must be one of left, right"),
        ({"similarity": "hamming"}, "'similarity' must be one of"),
    ],
)
def test_a_manifest_with_an_impossible_table_of_texts_is_refused(changes, message, host_bundle, copy_of):
    with pytest.raises(FormatError, match=message):
        _with_text(copy_of(host_bundle), **changes)


def test_pooling_by_hand():
    vectors = np.array([[1, -2], [3, 4], [-1, 0.5]], np.float32)
    np.testing.assert_array_equal(pool(vectors, "mean", normalize=False), np.float32([1, 2.5 / 3]))
    np.testing.assert_array_equal(pool(vectors, "max", normalize=False), np.float32([3, 4]))
    np.testing.assert_array_equal(pool(vectors, "cls", normalize=False), np.float32([1, -2]))
    np.testing.assert_array_equal(pool(vectors, "max", normalize=True), np.float32([0.6, 0.8]))
    np.testing.assert_array_equal(pool(vectors * 0, "mean", normalize=True), np.float32([0, 0]))


def test_a_bundle_without_or_with_a_damaged_tokenizer(host_bundle, copy_of):
    copy = copy_of(host_bundle)
    bundle = edgeq.load(copy)
    (copy / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(FormatError, match=r"tokenizer\.json is no valid tokenizer"):
        run_texts(bundle, ["w1"])
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"carries no tokenizer\.json"):
        run_texts(bundle, ["w1"])


def test_a_file_of_texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffone\r\n\n  \nzwei \u2028 drei\nvier".encode())
    assert read_texts(path) == ["one", "zwei \u2028 drei", "vier"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\ncaf\xe9\n", r"is not UTF-8 text: line 2 holds byte 0xe9"),
        (b"\n \n", "holds no text"),
        (b"", "holds no text"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, content, message):
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_texts(path)
