"""The predictor against --do_predict, on models that run_*.py and compress_*.py wrote, through every backend here."""

import contextlib
import importlib.util
import itertools
import json
import os
import pickle
import pty
import re
import shutil
import subprocess
import sys
import venv

import numpy as np
import onnx
import pytest
from conftest import (
    PREDICTOR,
    ROOT,
    SAMPLE_DATA,
    SCRIPT_OF,
    answer_of,
    arguments_for,
    assert_same,
    call,
    inputs_of,
    read,
)
from ernie_predictor import ErniePredictor, PredictorError, cpu
from ernie_predictor.cpu import installed_backends
from ernie_predictor.data_files import read_dev_set
from ernie_predictor.machine import has_bf16
from ernie_predictor.onnx_files import pairs_fit, quantized_form
from ernie_predictor.tasks import load_task
from ernie_predictor.tokenizer import vocab_crc32

TASKS = {"tnews": "seq_cls", "afqmc": "seq_cls", "msra_ner": "token_cls", "cmrc2018": "qa"}
BACKENDS = installed_backends()


def infer(*arguments, cwd=ROOT, text=None, folder=PREDICTOR):
    """Runs infer_cpu.py as a process of its own."""
    return subprocess.run(
        [sys.executable, str(folder / "infer_cpu.py"), *map(str, arguments)],
        cwd=cwd,
        input=text if text is None or isinstance(text, bytes) else text.encode(),
        capture_output=True,
    )


def answers_in(output):
    return [json.loads(line) for line in output.decode().splitlines()]


def fails(done, status, *says):
    """A process that ended with this status and one message that says all of these."""
    message = done.stderr.decode()
    assert done.returncode == status, message
    assert len(message.strip().splitlines()) == 1 and message.startswith("infer_cpu.py: error: ")
    for part in says:
        assert part in message


# ------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dataset", TASKS)
def test_answers_are_those_of_do_predict(dataset, backend, exported):
    folder, inputs, expected = exported(dataset)
    predictor = ErniePredictor(folder, backend=backend)
    assert predictor.task.name == TASKS[dataset] and predictor.model.backend == backend
    assert len({json.dumps(answer) for answer in expected}) > len(expected) / 2
    said = [
        a.get("label") or a["answer"] for answer in expected for a in (answer if dataset == "msra_ner" else [answer])
    ]
    assert len(said) >= len(expected) and len(set(said)) > 1
    assert_same(predictor.predict(inputs), expected)


@pytest.mark.parametrize("dataset", ["tnews", "msra_ner", "cmrc2018"])
def test_answers_to_real_texts_are_those_of_do_predict(dataset, exported, real_data, tmp_path):
    folder, _, _ = exported(dataset)
    (tmp_path / "data" / dataset).mkdir(parents=True)
    test_file = f"test.{'tsv' if dataset == 'msra_ner' else 'json'}"
    content = (real_data / dataset / test_file).read_text(encoding="utf-8")
    if dataset == "cmrc2018":  # contexts of many windows: some will do
        articles = json.loads(content)
        content = json.dumps({**articles, "data": articles["data"][:6]})
    (tmp_path / "data" / dataset / test_file).write_text(content, encoding="utf-8")
    more = arguments_for(dataset, folder.parent, tmp_path, "--do_predict", data_dir=tmp_path / "data")
    call(SCRIPT_OF.get(dataset, "run_seq_cls"), *more)
    results = read(tmp_path / dataset / "test_results.json")
    inputs, expected = inputs_of(dataset, results, tmp_path / "data"), [answer_of(r) for r in results]
    assert len(inputs) == len(expected) >= 20
    for backend in BACKENDS:
        assert_same(ErniePredictor(folder, backend=backend).predict(inputs), expected)


@pytest.mark.parametrize("dataset", TASKS)
def test_the_batch_size_changes_no_answer(dataset, exported):
    """One by one, and in batches that end within a question's windows."""
    folder, inputs, expected = exported(dataset)
    for batch_size in (1, 7):
        assert_same(ErniePredictor(folder, batch_size=batch_size).predict(inputs[:40]), expected[:40])


def test_long_texts_are_read_in_windows_as_in_do_predict(tmp_path, exported, caplog):
    more = ["--do_predict", "--do_export", "--max_seq_length", 16, "--doc_stride", 5]
    call("run_token_cls", *arguments_for("msra_ner", exported("msra_ner")[0].parent, tmp_path, *more))
    results = read(tmp_path / "msra_ner" / "test_results.json")
    predictor = ErniePredictor(tmp_path / "msra_ner" / "export")
    assert predictor.task.max_seq_length == 16 and predictor.task.params == {"doc_stride": 5}
    caplog.clear()
    assert_same(predictor.predict([r["text"] for r in results]), [r["entities"] for r in results])
    assert not [r for r in caplog.records if r.name == "ernie_predictor"]  # nothing was cut
    assert any(e["start"] > 16 for r in results for e in r["entities"])


