"""Compression: every strategy in every scenario, what the INT8 models compute, and what the report says."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import onnx
import onnxruntime
import paddle
import pytest
from conftest import ROOT, SAMPLE_DATA, SCRIPT_OF, arguments_for, call, read, start
from ernie_predictor import ErniePredictor
from ernie_predictor.int8 import quantize_onnx
from ernie_predictor.machine import has_vnni
from ernie_predictor.onnx_files import quantized_form
from ernie_predictor.runtimes import installed_engines, open_onnx
from paddlenlp.transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from ernie import paddle_int8, pruning, report, report_picture
from ernie.argument_checks import read_width
from ernie.argument_table import ALGORITHMS, STRATEGIES, CompressionArguments
from ernie.compression import Compression, plan
from ernie.errors import UsageError
from ernie.files import width_name
from ernie.onnx_graph import compute_first_token_only, write_onnx
from ernie.quantization import adaptive_rounding
from ernie.report import DevSet, advice, pick_best, speed_of
from ernie.static_model import run_static_model, save_static_model
from ernie.tasks import DATA_SETS, TASKS

SCENARIOS = ("tnews", "msra_ner", "cmrc2018")
QUICK = ("--algo_list", "mse", "--batch_size_list", 4, "--max_steps", 2)


@pytest.fixture(autouse=True)
def quick_report(one_round):
    pass


@pytest.fixture(scope="module", autouse=True)
def few_examples(tmp_path_factory):
    """A part of the sample data, for all that is not about scores."""
    folder = tmp_path_factory.mktemp("few")
    for source, kept in ((SAMPLE_DATA / "tnews", 30), (SAMPLE_DATA / "msra_ner", 30)):
        (folder / source.name).mkdir()
        for path in source.glob("*.*"):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:kept]
            (folder / source.name / path.name).write_text("".join(lines), encoding="utf-8")
    (folder / "cmrc2018").mkdir()
    for path in (SAMPLE_DATA / "cmrc2018").glob("*.json"):
        articles = read(path)["data"][:4]
        (folder / "cmrc2018" / path.name).write_text(json.dumps({"data": articles}), encoding="utf-8")
    FEW["data_dir"] = folder


FEW = {}


def compress(dataset, model, output_dir, *more):
    """Runs a compress script on few examples in this process; returns compression_report.json."""
    script = SCRIPT_OF[dataset].replace("run_", "compress_")
    call(script, *arguments_for(dataset, model, output_dir, *more, **FEW))
    return read(output_dir / "compression_report.json")


def batch_of(seed=0, shape=(3, 11), vocab_size=1400):
    input_ids = np.random.default_rng(seed).integers(1, vocab_size, shape)
    input_ids[0, shape[1] // 2 :] = 0  # padding
    return {"input_ids": input_ids, "token_type_ids": np.zeros_like(input_ids)}


def run_onnx(path, batch, engine="onnxruntime"):
    return open_onnx(path, engine, 2)(batch)


# The whole way on the sample data


@pytest.fixture(params=SCENARIOS)
def quickstart(request, run_quickstart):
    return run_quickstart(request.param)


@pytest.mark.slow
def test_pruned_and_quantized_models_keep_their_score(run_quickstart):
    """At most half a point on average over the three scenarios (published: 0.46 over nine data sets)."""
    drops = []
    for dataset in SCENARIOS:
        _, folder, _ = run_quickstart(dataset)
        rows = read(folder / dataset / "compression_report.json")["variants"]
        assert [row["variant"] for row in rows] == ["export", "width_mult_0.75", "width_mult_0.75/mse16_1"]
        drops.append(-rows[2]["change"])
        assert rows[2]["score"] >= rows[1]["score"] - 0.005  # INT8 against its own FP32
    assert np.mean(drops) <= 0.5, drops


@pytest.mark.slow
def test_the_onnx_int8_model_answers_as_paddles(quickstart):
    dataset, folder, _ = quickstart
    metrics = read(folder / dataset / "width_mult_0.75" / "mse16_1" / "metrics.json")
    least = 0.98 if dataset == "cmrc2018" else 0.99  # of an answer both ends must agree
    assert metrics["paddle_int8"]["agreement"] >= least
    (other,) = {*installed_engines()} - {metrics["engine"]}
    assert metrics[other]["agreement"] >= least


@pytest.mark.slow
def test_the_report_says_what_the_folders_hold(quickstart):
    dataset, folder, output = quickstart
    report = read(folder / dataset / "compression_report.json")
    table = (folder / dataset / "compression_report.md").read_text(encoding="utf-8")
    assert table in output or dataset == "tnews"  # there the program itself ran, which leaves it to the file
    original = report["variants"][0]
    for row in report["variants"]:
        variant = folder / dataset / row["variant"]
        metrics = read(variant / "metrics.json")
        score = DATA_SETS[dataset].task.score
        assert row["score"] == row["scores"][row["engine"]] == metrics[score]
        # Whose score it is: of the engine that the predictor opens.
        assert row["engine"] == metrics["engine"] == ErniePredictor(variant).model.backend
        assert row["engine"] == ("openvino" if has_vnni() or row is not report["variants"][2] else "onnxruntime")
        assert row["change"] == pytest.approx(100 * (row["score"] - original["score"]))
        assert row["megabytes"] == pytest.approx((variant / "model.onnx").stat().st_size / 2**20)
        for engine, own in row["scores"].items():
            # How fast each is says nothing here: one round, on a machine that may do other work.
            speed = row["speed"][engine]
            assert f"| {speed['texts_per_second']:.0f} ({speed['speed_up']:.2f}x) |" in table
            assert engine in installed_engines() and all(value > 0 for value in speed.values())
            assert own == (metrics if engine == row["engine"] else metrics[engine])[score]
            name = row["variant"] + (" *" if engine == row["engine"] else "")
            assert f"| {name} | {100 * own:.2f} | {100 * (own - original['score']):+.2f} |" in table
    assert original["speed"][original["engine"]]["speed_up"] == 1  # all others are times as fast as this
    assert [row["megabytes"] for row in report["variants"]] == sorted(
        (row["megabytes"] for row in report["variants"]), reverse=True
    )
    assert read(folder / dataset / "metrics.json")[report["score"]] == pytest.approx(original["score"], abs=0.006)


@pytest.mark.slow
def test_the_benchmark_of_scores_prints_what_the_folders_hold(run_quickstart):
    """benchmarks/clue.py, on what the quickstart made already; a second time it makes nothing."""
    _, folder, _ = run_quickstart("tnews")
    command = ["benchmarks/clue.py", "--quick", "--model", "examples/model", "--data_dir", "examples/data"]
    command += ["--config", "examples/quickstart.yml", "--output_dir", str(folder)]
    first, second = (
        subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr[-3000:]
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in first.stdout.splitlines()}
    for name, variant in (("FP32", "export"), ("width 0.75, INT8", "width_mult_0.75/mse16_1"), ("INT8", "mse16_1")):
        assert rows[name][0] == f"{100 * read(folder / 'tnews' / variant / 'metrics.json')['accuracy']:.2f}"
        better, worse = map(int, (rows[name][2] or "0, 0").split(","))
        change = float((rows[name][1] or "0").split()[0])
        assert change == pytest.approx(
            100 * (better - worse) / read(folder / "tnews/metrics.json")["num_examples"], abs=0.006
        )
    assert "INT8, dynamic" in rows and "INT8, calibrated by KL" in rows and "INT8, trained (QAT)" not in rows
    assert first.stderr.count("$ python") == 3 and "inputs/s" not in first.stderr  # nothing is trained again
    assert second.returncode == 0 and "$ python" not in second.stderr and second.stdout == first.stdout
    assert first.stdout == (folder / "clue.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_damaged_model_is_seen_in_the_table_of_scores(run_quickstart, tmp_path, monkeypatch):
    """The scales of one layer's weights four times too large: benchmarks/clue.py's table names the loss."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import clue

    _, folder, _ = run_quickstart("tnews")
    damaged = shutil.copytree(folder / "tnews" / "width_mult_0.75" / "mse16_1", tmp_path / "damaged")
    model = onnx.load(damaged / "model.onnx")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in tensors]
    for node in weights[:6]:
        scale = onnx.numpy_helper.to_array(tensors[node.input[1]])
        tensors[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(4 * scale, node.input[1]))
    onnx.save(model, damaged / "model.onnx")
    folders = {"FP32": folder / "tnews" / "export", "INT8": folder / "tnews" / "width_mult_0.75" / "mse16_1"}
    found = {}
    for name, path in {**folders, "INT8, calibrated by KL": damaged}.items():
        counts = clue.answer("tnews", SAMPLE_DATA, path, False)
        found[name] = {engine: np.array(rows) for engine, rows in counts.items()}
    rows = clue.compared([found])
    assert rows["INT8"]["low"] > -10 and rows["INT8, calibrated by KL"]["high"] < -10
    assert f"| INT8, calibrated by KL | {100 * rows['INT8, calibrated by KL']['score']:.2f} | -" in clue.table_of(
        "tnews", rows, {}
    )


