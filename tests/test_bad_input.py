"""What a user can get wrong: one message that names the thing, the contract's exit status, no traceback."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, SAMPLE_DATA, SCRIPT_OF, arguments_for, call, read

LABELLED = {"sentence": "好", "label": "100"}


def data_dir(tmp_path, dataset, **files):
    """A --data_dir with one data set: a copy of the sample's, with some files replaced."""
    folder = tmp_path / "data" / dataset
    shutil.copytree(SAMPLE_DATA / dataset, folder)
    for name, content in files.items():
        path = folder / f"{name}.{'tsv' if dataset == 'msra_ner' else 'json'}"
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / "data"


def expect(capsys, status, says, script, *arguments):
    """Runs a script that must end with this status and one message that says all of these."""
    with pytest.raises(SystemExit) as stopped:
        call(script, *arguments)
    lines = capsys.readouterr().err.strip().splitlines()
    message = "\n".join(lines[next(i for i, line in enumerate(lines) if line.startswith(f"{script}.py: error: ")) :])
    assert stopped.value.code == status, message
    assert "Traceback" not in message and len(message.splitlines()) <= 2
    for part in says:
        assert part in message


BAD_DATA = {
    "no file": ("tnews", {"train": None}, ["no file train.json in"]),
    "an empty file": ("tnews", {"train": ""}, ["train.json has no examples"]),
    "broken JSON on line 3": (
        "tnews",
        {"train": f'{json.dumps(LABELLED)}\n\n{{"sentence": \n'},
        ["line 3 is not JSON"],
    ),
    "a missing field": ("tnews", {"train": '{"label": "100"}\n'}, ["train.json line 1", "no field `sentence`"]),
    "a null text": ("tnews", {"dev": '{"sentence": null, "label": "100"}\n'}, ["dev.json line 1", "null"]),
    "a NaN text": ("tnews", {"dev": '{"sentence": NaN, "label": "100"}\n'}, ["dev.json line 1", "NaN"]),
    "an empty text": ("tnews", {"dev": '{"sentence": " ", "label": "100"}\n'}, ["dev.json line 1", "expected a text"]),
    "an unknown label": ("tnews", {"dev": '{"sentence": "好", "label": "999"}\n'}, ["dev.json line 1", "'999'"]),
    "no label": ("tnews", {"dev": '{"sentence": "好"}\n'}, ["dev.json line 1", "no field `label`"]),
    "half a surrogate pair": (
        "tnews",
        {"test": '{"sentence": "好\\ud83d"}\n'},
        ["test.json line 1", "half of a surrogate pair"],
    ),
    "ids that repeat": (
        "tnews",
        {"test": '{"sentence": "好", "id": 1}\n' * 2},
        ["test.json line 2", "test.json line 1"],
    ),
    "bytes that are no text": ("tnews", {"train": b"\xff\xfe\x00\x01"}, ["train.json line 1 is not UTF-8"]),
    "tags and tokens of two lengths": ("msra_ner", {"train": "北\x02京\tB-LOC\n"}, ["line 1", "2 tokens, but 1 tags"]),
    "an unknown tag": ("msra_ner", {"train": "北\tB-CITY\n"}, ["train.tsv line 1", "unknown label 'B-CITY'"]),
    "tokens without sentences": ("msra_ner", {"train": "北\tB-LOC\n京\tI-LOC\n"}, ["train.tsv line 1", "blank line"]),
    "no SQuAD file": ("cmrc2018", {"train": "[1]"}, ["train.json", "SQuAD's format"]),
    "no answers to train on": (
        "cmrc2018",
        {"train": '{"data": [{"paragraphs": [{"context": "好", "qas": [{"id": "Q7", "question": "?"}]}]}]}'},
        ["Q7", "no answers"],
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(case, tmp_path, tiny_model, capsys):
    dataset, files, says = BAD_DATA[case]
    arguments = arguments_for(
        *(dataset, tiny_model, tmp_path / "out", "--do_train", "--do_eval", "--do_predict"),
        data_dir=data_dir(tmp_path, dataset, **files),
    )
    expect(capsys, 1, says, SCRIPT_OF[dataset], *arguments)
    assert not list((tmp_path / "out").rglob("*.pdparams"))


ROWS = "".join(json.dumps({"sentence": text, "label": "a"}, ensure_ascii=False) + "\n" for text in "好坏高低")
NOTHING_TO_LEARN = {
    "one class": ("mood", {"train": ROWS}, [], 1, ["train.json has one class, 'a'"]),
    "no entity": ("people", {"train": "北\x02京\tO\x02O\n"}, [], 1, ["train.tsv has no entity"]),
    "no full batch": (
        "afqmc", {}, ["--dataloader_drop_last", "--per_device_train_batch_size", 5000], 2, ["--dataloader_drop_last"]
    ),
    "no full step": ("afqmc", {}, ["--num_train_epochs", 0.001], 2, ["--num_train_epochs 0.001 trains no step"]),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING_TO_LEARN)
def test_a_training_of_nothing_is_refused_before_the_model_is_loaded(case, tmp_path, tiny_model, capsys, caplog):
    dataset, files, more, status, says = NOTHING_TO_LEARN[case]
    script = "run_token_cls" if dataset == "people" else "run_seq_cls"
    suffix = "tsv" if dataset == "people" else "json"
    for name, content in files.items():
        path = tmp_path / "data" / dataset / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    data = tmp_path / "data" if files else SAMPLE_DATA
    arguments = arguments_for(dataset, tiny_model, tmp_path / "out", "--do_train", *more, data_dir=data)
    expect(capsys, status, says, script, *arguments)
    assert "million weights" not in caplog.text


def test_compression_of_fewer_rows_than_a_batch(tmp_path, tiny_fine_tuned, capsys):
    more = ["--strategy", "dynabert", "--dataloader_drop_last", "--per_device_train_batch_size", 5000]
    arguments = arguments_for("afqmc", tiny_fine_tuned("afqmc"), tmp_path, *more)
    expect(capsys, 2, ["--dataloader_drop_last drops the only batch"], "compress_seq_cls", *arguments)


def test_half_a_surrogate_pair(tmp_path, tiny_model, capsys):
    """Refused when it is read: it can't be written in the end."""
    row = '{"sentence1": "好\\ud83d", "sentence2": "好", "label": "0"}\n'
    for split, step in (("train", "--do_train"), ("dev", "--do_eval"), ("test", "--do_predict")):
        folder = data_dir(tmp_path / split, "afqmc", **{split: row})
        arguments = arguments_for("afqmc", tiny_model, tmp_path / "out", "--do_train", step, data_dir=folder)
        expect(capsys, 1, [f"{split}.json line 1", "surrogate"], "run_seq_cls", *arguments)


def test_no_data_dir(tmp_path, tiny_model, capsys):
    arguments = arguments_for("tnews", tiny_model, tmp_path, "--do_train", data_dir=tmp_path / "none")
    expect(capsys, 1, [f"--data_dir {tmp_path / 'none'} does not exist"], "run_seq_cls", *arguments)
    arguments = arguments_for("mine", tiny_model, tmp_path, "--do_train", data_dir=SAMPLE_DATA)
    expect(capsys, 1, ["no folder", "holds afqmc, cluewsc2020"], "run_seq_cls", *arguments)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--config", "none.yml"], ["--config none.yml: No such file"]),
        (["--max_seq_length", "9999"], ["--max_seq_length 9999", "takes up to 2048 tokens"]),
    ],
)
def test_bad_values(more, says, tmp_path, tiny_model, capsys):
    status = 1 if "--config" in more else 2
    expect(capsys, status, says, "run_seq_cls", *arguments_for("tnews", tiny_model, tmp_path, "--do_train", *more))


