"""The whole way on sample data: every scenario learns, evaluates, predicts, exports, and answers alike by
every route."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import onnxruntime
import paddle
import pytest
from conftest import PREDICTOR, ROOT, SAMPLE_DATA, SCRIPT_OF, answer_of, arguments_for, assert_same, call, read, start
from paddlenlp.transformers import AutoModel

from ernie.arguments import CompressionArguments, DataArguments, ModelArguments, parse_arguments
from ernie.compression import ONLY_FOR
from ernie.data import load_splits
from ernie.errors import UserError
from ernie.features import make_features
from ernie.files import write_json
from ernie.identity import CHOOSING, CODE, DEV_DATA, NO_EFFECT, TRAINING_DATA, content_hashes, differences, identity
from ernie.models import load_model, load_task
from ernie.processes import alone_in
from ernie.tasks import DATA_SETS, SEQ_CLS, TASKS
from ernie.training import ErnieTrainer, since_resumed

# Dev scores that show that the sample model learnt, and how far a trivial answer gets.
LEARNT = {"tnews": 0.90, "msra_ner": 0.90, "cmrc2018": 0.60}


@pytest.fixture(params=LEARNT)
def quickstart(request, run_quickstart):
    """(data set, output folder, what `make quickstart` printed)."""
    return run_quickstart(request.param)


@pytest.mark.slow
def test_quickstart_learns_and_says_so(quickstart):
    dataset, folder, output = quickstart
    metrics = read(folder / dataset / "export" / "metrics.json")
    score = metrics[DATA_SETS[dataset].task.score]
    (baseline,) = metrics["baseline"].values()
    assert score >= LEARNT[dataset]
    assert score > baseline + 0.3
    assert metrics["num_examples"] >= 100 and metrics["dataset"] == dataset
    assert f"{100 * score:.1f}" in output and f"{100 * baseline:.1f}" in output
    assert "Next:" in output or dataset != "tnews"


@pytest.mark.slow
def test_quickstart_answers_as_do_predict(quickstart):
    """infer_cpu.py, without Paddle, gives test_results.json's answers."""
    dataset, folder, _ = quickstart
    results = read(folder / dataset / "test_results.json")
    if dataset == "cmrc2018":
        articles = read(SAMPLE_DATA / "cmrc2018" / "test.json")["data"]
        lines = [f"{qa['question']}\t{p['context']}" for a in articles for p in a["paragraphs"] for qa in p["qas"]]
    else:
        lines = [r["text"] for r in results]
    command = [sys.executable, PREDICTOR / "infer_cpu.py", "--model_path", folder / dataset / "export", "--input", "-"]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True)
    assert_same([json.loads(line) for line in done.stdout.splitlines()], [answer_of(r) for r in results])


@pytest.mark.slow
def test_the_exported_folder_is_what_the_contract_says(quickstart):
    dataset, folder, _ = quickstart
    export = folder / dataset / "export"
    names = {"model.pdmodel", "model.pdiparams", "model.onnx", "config.json", "vocab.txt", "metrics.json"}
    assert names | {"tokenizer_config.json"} <= set(os.listdir(export))
    config, tokenizer_config = read(export / "config.json"), read(export / "tokenizer_config.json")
    assert tokenizer_config["model_max_length"] == (160 if dataset == "cmrc2018" else 128)
    task = {"msra_ner": "ErnieForTokenClassification", "cmrc2018": "ErnieForQuestionAnswering"}
    assert config["architectures"] == [task.get(dataset, "ErnieForSequenceClassification")]
    session = onnxruntime.InferenceSession(export / "model.onnx", providers=["CPUExecutionProvider"])
    assert {i.name: (i.type, i.shape) for i in session.get_inputs()} == {
        name: ("tensor(int64)", ["batch", "length"]) for name in ("input_ids", "token_type_ids")
    }
    shapes = {
        "tnews": {"logits": ["batch", 15]},
        "msra_ner": {"logits": ["batch", "length", 7]},
        "cmrc2018": {"start_logits": ["batch", "length"], "end_logits": ["batch", "length"]},
    }
    assert {o.name: o.shape for o in session.get_outputs()} == shapes[dataset]
    assert all(o.type == "tensor(float)" for o in session.get_outputs())
    if dataset == "tnews":
        assert config["id2label"]["0"] == "100" and config["id2label"]["14"] == "116"
    if dataset == "msra_ner":
        assert config["id2label"]["6"] == "O"
    assert not [name for name in os.listdir(folder / dataset) if name.endswith(".part")]


@pytest.mark.slow
def test_predictions_and_the_leaderboards_file(quickstart):
    dataset, folder, _ = quickstart
    results = read(folder / dataset / "test_results.json")
    if dataset == "tnews":
        lines = (folder / dataset / "tnews11_predict.json").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        test_rows = [json.loads(line) for line in (SAMPLE_DATA / "tnews/test.json").open(encoding="utf-8")]
        assert [r["id"] for r in rows] == [r["id"] for r in test_rows]
        assert [r["label"] for r in rows] == [r["label"] for r in results]
        assert {r["label"] for r in rows} <= {str(i) for i in range(100, 117)}
    elif dataset == "cmrc2018":
        assert read(folder / dataset / "cmrc2018_predict.json") == {r["id"]: r["answer"] for r in results}
        contexts = {
            qa["id"]: p["context"]
            for a in read(SAMPLE_DATA / "cmrc2018/test.json")["data"]
            for p in a["paragraphs"]
            for qa in p["qas"]
        }
        for result in results:
            assert contexts[result["id"]][result["start"] : result["end"]] == result["answer"]
    else:
        lines = (folder / dataset / "msra_ner_predict.tsv").read_text(encoding="utf-8").splitlines()
        given = (SAMPLE_DATA / "msra_ner/test.tsv").read_text(encoding="utf-8").split("\n")
        for line, row, result in zip(lines, given, results):
            assert line.split("\t")[0] == row.split("\t")[0]
            assert line.count("B-") == len(result["entities"])
            assert all(result["text"][e["start"] : e["end"]] == e["entity"] for e in result["entities"])


