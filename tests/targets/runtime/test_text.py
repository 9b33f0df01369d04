import dataclasses

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.targets.runtime import native
from edgeq.targets.runtime.kernel_times import Watch, with_kernel_times
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.scores import Scores, class_names
from edgeq.targets.runtime.text import run_texts
from edgeq.targets.runtime.text_files import read_pairs, read_texts
from edgeq.targets.runtime.text_options import text_options


@pytest.fixture
def bundle(host_bundle):
    return edgeq.load(host_bundle)


def test_embeddings_are_pooled_over_the_real_tokens(bundle):
    vectors = bundle(input_ids=np.array([[2, 5, 9, 3]]))["last_hidden_state"][0].astype(np.float64)
    mean = vectors.mean(axis=0)
    mean = mean.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(bundle.encode(["W1 w5"])[0], mean / np.sqrt((mean * mean).sum()), rtol=1.2e-7)


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_every_pooling(pooling, host_bundle, copy_of):
    copy = copy_of(host_bundle)
    manifest = read_manifest(copy)
    model = dataclasses.replace(manifest.model, pooling=pooling, normalize=False)
    write_manifest(copy, dataclasses.replace(manifest, model=model))
    bundle = edgeq.load(copy)
    vectors = bundle(input_ids=np.array([[2, 5, 9, 3]]))["last_hidden_state"][0]
    expected = {"mean": vectors.mean(axis=0), "max": vectors.max(axis=0), "cls": vectors[0]}[pooling]
    np.testing.assert_array_equal(bundle.encode(["w1 w5", "w2 w3 w4"])[0], expected)


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


def _most_bytes(bundle, work):
    """Bytes of the tensors of the kernel that has most of them, in any call."""
    found = []
    watch = Watch(lambda _, record: found.append(record.contents.bytes))
    library, handle = with_kernel_times(bundle.model.library), bundle.session._handle
    assert library.edgeq_watch_kernels(handle, watch, None) == native.OK
    work()
    assert library.edgeq_watch_kernels(handle, Watch(), None) == native.OK
    return max(found)


def test_no_batch_is_larger_than_the_budget(bundle):
    def rows(count, tokens):
        return _most_bytes(bundle, lambda: bundle(input_ids=np.zeros((count, tokens), np.int64)))

    texts = [" ".join(["w1"] * (number % 9 + 1)) for number in range(300)]
    small = _most_bytes(bundle, lambda: bundle.encode(texts, token_budget=24))
    assert rows(1, 11) < small <= rows(1, 24)
    assert rows(1, 24) < _most_bytes(bundle, lambda: bundle.encode(texts, token_budget=240)) <= rows(6, 40)


def test_no_text_is_taken_early(bundle):
    taken = []
    texts = (taken.append(number) or " ".join(["w1"] * (number % 9 + 1)) for number in range(1000))
    results = run_texts(bundle, texts, token_budget=24)
    next(results)
    assert len(taken) < 400  # 64 batches of 24 tokens, each text 3 tokens or more
    assert 1 + len(list(results)) == len(taken) == 1000


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
        (["w1", "a\0"], "text 2 is not UTF-8: it holds byte 0x00"),
        (["w1", None], "text 2 should be a text or a pair of texts, found None"),
        ([("w1", "w2", "w3")], "text 1 should be a text or a pair of texts"),
    ],
)
def test_texts_that_cannot_be_run_are_refused_before_any_runs(bundle, texts, message):
    with pytest.raises(UsageError, match=message):
        run_texts(bundle, texts)


def test_one_text_after_the_other(bundle):
    """A single text takes a way of its own in Python: the same bits, the same complaints, and nothing stays of them."""
    texts = ["w1 w2 w3", "w4", " ".join(["w5"] * 30)]
    for text, expected in zip(texts, bundle.encode(texts), strict=True):
        np.testing.assert_array_equal(bundle.encode([text]), expected[None])
        np.testing.assert_array_equal(bundle.encode(text, token_budget=50), expected[None])
    kept = bundle.encode(texts[0])
    for wrong, message in [
        (" ", "text 1 is empty"),
        ("\udcff", "text 1 is not valid Unicode"),
        ("a\0", "text 1 is not UTF-8: it holds byte 0x00"),
        (" ".join(["w1"] * 39), "text 1 has 41 tokens, the model takes at most 40"),
    ]:
        with pytest.raises(UsageError, match=message):
            bundle.encode(wrong)
    np.testing.assert_array_equal(bundle.encode(texts[0]), kept)


def _classifier(copy, **text):
    """The tiny model has no head: its first token's states play the logits."""
    manifest = read_manifest(copy)
    model = dataclasses.replace(manifest.model, task="classify", pooling="none", labels=("no", "yes"))
    info = dataclasses.replace(manifest.text, **text)
    write_manifest(copy, dataclasses.replace(manifest, model=model, text=info))
    return edgeq.load(copy)


