"""Training: PaddleNLP's Trainer with batches grouped by length, and checkpoints that survive a kill."""

import json
import os
import re
import shutil
import tempfile

import numpy as np
import paddle
from paddlenlp.trainer import Trainer, TrainerCallback
from paddlenlp.utils.log import logger

from ernie.arguments import UserError
from ernie.export import write_json


class LengthGroupedBatchSampler(paddle.io.DistributedBatchSampler):
    """Batches of texts of about one length, in random order: less padding, and no loss of chance.

    Each epoch shuffles, sorts by length within 50 batches, and shuffles the batches. The order follows from seed
    and epoch alone, so that a resumed training sees the same batches.
    """

    def __init__(self, lengths, batch_size, seed, num_replicas=1, rank=0, drop_last=False):
        super().__init__(lengths, batch_size, num_replicas, rank, shuffle=True, drop_last=drop_last)
        self.lengths = np.asarray(lengths)
        self.seed = seed

    def __iter__(self):
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        # Every replica gets as many texts: the first ones serve twice.
        order = np.resize(order, -(-len(order) // self.nranks) * self.nranks)
        step = self.batch_size * self.nranks
        group = step * max(min(len(order) // (step * 4), 50), 1)
        grouped = [order[i : i + group] for i in range(0, len(order), group)]
        order = np.concatenate([g[np.argsort(-self.lengths[g], kind="stable")] for g in grouped])
        batches = [order[i : i + step] for i in range(0, len(order), step)]
        last = [] if len(batches[-1]) == step else [batches.pop()]
        generator.shuffle(batches)
        for batch in batches + ([] if self.drop_last else last):
            yield batch[self.local_rank :: self.nranks].tolist()


class AtTheEnd(TrainerCallback):
    """Scores and saves the last step, too: PaddleNLP does so at multiples of save_steps alone, which a small data
    set never reaches."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_evaluate = args.evaluation_strategy.value != "no"
            control.should_save = args.save_strategy.value != "no"
        return control


class ErnieTrainer(Trainer):
    """PaddleNLP's Trainer with batches grouped by length and checkpoints that are whole or not there."""

    def __init__(self, *args, data_args=None, settings=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.data_args, self.settings = data_args, settings or {}
        self.metrics_at = {}  # {global step: dev metrics}
        self.add_callback(AtTheEnd)

    def evaluate(self, *args, **kwargs):
        metrics = super().evaluate(*args, **kwargs)
        self.metrics_at[self.state.global_step] = metrics
        return metrics

    def evaluate_final(self):
        """Dev metrics of the model as it is now. After training they are known: they are those of the best
        checkpoint, which was loaded, or of the last step."""
        best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
        step = int(best.rpartition("-")[2]) if best else self.state.global_step
        return self.metrics_at.get(step) or self.evaluate()

    def _get_train_sampler(self):
        if not self.data_args.group_by_length:
            return super()._get_train_sampler()
        args = self.args
        return LengthGroupedBatchSampler(
            [len(f["input_ids"]) for f in self.train_dataset],
            args.per_device_train_batch_size,
            args.seed,
            args.dataset_world_size,
            args.dataset_rank,
            args.dataloader_drop_last,
        )

    def _save_checkpoint(self, model, metrics=None):
        # PaddleNLP writes into the final folder, and deletes old checkpoints only where several processes run.
        # A checkpoint counts once complete.json stands in it, and only then may the older ones go.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, metrics)
        self.args.save_total_limit = limit
        if self.args.should_save:
            checkpoint = os.path.join(self.args.output_dir, f"checkpoint-{self.state.global_step}")
            finished = self.state.global_step >= self.state.max_steps
            write_json(os.path.join(checkpoint, "complete.json"), {**self.settings, "finished": finished})
            self._rotate_checkpoints(use_mtime=True, output_dir=self.args.output_dir)

    def _sorted_checkpoints(self, output_dir=None, checkpoint_prefix="checkpoint", use_mtime=False):
        """Oldest first, the best one last of all but the newest, as the rotation expects it."""
        found = super()._sorted_checkpoints(output_dir, checkpoint_prefix, use_mtime)
        best = self.state.best_model_checkpoint
        if best in found[:-2]:
            found.remove(best)
            found.insert(len(found) - 1, best)
        return found


def training_settings(model_args, data_args, training_args, num_examples):
    """What must be the same for a checkpoint to be gone on with."""
    names = (
        "learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
        "weight_decay warmup_ratio warmup_steps lr_scheduler_type seed world_size"
    )
    settings = {name: getattr(training_args, name) for name in names.split()}
    settings["lr_scheduler_type"] = str(getattr(training_args.lr_scheduler_type, "value", ""))
    names = "dataset max_seq_length doc_stride max_query_length group_by_length"
    settings.update({name: getattr(data_args, name) for name in names.split()})
    settings.update(model_name_or_path=model_args.model_name_or_path, num_examples=num_examples)
    return settings


def find_checkpoint(training_args, settings):
    """The checkpoint to go on from, or None.

    Checkpoints without complete.json (killed while writing) are removed. An unfinished training with other
    settings is never mixed with this one, nor thrown away unasked.
    """
    if training_args.resume_from_checkpoint:
        return training_args.resume_from_checkpoint
    folder = training_args.output_dir
    found, useless = [], []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if not re.fullmatch(r"checkpoint-\d+", name) or not os.path.isdir(path):
            continue
        complete = os.path.join(path, "complete.json")
        if os.path.exists(complete) and not training_args.overwrite_output_dir:
            found.append((int(name.split("-")[1]), path, complete))
        else:
            useless.append(path)
    checkpoint = None
    if found:
        _, checkpoint, complete = max(found)
        with open(complete, encoding="utf-8") as f:
            before = json.load(f)
        changed = {key: before.get(key) for key in settings if before.get(key) != settings[key]}
        if changed and not before["finished"]:
            differences = ", ".join(f"{key} {value} (now {settings[key]})" for key, value in changed.items())
            raise UserError(
                f"{checkpoint} is of an unfinished training with {differences}. Run it with those settings to go on, "
                "add --overwrite_output_dir to begin anew, or choose another --output_dir"
            )
        if changed:
            useless += [path for _, path, _ in found]
            checkpoint = None
    if training_args.world_size > 1:
        paddle.distributed.barrier()  # every process has looked before one removes
    if training_args.should_save:
        for path in useless:
            shutil.rmtree(path)
    if checkpoint:
        logger.info(f"going on from {checkpoint}; --overwrite_output_dir begins anew")
    return checkpoint


def check_writable(folder):
    """Raises UserError where a folder can't be written, before hours of work for nothing."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise UserError(f"--output_dir {folder} can't be written: {e.strerror}") from e
