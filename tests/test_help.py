"""--help of every program: one page, with what a reader needs first; --help_all of the six scripts has the rest."""

import re
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT, call

from ernie.argument_parser import HELP
from ernie.arguments import CompressionArguments, DataArguments, ModelArguments

SCRIPTS = [f"{step}_{task}" for step in ("run", "compress") for task in ("seq_cls", "token_cls", "qa")]
KINDS = ("infer_*", "server_*", "client_*", "*_grpc_client", "prepare_*", "run_*")
FOLDERS = ("benchmarks/*.py", "examples/*.py", *(f"deploy/*/{kind}.py" for kind in KINDS))
PROGRAMS = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in ROOT.glob(folder))


def check(text):
    lines = text.splitlines()
    assert lines[0].startswith("usage: ") and len(lines) <= 60
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
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(script, "--help", capsys)
    check(text)
    assert text.count(f"\npython {script}.py ") == 2  # examples
    flags, everything = flags_of(text), flags_of(printed(script, "--help_all", capsys))
    assert flags < everything
    reading = {"max_query_length", "n_best_size", "max_answer_length"}
    assert (flags if script.endswith("qa") else everything) & reading == (reading if script.endswith("qa") else set())
    own = {*ModelArguments.__dataclass_fields__, *DataArguments.__dataclass_fields__} - reading - {"doc_stride"}
    if script.startswith("compress"):
        own -= {"export_model_dir"}
        assert {"strategy", "max_drop"} <= flags and not {"do_train", "do_export"} & everything
    assert own <= {flag.removeprefix("no_") for flag in flags}
    # What PaddleNLP itself says of these is not true here, or says less.
    assert HELP["do_export"] in text or script.startswith("compress")
    assert "infernece" not in text and "--no_group_by_length     turn off --group_by_length" in text


def test_corrected_help_texts_are_of_real_arguments():
    assert HELP.keys() <= set(CompressionArguments.__dataclass_fields__)
