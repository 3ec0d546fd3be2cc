"""Malformed and hostile requests against the servers: each gets an answer or nothing, and the server goes on.

python tests/serving_fuzz.py --model_path best_models/tnews/export best_models/msra_ner/export \\
    best_models/cmrc2018/export
python tests/serving_fuzz.py --model_path best_models/tnews/export --requests 1000 --seed 7 --only tensors

Every model folder gets the server of its task, and 10,000 requests over raw sockets, the same for the same seed: wrong
types and fields, bombs, texts of all kinds, broken encodings, lengths that lie, slow, cut and endless bodies, broken
HTTP, odd headers, methods and paths, and binary tensors that do not add up. Checked are:

- no status of 500 or more but 503 and 504, in the answers and in the server's own count;
- an error in JSON has `error` and `error_type` and nothing else, and no answer shows a path or a traceback;
- whatever is complete gets an answer; after each hundred a good request gets the right one;
- at the end nothing is in flight and the queue is empty, the log has no traceback, and the resident memory has
  not grown by more than 10% (median of the first three readings, and of the last three: one per 1,000 requests).

Exit status 1 if anything fails; what failed is printed with its request and its answer.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import harness  # isort: skip  makes the project's packages importable

import asyncio
import contextlib
import copy
import gzip
import json
import random
import re
import socket
import statistics
import struct
import tempfile
import time
from typing import NamedTuple

from ernie_predictor import load_task
from harness.servers import SERVERS, SERVING, ServerProcess, same_answer
from tqdm import tqdm

GROWTH = 0.10
PATIENCE = 60  # seconds, for an answer
HEADER = "Inference-Header-Content-Length"
LEAKS = re.compile(rb'Traceback|File "|site-packages|\.py\b|' + re.escape(str(harness.ROOT).encode()))
JSON_TYPE = ("Content-Type", "application/json")

TEXT = "今天的比赛，北京队在上海赢了。"
# What stands where a text, a list, a number or an object belongs.
ODD_VALUES = (
    None, True, False, 0, -1, 1, 7, 1.5, -0.0, 1e308, 2**31, 2**63, 10**30, 10**3000, "", " ", "\n", "x", "0", "null",
    "\x00", "\ud83d", "a\udc00b", "\ufeff", "\u202e", "\U0001f600", TEXT, [], {}, [[]], [{}], [None], [1], [""], [TEXT],
    ["a", None], ["a", ["b"]], [[TEXT, TEXT]], {"text": TEXT}, {"": ""}, {"$ref": "#"}, {"__class__": "x"},
)  # fmt: skip
ODD_KEYS = ("", "Text", "texts", "text ", "\x00", "\ud800", "data", "parameters", "__proto__", "label", "k" * 5000)
ODD_TEXTS = (
    "", " ", "\t\r\n", "\u3000", "\x00", "\x00" * 50, "\x1b[2J", "\x7f", "\u200b", "\u202e" + TEXT,
    "e" + "\u0301" * 5000, "\ud800", "\udfff" + TEXT, "\ud83d\ud83d", "[CLS]", "[SEP][PAD][MASK]" * 100, "[UNK",
    "\ufffd", "\uffff",
    "\U0010ffff", "Ⱥ" * 100, "İ" * 100, "ß" * 300, "ﷺ" * 200, "あ" * 300, "\U00020000" * 50, "a" * 50_000,
    "字" * 20_000, "a " * 20_000, "。" * 3000, "𝔘𝔫𝔦", "<script>alert(1)</script>", "'; DROP TABLE texts; --", "{{7*7}}",
    "../../etc/passwd", "%s%n%x", "\r\nHTTP/1.1 200 OK\r\n\r\n",
)  # fmt: skip
METHODS = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST", "FOO", "get", "PROPFIND", "X" * 300)


class Case(NamedTuple):
    """A request.

    Attributes:
        family: what kind it is.
        sends: bytes to send and seconds to wait, one after another.
        answers: how many answers must come; with 0 the client goes away after it has sent.
        end: how the client goes away: "close", "reset", or "half" (closes its side and reads on).
    """

    family: str
    sends: tuple
    answers: int = 1
    end: str = "close"


class Target(NamedTuple):
    """What is asked: the paths of a server, and good requests to make bad ones from."""

    task: str
    route: str

    @property
    def infer(self):
        return f"/v2{self.route}/infer"

    def body(self):
        """A good one of the published route."""
        texts = {"text": [TEXT, "足球"]} if self.task != "qa" else {"question": ["谁赢了？"], "context": [TEXT]}
        return {"data": texts, "parameters": {"max_seq_len": 64, "batch_size": 2}}

    def tensors(self):
        """A good body of the Open Inference Protocol."""
        inputs = [
            {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": texts}
            for name, texts in self.body()["data"].items()
        ]
        output = {"seq_cls": "label", "token_cls": "entities", "qa": "answer"}[self.task]
        return {"id": "1", "inputs": inputs, "outputs": [{"name": output}]}

    def forms(self):
        """Both routes, and a good body of each."""
        return (self.route, self.body()), (self.infer, self.tensors())

    def with_text(self, text):
        """A good body but for one text."""
        body = self.body()
        body["data"]["context" if self.task == "qa" else "text"][-1] = text
        return body


def to_bytes(value):
    """JSON, with lone surrogates as escapes."""
    return json.dumps(value).encode()


def latin(value):
    return value if isinstance(value, bytes) else str(value).encode("latin-1")


def request(path, content=b"", *headers, method="POST", length=True):
    """A request as bytes; `length`: whether, or which, Content-Length it has."""
    headers = [("Host", "127.0.0.1"), *headers]
    if length is not False:
        headers.append(("Content-Length", len(content) if length is True else length))
    lines = [f"{method} {path} HTTP/1.1".encode(), *(latin(name) + b": " + latin(value) for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + content


def post(path, value, *headers):
    return request(path, value if isinstance(value, bytes) else to_bytes(value), JSON_TYPE, *headers)


def chunked(*chunks):
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def places_of(value):
    """Every (owner, key) of lists and objects in each other."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places_of(value[key])