def test_the_doc_stride_is_the_users(exported, tmp_path):
    """A longer one reads fewer windows; none is longer than a window."""
    folder, inputs, _ = exported("cmrc2018")
    question, context = max(inputs, key=lambda pair: len(pair[1]))
    short, long = (ErniePredictor(folder, doc_stride=stride) for stride in (20, 100))
    for predictor, stride in ((short, 20), (long, 100)):
        features, notes = predictor.task.tokenize([predictor.task.check((question, context))])
        firsts = [first for first, _ in notes[0][1]]
        assert len(features) > 2 and {b - a for a, b in itertools.pairwise(firsts)} == {stride}
    assert_same(pickle.loads(pickle.dumps(long)).predict([(question, context)]), long.predict([(question, context)]))
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"question": question, "context": context}), encoding="utf-8")
    done = infer("--model_path", folder, "--input", source, "--doc_stride", "100")
    assert_same(json.loads(done.stdout), long.predict([(question, context)])[0])
    fails(
        infer("--model_path", folder, "--doc_stride", "160"), 2, "--doc_stride 160: must be", "160 tokens of a window"
    )


def test_a_text_of_any_length_keeps_its_entities(exported):
    folder, _, _ = exported("msra_ner")
    predictor = ErniePredictor(folder)
    sentence = "记者李小明昨天从北京来到上海大学采访。"
    (alone,) = predictor.predict([sentence])
    assert alone
    for copies in (130, 1100):  # 2,500 and 20,000 characters
        (found,) = predictor.predict([sentence * copies])
        assert len(found) > 0.9 * copies * len(alone)
        assert {e["start"] // len(sentence) for e in found} >= {0, copies // 2, copies - 1}


def test_both_tokenizers_give_the_same_answers(exported, monkeypatch):
    for dataset in ("tnews", "msra_ner", "cmrc2018"):
        folder, inputs, _ = exported(dataset)
        predictor = ErniePredictor(folder)
        assert predictor.task.tokenizer.backend == "tokenizers"  # the one that is kept up
        if importlib.util.find_spec("fast_tokenizer"):
            other = ErniePredictor(folder, tokenizer="fast_tokenizer")
            assert other.task.tokenizer.backend == "fast_tokenizer"
            assert predictor.predict(inputs[:50]) == other.predict(inputs[:50])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PredictorError, match="fast_tokenizer is not installed"):
        ErniePredictor(folder, tokenizer="fast_tokenizer")


def test_all_ways_to_give_a_text(exported):
    folder, inputs, expected = exported("afqmc")
    predictor = ErniePredictor(folder)
    text, pair = inputs[0]
    assert_same(predictor.predict([{"text": text, "text_pair": pair}, [text, pair]]), [expected[0]] * 2)
    folder, inputs, expected = exported("tnews")
    assert_same(ErniePredictor(folder).predict([inputs[0], {"text": inputs[0], "id": 7}]), [expected[0]] * 2)
    folder, inputs, expected = exported("cmrc2018")
    question, context = inputs[0]
    assert_same(ErniePredictor(folder).predict([{"question": question, "context": context}]), expected[:1])
    assert ErniePredictor(folder).predict([]) == []


def test_positions_are_of_the_original_text(exported):
    """Emoji, full-width spaces, accents and characters that the tokenizer drops or changes."""
    text = "😀 José 在\u3000New York 买了iPhone\u200b15，花了￥9,999！👨‍👩‍👧 ℃"
    folder, _, _ = exported("msra_ner")
    for entity in ErniePredictor(folder).predict([text])[0]:
        assert text[entity["start"] : entity["end"]] == entity["entity"] != ""
    folder, _, _ = exported("cmrc2018")
    n_best = ErniePredictor(folder).predict([("多少钱？", text)])[0]["n_best"]
    assert len(n_best) > 5
    for answer in n_best:
        assert text[answer["start"] : answer["end"]] == answer["answer"] != ""


def test_windows_cover_a_long_context(exported):
    """The same answer wherever in a long context its window lies."""
    folder, inputs, _ = exported("cmrc2018")
    question, context = inputs[0]
    predictor = ErniePredictor(folder)
    features, _ = predictor.task.tokenize([(question, context * 8)])
    assert len(features) > 8 and max(len(ids) for ids, _ in features) == predictor.task.max_seq_length
    answer = predictor.predict([(question, context * 8)])[0]
    assert (context * 8)[answer["start"] : answer["end"]] == answer["answer"]