@pytest.mark.slow
def test_the_benchmark_of_speed_runs():
    """benchmarks/compression_speed.py on the smallest model; it stops where an engine computes something else."""
    command = ["benchmarks/compression_speed.py", "--arch", "sample", "--shapes", "2x8", "--rounds", "1"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "(" in line]
    assert len(rows) == 1 + 4 * len(installed_engines()) and "(1.00x)" in rows[0]


# Every strategy


def names(*args, **kwargs):
    return [variant.name for variant in plan(*args, **kwargs)]


PLANS = {
    "dynabert": "export width_mult_0.75",
    "ptq": "export mse16_1",
    "qat": "export qat",
    "embeddings": "export quant_emb",
    "dynabert+ptq": "export width_mult_0.75 width_mult_0.75/mse16_1",
    "dynabert+qat": "export width_mult_0.75 width_mult_0.75/qat",
    "dynabert+embeddings": "export width_mult_0.75 width_mult_0.75/quant_emb",
    "ptq+embeddings": "export mse16_1 mse16_1/quant_emb",
    "qat+embeddings": "export qat qat/quant_emb",
    "dynabert+ptq+embeddings": "export width_mult_0.75 width_mult_0.75/mse16_1 width_mult_0.75/mse16_1/quant_emb",
    "dynabert+qat+embeddings": "export width_mult_0.75 width_mult_0.75/qat width_mult_0.75/qat/quant_emb",
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_plan_of_each_strategy(strategy):
    variants = plan(strategy)
    assert [variant.name for variant in variants] == PLANS[strategy].split()
    # Each is made from one that comes before it; what is quantized is made from the narrow model, where there is one.
    for index, variant in enumerate(variants):
        assert (variant.base is None) == (index == 0)
        assert index == 0 or variant.base in [v.name for v in variants[:index]]
        kind = {"ex": "export", "wi": "width", "ms": "ptq", "qa": "qat", "qu": "embeddings"}
        assert variant.kind == kind[variant.name.split("/")[-1][:2]]
        assert variant.base in (None, "export", os.path.dirname(variant.name))


def test_a_plan_with_several_widths_and_calibrations():
    assert names("dynabert+ptq", [2 / 3, 0.5], ["avg", "hist"], [2, 3], [1, 8])[:4] == [
        *("export", "width_mult_0.6667", "width_mult_0.5", "width_mult_0.6667/avg2_1")
    ]
    assert len(names("dynabert+ptq", [2 / 3, 0.5], ["avg", "hist"], [2, 3], [1, 8])) == 1 + 2 + 2 * 8
    variants = plan("ptq+embeddings", algo_list=["mse", "KL"])
    assert [(v.name, v.base) for v in variants[3:]] == [
        ("mse16_1/quant_emb", "mse16_1"),
        ("KL16_1/quant_emb", "KL16_1"),
    ]


# Each kind of variant in each scenario; `dynabert+ptq` is the quickstart's.
@pytest.mark.parametrize(
    ("dataset", "strategy"),
    [
        ("tnews", "dynabert+ptq+embeddings"),
        ("msra_ner", "dynabert+qat+embeddings"),
        ("msra_ner", "ptq+embeddings"),
        ("cmrc2018", "qat+embeddings"),
        ("cmrc2018", "dynabert+embeddings"),
    ],
)
def test_strategies_make_what_they_plan(dataset, strategy, tmp_path, tiny_fine_tuned, caplog):
    more = ["--strategy", strategy, "--dataloader_num_workers", 1, "--save_step=2", *QUICK]
    report = compress(dataset, tiny_fine_tuned(dataset), tmp_path, *more)
    expected = names(strategy, batch_size_list=[4])
    assert [row["variant"] for row in report["variants"]] == expected
    for name in expected:
        assert f"made        {name}: " in caplog.text
    batch = batch_of()
    for name in expected:
        folder = tmp_path / name
        kind = "int8" if {"mse4_1", "qat", "quant_emb"} & {*name.split("/")} else "model"
        files = {f"{kind}.pdmodel", f"{kind}.pdiparams", "model.onnx", "config.json", "vocab.txt", "metrics.json"}
        assert files | {"tokenizer_config.json"} <= set(os.listdir(folder))
        assert (
            read(folder / "config.json")["architectures"] == read(tmp_path / "export" / "config.json")["architectures"]
        )
        form = "static" if {"mse4_1", "qat"} & {*name.split("/")} else None
        assert read(folder / "config.json")["quantization"] == (form or ("embeddings" if "emb" in name else "none"))
        assert quantized_form(folder / "model.onnx") == form
        (expected_logits,) = run_static_model(str(folder / kind), [batch])
        model = onnx.load(folder / "model.onnx")
        check_quantization(model.graph, products=bool({"mse4_1", "qat"} & {*name.split("/")}), tables="emb" in name)
        for engine in installed_engines():
            for found, logits in zip(run_onnx(folder / "model.onnx", batch, engine), expected_logits):
                assert np.abs(found - logits).max() < (1e-4 if kind == "model" else 0.1 * np.abs(logits).max() + 0.03)
    assert not list(tmp_path.rglob(".*.part*"))


def check_quantization(graph, products, tables):
    """Whether every matrix product takes what DequantizeLinear gives, and every embedding table is int8."""
    makers = {name: node.op_type for node in graph.node for name in node.output}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul":
            assert [makers.get(name) == "DequantizeLinear" for name in node.input] == [products] * 2
        table = types.get(node.input[0])
        if node.op_type == "Gather" and table in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8):
            assert (table == onnx.TensorProto.INT8) == tables