def mutated(g, value):
    """JSON with one to three changes at random places: another value, a key more or less, a list longer or shorter."""
    root = {"": copy.deepcopy(value)}
    for _ in range(g.choice((1, 1, 1, 2, 3))):
        owner, key = g.choice(list(places_of(root)))
        change = g.random()
        if change < 0.6 or owner is root:
            owner[key] = copy.deepcopy(g.choice(ODD_VALUES))
        elif change < 0.75:
            del owner[key]
        elif isinstance(owner, dict):
            owner[g.choice(ODD_KEYS)] = copy.deepcopy(g.choice((owner[key], *ODD_VALUES)))
        else:
            owner.extend([owner[key]] * g.choice((1, 2, 2000)))
    return root[""]


# Families: functions of (random.Random, Target) that return the fields of a Case but the first.
FAMILIES = {}  # {function: how many of a thousand, in proportion}


def complete(*sends):
    """A request that gets an answer."""
    return sends, 1


def family(weight):
    def add(function):
        FAMILIES[function] = weight
        return function

    return add


@family(50)
def wrong_fields(g, t):
    path, good = g.choice(t.forms())
    if g.random() < 0.1:
        names = ("max_seq_len", "batch_size", "doc_stride", "max_answer_length", "is_split_into_words", "x" * 100_000)
        good["parameters"] = {g.choice(names): g.choice((*ODD_VALUES, 8, 9, 511, 10**9)) for _ in range(3)}
        return complete(post(path, good))
    return complete(post(path, mutated(g, good)))


@family(6)
def bombs(g, t):
    """Nested deeply, at every place where JSON may stand."""
    depth = g.choice((5, 90, 300, 600, 900, 950, 990, 1500, 10_000, 200_000))
    opening, closing = g.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
    bomb = opening * depth + b"0" + closing * depth
    path, value = g.choice(t.forms())
    owner, key = g.choice(list(places_of(value)))
    owner[key] = "BOMB"
    return complete(post(path, g.choice((to_bytes(value).replace(b'"BOMB"', bomb), bomb))))


