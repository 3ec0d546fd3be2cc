"""The clients as processes: scores against metrics.json, single texts, retries, messages, Ctrl-C."""

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import SAMPLE_DATA, SCRIPT_OF, arguments_for, call, read
from ernie_predictor import data_files
from test_serving import SERVERS, SERVING, Running, free_port

from ernie.tasks import DATA_SETS

# What serves a data set's model: its task's server.
SERVED_AS = {"tnews": "tnews", "afqmc": "afqmc", "ocnli": "afqmc", "msra_ner": "msra_ner", "cmrc2018": "cmrc2018"}


def command(dataset, url, *more):
    client = SERVERS[SERVED_AS[dataset]][0].replace("server_", "client_")
    return [sys.executable, str(SERVING / f"{client}.py"), "--url", url, *map(str, more)]


def run(dataset, url, *more, status=0, **environment):
    """A client's (standard output, standard error)."""
    done = subprocess.run(
        command(dataset, url, *more), capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


def refused(says, dataset, url, *more, status=1, **environment):
    """A client must end with one line on standard error that says these, and print nothing else."""
    out, err = run(dataset, url, *more, status=status, **environment)
    assert not out and err.count("\n") == 1, err
    for part in says:
        assert part in err


@pytest.fixture(scope="module")
def servers(exported):
    running = {}

    def get(dataset):
        if dataset not in running:
            running[dataset] = Running(
                SERVED_AS[dataset], exported(dataset)[0], "--max_texts", 64, "--drain_s", 0
            ).wait()
        return running[dataset].url

    yield get
    assert [server.stop() for server in running.values()] == [0] * len(running)


@pytest.mark.parametrize("dataset", SERVED_AS)
def test_scores_are_those_of_training(dataset, servers, exported, tmp_path):
    model = exported(dataset)[0].parent
    call(SCRIPT_OF[dataset], *arguments_for(dataset, model, tmp_path, "--do_eval"))
    task, metrics = DATA_SETS[dataset].task, read(tmp_path / dataset / "eval_results.json")
    out, err = run(
        *(dataset, servers(dataset), "--dataset", dataset, "--data_dir", SAMPLE_DATA),
        *("--output", tmp_path / "answers.jsonl", "--batch_size", 7, "--concurrency", 5),
    )
    first, *scores, speed = out.splitlines()
    assert scores == [f"{name}: {metrics[name]}" for name in task.scores]
    assert any(metrics[name] > 0 for name in task.scores)
    requests = -(-metrics["num_examples"] // 7)
    assert first == f"{dataset}: {metrics['num_examples']} texts in {requests} requests, 5 in flight"
    assert "texts/s" in speed and "requests/s" in speed
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    _, gold = data_files.read_dev_set(task.name, SAMPLE_DATA, dataset)
    assert data_files.score(task.name, answers, gold) == {name: metrics[name] for name in task.scores}
    assert err == "" or (
        dataset == "ocnli" and err.endswith("2 rows left out, labelled '-' (the annotators did not agree)\n")
    )
    assert not list(tmp_path.glob("*.part"))


def test_single_texts(servers):
    out, _ = run("afqmc", servers("afqmc"), "--text", "怎么开通信用卡", "--text_pair", "我要办理信用卡")
    assert out.startswith("怎么开通信用卡 | 我要办理信用卡\n    ") and "confidence 0." in out
    out, _ = run("tnews", servers("tnews"), "--text", "国足今晚客场迎战日本队", "--max_seq_len", 8)
    assert out.startswith("国足今晚客场迎战日本队\n    1")
    out, _ = run("msra_ner", servers("msra_ner"), "--text", "王芳在腾讯公司工作。")
    assert out.startswith("王芳在腾讯公司工作。\n    ")
    more = ["--n_best_size", 2, "--max_answer_length", 3, "--doc_stride", 16, "--max_seq_len", 64]
    out, _ = run("cmrc2018", servers("cmrc2018"), "--question", "谁？", "--context", "王芳在腾讯公司工作。" * 20, *more)
    assert len(out.splitlines()) == 3 and out.count("confidence") == 2


@pytest.mark.parametrize("dataset", ["tnews", "afqmc", "msra_ner", "cmrc2018"])
def test_built_in_examples(dataset, servers):
    out, err = run(dataset, servers(dataset))
    assert sum(not line.startswith(" ") for line in out.splitlines()) == 2 and not err


def test_what_the_server_refuses(servers):
    tnews = servers("tnews")
    data = ["--data_dir", SAMPLE_DATA, "--dataset"]
    refused(["answered 422", "`text` is empty"], "tnews", tnews, "--text", " ")
    refused(["answered 422", "single texts; got two texts"], "tnews", tnews, "--text", "球", "--text_pair", "球")
    says = ["texts 1 to 65: ", "answered 413: texts of a request: 65, the limit is 64 (--batch_size"]
    refused(says, "tnews", tnews, *data, "tnews", "--batch_size", 65, "--concurrency", 1)
    says = ["no model other at http", "--model can be ernie_cls (seq_cls)"]
    refused(says, "tnews", tnews, "--model", "other")
    refused(says, "tnews", tnews, *data, "tnews", "--model", "other")
    refused(["no model ernie_ner", "ernie_cls"], "msra_ner", tnews)
    refused(["answers in another form than server_token_cls.py"], "msra_ner", tnews, "--model", "ernie_cls")
    refused(["the label '1'", "it knows 100, 101"], "tnews", tnews, *data, "afqmc")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--dataset", "tnews"], "--dataset and --data_dir belong together"),
        (["--dataset", "tnews", "--data_dir", "x", "--text", "球"], "--dataset sends a dev set, --text one text"),
        (["--text_pair", "球"], "--text_pair needs --text"),
        (["--url", "127.0.0.1:8189"], "expected an address such as http://127.0.0.1:8189"),
        (["--batch_size", "0"], "--batch_size: 0: expected a whole number, 1 or more"),
        (["--timeout", "nan"], "--timeout: nan: expected seconds"),
        (["--retries", "-1"], "--retries: -1: expected a whole number, 0 or more"),
    ],
)
def test_wrong_flags(more, says):
    refused([says], "tnews", "http://127.0.0.1:9", *more, status=2)


