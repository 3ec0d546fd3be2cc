"""Malformed and hostile requests against the servers: each gets an answer or nothing, and the server goes on.

python benchmarks/serving_fuzz.py --model_path best_models/tnews/export best_models/msra_ner/export \\
    best_models/cmrc2018/export
python benchmarks/serving_fuzz.py --model_path best_models/tnews/export --requests 1000 --seed 7 --only "v2"

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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "predictor"))

import argparse
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
from serving_load import SERVING, ServerProcess
from serving_soak import SERVERS
from tqdm import tqdm

GROWTH = 0.10
PATIENCE = 60  # seconds, for an answer
HEADER = "inference-header-content-length"
LEAKS = re.compile(rb'Traceback|File "|site-packages|\.py\b|' + re.escape(str(ROOT).encode()))
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
        return {"id": "1", "inputs": inputs, "outputs": [{"name": self.outputs()[0]}]}

    def outputs(self):
        return {"seq_cls": ("label", "confidence"), "token_cls": ("entities",), "qa": ("answer", "start")}[self.task]

    def with_text(self, text):
        """A good body but for one text."""
        body = self.body()
        body["data"]["context" if self.task == "qa" else "text"][-1] = text
        return body


def to_bytes(value):
    """JSON, with lone surrogates as escapes."""
    return json.dumps(value).encode()


def request(path, content=b"", *headers, method="POST", length=True):
    """A request as bytes; `length`: whether, or which, Content-Length it has."""
    headers = [("Host", "127.0.0.1"), *headers]
    if length is not False:
        headers.append(("Content-Length", len(content) if length is True else length))
    lines = [f"{method} {path} HTTP/1.1".encode(), *(_latin(name) + b": " + _latin(value) for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + content


def _latin(value):
    return value if isinstance(value, bytes) else str(value).encode("latin-1")


def post(path, value, *headers):
    return request(path, value if isinstance(value, bytes) else to_bytes(value), JSON_TYPE, *headers)


def chunked(*chunks):
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def nested(generator):
    """A bomb, as bytes of JSON: lists or objects in each other."""
    depth = generator.choice((5, 90, 300, 600, 900, 950, 990, 1500, 10_000, 200_000))
    opening, closing = generator.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
    return opening * depth + b"0" + closing * depth


def places_of(value):
    """Every (owner, key) of lists and objects in each other."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places_of(value[key])


def mutated(generator, value):
    """JSON with one to three changes at random places: another value, a key more or less, a list longer or shorter."""
    value = copy.deepcopy(value)
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        places = list(places_of(value))
        if not places:
            return value
        owner, key = generator.choice(places)
        change = generator.random()
        if change < 0.6:
            owner[key] = copy.deepcopy(generator.choice(ODD_VALUES))
        elif change < 0.75:
            del owner[key]
        elif isinstance(owner, dict):
            owner[generator.choice(ODD_KEYS)] = copy.deepcopy(generator.choice((owner[key], *ODD_VALUES)))
        else:
            owner.extend([owner[key]] * generator.choice((1, 2, 2000)))
    return value


# Families: functions of (random.Random, Target) that return the fields of a Case but the first.
def wrong_fields(g, t):
    return (post(t.route, mutated(g, t.body())),), 1


def wrong_fields_v2(g, t):
    return (post(t.infer, mutated(g, t.tensors())),), 1


def another_document(g, t):
    return (post(g.choice((t.route, t.infer)), g.choice(ODD_VALUES)),), 1


def bombs(g, t):
    """Nested deeply, at every place where JSON may stand."""
    path, value = g.choice(((t.route, t.body()), (t.infer, t.tensors())))
    owner, key = g.choice(list(places_of(value)))
    owner[key] = "BOMB"
    inside = to_bytes(value).replace(b'"BOMB"', nested(g))
    return (post(path, g.choice((inside, inside, nested(g)))),), 1


def broken_json(g, t):
    path, good = g.choice(((t.route, t.body()), (t.infer, t.tensors())))
    content = to_bytes(good)
    place = g.randrange(len(content))
    piece = g.choice((b"", b",", b"}", b"]", b'"', b"\\", b"NaN", b"-Infinity", b"1" * 5000, b"0x1", b"1e999", b"//",
                      b"'", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\\ud800",
                      b"\\u12"))  # fmt: skip
    content = g.choice((content[:place], content[:place] + piece + content[place + g.randrange(3) :],
                        content[::-1], content * 2, piece, bytes(g.randrange(256) for _ in range(200))))  # fmt: skip
    return (post(path, content),), 1


