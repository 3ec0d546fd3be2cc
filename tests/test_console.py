"""The console: few lines, nothing for a terminal where there is none, no key anywhere, and every warning seen."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import paddle
import pytest
from conftest import ROOT, SAMPLE_DATA, arguments_for, call, read

SECRET = "wandb-key-0123456789"
# One word of the first column and what it says; the step of a training's row stands to the right.
ROW = re.compile(r"[a-z]{3,9} {3,9}\S.*|\s*\d+/\d+ .*")


def run(*command, **environment):
    """A script as a process of its own whose standard error is a file; what it wrote there, after the checks of all."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "WANDB_MODE": "offline", **environment},
    )
    text = done.stderr.decode()
    assert done.returncode == 0, text
    assert b"\r" not in done.stdout + done.stderr and b"\x1b" not in done.stdout + done.stderr
    return text, done.stdout.decode()


def on_terminal(*command, **environment):
    """The same, with a terminal for standard error."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stderr=its, env={**os.environ, **environment}
    )
    os.close(its)
    written = b""
    while True:
        try:
            more = os.read(mine, 4096)
        except OSError:  # the process has closed the terminal
            break
        written += more
    os.close(mine)
    assert process.wait() == 0, written.decode()
    return written.decode()


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """(output folder, the console of a training with all steps); ocnli has rows that are left out."""
    folder = tmp_path_factory.mktemp("trained")
    more = ["--do_train", "--do_eval", "--do_export", "--max_steps", 6, "--save_steps", 2, "--logging_steps", 2]
    arguments = arguments_for("ocnli", tiny_model, folder, *more, "--wandb_api_key", SECRET)
    return folder, run("run_seq_cls.py", *arguments)[0]


def words(text):
    return [line.split()[0] for line in text.splitlines()]


def test_a_training(trained):
    folder, text = trained
    assert len(text.splitlines()) <= 15 and len(text) < 2000
    assert [line for line in text.splitlines() if not ROW.fullmatch(line)] == []
    assert [word for word in words(text) if word != "warning"] == [
        *("device", "data", "model", "training", "2/6", "4/6", "6/6", "saved", "best", "exported")
    ]
    assert "724 train" in text and "15 labels" not in text and "3 labels" in text
    assert re.search(r"4/6 +loss \d\.\d+ +dev accuracy \d+\.\d\d +\d+ inputs/s   00:\d\d left", text)
    score = read(folder / "ocnli" / "metrics.json")["accuracy"]
    assert re.search(rf"best +step [246], accuracy {100 * score:.2f} \(always the commonest label: ", text)
    assert len(set(text.splitlines())) == len(text.splitlines())
    assert ".part" not in text and "TRAIN" not in text and "Executor" not in text


def test_dropped_rows_are_told(trained):
    assert re.search(r"warning     \S+ocnli/train.json: 6 rows left out", trained[1])


def test_settings_are_kept_without_keys(trained):
    folder, text = trained
    settings = read(folder / "ocnli" / "settings.json")
    assert settings["script"] == "run_seq_cls.py" and settings["versions"]["paddlepaddle"] == paddle.__version__
    assert settings["training"]["max_steps"] == 6 and settings["training"]["lr_scheduler_type"] == "linear"
    assert settings["data"]["data_dir"] == str(SAMPLE_DATA)
    assert "wandb_api_key" not in settings["training"]
    assert SECRET not in text
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10 and [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_a_prediction(trained, tmp_path):
    folder, _ = trained
    before = (folder / "ocnli" / "settings.json").read_bytes()
    text, _ = run("run_seq_cls.py", *arguments_for("ocnli", folder / "ocnli", folder, "--do_predict"))
    assert words(text) == ["device", "data", "model", "predicted"]
    # A training's settings are not replaced by those of a prediction; elsewhere these are written.
    assert (folder / "ocnli" / "settings.json").read_bytes() == before
    call("run_seq_cls", *arguments_for("ocnli", folder / "ocnli", tmp_path, "--do_predict"))
    assert read(tmp_path / "ocnli" / "settings.json")["training"]["do_predict"]


def test_a_compression(trained, tmp_path):
    more = ["--algo_list", "mse", "--batch_size_list", 4, 8, "--max_steps", 4]
    text, report = run("compress_seq_cls.py", *arguments_for("ocnli", trained[0] / "ocnli", tmp_path, *more))
    assert len((text + report).splitlines()) <= 45
    assert [line for line in text.splitlines() if not ROW.fullmatch(line)] == []
    assert [word for word in words(text) if word != "warning"] == [
        *("device", "data", "model", "plan", "made", "pruning", "4/4", "made", "made", "made", "report", "best")
    ]
    for row in read(tmp_path / "compression_report.json")["variants"]:
        assert f"{row['variant']}: accuracy {100 * row['score']:.2f} ({row['change']:+.2f})" in text
        assert f"| {row['variant']} | {100 * row['score']:.2f} | {row['change']:+.2f} |" in report
    assert read(tmp_path / "compression" / "settings.json")["script"] == "compress_seq_cls.py"


def test_a_terminal_gets_bars_that_are_gone_in_the_end(trained, tmp_path):
    folder, _ = trained
    arguments = arguments_for("ocnli", folder / "ocnli", tmp_path, "--do_train", "--max_steps", 4, "--save_steps", 2)
    text = on_terminal("run_seq_cls.py", *arguments)
    assert re.search(r"training: +\d+%", text) and "\x1b[33mwarning " in text
    # What a terminal shows of a line: what was written after the last return to its beginning.
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    assert [line for line in shown if "%|" in line] == []
    assert words("\n".join(filter(str.strip, shown)))[-1] == "saved"


def test_no_color(tmp_path):
    program = "import utils; from ernie import console; console.logger.warning('seen'); print(console.WIDTH)"
    assert "\x1b[33mwarning     seen\x1b[0m" in on_terminal("-c", program)
    plain = on_terminal("-c", program, NO_COLOR="1")
    assert "warning     seen" in plain and "\x1b" not in plain


def test_verbose_shows_what_paddlenlp_says(tiny_model, tmp_path, capfd):
    arguments = arguments_for("afqmc", tiny_model, tmp_path, "--do_train", "--max_steps", 1)
    call("run_seq_cls", *arguments)
    assert "PaddleNLP" not in capfd.readouterr().err
    call("run_seq_cls", *arguments, "--verbose", "--overwrite_output_dir")
    text = capfd.readouterr().err
    assert "PaddleNLP     Num examples = 1,040" in text and "Configuration Arguments" not in text


def test_weights_that_are_missing_are_told_unless_they_are_a_new_head(tiny_model, tmp_path, capfd):
    arguments = ["--do_train", "--max_steps", 1, "--save_strategy", "no"]
    call("run_seq_cls", *arguments_for("afqmc", tiny_model, tmp_path, *arguments))
    assert "newly initialized" not in capfd.readouterr().err
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = paddle.load(str(folder / "model_state.pdparams"))
    weights = {name: weight for name, weight in weights.items() if "linear1" not in name}
    paddle.save(weights, str(folder / "model_state.pdparams"))
    call("run_seq_cls", *arguments_for("afqmc", folder, tmp_path / "again", *arguments))
    text = capfd.readouterr().err
    assert "warning     Some weights" in text and "linear1.weight" in text


@pytest.mark.slow
def test_quickstart(run_quickstart):
    _, folder, output = run_quickstart("tnews")
    lines = output.splitlines()
    assert len(lines) <= 40  # and one that make writes
    assert "\r" not in output and "\x1b" not in output
    assert sum(line.startswith("$ python ") for line in lines) in (3, 4)
    assert "网友热议，军舰参加实弹演习 -> 军事 (" in output and "-> 游戏 (" in output
    (title,) = (line for line in lines if "sample data (made up)" in line)
    (int8,) = (line for line in lines if line.startswith("pruned and in INT8"))
    metrics = read(folder / "tnews" / "width_mult_0.75" / "mse16_1" / "metrics.json")
    assert "dev accuracy" in title and f" {100 * metrics['accuracy']:.1f}% " in int8