def test_wrong_files():
    refused(["no file dev.json in", "holds test.tsv"], "tnews", "http://127.0.0.1:9", "--dataset", "msra_ner",
            "--data_dir", SAMPLE_DATA)  # fmt: skip


def test_no_server():
    url = f"http://127.0.0.1:{free_port()}"
    says = [f"no server listens at {url} (Connection refused); start one with: python server_qa.py --model_path DIR"]
    refused(says, "cmrc2018", url)
    refused(says, "cmrc2018", url, "--dataset", "cmrc2018", "--data_dir", SAMPLE_DATA)


# ------------------------------------------------------------------------- what a server does that is full or ends

GOOD = {"result": {"label": [3], "label_name": ["103"], "confidence": [0.5]}}

INFO = {"models": [{"name": "ernie_cls", "route": "/models/ernie_cls", "task": "seq_cls", "labels": ["103"]}]}


@contextlib.contextmanager
def listening(*responses):
    """A server that gives these responses in turn, the last one for ever; yields (url, POST requests that came).

    A response is (status, headers, JSON or bytes), or a function of the handler.
    """
    came = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer((200, {}, INFO))

        def do_POST(self):
            content = self.rfile.read(int(self.headers["content-length"]))
            came.append((time.monotonic(), dict(self.headers), json.loads(content)))
            self.answer(responses[min(len(came), len(responses)) - 1])

        def answer(self, response):
            if callable(response):
                return response(self)
            status, headers, body = response
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def lose(handler):
    handler.close_connection = True