def test_usage_errors_have_status_2(tmp_path, tiny_model, capsys):
    config = tmp_path / "own.yml"
    config.write_text("DefaultArgs:\n  lerning_rate: 1\n")
    for more, says in (
        (["--learning-rate", "1"], ["unknown argument --learning-rate", "did you mean --learning_rate?"]),
        (["--config", config], [f"--config {config}", "did you mean learning_rate?"]),
        (["--dataset", "cmrc2018"], ["use run_qa.py"]),
        (["--device", "gpu:99"], ["--device gpu:99", "leave --device out"]),
    ):
        expect(capsys, 2, says, "run_seq_cls", *arguments_for("tnews", tiny_model, tmp_path, "--do_train", *more))


def test_missing_arguments():
    """As a process of its own, so that its whole output is seen."""
    done = subprocess.run([sys.executable, "run_qa.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the following arguments are required: --model_name_or_path, --dataset, --output_dir, as in" in done.stderr
    assert "python run_qa.py --model_name_or_path ernie-3.0-medium-zh --dataset cmrc2018" in done.stderr
    assert len(done.stderr.splitlines()) == 4
    assert "Traceback" not in done.stderr and "usage:" not in done.stderr


# ------------------------------------------------------------------------------------------------ models


def broken_model(tmp_path, model, remove=(), **replace):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    for name in remove:
        (folder / name).unlink()
    for name, content in replace.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("remove", "replace", "says"),
    [
        (["config.json"], {}, ["is no model folder", "it has no config.json"]),
        (["model_state.pdparams"], {}, ["has no weights"]),
        (["vocab.txt"], {}, ["vocab.txt does not exist"]),
        ([], {"config__json": "{"}, ["config.json is not JSON"]),
        ([], {"vocab__txt": "a\nb\n"}, ["vocab.txt is no ERNIE vocabulary"]),
        ([], {"model_state__pdparams": "cut short"}, ["can't be loaded"]),
    ],
)
def test_model_folders_without_their_parts(remove, replace, says, tmp_path, tiny_model, capsys):
    folder = broken_model(tmp_path, tiny_model, remove, **replace)
    expect(capsys, 1, says, "run_seq_cls", *arguments_for("tnews", folder, tmp_path / "out", "--do_train"))


def test_a_vocabulary_of_another_model(tmp_path, tiny_model, capsys):
    vocab = (tiny_model / "vocab.txt").read_text(encoding="utf-8") + "one\nmore\n"
    folder = broken_model(tmp_path, tiny_model, vocab__txt=vocab)
    says = ["the files are of different models"]
    expect(capsys, 1, says, "run_seq_cls", *arguments_for("tnews", folder, tmp_path / "out", "--do_train"))


def test_other_words_in_the_vocabulary(tmp_path, tiny_fine_tuned, capsys):
    """As many of them: the model would make no sense of them. A training learns them."""
    words = (tiny_fine_tuned("tnews") / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words[99], words[100] = words[100], words[99]
    folder = broken_model(tmp_path, tiny_fine_tuned("tnews"), vocab__txt="\n".join(words))
    says = ["its vocab.txt is not the one that the model was trained with"]
    expect(capsys, 1, says, "run_seq_cls", *arguments_for("tnews", folder, tmp_path / "out", "--do_eval"))
    more = ["--do_train", "--max_steps", 1, "--save_strategy", "no"]
    call("run_seq_cls", *arguments_for("tnews", folder, tmp_path / "out", *more))
    assert read(tmp_path / "out/tnews/config.json")["vocab_crc32"] != read(folder / "config.json")["vocab_crc32"]
    call("run_seq_cls", *arguments_for("tnews", tmp_path / "out/tnews", tmp_path / "out", "--do_eval"))


def test_a_folder_that_is_none(tmp_path, capsys):
    for name, says in (
        (tmp_path / "none", "no such folder"),
        ("examples/none", "no such folder"),  # a name of the hub may have a slash, but examples/ is here
        (SAMPLE_DATA / "tnews/dev.json", "is a file"),
    ):
        expect(capsys, 1, [says], "run_seq_cls", *arguments_for("tnews", name, tmp_path, "--do_train"))
    arguments = ["--model_name_or_path", tmp_path / "none", "--dataset", "tnews"]
    expect(capsys, 1, [f"{tmp_path / 'none'}: no such folder"], "compress_seq_cls", *arguments)
    # The model first: nothing is downloaded for one that is not there.
    expect(capsys, 1, ["no such folder"], "run_seq_cls", *arguments, "--output_dir", tmp_path, "--do_train")


def test_the_exported_folder_is_no_model_to_train(tmp_path, exported, capsys):
    folder = exported("tnews")[0]
    arguments = arguments_for("tnews", folder, tmp_path, "--do_predict")
    expect(capsys, 1, [f"{folder} has no weights", f"did you mean {folder.parent}?"], "run_seq_cls", *arguments)


def test_a_model_that_was_not_fine_tuned(tmp_path, tiny_model, capsys):
    says = ["was not fine-tuned for tnews: it is a ErnieModel", "Fine-tune it first"]
    for step in ("--do_predict", "--do_eval", "--do_export"):
        expect(capsys, 1, says, "run_seq_cls", *arguments_for("tnews", tiny_model, tmp_path, step))
    says = ["--model_name_or_path best: there is no such folder", "was not fine-tuned for tnews"]
    expect(capsys, 1, says, "run_seq_cls", *arguments_for("tnews", "best", tmp_path, "--do_predict"))
    # One's own data set, whose labels the model would have.
    own = data_dir(tmp_path, "tnews")
    (own / "tnews").rename(own / "mood")
    arguments = arguments_for("mood", tiny_model, tmp_path, "--do_eval", data_dir=own)
    expect(capsys, 1, ["was not fine-tuned for mood"], "run_seq_cls", *arguments)
    expect(capsys, 1, ["was not fine-tuned for mood"], "compress_seq_cls", *arguments[:-1], "--strategy", "ptq")


def test_a_home_that_can_not_be_written(tmp_path):
    for environment in ({"HOME": "/proc/nowhere"}, {"PPNLP_HOME": __file__}):
        environment = {key: value for key, value in os.environ.items() if key != "PPNLP_HOME"} | environment
        command = [sys.executable, "run_seq_cls.py", "--help"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("run_seq_cls.py: error: ") and "set PPNLP_HOME=DIR" in done.stderr
    # With that, all that Paddle and others write to the home goes there, too.
    environment = {**os.environ, "HOME": "/proc/nowhere", "PPNLP_HOME": str(tmp_path)}
    command = [sys.executable, "-c", "import workarounds, os; print(os.path.expanduser('~'))"]
    assert subprocess.check_output(command, cwd=ROOT, env=environment, text=True).strip() == str(tmp_path)


def test_a_data_sets_name_is_no_path(tmp_path, tiny_model, capsys):
    """It becomes part of files' names, and finds the data set's block, labels and leaderboard."""
    for name in ("sub/tnews", "../tnews", ".", "", "/"):
        arguments = arguments_for(name, tiny_model, tmp_path, "--do_train", "--do_predict")
        expect(capsys, 2, [f"--dataset {name}: expected the name of one folder"], "run_seq_cls", *arguments)


def test_no_network_for_a_hub_name(tmp_path, monkeypatch, tiny_model, capsys):
    """Every connection is refused: the name of a model and of a data set each give one message."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = arguments_for("tnews", "ernie-3.0-unheard-of-zh", tmp_path, "--do_train")
    expect(capsys, 1, ["ernie-3.0-unheard-of-zh", "the hub gave no tokenizer"], "run_seq_cls", *arguments)
    monkeypatch.setattr("paddlenlp.datasets.clue.DATA_HOME", str(tmp_path))
    more = ["--dataset", "afqmc", "--output_dir", tmp_path, "--do_train"]
    says = ["--model_name_or_path x", "hub gave no tokenizer", "DIR/afqmc/", "--data_dir DIR"]  # both, at once
    expect(capsys, 1, says, "run_seq_cls", "--model_name_or_path", "x", *more)
    says = ["afqmc could not be downloaded", "--data_dir DIR"]
    expect(capsys, 1, says, "run_seq_cls", "--model_name_or_path", tiny_model, *more)


def test_output_that_can_not_be_written(tmp_path, tiny_model, capsys):
    (tmp_path / "file").write_text("")
    arguments = arguments_for("tnews", tiny_model, tmp_path / "file" / "out", "--do_train")
    expect(capsys, 1, ["--output_dir", "can't be written"], "run_seq_cls", *arguments)
    arguments = arguments_for("tnews", tiny_model, tmp_path, "--do_export", "--export_model_dir", tmp_path / "file")
    expect(capsys, 1, ["--export_model_dir", "can't be written"], "run_seq_cls", *arguments)
    if os.geteuid() == 0:
        return  # nothing is read-only to root
    (tmp_path / "closed").mkdir(mode=0o500)
    arguments = arguments_for("tnews", tiny_model, tmp_path / "closed", "--do_train")
    expect(capsys, 1, ["can't be written"], "run_seq_cls", *arguments)


def test_checkpoints_that_can_not_be_resumed(tmp_path, tiny_model, capsys):
    """Found before the model is loaded; tests/test_train.py has those of another model."""
    (tmp_path / "empty").mkdir()
    for name, says in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "empty", "lacks model_state.pdparams, optimizer.pdopt"),
        ("True", "has no checkpoint"),
    ):
        arguments = arguments_for("afqmc", tiny_model, tmp_path, "--do_train", "--resume_from_checkpoint", name)
        expect(capsys, 1, [says], "run_seq_cls", *arguments)
