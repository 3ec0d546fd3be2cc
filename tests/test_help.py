"""--help of every program: one page, with what a reader needs first."""

import re
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT, call

from ernie.argument_table import NAMES, TABLE

SCRIPTS = [f"{step}_{task}" for step in ("run", "compress") for task in ("seq_cls", "token_cls", "qa")]
KINDS = ("infer_*", "server_*", "client_*", "*_grpc_client", "prepare_*", "run_*")
FOLDERS = ("benchmarks/*.py", "examples/*.py", *(f"deploy/*/{kind}.py" for kind in KINDS))
PROGRAMS = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in ROOT.glob(folder))


def check(text, lines=60):
    assert text.startswith("usage: ") and len(text.splitlines()) <= lines
    assert "Traceback" not in text and "left out" not in text.lower() and "%%" not in text


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs(program, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    if "\nimport workarounds" in (ROOT / program).read_text(encoding="utf-8"):
        # Those that need Paddle run here, where it is imported already: that takes seconds each time.
        monkeypatch.setattr(sys, "argv", [program, "--help"])
        monkeypatch.syspath_prepend(ROOT / program.rpartition("/")[0])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / program), run_name="__main__")
        assert stopped.value.code == 0
        return check(capsys.readouterr().out)
    done = subprocess.run([sys.executable, program, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    check(done.stdout)
    assert " VALUE" not in done.stdout  # of which nobody knows what it may be


def printed(script, flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(script, flag)
    assert stopped.value.code == 0
    return capsys.readouterr().out


def flags_of(text):
    return set(re.findall(r"^  --(\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(script, capsys, monkeypatch):
    """Every argument that the script takes, and no other; those that are seldom needed by name alone."""
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(script, "--help", capsys)
    check(text, 65)
    assert text.count(f"\npython {script}.py ") == 2  # examples
    rows = [row for rows in TABLE.values() for row in rows if row.taken_by(f"{script}.py")]
    flags = {flag.removeprefix("no_") for flag in flags_of(text)}
    assert flags == {row.name for row in rows if row.help}
    named = set(re.findall(r"--(\w+)", text.partition("\nLess used")[2]))
    assert {name.removeprefix("no_") for name in named} == {row.name for row in rows if not row.help}
    reading = {"max_query_length", "n_best_size", "max_answer_length"}
    assert flags & reading == (reading if script.endswith("qa") else set())
    assert ("max_drop" in flags) == script.startswith("compress") == ("do_train" not in flags)
    assert "--no_group_by_length " in text and "--group_by_length " not in text


@pytest.mark.parametrize("language", ["", "_zh"])
def test_every_argument_is_described(language):
    """Those that --help only names, too."""
    files = [ROOT / f"configs/README{language}.md", ROOT / f"docs/compression{language}.md"]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    described = {name.removeprefix("no_") for row in re.findall(r"^\| (`--[^|]*)\|", text, re.M) for name in
                 re.findall(r"--(\w+)", row)}  # fmt: skip
    assert set(NAMES) <= described