def test_onnx_runtime_computes_in_int8(tmp_path, tiny_fine_tuned):
    """What its default provider makes of the file holds no FP32 matrix product."""
    compress("tnews", tiny_fine_tuned("tnews"), tmp_path, "--strategy", "ptq", *QUICK)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(tmp_path / "mse4_1" / "model.onnx", options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert not {"MatMul", "FusedMatMul", "Attention"} & {*kinds}
    # q, k, v, out, linear1, linear2 and the two products of attention; pooler and classifier, which see one token,
    # become Gemm before ONNX Runtime looks for quantization.
    assert sum(kind in ("MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger") for kind in kinds) == 8


def test_the_default_provider_is_told_not_to_saturate(exported, tmp_path, tiny_fine_tuned):
    """Unless the file says that it cannot, or has no INT8 products: test_processors.py shows that it is true."""
    compress("tnews", tiny_fine_tuned("tnews"), tmp_path, "--strategy", "ptq", *QUICK)
    model = onnx.load(tmp_path / "mse4_1" / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "silent.onnx")
    for path, entry in (
        (tmp_path / "silent.onnx", "1"),
        (tmp_path / "mse4_1" / "model.onnx", "0"),
        (exported / "model.onnx", "0"),
    ):
        options = open_onnx(path, "onnxruntime", 1).session.get_session_options()
        assert options.get_session_config_entry("session.x64quantprecision") == entry


# Calibration and its arguments


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_fine_tuned):
    folder = tmp_path_factory.mktemp("exported")
    compress("tnews", tiny_fine_tuned("tnews"), folder, "--strategy", "embeddings")
    return folder / "export"


def calibrate(exported, folder, algo="mse", batches=None, **options):
    """(scales, logits) of an INT8 model."""
    args = CompressionArguments(output_dir=str(folder), **options)
    batches = batches or [batch_of(1), batch_of(2)]
    source, target = str(exported / "model"), str(folder / "int8")
    rounding = adaptive_rounding if args.round_type == "adaround" else None
    paddle_int8.post_training_quantization(source, target, batches, algo, args, rounding)
    return paddle_int8.read_matmul_scales(target), next(run_static_model(target, [batch_of()]))[0]


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_each_algorithm_calibrates(algo, exported, tmp_path):
    scales, logits = calibrate(exported, tmp_path, algo)
    (expected,) = next(run_static_model(str(exported / "model"), [batch_of()]))
    assert len(scales) == 10 and all(a is not None and b is not None for a, b in scales)
    assert 0 < np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


def test_scales_are_what_the_algorithm_says(exported, tmp_path):
    """abs_max and min_max against ONNX Runtime's own values of the first product's input."""
    model = onnx.load(exported / "model.onnx")
    first = [node for node in model.graph.node if node.op_type == "MatMul"][1]  # the keys', of all tokens
    model.graph.output.append(onnx.helper.make_tensor_value_info(first.input[0], onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "first.onnx")
    batches = [batch_of(1), batch_of(2)]
    highest = [np.abs(run_onnx(tmp_path / "first.onnx", batch)[1]).max(axis=(1, 2)) for batch in batches]
    for algo, expected in {"abs_max": np.max(highest), "min_max": np.max(highest), "avg": np.mean(highest)}.items():
        scales, _ = calibrate(exported, tmp_path, algo, batches)
        assert scales[1][0][0] == pytest.approx(expected / 127, rel=1e-4)
    weight = onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == first.input[1]))
    column_scales, values = scales[1][1]
    # No integer is above 127, and no two neighbours of one sign add up to more than 126 before they are rounded.
    pairs = [np.clip(sign * weight, 0, None) for sign in (1, -1)]
    pairs = np.max([part[0::2] + part[1::2] for part in pairs], axis=(0, 1))
    assert column_scales == pytest.approx(np.maximum(np.abs(weight).max(axis=0) / 127, pairs / 126), rel=1e-5)
    assert np.abs(values * column_scales - weight).max() <= 0.5001 * column_scales.max()


def test_weight_quantize_type(exported, tmp_path):
    scales, _ = calibrate(exported, tmp_path, weight_quantize_type="abs_max")
    assert np.ndim(scales[0][1][0]) == 0
    scales, _ = calibrate(exported, tmp_path, weight_quantize_type="channel_wise_abs_max")
    assert scales[0][1][0].shape == (16,)


