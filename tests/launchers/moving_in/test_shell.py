"""Scripts followed without running them: what bash would give the trainer, and what is refused."""

from __future__ import annotations

import contextlib
import random
import subprocess
from pathlib import Path

import pytest

from launchers.moving_in.shell import Followed, ScriptError, follow
from tests.support.waiting import COMMAND_S

END = '\npython3 train.py "${WORDS[@]}"\n'


def followed(folder: Path, text: str, **environment: str) -> Followed:
    (folder / "launch.sh").write_text(text, encoding="utf-8")
    return follow(folder / "launch.sh", environment, [])


def words(folder: Path, text: str, **environment: str) -> list[str]:
    """The trainer's arguments, gaps as the script spells them."""
    found = followed(folder, text, **environment)
    return [found.gaps.readable(word) for word in found.launches[0].arguments]


# each defines WORDS by what bash alone decides, so bash itself is asked what is right
AS_IN_BASH = {
    "quotes": """A='x y'; WORDS=(--a $A "$A" 'it is $A' "say \\"$A\\"" $'t\\tb' --e "" pre"$A"post)""",
    "defaults": 'E=""; WORDS=("${U:-one}" "${U-two}" "${E:-three}" "${E-four}" "${E:+five}" "${U:=six}" $U)',
    "arrays": 'A=(1 "2 3"); A+=(4); WORDS=("${A[@]}" ${A[@]} "${A[*]}" ${#A[@]} "${A[1]}" ${A[-1]} "${NONE[@]}")',
    "array in quotes": 'A=(1 "2 3" 4); WORDS=("x${A[@]}y")',
    "comments": "WORDS=(\n  --a 1 # no\n  # --b 2\n  --c '#3' a#b\n)",
    "continued": "WORDS=(--a \\\n  1 \\\n  --b=2)",
    "arithmetic": 'N=7; WORDS=($((N * 2 + 1)) $(( (N - 1) / 2 )) "$((N % 3))" $((1024 * 1024)) $((-7 / 2)))',
    "counting": 'for ((i=0; i<5; i++)); do if (( i < 2 )); then W+=(0); else W+=(1); fi; done; WORDS=("${W[@]}")',
    "joined": 'A=(0 1 1); printf -v F "[%s]" "$(IFS=\', \'; echo "${A[*]}")"; WORDS=("$F")',
    "for": 'for x in a b "c d"; do WORDS+=("--$x"); done',
    "branches": 'M=big; if [ "$M" = small ]; then W=1; elif [[ $M == b* && $M ]]; then W=2; else W=3; fi; WORDS=($W)',
    "numbers": "[ 3 -gt 2 ] && A=yes || A=no; [ x -gt 2 ] 2>/dev/null && B=yes || B=no; WORDS=($A $B)",
    "case": 'M=qwen3; case "$M" in llama*) W=1;; qwen*|glm) W=2;; *) W=3;; esac; WORDS=($W)',
    "functions": 'f() { local V="$1"; WORDS+=("$V" $#); return 0; WORDS+=(never); }; f a; f "b c" d',
    "cut": 'P=/a/b/c.txt; WORDS=(${P##*/} ${P%/*} "${P%.txt}" ${P/b/x} ${P#/a} ${P^^} ${P:1:3} ${#P})',
    "commands": 'WORDS=($(basename /a/b.sh .sh) "$(dirname /a/b/c)" $(echo 1 2) $(seq 2 3 9) `echo back`)',
    "here-document": "read -r -d '' W <<EOF\none $((1+1))\nEOF\nWORDS=($W)",
    "file": 'F=made.yaml\ncat > "$F" <<CFG\nsize: ${N:-4}\nCFG\nWORDS=("$(cat $F)")',
    "group": "{ A=1; }; ( A=2 ); WORDS=($A)",
    "while": "N=0; while [ $N -lt 3 ]; do N=$((N + 1)); WORDS+=($N); done",
    "indirect": "A=B; B=found; WORDS=(${!A})",
    "set": 'set -- --x 1; shift; WORDS=("$@" $#)',
    "test words": 'A=; [ -z "$A" ] && W=1; [ ! -z "$A" ] || W+=2; [[ -z $A || $A == x ]] && W+=3; WORDS=($W)',
    "pipe": "A=1; A=2 | true; { A=3; } | true; WORDS=($A)",
    "unset": "A=1; unset A; WORDS=(${A:-gone})",
    "for the command only": "A=1; A=2 true; WORDS=($A)",
}