@family(14)
def broken_json(g, t):
    """Cut, mixed with other bytes, keys that come twice, other encodings."""
    path, good = g.choice(t.forms())
    content = to_bytes(good)
    place = g.randrange(len(content))
    piece = g.choice((b"", b",", b"}", b"]", b'"', b"\\", b"NaN", b"-Infinity", b"1" * 5000, b"0x1", b"1e999", b"//",
                      b"'", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\\ud800",
                      b"\\u12"))  # fmt: skip
    encoding = g.choice(("utf-16", "utf-32", "utf-8-sig", "gbk", "utf-7", "big5hkscs"))
    encoded = json.dumps(good, ensure_ascii=False).encode(encoding, "replace")
    content_type = ("Content-Type", f"application/json; charset={g.choice((encoding, 'utf-8', 'none', ''))}")
    twice = b'{"data": %s, ' % to_bytes(g.choice(ODD_VALUES)) + content[1:]
    random_bytes = bytes(g.randrange(256) for _ in range(200))
    broken = (content[:place], content[:place] + piece + content[place + g.randrange(3) :], content[::-1], content * 2,
              piece, random_bytes, encoded, twice)  # fmt: skip
    return complete(request(path, g.choice(broken), content_type))


@family(12)
def odd_texts(g, t):
    text = g.choice(ODD_TEXTS)
    if g.random() < 0.3:
        text = "".join(chr(g.randrange(0x110000)) for _ in range(g.choice((1, 5, 100))))
    _, (infer, tensors) = t.forms()
    if g.random() < 0.5:
        return complete(post(t.route, t.with_text(text)))
    tensors["inputs"][-1]["data"][-1] = text
    return complete(post(infer, tensors))


@family(3)
def too_much(g, t):
    """Too many texts, too long a text, too large a body (413); long lists and large numbers in place of one value."""
    values = ({"text": ["a"] * 1025}, {"text": "a" * 100_001}, {"text": "a" * 9_000_000}, {"text": ["字" * 9000] * 400},
              {"k" * 1_000_000: [0] * 200_000})  # fmt: skip
    (path, _), (infer, tensors) = t.forms()
    change = g.choice((
        {},
        {"outputs": tensors["outputs"] * g.choice((2, 1000, 100_000))},
        {"inputs": tensors["inputs"] * g.choice((2, 1000, 20_000))},
        {"id": g.choice(("x" * 500_000, [0] * 100_000, {"a": {"b": "\ud800"}}, "\udc80", 10**2000))},
        {"inputs": [{**tensors["inputs"][0], "shape": [g.choice((0, 2, 10**4000))] * g.choice((1, 5, 1500))}]},
    ))  # fmt: skip
    return complete(post(infer, {**tensors, **change}) if change else post(path, {"data": g.choice(values)}))


@family(17)
def binary_tensors(g, t):
    """The binary form of the Open Inference Protocol, with lengths that lie at every level."""
    _, (infer, tensors) = t.forms()
    parts = []
    for tensor in tensors["inputs"]:
        texts = [text.encode() for text in tensor.pop("data")]
        lies = g.random() < 0.5
        lengths = [g.choice((0, 1, len(x) + 1, 2**31, 2**32 - 1)) if lies else len(x) for x in texts]
        part = b"".join(struct.pack("<I", n) + text for n, text in zip(lengths, texts))
        if g.random() < 0.2:
            part = g.choice((b"", b"\x00", b"\xff" * 7, part[:-1], part + b"\x00\x00", b"\x01\x00\x00\x00\xff"))
        size = len(part)
        if g.random() < 0.4:
            size = g.choice((-1, 0, 1, 3, size - 1, size + 1, 2**31, 2**70, 1.5, True, "7", None, [size], {}))
        tensor["parameters"] = g.choice(ODD_VALUES) if g.random() < 0.1 else {"binary_data_size": size}
        parts.append(part)
    tensors["parameters"] = {"binary_data_output": g.choice((True, False, 1, "x", None))}
    head = to_bytes(tensors)
    header = len(head)
    if g.random() < 0.4:
        header = g.choice((-1, 0, 1, header - 1, header + 1, 2**63, "", "x", "1.0", "+5", "²", "1" * 5000, "0x10", " ",
                           f"{header},{header}", f"0{header}", "1_0"))  # fmt: skip
    if g.random() < 0.1:  # the length of a header, and no binary data
        return complete(post(infer, t.tensors(), *[(HEADER, header)] * g.choice((1, 2))))
    return complete(
        request(infer, head + b"".join(parts), ("Content-Type", "application/octet-stream"), (HEADER, header))
    )


