"""How a server process starts and stops, whatever started it: `python server_....py`, uvicorn or `paddlenlp server`."""

import contextlib
import ctypes
import logging
import multiprocessing.connection
import os
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from .connections import Connection
from .settings import read_flags

logger = logging.getLogger("ernie_serving")
PROGRAM = os.path.basename(sys.argv[0])
METRICS_PREFIX = "ernie_metrics_"  # of the folder in which workers share their metrics


def main(make_app, about):
    """Starts a server from the command line: `python server_seq_cls.py --model_path DIR --port 8189`.

    Args:
        make_app: a function of `Settings` that returns the application; its module has it as `app`, too, which the
            workers import.
        about: what --help says first.
    """
    settings = read_flags(about)
    configure_logging(settings)
    app = make_app(settings)
    options = {
        "http": Connection,
        "ws": "none",
        "access_log": False,
        "log_config": None,
        "timeout_graceful_shutdown": int(settings.shutdown_s),
        "timeout_keep_alive": 75,  # longer than the 60 s of usual load balancers, which would otherwise see resets
    }
    listener = _listen(settings)
    logger.info("listening on %s, port %s, %s worker(s)", settings.host, settings.port, settings.workers)
    with listener:
        if settings.workers == 1:
            app.state.host.failure_status = 1
            # uvicorn shuts down properly, and then raises the signal once more; a requested stop is no failure.
            signal.signal(signal.SIGTERM, lambda *arguments: None)
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(uvicorn.Config(app, **options)).run([listener])
        else:
            _run_workers(settings, listener, options)


def _listen(settings):
    """The socket on which the server listens."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named since asyncio switches Nagle's algorithm off only for sockets that say they are TCP: with
    # it, each answer over a kept connection took 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as e:
        reason = e.strerror or os.strerror(e.errno)
        print(f"{PROGRAM}: error: --host {settings.host} --port {settings.port}: {reason}", file=sys.stderr)
        sys.exit(1)
    return listener


def _run_workers(settings, listener, options):
    """Several processes on one port. Each imports the application, which reads its settings from the environment."""
    for name, value in settings.model_dump(exclude_none=True).items():
        os.environ[name.upper()] = str(value)
    module = os.path.splitext(PROGRAM)[0]
    config = uvicorn.Config(f"{module}:app", workers=settings.workers, timeout_worker_healthcheck=10, **options)
    with tempfile.TemporaryDirectory(prefix=METRICS_PREFIX) as folder:
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        workers = _Workers(config, [listener])
        workers.run()
    if workers.failed:
        sys.exit(1)


class _Workers(Multiprocess):
    """uvicorn's supervisor: replaces a worker that died, and ends when one cannot start."""

    failed = False

    def init_processes(self):
        super().init_processes()
        # A worker that replaces another accepts requests once it can answer them; until then the others do.
        os.environ["OPEN_FIRST"] = "true"

    def keep_subprocess_alive(self):
        from prometheus_client import multiprocess

        before = list(self.processes)
        super().keep_subprocess_alive()
        for process in before:
            if process.exitcode is None:
                continue
            if process.exitcode == STARTUP_FAILURE:
                self.failed = True
            elif process not in self.processes:
                logger.error("worker %s ended with status %s; a new one starts", process.pid, process.exitcode)
            multiprocess.mark_process_dead(process.pid)


def limit_arenas():
    """At most two heaps for glibc's malloc: with one per thread, each keeps what its largest batch needed.

    Resident memory grew by 16% over 9,000 requests of all kinds (tests/serving_fuzz.py), with this by 9%.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(-8, 2)  # M_ARENA_MAX


def configure_logging(settings):
    """Log lines to standard error, one per request, unless whoever started this process has set up logging."""
    logging.getLogger("uvicorn.access").disabled = True  # it would log each request a second time
    if not logging.getLogger().handlers:
        style = "%(message)s" if settings.log_json else "%(asctime)s %(message)s"
        # Where standard error is closed, its number may be that of a connection by now.
        handler = _LogThread(sys.stderr.fileno()) if sys.stderr else logging.NullHandler()
        logging.basicConfig(level=logging.INFO, format=style, handlers=[handler])


class _LogThread(logging.Handler):
    """Writes log lines to standard error in a thread: whoever reads them may be slow, or stop reading.

    Lines that find 10,000 others waiting are left out, and their number is logged.

    Args:
        file: descriptor of the file to write to.
    """

    LONGEST = 10_000

    def __init__(self, file):
        super().__init__()
        self._file = file
        self._waiting = queue.SimpleQueue()  # lines, and events that `flush` waits for
        self._left_out = 0
        threading.Thread(target=self._work, name="ernie_log", daemon=True).start()

    def emit(self, record):
        if self._waiting.qsize() < self.LONGEST:
            self._waiting.put(self.format(record))
        else:
            self._left_out += 1

    def _work(self):
        while True:
            taken = [self._waiting.get()]
            time.sleep(0.01)  # one call for the lines of many requests
            with contextlib.suppress(queue.Empty):
                while len(taken) < 1000:
                    taken.append(self._waiting.get_nowait())
            lines = [entry for entry in taken if isinstance(entry, str)]
            left_out, self._left_out = self._left_out, 0
            if left_out:
                lines.append(f"{left_out:,} log lines were left out: nobody reads them fast enough")
            self._write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
            for entry in taken:
                if isinstance(entry, threading.Event):
                    entry.set()

    def _write(self, content):
        with contextlib.suppress(OSError):  # a full disk, a reader that is gone: no reason to serve nobody
            while content:
                content = content[os.write(self._file, content) :]

    def flush(self):
        """Waits for the lines before, but not for a reader that does not read."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(timeout=2)


def flush_log():
    for handler in logging.getLogger().handlers:
        handler.flush()


def drain_first(host):
    """After SIGTERM, `/ready` says so for `drain_s` before the process stops, so that requests are sent elsewhere."""
    if threading.current_thread() is not threading.main_thread():
        return
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop):
        return

    def on_sigterm(number, frame):
        if host.draining:
            stop(number, frame)
            return
        host.draining = True
        timer = threading.Timer(host.settings.drain_s, stop, (number, frame))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, on_sigterm)


def stop_with_parent():
    """Has a worker stop when its supervisor is gone: killed, it can tell nobody, and the port would stay taken.

    Returns a function that removes what only the supervisor would have removed, where it is gone.
    """
    parent, folder = multiprocessing.parent_process(), os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")

    def remove_orphaned():
        if parent is not None and not parent.is_alive() and os.path.basename(folder).startswith(METRICS_PREFIX):
            shutil.rmtree(folder, ignore_errors=True)

    def wait():
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    if parent is not None:
        threading.Thread(target=wait, name="ernie_parent", daemon=True).start()
    return remove_orphaned


def fail_to_start(host):
    """Ends a process whose models cannot be opened: it would never be ready. A supervisor knows the status."""
    flush_log()
    print(f"{PROGRAM}: error: {host.failure}", file=sys.stderr, flush=True)
    # Not by an exception: out of the event loop, it would come with a traceback. Nothing is left to be closed.
    os._exit(host.failure_status)