@pytest.mark.parametrize("text", AS_IN_BASH.values(), ids=AS_IN_BASH)
def test_words_are_those_of_bash(tmp_path: Path, text: str) -> None:
    asked = f"{text}\nprintf '%s\\0' \"${{WORDS[@]}}\"\n"
    done = subprocess.run(
        ["bash", "-c", asked], capture_output=True, text=True, cwd=tmp_path, timeout=COMMAND_S, check=True
    )
    assert words(tmp_path, text + END) == done.stdout.split("\0")[:-1]


def test_sourced_files_are_found_where_the_script_says_beside_it_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "scripts" / "models").mkdir(parents=True)
    (tmp_path / "scripts" / "models" / "m.sh").write_text('SIZE="${SIZE_OF:-4}"\nMODEL_ARGS=(--num-layers "$SIZE")\n')
    (tmp_path / "scripts" / "models" / "n.sh").write_text('SIZE_OF=2 source "$(dirname -- "${BASH_SOURCE[0]}")/m.sh"\n')
    here = 'DIR="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" &>/dev/null && pwd)"\n'
    for line in ('source "${DIR}/models/n.sh"', '. "${DIR}/../scripts/models/n.sh"', "source /elsewhere/n.sh"):
        script = tmp_path / "scripts" / "run.sh"
        script.write_text(f'{here}{line}\nray job submit -- python3 train.py "${{MODEL_ARGS[@]}}"\n')
        assert follow(script, {}, []).launches[0].arguments == ("--num-layers", "2"), line


def test_a_sourced_file_whose_name_a_command_makes_is_left_out_and_told(tmp_path: Path) -> None:
    found = followed(tmp_path, 'source "models/$(hostname).sh"\npython3 train.py --lr 1 "${MODEL_ARGS[@]}"')
    assert found.launches[0].arguments == ("--lr", "1")
    assert found.unread == ("line 1: models/$(hostname).sh",)


def test_what_a_script_does_not_say_is_a_gap(tmp_path: Path) -> None:
    text = (
        'N=$(nvidia-smi -L | wc -l)\nW=("$BASE/model" "${N}" "${OTHER:-$BASE}" "${M:-8}")\npython3 train.py "${W[@]}"'
    )
    assert words(tmp_path, text) == ["$BASE/model", "$(nvidia-smi -L | wc -l)", "$BASE", "8"]
    assert words(tmp_path, text, BASE="/b", M="4") == ["/b/model", "$(nvidia-smi -L | wc -l)", "/b", "4"]


def test_an_unset_variable_is_empty_to_a_test_and_a_command_decides_nothing(tmp_path: Path) -> None:
    text = """
if [ -z "$BASE" ]; then echo "set BASE"; exit 1; fi
if command -v nvidia-smi; then N=$(nvidia-smi -L | wc -l); else N=0; fi
if [ "$N" -le 0 ]; then N=8; fi
if [ "$(hostname)" = here ]; then N=4; fi
if [ -z "$(hostname)" ] || [ -n "$(hostname)" ]; then N=5; fi
until curl -sf http://here; do sleep 5; done
for host in $(cat hosts); do ssh $host "pkill python"; done
ray job submit --runtime-env-json='{"env_vars": {}}' -- python3 -u "$HOME/train_async.py" --n $N 2>&1 | tee log
"""
    found = followed(tmp_path, text)
    (launch,) = found.launches
    assert (launch.program, launch.arguments, launch.runtime_env) == (
        "train_async.py",
        ("--n", "8"),
        '{"env_vars": {}}',
    )
    assert found.assumed == ("line 5", "line 6")


