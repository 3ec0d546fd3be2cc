"""Files and folders that are written atomically, and identified by their content.

Whatever is made here grows in a work folder beside its final place, which carries a mark and a lock. It gets its
final name by renaming, once it is complete. Work folders of processes that were killed are recognized by the mark
without a lock, and are removed by whoever works in the same place next.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile

try:
    import fcntl
except ImportError:  # Windows, where leftovers of killed processes stay
    fcntl = None  # type: ignore[assignment]

MARK = ".ernie-work"  # the name of the file by which a work folder is known to be ours


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
        with open(os.path.join(folder, f"{MARK}.new"), "w") as mark:
            if fcntl:
                fcntl.flock(mark, fcntl.LOCK_EX)
            # It gets its name once it is locked: without a lock it would be taken for that of a killed process.
            os.replace(mark.name, os.path.join(folder, MARK))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent):
    """Removes the work folders of killed processes from a folder; what they had moved aside returns to its place."""
    if fcntl is None:
        return
    for entry in os.listdir(parent):
        folder = os.path.join(parent, entry)
        if not (entry.startswith(".") and entry.endswith(".part") and os.path.isfile(os.path.join(folder, MARK))):
            continue
        with contextlib.suppress(OSError), open(os.path.join(folder, MARK)) as mark:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where the process is alive
            _put_back(folder)
            shutil.rmtree(folder, ignore_errors=True)


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

    Until then the old folder stays; it also stays, or comes back, if the last step fails or the process is killed.

    Args:
        parent: folder of the same file system in which it is written; None: the one that holds `path`.

    Raises:
        OSError: there is no space or no permission.
    """
    path = os.path.abspath(path)
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
    """Writes a text file atomically."""
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, part = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as f:
            f.write(text)
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        os.remove(part)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_hash(path):
    """16 hex digits of a file's content (SHA-256)."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(2**22):
            digest.update(block)
    return digest.hexdigest()[:16]