def test_texts_are_read_as_answers_are_taken(exported):
    """No more than a chunk ahead, whatever the length of the stream."""
    folder, inputs, expected = exported("tnews")
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield inputs[(taken - 1) % len(inputs)]

    answers = ErniePredictor(folder, batch_size=4).predict_stream(endless())
    for index in range(1000):
        assert_same(next(answers), expected[index % len(inputs)])
        assert taken <= 2 * (index + 4) and taken - index <= 4 * 32
    answers = ErniePredictor(folder, batch_size=1).predict_stream(endless())
    taken = 0
    for index in range(1, 50):
        next(answers)
        assert taken == index


# ---------------------------------------------------------------------------------------------------- INT8


@pytest.mark.parametrize("dataset", ["tnews", "msra_ner"])
def test_int8_is_quantized_once_and_answers_nearly_alike(dataset, exported, tmp_path, monkeypatch):
    folder, inputs, _ = exported(dataset)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = set(os.listdir(folder))
    fp32, int8 = ErniePredictor(folder), ErniePredictor(folder, precision_mode="int8")
    (made,) = (tmp_path / "ernie_predictor").glob("*/*")
    assert int8.model.path == str(made) and int8.model.backend == "onnxruntime"
    assert quantized_form(made) == "dynamic" and quantized_form(folder / "model.onnx") is None
    written = made.stat().st_mtime_ns
    assert ErniePredictor(folder, precision_mode="int8").model.path == str(made)
    assert made.stat().st_mtime_ns == written and set(os.listdir(folder)) == before
    pairs = [fp32.task.check(text) for text in inputs[:30]]
    features, _ = fp32.task.tokenize(pairs)
    for (a,), (b,) in zip(fp32.run(features), int8.run(features)):
        assert 0 < abs(a - b).max() < 0.1 * max(abs(a).max(), 1)
    # In another cache, of the same model elsewhere, and of another model.
    cache, model = tmp_path / "cache", tmp_path / "model"
    shutil.copytree(folder, model)
    paths = [ErniePredictor(f, precision_mode="int8", cache_dir=str(cache)).model.path for f in (folder, model)]
    change(model / "model.onnx")
    paths.append(ErniePredictor(model, precision_mode="int8", cache_dir=str(cache)).model.path)
    assert paths[0] == paths[1] != paths[2]
    assert set(map(str, cache.glob("*/*"))) == set(paths)


def test_a_folder_says_how_it_is_quantized(exported, quantized, tmp_path):
    """One made elsewhere need not: then the file is searched. So is one that took another's place in an export."""
    for name, source in (("static", quantized), ("none", exported("tnews")[0])):
        form = None if name == "none" else name
        assert read(source / "config.json")["quantization"] == name
        assert quantized_form(source / "model.onnx") == form
        folder = shutil.copytree(source, tmp_path / name)
        config = read(folder / "config.json")
        config.pop("quantization", None)
        for silent in (config, {**config, "quantization": {"bits": 8}}, {**config, "quantization": "gptq"}, [], None):
            (folder / "config.json").write_text("{" if silent is None else json.dumps(silent))
            assert quantized_form(folder / "model.onnx") == form
        (folder / "config.json").unlink()
        assert quantized_form(folder / "model.onnx") == form
    for content in (b"", b"\0QuantizeLinear", b"\x22\x10DequantizeLinear"):
        (folder / "model.onnx").write_bytes(content)
        assert quantized_form(folder / "model.onnx") is None
    shutil.copy(quantized / "model.onnx", tmp_path / "none" / "model.onnx")
    shutil.copy(exported("tnews")[0] / "config.json", tmp_path / "none")
    assert quantized_form(tmp_path / "none" / "model.onnx") == "static" and pairs_fit(quantized / "model.onnx")
    shutil.copy(exported("tnews")[0] / "model.onnx", tmp_path / "static" / "model.onnx")
    shutil.copy(quantized / "config.json", tmp_path / "static")
    assert quantized_form(tmp_path / "static" / "model.onnx") is None
    assert not pairs_fit(exported("tnews")[0] / "model.onnx")