def other_encodings(g, t):
    content = json.dumps(t.body(), ensure_ascii=False)
    encoding = g.choice(("utf-16", "utf-32", "utf-8-sig", "gbk", "utf-7", "big5hkscs"))
    content_type = ("Content-Type", f"application/json; charset={g.choice((encoding, 'utf-8', 'none', ''))}")
    return (request(t.route, content.encode(encoding, "replace"), content_type),), 1


def duplicate_keys(g, t):
    content = to_bytes(t.body())
    other = b'"data": %s, ' % to_bytes(g.choice(ODD_VALUES))
    return (post(t.route, g.choice((b"{" + other + content[1:], content[:-1] + b", " + other[:-2] + b"}"))),), 1


def odd_texts(g, t):
    text = g.choice(ODD_TEXTS)
    if g.random() < 0.3:
        text = "".join(chr(g.randrange(0x110000)) for _ in range(g.choice((1, 5, 100))))
    if g.random() < 0.5:
        return (post(t.route, t.with_text(text)),), 1
    tensors = t.tensors()
    tensors["inputs"][-1]["data"][-1] = text
    return (post(t.infer, tensors),), 1


def beyond_the_limits(g, t):
    """Too many texts, too long a text, too large a body: 413."""
    values = ({"text": ["a"] * 1025}, {"text": "a" * 100_001}, {"text": "a" * 9_000_000}, {"text": ["字" * 9000] * 400})
    return (post(t.route, {"data": g.choice(values)}),), 1


def many_values(g, t):
    """Long lists and large numbers at places where there is one value."""
    tensors = t.tensors()
    kind = g.randrange(6)
    if kind == 0:
        tensors["outputs"] = tensors["outputs"] * g.choice((2, 1000, 100_000))
    elif kind == 1:
        tensors["inputs"] = tensors["inputs"] * g.choice((2, 1000, 20_000))
    elif kind == 2:
        tensors["inputs"][0]["shape"] = [g.choice((0, 2, 10**4000))] * g.choice((1, 5, 1500))
    elif kind == 3:
        tensors["id"] = g.choice(("x" * 500_000, [0] * 100_000, {"a": {"b": "\ud800"}}, "\udc80", 10**2000))
    elif kind == 4:
        return (post(t.route, {**t.body(), "parameters": {g.choice(ODD_KEYS) + "x" * 100_000: 1}}),), 1
    else:
        return (post(t.route, {"data": {"k" * 1_000_000: [0] * 200_000}}),), 1
    return (post(t.infer, tensors),), 1


def parameters(g, t):
    names = ("max_seq_len", "batch_size", "doc_stride", "max_answer_length", "n_best_size", "is_split_into_words", "x")
    chosen = {g.choice(names): g.choice((*ODD_VALUES, 8, 9, 511, 10**9)) for _ in range(g.randrange(1, 4))}
    return (post(t.route, {**t.body(), "parameters": chosen}),), 1


def content_types(g, t):
    kind = g.choice(("text/plain", "application/xml", "multipart/form-data; boundary=x", "", "x" * 3000, "\xff",
                     "application/jso", "application/x-www-form-urlencoded", "application/octet-stream",
                     "application/json;;;"))  # fmt: skip
    content = g.choice((to_bytes(t.body()), b"text=a&text=b", b"--x\r\n\r\na\r\n--x--\r\n", b"<text>a</text>"))
    return (request(g.choice((t.route, t.infer)), content, ("Content-Type", kind)),), 1


def compressed(g, t):
    content = gzip.compress(g.choice((to_bytes(t.body()), b" " * 10_000_000)))
    encoding = g.choice(("gzip", "deflate", "br", "identity", "gzip, gzip", "x"))
    return (post(t.route, content, ("Content-Encoding", encoding)),), 1


