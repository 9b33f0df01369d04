"""``generation_config.json``: what transformers would do with a model goes into its bundle, or is refused."""

import json

import pytest

from edgeq.errors import FormatError, UnsupportedError
from edgeq.targets.bundle.generation_config import read_generation_settings
from edgeq.targets.bundle.model_info import TargetTokens, read_end_ids, read_target_tokens
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.settings import PLAIN_SETTINGS, Filters, GenerationSettings

BART_LARGE_CNN = {
    "_from_model_config": True, "bos_token_id": 0, "decoder_start_token_id": 2, "early_stopping": True,
    "eos_token_id": 2, "forced_bos_token_id": 0, "forced_eos_token_id": 2, "length_penalty": 2.0, "max_length": 142,
    "min_length": 56, "no_repeat_ngram_size": 3, "num_beams": 4, "pad_token_id": 1, "transformers_version": "4.31.0",
}  # fmt: skip


def _read(folder, table, *, with_source=True, name="generation_config.json"):
    (folder / "config.json").write_text("{}")
    (folder / name).write_text(json.dumps(table))
    return read_generation_settings(folder, with_source=with_source)


def test_the_settings_of_a_summariser(tmp_path):
    expected = GenerationSettings(
        beams=Beams(4, 2.0, early_stopping=True), no_repeat_ngram_size=3, min_length=56, max_length=142
    )
    assert _read(tmp_path, BART_LARGE_CNN) == expected


def test_without_the_file_the_configuration_counts(tmp_path):
    assert _read(tmp_path, {"num_beams": 3, "d_model": 5}, name="config.json").beams == Beams(3)
    assert _read(tmp_path, {}) == PLAIN_SETTINGS


def test_sampling_counts_only_where_tokens_are_drawn(tmp_path):
    drawn = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}
    assert _read(tmp_path, drawn, with_source=False).sampling == Sampling(0.6, 50, 0.9, 1.1)
    greedy = {**drawn, "do_sample": False}
    found = _read(tmp_path, greedy, with_source=False)
    assert found.sampling == Sampling(repetition_penalty=1.1)
    assert found.filters == Filters(0, 0.9)  # where the caller asks for a temperature
    assert _read(tmp_path, drawn, with_source=False).filters == Filters()
    assert _read(tmp_path, {"top_k": 7, "top_p": None}, with_source=False).filters == Filters(7)
    with pytest.raises(FormatError, match="top_k must be an integer"):
        _read(tmp_path, {"top_k": -7}, with_source=False)
    assert _read(tmp_path, {**drawn, "top_k": None}, with_source=False).sampling.top_k == 0
    assert _read(tmp_path, {**drawn, "top_k": 0}, with_source=False).sampling.top_k == 0