@pytest.mark.parametrize("start", ["python3 train.py", "ray job submit -- bash -c", "nohup torchrun --n 8 /a/train.py"])
def test_the_trainer_is_found_however_it_is_started(tmp_path: Path, start: str) -> None:
    text = f"{start} 'python3 train.py --lr 1'" if start.endswith("-c") else f"{start} --lr 1"
    assert words(tmp_path, text) == ["--lr", "1"]


def test_flags_behind_a_line_without_its_backslash_are_read_and_told(tmp_path: Path) -> None:
    found = followed(tmp_path, "python3 train.py \\\n  --lr 1\n  --seed 2 \\\n  --bf16\n")
    assert found.launches[0].arguments == ("--lr", "1", "--seed", "2", "--bf16")
    assert found.launches[0].joined


def test_nothing_of_a_script_is_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    text = f'touch {touched}\nA=$(touch {touched})\n`touch {touched}`\neval "touch {touched}"\ncat <(touch {touched})\n'
    followed(tmp_path, f'{text}echo x > {touched}\nif touch {touched}; then :; fi\npython3 train.py "$A"\n')
    assert not touched.exists()


@pytest.mark.parametrize(
    ("text", "told"),
    {
        "A=(1 2\npython3 train.py": "line 1: found no end of A=(; wanted words and a closing )",
        'A="1\n2': 'line 1: found the end of the file; wanted a closing "',
        "A='1": "line 1: found the end of the file; wanted a closing '",
        "A=${B": "wanted a closing }",
        "A=${%}": "wanted the name of a variable",
        "A=$(echo": "wanted a closing )",
        "if true; then\n": "found the end of the file behind `if` of line 1; wanted `fi`",
        "for x in a; do\n": "wanted `done`",
        "done": "line 1: found `done` without its beginning; wanted a command",
        "cat <<EOF\nx\n": "line 1: found no line 'EOF' behind here; wanted the end of the here-document",
        f"source {'x' * 5000}": "wanted the file that the script sources",
        "source missing.sh": "line 1: found no missing.sh at missing.sh; wanted the file that the script sources",
        "while true; do :; done": "found more than 20,000 commands",
        "f() { f; }; f": "found more than 25 calls in each other",
        "A=x" + '\nA="$A$A"' * 40: "a value of A above 1,000,000 characters",
        "( " * 200: "found more than 60 levels of nesting",
        "! " * 5000 + "true": "nested too deeply",
        "source launch.sh": "found files that source each other",
    }.items(),
)
def test_what_cannot_be_followed_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ScriptError) as error:
        followed(tmp_path, text)
    assert told in str(error.value)


SEED = """
set -ex
NUM=${NUM:-$(nvidia-smi -L | wc -l)}
if [ "$NUM" -gt 0 ] && [[ -n "${X:-}" ]]; then Y="a b"; else Y='c'; fi
for ((i=0; i<3; i++)); do arr+=($i); done
cat > "$F" <<EOF
x: ${Y}
EOF
case $Y in a*) Z=1;; *) Z=$((2 * 3));; esac
ARGS=(--lr 1e-6 # comment
  --name "${Y%.*}" ${arr[@]} `date`)
f() { echo "$1"; }
ray job submit --runtime-env-json="{\\"a\\": 1}" -- python3 train.py "${ARGS[@]}"
"""


def test_damaged_scripts_are_followed_or_refused_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(7)
    pieces = [
        "(",
        ")",
        "{",
        "}",
        '"',
        "'",
        "`",
        "$",
        "${",
        "$((",
        "))",
        "[[",
        "]]",
        "<<E",
        ";;",
        "\n",
        "\\",
        "\0",
        "&&",
        "|",
    ]
    for _ in range(400):
        text = SEED
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text))
            cut = chance.choice([0, 0, 1, 3, 20])
            text = text[:at] + chance.choice([*pieces, "", chance.choice(SEED.splitlines())]) + text[at + cut :]
        with contextlib.suppress(ScriptError):
            followed(tmp_path, text)
