"""Entries of a log: text beside frames is told from what was said, and where a frame begins.

Guards against text of a prompt that is taken for something the model has said, or the other way
round.
"""

from __future__ import annotations

import pytest

from mod.engine.log import FRAME, begins_frame, beside, is_said, token_of


@pytest.mark.parametrize("token", [0, 1, 151_936])
@pytest.mark.parametrize("ahead", [True, False])
def test_a_token_beside_a_frame_is_found_again(token: int, ahead: bool) -> None:
    entry = beside(token, ahead=ahead)
    assert entry < FRAME
    assert token_of(entry) == token
    assert not is_said(entry)


def test_what_was_said_is_itself() -> None:
    assert token_of(7) == 7
    assert is_said(7)
    assert not is_said(FRAME)


def test_a_frame_begins_with_the_text_ahead_of_it() -> None:
    a, b, after = beside(1, ahead=True), beside(2, ahead=True), beside(3, ahead=False)
    log = [9, a, b, FRAME, after, a, FRAME, FRAME, 9]
    begins = [begins_frame(entry, before) for before, entry in zip([None, *log], log, strict=False)]
    assert begins == [False, True, False, False, False, True, False, True, False]
