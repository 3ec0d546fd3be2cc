"""Training: PaddleNLP's Trainer with batches grouped by length, and checkpoints that survive a kill."""

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil

import numpy as np
import paddle
from paddlenlp.trainer import Trainer, TrainerCallback, TrainingArguments
from paddlenlp.trainer.trainer_callback import PrinterCallback, ProgressCallback, TrainerState
from paddlenlp.trainer.utils.helper import distributed_file, distributed_isfile

from ernie import console
from ernie.console import logger
from ernie.data import source_file
from ernie.errors import UsageError, UserError
from ernie.export import dev_metrics, save_model
from ernie.features import Collator
from ernie.files import content_hash, disk_full_named, weights_hash, write_json
from ernie.processes import alone, check_shared, gather, wait_for_all
from ernie.settings import plain, write_settings
from ernie.tasks import BASELINES, IGNORED, TASKS

VERSION = 3  # of what a training makes of its inputs: another number trains finished trainings again
MARK, COMPLETE = "ernie.json", "complete.json"  # files of a checkpoint: written before all others, and after
TRAINER_STATE = "trainer_state.json"
# What resuming needs; the second name is that of --unified_checkpoint.
PARTS = (
    ("model_state.pdparams", "model.safetensors.index.json"),
    ("optimizer.pdopt", "optimizer.safetensors.index.json"),
    ("scheduler.pdparams",),
    (TRAINER_STATE,),
)
LAST = "True"  # --resume_from_checkpoint: the last checkpoint, as with Hugging Face


