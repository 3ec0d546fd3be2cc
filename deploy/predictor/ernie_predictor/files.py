"""Files and folders that are written atomically, and identified by their content.

Whatever is made here grows beside its final place, under a name of its own, and is renamed once it is complete. That
name tells which process it belongs to: what killed processes left is removed by whoever works in the same place next.
This needs no locks, which not every file system has.
"""

import contextlib
import functools
import hashlib
import os
import secrets
import shutil
import time

PART = ".part"  # how the names of incomplete files and folders end
DAY = 24 * 60 * 60


@contextlib.contextmanager
def work_folder(parent, name):
    """Yields a new folder in `parent`, which is removed afterwards.

    Raises:
        OSError: there is no space or no permission.
    """
    os.makedirs(parent, exist_ok=True)
    remove_leftovers(parent)
    folder = _part_of(parent, name)
    try:
        with _named(parent):
            os.mkdir(folder)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_folder(path, parent=None):
    """Yields an empty folder that takes the place of `path` when the block ends without an error.

    Until then the old folder stays; it also stays, or comes back, if the last step fails or the process is killed. A
    link is followed: the folder that it points to is replaced.

    Args:
        parent: folder of the same file system in which it is written; None: the one that holds `path`.

    Raises:
        OSError: there is no space or no permission.
    """
    path = os.path.realpath(path)
    parent = os.path.abspath(parent or os.path.dirname(path))
    with work_folder(parent, os.path.basename(path)) as work, _named(path):
        new, old = os.path.join(work, "new"), os.path.join(work, "old")
        os.mkdir(new)
        with open(os.path.join(work, "target"), "w", encoding="utf-8") as f:
            f.write(os.path.relpath(path, parent))
        yield new
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            if os.path.isdir(path):
                os.rename(path, old)
            os.rename(new, path)
        finally:
            _put_back(work)


def write_text(path, text):
    """Writes a text file atomically; a link is followed.

    Raises:
        OSError: there is no space or no permission.
    """
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    remove_leftovers(folder)
    part = _part_of(folder, name)
    try:
        with _named(path):
            with open(part, "x", encoding="utf-8", newline="\n") as f:
                f.write(text)
            os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def remove_leftovers(parent):
    """Removes what killed processes left in a folder; what `new_folder` had moved aside returns to its place."""
    for entry in os.listdir(parent):
        path = os.path.join(parent, entry)
        with contextlib.suppress(OSError, ValueError):  # ValueError: not a name of ours
            if entry.endswith(PART) and _is_left(path):
                if os.path.isdir(path):
                    _put_back(path)
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    os.remove(path)


def _put_back(work):
    """Moves a folder that `new_folder` had moved aside back, if nothing has taken its place."""
    with contextlib.suppress(FileNotFoundError):
        with open(os.path.join(work, "target"), encoding="utf-8") as f:
            path = os.path.join(os.path.dirname(work), f.read())
        if not os.path.lexists(path):
            os.rename(os.path.join(work, "old"), path)


@contextlib.contextmanager
def _named(path):
    """Errors of the operating system name what is being written: not its part, nor nothing, as that of a full disk."""
    try:
        yield
    except OSError as e:
        if e.errno is not None and (e.filename is None or _owner() in str(e.filename)):
            e.filename = str(path)
        raise


def _part_of(folder, name):
    """A path in a folder for what this process writes; the name says whose it is."""
    return os.path.join(folder, f".{name[:40]}.{_owner()}-{secrets.token_hex(4)}{PART}")


def _owner():
    pid = os.getpid()
    return f"{system()}-{pid}-{started(pid)}"


def _is_left(path):
    """Whether the process that a part belongs to has ended. Of another machine's, container's or user's process, which
    can't be seen: whether the part is a day old."""
    owner = os.path.basename(path).removesuffix(PART).rpartition(".")[2]
    its_system, pid, its_start, _ = owner.split("-")
    status = os.stat(path)
    if its_system and its_system == system() and status.st_uid == os.getuid():
        return its_start != str(started(int(pid)))
    return time.time() - status.st_mtime > DAY


@functools.cache
def system():
    """8 hex digits for where a process's number means the same process: this start of the machine, and this container;
    nothing where there is no /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as f:
            text = f.read() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def started(pid):
    """When a process started, in ticks since the machine did, which tells it from a later one of the same number; None
    where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            state, *fields = f.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if state in (b"Z", b"X") else int(fields[18])


def stat_of(path):
    """What tells a file from what it was before. No program can set the time of the inode (ctime)."""
    stat = os.stat(path)
    times = {"mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
    return {"size": stat.st_size, "device": stat.st_dev, "inode": stat.st_ino, **times}


def file_hash(path):
    """16 hex digits of a file's content (SHA-256)."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(2**22):
            digest.update(block)
    return digest.hexdigest()[:16]