def test_adaptive_rounding_lowers_the_error_of_products(exported, tmp_path):
    """On inputs whose channels move together, as a layer's do; and through the whole calibration."""
    generator = np.random.default_rng(0)
    inputs = (generator.normal(size=(300, 64)) @ generator.normal(size=(64, 64))).astype(np.float32)
    weight = generator.normal(size=(64, 48)).astype(np.float32)
    scale = np.abs(weight).max(axis=0) / 7  # as coarse as 4 bits
    integers = adaptive_rounding(weight, scale, inputs)
    assert np.abs(integers - weight / scale).max() < 1 and (integers == np.round(integers)).all()

    def error(rounded):
        return np.square(inputs @ (rounded * scale - weight)).mean()

    assert error(integers) < 0.7 * error(np.round(weight / scale))

    plain, logits = calibrate(exported, tmp_path)
    scales, rounded = calibrate(exported, tmp_path, round_type="adaround")
    differences = [np.abs(a[1][1].astype(int) - b[1][1]) for a, b in zip(plain, scales) if b[1][1] is not None]
    assert max(d.max() for d in differences) == 1
    assert all(a[0][0] == b[0][0] for a, b in zip(plain, scales))  # activations are calibrated alike
    assert np.abs(rounded - logits).max() < 0.1 * np.abs(logits).max()


def test_a_column_of_zeros(tmp_path, tiny_model):
    """And a table, whose largest weight is 0: no scale is 0, by which would be divided."""
    inputs = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    weight = np.array([[1, 0], [2, 0], [3, 0], [4, 0]], np.float32)
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        assert not adaptive_rounding(weight, np.abs(weight).max(axis=0) / 127, inputs)[:, 1].any()

    model = AutoModelForSequenceClassification.from_pretrained(str(tiny_model), num_labels=5)
    model.eval()
    model.ernie.embeddings.token_type_embeddings.weight.set_value(paddle.zeros([4, 16]))
    layer = model.ernie.encoder.layers[0]
    layer.linear1.weight.set_value(layer.linear1.weight.numpy() * (np.arange(32) != 3).astype(np.float32))
    save_static_model(model, str(tmp_path))
    write_onnx(str(tmp_path), ["logits"])
    scales, logits = calibrate(tmp_path, tmp_path, round_type="adaround")
    assert all(np.isfinite(part[0]).all() and (part[0] > 0).all() for product in scales for part in product)
    assert np.isfinite(logits).all()
    quantize_onnx(str(tmp_path / "model.onnx"), str(tmp_path / "int8.onnx"), scales, quantize_tables=True)
    plain = run_onnx(tmp_path / "model.onnx", batch_of())[0]
    for engine in installed_engines():
        assert np.abs(run_onnx(tmp_path / "int8.onnx", batch_of(), engine)[0] - plain).max() < 0.1


def test_bias_correction_changes_weights_and_stays_near(exported, tmp_path):
    plain, logits = calibrate(exported, tmp_path)
    scales, corrected = calibrate(exported, tmp_path, bias_correction=True)
    assert corrected.shape == logits.shape
    assert any((a[1][1] != b[1][1]).any() for a, b in zip(plain, scales) if b[1][1] is not None)
    assert np.abs(corrected - logits).max() < 0.1 * np.abs(logits).max()


def test_quantization_aware_training(tmp_path, tiny_fine_tuned):
    """The saved Paddle model computes what the ONNX model with its scales does."""
    model = tiny_fine_tuned("tnews")
    compress("tnews", model, tmp_path, "--strategy", "qat", *QUICK)
    for shape in ((1, 5), (3, 11)):
        batch = batch_of(shape=shape)
        (expected,) = next(run_static_model(str(tmp_path / "qat" / "int8"), [batch]))
        for engine in installed_engines():
            (found,) = run_onnx(tmp_path / "qat" / "model.onnx", batch, engine)
            assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max() + 0.03
    (plain,) = next(run_static_model(str(tmp_path / "export" / "model"), [batch]))
    assert np.abs(expected - plain).max() > 0


def test_arguments_of_compression_reach_the_models(tmp_path, tiny_fine_tuned):
    """int32 inputs, PACT off, several widths and calibrations, in one run."""
    arguments = ("--input_dtype", "int32", "--use_pact", "false", "--width_mult_list", "2/3")
    more = ("0.5", "--strategy", "dynabert+ptq", "--algo_list", "avg", "hist", "--batch_size_list", 2, 3)
    report = compress("tnews", tiny_fine_tuned("tnews"), tmp_path, *arguments, *more, "--max_steps", 2)
    names = [f"{algo}{size}_1" for algo in ("avg", "hist") for size in (2, 3)]
    assert [row["variant"] for row in report["variants"]] == [
        "export",
        *("width_mult_0.6667", "width_mult_0.5"),
        *(f"width_mult_0.6667/{name}" for name in names),
        *(f"width_mult_0.5/{name}" for name in names),
    ]
    session = onnxruntime.InferenceSession(tmp_path / "width_mult_0.5" / "avg2_1" / "model.onnx")
    assert {i.type for i in session.get_inputs()} == {"tensor(int32)"}
    assert read(tmp_path / "width_mult_0.6667" / "config.json")["width_mult"] == pytest.approx(2 / 3)


# Pruning


@pytest.fixture
def classifier(sample_model):
    paddle.seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(str(sample_model), num_labels=5)
    model.eval()
    return model


def logits_of(model, batch):
    output = model(*(paddle.to_tensor(batch[name]) for name in ("input_ids", "token_type_ids")))
    output = output if isinstance(output, tuple) else (output,)
    return [logits.numpy() for logits in output]


def test_importance_is_the_derivative_by_a_factor(classifier):
    """Against central differences: the loss with a head's or a neuron's output scaled a little up and down."""
    batch = {name: paddle.to_tensor(array) for name, array in batch_of().items()}
    batch["labels"] = paddle.to_tensor(np.array([0, 3, 4]))
    ((heads, neurons), _) = pruning.importance(classifier, [batch])
    layer = classifier.ernie.encoder.layers[0]

    def difference(weight, rows):
        values, step = weight.numpy(), 0.01
        results = []
        for factor in (1 + step, 1 - step):
            scaled = values.copy()
            scaled[rows] *= factor
            weight.set_value(scaled)
            results.append(float(classifier(**batch)[0]))
        weight.set_value(values)
        return (results[0] - results[1]) / (2 * step)

    head_dim = layer.self_attn.head_dim
    for head in range(4):
        expected = difference(layer.self_attn.out_proj.weight, slice(head * head_dim, (head + 1) * head_dim))
        assert heads[head] == pytest.approx(abs(expected), rel=0.05, abs=2e-4)
    best = neurons.argmax()
    assert neurons[best] >= abs(difference(layer.linear2.weight, slice(best, best + 1))) * 0.95


