from __future__ import annotations

from core.data.template_frame import template_frame


def test_what_a_template_adds_and_leaves_out() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " hi ", "name": "Ann"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add"}}]},
        {"role": "user", "content": "and now?"},
    ]
    frame = template_frame("<s>user: hi\nadd\nuser: and now?\nassistant:", messages)
    assert frame.added == ("<s>user: ", "", "\nadd\nuser: ", "\nassistant:")
    assert frame.dropped == ("the content of message 1 (system)", "name of message 2 (user)")


def test_contents_that_repeat_are_taken_one_after_the_other() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}]
    assert template_frame("[a][a]", messages).added == ("[", "][", "]")