def test_one_text_takes_few_calls_of_our_own(exported):
    """From the command line to the answer; reading the whole of model.onnx in Python took 6,000."""
    program = (
        "import os, runpy, sys\n"
        "folder, count = os.path.dirname(sys.argv[1]), 0\n"
        "def trace(frame, event, argument):\n"
        "    global count\n"
        "    count += event == 'call' and frame.f_code.co_filename.startswith(folder)\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, folder)\n"
        "sys.setprofile(trace)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "sys.setprofile(None)\n"
        "print(count, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program, PREDICTOR / "infer_cpu.py", "--model_path", exported("tnews")[0]]
    done = subprocess.run([*map(str, command), "--text", "足球比赛"], capture_output=True, text=True)
    assert done.returncode == 0 and 0 < int(done.stderr) < 500, done.stderr


def change(onnx_file):
    """Another content, and the same answers."""
    content = onnx.load(onnx_file)
    content.producer_name += "."
    onnx.save(content, onnx_file)


def logits_of(predictor, inputs):
    """[features, ...]: the logits of classes."""
    features, _ = predictor.task.tokenize([predictor.task.check(text) for text in inputs])
    return np.array([outputs[0] for outputs in predictor.run(features)])


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "paddle"])
def test_calibration_makes_a_static_int8_model(backend, exported, tmp_path):
    """Once for the same texts, with scales of its own, in the form that both engines compute fast."""
    folder, inputs, _ = exported("afqmc")
    arguments = {"precision_mode": "int8", "backend": backend, "cache_dir": str(tmp_path)}
    predictor = ErniePredictor(folder, calibration=inputs[:40], **arguments)
    assert quantized_form(predictor.model.path) == "static"
    assert ErniePredictor(folder, calibration=iter(inputs[:40]), **arguments).model.path == predictor.model.path
    smaller = ErniePredictor(folder, calibration=inputs[:40], batch_size=7, **arguments)
    assert smaller.model.path == predictor.model.path
    other = ErniePredictor(folder, calibration=[{"text": "另一个", "text_pair": "一个"}], **arguments)
    assert other.model.path != predictor.model.path
    assert set(map(str, tmp_path.glob("*/*"))) == {p.model.path for p in (predictor, other)}
    # All products are quantized.
    graph = onnx.load(predictor.model.path).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert len(products) > 10
    assert {makers.get(name) for node in products for name in node.input} == {"DequantizeLinear"}
    expected = logits_of(ErniePredictor(folder, backend=backend), inputs)
    error = np.abs(logits_of(predictor, inputs) - expected).max()
    assert 0 < error < 0.1 * np.abs(expected).max()


def test_calibration_on_the_command_line(exported, tmp_path):
    folder, inputs, _ = exported("tnews")
    (tmp_path / "typical.txt").write_text("\n".join(["球" * 300, *inputs[:50]]), encoding="utf-8")
    arguments = ["--model_path", folder, "--precision_mode", "int8", "--cache_dir", tmp_path / "cache"]
    done = infer(*arguments, "--calibration", "typical.txt", cwd=tmp_path)
    assert (done.returncode, done.stdout.count(b" -> "), done.stderr) == (0, 2, b"")
    (made,) = (tmp_path / "cache").glob("*/*")
    assert quantized_form(made) == "static"
    (tmp_path / "broken.txt").write_bytes(BROKEN)
    (tmp_path / "empty.txt").write_bytes(b"")
    arguments.append("--calibration")
    fails(infer(*arguments, "broken.txt", cwd=tmp_path), 1, "broken.txt line 2: empty")
    fails(infer(*arguments, "none.txt", cwd=tmp_path), 1, "--calibration none.txt: No such file")
    fails(infer(*arguments, "empty.txt", cwd=tmp_path), 1, "--calibration: there are no texts")
    arguments = ["--model_path", folder, "--calibration", "typical.txt"]
    fails(infer(*arguments, cwd=tmp_path), 2, "--calibration is for --precision_mode int8")
    int8 = tmp_path / "int8"
    shutil.copytree(folder, int8)
    shutil.copy(made, int8 / "model.onnx")
    with pytest.raises(PredictorError, match="with scales of its own: leave --calibration out"):
        ErniePredictor(int8, precision_mode="int8", calibration=inputs[:5])


def test_bf16_where_the_processor_has_it(exported):
    folder, inputs, _ = exported("afqmc")
    with pytest.raises(PredictorError, match="--backend onnxruntime has no kernels for it"):
        ErniePredictor(folder, precision_mode="bf16", backend="onnxruntime")
    if not has_bf16():
        with pytest.raises(PredictorError, match="has no bfloat16 instructions"):
            ErniePredictor(folder, precision_mode="bf16")
        pytest.skip("this processor has no bfloat16")
    expected = logits_of(ErniePredictor(folder), inputs)
    for backend in set(BACKENDS) - {"onnxruntime"}:
        predictor = ErniePredictor(folder, precision_mode="bf16", backend=backend)
        assert predictor.model.backend == backend
        assert 1e-5 < np.abs(logits_of(predictor, inputs) - expected).max() < 0.05 * np.abs(expected).max()


