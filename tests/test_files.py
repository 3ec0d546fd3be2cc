"""Files and folders are written atomically, and nothing is removed that is not ours."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import PREDICTOR
from ernie_predictor import files


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_new_folder_takes_the_old_ones_place_at_the_end(tmp_path):
    target = tmp_path / "export"
    for text in ("first", "second"):
        with files.new_folder(target) as new:
            before = content(target) if target.exists() else None
            write(tmp_path / new / "model", text)
            assert before == (None if text == "first" else {"model": "first"})
        assert content(tmp_path) == {"export/model": text}


def test_an_error_leaves_the_old_folder(tmp_path):
    write(tmp_path / "export" / "model", "old")
    with pytest.raises(ZeroDivisionError), files.new_folder(tmp_path / "export") as new:
        write(tmp_path / new / "model", "half")
        1 / 0  # noqa: B018
    assert content(tmp_path) == {"export/model": "old"} and os.listdir(tmp_path) == ["export"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failing_rename_leaves_the_old_folder(failing, tmp_path, monkeypatch):
    """The second one too, when the old folder has been moved aside: a full disk, say."""
    write(tmp_path / "export" / "model", "old")
    calls = []
    rename = os.rename

    def fails_once(source, target):
        calls.append(source)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_once)
    with pytest.raises(OSError, match="No space left"), files.new_folder(tmp_path / "export") as new:
        write(tmp_path / new / "model", "new")
    assert content(tmp_path) == {"export/model": "old"} and os.listdir(tmp_path) == ["export"]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from ernie_predictor import files
rename, calls = os.rename, []

def killed(source, target):
    calls.append(source)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)

os.rename = killed
with files.new_folder(sys.argv[2]) as new:
    open(os.path.join(new, "model"), "w").write("new")
"""


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_between_the_renames_loses_nothing(at, tmp_path):
    """The next one who works there puts the old folder back and removes what was left."""
    write(tmp_path / "export" / "model", "old")
    command = [sys.executable, "-c", KILLED, str(PREDICTOR), str(tmp_path / "export"), str(at)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert (tmp_path / "export").exists() == (at == 1)
    write(tmp_path / ".theirs.part" / "file", "not ours")
    files.remove_leftovers(tmp_path)
    assert content(tmp_path) == {"export/model": "old", ".theirs.part/file": "not ours"}


WORKING = """
import sys
sys.path.insert(0, sys.argv[1])
from ernie_predictor import files
with files.work_folder(sys.argv[2], "export") as work:
    print(work, flush=True)
    sys.stdin.read()
"""


def test_a_work_folder_of_a_living_process_stays(tmp_path):
    """Two runs in one folder do not remove each other's unfinished work."""
    command = [sys.executable, "-c", WORKING, str(PREDICTOR), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        work = process.stdout.readline().strip()
        with files.new_folder(tmp_path / "export") as new:
            write(tmp_path / new / "model", "new")
        assert os.path.isdir(work) and (tmp_path / "export" / "model").exists()
        process.kill()
    deadline = time.time() + 60
    while os.path.isdir(work) and time.time() < deadline:
        files.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["export"]


def test_a_text_file_is_written_atomically(tmp_path):
    path = tmp_path / "metrics.json"
    files.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "\ud800")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["metrics.json"]
    umask = os.umask(0o027)
    try:
        files.write_text(path, "new\r\n")
    finally:
        os.umask(umask)
    assert path.read_bytes() == b"new\r\n" and path.stat().st_mode & 0o777 == 0o640