def test_retries_wait_as_the_server_asks():
    full = (429, {"retry-after": 1}, {"error": "the queue is full", "error_type": "overloaded"})
    starting = (503, {"retry-after": 0}, {"error": "the model is being opened", "error_type": "unavailable"})
    good = (200, {"x-truncated-texts": 1}, {**GOOD, "warnings": ["1 text is longer than 8 tokens", "other"]})
    with listening(full, lose, starting, starting, good) as (url, came):
        out, err = run("tnews", url, "--text", "球", "--max_seq_len", 8, API_KEY="secret\n")
    assert out == "球\n    103    confidence 0.500\n"
    assert len(came) == 5 and all(body == {"data": {"text": ["球"]}, "parameters": {"max_seq_len": 8}}
                                  for _, _, body in came)  # fmt: skip
    assert all(headers["Authorization"] == "Bearer secret" for _, headers, _ in came)
    assert came[1][0] - came[0][0] >= 1 and came[4][0] - came[3][0] < 2  # left to itself, it would wait for 2 s
    lines = err.splitlines()
    for part in ("answered 429: the queue is full; trying again", "the connection was lost", "answered 503: the model"):
        assert sum(part in line for line in lines) == 1
    assert lines[-3:] == ["warning: 1 text is longer than 8 tokens", "warning: other", "1 of 1 texts were truncated"]


def test_retries_have_an_end():
    with listening((429, {"retry-after": 0}, {"error": "the queue is full"})) as (url, came):
        _, err = run("tnews", url, "--text", "球", "--retries", 2, status=1)
    assert len(came) == 3 and "answered 429: the queue is full (tried 3 times)" in err.splitlines()[-1]
    with listening((503, {"retry-after": 3600}, {"error": "broken"})) as (url, came):
        refused(["answered 503: broken (it asks to wait for 3600 s)"], "tnews", url, "--text", "球")
    assert len(came) == 1


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ((504, {}, {"error": "the request waited for more than 30 s"}), "for more than 30 s (--concurrency and"),
        ((401, {}, {"error": "expected a key"}), "answered 401: expected a key (--api_key KEY, or API_KEY"),
        ((502, {}, b"<html>\nBad\xff Gateway</html>"), "answered 502: <html> Bad"),
        ((200, {}, b"hello"), "answers in another form than server_seq_cls.py does"),
        ((200, {}, {"result": {"label": ["1", "2"]}}), "answers in another form"),
        ((200, {}, [1]), "answers in another form"),
        ((301, {"location": "/elsewhere"}, b""), "answered 301"),
        (lambda handler: threading.Event().wait(1.5) or lose(handler), "no answer within --timeout 0.5 s"),
    ],
)
def test_what_is_not_tried_again(response, says):
    with listening(response) as (url, came):
        refused([says], "tnews", url, "--text", "球", "--timeout", 0.5 if callable(response) else 30)
    assert len(came) == 1


def test_ctrl_c(tmp_path):
    """While requests wait for answers: at once, quietly, and no file is left."""
    asked, over = threading.Barrier(4), threading.Event()

    def wait(handler):
        asked.wait(60)
        over.wait(60)

    rows = '{"sentence": "球", "label": "103"}\n' * 9
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "dev.json").write_text(rows, encoding="utf-8")
    with listening(wait) as (url, _):
        more = ["--dataset", "own", "--data_dir", tmp_path, "--batch_size", 1, "--concurrency", 3]
        started = command("tnews", url, *more, "--output", tmp_path / "out.jsonl")
        client = subprocess.Popen(
            started,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background of a shell ignores the signal, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        asked.wait(60)
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=10)
        over.set()
    assert (client.returncode, out, err) == (130, "", "")
    assert os.listdir(tmp_path) == ["own"]


def test_a_client_needs_nothing_that_servers_need():
    code = (
        f"import sys; sys.path.insert(0, {str(SERVING)!r}); import ernie_client; "
        "assert not {'fastapi', 'uvicorn', 'onnxruntime', 'openvino', 'tokenizers', 'paddle', 'ernie'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