@pytest.mark.parametrize("dataset", DATA_SETS)
def test_every_data_set_goes_the_whole_way(dataset, tmp_path, tiny_model):
    """A few steps, then a second process's worth of commands on what they wrote."""
    script = SCRIPT_OF[dataset]
    more = ["--do_train", "--do_eval", "--max_steps", 2, "--save_step=2"]  # abbreviated as PaddleNLP's own commands
    call(script, *arguments_for(dataset, tiny_model, tmp_path, *more))
    model = tmp_path / dataset
    before = read(model / "metrics.json")
    call(script, *arguments_for(dataset, model, tmp_path / "second", "--do_eval", "--do_predict", "--do_export"))
    assert read(tmp_path / "second" / dataset / "export" / "metrics.json") == before
    assert (tmp_path / "second" / dataset / "test_results.json").exists()
    assert list((tmp_path / "second" / dataset).glob("*_predict.*"))


def test_an_own_data_set_under_a_name_of_its_own(tmp_path, sample_model):
    folder = tmp_path / "data" / "mood"
    folder.mkdir(parents=True)
    rows = [{"sentence": f"今天{'真好' if i % 2 else '不好'}", "label": "喜" if i % 2 else "悲"} for i in range(40)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for split in ("train", "dev", "test"):
        (folder / f"{split}.json").write_text(lines, encoding="utf-8")
    more = ["--max_steps", 30, "--do_train", "--do_eval", "--do_predict", "--do_export"]
    call("run_seq_cls", *arguments_for("mood", sample_model, tmp_path, *more, data_dir=tmp_path / "data"))
    labels = sorted(["喜", "悲"])
    assert read(tmp_path / "mood/export/config.json")["id2label"] == {"0": labels[0], "1": labels[1]}
    results = read(tmp_path / "mood" / "test_results.json")
    assert [r["label"] for r in results] == [row["label"] for row in rows]
    # The fine-tuned folder knows its labels without the training file.
    more = ["--do_predict", "--output_dir", tmp_path / "again"]
    call("run_seq_cls", *arguments_for("mood", tmp_path / "mood", tmp_path, *more, data_dir=tmp_path / "data"))
    assert [r["label"] for r in read(tmp_path / "again/mood/test_results.json")] == [row["label"] for row in rows]


def test_the_batch_size_that_trains(tmp_path, tiny_model, caplog):
    def trained_with(*more):
        caplog.clear()
        call("run_seq_cls", *arguments_for("tnews", tiny_model, tmp_path, "--do_train", "--max_steps", 1, *more))
        return int(re.search(r"steps of (\d+) inputs", caplog.text)[1])

    assert trained_with("--overwrite_output_dir") == 16  # the YAML file's
    assert trained_with("--per_device_train_batch_size", 7, "--overwrite_output_dir") == 7


def test_the_slow_tokenizer_trains_the_same_model(tmp_path, tiny_model):
    for name, fast in (("fast", "true"), ("slow", "false")):
        arguments = arguments_for("afqmc", tiny_model, tmp_path / name, "--do_train", "--max_steps", 3)
        call("run_seq_cls", *arguments, "--use_fast_tokenizer", fast, "--do_predict")
    fast, slow = (read(tmp_path / name / "afqmc/test_results.json") for name in ("fast", "slow"))
    np.testing.assert_allclose([r["confidence"] for r in fast], [r["confidence"] for r in slow], atol=1e-5)


@pytest.mark.parametrize("dataset", ["afqmc", "msra_ner", "cmrc2018"])
def test_worker_processes_that_load_data_change_nothing(dataset, tmp_path, tiny_model):
    """In training, evaluation and prediction, where --dataloader_drop_last drops nothing."""
    found = []
    for workers in (0, 1, 2):
        folder = tmp_path / str(workers)
        more = ["--do_train", "--do_eval", "--do_predict", "--max_steps", 3, "--dataloader_drop_last"]
        arguments = arguments_for(dataset, tiny_model, folder, *more, "--dataloader_num_workers", workers)
        call(SCRIPT_OF[dataset], *arguments)
        names = ("model_state.pdparams", "metrics.json", "test_results.json")
        found.append([(folder / dataset / name).read_bytes() for name in names])
    assert found[0] == found[1] == found[2]


def test_evaluation_strategy_no_scores_once(tmp_path, tiny_model, caplog):
    more = ["--do_train", "--do_eval", "--max_steps", 4, "--save_steps", 2, "--evaluation_strategy", "no", "--verbose"]
    call("run_seq_cls", *arguments_for("afqmc", tiny_model, tmp_path, *more))
    assert caplog.text.count("***** Running Evaluation *****") == 1
    assert read(tmp_path / "afqmc/metrics.json")["accuracy"] > 0


# -------------------------------------------------------------------------------------- killed and resumed


def train_arguments(model, folder):
    return [
        *arguments_for("afqmc", model, folder, "--do_train", "--do_eval", "--save_steps", 10, "--logging_steps", 5),
        *("--num_train_epochs", 3, "--save_total_limit", 1),
    ]


def checkpoints(folder):
    return {p.parent.name for p in folder.glob("afqmc/checkpoint-*/complete.json")}


def test_killed_training_resumes_and_ends_with_the_same_score(tmp_path, tiny_model, caplog):
    process = start("run_seq_cls.py", *train_arguments(tiny_model, tmp_path / "killed"))
    deadline = time.time() + 600
    while "checkpoint-20" not in checkpoints(tmp_path / "killed"):
        assert process.poll() is None and time.time() < deadline, process.stdout.read()[-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/afqmc/model_state.pdparams").exists()
    # What a kill in the middle of writing leaves must not be taken for a checkpoint; what others wrote stays.
    for step, mark in ((998, "ernie.json"), (999, "model_state.pdparams")):
        (tmp_path / f"killed/afqmc/checkpoint-{step}").mkdir()
        (tmp_path / f"killed/afqmc/checkpoint-{step}" / mark).write_text("")

    call("run_seq_cls", *train_arguments(tiny_model, tmp_path / "killed"))
    step = int(re.search(r"epochs, from step (\d+)", caplog.text)[1])
    assert step >= 20
    assert "left alone, since this project did not write them" in caplog.text
    assert not (tmp_path / "killed/afqmc/checkpoint-998").exists()
    assert os.listdir(tmp_path / "killed/afqmc/checkpoint-999") == ["model_state.pdparams"]
    call("run_seq_cls", *train_arguments(tiny_model, tmp_path / "whole"))
    a, b = (read(tmp_path / name / "afqmc/metrics.json")["accuracy"] for name in ("killed", "whole"))
    assert a == pytest.approx(b, abs=0.02)
    # One step is the last, one the best: save_total_limit leaves no more.
    assert len(checkpoints(tmp_path / "killed")) <= 2

    # The same command again trains nothing.
    weights = (tmp_path / "killed/afqmc/model_state.pdparams").read_bytes()
    last = max(int(name.split("-")[1]) for name in checkpoints(tmp_path / "killed"))
    caplog.clear()
    call("run_seq_cls", *train_arguments(tiny_model, tmp_path / "killed"))
    assert f"epochs, from step {last};" in caplog.text
    assert (tmp_path / "killed/afqmc/model_state.pdparams").read_bytes() == weights


@pytest.fixture
def own_data(tmp_path):
    """A copy of some of the sample's AFQMC, to be changed."""
    shutil.copytree(SAMPLE_DATA / "afqmc", tmp_path / "data" / "afqmc")
    train = tmp_path / "data/afqmc/train.json"
    train.write_text("".join(train.read_text(encoding="utf-8").splitlines(keepends=True)[:64]), encoding="utf-8")
    return tmp_path / "data"


def change_rows(path, change):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = (json.dumps(change(row), ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def other_vocabulary(model):
    lines = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (model / "vocab.txt").write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]), encoding="utf-8")


CHANGES = {
    "texts": (
        "the training data",
        lambda data, model: change_rows(
            data / "afqmc/train.json", lambda row: {**row, "sentence1": row["sentence1"][::-1]}
        ),
    ),
    "labels": (
        "the training data",
        lambda data, model: change_rows(
            data / "afqmc/train.json", lambda row: {**row, "label": str(1 - int(row["label"]))}
        ),
    ),
    "dev labels": (
        "the dev data",
        lambda data, model: change_rows(
            data / "afqmc/dev.json", lambda row: {**row, "label": str(1 - int(row["label"]))}
        ),
    ),
    "vocabulary": ("the vocabulary", lambda data, model: other_vocabulary(model)),
    "weights": (
        "the model's weights",
        lambda data, model: shutil.copy(model.parent / "other" / "model_state.pdparams", model),
    ),
}


@pytest.mark.parametrize("what, change", CHANGES.values(), ids=CHANGES)
def test_changed_content_is_never_taken_for_the_same_training(
    what, change, tmp_path, tiny_model, own_data, capsys, caplog
):
    """Finished: trained again. Unfinished: refused, with what changed by name."""
    paddle.seed(7)
    shutil.copytree(tiny_model, tmp_path / "model")
    other = AutoModel.from_pretrained(str(tiny_model))
    for parameter in other.parameters():
        parameter.set_value(parameter * 1.5)
    other.save_pretrained(str(tmp_path / "other"))
    arguments = arguments_for(
        "afqmc", tmp_path / "model", tmp_path / "out", "--do_train", "--do_eval", data_dir=own_data
    )
    arguments += ["--max_steps", 4]
    call("run_seq_cls", *arguments)
    before = (tmp_path / "out/afqmc/model_state.pdparams").read_bytes()
    change(own_data, tmp_path / "model")

    complete = tmp_path / "out/afqmc/checkpoint-4/complete.json"
    complete.write_text(json.dumps({**read(complete), "finished": False}))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        call("run_seq_cls", *arguments)
    assert stopped.value.code == 1
    assert f"belongs to an unfinished training; since then {what} changed" in capsys.readouterr().err
    assert (tmp_path / "out/afqmc/model_state.pdparams").read_bytes() == before

    complete.write_text(json.dumps({**read(complete), "finished": True}))
    call("run_seq_cls", *arguments)
    assert re.search(f"changed     {what}, since .* finished: training again", caplog.text)
    if what not in ("the dev data", "the vocabulary"):
        assert (tmp_path / "out/afqmc/model_state.pdparams").read_bytes() != before
    # The same weights and data under other paths are the same training.
    shutil.copytree(tmp_path / "model", tmp_path / "moved")
    shutil.copytree(own_data, tmp_path / "the data in line 1")
    caplog.clear()
    moved = ["--model_name_or_path", tmp_path / "moved", "--data_dir", tmp_path / "the data in line 1"]
    call("run_seq_cls", *arguments, *moved)
    assert "epochs, from step 4;" in caplog.text


def test_a_checkpoint_of_another_program_is_never_replaced(tmp_path, tiny_model, capsys):
    foreign = tmp_path / "afqmc/checkpoint-8"
    foreign.mkdir(parents=True)
    (foreign / "model_state.pdparams").write_text("theirs")
    with pytest.raises(SystemExit) as stopped:
        call("run_seq_cls", *train_arguments(tiny_model, tmp_path), "--max_steps", 10)
    assert stopped.value.code == 1
    assert "checkpoint-8 was not written by this project" in capsys.readouterr().err
    # Out of this training's reach it does not matter, and --overwrite_output_dir does not concern it.
    call("run_seq_cls", *train_arguments(tiny_model, tmp_path), "--max_steps", 5, "--overwrite_output_dir")
    assert (foreign / "model_state.pdparams").read_text() == "theirs"


def test_the_end_is_scored_and_saved_once(tmp_path, tiny_model, monkeypatch):
    saved = []
    monkeypatch.setattr(
        ErnieTrainer, "_rotate_checkpoints", lambda self, **_: saved.append(self.state.global_step), raising=True
    )
    more = ("--save_strategy", "epoch", "--num_train_epochs", 2)
    call("run_seq_cls", *train_arguments(tiny_model, tmp_path), *more)
    assert len(saved) == 2
    state = read(tmp_path / f"afqmc/checkpoint-{saved[-1]}/trainer_state.json")
    assert [log["step"] for log in state["log_history"] if "eval_accuracy" in log] == saved


def test_other_settings_never_mix_with_an_unfinished_training(tmp_path, tiny_model, capsys):
    call("run_seq_cls", *train_arguments(tiny_model, tmp_path), "--max_steps", 10)
    complete = tmp_path / "afqmc/checkpoint-10/complete.json"
    assert read(complete)["finished"]
    # A finished training is replaced by one with other settings: the best step, if it is not the last, is its own.
    (tmp_path / "afqmc/checkpoint-10/of_the_first").write_text("")
    call("run_seq_cls", *train_arguments(tiny_model, tmp_path), "--max_steps", 12)
    assert "checkpoint-12" in checkpoints(tmp_path)
    assert not (tmp_path / "afqmc/checkpoint-10/of_the_first").exists()
    for path in (tmp_path / "afqmc").glob("checkpoint-*/complete.json"):
        path.write_text(json.dumps({**read(path), "finished": False}))
    with pytest.raises(SystemExit) as stopped:
        call("run_seq_cls", *train_arguments(tiny_model, tmp_path), "--max_steps", 12, "--learning_rate", 0.5)
    assert stopped.value.code == 1
    assert "unfinished training with learning_rate 0.001 (now 0.5)" in capsys.readouterr().err
    assert "checkpoint-12" in checkpoints(tmp_path)
    more = ["--max_steps", 12, "--learning_rate", 0.5, "--overwrite_output_dir"]
    call("run_seq_cls", *train_arguments(tiny_model, tmp_path), *more)
    assert read(tmp_path / "afqmc/checkpoint-12/complete.json")["learning_rate"] == 0.5


def test_the_best_checkpoint_outlives_the_others(tmp_path, tiny_model, monkeypatch):
    """Also where --output_dir begins with "./", as the published commands have it."""
    monkeypatch.chdir(tmp_path)
    more = ["--output_dir", "./out", "--save_steps", 4, "--max_steps", 30, "--learning_rate", 0.02]
    call("run_seq_cls", *train_arguments(tiny_model, "unused"), *more)
    (last,) = (p for p in tmp_path.glob("out/afqmc/checkpoint-30/trainer_state.json"))
    state = read(last)
    scores = {log["step"]: log["eval_accuracy"] for log in state["log_history"] if "eval_accuracy" in log}
    best = state["best_model_checkpoint"]
    assert len(scores) == 8 and scores[int(best.split("-")[1])] == max(scores.values())
    assert {p.name for p in tmp_path.glob("out/afqmc/checkpoint-*")} == {best, "checkpoint-30"}
    assert read(tmp_path / "out/afqmc/metrics.json")["accuracy"] == max(scores.values())


def resume(model, folder, *more, checkpoint="True"):
    more = ["--do_train", "--save_steps", 2, "--resume_from_checkpoint", checkpoint, *more]
    call("run_seq_cls", *arguments_for("afqmc", model, folder, *more))


def test_resume_from_checkpoint_true_takes_the_last(tmp_path, tiny_model, caplog, capsys, own_data):
    """As with Hugging Face: options may differ (a longer training), the data may not."""
    arguments = arguments_for("afqmc", tiny_model, tmp_path, "--do_train", "--save_steps", 2, "--max_steps", 3)
    call("run_seq_cls", *arguments)
    whole = (tmp_path / "afqmc/model_state.pdparams").read_bytes()
    # Finished within an epoch: the same command trains no step more, whichever way it is said.
    call("run_seq_cls", *arguments)
    resume(tiny_model, tmp_path, "--max_steps", 3, checkpoint="true")
    assert caplog.text.count("epochs, from step 3;") == 2
    assert (tmp_path / "afqmc/model_state.pdparams").read_bytes() == whole
    resume(tiny_model, tmp_path, "--max_steps", 5, "--save_total_limit", 9)
    assert checkpoints(tmp_path) == {"checkpoint-3", "checkpoint-4", "checkpoint-5"}
    with pytest.raises(SystemExit) as stopped:
        resume(tiny_model, tmp_path, "--max_steps", 5, "--data_dir", own_data)
    assert stopped.value.code == 1 and "since then the training data changed" in capsys.readouterr().err
    # Of another release, which wrote down something else, it can't be told.
    complete = tmp_path / "afqmc/checkpoint-5/complete.json"
    write_json(complete, {**read(complete), CODE: 0})
    resume(tiny_model, tmp_path, "--max_steps", 5, "--data_dir", own_data)
    assert "checkpoint-5 is of another release: whether its data are these can't be told" in caplog.text
    # A folder: what is trained from it outlives the checkpoints of later steps, not the other way round.
    resume(tiny_model, tmp_path, "--max_steps", 4, "--save_total_limit", 1, checkpoint=tmp_path / "afqmc/checkpoint-3")
    assert checkpoints(tmp_path) == {"checkpoint-4"}


def test_a_checkpoint_of_another_model_is_refused(tmp_path, tiny_model, sample_model, capsys):
    call("run_seq_cls", *arguments_for("afqmc", tiny_model, tmp_path, "--do_train", "--max_steps", 1))
    with pytest.raises(SystemExit) as stopped:
        resume(sample_model, tmp_path, "--max_steps", 2)
    message = capsys.readouterr().err
    assert stopped.value.code == 1 and "is of another model" in message and "Traceback" not in message


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, tiny_model, capsys, monkeypatch):
    """In place of a full disk a limit on the size of files, below that of the weights: the error is alike."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    rotate = ErnieTrainer._rotate_checkpoints

    def fill_disk(self, **kwargs):
        rotate(self, **kwargs)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    arguments = arguments_for("afqmc", tiny_model, tmp_path, "--do_train", "--max_steps", 4, "--save_steps", 2)
    with monkeypatch.context() as patch:
        patch.setattr(ErnieTrainer, "_rotate_checkpoints", fill_disk)
        try:
            with pytest.raises(SystemExit) as stopped:
                call("run_seq_cls", *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = capsys.readouterr().err.rpartition("error: ")[2]
    assert stopped.value.code == 1
    assert "checkpoint-4 can't be written: File too large" in message and len(message.splitlines()) == 1
    assert checkpoints(tmp_path) == {p.name for p in tmp_path.glob("afqmc/checkpoint-*")} == {"checkpoint-2"}
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / "afqmc/model_state.pdparams").exists()
    call("run_seq_cls", *arguments)
    assert "checkpoint-4" in checkpoints(tmp_path) and (tmp_path / "afqmc/model_state.pdparams").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A function of a size in KB: an empty folder on a disk of that size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size):
        subprocess.run(["umount", folder], capture_output=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a disk of its own can't be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True)


def test_a_full_disk_whatever_is_written(tmp_path, tiny_fine_tuned, small_disk, capsys):
    """Predictions, the static model, the ONNX model."""
    for size in (16, 300, 450):
        disk = small_disk(size)
        more = ["--do_predict", "--do_export", "--export_model_dir", disk]
        with pytest.raises(SystemExit) as stopped:
            call("run_seq_cls", *arguments_for("afqmc", tiny_fine_tuned("afqmc"), disk, *more))
        message = capsys.readouterr().err.rpartition("error: ")[2]
        assert stopped.value.code == 1
        assert "can't be written: No space left on device" in message and len(message.splitlines()) == 1
        assert not list(disk.rglob("*.part")) and not (disk / "afqmc/export").exists()


# ------------------------------------------------------------------------- what makes a training another one

# Some of each kind; arguments of PaddleNLP that nobody thought of count, too.
COUNTS = (
    *("--adam_beta1=0.5", "--adam_epsilon=1e-3", "--max_grad_norm=0.01", "--weight_decay=0.3", "--seed=7"),
    *("--lr_scheduler_type=cosine", "--num_cycles=2", "--lr_end=1e-6", "--power=2", "--warmup_steps=3"),
    *("--per_device_train_batch_size=3", "--gradient_accumulation_steps=2", "--dataloader_drop_last"),
    *("--fp16_opt_level=O2", "--recompute", "--max_steps=3", "--max_seq_length=64", "--no_group_by_length"),
    *("--dynamic_max_length=128", "--doc_stride=64", "--save_steps=7", "--save_strategy=epoch", "--eval_steps=1"),
    "--metric_for_best_model=precision",
)
CHOOSE = ("--save_steps=7", "--save_strategy=epoch", "--eval_steps=1", "--metric_for_best_model=precision")
COUNTS_NOT = (
    *("--do_predict", "--do_export", "--logging_steps=3", "--save_total_limit=2", "--dataloader_num_workers=1"),
    *("--per_device_eval_batch_size=3", "--no_use_fast_tokenizer", "--device=cpu", "--verbose", "--report_to=none"),
    *("--output_dir=elsewhere", "--data_dir=elsewhere", "--run_name=x"),
)


def parts_of(task, labels, argv, seed=1):
    """What `content_hashes` takes of a training."""
    arguments = parse_arguments(task, argv=list(map(str, argv)))
    tokenizer, task = load_task(task, *arguments[:2], labels)
    train, dev, _ = load_splits(task, *arguments[1:])
    train, dev = (make_features(task, examples) for examples in (train, dev))
    paddle.seed(seed)
    model = load_model(task, *arguments[:2], fine_tuned=False)
    return model, tokenizer, train, dev


def test_every_argument_counts_but_those_that_change_nothing(tiny_model):
    task, labels = TASKS["token_cls"], list(DATA_SETS["msra_ner"].labels)
    argv = [*map(str, arguments_for("msra_ner", tiny_model, "out", "--do_train", "--do_eval"))]
    parts, others = (parts_of(task, labels, argv, seed) for seed in (1, 2))
    opened, contents = parts[2].task, content_hashes(*parts)
    assert content_hashes(*others) == contents  # the seed's new head does not count: another device draws another one
    unscored = content_hashes(*parts[:3], None)

    def changed_by(argument, contents=contents):
        before, now = (
            json.loads(json.dumps(identity(parse_arguments(task, argv=found), opened, contents)))
            for found in (argv, [*argv, argument])
        )
        return differences(before, now)

    for argument in COUNTS:
        # Others may follow from it, --eval_steps from --save_steps.
        assert argument.strip("-").removeprefix("no_").partition("=")[0] in changed_by(argument)
    for argument in COUNTS_NOT:
        assert not changed_by(argument), argument
    for argument in CHOOSE:
        assert not changed_by(argument, unscored), argument


def test_an_argument_of_tomorrow_counts():
    """Without anybody remembering it; and all that the lists of exceptions name is there."""

    @dataclasses.dataclass
    class Tomorrow(DataArguments):
        new: int = 0

    task = TASKS["qa"](None, 128)
    contents = {DEV_DATA: "its hash"}
    before, now = (identity([Tomorrow("x", new=new)], task, contents) for new in (0, 1))
    assert differences(before, now) == ["new"]
    assert differences(before, {**now, CODE: 0}) == [CODE]
    classes = (ModelArguments, DataArguments, CompressionArguments)
    names = {field.name for cls in classes for field in dataclasses.fields(cls)}
    assert NO_EFFECT | CHOOSING | ONLY_FOR.keys() <= names | {"world_size", TRAINING_DATA}


def test_a_head_that_was_fine_tuned_counts(tmp_path, tiny_fine_tuned):
    def hashes(folder):
        argv = arguments_for("afqmc", folder, "out", "--do_train")
        return content_hashes(*parts_of(SEQ_CLS, ["0", "1"], argv))

    folder = tiny_fine_tuned("afqmc")
    shutil.copytree(folder, tmp_path / "other")
    weights = paddle.load(str(folder / "model_state.pdparams"))
    weights["classifier.bias"] = weights["classifier.bias"] + 1
    paddle.save(weights, str(tmp_path / "other/model_state.pdparams"))
    assert hashes(folder) == hashes(folder) != hashes(tmp_path / "other")


def test_a_checkpoint_of_an_older_project(tmp_path, tiny_model, caplog, capsys, own_data):
    """It knew fewer arguments."""
    arguments = arguments_for("afqmc", tiny_model, tmp_path, "--do_train", "--max_steps", 2, data_dir=own_data)
    call("run_seq_cls", *arguments)
    complete = tmp_path / "afqmc/checkpoint-2/complete.json"
    old = {"version": 2, "learning_rate": 0.001, "finished": False}
    complete.write_text(json.dumps(old))
    with pytest.raises(SystemExit):
        call("run_seq_cls", *arguments)
    message = capsys.readouterr().err
    assert "unfinished training; since then the project's training code changed. Undo" in message
    complete.write_text(json.dumps({**old, "finished": True}))
    call("run_seq_cls", *arguments)
    assert "changed     the project's training code, since" in caplog.text


# ---------------------------------------------------------------------------- a training's own files


def test_a_moved_training_keeps_its_best_checkpoint(tmp_path, tiny_model, caplog, capsys, own_data):
    """Unfinished and finished; trainer_state.json has no path."""

    def run(folder, limit):
        more = ["--do_train", "--do_eval", "--save_steps", 2, "--max_steps", 8, "--save_total_limit", limit]
        call("run_seq_cls", *arguments_for("afqmc", tiny_model, folder, *more, data_dir=own_data))

    run(tmp_path / "first", 9)
    model = tmp_path / "first/afqmc"
    for step in (6, 8):
        shutil.rmtree(model / f"checkpoint-{step}")
    assert not [p for p in model.glob("checkpoint-4/*.json") if str(tmp_path) in p.read_text(encoding="utf-8")]
    state = read(model / "checkpoint-4/trainer_state.json")
    assert re.fullmatch(r"checkpoint-[24]", state["best_model_checkpoint"])
    # No later step gets such a score. PaddleNLP's own state has a path.
    state |= {"best_metric": 2.0, "best_model_checkpoint": str(model / "checkpoint-2")}
    (model / "checkpoint-4/trainer_state.json").write_text(json.dumps(state))
    (tmp_path / "first").rename(tmp_path / "moved")
    model = tmp_path / "moved/afqmc"
    best = (model / "checkpoint-2/model_state.pdparams").read_bytes()
    caplog.clear()
    run(tmp_path / "moved", 1)
    assert "epochs, from step 4;" in caplog.text and "best        step 2, " in caplog.text
    assert checkpoints(tmp_path / "moved") == {"checkpoint-2", "checkpoint-8"}
    assert (model / "model_state.pdparams").read_bytes() == best
    # Spelled otherwise, and finished.
    (tmp_path / "link").symlink_to("moved")
    run(tmp_path / "link", 1)
    assert (model / "model_state.pdparams").read_bytes() == best
    # The last weights are never saved as the best.
    shutil.rmtree(model / "checkpoint-2")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "moved", 1)
    message = capsys.readouterr().err.rpartition("error: ")[2]
    assert stopped.value.code == 1 and "checkpoint-2, the best checkpoint of this training, is missing" in message
    assert (model / "model_state.pdparams").read_bytes() == best


def test_records_are_of_the_model_in_the_folder(tmp_path, tiny_model, tiny_fine_tuned, caplog, capsys, own_data):
    def run(model, *more):
        call("run_seq_cls", *arguments_for("afqmc", model, tmp_path, *more, data_dir=own_data))

    train = ("--do_train", "--do_eval", "--do_export", "--max_steps", 2)
    names = ("settings.json", "train_results.json", "all_results.json", "metrics.json", "export/metrics.json")
    run(tiny_model, *train)

    def records():
        return [(tmp_path / "afqmc" / name).read_bytes() for name in names]

    before = records()
    with pytest.raises(SystemExit):  # refused
        run(tiny_model, *train, "--max_seq_length", 4096, "--learning_rate", 0.5)
    assert records() == before
    run(tiny_model, *train, "--logging_steps", 1)  # nothing is trained
    assert records() == before
    # Another model is scored; its scores go elsewhere.
    run(tiny_fine_tuned("afqmc"), "--do_eval")
    assert records() == before
    assert read(tmp_path / "afqmc/eval_results.json")["num_examples"] == json.loads(before[3])["num_examples"]
    # Scored where it is, its own metrics.json is written; what was exported stays as it is, and is named once.
    (tmp_path / "afqmc/metrics.json").unlink()
    run(tmp_path / "afqmc", "--do_eval")
    assert records() == before and "made of the model before" not in caplog.text
    run(tiny_model, "--do_train", "--max_steps", 3)
    assert caplog.text.count(f"made of the model before this training: {tmp_path}/afqmc/export; make them again") == 1
    # PaddleNLP divides the loss of the last 5 steps by all 20.
    resumed = since_resumed({"train_loss": 0.2, "train_steps_per_second": 8, "train_runtime": 2.5}, 5, 20)
    assert resumed == {"train_loss": 0.8, "train_steps_per_second": 2, "train_runtime": 2.5}


def test_scores_that_come_too_late_for_a_choice(tmp_path, tiny_model, caplog, own_data):
    """Finished without --do_eval: no checkpoint has a score, and with it the best is chosen no more."""

    def run(*more):
        caplog.clear()
        more = ["--do_train", "--max_steps", 2, *more]
        call("run_seq_cls", *arguments_for("afqmc", tiny_model, tmp_path, *more, data_dir=own_data))

    run()
    run("--do_eval")
    assert "checkpoint-2 were saved without --do_eval" in caplog.text and "epochs, from step 2;" in caplog.text
    run("--do_eval", "--overwrite_output_dir")
    assert "without --do_eval" not in caplog.text
    run()
    assert "without --do_eval the last checkpoint is the result, not the best" in caplog.text


def test_one_command_at_a_time_in_a_folder(tmp_path):
    """A second one is refused, with the first one's process; a killed one is in nobody's way."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException), alone_in(str(tmp_path)):
            os.write(writing, b"!")
            time.sleep(600)
        os._exit(0)
    os.close(writing)  # or a child that fails would be waited for
    try:
        assert os.read(reading, 1)
        says = rf"another process \(pid {pid}\) trains or compresses in {tmp_path}"
        with pytest.raises(UserError, match=says), alone_in(str(tmp_path)):
            raise AssertionError
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    (mark,) = tmp_path.iterdir()
    # Its number may have been given to another process since: this one.
    mark.write_text(json.dumps({**read(mark), "pid": os.getppid()}))
    with alone_in(str(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


def test_the_trainers_work_alone(tmp_path, tiny_model, capsys, tiny_fine_tuned):
    with alone_in(str(tmp_path / "afqmc")):
        (mark,) = (tmp_path / "afqmc").iterdir()
        other = mark.with_name(".in_use.other.1")
        shutil.copy(mark, other)
        commands = {
            "run_seq_cls": arguments_for("afqmc", tiny_model, tmp_path, "--do_train", "--max_steps", 1),
            "compress_seq_cls": arguments_for("afqmc", tiny_fine_tuned("afqmc"), tmp_path / "afqmc"),
        }
        for script, arguments in commands.items():
            with pytest.raises(SystemExit) as stopped:
                call(script, *arguments)
            assert stopped.value.code == 1 and f"another process (pid {os.getpid()})" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- accumulation


@pytest.fixture
def without_dropout(tmp_path, tiny_model):
    shutil.copytree(tiny_model, tmp_path / "model")
    config = read(tmp_path / "model/config.json")
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    return tmp_path / "model"


@pytest.mark.parametrize("dataset", ["afqmc", "msra_ner", "cmrc2018"])
def test_a_quarter_of_the_batch_and_four_times_the_accumulation_is_the_same(dataset, tmp_path, without_dropout, caplog):
    """Step by step, also the last of an epoch, for which too few texts are left, and whatever the loss is a mean of."""
    shutil.copytree(SAMPLE_DATA / dataset, tmp_path / "data" / dataset)
    if dataset == "cmrc2018":
        path, articles = tmp_path / "data/cmrc2018/train.json", read(SAMPLE_DATA / "cmrc2018/train.json")["data"]
        path.write_text(json.dumps({"data": articles[: len(articles) // 20]}))
    else:
        (path,) = (tmp_path / "data" / dataset).glob("train.*")
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:95]), encoding="utf-8")
    found = []
    for size, accumulated in ((40, 1), (10, 4)):
        more = ["--do_train", "--per_device_train_batch_size", size, "--gradient_accumulation_steps", accumulated]
        more += ["--num_train_epochs", 2, "--max_seq_length", 64, "--logging_steps", 1, "--save_strategy", "no"]
        more += ["--adam_epsilon", 1e-3]  # or the noise of gradients that are 0 would become whole steps
        caplog.clear()
        output = tmp_path / str(size)
        call(SCRIPT_OF[dataset], *arguments_for(dataset, without_dropout, output, *more, data_dir=tmp_path / "data"))
        weights = paddle.load(str(output / dataset / "model_state.pdparams"))
        found.append((re.findall(r"loss (\S+)", caplog.text), weights))
    (losses, weights), (other_losses, other_weights) = found
    assert "steps of 40 inputs, 2 epochs" in caplog.text and len(losses) >= 6
    assert other_losses == losses
    for name, weight in weights.items():
        np.testing.assert_allclose(other_weights[name].numpy(), weight.numpy(), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("group", ["--group_by_length", "--no_group_by_length"])
def test_a_resumed_training_is_the_same_to_the_last_bit(group, tmp_path, without_dropout, own_data):
    """Without dropout, from within an epoch, and with accumulated batches."""
    more = ["--do_train", "--save_steps", 2, "--num_train_epochs", 3, group]
    more += ["--per_device_train_batch_size", 5, "--gradient_accumulation_steps", 3]
    arguments = arguments_for("afqmc", without_dropout, tmp_path, *more, data_dir=own_data)
    arguments += ["--save_total_limit", 99]
    call("run_seq_cls", *arguments)
    whole = (tmp_path / "afqmc/model_state.pdparams").read_bytes()
    steps = sorted(int(name.rpartition("-")[2]) for name in checkpoints(tmp_path))
    assert steps == [2, 4, 6, 8, 10, 12, 14, 15]  # 64 texts are 4 steps of 15, and one of 4
    for step in steps[3:]:
        shutil.rmtree(tmp_path / f"afqmc/checkpoint-{step}")
    call("run_seq_cls", *arguments)
    assert (tmp_path / "afqmc/model_state.pdparams").read_bytes() == whole


# ------------------------------------------------------------------------------------------ two processes


@pytest.mark.slow
def test_two_processes_over_gloo(tmp_path, tiny_model):
    """They share the batches, and score as one process does."""
    arguments = arguments_for("afqmc", tiny_model, tmp_path / "two", "--do_train", "--do_eval", "--do_predict")
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    command = [str(part) for part in (*launch, "run_seq_cls.py", *arguments, "--max_steps", 4)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PADDLE_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    logs = "".join(p.read_text() for p in sorted((tmp_path / "log").glob("workerlog.*")))
    assert done.returncode == 0, logs[-3000:]
    assert "steps of 32 inputs" in logs
    call("run_seq_cls", *arguments_for("afqmc", tmp_path / "two/afqmc", tmp_path / "one", "--do_eval", "--do_predict"))
    for name, name_of_one in (("metrics.json", "eval_results.json"), ("test_results.json", "test_results.json")):
        two, one = read(tmp_path / "two/afqmc" / name), read(tmp_path / "one/afqmc" / name_of_one)
        if name == "metrics.json":
            assert two == one
        else:
            assert [r["label"] for r in two] == [r["label"] for r in one]
            np.testing.assert_allclose([r["confidence"] for r in two], [r["confidence"] for r in one], atol=1e-5)


def test_a_training_that_diverges_ends_and_says_so(tiny_model, tmp_path, capsys):
    more = ["--do_train", "--learning_rate", 1e30, "--max_steps", 6, "--logging_steps", 1, "--save_steps", 100]
    with pytest.raises(SystemExit) as error:
        call("run_seq_cls", *arguments_for("tnews", tiny_model, tmp_path, *more))
    assert error.value.code == 1 and "has diverged" in capsys.readouterr().err
    assert not list(tmp_path.rglob("model_state.pdparams"))


def test_a_score_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.json"):
        write_json(str(tmp_path / "metrics.json"), {"f1": float("nan")})
    assert not list(tmp_path.iterdir())