def check_training(args, train):
    """Raises what a training would fail of, or would train nothing for; for a call before the model is loaded.

    Args:
        train: a `Split`, or None.
    """
    if not args.do_train:
        return
    path = source_file(train.examples)
    if len(train.labels) == 1:
        raise UserError(
            f"{path} {train.task.one_label(train.labels[0])}: there is nothing to learn; expected two classes or more"
        )
    found = {e["label"] for e in train.examples if "label" in e}
    if len(found) == 1:
        logger.warning(f"{path}: every row has the label {found.pop()!r}; a model learns to give no other")
    size = args.per_device_train_batch_size * args.gradient_accumulation_steps  # of a step
    inputs = -(-len(train.features) // args.world_size)  # of one process
    batches = inputs // size if args.dataloader_drop_last else -(-inputs // size)
    if not batches:
        times = f" x {args.gradient_accumulation_steps}" if args.gradient_accumulation_steps > 1 else ""
        raise UsageError(
            f"--dataloader_drop_last drops the only batch: {path} makes {inputs:,} inputs for each process, fewer than "
            f"--per_device_train_batch_size {args.per_device_train_batch_size}{times}"
        )
    steps = args.max_steps if args.max_steps > 0 else int(batches * args.num_train_epochs)
    if not steps:
        raise UsageError(f"--num_train_epochs {args.num_train_epochs:g} trains no step: {path} has {batches:,} batches")
    if args.warmup_steps >= steps and args.lr_scheduler_type == "polynomial":
        raise UsageError(
            f"--warmup_steps {args.warmup_steps:,} leaves none of {steps:,} steps for the polynomial's decay"
        )
    if args.warmup_steps >= steps:
        logger.warning(f"--warmup_steps {args.warmup_steps:,}: the training ends within them, after {steps:,} steps")
    if args.resume_from_checkpoint:
        wanted_checkpoint(args)


def wanted_checkpoint(args):
    """The folder that --resume_from_checkpoint means.

    Raises:
        UserError: there is none, or it is no complete checkpoint.
    """
    flag = f"--resume_from_checkpoint {args.resume_from_checkpoint}"
    path = args.resume_from_checkpoint
    if path == LAST:
        found = complete_checkpoints(args.output_dir)
        if not found:
            raise UserError(f"{flag}: {args.output_dir} has no checkpoint; leave it out to start from the beginning")
        path = found[-1]
    if not os.path.isdir(path):
        raise UserError(f"{flag}: no such folder; expected a checkpoint, or True for the last one of --output_dir")
    check_parts(args, path)
    return path


def check_parts(args, path):
    """Raises UserError if a checkpoint lacks a file from which it is resumed."""
    parts = [names if args.unified_checkpoint else names[:1] for names in PARTS]
    parts += [(COMPLETE,)] if is_ours(path) else []
    missing = [names[0] for names in parts if not any(os.path.exists(os.path.join(path, name)) for name in names)]
    if missing:
        unified = os.path.exists(os.path.join(path, PARTS[0][1])) and not args.unified_checkpoint
        hint = "it was written with --unified_checkpoint: add that" if unified else f"it lacks {', '.join(missing)}"
        raise UserError(f"{path} is no complete checkpoint that can be resumed: {hint}")


class LengthGroupedBatchSampler(paddle.io.DistributedBatchSampler):
    """Batches of texts of similar length, in random order: less padding, while batches stay randomly ordered.

    Each epoch shuffles, sorts by length within 50 batches, and shuffles the batches. The order depends on seed and
    epoch alone, so that a resumed training sees the same batches.
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
    """Logs, scores and saves after the last step too, and once: PaddleNLP does so at multiples of save_steps alone,
    which a small data set never reaches."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = args.evaluation_strategy.value != "no"
            control.should_save = args.save_strategy.value != "no"
        return control

    def on_epoch_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_log = control.should_evaluate = control.should_save = False
        return control


class Divergence(TrainerCallback):
    """Ends a training whose loss is no number any more; what was saved before stays."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        for name in ("loss", "train_loss"):
            if not math.isfinite((logs or {}).get(name, 0)):
                raise UserError(
                    f"the loss is {logs[name]} at step {state.global_step:,}: the training has diverged; lower "
                    f"--learning_rate ({args.learning_rate:g}), and add --overwrite_output_dir to start again"
                )


class BestCheckpoint(TrainerCallback):
    """Finds the best checkpoint again when a training resumes. trainer_state.json has its path at the time: by now the
    folder may have been moved, be spelled otherwise, or be resumed from another working directory."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.first_step = state.global_step
        if not (self.trainer.resumed_from and state.best_model_checkpoint):
            return
        folder = os.path.dirname(os.path.abspath(self.trainer.resumed_from))
        if os.path.realpath(folder) == os.path.realpath(args.output_dir):
            folder = args.output_dir  # as PaddleNLP spells the paths of checkpoints, which it compares as texts
        state.best_model_checkpoint = os.path.join(folder, os.path.basename(state.best_model_checkpoint))
        if args.load_best_model_at_end:
            check_best(state.best_model_checkpoint)


def check_best(checkpoint):
    """Raises UserError where the best checkpoint is gone: the last one is not the best."""
    if not any(os.path.exists(os.path.join(checkpoint, name)) for name in PARTS[0]):
        raise UserError(
            f"{checkpoint}, the best checkpoint of this training, is missing or has no weights: bring it back, or add "
            "--overwrite_output_dir to train again"
        )


class ForeignCheckpoints(TrainerCallback):
    """Refuses to train where a checkpoint would replace one that this project did not write."""

    def on_train_begin(self, args, state, control, **kwargs):
        for path in checkpoints_in(args.output_dir):
            step = _step_of(path)
            if state.global_step < step <= state.max_steps and not is_ours(path):
                raise UserError(
                    f"{path} was not written by this project, and this training, of {state.max_steps:,} steps, would "
                    "replace it: move it away, or choose another --output_dir"
                )


class ErnieTrainer(Trainer):
    """PaddleNLP's Trainer with batches grouped by length, and checkpoints that count once they are complete.

    Args:
        task, pretrained_tokenizer: of `load_task`; the tokenizer is saved beside the model.
        train, dev: `Split`s, or None.
    """

    name = "training"  # on the console

    def __init__(self, task, model, args, data_args, train, dev, pretrained_tokenizer, **kwargs):
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(task.tokenizer, data_args.dynamic_max_length),
            train_dataset=train and train.features,
            eval_dataset=dev and dev.sorted_features,
            tokenizer=pretrained_tokenizer,
            compute_metrics=lambda output: dev.scores(output.predictions),
            **kwargs,
        )
        self.task, self.data_args = task, data_args
        self.train_split, self.dev_split = train, dev
        self.identity = {}
        self.metrics_at = {}  # {global step: dev metrics}
        for callback in (ProgressCallback, PrinterCallback):
            self.pop_callback(callback)
        self.add_callback(BestCheckpoint(self))
        self.add_callback(console.TrainingRows(self.name, task.score))
        self.add_callback(AtTheEnd)
        self.add_callback(ForeignCheckpoints)
        self.add_callback(Divergence)

    @alone
    def fine_tune(self, model_args):
        """Trains, from the last checkpoint if there is one, and saves the model to --output_dir."""
        args = self.args
        check_shared(args)
        dev = self.dev_split if args.load_best_model_at_end else None  # it decides which checkpoint is the best
        self.identity = resume_identity(self.data_args, args, self.model, self.train_split, dev)
        checkpoint = find_checkpoint(args, self.identity)
        metrics = self.train(resume_from_checkpoint=checkpoint).metrics
        trained = self.state.global_step - self.first_step
        if args.should_save:
            if trained:  # otherwise these files are of the training that has ended, and so they stay
                metrics = since_resumed(metrics, trained, self.state.global_step)
                for name in ("train_results.json", "all_results.json"):
                    write_json(os.path.join(args.output_dir, name), metrics)  # PaddleNLP's, but atomically
                _warn_of_older_models(model_args, self.data_args, args)
            save_model(self.model, self.tokenizer, args.output_dir)
            write_settings(model_args, self.data_args, args, replace=trained > 0)
            console.row("saved", f"{args.output_dir}: weights, tokenizer, settings.json")
        wait_for_all()  # one process has saved

    def score(self, model_args):
        """Scores the model on the dev set; returns the scores, which are written to metrics.json beside the model.

        A model of another folder than --output_dir, that was not trained now, may have another one's metrics.json
        there: its scores are written to eval_results.json.
        """
        metrics, baseline = self.evaluate_final(), self.task.baseline(self.dev_split.examples)
        scores = {name: metrics[f"eval_{name}"] for name in self.task.scores}
        scores = dev_metrics(self.data_args, len(self.dev_split.examples), scores, baseline)
        found = ", ".join(f"{name.replace('_', ' ')} {100 * scores[name]:.2f}" for name in self.task.scores)
        trivial = ", ".join(f"{BASELINES[name]}: {100 * share:.2f}" for name, share in baseline.items())
        best = self.state.best_model_checkpoint
        where = f"step {_step_of(best):,}, " if best and self.args.load_best_model_at_end else ""
        folder = self.args.output_dir
        beside = self.args.do_train or os.path.realpath(model_args.model_name_or_path) == os.path.realpath(folder)
        path = os.path.join(folder, "metrics.json" if beside else "eval_results.json")
        console.row("best" if where else "dev", f"{where}{found} ({trivial})" + ("" if beside else f": {path}"))
        if self.args.should_save:
            write_json(path, scores)
        return scores

    def answer(self, split):
        """One answer per example of a `Split`, as the predictor gives it."""
        return split.answers(self.predict(split.sorted_features).predictions)

    def get_test_dataloader(self, test_dataset):
        # PaddleNLP's own passes --dataloader_drop_last beside a batch sampler, which Paddle refuses, and no workers.
        return self.get_eval_dataloader(test_dataset)

    def evaluate(self, *args, **kwargs):
        metrics = super().evaluate(*args, **kwargs)
        self.metrics_at[self.state.global_step] = metrics
        return metrics

    def evaluate_final(self):
        """Dev metrics of the model as it is now. After a training they are known: those of the best checkpoint, which
        was loaded, or of the last step."""
        best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
        step = _step_of(best) if best else self.state.global_step
        return self.metrics_at.get(step) or self.evaluate()

    def _get_train_sampler(self):
        args = self.args
        lengths = [len(f["input_ids"]) for f in self.train_dataset]
        return LengthGroupedBatchSampler(
            # Of equal lengths it makes plain random batches.
            lengths if self.data_args.group_by_length else [0] * len(lengths),
            args.per_device_train_batch_size,
            args.seed,
            args.dataset_world_size,
            args.dataset_rank,
            args.dataloader_drop_last,
        )

    def train(self, *args, **kwargs):
        # PaddleNLP adds what an epoch leaves over to the next epoch's first step, and divides by the wrong number. So
        # it is told of one large batch per step, which `training_step` computes in parts.
        own = self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps
        self.part_size = own[0]
        self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps = own[0] * own[1], 1
        try:
            return super().train(*args, **kwargs)
        finally:
            self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps = own

    def training_step(self, model, inputs):
        """Adds the gradients of a batch, part by part: they and the loss are those of the whole batch at once.

        All parts are padded to the same length, since padding counts in the loss of reading comprehension.
        """
        model.train()
        rows = len(inputs["input_ids"])
        parts = [
            {name: tensor[i : i + self.part_size] for name, tensor in inputs.items()}
            for i in range(0, rows, self.part_size)
        ]
        weights = [self._labels_in(part) for part in parts] if len(parts) > 1 else [1]
        loss = 0.0
        for number, (part, weight) in enumerate(zip(parts, weights), 1):
            # Several processes average their gradients once, with those of the last part.
            later = number < len(parts) and hasattr(model, "no_sync")
            with model.no_sync() if later else contextlib.nullcontext():
                with self.autocast_smart_context_manager():
                    part_loss = self.compute_loss(model, self._prepare_inputs(part)) * (weight / sum(weights))
                (self.scaler.scale(part_loss) if self.do_grad_scaling else part_loss).backward()
            loss += part_loss.detach()
        return loss

    def _labels_in(self, part):
        """Number of labels over which a part's loss is a mean: its inputs, or its tokens with a tag."""
        return int((part[self.label_names[0]] != IGNORED).sum())

    def _inner_training_loop(self, args, model, dataloader, len_dataloader, max_steps, epochs, *rest):
        # PaddleNLP trains one more step where a finished training ended within an epoch.
        self.resumed_from = checkpoint = rest[2]
        if checkpoint is not None and distributed_isfile(os.path.join(checkpoint, TRAINER_STATE)):
            state = TrainerState.load_from_json(distributed_file(os.path.join(checkpoint, TRAINER_STATE)))
            epochs = 0 if state.global_step >= max_steps else epochs
        result = super()._inner_training_loop(args, model, dataloader, len_dataloader, max_steps, epochs, *rest)
        if args.load_best_model_at_end and self.state.best_model_checkpoint:
            check_best(self.state.best_model_checkpoint)  # PaddleNLP warns, and keeps the last weights
        return result

    def _save_checkpoint(self, model, metrics=None):
        checkpoint = os.path.join(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        try:
            with disk_full_named(checkpoint):
                self._write_checkpoint(checkpoint, model, metrics)
        except UserError:
            if self.args.should_save:
                shutil.rmtree(checkpoint, ignore_errors=True)
            raise

    def _write_checkpoint(self, checkpoint, model, metrics):
        # PaddleNLP writes into the final folder, and deletes old checkpoints only where several processes run.
        # A checkpoint counts once it holds COMPLETE, and only then may the older ones go.
        if self.args.should_save:
            os.makedirs(checkpoint, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(checkpoint, COMPLETE))
            write_json(os.path.join(checkpoint, MARK), {"written_by": "ErnieTrainer", "version": VERSION})
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, metrics)
        self.args.save_total_limit = limit
        several = self.args.world_size > 1
        if several:
            paddle.distributed.barrier()  # every process has written its part
        if self.args.should_save:
            finished = self.state.global_step >= self.state.max_steps
            write_json(os.path.join(checkpoint, COMPLETE), {**self.identity, "finished": finished})
        if several:
            paddle.distributed.barrier()  # every node has it (--save_on_each_node) before one removes an older one
        if self.args.should_save:
            self._rotate_checkpoints(use_mtime=True, output_dir=self.args.output_dir)

    def _set_state_dict_in_model(self, state_dict):
        # PaddleNLP skips weights that do not fit, and trains on with others.
        shapes = {name: list(weight.shape) for name, weight in self.model.state_dict().items()}
        wrong = [name for name, shape in shapes.items() if list(getattr(state_dict.get(name), "shape", [-1])) != shape]
        if wrong:
            raise UserError(
                f"the checkpoint to resume from is of another model: {len(wrong):,} of {len(shapes):,} weights are not "
                f"in it, or of another size (the first: {wrong[0]})"
            )
        super()._set_state_dict_in_model(state_dict)

    def _sorted_checkpoints(self, output_dir=None, checkpoint_prefix="checkpoint", use_mtime=False):
        """This project's own, oldest first, the best one last of all but the newest, as the rotation expects it.

        Those of later steps come first: the training was resumed before them.
        """
        found = [path for path in checkpoints_in(output_dir) if is_ours(path)]
        found.sort(key=lambda path: _step_of(path) <= self.state.global_step)
        best = self.state.best_model_checkpoint
        if best in found[:-2]:
            found.remove(best)
            found.insert(len(found) - 1, best)
        return found