@pytest.mark.parametrize("scores", ["softmax", "sigmoid", "none"])
def test_classifiers_give_labels_and_scores(scores, host_bundle, copy_of):
    bundle = _classifier(copy_of(host_bundle), scores=scores)
    first, second = run_texts(bundle, ["w1", "w2"])
    logits = bundle(input_ids=np.array([[2, 5, 3]]))["last_hidden_state"][0, 0].astype(np.float64)
    want = {
        "softmax": np.exp(logits) / np.exp(logits).sum(), "sigmoid": 1 / (1 + np.exp(-logits)), "none": logits,
    }[scores]  # fmt: skip
    np.testing.assert_allclose(first.scores.values, want, rtol=1e-12)
    assert first.scores.names == ("no", "yes", *(f"LABEL_{number}" for number in range(2, 12)))
    assert first.label == first.scores.names[int(np.argmax(logits))]
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


def test_long_texts_are_split_into_rows(host_bundle, copy_of):
    bundle = _with_text(copy_of(host_bundle), max_tokens=4)
    (split,) = run_texts(bundle, ["w1 w2 w3 w4 w5"], on_long="split")
    assert (split.tokens, split.rows, split.truncated) == (7, 3, False)
    assert split.to_json()["rows"] == 3
    parts = bundle.encode(["w1 w2", "w3 w4", "w5"]).astype(np.float64)
    mean = (parts * [[4], [4], [3]]).sum(axis=0) / 11
    np.testing.assert_allclose(split.embedding, mean / np.sqrt((mean * mean).sum()), rtol=1e-6)
    np.testing.assert_array_equal(bundle.encode(["w1 w2 w3 w4 w5", "w1"], on_long="split")[0], split.embedding)
    (cut,) = run_texts(bundle, ["w1 w2 w3 w4 w5"], on_long="cut")
    np.testing.assert_array_equal(cut.embedding, bundle.encode("w1 w2")[0])
    assert cut.truncated
    with pytest.raises(UsageError, match="on_long must be error, cut or split, found 'maybe'"):
        bundle.encode(["w1"], on_long="maybe")


def test_options_of_a_call_are_its_own():
    changed = text_options(max_tokens=4)
    changed.first_number, changed.prompt_name = 7, b"query"
    again = text_options(max_tokens=4)
    assert (again.first_number, again.prompt_name, again.max_tokens) == (1, None, 4)
    assert (text_options().max_tokens, text_options(prompt_name="query").prompt_name) == (0, b"query")


def test_scores_of_a_split_text_are_those_of_its_average_logits(host_bundle, copy_of):
    bundle = _classifier(copy_of(host_bundle), max_tokens=4, scores="none")
    (split,) = run_texts(bundle, ["w1 w2 w3"], on_long="split")
    first, second = run_texts(bundle, ["w1 w2", "w3"])
    want = (np.array(first.scores.values) * 4 + np.array(second.scores.values) * 3) / 7
    np.testing.assert_allclose(split.scores.values, np.float32(want), rtol=2e-7)


def test_a_text_that_must_not_be_cut_is_refused(host_bundle, copy_of):
    bundle = _with_text(copy_of(host_bundle), max_tokens=4, cuts=True)
    with pytest.raises(UsageError, match="text 1 has 7 tokens, the model takes at most 4"):
        run_texts(bundle, ["w1 w2 w3 w4 w5"], on_long="error")


def test_tokens_are_those_that_the_model_reads(host_bundle, copy_of):
    bundle = _with_text(copy_of(host_bundle), max_tokens=4, cuts=True, prompts={"q": "w7 "})
    assert bundle.tokenize("w1 w2 w3") == [[2, 5, 6, 3]]
    assert bundle.tokenize(["w1", ("w1", "w2")], prompt_name="q") == [[2, 11, 5, 3], [11, 5, 6]]
    assert bundle.tokenize("w1 w2 w3", on_long="error") == [[2, 5, 6, 7, 3]]
    pairs = [("w1", "w2"), ("w3", "w4 w5"), "w6", ("w7", "w8"), ("w9", "w1 w2")]
    for _ in range(2):  # nothing of a call is left to the next one
        assert bundle.tokenize(pairs) == [bundle.tokenize([pair])[0] for pair in pairs]


def test_names_and_json_of_scores():
    assert class_names(("a", "b"), 3) == ("a", "b", "LABEL_2")
    assert Scores(("score",), (-1.5,)).to_json() == {"label": "score", "score": -1.5, "scores": {"score": -1.5}}
    twice = Scores(("x", "x"), (1.0, 3.0)).to_json()
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
    copy = copy_of(host_bundle)
    manifest = read_manifest(copy)
    write_manifest(copy, dataclasses.replace(manifest, text=dataclasses.replace(manifest.text, **changes)))
    with pytest.raises(FormatError, match=message):
        read_manifest(copy)
    with pytest.raises(EdgeqError, match=message if "similarity" in changes else r"manifest\.json: '"):
        _ = edgeq.load(copy).manifest  # what the library does not use, it does not read


def test_a_bundle_without_tokenizer(host_bundle, copy_of):
    copy = copy_of(host_bundle)
    manifest = read_manifest(copy)
    files = {name: record for name, record in manifest.files.items() if not name.startswith("tokenizer.")}
    write_manifest(copy, dataclasses.replace(manifest, files=files))
    bundle = edgeq.load(copy)
    with pytest.raises(UsageError, match=r"text 1 needs a tokenizer, but the bundle carries no tokenizer\.bin"):
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
