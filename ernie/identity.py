"""Identity: what a checkpoint, or a variant of compression, was made from. Where it differs, it is made again.

All arguments count, and the content of all files that are read. The lists here name what does not: so an argument that
is added later counts, too.
"""

import paddle
from ernie_predictor.tasks import TASKS

from ernie.files import content_hash, file_hash
from ernie.results import values_of

# What is not an argument, as messages name it.
CODE, TRAINING_DATA, DEV_DATA = "the project's training code", "the training data", "the dev data"
VOCABULARY, WEIGHTS, BASE = "the vocabulary", "the model's weights", "the model it is made from"
VERSION = 4  # of the code: another number makes everything again

# Arguments that change no result.
NO_EFFECT = {
    # what else is done, where files are, and how they are written and read
    *("do_train", "do_eval", "do_predict", "do_export", "overwrite_output_dir", "resume_from_checkpoint"),
    *("model_name_or_path", "config", "data_dir", "output_dir", "export_model_dir"),
    *("save_total_limit", "save_on_each_node"),
    # what is said
    *("logging_dir", "logging_strategy", "logging_steps", "run_name", "verbose", "disable_tqdm", "report_to"),
    # how the same is computed
    *("device", "local_rank", "per_device_eval_batch_size", "dataloader_num_workers", "use_fast_tokenizer"),
    # which variants a compression makes, each with options of its own, and which of them it takes for the best
    *("strategy", "algo_list", "batch_size_list", "batch_num_list", "max_drop"),
}
# These decide only which checkpoint is the best: they count where the dev data decide it.
CHOOSING = {
    *("save_strategy", "save_steps", "evaluation_strategy", "eval_steps"),
    *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
}
# Of config.json: where the model comes from, who wrote it, what PaddleNLP adds with the first loss, and the vocabulary,
# which counts by itself.
NOT_OF_WEIGHTS = {"_name_or_path", "architectures", "paddlenlp_version", "problem_type", "vocab_crc32"}
# How long texts are cut and answers are chosen: they count for the tasks that do so.
OF_READING = {name for task in TASKS.values() for name in task.defaults}


def identity(arguments, task, contents, without=()):
    """What something is made from: {argument or content: value or hash}, as JSON can hold it.

    Args:
        arguments: objects of the dataclasses of arguments.
        task: of `load_task`.
        contents: of `content_hashes`.
        without: names of more that does not count.
    """
    found = {CODE: VERSION, "world_size": paddle.distributed.get_world_size(), **contents}
    for part in arguments:
        found |= values_of(part)
    without = {*NO_EFFECT, *(OF_READING - task.params.keys()), *without}
    return {name: value for name, value in found.items() if name not in without}


def content_hashes(model, tokenizer, train, dev):
    """Hashes of what a training or a compression begins with.

    Args:
        model: a Paddle model, before it is trained.
        tokenizer: PaddleNLP's.
        train, dev: `Split`s; dev None where it does not decide which checkpoint is the best.
    """
    config = model.config.to_dict()
    weights = [{name: config[name] for name in config.keys() - NOT_OF_WEIGHTS}]
    for name, tensor in sorted(model.state_dict().items()):
        # Without a new head, of which another device draws other weights.
        weights += [name] if name in model.new_weights else [name, tensor.numpy()]
    return {
        TRAINING_DATA: file_hash(train.examples[0]["file"]),
        DEV_DATA: file_hash(dev.examples[0]["file"]) if dev else None,
        VOCABULARY: content_hash(tokenizer.get_vocab(), tokenizer.do_lower_case),
        WEIGHTS: content_hash(*weights),
    }


def differences(before, now):
    """Names of what differs between two identities."""
    if before.get(CODE) != now[CODE]:
        return [CODE]  # all else may have had other names
    # The dev data decided nothing then, or decide nothing now.
    without = {DEV_DATA, *CHOOSING} if None in (before[DEV_DATA], now[DEV_DATA]) else ()
    return [name for name in {**now, **before} if before.get(name) != now.get(name) and name not in without]