def test_the_compiled_model_is_kept(exported, tmp_path, monkeypatch):
    """With the same answers to the last bit; damaged or made for another model, it is made anew."""
    if "openvino" not in BACKENDS:
        pytest.skip("OpenVINO is not installed")
    folder, inputs, _ = exported("msra_ner")
    expected = ErniePredictor(folder, backend="openvino").predict(inputs[:20])
    model, cache = tmp_path / "model", tmp_path / "cache"
    shutil.copytree(folder, model)
    monkeypatch.setattr(cpu, "LARGE", 0)

    def opens(from_blob, cache):
        predictor = ErniePredictor(model, backend="openvino", cache_dir=str(cache))
        assert predictor.model.from_blob is from_blob
        assert predictor.predict(inputs[:20]) == expected
        return {path.parent: path for path in cache.glob("openvino-*/*")}

    (first,) = opens(False, cache).values()
    assert opens(True, cache) == {first.parent: first}
    content = first.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:-200_000] + bytes(200_000)):
        first.write_bytes(damaged)
        (first,) = opens(False, cache).values()  # OpenVINO's bytes differ each time
        assert opens(True, cache) == {first.parent: first}
    shutil.copytree(cache, tmp_path / "copy")  # other inodes and times
    opens(True, tmp_path / "copy")
    change(model / "model.onnx")
    assert len(opens(False, cache)) == 2 == len(opens(True, cache))


def test_no_place_for_files_made_once(exported, tmp_path, monkeypatch):
    """OpenVINO starts without; INT8 can't."""
    folder, inputs, expected = exported("tnews")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cpu, "LARGE", 0)
    cache_dir = str(tmp_path / "file" / "cache")
    assert_same(ErniePredictor(folder, cache_dir=cache_dir).predict(inputs), expected)
    with pytest.raises(PredictorError, match=r"which needs up to \d+ MB \(.*\); name a folder with --cache_dir"):
        ErniePredictor(folder, precision_mode="int8", cache_dir=cache_dir)


def test_a_compressed_folder_answers_in_int8(exported, quantized):
    (folder, inputs, _), model = exported("tnews"), quantized

    expected = logits_of(ErniePredictor(folder), inputs)
    for backend in BACKENDS:
        found = logits_of(ErniePredictor(model, backend=backend, precision_mode="int8"), inputs)
        assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    with pytest.raises(PredictorError, match="is an INT8 model: leave --precision_mode out"):
        ErniePredictor(model, precision_mode="fp32")


# -------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("dataset", ["afqmc", "msra_ner", "cmrc2018"])
def test_the_folder_alone_answers_without_paddle(dataset, exported, tmp_path):
    """Copied out, with the repository out of reach and Paddle's import forbidden: text lines and JSON lines."""
    shutil.copytree(PREDICTOR, tmp_path / "predictor", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "predictor" / "paddle.py").write_text("raise ImportError('Paddle was imported')\n")
    folder, inputs, expected = exported(dataset)
    lines = [item if isinstance(item, str) else "\t".join(item) for item in inputs[:20]]
    names = {"cmrc2018": ("question", "context")}.get(dataset, ("text", "text_pair"))
    for item in inputs[20:40]:
        row = dict(zip(names, [item] if isinstance(item, str) else item))
        lines.append(json.dumps({"id": 1, **row}))
    (tmp_path / "in.txt").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    arguments = ["--model_path", folder, "--input", "in.txt", "--output", "out.jsonl", "--task_name", TASKS[dataset]]
    done = infer(*arguments, cwd=tmp_path, folder=tmp_path / "predictor")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert_same(answers_in((tmp_path / "out.jsonl").read_bytes()), expected[:40])
    assert not (tmp_path / "out.jsonl.part").exists()