@pytest.mark.parametrize("auto_class", [AutoModelForSequenceClassification, AutoModelForQuestionAnswering])
def test_reordering_changes_nothing_and_full_width_is_the_model(auto_class, sample_model):
    model = auto_class.from_pretrained(str(sample_model))
    model.eval()
    expected = logits_of(model, batch_of())
    generator = np.random.default_rng(0)
    pruning.reorder(model, [(generator.random(4), generator.random(512)) for _ in range(2)])
    for found in (model, pruning.Supernet(model, [1.0]).student):
        for a, b in zip(logits_of(found, batch_of()), expected):
            assert np.abs(a - b).max() < 1e-5


@pytest.mark.parametrize("width_mult, heads, neurons", [(0.75, 3, 384), (2 / 3, 2, 341), (0.5, 2, 256), (0.01, 1, 5)])
def test_a_narrow_model_is_its_supernet_at_that_width(width_mult, heads, neurons, classifier):
    supernet = pruning.Supernet(copy.deepcopy(classifier), [width_mult])
    supernet.eval()
    supernet.set_width(width_mult)
    narrow = pruning.narrow(classifier, width_mult)
    layer = narrow.ernie.encoder.layers[0]
    assert layer.self_attn.q_proj.weight.shape == [128, heads * 32] and layer.linear1.weight.shape == [128, neurons]
    a, b = logits_of(narrow, batch_of())[0], logits_of(supernet, batch_of())[0]
    assert np.abs(a - b).max() < 1e-5


@pytest.mark.parametrize("length", [11, 5])
def test_the_student_does_not_learn_from_padding(length, classifier):
    """Also where a batch is as long as there are classes: those are no places in a text."""
    supernet = pruning.Supernet(classifier, [0.5])
    supernet.train()
    losses = []
    for padding in (0, 7):
        arrays = {name: np.pad(array, [(0, 0), (0, padding)]) for name, array in batch_of(shape=(3, length)).items()}
        losses.append(float(supernet(**{name: paddle.to_tensor(array) for name, array in arrays.items()})))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] > 0.1


def test_the_teacher_is_not_trained_and_not_saved(classifier):
    supernet = pruning.Supernet(classifier, [0.5])
    names = set(supernet.state_dict())
    assert names == {f"student.{name}" for name in classifier.state_dict()}
    before = {name: value.numpy().copy() for name, value in supernet.teacher.state_dict().items()}
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=supernet.parameters())
    supernet.train()
    first = None
    for _ in range(10):
        loss = supernet(**{name: paddle.to_tensor(array) for name, array in batch_of().items()})
        first = first or float(loss)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    assert float(loss) < 0.95 * first
    assert all((before[name] == value.numpy()).all() for name, value in supernet.teacher.state_dict().items())


# The first token


def test_a_classifier_computes_its_last_layer_for_the_first_token(exported, tmp_path):
    """The exported file against the same model without that."""
    shutil.copytree(exported, tmp_path / "plain")
    write_onnx(str(tmp_path / "plain"), ["logits"])
    plain = onnx.load(tmp_path / "plain" / "model.onnx")
    assert "first_token" in {name for node in onnx.load(exported / "model.onnx").graph.node for name in node.output}
    for shape in ((1, 3), (4, 60)):
        batch = batch_of(shape=shape)
        a, b = (run_onnx(folder / "model.onnx", batch)[0] for folder in (exported, tmp_path / "plain"))
        assert np.abs(a - b).max() < 1e-5
    assert compute_first_token_only(plain.graph)


def test_a_graph_of_another_form_is_left_alone(tmp_path, tiny_fine_tuned):
    compress("msra_ner", tiny_fine_tuned("msra_ner"), tmp_path, "--strategy", "embeddings")
    model = onnx.load(tmp_path / "export" / "model.onnx")
    before = model.SerializeToString()
    assert not compute_first_token_only(model.graph)
    assert model.SerializeToString() == before


# The budget


def test_max_drop_takes_the_fastest_within_the_budget(tmp_path, tiny_fine_tuned, caplog):
    model = tiny_fine_tuned("tnews")
    report = compress("tnews", model, tmp_path, "--strategy", "dynabert+ptq", *QUICK, "--max_drop", 100)
    faster = [row for row in report["variants"][1:] if speed_of(row)["speed_up"] > 1]
    assert (tmp_path / "best").exists() == has_colour(tmp_path / "compression_report.png", report_picture.BEST)
    assert (tmp_path / "best").exists() == bool(faster)
    if faster:
        best = read(tmp_path / "best" / "metrics.json")["variant"]
        assert best == max(faster, key=lambda row: speed_of(row)["speed_up"])["variant"]
        assert (tmp_path / "best" / "model.onnx").read_bytes() == (tmp_path / best / "model.onnx").read_bytes()
    rows = copy.deepcopy(report["variants"])
    # The engine that the predictor opens counts, not one that was faster; and the speed-up, since texts per second are
    # of another minute each.
    for fastest, other in ((1, 2), (2, 1)):
        for index, row in enumerate(rows):
            row["engine"] = "onnxruntime"
            row["speed"]["onnxruntime"] = {"speed_up": {fastest: 3, other: 2}.get(index, 1), "texts_per_second": 100}
            row["speed"]["onnxruntime"]["texts_per_second"] += 1e3 * (index == other)
            row["speed"]["openvino"]["texts_per_second"] = 1e6 * index
        assert pick_best(str(tmp_path), rows, 100) == rows[fastest]["variant"]
    rows[1]["change"], rows[2]["change"] = -0.6, -0.9
    assert pick_best(str(tmp_path), rows, 0.7) == rows[1]["variant"]
    assert pick_best(str(tmp_path), rows, 0.5) is None
    assert not (tmp_path / "best").exists()
    rows[1]["change"], rows[1]["speed"]["onnxruntime"]["speed_up"] = 0, 0.95
    assert pick_best(str(tmp_path), rows, 0.5) is None
    assert "no variant within 0.5 points is faster than export" in caplog.text
    (tmp_path / "best").mkdir()  # a folder of somebody else's stays
    for drop in (0.5, 100):
        pick_best(str(tmp_path), rows, drop)
        assert not list((tmp_path / "best").iterdir())
    # One behind a link is written to, and emptied of what is not the best any more.
    (tmp_path / "server").mkdir()
    (tmp_path / "best").rmdir()
    (tmp_path / "best").symlink_to("server")
    assert pick_best(str(tmp_path), rows, 100) == read(tmp_path / "server" / "metrics.json")["variant"]
    assert pick_best(str(tmp_path), rows, 0.5) is None
    assert (tmp_path / "best").is_symlink() and not (tmp_path / "server").exists()


