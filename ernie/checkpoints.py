"""Checkpoints: which one a training resumes from, and which ones it may remove."""

import json
import os
import re
import shutil

from ernie import console
from ernie.console import logger
from ernie.errors import UserError
from ernie.identity import CODE, DEV_DATA, TRAINING_DATA, VOCABULARY, differences
from ernie.processes import gather, wait_for_all

MARK, COMPLETE = "ernie.json", "complete.json"  # files of a checkpoint: written before all others, and after
TRAINER_STATE = "trainer_state.json"
WEIGHTS_FILE = "model_state.pdparams"
PARTS = (WEIGHTS_FILE, "optimizer.pdopt", "scheduler.pdparams", TRAINER_STATE)  # what resuming needs


def find_checkpoint(args, identity):
    """The checkpoint to resume from, or None to start from the beginning.

    Checkpoints that a killed process left incomplete are removed, and so are those of a finished training of
    something else. What carries no mark of this project is left alone.

    Args:
        identity: of the training.

    Raises:
        UserError: it is not the same in all processes; or see `_is_of`, `wanted_checkpoint`.
    """
    others = gather(identity)
    differ = {name: None for other in others for name in differences(others[0], other)}
    if differ:
        raise UserError(f"not the same in all {len(others)} processes: {', '.join(differ)}; every node needs the same")
    if args.resume_from_checkpoint:
        return _named_checkpoint(args, identity)
    found = checkpoints_in(args.output_dir)
    ours = list(filter(is_ours, found))
    foreign = [path for path in found if path not in ours]
    if foreign:
        logger.warning(f"left alone, since this project did not write them: {', '.join(foreign)}")
    complete = [] if args.overwrite_output_dir else complete_checkpoints(args.output_dir)
    if complete and _is_of(complete[-1], identity):
        check_parts(complete[-1])
    else:
        complete = []
    wait_for_all()  # every process has looked before one removes
    for path in ours if args.should_save else ():
        if path not in complete:
            shutil.rmtree(path)
    if not complete:
        return None
    console.row("resuming", f"from {complete[-1]}; --overwrite_output_dir starts again")
    return complete[-1]


def _is_of(checkpoint, identity):
    """Whether a complete checkpoint is of a training with this identity.

    Raises:
        UserError: it is of another one, which is unfinished: that is neither mixed with this one nor deleted.
    """
    before, finished = _read(checkpoint)
    changed = differences(before, identity)
    if not changed:
        if before[DEV_DATA] and not identity[DEV_DATA]:
            logger.warning(f"without --do_eval the last checkpoint is the result, not the best one up to {checkpoint}")
        if identity[DEV_DATA] and not before[DEV_DATA]:
            logger.warning(
                f"the checkpoints up to {checkpoint} were saved without --do_eval, so none of them has a score and can "
                "be the best; --overwrite_output_dir trains again and scores all"
            )
        return True
    if finished:
        console.row("changed", f"{', '.join(changed)}, since {checkpoint} finished: training again")
        return False
    contents = [name for name in changed if name.startswith("the ")]
    options = [f"{name} {before.get(name)} (now {identity.get(name)})" for name in changed if name not in contents]
    raise UserError(
        f"{checkpoint} belongs to an unfinished training"
        + (f" with {', '.join(options)}" if options else "")
        + (f"; since then {' and '.join(contents)} changed" if contents else "")
        + ". Undo the change to resume it, add --overwrite_output_dir to start again, or choose another --output_dir"
    )


def wanted_checkpoint(args):
    """The folder that --resume_from_checkpoint means.

    Raises:
        UserError: there is none, or it is no complete checkpoint.
    """
    flag = f"--resume_from_checkpoint {args.resume_from_checkpoint}"
    path = args.resume_from_checkpoint
    if path == "True":  # the last checkpoint, as with Hugging Face
        found = complete_checkpoints(args.output_dir)
        if not found:
            raise UserError(f"{flag}: {args.output_dir} has no checkpoint; leave it out to start from the beginning")
        path = found[-1]
    if not os.path.isdir(path):
        raise UserError(f"{flag}: no such folder; expected a checkpoint, or True for the last one of --output_dir")
    check_parts(path)
    return path


def _named_checkpoint(args, identity):
    """The checkpoint that the user named: other options are the user's will, other data are not."""
    checkpoint = wanted_checkpoint(args)
    if os.path.exists(os.path.join(checkpoint, COMPLETE)):
        differ = differences(_read(checkpoint)[0], identity)
        if CODE in differ:
            logger.warning(f"{checkpoint} is of another release: whether its data are these can't be told")
        changed = [name for name in (TRAINING_DATA, VOCABULARY) if name in differ]
        if changed:
            raise UserError(f"{checkpoint} can't be resumed: since then {' and '.join(changed)} changed")
    console.row("resuming", f"from {checkpoint}")
    return checkpoint


def check_parts(path):
    """Raises UserError if a checkpoint lacks a file from which it is resumed."""
    parts = (*PARTS, COMPLETE) if is_ours(path) else PARTS
    missing = [name for name in parts if not os.path.exists(os.path.join(path, name))]
    if missing:
        raise UserError(f"{path} is no complete checkpoint that can be resumed: it lacks {', '.join(missing)}")


def check_best(checkpoint):
    """Raises UserError where the best checkpoint is gone: the last one is not the best."""
    if not os.path.exists(os.path.join(checkpoint, WEIGHTS_FILE)):
        raise UserError(
            f"{checkpoint}, the best checkpoint of this training, is missing or has no weights: bring it back, or add "
            "--overwrite_output_dir to train again"
        )


def checkpoints_in(folder):
    """Paths of the folders checkpoint-<step>, by step."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    paths = [os.path.join(folder, name) for name in names if re.fullmatch(r"checkpoint-\d+", name)]
    return sorted(filter(os.path.isdir, paths), key=step_of)


def complete_checkpoints(folder):
    """Paths of the complete checkpoints that every process finds in its folder, by step.

    With --save_on_each_node a kill may have left one node a checkpoint that another lacks.
    """
    found = [path for path in checkpoints_in(folder) if os.path.exists(os.path.join(path, COMPLETE))]
    steps = [set(map(step_of, paths)) for paths in gather(found)]
    return [path for path in found if step_of(path) in set.intersection(*steps)]


def step_of(checkpoint):
    return int(checkpoint.rpartition("-")[2])


def is_ours(checkpoint):
    """Whether this project wrote a checkpoint: only then may it be removed."""
    return any(os.path.exists(os.path.join(checkpoint, name)) for name in (MARK, COMPLETE))


def _read(checkpoint):
    """(the identity of the training that a complete checkpoint is of, whether it was its last)."""
    with open(os.path.join(checkpoint, COMPLETE), encoding="utf-8") as f:
        content = json.load(f)
    return content, content.pop("finished")
