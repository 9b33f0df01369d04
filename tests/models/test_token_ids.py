"""Token ids in settings, when tokens get other numbers."""

from edgeq.models.token_ids import needed_token_ids, renumbered_settings

SETTINGS = {
    "eos_token_id": [7, 9],
    "pad_token_id": -1,
    "bos_token_id": None,
    "decoder_start_token_id": 4,
    "vocab_size": 10,
    "forced_decoder_ids": [[1, 3]],
    "force_words_ids": [[2], [[5, 6]]],
    "suppress_tokens": [1, 7],
    "begin_suppress_tokens": None,
    "bad_words_ids": [[7, 1], [9, 4]],
    "sequence_bias": [[[7], -1.5], [[1], 2.0]],
    "temperature": 7,
    "task_specific_params": {"summarization": {"decoder_start_token_id": 8, "num_beams": 7}},
}
NEEDED = {2, 3, 4, 5, 6, 7, 8, 9}


def test_what_a_model_needs() -> None:
    assert set(needed_token_ids(SETTINGS)) == NEEDED
    assert needed_token_ids(SETTINGS)[7] == "eos_token_id"


def test_all_numbers_follow() -> None:
    new = renumbered_settings(SETTINGS, {old: old - 2 for old in NEEDED})
    assert new == {
        "eos_token_id": [5, 7],
        "pad_token_id": -1,
        "bos_token_id": None,
        "decoder_start_token_id": 2,
        "vocab_size": 10,
        "forced_decoder_ids": [[1, 1]],
        "force_words_ids": [[0], [[3, 4]]],
        "suppress_tokens": [5],
        "begin_suppress_tokens": None,
        "bad_words_ids": [[7, 2]],
        "sequence_bias": [[[5], -1.5]],
        "temperature": 7,
        "task_specific_params": {"summarization": {"decoder_start_token_id": 6, "num_beams": 7}},
    }


def test_a_bias_by_sequences() -> None:
    settings = {"sequence_bias": {(7, 2): 1.0, (1,): 2.0}, "id2label": {7: "good"}}
    assert renumbered_settings(settings, {7: 0, 2: 1}) == {"sequence_bias": {(0, 1): 1.0}, "id2label": {7: "good"}}
    assert needed_token_ids(settings) == {}
