"""Which models a server has, and what each of them takes and gives."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from ernie_predictor import PredictorError, UsageError
from ernie_predictor.tasks import task_of
from ernie_predictor.tasks.base import Fields, Task

from .fields import texts_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Route:
    """What the models of a task take and give over HTTP.

    Attributes:
        task: a class of the predictor's `TASKS`.
        name: of a model that was given none; it is asked at /models/<name>.
        write_result: a function of (the model's task, items, answers) that returns the `result`.
        result: for each of its fields what the field's list holds, as `ernie_predictor.tasks.base.Fields`.
        default_model: the folder where MODEL_PATH is not set.
        tokens: whether a text may be a list of tokens, as PaddleNLP's client sends it.
        ignored: further fields of `data` that published clients send.
    """

    task: type[Task]
    name: str
    write_result: Callable
    result: Fields
    default_model: str
    tokens: bool = False
    ignored: tuple[str, ...] = ()

    def read_data(self, data):
        """The items of a request's `data`, as the predictor takes them.

        Raises:
            ApiError: a field is missing or unknown, or holds something else than texts.
        """
        names = self.task.text_names()
        firsts = texts_of(data, names[0], known=(*names, *self.ignored), tokens=self.tokens)
        if not names[1:] or (data.get(names[1]) is None and not self.task.second_required):
            return firsts
        return list(zip(firsts, texts_of(data, names[1], like=firsts)))


@dataclass(frozen=True)
class ModelFolder:
    """A model that a server is to open: its name, its folder, and its route."""

    name: str
    folder: str
    route: Route

    @property
    def path(self):
        return f"/models/{self.name}"


def model_folders(routes, model_path):
    """The models of a server.

    Args:
        routes: a list of `Route`. With several, the task of each folder tells which one it takes.
        model_path: "DIR", or "NAME=DIR,NAME=DIR"; None: the default of the first route.

    Returns:
        A list of `ModelFolder`.

    Raises:
        UsageError: several models without names, or of one name.
    """
    entries = [entry.strip() for entry in (model_path or routes[0].default_model).split(",") if entry.strip()]
    models = []
    for entry in entries:
        name, separator, folder = entry.partition("=")
        if not separator or not _NAME.fullmatch(name):
            name, folder = None, entry
        if name is None and len(entries) > 1:
            raise UsageError(f"--model_path {entry}: of several models each needs a name, as in tnews={entry}")
        route = _route_of(folder, routes)
        name = name or route.name
        if name in [model.name for model in models]:
            raise UsageError(f"--model_path: two models are called {name}")
        models.append(ModelFolder(name, folder, route))
    return models


def _route_of(folder, routes):
    """The route of a folder's task. A folder that can't be read takes the first; opening it says what is wrong."""
    if len(routes) > 1:
        try:
            task = task_of(folder)
        except PredictorError:
            return routes[0]
        return next((route for route in routes if route.task.name == task), routes[0])
    return routes[0]


def check_folder(model):
    """Raises PredictorError where a folder is not there, or holds a model of another task."""
    if model.folder == model.route.default_model and not os.path.isdir(model.folder):
        raise PredictorError(
            f"no model at {os.path.normpath(model.folder)}: name a folder that run_*.py --do_export or compress_*.py "
            "wrote, with --model_path DIR or MODEL_PATH=DIR"
        )
    task = task_of(model.folder)
    if task != model.route.task.name:
        raise PredictorError(f"--model_path {model.folder} holds a {task} model, which server_{task}.py serves")