@pytest.mark.parametrize(
    ("table", "with_source", "message"),
    [
        ({"bad_words_ids": [[3], [4, 5]]}, True, "asks for 'bad_words_ids' of several tokens"),
        ({"suppress_tokens": [2, 4], "forced_eos_token_id": 2}, True, "forces and suppresses one token"),
        ({"begin_suppress_tokens": [2]}, True, r"'begin_suppress_tokens' \(\[2\]\), which no runtime of edgeq does"),
        ({"encoder_no_repeat_ngram_size": 3}, True, "asks for 'encoder_no_repeat_ngram_size'"),
        ({"num_beam_groups": 2, "num_beams": 4}, True, "asks for 'num_beam_groups'"),
        ({"do_sample": True, "min_p": 0.1}, False, "asks for 'min_p'"),
        ({"min_p": 0.1}, False, "asks for 'min_p'"),  # --temperature would draw without it
        ({"typical_p": 0.9, "do_sample": False}, True, "asks for 'typical_p'"),
        ({"do_sample": True, "num_beams": 2}, True, "asks for 'num_beams' .* together with 'do_sample'"),
        ({"num_beams": 2}, False, "asks for 'num_beams' .* for a model without an encoder"),
        ({"num_return_sequences": 3}, False, "asks for 'num_return_sequences'"),
        ({"max_time": 2.5}, False, "asks for 'max_time'"),
        ({"forced_decoder_ids": [[1, 2]]}, True, "asks for 'forced_decoder_ids'"),
        ({"cache_implementation": "quantized"}, False, "asks for 'cache_implementation'"),
        ({"top_h": 0.4}, False, "holds 'top_h', which edgeq does not know"),
    ],
)
def test_what_no_runtime_does_is_refused(tmp_path, table, with_source, message):
    with pytest.raises(UnsupportedError, match=message):
        _read(tmp_path, table, with_source=with_source)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "should hold a JSON object, found a list"),
        ({"num_beams": 0}, r"generation_config\.json: the number of beams must be an integer"),
        ({"length_penalty": "long"}, "length_penalty must be a number"),
        ({"early_stopping": "soon"}, "early_stopping must be True"),
        ({"min_length": -1}, "'min_length' must be an integer of at least 0, found -1"),
        ({"max_length": 0}, "'max_length' must be an integer of at least 1"),
        ({"max_new_tokens": 3.5}, "'max_new_tokens' must be an integer"),
        ({"no_repeat_ngram_size": True}, "'no_repeat_ngram_size' must be an integer"),
        ({"do_sample": True, "temperature": -1}, "temperature must be a number"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number"),
        ({"bad_words_ids": [3]}, "'bad_words_ids' must be lists of token ids"),
        ({"bad_words_ids": [["a"]]}, "'bad_words_ids' must be token ids"),
        ({"suppress_tokens": 3}, "'suppress_tokens' must be token ids"),
        ({"suppress_tokens": list(range(2000))}, "banned_ids must be 1024 token ids at most"),
        ({"renormalize_logits": 1}, "renormalize_logits must be true or false"),
        ({"do_sample": 1}, "'do_sample' must be true or false, found 1"),
    ],
)
def test_wrong_values_are_a_sentence(tmp_path, table, message):
    with pytest.raises(FormatError, match=message):
        _read(tmp_path, table)


def test_settings_that_change_no_text_are_accepted(tmp_path):
    plain = {"use_cache": True, "pad_token_id": 3, "output_scores": True, "num_assistant_tokens": 20}
    assert _read(tmp_path, plain) == PLAIN_SETTINGS
    assert _read(tmp_path, {"suppress_tokens": [], "begin_suppress_tokens": [], "bad_words_ids": []}) == PLAIN_SETTINGS


def test_settings_of_opus_mt(tmp_path):
    """Padding is banned but for a model that ends texts with it, and beams count what is left as all there is."""
    table = {"bad_words_ids": [[7], [2]], "suppress_tokens": [9, 7], "eos_token_id": 2, "renormalize_logits": True}
    found = _read(tmp_path, table)
    assert found == GenerationSettings(banned_ids=(7, 9), renormalize_logits=True)


def test_the_file_that_governs_governs_alone(tmp_path):
    config = {"forced_bos_token_id": 0, "forced_eos_token_id": 2, "eos_token_id": 2, "decoder_start_token_id": 9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_target_tokens(tmp_path) == TargetTokens(9, 0, 2)
    assert read_end_ids(tmp_path) == (2,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"bos_token_id": 7}))
    assert read_target_tokens(tmp_path) == TargetTokens(7, None, None)
    assert read_end_ids(tmp_path) == ()


def test_the_settings_outlive_compression(make_bart, tmp_path):
    """Transformers moves them from one file to the other when it saves; nothing may be lost on the way."""
    import edgeq

    asked = {"num_beams": 3, "length_penalty": 2.0, "min_length": 4, "max_length": 21, "no_repeat_ngram_size": 3}
    edgeq.compress_model(make_bart(encoder_layers=1, decoder_layers=1, **asked), tmp_path / "c", recipe="ptq-w4a8")
    found = read_generation_settings(tmp_path / "c", with_source=True)
    assert found == GenerationSettings(beams=Beams(3, 2.0), no_repeat_ngram_size=3, min_length=4, max_length=21)