def binary_tensors(g, t):
    """The binary form of the Open Inference Protocol, with lengths that lie at every level."""
    tensors, parts = t.tensors(), []
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
        tensor["parameters"] = {"binary_data_size": size}
        if g.random() < 0.1:
            tensor["parameters"] = g.choice(ODD_VALUES)
        parts.append(part)
    tensors["parameters"] = {"binary_data_output": g.choice((True, False, 1, "x", None))}
    head = to_bytes(tensors)
    header = len(head)
    if g.random() < 0.4:
        header = g.choice((-1, 0, 1, header - 1, header + 1, 2**63, "", "x", "1.0", "+5", "²", "\xb2\xb3", "1" * 5000,
                           "0x10", " ", f"{header},{header}", f"0{header}", "1_0"))  # fmt: skip
    content_type = ("Content-Type", "application/octet-stream")
    return (request(t.infer, head + b"".join(parts), content_type, (HEADER, header)),), 1


def header_length_without_binary(g, t):
    content = to_bytes(t.tensors())
    values = [
        (HEADER, g.choice((len(content), 0, -5, len(content) + 1, "9" * 4500, "a"))) for _ in range(g.choice((1, 2)))
    ]
    return (post(t.infer, content, *values),), 1


def lengths_that_lie(g, t):
    content = to_bytes(t.body())
    path = g.choice((t.route, t.infer, "/health", "/nothing"))
    kind = g.randrange(4)
    if kind == 0:  # too short: what is left over is no request
        return (request(path, content, JSON_TYPE, length=g.randrange(len(content))),), 1
    if kind == 1:  # too long: the rest never comes
        return (request(path, content, JSON_TYPE, length=len(content) + g.choice((1, 1000, 2**40))), 0.02), 0
    if kind == 2:
        length = g.choice((-1, "abc", "", "1e3", "0x20", "+10", "1 0", "9" * 30, "9" * 5000, "²", "10, 20", " "))
        return (request(path, content, JSON_TYPE, length=length),), 1
    lengths = (("Content-Length", len(content)), ("Content-Length", g.randrange(1000, 2000)))
    return (request(path, content, JSON_TYPE, *lengths, length=False),), 1


def chunked_bodies(g, t):
    head = request(
        t.route, b"", JSON_TYPE, ("Transfer-Encoding", g.choice(("chunked", "Chunked", "chunked"))), length=False
    )
    content = to_bytes(t.body())
    kind = g.randrange(7)
    if kind == 0:  # in small pieces
        pieces = [content[i : i + 7] for i in range(0, len(content), 7)]
        return (head, *map(chunked, pieces), b"0\r\n\r\n"), 1
    if kind == 1:  # never ends, and stalls
        return (head, chunked(content), g.choice((0.0, 0.05)), chunked(b" "), 0.02), 0
    if kind == 2:  # never ends: until the limit of a body
        return (head, *[chunked(b" " * 2**20)] * 9), 1
    if kind == 3:
        sizes = (b"-1", b"zz", b"ffffffffffffffffffff", b"0x5", b"", b"5;x=" + b"y" * 20_000, b" 5", b"1" * 5000)
        return (head + g.choice(sizes) + b"\r\n" + content + b"\r\n0\r\n\r\n", 0.02), 0
    if kind == 4:  # trailers
        return (head + chunked(content) + b"0\r\nX-A: b\r\n" * 2 + b"\r\n", 0.02), 0
    if kind == 5:  # a chunk longer than it says
        return (head + b"5\r\n" + content + b"\r\n0\r\n\r\n",), 0
    both = request(t.route, chunked(content) + b"0\r\n\r\n", JSON_TYPE, ("Transfer-Encoding", "chunked"), length=5)
    return (both, 0.02), 0


def transfer_encodings(g, t):
    kind = g.choice(("gzip", "gzip, chunked", "identity", "chunked, chunked", "xchunked", "\x0bchunked", ""))
    return (request(t.route, to_bytes(t.body()), JSON_TYPE, ("Transfer-Encoding", kind)),), 1


def slow_bodies(g, t):
    content = post(t.route, t.body())
    cuts = sorted(g.sample(range(1, len(content)), 4))
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)])]
    return tuple(x for piece in pieces for x in (piece, g.choice((0.0, 0.005, 0.03)))), 1


def disconnects(g, t):
    """At any byte of a good request, or at any moment after it."""
    content = g.choice((post(t.route, t.body()), post(t.infer, t.tensors()), post(t.route, t.with_text(TEXT * 500))))
    place = g.choice((g.randrange(len(content)), len(content)))
    wait = () if place < len(content) else (g.choice((0.0, 0.001, 0.003, 0.01)),)
    return (content[:place], *wait), 0, g.choice(("close", "reset", "half"))