@pytest.mark.slow
def test_what_is_copied_to_a_server_installs_and_answers(exported, tmp_path):
    """The locked requirements, every file by its hash, into an environment of its own: also INT8 of an FP32 folder."""
    shutil.copytree(PREDICTOR, tmp_path / "predictor", ignore=shutil.ignore_patterns("__pycache__"))
    (folder, inputs, expected), clean = exported("tnews"), {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    (tmp_path / "texts.txt").write_text("\n".join(inputs[:20]), encoding="utf-8")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    lock = tmp_path / "predictor" / "requirements_cpu.lock.txt"
    install = [python, "-m", "pip", "install", "-q", "--no-compile", "--only-binary", ":all:", "--require-hashes"]
    subprocess.run([*install, "-r", lock], check=True, env=clean)
    command = [python, tmp_path / "predictor" / "infer_cpu.py", "--model_path", folder]
    command += ["--input", tmp_path / "texts.txt", "--cache_dir", tmp_path / "cache"]
    for more in ([], ["--backend", "onnxruntime"], ["--precision_mode", "int8"]):
        done = subprocess.run([*command, *more], capture_output=True, env=clean)
        assert done.returncode == 0, done.stderr.decode()
        if more[:1] == ["--precision_mode"]:
            same = [a["label"] == b["label"] for a, b in zip(answers_in(done.stdout), expected)]
            assert len(same) == 20 and sum(same) >= 18
        else:
            assert_same(answers_in(done.stdout), expected[:20])


def test_standard_input_is_answered_as_it_comes(exported):
    folder, inputs, expected = exported("tnews")
    command = [sys.executable, str(PREDICTOR / "infer_cpu.py"), "--model_path", str(folder), "--input", "-"]
    process = subprocess.Popen([*command, "--batch_size", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for text, answer in zip(inputs[:3], expected):
        process.stdin.write(f"{text}\n".encode())
        process.stdin.flush()
        assert_same(json.loads(process.stdout.readline()), answer)  # before the next line is written
    process.stdin.close()
    assert process.wait() == 0 and process.stdout.read() == b""


def test_what_the_model_was_fine_tuned_on_is_in_its_folder(exported):
    for dataset, text_pair in (("tnews", False), ("afqmc", True)):
        folder, _, _ = exported(dataset)
        for path in (folder, folder.parent):
            params = read(path / "config.json")["task_specific_params"]
            assert params == {"text-classification": {"task": "seq_cls", "text_pair": text_pair}}
        assert load_task(folder).text_pair is text_pair


def test_one_text_of_the_command_line_and_closed_streams(exported, tmp_path):
    """Nothing is read from standard input, nothing can be said on standard error, and no file takes its number."""
    folder, inputs, expected = exported("cmrc2018")
    question, context = inputs[0]
    command = [sys.executable, str(PREDICTOR / "infer_cpu.py"), "--model_path", str(folder)]
    command += ["--question", question, "--context", context, "--output", "out"]
    done = subprocess.run(["sh", "-c", '"$@" <&- 2>&-', "sh", *command], cwd=tmp_path, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, b"")
    assert_same(answers_in((tmp_path / "out").read_bytes()), expected[:1])
    command = [sys.executable, str(PREDICTOR / "infer_cpu.py"), "--model_path", str(folder), "--input", "-"]
    done = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *command], capture_output=True)
    fails(done, 1, "standard input is closed: name a file with --input")


def test_a_terminal_shows_progress_and_one_last_line(exported, tmp_path):
    """And says once how many texts were truncated."""
    folder, inputs, _ = exported("tnews")
    (tmp_path / "in.txt").write_text("\n".join(["球" * 300, *inputs[:40]]) + "\n", encoding="utf-8")
    terminal, stderr = pty.openpty()
    command = [sys.executable, str(PREDICTOR / "infer_cpu.py"), "--model_path", str(folder), "--input", "in.txt"]
    with subprocess.Popen([*command, "--output", "out"], cwd=tmp_path, stderr=stderr) as process:
        os.close(stderr)
        shown = b""
        with contextlib.suppress(OSError):  # EIO, when the process has ended
            while part := os.read(terminal, 2**16):
                shown += part
    os.close(terminal)
    assert process.returncode == 0 and len((tmp_path / "out").read_text(encoding="utf-8").splitlines()) == 41
    assert b"0 texts [00:00, ? texts/s]" in shown and shown.count(b"longer than") == 1
    assert re.search(rb"infer_cpu\.py: 41 texts, [\d,]+ texts/s\r\n", shown)


@pytest.mark.parametrize("dataset", ["tnews", "msra_ner", "cmrc2018"])
def test_examples_and_benchmark(dataset, exported):
    folder, _, _ = exported(dataset)
    lines = infer("--model_path", folder).stdout.decode().splitlines()
    assert len(lines) == 2 and all(" -> " in line for line in lines)
    output = infer("--model_path", folder, "--benchmark", "--batch_size", 4).stdout.decode()
    assert "QPS: " in output and output.count("p50 ") == output.count("p99 ") == 2
    few = "\n".join(["北京"] * 99).encode()
    if dataset != "cmrc2018":
        fails(infer("--model_path", folder, "--benchmark", "--input", "-", text=few), 1, "holds 99 texts; 100 or more")


def test_benchmark_of_a_dev_file(exported, quantized):
    """A row for each engine and precision; the score is that of the answers."""
    folder, _, _ = exported("tnews")
    dev = SAMPLE_DATA / "tnews" / "dev.json"
    items, gold = read_dev_set("seq_cls", SAMPLE_DATA, "tnews")
    for path, precisions in ((folder, {"fp32", "int8", *(["bf16"] if has_bf16() else [])}), (quantized, {"int8"})):
        title, head, *rows, last = infer("--model_path", path, "--benchmark", dev).stdout.decode().splitlines()
        assert title.startswith("210 texts of ") and last == "score: accuracy" and head.split("  ")[0] == "engine"
        cells = [row.split() for row in rows]
        assert {row[1] for row in cells} == precisions and {"openvino", "onnxruntime"} <= {row[0] for row in cells}
        for engine, precision, size, speed, latency, score, same in cells:
            assert float(speed) > 0 and float(latency) > 0
            predictor = ErniePredictor(path, backend=engine, precision_mode=precision)
            answers = predictor.predict(items)
            assert float(score) == pytest.approx(
                100 * predictor.task.score_answers(answers, gold)["accuracy"], abs=0.006
            )
            if engine != "paddle":
                assert float(size) == pytest.approx(os.path.getsize(predictor.model.path) / 2**20, abs=0.06)
            assert (same == "100.0%") or precision != "fp32"
    fails(
        infer("--model_path", folder, "--benchmark", SAMPLE_DATA / "afqmc" / "dev.json"),
        1,
        "label '1', which the model does not know",
    )


def test_the_precision_is_the_folders(exported, quantized):
    folder, inputs, _ = exported("tnews")
    assert ErniePredictor(folder).model.precision_mode == "fp32"
    int8 = ErniePredictor(quantized)
    assert int8.model.precision_mode == "int8" and int8.model.path == str(quantized / "model.onnx")
    assert int8.predict(inputs[:5]) == ErniePredictor(quantized, precision_mode="int8").predict(inputs[:5])
    assert ErniePredictor(quantized, backend="paddle").model.path == str(quantized / "int8.pdmodel")
    assert infer("--model_path", quantized).returncode == 0
    fails(infer("--model_path", quantized, "--precision_mode", "fp32"), 1, "leave --precision_mode out")


def test_the_folder_above_the_exported_one(exported):
    folder = exported("tnews")[0]
    fails(infer("--model_path", folder.parent), 1, f"{folder.parent} holds no exported model; did you mean {folder}?")


BROKEN = b"".join(
    line + b"\n"
    for line in (
        "今天".encode(),
        b"",
        b'{"text": 3}',
        '{"text": "好"}'.encode(),
        b"\xff\xfe",
        b'{"x"',
        b'{"a": 1}',
        b"a\tb\tc",
        b'{"text": "\\ud800"}',
    )
)


def test_broken_lines_are_named_and_left_out(exported):
    folder, _, _ = exported("tnews")
    done = infer("--model_path", folder, "--input", "-", "--on_error", "skip", text=BROKEN)
    assert done.returncode == 0
    assert_same(answers_in(done.stdout), ErniePredictor(folder).predict(["今天", "好", "a\tb\tc"]))
    messages = done.stderr.decode().splitlines()
    assert [line.split(" is left out")[0] for line in messages] == [
        f"standard input line {number}" for number in (2, 3, 5, 6, 7, 9)
    ]
    reasons = ("empty", "expected a text", "not UTF-8", "not JSON", "got the fields a", "surrogate")
    for message, reason in zip(messages, reasons):
        assert reason in message


def test_a_broken_line_ends_the_run(exported, tmp_path):
    """Answers to the lines before it are kept, but not under the final name."""
    folder, _, _ = exported("tnews")
    (tmp_path / "in.txt").write_bytes(BROKEN)
    done = infer("--model_path", folder, "--input", tmp_path / "in.txt", "--output", tmp_path / "out")
    fails(done, 1, "in.txt line 2: empty", "--on_error skip")
    assert not (tmp_path / "out").exists()
    assert len((tmp_path / "out.part").read_text(encoding="utf-8").splitlines()) == 1
    folder, _, _ = exported("cmrc2018")
    fails(infer("--model_path", folder, "--input", "-", text="没有上下文\n"), 1, "line 1", "there is no context")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "the following arguments are required: --model_path"),
        (["--model_path", "MODEL", "--batchsize", "3"], 2, "unrecognized arguments: --batchsize"),
        (["--model_path", "MODEL", "--batch_size", "0"], 2, "expected a whole number, 1 or more"),
        (["--model_path", "MODEL", "--max_seq_length", "99999"], 2, "--max_seq_length 99999"),
        (["--model_path", "MODEL", "--task_name", "qa"], 2, "holds a model for seq_cls"),
        (["--model_path", "MODEL", "--doc_stride", "64"], 2, "--doc_stride: a seq_cls model reads no windows"),
        (["--model_path", "MODEL", "--input", "none.txt"], 1, "--input none.txt: No such file"),
        (["--model_path", "MODEL", "--output", "none/out"], 1, "--output none/out: No such file"),
        (["--model_path", "none"], 1, "--model_path none: no such folder"),
        (["--model_path", "MODEL", "--text", "一", "--input", "x"], 2, "--text is one text, --input is a file"),
        (["--model_path", "MODEL", "--context", "一"], 2, "--text_pair needs --text"),
        (["--model_path", "MODEL", "--text_column", "x"], 2, "are for --input FILE"),
        (["--model_path", "MODEL", "--text", "一", "--text_pair", "二"], 2, "--text: expected a text"),
    ],
)
def test_wrong_arguments(arguments, status, says, exported, tmp_path):
    folder, _, _ = exported("tnews")
    fails(infer(*[folder if a == "MODEL" else a for a in arguments], cwd=tmp_path), status, says)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.onnx"])
