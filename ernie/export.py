"""Saving and export: model folders that are whole or not there."""

import workarounds

import collections
import contextlib
import json
import os
import shutil
import tempfile

import numpy as np
import onnx
import paddle
from onnx import helper
from paddlenlp.utils.log import logger


def write_json(path, content):
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_text(path, text):
    """Writes a text file whole or not at all."""
    with open(path + ".part", "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
    os.replace(path + ".part", path)


@contextlib.contextmanager
def new_folder(path):
    """Yields an empty folder beside `path` that takes its place when all went well."""
    parent = os.path.dirname(os.path.abspath(path))
    os.makedirs(parent, exist_ok=True)
    part = tempfile.mkdtemp(prefix=f".{os.path.basename(path)}.", suffix=".part", dir=parent)
    os.chmod(part, 0o755)
    try:
        yield part
        old = part + ".old"
        if os.path.isdir(path):
            os.rename(path, old)
        os.rename(part, path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def save_model(model, tokenizer, folder):
    """Saves weights, config.json and tokenizer into a folder, each file whole or not at all."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving.", dir=folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, "metrics.json"))  # of the weights that were here before
        # config.json last: a folder without it is no model yet.
        for name in sorted(os.listdir(part), key=lambda name: name == "config.json"):
            os.replace(os.path.join(part, name), os.path.join(folder, name))


OUTPUT_NAMES = {
    "SequenceClassification": ["logits"],
    "TokenClassification": ["logits"],
    "QuestionAnswering": ["start_logits", "end_logits"],
}


def export_model(task, model, tokenizer, folder, metrics):
    """Writes a folder that any runtime takes: Paddle static model, ONNX model, config, tokenizer, metrics.

    Raises:
        RuntimeError: the ONNX model's logits are not Paddle's.
    """
    with new_folder(folder) as part:
        write_model_folder(task, model, tokenizer, part)
        write_json(os.path.join(part, "metrics.json"), metrics or {"note": "not scored: run with --do_eval"})
    sizes = {name: os.path.getsize(os.path.join(folder, name)) / 2**20 for name in ("model.pdiparams", "model.onnx")}
    logger.info(f"exported {folder}: " + ", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))


def write_model_folder(task, model, tokenizer, folder, input_dtype="int64"):
    """Writes all but metrics.json; see `export_model`."""
    workarounds.save_static_model(model, folder, input_dtype)
    write_onnx(task, folder)
    error = onnx_error(model, os.path.join(folder, "model.onnx"))
    if not error < 1e-4:
        raise RuntimeError(f"the ONNX model differs from Paddle's by {error:.2e}; nothing was exported")
    logger.info(f"ONNX Runtime's logits differ from Paddle's by {error:.1e} at most")
    save_config_and_tokenizer(model, tokenizer, folder)


def write_onnx(task, folder):
    """`folder/model.onnx` of `folder/model.pdmodel`; a classifier computes no more than its first token needs."""
    workarounds.static_to_onnx(folder, OUTPUT_NAMES[task])
    if task == "SequenceClassification":
        path = os.path.join(folder, "model.onnx")
        model = onnx.load(path)
        if compute_first_token_only(model.graph):
            onnx.checker.check_model(model)
            onnx.save(model, path)


def compute_first_token_only(graph):
    """Lets the last layer compute its output for the first token alone, which is all that the pooler takes.

    Everything behind the keys and values works token by token: queries, attention's output, feed-forward and norms
    of the other tokens are never read. That is 10 of the 12 parts of a layer's weights: a seventh of the work of 6
    layers, a fifth of that of 4, and the logits are the same.

    Returns:
        Whether the graph has the form for which this is true; else it is left as it is.
    """
    weights = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    takers = collections.defaultdict(list)
    for node in graph.node:
        for name in node.input:
            takers[name].append(node)
    between = [n for n in graph.node if n.op_type == "MatMul" and not weights & set(n.input)]
    if not between or [node.op_type for node in takers[graph.output[0].name]]:
        return False
    # From the last query-key product back to the queries' linear layer.
    node = between[-2]
    while not (node.op_type == "MatMul" and node.input[1] in weights):
        node = makers.get(node.input[0])
        if node is None or node.op_type not in ("Mul", "Transpose", "Reshape", "Add", "MatMul"):
            return False
    queries, layer_input = node, node.input[0]
    linears = [n for n in takers[layer_input] if n.op_type == "MatMul"]
    residuals = [n for n in takers[layer_input] if n.op_type == "Add"]
    if len(linears) != 3 or len(residuals) != 1 or len(takers[layer_input]) != 4:
        return False
    pooled = [n for n in graph.node if n.op_type == "Slice" and makers[n.input[0]].op_type == "Add"]
    if not pooled or list(graph.node).index(pooled[-1]) < list(graph.node).index(residuals[0]):
        return False
    # The slice that the pooler takes, moved to where the layer begins.
    first = helper.make_node("Slice", [layer_input, *pooled[-1].input[1:]], ["first_token"], "first_token")
    for taker in (queries, residuals[0]):
        for index, name in enumerate(taker.input):
            if name == layer_input:
                taker.input[index] = "first_token"
    graph.node.insert(list(graph.node).index(queries), first)
    return True


def save_config_and_tokenizer(model, tokenizer, folder):
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def onnx_error(model, onnx_file):
    """Largest difference between Paddle's logits and ONNX Runtime's on ragged batches of random ids.

    Batches of 1 to 32 texts, 3 to 512 tokens (or as many as the model takes).
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    longest = min(512, model.config.max_position_embeddings)
    generator = np.random.default_rng(0)
    was_training = model.training
    model.eval()
    worst = 0.0
    for batch, length in ((1, 3), (32, 24), (4, 128), (2, longest)):
        length = min(length, longest)
        input_ids = generator.integers(1, model.config.vocab_size, [batch, length])
        token_type_ids = np.zeros_like(input_ids)
        for row, kept in enumerate(generator.integers(3, length + 1, batch)):
            input_ids[row, kept if row else length :] = model.config.pad_token_id
            token_type_ids[row, kept // 2 : kept] = 1
        with paddle.no_grad():
            expected = model(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids))
        expected = expected if isinstance(expected, (tuple, list)) else [expected]
        found = session.run(None, as_inputs(session, {"input_ids": input_ids, "token_type_ids": token_type_ids}))
        worst = max(worst, *(float(np.abs(a.numpy() - b).max()) for a, b in zip(expected, found)))
    if was_training:
        model.train()
    return worst


def as_inputs(session, batch):
    """A batch of arrays in the types that an ONNX Runtime session takes: int64, or int32 with --input_dtype."""
    types = {value.name: value.type for value in session.get_inputs()}
    return {name: batch[name].astype("int32" if types[name] == "tensor(int32)" else "int64") for name in types}


def dev_metrics(dataset, num_examples, scores, baseline):
    """What metrics.json holds: the dev scores of one model, as shares of 1, and a trivial baseline's."""
    return {"dataset": dataset, "split": "dev", "num_examples": num_examples, **scores, "baseline": baseline}


def read_metrics(folder):
    """metrics.json of a model folder, where the model was scored; else None."""
    path = os.path.join(folder, "metrics.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        return json.load(f)