def test_best_is_made_beside_the_model_by_default(tmp_path, tiny_fine_tuned):
    model = tmp_path / "tnews"
    shutil.copytree(tiny_fine_tuned("tnews"), model)
    arguments = ["--model_name_or_path", model, "--dataset", "tnews", "--data_dir", SAMPLE_DATA, "--strategy", "ptq"]
    call("compress_seq_cls", *arguments, *QUICK)
    report = read(model / "compression_report.json")
    assert (model / "mse4_1" / "model.onnx").exists()
    found = (model / "best" / "metrics.json").exists()
    row = report["variants"][1]
    assert found == (row["change"] >= -0.5 and speed_of(row)["speed_up"] > 1)
    # The only variant: it is the best, or there is none.
    assert has_colour(model / "compression_report.png", report_picture.BEST) == found
    assert has_colour(model / "compression_report.png", report_picture.PLAIN) != found
    text = (model / "compression_report.md").read_text(encoding="utf-8")
    (share,) = report["baseline"].values()
    assert report["advice"] in text and f"Baseline: always the commonest label, {100 * share:.2f}." in text


def has_colour(picture, colour):
    """Whether a PNG has pixels of a colour, "#rrggbb"."""
    pixels = (255 * matplotlib.image.imread(picture)).round()[..., :3]
    return bool((pixels == [*bytes.fromhex(colour[1:])]).all(axis=-1).any())


def test_advice():
    def row(name, score, texts_per_second):
        speed = {"openvino": {"texts_per_second": texts_per_second, "speed_up": texts_per_second / 100}}
        change = 100 * (score - 0.9)
        return {"variant": name, "score": score, "change": change, "speed": speed, "engine": "openvino"}

    rows = [row("export", 0.9, 100), row("narrow", 0.896, 150), row("int8", 0.899, 300), row("both", 0.88, 400)]
    baseline = {"majority_class": 0.5}
    best = "Take int8: -0.10 points, 3.00x as fast with OpenVINO; it is copied to best/."
    assert advice(rows, baseline, 0.5) == best
    assert advice(rows, baseline, 3).startswith("Take both: -2.00 points, 4.00x")
    assert advice(rows, baseline, 0).startswith("Take export: every variant lost more than 0 points; int8 is closest")
    assert "train it first" in advice(rows, {"majority_class": 0.9}, 0.5)
    rows = [row("export", 0.9, 100), row("narrow", 0.9, 95), row("int8", 0.88, 300)]
    assert advice(rows, baseline, 0.5) == (
        "Take export: no variant within 0.5 points is faster than export on this processor."
    )


def test_timing_opens_no_more_than_two_models_at_a_time(tmp_path, exported, monkeypatch):
    """Whatever the number of variants: ERNIE 3.0-Base with all algorithms has more than fit in memory."""
    alive, most = weakref.WeakSet(), []

    def counted(*args):
        model = open_onnx(*args)
        alive.add(model)
        most.append(len(alive))
        return model

    monkeypatch.setattr(report, "open_onnx", counted)
    features = [{"input_ids": [1, 5, 6, 2][:n], "token_type_ids": [0] * n, "labels": 0} for n in (3, 4)]
    dev_set = DevSet(SimpleNamespace(sorted_features=features, task=TASKS["seq_cls"]), batch_collator, 2)
    speeds = report.measure_speed({name: str(exported) for name in "abcde"}, dev_set, installed_engines())
    assert len(most) == 5 * len(installed_engines()) and max(most) == 2
    for engine in installed_engines():
        assert list("abcde") == sorted(speeds[engine])
        assert all(speed["texts_per_second"] > 0 and speed["latency_ms"] > 0 for speed in speeds[engine].values())


def batch_collator(features):
    length = max(len(f["input_ids"]) for f in features)
    return {
        key: np.array([(f[key] + [0] * length)[:length] if key != "labels" else f[key] for f in features])
        for key in features[0]
    }


def test_running_again_makes_nothing_anew(tmp_path, tiny_fine_tuned, monkeypatch, caplog):
    arguments = ("tnews", tiny_fine_tuned("tnews"), tmp_path, *QUICK)
    qat = (*arguments, "--strategy", "dynabert+qat")
    ranked_on = []

    def importance(model, batches):
        ranked_on.extend(row[row > 0].tolist() for batch in batches for row in batch["input_ids"].numpy())
        return pruning.importance(model, batches)

    monkeypatch.setattr("ernie.compression.importance", importance)
    compress(*qat)
    assert sorted(ranked_on) == sorted(ids_of_training_texts(tmp_path / "export"))  # not on the dev set
    files = ["export/model.onnx", "width_mult_0.75/model.onnx", "width_mult_0.75/qat/model.onnx"]
    before = [(tmp_path / name).stat().st_mtime_ns for name in files]
    compress(*qat)
    assert [(tmp_path / name).stat().st_mtime_ns for name in files] == before
    # Without matplotlib there is a line that says so, and no picture.
    (tmp_path / "compression_report.png").unlink()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ernie.report_picture", None)
        compress(*qat, "--moving_rate", 0.8)
    assert "pip install matplotlib" in caplog.text and not (tmp_path / "compression_report.png").exists()
    after = [(tmp_path / name).stat().st_mtime_ns for name in files]
    assert after[:2] == before[:2] and after[2] > before[2]
    what_other_commands_made_counts_and_stays(arguments, tmp_path, caplog)


def ids_of_training_texts(model):
    task = ErniePredictor(model).task
    rows = (FEW["data_dir"] / "tnews" / "train.json").read_text(encoding="utf-8").splitlines()
    features, _ = task.tokenize([task.check(json.loads(row)["sentence"]) for row in rows])
    return [list(ids) for ids, _ in features]