def broken_request_lines(g, t):
    line = g.choice((b"", b"\x00", b"GET", b"GET /", b"GET / HTTP/9.9", b"GET  / HTTP/1.1", b"/ GET HTTP/1.1",
                     b"GET / FTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /\xff HTTP/1.1", b"PRI * HTTP/2.0",
                     b"GET / HTTP/1.1 x", b"\x16\x03\x01\x02",
                     b"GET " + b"/a" * 50_000 + b" HTTP/1.1", bytes(g.randrange(256) for _ in range(60))))  # fmt: skip
    return (line + b"\r\nHost: 127.0.0.1\r\n\r\n", 0.02), 0


def odd_headers(g, t):
    kind = g.randrange(4)
    if kind == 0:
        headers = [(f"X-{n}", "y" * g.choice((1, 20))) for n in range(g.choice((100, 1000, 5000)))]
    elif kind == 1:
        headers = [("X-A", "y" * g.choice((10_000, 60_000, 200_000)))]
    elif kind == 2:
        name = g.choice(("Host", "X-Request-ID", "Authorization", "Accept", "Connection", "Expect", "Upgrade",
                         "X-Forwarded-For", "X-Forwarded-Proto", "X-HTTP-Method-Override", "Origin", "Forwarded",
                         "Cookie", "Range", "X"))  # fmt: skip
        value = g.choice(("", "[", "[::1", "a b", "\xff\xfe", "\xe4\xbd", "close", "keep-alive, x", "100-continue",
                          "websocket", "h2c", "x" * 500, "127.0.0.1:99999", "\t", "' or 1=1", "<x>", "a\tb", "../..",
                          "Basic Og=="))  # fmt: skip
        headers = [(name, value)]
    else:
        raw = g.choice(
            (b"no colon", b": nothing", b"a b: c", b"X: a\x00b", b"X: a\rb", b" folded: x", b"X\x7f: 1", b"\xff: 1")
        )
        return (b"POST %s HTTP/1.1\r\nHost: a\r\n%s\r\nContent-Length: 0\r\n\r\n" % (t.route.encode(), raw), 0.02), 0
    # Without Host, or with two, which is for the HTTP library to refuse.
    content = to_bytes(t.body())
    lines = [f"POST {t.route} HTTP/1.1".encode()]
    if headers[0][0] != "Host" or g.random() < 0.2:
        headers.insert(0, ("Host", "127.0.0.1"))
    lines += [_latin(name) + b": " + _latin(value) for name, value in [*headers, ("Content-Length", len(content))]]
    return (b"\r\n".join(lines) + b"\r\n\r\n" + content,), 1


def odd_websockets(g, t):
    headers = (("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", g.choice((13, "x"))),
               ("Sec-WebSocket-Key", g.choice(("dGhlIHNhbXBsZSBub25jZQ==", "x"))))  # fmt: skip
    return (request(g.choice((t.route, "/", "/metrics")), b"", *headers, method="GET"), 0.02), 0


def methods(g, t):
    paths = (
        t.route,
        t.infer,
        "/",
        "/health",
        "/ready",
        "/info",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v2",
        "/nothing",
        "*",
    )
    content = to_bytes(t.body()) if g.random() < 0.5 else b""
    return (request(g.choice(paths), content, JSON_TYPE, method=g.choice(METHODS)),), 1


def odd_paths(g, t):
    name = g.choice(("", ".", "..", "%2e%2e", "%00", "%ff", "%E4%BD%A0", "a%2Fb", "a;b", "x" * 5000, "%", "%zz", "{}",
                     "$%7Bx%7D", "%0d%0aX:1", "ernie_cls%20", "ERNIE_CLS", "ernie_cls/versions/1", "'",
                     "%F0%9F%98%80"))  # fmt: skip
    path = g.choice((f"/v2/models/{name}/infer", f"/v2/models/{name}", f"/v2/models/{name}/ready", f"/models/{name}",
                     f"/{name}", f"//{name}", f"{t.route}/{name}", f"{t.route}?{name}", f"{t.route}#{name}",
                     f"http://[{name}", f"http://127.0.0.1{t.route}", f"/static/{name}", f"/docs/{name}",
                     f"{t.route}/"))  # fmt: skip
    return (request(path, to_bytes(t.body()), JSON_TYPE, method=g.choice(("POST", "GET"))),), 1