def resume_identity(data_args, training_args, model, train, dev=None, **more):
    """What must be the same for a checkpoint to be resumed: options, and hashes of data, labels and weights.

    Args:
        train, dev: `Split`s; dev where it decides which checkpoint is the best.
        more: further options of a training.
    """
    options = {"world_size": training_args.world_size}
    for arguments, cls in ((data_args, type(data_args)), (training_args, TrainingArguments)):
        options.update({f.name: plain(getattr(arguments, f.name)) for f in dataclasses.fields(cls)})
    without_effect = {*NO_EFFECT, *(() if dev else CHOOSING), *(OF_READING - train.task.params.keys())}
    hashes = train.hashes()
    return {
        **{name: value for name, value in options.items() if name not in without_effect},
        **more,
        "version": VERSION,
        "training_data": hashes["texts"],
        "labels": hashes["labels"],
        # Not those of a new head, which the seed decides: another device draws others.
        "weights": weights_hash(model, without=getattr(model, "new_weights", ())),
        "dev_data": content_hash(dev.hashes()) if dev else None,
    }


# Arguments that change neither the weights nor which checkpoint is the best. All others identify a training.
NO_EFFECT = frozenset(
    (
        # what else is done, where files are, and how they are written and read
        *("do_train", "do_eval", "do_predict", "do_export", "data_dir", "output_dir", "overwrite_output_dir"),
        *("resume_from_checkpoint", "ignore_data_skip", "save_total_limit", "save_on_each_node"),
        *("unified_checkpoint", "unified_checkpoint_config"),
        # what is said
        *("log_on_each_node", "logging_dir", "logging_strategy", "logging_first_step", "logging_steps", "run_name"),
        *("disable_tqdm", "report_to", "wandb_api_key", "skip_memory_metrics", "skip_profile_timer"),
        # how the same is computed
        *("device", "no_cuda", "local_rank", "per_device_eval_batch_size", "eval_accumulation_steps"),
        *("dataloader_num_workers", "use_fast_tokenizer", "remove_unused_columns", "label_names"),
        "lazy_data_processing",
    )
)
# These decide only which checkpoint is the best; they count where the dev split does.
CHOOSING = frozenset(
    (
        *("save_strategy", "save_steps", "evaluation_strategy", "eval_steps"),
        *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
    )
)
# How long texts are cut and answers are chosen: of the tasks that do so. The training data's hash has what they make of
# the texts; answers are chosen when the dev split is scored.
OF_READING = frozenset(name for task in TASKS.values() for name in task.defaults)


