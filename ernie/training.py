"""Training: PaddleNLP's Trainer with batches grouped by length, and checkpoints that survive a kill."""

import contextlib
import copy
import math
import os
import shutil

import numpy as np
import paddle
from paddlenlp.trainer import Trainer, TrainerCallback
from paddlenlp.trainer.trainer_callback import PrinterCallback, ProgressCallback, TrainerState

from ernie import checkpoints, console
from ernie.console import logger
from ernie.errors import UsageError, UserError, disk_full_named
from ernie.features import Collator
from ernie.files import work_folder, write_json
from ernie.identity import content_hashes, identity
from ernie.processes import alone, wait_for_all
from ernie.results import METRICS, dev_metrics, write_settings
from ernie.tasks import BASELINES, IGNORED


def check_training(args, train):
    """Raises what a training would fail of, or would train nothing for; for a call before the model is loaded.

    Args:
        train: a `Split`, or None.
    """
    if not args.do_train:
        return
    path = train.examples[0]["file"]
    if len(train.labels) == 1:
        raise UserError(
            f"{path} {train.task.one_label(train.labels[0])}: there is nothing to learn; expected two or more"
        )
    found = {e["label"] for e in train.examples if "label" in e}
    if len(found) == 1:
        logger.warning(f"{path}: every row has the label {found.pop()!r}; a model learns to give no other")
    size = args.per_device_train_batch_size * args.gradient_accumulation_steps  # of a step
    inputs = -(-len(train.features) // args.world_size)  # of one process
    batches = inputs // size if args.dataloader_drop_last else -(-inputs // size)
    if not batches:
        raise UsageError(
            f"--dataloader_drop_last drops the only batch: {path} makes {inputs:,} inputs for each process, fewer than "
            f"the {size:,} of a step (--per_device_train_batch_size, --gradient_accumulation_steps)"
        )
    steps = args.max_steps if args.max_steps > 0 else int(batches * args.num_train_epochs)
    if not steps:
        raise UsageError(f"--num_train_epochs {args.num_train_epochs:g} trains no step: {path} has {batches:,} batches")
    if args.warmup_steps >= steps and args.lr_scheduler_type == "polynomial":
        raise UsageError(f"--warmup_steps {args.warmup_steps:,} leaves none of {steps:,} steps for the decay")
    if args.warmup_steps >= steps:
        logger.warning(f"--warmup_steps {args.warmup_steps:,}: the training ends within them, after {steps:,} steps")
    if args.resume_from_checkpoint:
        checkpoints.wanted_checkpoint(args)


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


class Flow(TrainerCallback):
    """How a training begins and ends.

    What must be right about the checkpoints that are there when it begins or resumes. After the last step it logs,
    scores and saves, too, and once: PaddleNLP does so at multiples of save_steps alone, which a small data set never
    reaches.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.first_step = state.global_step
        for path in checkpoints.checkpoints_in(args.output_dir):
            if state.global_step < checkpoints.step_of(path) <= state.max_steps and not checkpoints.is_ours(path):
                raise UserError(
                    f"{path} was not written by this project, and this training, of {state.max_steps:,} steps, would "
                    "replace it: move it away, or choose another --output_dir"
                )
        if self.trainer.resumed_from and state.best_model_checkpoint:
            # trainer_state.json has the best one's name (PaddleNLP: its path at the time): both may have been moved.
            folder = os.path.dirname(os.path.abspath(self.trainer.resumed_from))
            if os.path.realpath(folder) == os.path.realpath(args.output_dir):
                folder = args.output_dir  # as PaddleNLP spells the paths of checkpoints, which it compares as texts
            state.best_model_checkpoint = os.path.join(folder, os.path.basename(state.best_model_checkpoint))
            if args.load_best_model_at_end:
                checkpoints.check_best(state.best_model_checkpoint)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = args.evaluation_strategy.value != "no"
            control.should_save = args.save_strategy.value != "no"

    def on_epoch_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_log = control.should_evaluate = control.should_save = False


class ErnieTrainer(Trainer):
    """PaddleNLP's Trainer with batches grouped by length, and checkpoints that count once they are complete.

    Args:
        task, pretrained_tokenizer: of `load_task`; the tokenizer is saved beside the model.
        train, dev: `Split`s, or None.
    """

    name = "training"  # on the console

    def __init__(self, task, model, args, data_args, train, dev, pretrained_tokenizer):
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(task.tokenizer, data_args.dynamic_max_length),
            train_dataset=train and train.features,
            eval_dataset=dev and dev.sorted_features,
            tokenizer=pretrained_tokenizer,
            compute_metrics=lambda output: dev.scores(output.predictions),
            callbacks=[Flow(self), console.TrainingRows(self.name, task.score)],
        )
        self.task, self.data_args = task, data_args
        self.train_split, self.dev_split = train, dev
        self.metrics_at = {}  # {global step: dev metrics}
        for callback in (ProgressCallback, PrinterCallback):
            self.pop_callback(callback)

    @alone
    def fine_tune(self, model_args):
        """Trains, from the last checkpoint if there is one, and saves the model to --output_dir."""
        args = self.args
        dev = self.dev_split if args.load_best_model_at_end else None  # it decides which checkpoint is the best
        contents = content_hashes(self.model, self.tokenizer, self.train_split, dev)
        training = identity((model_args, self.data_args, args), self.task, contents)
        metrics = self.run(training, checkpoints.find_checkpoint(args, training))
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

    def run(self, identity, checkpoint):
        """Trains, from a checkpoint or from the beginning; the checkpoints that are written carry the identity."""
        self.identity, self.resumed_from = identity, checkpoint
        metrics = self.train(resume_from_checkpoint=checkpoint).metrics
        wait_for_all()  # the first process has written what all read
        return metrics

    def score(self, model_args):
        """Scores the model on the dev set; returns the scores, which are written to metrics.json beside the model.

        A model of another folder than --output_dir, that was not trained now, may have another one's metrics.json
        there: its scores are written to eval_results.json.
        """
        best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
        # After a training they are known: those of the best checkpoint, which was loaded, or of the last step.
        metrics = self.metrics_at.get(checkpoints.step_of(best) if best else self.state.global_step) or self.evaluate()
        scores = {name: metrics[f"eval_{name}"] for name in self.task.scores}
        scores = dev_metrics(self.data_args, self.dev_split, scores)
        found = ", ".join(f"{name.replace('_', ' ')} {100 * scores[name]:.2f}" for name in self.task.scores)
        trivial = ", ".join(f"{BASELINES[name]}: {100 * share:.2f}" for name, share in scores["baseline"].items())
        where = f"step {checkpoints.step_of(best):,}, " if best else ""
        folder = self.args.output_dir
        beside = self.args.do_train or os.path.realpath(model_args.model_name_or_path) == os.path.realpath(folder)
        path = os.path.join(folder, METRICS if beside else "eval_results.json")
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

    def log(self, logs, **kwargs):
        """Ends a training whose loss is no number any more; what was saved before stays."""
        super().log(logs, **kwargs)
        loss = logs.get("loss", logs.get("train_loss", 0))
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {self.state.global_step:,}: the training has diverged; lower "
                f"--learning_rate ({self.args.learning_rate:g}), and add --overwrite_output_dir to start again"
            )

    def evaluate(self, *args, **kwargs):
        self.metrics_at[self.state.global_step] = super().evaluate(*args, **kwargs)
        return self.metrics_at[self.state.global_step]

    def _get_train_sampler(self):
        args = self.args
        # Of equal lengths it makes plain random batches.
        lengths = [len(f["input_ids"]) if self.data_args.group_by_length else 0 for f in self.train_dataset]
        more = (args.seed, args.dataset_world_size, args.dataset_rank, args.dataloader_drop_last)
        return LengthGroupedBatchSampler(lengths, args.per_device_train_batch_size, *more)

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
        # Over how many labels a part's loss is a mean: its inputs, or its tokens with a tag.
        weights = [int((part[self.label_names[0]] != IGNORED).sum()) for part in parts] if len(parts) > 1 else [1]
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

    def _inner_training_loop(self, args, model, dataloader, len_dataloader, max_steps, epochs, *rest):
        # PaddleNLP trains one more step where a finished training ended within an epoch.
        if self.resumed_from:
            state = TrainerState.load_from_json(os.path.join(self.resumed_from, checkpoints.TRAINER_STATE))
            epochs = 0 if state.global_step >= max_steps else epochs
        result = super()._inner_training_loop(args, model, dataloader, len_dataloader, max_steps, epochs, *rest)
        if args.load_best_model_at_end and self.state.best_model_checkpoint:
            checkpoints.check_best(self.state.best_model_checkpoint)  # PaddleNLP warns, and keeps the last weights
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
                os.remove(os.path.join(checkpoint, checkpoints.COMPLETE))
            write_json(os.path.join(checkpoint, checkpoints.MARK), {"written_by": "ErnieTrainer"})
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, metrics)
        self.args.save_total_limit = limit
        if self.args.should_save and self.state.best_model_checkpoint:
            # As its name beside this one: the folder of both may be moved.
            state = copy.copy(self.state)
            state.best_model_checkpoint = os.path.basename(state.best_model_checkpoint)
            state.save_to_json(os.path.join(checkpoint, checkpoints.TRAINER_STATE))
        several = self.args.world_size > 1
        if several:
            paddle.distributed.barrier()  # every process has written its part
        if self.args.should_save:
            finished = self.state.global_step >= self.state.max_steps
            write_json(os.path.join(checkpoint, checkpoints.COMPLETE), {**self.identity, "finished": finished})
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
        found = [path for path in checkpoints.checkpoints_in(output_dir) if checkpoints.is_ours(path)]
        found.sort(key=lambda path: checkpoints.step_of(path) <= self.state.global_step)
        best = self.state.best_model_checkpoint
        if best in found[:-2]:
            found.remove(best)
            found.insert(len(found) - 1, best)
        return found


def since_resumed(metrics, trained, steps):
    """PaddleNLP's metrics of a training, for the steps since it was resumed: it divides their loss and time by all."""
    share = trained / steps
    shares = {"train_loss": 1 / share, "train_samples_per_second": share, "train_steps_per_second": share}
    return {**metrics, **{name: metrics[name] * factor for name, factor in shares.items() if name in metrics}}


def save_model(model, tokenizer, folder):
    """Saves weights, config.json and tokenizer into a folder, each file atomically."""
    os.makedirs(folder, exist_ok=True)
    with work_folder(folder, "saving") as work:
        part = os.path.join(work, "model")
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, METRICS))  # of the previous weights
        # config.json last: a folder without it is not a model yet.
        for name in sorted(os.listdir(part), key=lambda name: name == "config.json"):
            os.replace(os.path.join(part, name), os.path.join(folder, name))


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
