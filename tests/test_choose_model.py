"""benchmarks/choose_model.py: what it measures, keeps and answers; and the pictures of its figures."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from conftest import ROOT, read

sys.path.insert(0, str(ROOT / "benchmarks"))
import choose_model
from choose_model import ARCHITECTURES, MODELS, candidates

SPEED_UP = {"fp32": 1, "int8": 3, "pruned_int8": 4}


def run(*arguments, program="benchmarks/choose_model.py"):
    return subprocess.run([sys.executable, program, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def milliseconds(architecture, precision, batch_size, threads):
    """Figures that stand in for measured ones: in proportion to the weights."""
    layers, width, _, _ = ARCHITECTURES[architecture]
    return layers * width**2 * batch_size / threads / SPEED_UP[precision] / 1e5


@pytest.fixture
def kept(tmp_path):
    """A file of figures of this machine."""
    cells = {}
    for key in ((a, p, b, t) for a in ARCHITECTURES for p in SPEED_UP for b in (1, 32) for t in (1, 2)):
        cells[key] = {"median": milliseconds(*key), "min": 0, "max": 1, "calls": 1}
    choose_model.write_cells(tmp_path / "choose_model.json", cells)
    return tmp_path / "choose_model.json"


def test_the_readme_has_the_same_scores_and_sizes():
    rows = re.findall(
        r"^\| `(ernie-3.0-\S+)` .*?\| (\d+) M \| ([\d.]+) \|", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    models = {(model.name, str(model.parameters), f"{model.average:.2f}") for model in MODELS}
    assert len(rows) == 5 and set(rows) <= models


def test_measures_once_and_then_answers_from_what_is_kept(tmp_path):
    """The smallest model of all, made, pruned, quantized and timed."""
    results = tmp_path / "results" / "choose_model.json"
    name = "uer/chinese-roberta-tiny"
    flags = ("--results", results, "--models", name, "--precision", "pruned_int8", "--batch_size", 1, "--threads", 1)
    done = run(*flags, "--rounds", 1)
    assert done.returncode == 0, done.stderr
    (row,) = read(results)["latencies"]
    figures = row.pop("milliseconds")
    assert row == {"architecture": "2L128H", "precision": "pruned_int8", "batch_size": 1, "threads": 1}
    assert 0 < figures["min"] <= figures["median"] <= figures["max"] and figures["calls"] >= 1
    table = results.with_suffix(".md").read_text(encoding="utf-8")
    assert (
        done.stdout == table + "\n"
        and f"| `{name}` | 2L128H | 3 M | 44.45 | {choose_model.show(figures['median'])} |" in table
    )
    before = results.stat()
    done = run(*flags, "--max_latency_ms", 10_000)
    assert done.stdout.startswith(
        f"Take {name} (pruned to 75%, INT8): {choose_model.show(figures['median'])} ms, limit 10000 ms.\n"
    )
    assert done.returncode == 0 and results.stat() == before and done.stderr == ""


@pytest.mark.parametrize("precisions", [list(SPEED_UP), ["fp32"], ["int8"]], ids=",".join)
def test_names_the_best_model_that_fits(kept, precisions, capsys, monkeypatch):
    """At every limit, by trying all ERNIE models in all precisions."""
    ernie = [model for model in MODELS if model.name.startswith("ernie-")]
    times = {(m, p): milliseconds(m.architecture, p, 32, 2) for m in ernie for p in precisions}
    for limit in (min(times.values()), *sorted(times.values())[::4], 1e9):
        flags = ["--results", kept, "--max_latency_ms", limit, "--batch_size", 32, "--threads", 2]
        monkeypatch.setattr(sys, "argv", ["choose_model.py", *map(str, flags), "--precision", *precisions])
        with pytest.raises(SystemExit) as stopped:
            choose_model.main()
        output = capsys.readouterr().out
        best = max((m for (m, _), took in times.items() if took <= limit), key=lambda model: model.average)
        fits = [p for p in precisions if times[best, p] <= limit]
        # FP32 loses nothing, and with pruning INT8 lost less than alone.
        name = {"fp32": "FP32", "pruned_int8": "pruned to 75%, INT8", "int8": "INT8"}
        form = next(name[p] for p in name if p in fits)
        assert output.startswith(f"Take {best.name} ({form}): ") and stopped.value.code == 0
        # With its neighbours, from the best to the fastest.
        averages = [float(average) for average in re.findall(r"M \| (\d+\.\d+) \|", output)]
        assert averages == sorted(averages, reverse=True) and best.average in averages and 2 <= len(averages) <= 5


def test_says_that_none_fits_and_measures_nothing_that_is_surely_too_slow(kept):
    content = read(kept)
    content["latencies"] = [row for row in content["latencies"] if row["architecture"] == "4L312H"]
    kept.write_text(json.dumps(content), encoding="utf-8")
    done = run("--results", kept, "--max_latency_ms", 0.01, "--threads", 2)
    assert done.returncode == 1 and done.stdout.startswith("No model fits into 0.01 ms. The fastest is ernie-3.0-nano-")
    skipped = re.search("not measured, since smaller ones take longer: (.+)", done.stderr)[1].split(", ")
    assert {*skipped, "4L312H"} == {m.architecture for m in candidates(MODELS) if m.family.startswith("ERNIE")}
    assert "| over 0.01 |" in done.stdout


def test_figures_of_another_machine_are_not_taken(kept, capsys):
    assert len(choose_model.read_cells(kept)) == len(ARCHITECTURES) * 12
    content = read(kept)
    content["machine"]["cores"] = 99
    kept.write_text(json.dumps(content), encoding="utf-8")
    assert choose_model.read_cells(kept) == {}
    assert "is of another machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_latency_ms", "0"], "0: expected a number of milliseconds above 0"),
        (["--max_latency_ms", "9", "--threads", "1", "2"], "takes one --batch_size and one number of --threads"),
        (["--models", "ernie-4"], "ernie-4: expected one of ernie-1.0-large-zh-cw, "),
    ],
)
def test_wrong_flags(flags, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["choose_model.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        choose_model.main()
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_broken_file_is_named(kept, capsys):
    kept.write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        choose_model.read_cells(kept)
    assert stopped.value.code == 1 and f"{kept} is not what this program writes" in capsys.readouterr().err


def test_the_picture_has_every_model_in_both_languages(kept, tmp_path):
    content = read(kept)
    content["latencies"] = [
        row
        for row in content["latencies"]
        if (row["precision"], row["batch_size"], row["threads"]) == ("pruned_int8", 32, 2)
    ]
    kept.write_text(json.dumps(content), encoding="utf-8")
    done = run("--results", kept.parent, "--output_dir", tmp_path / "images", program="benchmarks/pictures.py")
    assert done.returncode == 0 and "no figures of fp32: no choose_model_fp32_zh.svg" in done.stderr
    for language, words in (("", "batch size 32, threads: 2"), ("_zh", "batch size 32，线程数 2")):
        path = tmp_path / "images" / f"choose_model_pruned_int8{language}.svg"
        root = ElementTree.parse(path).getroot()
        texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert words in texts
        for model in MODELS:
            same = sum(f"{other.parameters}M" == f"{model.parameters}M" for other in MODELS)
            assert sum(bool(re.search(rf"\b{model.parameters}M", text)) for text in texts) == same
        for name in ("Xbase", "Base", "Medium", "Mini", "Micro", "Nano"):
            assert sum(text.startswith(f"{name} ") for text in texts) == 1
        assert any("0.43" in text for text in texts)  # what compression cost
    assert len(list((tmp_path / "images").iterdir())) == 2
