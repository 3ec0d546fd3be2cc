"""How errors reach the user: one message and an exit status, no traceback for what the user can fix."""

import contextlib
import difflib
import errno
import os
import sys

from ernie_predictor.errors import PredictorError as UserError  # exit status 1
from ernie_predictor.errors import UsageError  # a wrong argument, on the command line or in the YAML file: 2
from tqdm import tqdm

__all__ = ["UsageError", "UserError", "disk_full_named", "nearest", "run"]


def nearest(name, names):
    """`; did you mean ...?` where one of the names is near."""
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def run(main):
    """Runs a script's main(); an error that the user can fix becomes one message and an exit status."""
    program = os.path.basename(sys.argv[0])
    try:
        with disk_full_named():
            return main()
    except UserError as e:
        message, status = f"{program}: error: {e}", 2 if isinstance(e, UsageError) else 1
    except OSError as e:  # no space, no permission
        if e.errno is None:  # of a library, not of the operating system
            raise
        message, status = f"{program}: error: {e.filename or 'a file'}: {e.strerror}", 1
    except KeyboardInterrupt:
        message, status = "\nstopped; the same command resumes from the last checkpoint", 130
    tqdm.write(message, file=sys.stderr)  # above the progress bars that are on the screen
    sys.exit(status)


@contextlib.contextmanager
def disk_full_named(path=None):
    """Turns the error of a full disk into a UserError that names what was being written: a path, or what it names."""
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"{path or e.filename or 'a file'} can't be written: {e.strerror}. What was complete before is untouched: "
            "free some space, and the same command resumes"
        ) from e
