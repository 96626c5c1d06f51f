from __future__ import annotations

import pytest

from common.redaction import is_secret, redacted, redacted_text, redacted_words
from core.config.keys import RUN_KEYS


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY", "HF_TOKEN", "slurm.environment.AWS_SECRET_ACCESS_KEY", "hub_token", "token", "api-key",
        "apikey", "password", "db_passwd", "client_secret", "GITHUB_PAT", "credentials", "authorization",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


def test_no_key_of_a_run_file_is_taken_for_a_secret() -> None:
    keys = [key for section in RUN_KEYS.sections() for key in RUN_KEYS.keys_of((section,))]
    assert [key for key in keys if is_secret(key)] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("use hf_abcdefghijklmnopqrstuvwx now", "use (hidden) now"),
        ("sk-ant-abcdefghijklmnopqrstuvwxyz", "(hidden)"),
        ("git+https://user:pw@host/x.git", "git+https://(hidden)@host/x.git"),
        ("curl -H 'Authorization: Bearer abc.def'", "curl -H 'Authorization: Bearer (hidden)'"),
        ("[{name: wandb, options: {api_key: abc, mode: x}}]", "[{name: wandb, options: {api_key: (hidden), mode: x}}]"),
        ("refused: {'token': 'abc'}, PASSWORD=abc", "refused: {'token': '(hidden)'}, PASSWORD=(hidden)"),
        (
            "max_response_tokens: 12, prompt_key: q, stop_token_ids=[3]",
            "max_response_tokens: 12, prompt_key: q, stop_token_ids=[3]",
        ),
        ("/data/sk-learn/hf_model at http://host:8080/a@b", "/data/sk-learn/hf_model at http://host:8080/a@b"),
    ],
)
def test_texts(text: str, shown: str) -> None:
    assert redacted_text(text) == shown


def test_settings_in_settings() -> None:
    sinks = [{"name": "wandb", "options": {"api_key": "abc", "project": "p"}}, "https://u:p@h"]
    assert redacted("logging.sinks", sinks) == [
        {"name": "wandb", "options": {"api_key": "(hidden)", "project": "p"}},
        "https://(hidden)@h",
    ]
    assert redacted("hub_token", ["a", "b"]) == "(hidden)"
    assert redacted("train.lr", 1e-6) == 1e-6


def test_command_lines() -> None:
    words = ["run", "a.yaml", "--set", "slurm.environment.HF_TOKEN=x y", "--api-key", "abc", "--token=z", "--lr", "1"]
    assert redacted_words(words) == [
        "run", "a.yaml", "--set", "slurm.environment.HF_TOKEN=(hidden)", "--api-key", "(hidden)", "--token=(hidden)",
        "--lr", "1",
    ]  # fmt: skip
