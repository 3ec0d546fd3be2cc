"""Static Paddle models: written from a dynamic model, and run. Moving to Paddle 3 changes this file."""

import contextlib
import os

import paddle


def save_static_model(model, folder, input_dtype="int64"):
    """Writes a Paddle model as a static graph: `folder/model.pdmodel`, `model.pdiparams`.

    Args:
        model: a paddlenlp model that takes (input_ids, token_type_ids), [batch, length] each.
        input_dtype: their type, "int64" or "int32".
    """
    inputs = input_spec(input_dtype)
    model.eval()
    static = paddle.jit.to_static(model, input_spec=inputs, full_graph=True)
    paddle.jit.save(static, os.path.join(folder, "model"))
    model.forward.rollback()  # the model continues as a dynamic one
    # Names of variables for debuggers only; no runtime reads it.
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, "model.pdiparams.info"))


def input_spec(dtype="int64"):
    return [paddle.static.InputSpec([None, None], dtype, name) for name in ("input_ids", "token_type_ids")]


@contextlib.contextmanager
def static_mode():
    """Paddle's static graph mode, with a scope of its own; yields an executor."""
    paddle.enable_static()
    try:
        with paddle.static.scope_guard(paddle.static.Scope()):
            yield paddle.static.Executor(paddle.set_device(paddle.get_device()))
    finally:
        paddle.disable_static()


def run_static_model(prefix, batches):
    """Runs `prefix.pdmodel` on batches, {input name: array} each; yields lists of arrays."""
    with static_mode() as executor:
        program, _, outputs = paddle.static.load_inference_model(prefix, executor)
        for batch in batches:
            yield executor.run(program, feed=batch, fetch_list=outputs)
