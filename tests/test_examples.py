"""The sample data: the same bytes wherever they are made, small, in the official formats, and learnable."""

import json
import subprocess
import sys

from conftest import ROOT, SAMPLE_DATA

from ernie.tasks import DATA_SETS, SEQ_CLS


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_script_makes_the_bytes_that_are_here(tmp_path):
    subprocess.run(
        [sys.executable, "examples/make_data.py", "--output_dir", str(tmp_path / "data")],
        cwd=ROOT,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    made, here = files(tmp_path / "data"), files(SAMPLE_DATA)
    assert made.keys() == here.keys() and len(here) == 26
    assert [name for name in here if made[name] != here[name]] == []
    assert sum(map(len, here.values())) < 2_000_000


def test_its_labels_are_the_official_ones():
    for dataset, data_set in DATA_SETS.items():
        if data_set.task is not SEQ_CLS:
            continue
        for split in ("train", "dev", "test"):
            rows = [json.loads(line) for line in (SAMPLE_DATA / dataset / f"{split}.json").open(encoding="utf-8")]
            assert all("label" not in row for row in rows) if split == "test" else True
            assert {row["label"] for row in rows if "label" in row} <= {*data_set.labels, "-"}


def test_no_text_stands_in_two_splits():
    for dataset in ("tnews", "iflytek", "msra_ner"):
        suffix = "tsv" if dataset == "msra_ner" else "json"
        splits = [set((SAMPLE_DATA / dataset / f"{s}.{suffix}").open(encoding="utf-8")) for s in ("train", "test")]
        assert not splits[0] & splits[1]


def test_the_model_is_made_with_one_line(tmp_path):
    """Without PaddleNLP's messages of each file, which begin the quickstart otherwise."""
    command = [sys.executable, "examples/make_model.py", "--output_dir", str(tmp_path / "model")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path}/model: sample, 0.7 million weights, at random\n" and not done.stderr
