"""The container of the servers, as far as that goes without an engine: what the Dockerfile copies, starts, and asks."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml
from test_serving import SERVERS, SERVING, free_port

DEPLOY = SERVING.parent
HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """What the Dockerfile makes: (folder that stands for /, the last arguments of each instruction, ENV)."""
    root = tmp_path_factory.mktemp("image")
    lines = re.sub(r"^#.*\n", "", (SERVING / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    ignored = (DEPLOY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    left_out = shutil.ignore_patterns(*(pattern.removeprefix("**/") for pattern in ignored))
    last, environment = {}, {}
    for line in filter(None, lines.replace("\\\n", " ").splitlines()):
        instruction, arguments = line.split(None, 1)
        last[instruction] = arguments
        if instruction == "ENV":
            environment |= dict(pair.split("=", 1) for pair in arguments.split())
        elif instruction == "COPY":
            *sources, target = arguments.split()
            folder = root / last["WORKDIR"].lstrip("/") / target
            for source in sources:
                if (DEPLOY / source).is_dir():
                    shutil.copytree(DEPLOY / source, folder, ignore=left_out)
                else:
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copy(DEPLOY / source, folder)
    return root, last, environment


def command_of(text):
    """The exec form of an instruction, with this Python."""
    return [sys.executable if part == "python" else part for part in json.loads(text)]


def test_hadolint_finds_nothing():
    done = subprocess.run([HADOLINT, SERVING / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "", done.stdout + done.stderr


def test_it_is_not_root_and_listens_outside(image):
    _, last, environment = image
    assert int(last["USER"].partition(":")[0]) > 0
    assert environment["HOST"] == "0.0.0.0" and environment["PORT"] == last["EXPOSE"]
    (image_and_tag,) = last["FROM"].split()
    assert re.fullmatch(r"python:3\.1[0-4]-slim-\w+", image_and_tag)


@pytest.mark.parametrize(
    "arguments, dataset", [((), "tnews"), (("server_token_cls.py",), "msra_ner"), (("server_qa.py",), "cmrc2018")]
)
def test_what_is_copied_serves(arguments, dataset, image, exported, tmp_path):
    """With the image's own ENV, but on loopback: it gets healthy and ready, answers, and SIGTERM ends it with 0.
    Nothing is written into the model's folder, which is mounted read-only."""
    root, last, environment = image
    folder, inputs, _ = exported(dataset)
    before = sorted(path.name for path in folder.iterdir())
    paths = {"MODEL_PATH": str(folder), "CACHE_DIR": str(tmp_path)}
    assert paths.keys() <= environment.keys()
    environment = {**environment, **paths, "HOST": "127.0.0.1", "PORT": str(free_port()), "PATH": os.environ["PATH"]}
    health = command_of(last["HEALTHCHECK"].partition("CMD")[2])

    def healthy():
        return subprocess.run(health, env=environment, stderr=subprocess.DEVNULL, timeout=60).returncode == 0

    assert not healthy()
    process = subprocess.Popen(
        command_of(last["ENTRYPOINT"]) + (list(arguments) or command_of(last["CMD"])),
        cwd=root / last["WORKDIR"].lstrip("/"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        while not healthy():
            assert process.poll() is None, process.communicate()[0].decode()
        url = f"http://127.0.0.1:{environment['PORT']}"
        while requests.get(f"{url}/ready", timeout=60).status_code != 200:
            assert healthy()
        text = {"question": inputs[0][0], "context": inputs[0][1]} if dataset == "cmrc2018" else {"text": inputs[0]}
        response = requests.post(f"{url}/models/{SERVERS[dataset][1]}", json={"data": text}, timeout=60)
        assert response.status_code == 200, response.text
    finally:
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0, output
    assert not healthy()
    assert sorted(path.name for path in folder.iterdir()) == before


def test_compose_and_prometheus_name_what_is_there(image):
    """Prometheus asks a service of compose.yml at its port; what compose.yml builds and mounts exists."""
    _, last, environment = image
    services = yaml.safe_load((SERVING / "compose.yml").read_text(encoding="utf-8"))["services"]
    build = services["server"]["build"]
    assert (SERVING / build["context"]).resolve() == DEPLOY
    assert (DEPLOY / build["dockerfile"]).resolve() == SERVING / "Dockerfile"
    targets = {v["target"] if isinstance(v, dict) else v.split(":")[1] for v in services["server"]["volumes"]}
    assert targets == {environment["MODEL_PATH"], environment["CACHE_DIR"]}
    config = yaml.safe_load((SERVING / "prometheus.yml").read_text(encoding="utf-8"))
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    service, port = target.split(":")
    assert service in services and port == last["EXPOSE"] == services[service]["ports"][0].rpartition(":")[2]
    assert (SERVING / services["prometheus"]["volumes"][0].split(":")[0]).is_file()


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool: install Debian's package prometheus")
def test_promtool_takes_prometheus_yml():
    done = subprocess.run(["promtool", "check", "config", SERVING / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