def what_other_commands_made_counts_and_stays(arguments, folder, caplog):
    """The report covers all variants of a folder; a width that is made again does not take those inside it along."""
    inside = folder / "width_mult_0.75" / "qat"
    metrics = read(inside / "metrics.json")
    (other,) = {*installed_engines()} - {metrics["engine"]}
    del metrics[other]  # as where that engine was installed later
    (inside / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    report = compress(*arguments, "--strategy", "embeddings")
    assert [row["variant"] for row in report["variants"]] == [
        *("export", "quant_emb", "width_mult_0.75", "width_mult_0.75/qat")
    ]
    assert report["variants"][3]["scores"][other] == read(inside / "metrics.json")[other]["accuracy"]

    before = (inside / "model.onnx").stat().st_mtime_ns
    report = compress(*arguments, "--strategy", "dynabert", "--save_steps", 1)
    assert "made        width_mult_0.75: " in caplog.text
    assert (inside / "model.onnx").stat().st_mtime_ns == before and (inside / "metrics.json").exists()
    assert [row["variant"] for row in report["variants"]] == ["export", "width_mult_0.75", "quant_emb"]
    assert "width_mult_0.75/qat is not in the report: it was made from an earlier width_mult_0.75" in caplog.text


# What is made again after an argument has changed, and what is made from that.
MADE_AGAIN = {
    "--moving_rate=0.5": "qat",
    "--round_type=adaround": "ptq",
    "--weight_quantize_type=abs_max": "ptq qat",
    "--learning_rate=0.5": "width qat",
    "--seed=7": "width ptq qat",
    "--max_seq_length=64": "export",
    "--input_dtype=int32": "export",
    "--logging_steps=7": "",
    "--max_drop=9": "",
}


@pytest.mark.parametrize("argument", MADE_AGAIN)
def test_an_argument_makes_again_what_depends_on_it(argument, tmp_path, compression_of):
    arguments = ["--width_mult_list", "0.75", "0.5"]
    for strategy in ("dynabert+ptq+embeddings", "qat"):
        before, now = (
            compression_of(tmp_path, *arguments, "--strategy", strategy, *more) for more in ((), (argument,))
        )
        for name, variant in before.variants.items():
            line = [variant.kind]
            while variant.base:
                variant = before.variants[variant.base]
                line.append(variant.kind)
            changed = before.made_from(before.variants[name]) != now.made_from(now.variants[name])
            assert changed == bool({*line} & {*MADE_AGAIN[argument].split()}), name
    # Hours of training are not repeated for the type of the inputs.
    trained = [compression.identity_of("width") for compression in (before, now)]
    assert (trained[0] == trained[1]) == ("width" not in MADE_AGAIN[argument] and "seq" not in argument)


@pytest.fixture
def compression_of(tiny_fine_tuned, monkeypatch):
    """A function of an output folder and arguments: the `Compression` that compress_seq_cls.py would run."""

    def get(folder, *more):
        with monkeypatch.context() as patch:
            made = []
            patch.setattr(Compression, "compress", lambda self: made.append(self))
            call("compress_seq_cls", *arguments_for("tnews", tiny_fine_tuned("tnews"), folder, *more, **FEW))
        return made[0]

    return get


def test_a_folder_that_can_not_be_replaced(tmp_path, tiny_fine_tuned, capsys):
    """Is refused before the work."""
    for name in ("best", "mse4_1"):
        (tmp_path / name).write_text("in the way")
        with pytest.raises(SystemExit) as stopped:
            compress("tnews", tiny_fine_tuned("tnews"), tmp_path, "--strategy", "ptq", *QUICK)
        assert stopped.value.code == 1 and f"/{name} is in the way" in capsys.readouterr().err
        assert not list(tmp_path.rglob("model.*"))
        (tmp_path / name).unlink()


def test_changed_training_texts_calibrate_and_train_again(tmp_path, tiny_fine_tuned, caplog):
    shutil.copytree(FEW["data_dir"] / "tnews", tmp_path / "data" / "tnews")
    arguments = arguments_for("tnews", tiny_fine_tuned("tnews"), tmp_path / "out", *QUICK, data_dir=tmp_path / "data")
    arguments += ["--strategy", "dynabert+ptq"]
    call("compress_seq_cls", *arguments)
    written = {name: (tmp_path / "out" / name / "model.onnx").stat().st_mtime_ns for name in PLANS_MADE}
    train = tmp_path / "data/tnews/train.json"
    rows = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
    lines = (json.dumps({**row, "sentence": row["sentence"][::-1]}, ensure_ascii=False) + "\n" for row in rows)
    train.write_text("".join(lines), encoding="utf-8")
    caplog.clear()
    call("compress_seq_cls", *arguments)
    assert "there       export: " in caplog.text
    assert "changed     the training data, since " in caplog.text
    changed = {
        name for name in PLANS_MADE if (tmp_path / "out" / name / "model.onnx").stat().st_mtime_ns > written[name]
    }
    assert changed == {"width_mult_0.75", "width_mult_0.75/mse4_1"}


PLANS_MADE = ("export", "width_mult_0.75", "width_mult_0.75/mse4_1")


def test_labels_are_the_fine_tuned_models(tmp_path, tiny_model):
    """Some of the training texts are enough to calibrate, with whatever labels they have."""
    rows = [{"sentence": f"第{i}条新闻", "label": "甲乙丙"[i % 3]} for i in range(12)]
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)

    def write(rows):
        for split in ("train", "dev"):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{split}.json").write_text(text, encoding="utf-8")

    write(rows)
    usual = {"data_dir": tmp_path / "data"}
    call("run_seq_cls", *arguments_for("mine", tiny_model, tmp_path, "--do_train", "--max_steps", 1, **usual))
    write(rows[:2])
    more = arguments_for("mine", tmp_path / "mine", tmp_path / "mine", "--strategy", "ptq", *QUICK, **usual)
    call("compress_seq_cls", *more)
    assert len(read(tmp_path / "mine/mse4_1/config.json")["id2label"]) == 3


# Killed, and run again


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy, seen",
    [
        ("dynabert+ptq", "compression/dynabert/checkpoint-20/complete.json"),
        ("ptq", ".mse4_1.*.part/new/int8.pdmodel"),
        ("qat", "compression/qat/checkpoint-20/complete.json"),
    ],
)
def test_a_killed_run_leaves_nothing_half_written_and_is_resumed(strategy, seen, tmp_path, tiny_fine_tuned, caplog):
    arguments = arguments_for("tnews", tiny_fine_tuned("tnews"), tmp_path, "--strategy", strategy)
    arguments += ["--algo_list", "mse", "--batch_size_list", 4, "--max_steps", 60, "--save_steps", 20]
    (tmp_path / ".theirs.x.part").mkdir()
    process = start("compress_seq_cls.py", *arguments, "--logging_steps", 10)
    deadline = time.time() + 600
    while not list(tmp_path.glob(seen)):
        assert process.poll() is None and time.time() < deadline, process.communicate()[0][-3000:]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for folder in [p.parent for p in tmp_path.rglob("model.onnx") if ".part" not in str(p)]:
        assert (folder / "metrics.json").exists()
    call("compress_seq_cls", *arguments, "--logging_steps", 10)
    assert ("resuming    from" in caplog.text) == (strategy != "ptq")
    report = read(tmp_path / "compression_report.json")
    for row in report["variants"]:
        assert (tmp_path / row["variant"] / "metrics.json").exists()
    # What the killed run left is gone; what is not ours stays.
    assert [path.name for path in tmp_path.rglob(".*.part*")] == [".theirs.x.part"]