def since_resumed(metrics, trained, steps):
    """PaddleNLP's metrics of a training, for the steps since it was resumed: it divides their loss and time by all."""
    share = trained / steps
    shares = {"train_loss": 1 / share, "train_samples_per_second": share, "train_steps_per_second": share}
    return {**metrics, **{name: metrics[name] * factor for name, factor in shares.items() if name in metrics}}


def _warn_of_older_models(model_args, data_args, args):
    """After a training, what was exported and compressed before is still of the weights before."""
    export = os.path.normpath(os.path.join(model_args.export_model_dir, data_args.dataset, "export"))
    folders = {os.path.join(args.output_dir, name) for name in os.listdir(args.output_dir)} | {export}
    folders -= {export} if args.do_export else set()  # which this command makes again
    found = [folder for folder in sorted(folders) if os.path.exists(os.path.join(folder, "model.onnx"))]
    if found:
        logger.warning(
            f"made of the model before this training: {', '.join(found)}; make them again (--do_export, "
            "compress_*.py), or remove them"
        )


# How a message names what is identified by a hash.
CONTENTS = {
    "version": "the project's training code",
    "training_data": "the training data",
    "labels": "the labels",
    "weights": "the model's weights",
    "dev_data": "the dev data",
}


def find_checkpoint(training_args, identity):
    """The checkpoint to resume from, or None to start from the beginning.

    Checkpoints that a killed process left incomplete are removed, and so are those of a finished training of
    something else. An unfinished training of something else is refused: it is neither mixed with this one nor deleted.
    What carries no mark of this project is left alone.

    Args:
        identity: of `resume_identity`.
    """
    others = gather(identity)
    differ = [CONTENTS.get(key, key) for key in identity if any(other[key] != others[0][key] for other in others)]
    if differ:
        raise UserError(f"not the same in all {len(others)} processes: {', '.join(differ)}; every node needs the same")
    if training_args.resume_from_checkpoint:
        return _checked_checkpoint(wanted_checkpoint(training_args), identity)
    folder = training_args.output_dir
    complete = [] if training_args.overwrite_output_dir else complete_checkpoints(folder)
    useless, foreign = [], []
    for path in checkpoints_in(folder):
        if not is_ours(path):
            foreign.append(path)
        elif path not in complete:
            useless.append(path)
    if foreign:
        logger.warning(f"left alone, since this project did not write them: {', '.join(foreign)}")
    checkpoint = complete[-1] if complete else None
    if checkpoint:
        with open(os.path.join(checkpoint, COMPLETE), encoding="utf-8") as f:
            before = json.load(f)
        changed = [key for key in identity if before.get(key) != identity[key]]
        if "version" in changed:
            changed = ["version"]  # the other arguments of an older project may have had other names
        elif None in (before["dev_data"], identity["dev_data"]):
            # The dev split decided nothing there, or decides nothing now.
            changed = [key for key in changed if key not in ("dev_data", *CHOOSING)]
            if not changed:
                _warn_of_the_choice(checkpoint, before, identity)
        if changed and not before["finished"]:
            options = [f"{key} {before.get(key)} (now {identity[key]})" for key in changed if key not in CONTENTS]
            contents = [CONTENTS[key] for key in changed if key in CONTENTS]
            raise UserError(
                f"{checkpoint} belongs to an unfinished training"
                + (f" with {', '.join(options)}" if options else "")
                + (f"; since then {' and '.join(contents)} changed" if contents else "")
                + ". Undo the change to resume it, add --overwrite_output_dir to start again, or choose another "
                "--output_dir"
            )
        if changed:
            contents = ", ".join(CONTENTS.get(key, key) for key in changed)
            console.row("changed", f"{contents}, since {checkpoint} finished: training again")
            useless += complete
            checkpoint = None
    if checkpoint:
        check_parts(training_args, checkpoint)
    wait_for_all()  # every process has looked before one removes
    if training_args.should_save:
        for path in useless:
            shutil.rmtree(path)
    if checkpoint:
        console.row("resuming", f"from {checkpoint}; --overwrite_output_dir starts again")
    return checkpoint