@family(6)
def lengths_that_lie(g, t):
    content = to_bytes(t.body())
    path = g.choice((t.route, t.infer, "/health", "/nothing"))
    kind = g.randrange(4)
    if kind == 0:  # too short: what is left over is no request
        return complete(request(path, content, JSON_TYPE, length=g.randrange(len(content))))
    if kind == 1:  # too long: the rest never comes
        return (request(path, content, JSON_TYPE, length=len(content) + g.choice((1, 1000, 2**40))), 0.02), 0
    if kind == 2:
        length = g.choice((-1, "abc", "", "1e3", "0x20", "+10", "1 0", "9" * 30, "9" * 5000, "²", "10, 20", " "))
        return complete(request(path, content, JSON_TYPE, length=length))
    lengths = (("Content-Length", len(content)), ("Content-Length", g.randrange(1000, 2000)))
    return complete(request(path, content, JSON_TYPE, *lengths, length=False))


@family(6)
def chunked_bodies(g, t):
    def head(encoding="chunked"):
        return request(t.route, b"", JSON_TYPE, ("Transfer-Encoding", encoding), length=False)

    content, end = to_bytes(t.body()), b"0\r\n\r\n"
    sizes = (b"-1", b"zz", b"ffffffffffffffffffff", b"0x5", b"", b"5;x=" + b"y" * 20_000, b" 5", b"1" * 5000)
    both = request(t.route, chunked(content) + end, JSON_TYPE, ("Transfer-Encoding", "chunked"), length=5)
    other = g.choice(("gzip", "gzip, chunked", "identity", "chunked, chunked", "xchunked", "\x0bchunked", ""))
    return g.choice((
        complete(head("Chunked"), *(chunked(content[i : i + 7]) for i in range(0, len(content), 7)), end),  # in pieces
        complete(head(), *[chunked(b" " * 2**20)] * 9),  # never ends: until the limit of a body
        complete(request(t.route, content, JSON_TYPE, ("Transfer-Encoding", other))),
        ((head(), chunked(content), g.choice((0.0, 0.05)), chunked(b" "), 0.02), 0),  # never ends, and stalls
        ((head() + g.choice(sizes) + b"\r\n" + content + b"\r\n" + end, 0.02), 0),
        ((head() + chunked(content) + b"0\r\nX-A: b\r\n" * 2 + b"\r\n", 0.02), 0),  # trailers
        ((head() + b"5\r\n" + content + b"\r\n" + end,), 0),  # a chunk longer than it says
        ((both, 0.02), 0),
    ))  # fmt: skip


@family(19)
def slow_and_cut(g, t):
    """Slow bodies; clients that go away at any byte of a good request, or at any moment after it."""
    if g.random() < 0.25:
        content = post(t.route, t.body())
        cuts = sorted(g.sample(range(1, len(content)), 4))
        pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)])]
        return complete(*(x for piece in pieces for x in (piece, g.choice((0.0, 0.005, 0.03)))))
    content = g.choice((post(t.route, t.body()), post(t.infer, t.tensors()), post(t.route, t.with_text(TEXT * 500))))
    place = g.choice((g.randrange(len(content)), len(content)))
    wait = () if place < len(content) else (g.choice((0.0, 0.001, 0.003, 0.01)),)
    return (content[:place], *wait), 0, g.choice(("close", "reset", "half"))


@family(5)
def broken_http(g, t):
    """Request lines and header lines that are none, and a websocket that nobody offers."""
    lines = (b"", b"\x00", b"GET", b"GET /", b"GET / HTTP/9.9", b"GET  / HTTP/1.1", b"/ GET HTTP/1.1", b"GET / FTP/1.1",
             b"GET /\x00 HTTP/1.1", b"GET /\xff HTTP/1.1", b"PRI * HTTP/2.0", b"GET / HTTP/1.1 x", b"\x16\x03\x01\x02",
             b"GET " + b"/a" * 50_000 + b" HTTP/1.1", bytes(g.randrange(256) for _ in range(60)))  # fmt: skip
    headers = (b"no colon", b": nothing", b"a b: c", b"X: a\x00b", b"X: a\rb", b" folded: x", b"X\x7f: 1", b"\xff: 1")
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x"
    line, header = g.choice(((g.choice(lines), b"X: 1"), (b"POST %s HTTP/1.1" % t.route.encode(), g.choice(headers)),
                             (b"GET / HTTP/1.1", upgrade)))  # fmt: skip
    return (line + b"\r\nHost: 127.0.0.1\r\n" + header + b"\r\nContent-Length: 0\r\n\r\n", 0.02), 0


