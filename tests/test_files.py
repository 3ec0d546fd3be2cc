"""Files and folders are written atomically, and nothing is removed that is not ours."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import PREDICTOR, ROOT
from ernie_predictor import files

from ernie.errors import UserError
from ernie.files import check_replaceable
from ernie.results import read_metrics


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
    for name in (".theirs.part", ".theirs.89abcdef.part"):
        write(tmp_path / name / "file", "not ours")
    files.remove_leftovers(tmp_path)
    assert content(tmp_path) == {
        "export/model": "old",
        ".theirs.part/file": "not ours",
        ".theirs.89abcdef.part/file": "not ours",
    }


def test_a_kill_while_a_text_is_written_leaves_no_file(tmp_path):
    files.write_text(tmp_path / "metrics.json", "old")
    program = KILLED.partition("os.rename =")[0] + "os.replace = killed\nfiles.write_text(sys.argv[2], 'new')"
    command = [sys.executable, "-c", program, str(PREDICTOR), str(tmp_path / "metrics.json"), "1"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 2
    files.write_text(tmp_path / "other.json", "{}")
    assert content(tmp_path) == {"metrics.json": "old", "other.json": "{}"}


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """Lustre without -o flock, some network disks."""

    def no_lock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_lock)
    monkeypatch.setattr(fcntl, "lockf", no_lock)
    for text in ("first", "second"):
        with files.new_folder(tmp_path / "export") as new:
            write(tmp_path / new / "model", text)
        assert content(tmp_path) == {"export/model": text}


@pytest.mark.parametrize("is_folder", [True, False])
def test_whose_parts_are_left(is_folder, tmp_path):
    """A process is known by its start, too, since numbers are used again; one that can't be seen has a day: another
    machine's, and where there is no /proc."""
    pid = os.getpid()
    start = files.started(pid)
    here, gone, elsewhere, unseen = (
        *(f"{files.system()}-{pid}-{start}", f"{files.system()}-{pid}-{start + 1}"),
        *(f"01234567-{pid}-{start}", f"-{pid}-None"),
    )
    parts = {"ours": (here, 9e5), "gone": (gone, 0), "new": (elsewhere, 8e4), "old": (elsewhere, 9e4)}
    parts |= {"unseen": (unseen, 0), "unseen and old": (unseen, 9e4)}
    for name, (owner, age) in parts.items():
        path = tmp_path / f".{name}.{owner}-89abcdef.part"
        write(path / "file" if is_folder else path, "half")
        os.utime(path, (time.time() - age,) * 2)
    files.remove_leftovers(tmp_path)
    assert sorted(name.split(".")[1] for name in os.listdir(tmp_path)) == ["new", "ours", "unseen"]


def test_another_users_parts_have_a_day(tmp_path, monkeypatch):
    """Their processes may be hidden (/proc with hidepid)."""
    path = tmp_path / f".export.{files.system()}-{os.getpid()}-1-89abcdef.part"
    write(path, "half")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
        files.remove_leftovers(tmp_path)
    assert path.exists()
    files.remove_leftovers(tmp_path)
    assert not path.exists()


def test_what_is_written_is_named_in_errors(tmp_path):
    """Not its part, nor nothing, as the system names a full disk."""

    def fails(exception):
        with pytest.raises(OSError) as raised, files.new_folder(tmp_path / "export") as new:
            raise exception(new)
        return raised.value.filename

    assert fails(lambda new: OSError(errno.ENOSPC, "No space left")) == str(tmp_path / "export")
    assert fails(lambda new: OSError(errno.ENOSPC, "No space left", f"{new}/model")) == str(tmp_path / "export")
    assert fails(lambda new: FileNotFoundError(errno.ENOENT, "No such file", "/none")) == "/none"


def test_a_link_to_a_folder_is_followed(tmp_path):
    """What a server reads behind it is the new model."""
    write(tmp_path / "server" / "model" / "file", "old")
    links = {"full": "server/model", "dangling": "server/none", "chain": "full"}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
        check_replaceable(str(tmp_path / name))
        with files.new_folder(tmp_path / name) as new:
            write(tmp_path / new / "file", name)
        assert os.readlink(tmp_path / name) == target and content(tmp_path / name) == {"file": name}
    assert content(tmp_path / "server") == {"model/file": "chain", "none/file": "dangling"}
    (tmp_path / "text").symlink_to("server/model/file")
    files.write_text(tmp_path / "text", "new")
    assert content(tmp_path / "server")["model/file"] == "new" and (tmp_path / "text").is_symlink()


def test_what_no_folder_can_replace(tmp_path):
    """Is said before a training, not after it."""
    write(tmp_path / "export", "a file")
    (tmp_path / "link").symlink_to("export")
    for path in (tmp_path / "export", tmp_path / "link"):
        with pytest.raises(UserError, match=f"--export_model_dir: {path} is in the way"):
            check_replaceable(str(path), "--export_model_dir")
    with pytest.raises(UserError, match="/proc is a mount point"):
        check_replaceable("/proc")
    with pytest.raises(UserError, match=r"--output_dir .* can't be written"):
        check_replaceable(str(tmp_path / "export" / "below"))
    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        check_replaceable(str(tmp_path / name))


def test_metrics_that_can_not_be_read_are_named(tmp_path):
    assert read_metrics(tmp_path) is None
    write(tmp_path / "metrics.json", "{")
    with pytest.raises(UserError, match=r"metrics\.json is not JSON"):
        read_metrics(tmp_path)


MOUNTED = """
import sys
sys.path.insert(0, ".")
from ernie.files import check_replaceable
check_replaceable(sys.argv[1])
"""


def test_a_folder_mounted_from_the_same_disk(tmp_path):
    """As docker -v does."""
    target = tmp_path / "a b" / "export"
    target.mkdir(parents=True)
    script = 'mount --bind "$1" "$1" && exec "$2" -c "$3" "$1"'
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
    try:
        allowed = subprocess.run([*unshare, "sh", "-c", 'mount --bind "$1" "$1"', "sh", target]).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this user may not mount")
    done = subprocess.run(
        [*unshare, "sh", "-c", script, "sh", target, sys.executable, MOUNTED], capture_output=True, text=True, cwd=ROOT
    )
    assert "is a mount point" in done.stderr, done.stderr


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


def test_a_text_file_is_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    files.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "\ud800")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["metrics.json"]
    set_umask = os.umask
    monkeypatch.delattr(os, "umask")  # it is the whole process's: other threads' files would be open to all
    umask = set_umask(0o027)
    try:
        files.write_text(path, "new\r\n")
    finally:
        set_umask(umask)
    assert path.read_bytes() == b"new\r\n" and path.stat().st_mode & 0o777 == 0o640
