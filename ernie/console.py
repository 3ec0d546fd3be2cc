"""The console: what the six scripts say while they run, on standard error.

A row is a word and what there is to say about it. PaddleNLP's own messages appear if they are warnings, with --verbose
all of them except its list of arguments (settings.json has them). Colour and progress bars appear only on a terminal.
Of several processes, the first one writes rows; each writes its warnings.
"""

import functools
import logging
import os
import sys
import time

from paddlenlp.trainer import TrainerCallback
from paddlenlp.utils.log import logger as paddlenlp_logger
from tqdm import tqdm

WIDTH = 12  # of the column of words

logger = logging.getLogger("ernie")

# A bar that is removed when it is done, and is not drawn in a file or a pipe.
progress = functools.partial(tqdm, leave=False, disable=None, dynamic_ncols=True)


def row(word, text):
    """Writes one row, such as "saved       best_models/tnews"."""
    logger.info(f"{word:<{WIDTH - 1}} {text}")


class Handler(logging.Handler):
    """Writes above the bars that are on the screen, to what is standard error at that moment."""

    def emit(self, record):
        tqdm.write(self.format(record), file=sys.stderr)

    def format(self, record):
        text = record.getMessage().strip("\n").replace("\n", "\n" + " " * WIDTH)
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower():<{WIDTH - 1}} {text}"
            return f"\033[33m{text}\033[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text
        return text if record.name == logger.name else f"{record.name:<{WIDTH - 1}} {text}"


# Of three loggers: the project's, PaddleNLP's and the predictor's, whose package reads the data.
for each in (logger, logging.getLogger("ernie_predictor"), paddlenlp_logger.logger):
    each.handlers, each.propagate = [Handler()], False
    each.setLevel(logging.WARNING)
if os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
    logger.setLevel(logging.INFO)


class TrainingRows(TrainerCallback):
    """A row when a training starts, and one for each log or evaluation: step, loss, dev score, speed, time left.

    It takes the place of PaddleNLP's ProgressCallback and PrinterCallback.

    Args:
        word: what the training is called.
        score_name: the task's score, which `Trainer.evaluate` returns as eval_<score_name>.
    """

    def __init__(self, word, score_name):
        self.word, self.score_name = word, score_name
        self.evaluation_bar, self.pending = None, {}

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        epochs = state.max_steps * args.gradient_accumulation_steps / len(train_dataloader)
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.dataset_world_size
        often = {}
        for what, strategy, steps in (
            ("dev score", args.evaluation_strategy.value, args.eval_steps),
            ("checkpoint", args.save_strategy.value, args.save_steps),
        ):
            every = {"steps": f"every {steps} steps", "epoch": "every epoch", "no": "never"}[strategy]
            often.setdefault(every, []).append(what)
        often = "; ".join(f"{' and '.join(what)} {every}" for every, what in often.items())
        resumed = f", from step {state.global_step:,}" if state.global_step else ""
        row(self.word, f"{state.max_steps:,} steps of {batch:,} inputs, {epochs:.3g} epochs{resumed}; {often}")
        self.batch, self.first_step, self.begin = batch, state.global_step, None
        self.last_step, self.pending = state.global_step, {}
        self.training_bar = progress(
            desc=self.word, total=state.max_steps, initial=state.global_step, disable=args.disable_tqdm or None
        )

    def on_step_begin(self, args, state, control, **kwargs):
        if self.begin is None:
            self.begin = self.resumed = time.perf_counter()
        self._write(state)

    def on_step_end(self, args, state, control, **kwargs):
        self.ended = time.perf_counter()
        self.training_bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.pending["loss"] = logs["loss"]

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        bar = self.evaluation_bar
        if bar is None or bar.n == bar.total:
            bar = progress(desc="evaluating", total=len(eval_dataloader), disable=args.disable_tqdm or None)
            self.evaluation_bar = bar
        bar.update()
        if bar.n == bar.total:  # PaddleNLP tells of the end of an evaluation, not of a prediction
            bar.close()

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.pending.setdefault("scores", []).append(metrics[f"eval_{self.score_name}"])

    def on_train_end(self, args, state, control, **kwargs):
        self._write(state)
        self.training_bar.close()

    def _write(self, state):
        """The row of a step that was logged or evaluated or both: they come one after the other."""
        if not self.pending:
            return
        step, now = state.global_step, time.perf_counter()
        loss = f"loss {self.pending['loss']:.3g}" if "loss" in self.pending else ""
        scores = " ".join(f"{100 * score:.2f}" for score in self.pending.get("scores", ()))
        scores = scores and f"dev {self.score_name.replace('_', ' ')} {scores}"
        # Evaluations and checkpoints count for the time that is left, not for the speed.
        speed = self.batch * (step - self.last_step) / (self.ended - self.resumed)
        seconds = now - self.begin
        left = seconds / (step - self.first_step) * (state.max_steps - step)
        clock = f"{tqdm.format_interval(left)} left" if left else f"took {tqdm.format_interval(seconds)}"
        row(f"{step:>5}/{state.max_steps}", f"{loss:<13} {scores:<22} {speed:>5.0f} inputs/s   {clock}")
        self.pending, self.last_step, self.resumed = {}, step, now