def _warn_of_the_choice(checkpoint, before, identity):
    if before["dev_data"] is not None:
        logger.warning(f"without --do_eval the last checkpoint is the result, not the best one up to {checkpoint}")
    elif identity["dev_data"] is not None:
        logger.warning(
            f"the checkpoints up to {checkpoint} were saved without --do_eval, so none of them has a score and can be "
            "the best; --overwrite_output_dir trains again and scores all"
        )


def _checked_checkpoint(checkpoint, identity):
    """A checkpoint that the user named: other options are the user's will, other data or labels are not."""
    path = os.path.join(checkpoint, COMPLETE)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            before = json.load(f)
        changed = [CONTENTS[key] for key in ("training_data", "labels") if before.get(key) != identity[key]]
        if changed:
            raise UserError(f"{checkpoint} can't be resumed: since then {' and '.join(changed)} changed")
    console.row("resuming", f"from {checkpoint}")
    return checkpoint


def checkpoints_in(folder):
    """Paths of the folders checkpoint-<step>, by step."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    steps = sorted(_step_of(name) for name in names if re.fullmatch(r"checkpoint-\d+", name))
    paths = [os.path.join(folder, f"checkpoint-{step}") for step in steps]
    return [path for path in paths if os.path.isdir(path)]


def complete_checkpoints(folder):
    """Paths of the complete checkpoints that every process finds in its folder, by step.

    With --save_on_each_node a kill may have left one node a checkpoint that another lacks.
    """
    found = [path for path in checkpoints_in(folder) if os.path.exists(os.path.join(path, COMPLETE))]
    steps = [set(map(_step_of, paths)) for paths in gather(found)]
    return [path for path in found if _step_of(path) in set.intersection(*steps)]


def _step_of(checkpoint):
    return int(checkpoint.rpartition("-")[2])


def is_ours(checkpoint):
    """Whether this project wrote a checkpoint: only then may it be removed."""
    return any(os.path.exists(os.path.join(checkpoint, name)) for name in (MARK, COMPLETE))