def test_a_folder_without_a_part(name, exported, tmp_path):
    folder, _, _ = exported("tnews")
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(PredictorError, match=name.replace(".", r"\.")):
        ErniePredictor(tmp_path / "model", backend="onnxruntime")


def test_files_that_do_not_fit_together(exported, tmp_path):
    folder, _, _ = exported("tnews")
    shutil.copytree(folder, tmp_path / "model")

    def complains(name, content, match, backends=("onnxruntime", "openvino")):
        path = tmp_path / "model" / name
        before = path.read_bytes()
        path.write_bytes(content)
        for backend in backends:
            if backend in BACKENDS:
                with pytest.raises(PredictorError, match=match):
                    ErniePredictor(tmp_path / "model", backend=backend)
        path.write_bytes(before)

    config, onnx_file = read(folder / "config.json"), (folder / "model.onnx").read_bytes()
    complains("model.onnx", onnx_file[: len(onnx_file) // 2], r"model\.onnx cannot be loaded; is the file complete\?")
    complains("model.onnx", b"", "cannot be loaded")
    complains("vocab.txt", (folder / "vocab.txt").read_bytes() + b"one\nmore\n", "of different models")
    complains("vocab.txt", b"a\nb\n", "is no ERNIE vocabulary")
    words = (folder / "vocab.txt").read_bytes().splitlines()
    for others in ([*words[:99], words[100], words[99], *words[101:]], words[:-1]):
        complains("vocab.txt", b"\n".join(others), "vocab.txt is not the one that the model was trained with")
    (tmp_path / "model" / "vocab.txt").write_bytes(b"\r\n".join(words))  # the same words
    assert config["vocab_crc32"] == vocab_crc32(load_task(tmp_path / "model").tokenizer.vocab)
    shutil.copy(folder / "vocab.txt", tmp_path / "model")
    complains("config.json", b"{", "is not JSON")
    complains("config.json", json.dumps({**config, "architectures": ["BertModel"]}).encode(), "BertModel, expected")
    fewer = json.dumps({**config, "id2label": {"0": "only"}}).encode()
    complains("config.json", fewer, "1 labels, but the model has 15 classes", BACKENDS)
    other = json.dumps({**config, "architectures": ["ErnieForQuestionAnswering"]}).encode()
    complains("config.json", other, "not a qa model")


@pytest.mark.parametrize(
    "item", ["", " \n", None, 3, ("a", ""), ("a", "b", "c"), {"text": None}, {"sentence": "a"}, "\ud800", b"bytes"]
)
def test_what_is_no_text(item, exported):
    folder, _, _ = exported("tnews")
    with pytest.raises(PredictorError, match=r"^item 1: "):
        ErniePredictor(folder).predict(["好", item])


@pytest.mark.parametrize(("dataset", "length"), [("tnews", 1_000_000), ("msra_ner", 200_000)])
def test_a_long_text(dataset, length, exported):
    """Classified as its beginning is; of one with entities, and of a context, the whole is read."""
    folder, _, _ = exported(dataset)
    predictor = ErniePredictor(folder)
    text = ("北京 Beijing大学，😀" * 100_000)[:length]
    assert len(text) == length
    found, other = predictor.predict([text, "好"])
    assert_same([other], predictor.predict(["好"]))
    if dataset == "msra_ner":
        assert found[0]["start"] < 100 and found[-1]["end"] > length - 100
    else:
        assert_same([found], predictor.predict([text[:2000]]))


def test_a_package_that_is_not_installed(exported, monkeypatch):
    folder, _, _ = exported("tnews")
    monkeypatch.setattr(cpu, "installed_backends", lambda: ["onnxruntime"])
    with pytest.raises(PredictorError, match="--backend openvino needs the package openvino"):
        ErniePredictor(folder, backend="openvino")
    assert ErniePredictor(folder).model.backend == "onnxruntime"