@family(12)
def odd_headers(g, t):
    """Many, long, and wrong ones; types of content that are not JSON; compressed bodies; without Host, or with two."""
    content = to_bytes(t.body())
    kind = g.randrange(5)
    if kind == 0:
        headers = [(f"X-{n}", "y" * g.choice((1, 20))) for n in range(g.choice((100, 1000, 5000)))]
    elif kind == 1:
        headers = [("X-A", "y" * g.choice((10_000, 60_000, 200_000)))]
    elif kind == 2:
        types = ("text/plain", "multipart/form-data; boundary=x", "", "x" * 3000, "\xff", "application/jso",
                 "application/x-www-form-urlencoded", "application/octet-stream", "application/json;;;")  # fmt: skip
        headers = [("Content-Type", g.choice(types))]
        content = g.choice((content, b"text=a&text=b", b"--x\r\n\r\na\r\n--x--\r\n", b"<text>a</text>"))
    elif kind == 3:
        content = gzip.compress(g.choice((content, b" " * 10_000_000)))
        headers = [("Content-Encoding", g.choice(("gzip", "deflate", "br", "identity", "gzip, gzip", "x")))]
    else:
        names = ("Host", "X-Request-ID", "Authorization", "Accept", "Connection", "Expect", "Upgrade", "Origin",
                 "X-Forwarded-For", "X-Forwarded-Proto", "X-HTTP-Method-Override", "Forwarded", "Cookie",
                 "Range")  # fmt: skip
        values = ("", "[", "[::1", "a b", "\xff\xfe", "\xe4\xbd", "close", "keep-alive, x", "100-continue", "h2c",
                  "websocket", "x" * 500, "127.0.0.1:99999", "\t", "' or 1=1", "<x>", "../..", "x")  # fmt: skip
        headers = [(g.choice(names), g.choice(values))]
    sent = request(g.choice((t.route, t.infer)), content, *headers)
    return complete(
        sent.replace(b"Host: 127.0.0.1\r\n", b"", 1) if headers[0][0] == "Host" and g.random() < 0.8 else sent
    )


@family(9)
def methods_and_paths(g, t):
    name = g.choice(("", ".", "..", "%2e%2e", "%00", "%ff", "%E4%BD%A0", "a%2Fb", "a;b", "x" * 5000, "%", "%zz", "{}",
                     "$%7Bx%7D", "%0d%0aX:1", "ernie_cls%20", "ERNIE_CLS", "ernie_cls/versions/1", "'"))  # fmt: skip
    odd = (f"/v2/models/{name}/infer", f"/v2/models/{name}", f"/models/{name}", f"/{name}", f"//{name}",
           f"{t.route}/{name}", f"{t.route}?{name}", f"{t.route}#{name}", f"http://[{name}", f"/static/{name}",
           f"http://127.0.0.1{t.route}")  # fmt: skip
    known = (t.route, t.infer, "/", "/health", "/ready", "/info", "/metrics", "/docs", "/openapi.json", "/v2", "*")
    path, method = g.choice(((g.choice(odd), g.choice(("POST", "GET"))), (g.choice(known), g.choice(METHODS))))
    return complete(request(path, to_bytes(t.body()) if g.random() < 0.5 else b"", JSON_TYPE, method=method))


@family(4)
def pipelined(g, t):
    """Good and bad requests on one connection, sent at once."""
    good, bad = post(t.route, t.body()), post(t.route, g.choice((b"{", {"data": 1}, {"data": {"x": 1}})))
    row = [g.choice((good, bad, request("/health", method="GET"))) for _ in range(g.randrange(2, 6))]
    return (b"".join(row),), len(row)


def cases(target, number, seed=0, only=""):
    """Yields `Case`, the same for the same seed; of each 1,000 as many of a family, as far as that goes."""
    chosen = {function: weight for function, weight in FAMILIES.items() if only in function.__name__}
    generator = random.Random(f"{seed} {target.task}")
    share = 1000 / sum(chosen.values())
    while number > 0:
        some = [function for function, weight in chosen.items() for _ in range(round(weight * share))]
        generator.shuffle(some)
        for function in some[:number]:
            yield Case(function.__name__.replace("_", " "), *function(generator, target))
        number -= len(some)


