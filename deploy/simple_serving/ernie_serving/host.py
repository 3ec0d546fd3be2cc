"""The models of one server process: opened in the background, asked while they are ready, closed at the end."""

import logging
import threading

from ernie_predictor import PredictorError
from uvicorn.config import STARTUP_FAILURE

from .errors import ApiError, unavailable
from .metrics import Metrics
from .routes import check_folder, model_folders
from .service import Service

logger = logging.getLogger("ernie_serving")


class Host:
    """What an application holds.

    Args:
        routes: a list of `Route`.
        settings: `Settings`.

    Attributes:
        models: the `ModelFolder`s by name.
        services: the `Service` of each model that is open, by name.
        failure: why a model could not be opened, or None.
        failure_status: the exit status for that; uvicorn's own, for a worker that is not started again.
        draining: whether the server is about to stop: `/ready` says so, while requests are still accepted.
        stopping: whether the server accepts no more requests.

    Raises:
        UsageError: MODEL_PATH does not name models that can be told apart.
    """

    def __init__(self, routes, settings):
        self.settings, self.metrics = settings, Metrics()
        self.models = {model.name: model for model in model_folders(routes, settings.model_path)}
        self.services = {}
        self.failure, self.failure_status = None, STARTUP_FAILURE
        self.draining = self.stopping = False
        # Models of one process share its cores: one batch runs at a time, on all of them.
        self._turn = threading.Lock()

    def open(self):
        """Opens each model and runs it once. Returns whether all can be asked; `failure` says why not."""
        for model in self.models.values():
            try:
                check_folder(model)
                service = Service(model, self.settings, self.metrics, self._turn)
                service.warm_up()
            except Exception as e:
                # Also a missing package, or a model that fails at its first texts: it would never be ready.
                self.failure = str(e) or type(e).__name__
                if not isinstance(e, PredictorError):
                    logger.exception("%s could not be opened", model.name)
                return False
            self.services[model.name] = service
            logger.info("%s: %s is ready (%s)", model.name, model.folder, service.model)
        return True

    def close(self):
        """Answers what is queued, within `shutdown_s`."""
        for service in self.services.values():
            service.close(self.settings.shutdown_s)

    def model(self, name):
        """The `ModelFolder` of that name.

        Raises:
            ApiError: 404.
        """
        if name not in self.models:
            raise ApiError(404, "not_found", f"there is no model {name!r:.60}; there are {', '.join(self.models)}")
        return self.models[name]

    def ready(self, name):
        """The service of a model, if it may be asked.

        Raises:
            ApiError: 404, or 503 while it opens, is broken, or the server stops.
        """
        self.model(name)
        if self.stopping:
            raise unavailable("the server is stopping", 5)
        state = self.state(name)
        if state == "broken":
            raise unavailable("the model is broken; the server's log says why", 60)
        if state == "opening":
            raise unavailable("the model is being opened", 2)
        return self.services[name]

    def all_ready(self):
        """Raises ApiError, 503, unless every model is ready and the server is not stopping."""
        if self.draining:
            raise unavailable("the server is stopping", 5)
        for name in self.models:
            self.ready(name)

    def state(self, name):
        """ "opening", "ready" or "broken"."""
        if name in self.services:
            return "ready" if self.services[name].batcher.is_alive() else "broken"
        return "broken" if self.failure else "opening"

    def info(self):
        """What `/info` shows."""
        limits = {
            "max_batch_tokens", "max_batch_size", "max_queue_tokens", "max_texts", "max_characters", "max_body_bytes",
            "timeout_s", "max_connections", "max_headers", "max_header_bytes",
        }  # fmt: skip
        return {
            "models": [
                {
                    "name": model.name,
                    "task": model.route.task.name,
                    "route": model.path,
                    "state": self.state(model.name),
                    **(self.services[model.name].info() if model.name in self.services else {}),
                }
                for model in self.models.values()
            ],
            "workers": self.settings.workers,
            "limits": self.settings.model_dump(include=limits),
        }