def pipelined(g, t):
    """Good and bad requests on one connection, sent at once."""
    good, bad = post(t.route, t.body()), post(t.route, g.choice((b"{", {"data": 1}, {"data": {"x": 1}})))
    row = [g.choice((good, bad, request("/health", method="GET"))) for _ in range(g.randrange(2, 6))]
    return (b"".join(row),), len(row)


FAMILIES = {
    wrong_fields: 20,
    wrong_fields_v2: 20,
    another_document: 4,
    bombs: 6,
    broken_json: 10,
    other_encodings: 2,
    duplicate_keys: 2,
    odd_texts: 12,
    beyond_the_limits: 1,
    many_values: 2,
    parameters: 6,
    content_types: 3,
    compressed: 2,
    binary_tensors: 14,
    header_length_without_binary: 3,
    lengths_that_lie: 6,
    chunked_bodies: 5,
    transfer_encodings: 1,
    slow_bodies: 5,
    disconnects: 14,
    broken_request_lines: 4,
    odd_headers: 8,
    odd_websockets: 1,
    methods: 4,
    odd_paths: 5,
    pipelined: 4,
}


def cases(target, number, seed=0, only=""):
    """Yields `Case`, the same for the same seed; of each 1,000 as many of a family, as far as that goes."""
    chosen = {family: weight for family, weight in FAMILIES.items() if only in family.__name__}
    generator = random.Random(f"{seed} {target.task}")
    share = 1000 / sum(chosen.values())
    while number > 0:
        some = [family for family, weight in chosen.items() for _ in range(round(weight * share))]
        generator.shuffle(some)
        for family in some[:number]:
            yield Case(family.__name__.replace("_", " "), *family(generator, target))
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
            for answer in answers:
                counts = self.statuses.setdefault(case.family, {})
                counts[answer[0]] = counts.get(answer[0], 0) + 1
                if why := fault_of(answer, case.sends[0].startswith(b"HEAD ")):
                    self.faults.append((why, case, answer))

        await asyncio.gather(*map(one, some))

    def run(self, some):
        """Sends requests, and then a good one, which must be answered as before the attack."""
        asyncio.run(self._run(some))
        status, answer = self.ask_well()
        if status != 200 or not same(answer, self.expected):
            self.faults.append((f"a good request right after got {status}: {answer!r:.300}", None, None))

    def finish(self):
        """What must hold when all clients are gone: nothing in flight, an empty queue, no 5xx, no traceback."""
        end = time.monotonic() + PATIENCE
        while True:
            _, text = self.server.ask("GET", "/metrics")
            values = {name: float(value) for name, value in re.findall(r"^(ernie_\S+) (\S+)$", text, re.M)}
            busy = {
                name: value
                for name, value in values.items()
                # The request for the metrics is in flight itself.
                if name.startswith(("ernie_queue_t", "ernie_requests_in_flight")) and value > ("in_flight" in name)
            }
            if not busy:
                break
            if time.monotonic() > end:
                self.faults.append((f"after {PATIENCE} s without clients: {busy}", None, None))
                break
            time.sleep(0.05)
        for name, value in values.items():
            if (found := re.search(r'^ernie_requests_total.*status="(5\d\d)"', name)) and found[1] not in (
                "503",
                "504",
            ):
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


def same(found, expected):
    """Equal but for confidences, which depend a little on what else is in the batch."""
    if isinstance(expected, float):
        return isinstance(found, float) and abs(found - expected) < 1e-3
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected


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
    return attack, f"| {script} | {len(todo):,} | {seconds:.0f} | {sizes} | {len(attack.faults)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model_path", required=True, nargs="+", help="folders that run_*.py --do_export or compress_*.py wrote")
    add("--requests", type=int, default=10_000, help="for each")
    add("--warm_up", type=int, default=300, help="good requests before, whose memory is no attack's")
    add("--seed", type=int, default=0)
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
    print("\n| Server | Requests | Seconds | Resident after each 1,000, MB | Faults |\n|---|---|---|---|---|")
    print("\n".join(rows))
    sys.exit(failed)


if __name__ == "__main__":
    main()
