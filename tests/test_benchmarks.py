"""Benchmarks on the smallest model: the tables say what the figures in JSON say, and what the engines compute."""

import concurrent.futures
import itertools
import re
import statistics
import sys
import types

import numpy as np
import pytest
from conftest import ROOT, call, read
from ernie_predictor import load_task
from ernie_predictor.data_files import read_dev_set
from ernie_predictor.machine import has_vnni

sys.path.insert(0, str(ROOT / "benchmarks"))


def tables_in(text):
    """Of Markdown: {first cell of a row: its other cells} of each table, the header included."""
    tables = []
    for line in f"\n{text}".splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if not set("".join(cells)) <= set("- "):
                tables[-1].append(cells)
        elif not tables or tables[-1]:
            tables.append([])
    tables = [table for table in tables if table]
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}
    return tables


def medians_of(rounds):
    return {name: statistics.median(times) for name, times in rounds.items()}


class Here(concurrent.futures.Executor):
    """Runs what it is given at once, in this process."""

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future


def test_predictor_speed(tmp_path, monkeypatch, capsys):
    import predictor_speed
    from paddlenlp.transformers import BertConfig

    # The same work, in this process and with less of BERT.
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", lambda *_: Here())
    monkeypatch.setattr(
        predictor_speed, "BertConfig", lambda **more: BertConfig(num_hidden_layers=1, hidden_size=24, **more)
    )
    output = tmp_path / "speed.json"
    call("predictor_speed", "--arch", "sample", "--datasets", "tnews", "--texts", 8, "--rounds", 2, "--output", output)
    text = output.with_suffix(".md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    whole, tokenizing, cpu = tables_in(text)
    figures = read(output)
    names = [row[0] for row in whole[1:]]
    assert names[2:] == ["predictor, FP32", "predictor, INT8", "predictor, width 0.75, FP32",
                         "predictor, width 0.75, INT8"]  # fmt: skip
    rounds = figures["seconds of each round"]["tnews"]
    assert list(rounds) == names and {len(times) for times in rounds.values()} == {2}
    for name, cell in whole[1:]:
        qps, middle, low, high = map(float, re.match(r"([\d.]+) \(([\d.]+)x, ([\d.]+) to ([\d.]+); ", cell).groups())
        assert qps == pytest.approx(figures["texts/s"]["tnews"][name], abs=0.06) and low <= middle <= high
        assert figures["texts/s"]["tnews"][name] == pytest.approx(8 / statistics.median(rounds[name]))
    assert len(tokenizing) >= 3
    assert [row[2] for row in cpu[1:]] == ["", "311.95 (1.0x)", "600.35 (1.9x)", "408.65 (1.3x)", "704.42 (2.3x)"]
    assert cpu[5][1].startswith(f"{figures['texts/s']['tnews'][names[5]]:.2f} (")


def test_peers(tmp_path, capsys):
    """With this environment as the peers': those that it lacks are named."""
    output = tmp_path / "peers.json"
    call("peers", "--arch", "sample", "--peers_python", sys.executable, "--shapes", "2x8", "1x16", "--rounds", 2,
         "--output", output)  # fmt: skip
    text = output.with_suffix(".md").read_text(encoding="utf-8")
    printed = capsys.readouterr()
    assert text in printed.out
    assert "not measured: transformers on PyTorch (" in printed.err
    milliseconds, ratios, verdicts = tables_in(text)
    rows = {(row["name"], row["precision"]): row for row in read(output)["seconds of each round"]}
    assert ("Paddle Inference (published)", "FP32") in rows
    assert {("ONNX Runtime, export", "FP32"), ("ONNX Runtime, export, quantize_dynamic", "INT8")} <= rows.keys()
    assert [tuple(row[:2]) for row in milliseconds[1:]] == [tuple(row[:2]) for row in ratios[1:]] == list(rows)
    for name, precision, *cells, error in milliseconds[1:]:
        for cell, shape in zip(cells, ("2x8", "1x16")):
            assert f"{1e3 * statistics.median(rows[name, precision][shape]):.1f}" in cell.replace("**", "")
        # Rounding in FP32; more where products are quantized.
        assert "width" in name or float(error.rstrip("%")) <= {"FP32": 0.01, "BF16": 5, "INT8": 15}[precision]
    for column in (2, 3):
        bold = [row[1] for row in milliseconds[1:] if row[column].startswith("**")]
        assert sorted(bold) == sorted({row[1] for row in milliseconds[1:]})
    assert ratios[1][2:] == ["1.00x (1.00 to 1.00)"] * 2
    assert all(row[0].startswith("This project, ") for row in verdicts[1:]) and len(verdicts) >= 5


def test_a_peer_that_is_faster_is_named():
    import peers

    paddle, slow, fast, ours = (peers.PADDLE, "FP32"), ("slow", "INT8"), ("fast", "INT8"), (peers.OURS, "INT8")
    times = {
        "1x8": {paddle: [4, 4], slow: [3, 3], fast: [1, 1], ours: [2, 2]},
        "2x8": {paddle: [4, 4], slow: [3, 3], fast: [1, 2], ours: [2, 1]},
        "4x8": {paddle: [4, 4], slow: [3, 3], fast: [2, 2], ours: [1, 1]},
    }
    args = types.SimpleNamespace(shapes=list(times), rounds=2)
    tables = peers.tables_of(args, times, dict.fromkeys(times["1x8"], 0), "about")
    milliseconds, _, verdicts = tables_in("\n\n".join(tables))
    assert verdicts[1][2:] == ["0.50x (0.50 to 0.50), **peer ahead**: fast", "1.25x (0.50 to 2.00), no clear "
                               "difference: fast", "2.00x (2.00 to 2.00): fast"]  # fmt: skip
    assert milliseconds[3][2] == "**1000.0** (1000.0 to 1000.0)" and milliseconds[4][4].startswith("**1000.0**")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peers_python", "/no/such/python"), "/no/such/python: no such program; `make peers` installs the peers"),
        (("--shapes", "32x"), "32x: expected BATCHxLENGTH, as 32x64"),
        (("--output", "peers.md"), "peers.md: expected a name that ends in .json"),
        (("--output", "/no/such/folder/peers.json"), "no folder /no/such/folder"),
    ],
)
def test_bad_arguments_of_peers(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        call("peers", *arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_int8_exactness(exported, quantized, capsys):
    """The engines as the predictor sets them are exact on any processor; the original is another file."""
    folders = ["--original", exported("tnews")[0], "--compressed", quantized]
    call("int8_exactness", *folders, "--dataset", "tnews", "--rounds", 1)
    *_, table = tables_in(capsys.readouterr().out)  # the fixtures print others
    rows = {name: cells for name, *cells in table[1:]}
    (taken,) = [name for name in rows if name.endswith("taken by auto")]
    assert taken.startswith("OpenVINO" if has_vnni() else "ONNX Runtime")
    assert len(rows) == 6 and rows["exactly"][3] == "0.0%" and rows["exactly"][5] == "0"
    assert rows["ONNX Runtime, FP32"][2] == "0.0%" and rows["ONNX Runtime, FP32"][4] == "0"
    for name, (_, score, to_fp32, to_exact, _, _) in rows.items():
        assert 0 <= float(score) <= 100
        if name not in ("ONNX Runtime, FP32", "exactly") and not name.endswith("alone"):
            assert 0 < float(to_fp32[:-1]) < 20 and float(to_exact[:-1]) < 3


def test_windows_of_doc_stride(exported):
    """benchmarks/doc_stride.py: even windows are as many and equally long; tokens are counted right."""
    import doc_stride

    folder, inputs, _ = exported("cmrc2018")
    items = sorted(inputs, key=lambda pair: -len(pair[1]))[:3] + inputs[:3]
    task = load_task(folder)
    tasks = doc_stride.layouts_of(task, [128, 512])
    for stride in (128, 512):
        published, even = (tasks[layout, stride] for layout in ("published", "even"))
        counts = [doc_stride.count_tokens(variant, items) for variant in (published, even)]
        assert counts[0][0] == counts[1][0] > 1
        for variant, count in zip((published, even), counts):
            _, notes = variant.tokenize([task.check(item) for item in items])
            pieces = [
                [range(first, first + place.stop - place.start) for first, place in places] for _, places in notes
            ]
            seen = [token for windows in pieces for window in windows for token in window]
            distinct = sum(len(set(itertools.chain(*windows))) for windows in pieces)
            assert distinct == sum(len(offsets) for offsets, _ in notes)
            assert count[1] == pytest.approx(1 - distinct / len(seen))
            if variant is even:
                lengths = [[len(window) for window in windows] for windows in pieces]
                assert all(max(row) - min(row) <= len(row) for row in lengths)
        assert counts[1][1] == pytest.approx(counts[0][1], abs=0.02)
    assert counts[0][1] == 0  # a stride as long as a window: no overlap


def test_doc_stride_measures(exported, tmp_path, capsys):
    folder, _, _ = exported("cmrc2018")
    output = tmp_path / "doc_stride.json"
    call("doc_stride", "--model_path", folder, "--precision_mode", "fp32", "--doc_stride", 128, "--questions", 2,
         "--rounds", 1, "--output", output)  # fmt: skip
    assert {len(found) for found in read(output)["seconds"].values()} == {1}
    text = output.with_suffix(".md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    (table,) = tables_in(text)
    assert [row[:2] for row in table[1:]] == [["128", "published"], ["128", "even"]]
    assert all(row[4].endswith("x)") for row in table[1:]) and table[1][4].endswith("(1.00x)")


def test_long_contexts_keep_their_answers():
    import doc_stride

    items, gold = read_dev_set("qa", ROOT / "examples" / "data", "cmrc2018")
    long = doc_stride.lengthened(items, seed=1)
    for (question, context), (same_question, before), answers in zip(long, items, gold):
        assert question == same_question and len(context) > len(before) + 300
        assert all(answer in context for answer in answers)


def test_paired_intervals():
    """The exact interval against its definition, and the bootstrap's, of F1, against the exact one where they meet."""
    from harness import paired
    from scipy.stats import binom

    generator = np.random.default_rng(0)
    theirs = (generator.random(400) < 0.6).astype(float)[:, None]
    ours = np.where(generator.random(400) < 0.1, 1 - theirs[:, 0], theirs[:, 0])[:, None]
    found = paired.compare(ours, theirs)
    better, worse = int((ours > theirs).sum()), int((ours < theirs).sum())
    assert (found["better"], found["worse"]) == (better, worse) and better + worse > 20
    assert found["change"] == pytest.approx(100 * (better - worse) / 400)
    low, high = ((found[end] * 4 / (better + worse) + 1) / 2 for end in ("low", "high"))
    assert binom.sf(better - 1, better + worse, low) == pytest.approx(0.025, abs=1e-6)
    assert binom.cdf(better, better + worse, high) == pytest.approx(0.025, abs=1e-6)
    # One entity in each sentence, always one found: F1 is the accuracy.
    as_entities = [np.stack([counts[:, 0], np.ones(400), np.ones(400)], axis=1) for counts in (ours, theirs)]
    drawn = paired.compare(*as_entities)
    assert drawn["change"] == pytest.approx(found["change"]) and (drawn["better"], drawn["worse"]) == (better, worse)
    assert [drawn["low"], drawn["high"]] == pytest.approx([found["low"], found["high"]], abs=1)
    assert paired.compare(theirs, theirs) == {"change": 0, "low": 0, "high": 0, "better": 0, "worse": 0}