async def send(port, case):
    """Sends a request; (its answers, [(status, headers, body)], and what kept one from coming, or None)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    answers, why = [], None
    try:
        try:
            for part in case.sends:
                if isinstance(part, bytes):
                    writer.write(part)
                    await writer.drain()
                else:
                    await asyncio.sleep(part)
        except ConnectionError:
            pass  # refused before it was sent whole; the answer is there to read
        if case.end == "half":
            with contextlib.suppress(OSError):
                writer.write_eof()
        no_body = case.sends[0].startswith(b"HEAD ")
        for _ in range(case.answers):
            answers.append(await asyncio.wait_for(read_answer(reader, no_body), PATIENCE))
    except asyncio.TimeoutError:
        why = f"no answer within {PATIENCE} s"
    except (EOFError, ConnectionError) as e:
        why = f"no answer: {type(e).__name__}"
    finally:
        if case.end == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answers, why


async def read_answer(reader, no_body=False):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    status = int(lines[0].split()[1])
    if status == 100:
        return await read_answer(reader, no_body)
    if no_body:
        body = b""
    elif headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:size]
        await reader.readline()
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    return status, headers, body


def fault_of(answer, no_body=False):
    """What is wrong with an answer, or None."""
    status, headers, body = answer
    if status >= 500 and status not in (503, 504):
        return f"status {status}"
    if LEAKS.search(body):
        return "shows a path or a traceback"
    if len(body) > 2000 and status >= 400:
        return f"an error of {len(body):,} bytes"
    is_json = headers.get("content-type", "").startswith("application/json")
    if not is_json or no_body:
        return None
    try:
        value = json.loads(body)
    except ValueError:
        return "says that it is JSON and is not"
    if status >= 400 and not (
        isinstance(value, dict)
        and set(value) == {"error", "error_type"}
        and all(value.values())
        and all(isinstance(text, str) for text in value.values())
    ):
        return "an error without exactly `error` and `error_type`"
    return None


class Fuzz:
    """A server under attack.

    Attributes:
        faults: [(what is wrong, Case or None, answer or None)].
        statuses: {family: {status: number of answers}}.
    """

    def __init__(self, server, target, parallel=16):
        self.server, self.target, self.parallel = server, target, parallel
        self.faults, self.statuses = [], {}
        _, self.expected = self.ask_well()

    def ask_well(self):
        return self.server.ask("POST", self.target.route, self.target.body())

    async def _run(self, some):
        gate = asyncio.Semaphore(self.parallel)

        async def one(case):
            async with gate:
                answers, why = await send(self.server.port, case)
            if why:
                self.faults.append((why, case, answers[-1] if answers else None))
            counts = self.statuses.setdefault(case.family, {})
            for answer in answers:
                counts[answer[0]] = counts.get(answer[0], 0) + 1
                if why := fault_of(answer, case.sends[0].startswith(b"HEAD ")):
                    self.faults.append((why, case, answer))

        await asyncio.gather(*map(one, some))

    def run(self, some):
        """Sends requests, and then a good one, which must be answered as before the attack."""
        asyncio.run(self._run(some))
        status, answer = self.ask_well()
        if status != 200 or not same_answer(answer, self.expected):
            self.faults.append((f"a good request right after got {status}: {answer!r:.300}", None, None))

    def metrics(self):
        _, text = self.server.ask("GET", "/metrics")
        return {name: float(value) for name, value in re.findall(r"^(ernie_\S+) (\S+)$", text, re.M)}

    def busy(self):
        """What is in flight or in the queue; the request for the metrics is in flight itself."""
        names = ("ernie_queue_t", "ernie_requests_in_flight")
        return {k: v for k, v in self.metrics().items() if k.startswith(names) and v > ("in_flight" in k)}

    def finish(self):
        """What must hold when all clients are gone: nothing in flight, an empty queue, no 5xx, no traceback."""
        end = time.monotonic() + PATIENCE
        while self.busy() and time.monotonic() < end:
            time.sleep(0.05)
        if busy := self.busy():
            self.faults.append((f"after {PATIENCE} s without clients: {busy}", None, None))
        for name, value in self.metrics().items():
            if re.search(r'^ernie_requests_total.*status="5(?!03|04)\d\d"', name):
                self.faults.append((f"the server counts {value:g} x {name}", None, None))
        log = self.server.log.read_text(errors="replace")
        if number := log.count("Traceback (most recent call last)"):
            first = log[log.index("Traceback") :][:3000]
            self.faults.append((f"the log has {number} tracebacks; the first:\n{first}", None, None))


def good_cases(target, number, seed=0):
    """Good requests of one to 64 texts of any length: engines keep something of every shape of a batch."""
    generator = random.Random(seed)
    for _ in range(number):
        texts = [TEXT * generator.randint(1, 30) for _ in range(generator.choice((1, 2, 4, 8, 16, 32, 64)))]
        data = {"text": texts} if target.task != "qa" else {"question": ["谁赢了？"] * len(texts), "context": texts}
        yield Case("good", (post(target.route, {"data": data}),))


def describe(faults):
    """Each kind of fault once, with its first request and answer."""
    kinds = {}
    for why, case, answer in faults:
        kinds.setdefault((why, case and case.family), []).append((case, answer))
    for (why, family), found in kinds.items():
        case, answer = found[0]
        yield f"- {len(found):,} x {why}"
        if case is not None:
            sent = b"".join(part for part in case.sends if isinstance(part, bytes))
            shown = sent if len(sent) < 900 else sent[:600] + b" ... " + sent[-200:]
            yield f"  {family}, {len(sent):,} bytes: {shown!r}"
        if answer is not None:
            yield f"  answer: {answer[0]} {answer[2][:300]!r}"


def fuzz(folder, args, log):
    """Attacks the server of one model folder; returns its faults, and a row of the table."""
    task = load_task(folder).name
    script, route = SERVERS[task]
    target = Target(task, route)
    with ServerProcess([sys.executable, SERVING / script, "--model_path", folder], log) as server:
        attack, memory = Fuzz(server, target), []
        attack.run(good_cases(target, args.warm_up))
        todo, bar = list(cases(target, args.requests, args.seed, args.only)), tqdm(total=args.requests, disable=None)
        start = time.perf_counter()
        for begin in range(0, len(todo), 100):
            attack.run(todo[begin : begin + 100])
            bar.update(len(todo[begin : begin + 100]))
            if (begin + 100) % 1000 == 0 or begin + 100 >= len(todo):
                memory.append(server.memory() / 2**20)
        bar.close()
        seconds = time.perf_counter() - start
        attack.finish()
    # Single readings swing by a tenth either way, with the requests just answered.
    first, last = statistics.median(memory[:3]), statistics.median(memory[-3:])
    if last > (1 + GROWTH) * first:
        attack.faults.append(
            (f"memory: {first:.0f} MB at the beginning, {last:.0f} MB at the end (medians of 3)", None, None)
        )
    sizes = ", ".join(f"{size:.0f}" for size in memory)
    return attack, [script, f"{len(todo):,}", f"{seconds:.0f}", sizes, len(attack.faults)]


def main():
    parser = harness.parser(__doc__, "seed")
    add = parser.add_argument
    add("--model_path", required=True, nargs="+", help="folders that run_*.py --do_export or compress_*.py wrote")
    add("--requests", type=int, default=10_000, help="for each")
    add("--warm_up", type=int, default=300, help="good requests before, whose memory is no attack's")
    add("--only", default="", help="part of the name of a family")
    args = parser.parse_args()
    args.only = args.only.replace(" ", "_")
    if not any(args.only in family.__name__ for family in FAMILIES):
        parser.error(f"--only {args.only}: expected a part of {', '.join(f.__name__ for f in FAMILIES)}")

    rows, failed = [], False
    for folder in args.model_path:
        with tempfile.TemporaryDirectory() as logs:
            attack, row = fuzz(folder, args, Path(logs, "server.log"))
        rows.append(row)
        failed |= bool(attack.faults)
        print(f"\n{folder}: statuses by family")
        for family, counts in sorted(attack.statuses.items()):
            print(f"  {family}: " + ", ".join(f"{number:,} x {status}" for status, number in sorted(counts.items())))
        print(*describe(attack.faults), sep="\n")
    header = ["Server", "Requests", "Seconds", "Resident after each 1,000, MB", "Faults"]
    print(f"\n{harness.markdown(header, rows)}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
