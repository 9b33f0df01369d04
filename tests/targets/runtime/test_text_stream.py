"""Streams of text against decoding everything at once; tokens are bytes of UTF-8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.targets.runtime.text_stream import TextStream


class Bytes:
    """A tokenizer whose ids are bytes; 256 and above are special tokens."""

    def decode(self, ids, *, skip_special_tokens):
        assert skip_special_tokens
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")


def _stream(ids, *, prompt=b"p", stop=()):
    stream = TextStream(Bytes(), list(prompt), stop)
    pieces = []
    for token in ids:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    pieces.append(stream.finish())
    return pieces, stream.stopped


@given(st.text(max_size=30), st.text(max_size=5))
def test_pieces_make_the_text_and_never_split_a_character(text, prompt):
    pieces, stopped = _stream(text.encode(), prompt=prompt.encode())
    assert "".join(pieces) == text
    assert not stopped
    assert all(piece in text for piece in pieces)


@given(st.lists(st.integers(0, 260), max_size=40))
def test_bytes_that_are_no_text_come_out_as_decoding_them_at_once(ids):
    assert "".join(_stream(ids)[0]) == Bytes().decode(ids, skip_special_tokens=True)


def test_a_character_comes_with_its_last_byte():
    assert _stream("aé€b".encode())[0] == ["a", "", "é", "", "", "€", "b", ""]


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3))
def test_nothing_of_a_stop_text_is_ever_shown(text, stop):
    pieces, stopped = _stream(text.encode(), stop=stop)
    found = [at for at in (text.find(s) for s in stop) if at >= 0]
    shown = "".join(pieces)
    assert stopped == bool(found)
    if stopped:  # the stop text that is complete first wins, the longest if several end together
        ends = min(text.find(s) + len(s) for s in stop if s in text)
        assert shown == text[: min(text.find(s) for s in stop if s in text[:ends])]
    else:
        assert shown == text


@pytest.mark.parametrize(("text", "expected"), [("one\n\ntwo", "one"), ("one\ntwo", "one\ntwo"), ("one\n", "one\n")])
def test_a_held_line_break_is_shown_when_no_stop_text_comes(text, expected):
    assert "".join(_stream(text.encode(), stop=["\n\n"])[0]) == expected


def test_text_is_held_back_only_as_long_as_it_may_become_a_stop_text():
    assert _stream(b"xENx", stop=["END"])[0] == ["x", "", "", "ENx", ""]