def test_trainings_resume_whatever_was_made_before(tmp_path, tiny_fine_tuned):
    """An optimizer's state is found by the names of parameters: the second time, the widths are there already."""
    model = tmp_path / "model"
    shutil.copytree(tiny_fine_tuned("tnews"), model)
    config = read(model / "config.json") | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    arguments = ("tnews", model, tmp_path, "--strategy", "dynabert+qat", "--max_steps", 4, "--save_steps", 2)
    arguments += ("--save_total_limit", 9)
    compress(*arguments)
    training = tmp_path / "compression" / "width_mult_0.75-qat"
    whole = paddle.load(str(training / "checkpoint-4" / "model_state.pdparams"))
    shutil.rmtree(training / "checkpoint-4")
    shutil.rmtree(tmp_path / "width_mult_0.75" / "qat")
    compress(*arguments)
    resumed = paddle.load(str(training / "checkpoint-4" / "model_state.pdparams"))
    for name, weight in whole.items():
        np.testing.assert_array_equal(resumed[name].numpy(), weight.numpy(), err_msg=name)


@pytest.mark.slow
def test_two_processes_prune_as_one(tmp_path, tiny_fine_tuned):
    """paddle.distributed.launch over gloo: each process trains on its half, the first one measures."""
    arguments = arguments_for("tnews", tiny_fine_tuned("tnews"), tmp_path / "out", "--strategy", "dynabert+ptq", *QUICK)
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    done = start(launch[0], *launch[1:], "compress_seq_cls.py", *arguments)
    output = done.communicate()[0]
    assert done.returncode == 0, output[-3000:]
    names = [row["variant"] for row in read(tmp_path / "out" / "compression_report.json")["variants"]]
    assert names == ["export", "width_mult_0.75", "width_mult_0.75/mse4_1"]


# Bad arguments


@pytest.mark.parametrize("text, width", [("0.75", 0.75), ("3/4", 0.75), ("2/3", 2 / 3), (" 1 ", 1.0), (".5", 0.5)])
def test_widths(text, width):
    assert read_width(text) == pytest.approx(width)


def test_each_width_has_a_folder_of_its_own():
    widths = [2 / 3, 0.67, 0.75, 1.0, 0.001, 0.0001]
    assert [width_name(w).removeprefix("width_mult_") for w in widths] == [
        "0.6667",
        "0.67",
        "0.75",
        "1.0",
        "0.001",
        "0.0001",
    ]


@pytest.mark.parametrize(
    "text", ["1.5", "0.00001", "0", "-0.5", "__import__('os')", "1/0", "0.75,0.5", "", "nan", "3/2"]
)
def test_what_is_no_width(text):
    with pytest.raises(UsageError, match="width_mult_list"):
        read_width(text)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--width_mult_list", "1.5"], "--width_mult_list 1.5"),
        (["--width_mult_list", "__import__('os')"], "__import__('os')"),
        (["--width_mult_list", "0.75", "3/4"], "--width_mult_list 3/4: the folder width_mult_0.75 is named twice"),
        (["--strategy", "dynabart+ptq"], "did you mean dynabert+ptq?"),
        (["--algo_list", "mse", "kl"], "--algo_list kl"),
        (["--batch_size_list", "0"], "--batch_size_list 0"),
        (["--algo_list", "mse", "KL", "mse"], "--algo_list mse: named twice"),
        (["--batch_size_list", "4", "8", "4"], "--batch_size_list 4: named twice"),
        (["--batch_num_list", "1", "1"], "--batch_num_list 1: named twice"),
        (["--round_type", "floor"], "--round_type floor"),
        (["--prune_embeddings", "true"], "--prune_embeddings has no use here"),
        (["--do_train"], "--do_train is an argument of run_*.py"),
        (["--max_drop", "-1"], "--max_drop -1"),
    ],
)
def test_bad_arguments_end_in_a_message(arguments, expected, tmp_path, tiny_fine_tuned, capsys):
    with pytest.raises(SystemExit) as stopped:
        call("compress_seq_cls", *arguments_for("tnews", tiny_fine_tuned("tnews"), tmp_path / "out", *arguments))
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_data_set(tmp_path, tiny_fine_tuned, capsys):
    with pytest.raises(SystemExit) as stopped:
        call("compress_seq_cls", *arguments_for("ocnli", tiny_fine_tuned("tnews"), tmp_path))
    assert stopped.value.code == 1
    assert "was not fine-tuned for ocnli" in capsys.readouterr().err


def test_a_dev_set_without_labels(tmp_path, tiny_fine_tuned, capsys):
    shutil.copytree(SAMPLE_DATA / "tnews", tmp_path / "data" / "tnews")
    shutil.copy(tmp_path / "data" / "tnews" / "test.json", tmp_path / "data" / "tnews" / "dev.json")
    arguments = arguments_for("tnews", tiny_fine_tuned("tnews"), tmp_path / "out", data_dir=tmp_path / "data")
    with pytest.raises(SystemExit) as stopped:
        call("compress_seq_cls", *arguments)
    assert stopped.value.code == 1
    message = capsys.readouterr().err
    assert "dev.json line 1" in message and "label" in message


def test_the_published_commands_parse(monkeypatch):
    """As they stand in people's notes."""
    import utils

    monkeypatch.chdir(ROOT)
    for task, dataset in (("seq_cls", "afqmc"), ("token_cls", "msra_ner"), ("qa", "cmrc2018")):
        command = (
            f"--model_name_or_path best_models/{dataset}/ --dataset {dataset} --output_dir ./best_models/{dataset}"
        )
        argv = [*command.split(), "--config=configs/default.yml"]
        _, data_args, args = utils.parse_arguments(TASKS[task], utils.CompressionArguments, argv)
        assert args.output_dir == f"best_models/{dataset}" and args.strategy == "dynabert+ptq"
        assert args.width_mult_list == [0.75] and args.algo_list == ["mse"] and args.batch_size_list == [4, 8, 16]
        assert data_args.max_seq_length == (512 if dataset == "cmrc2018" else 128)
