"""Files and folders that are written atomically, and identified by their content.

Whatever is made here grows in a work folder beside its final place, and gets its final name by renaming, once it is
complete. A mark in the work folder tells which process it belongs to: what killed processes left is removed by whoever
works in the same place next. That needs no locks, which not every file system has.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time

MARK = ".ernie-work"  # the name of the file by which a work folder is known to be ours
PART = re.compile(r"\..+\.[0-9a-f]{8}\.ernie-part")  # names of texts that are being written, which takes milliseconds
DAY = 24 * 60 * 60


@contextlib.contextmanager
def work_folder(parent, name):
    """Yields a new folder `parent/.<name>.<random>.part`, which is removed afterwards.

    Raises:
        OSError: there is no space or no permission.
    """
    os.makedirs(parent, exist_ok=True)
    remove_leftovers(parent)
    folder = tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=parent)
    try:
        mark = os.path.join(folder, MARK)
        with open(f"{mark}.new", "w", encoding="utf-8") as f:
            json.dump(_owner(), f)
        os.replace(f"{mark}.new", mark)  # never seen half-written
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent):
    """Removes the work folders of killed processes from a folder; what they had moved aside returns to its place."""
    for entry in os.listdir(parent):
        path = os.path.join(parent, entry)
        with contextlib.suppress(OSError):
            if entry.startswith(".") and entry.endswith(".part") and _is_left(os.path.join(path, MARK)):
                _put_back(path)
                shutil.rmtree(path, ignore_errors=True)
            elif PART.fullmatch(entry) and time.time() - os.path.getmtime(path) > DAY:
                os.remove(path)


def _is_left(mark):
    """Whether the process of a work folder has ended. Of another machine, container or user's process that can't be
    seen: whether the folder is a day old."""
    try:
        age = time.time() - os.path.getmtime(mark)
        with open(mark, encoding="utf-8") as f:
            owner = json.load(f)
    except OSError:
        return False
    except ValueError:  # of an earlier release, which wrote none
        return True
    here = _owner()
    if owner and here and owner[:3] == here[:3]:
        return started(owner[3]) != owner[4]
    return age > DAY


def _owner():
    """[machine, PID namespace, user, process, when it started] of this process, or None where there is no /proc."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    return [socket.gethostname(), namespace, os.getuid(), os.getpid(), started(os.getpid())]


def started(pid):
    """When a process started, in ticks since the machine did, which tells it from a later one of the same number; None
    where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            state, *fields = f.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if state in (b"Z", b"X") else int(fields[18])


def _put_back(work):
    """Moves a folder that `new_folder` had set aside back, if nothing has taken its place."""
    old = os.path.join(work, "old")
    target = os.path.join(work, "target")
    if os.path.isdir(old) and os.path.isfile(target):
        with open(target, encoding="utf-8") as f:
            path = os.path.join(os.path.dirname(work), f.read())
        if not os.path.lexists(path):
            os.rename(old, path)


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
    with work_folder(parent, os.path.basename(path)) as work:
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
    """Writes a text file atomically; a link is followed."""
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    remove_leftovers(folder)
    part = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.ernie-part")
    try:
        with open(part, "x", encoding="utf-8", newline="\n") as f:
            f.write(text)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(part)
        raise


def stat_of(path):
    """What tells a file from what it was before. No program can set the time of the inode (ctime)."""
    stat = os.stat(path)
    return {"size": stat.st_size, "inode": stat.st_ino, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}


def file_hash(path):
    """16 hex digits of a file's content (SHA-256)."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(2**22):
            digest.update(block)
    return digest.hexdigest()[:16]
