"""`make`: the environment is made once, follows the content of its requirements, and loses nothing."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile and requirements that install nothing."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / ".ci" / "environment", tmp_path / ".ci")
    (tmp_path / "examples" / "quickstart.py").write_text("import sys; print('ran in', sys.prefix)\n")
    for name in ("requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).write_text("# nothing\n")
    return tmp_path


def make(folder, *arguments, **environment):
    # Without what `make test` leaves there for a make that it calls.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", *arguments], cwd=folder, env={**inherited, **environment}, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_the_environment_follows_the_content_of_its_requirements(clone):
    python = f"PYTHON={sys.executable}"
    status, text = make(clone, "quickstart", python)
    assert status == 0 and text.count("Installing") == 1, text
    venv = clone / ".venv-{}.{}".format(*sys.version_info)
    assert f"ran in {venv}" in text
    (venv / "added by the user").touch()
    os.utime(clone / "requirements.txt")  # as a checkout does
    assert "Installing" not in make(clone, "quickstart", python)[1]
    before = (clone / "requirements.txt").read_text()
    for content in (f"{before}# more\n", before):
        (clone / "requirements.txt").write_text(content)
        status, text = make(clone, "quickstart", python)
        assert status == 0 and f"Installing requirements.txt into {venv.name}: what you added stays" in text
        assert (venv / "added by the user").exists()
    # An installation that fails is not taken for one that is complete.
    (clone / "requirements.txt").write_text("./no-such-package\n")
    for _ in range(2):
        status, text = make(clone, "quickstart", python)
        assert status != 0 and "Installing" in text and "ran in" not in text


def test_a_python_that_does_not_fit(clone):
    status, text = make(clone, "quickstart", "PYTHON=/no/such/python")
    assert status == 2 and "PYTHON=/no/such/python does not fit: Python 3.10 (best)" in text
    assert len(text.splitlines()) == 1


def test_no_python_and_no_way_to_get_one(clone, tmp_path):
    """A machine without any Python: one that has another would download, which is not for a test."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "make", "env", "cksum", "tr", "ls", "sort", "tail", "rm", "touch"):
        (tools / name).symlink_to(shutil.which(name))
    status, text = make(clone, "quickstart", PATH=str(tools), PYENV_ROOT=str(tmp_path))
    assert status == 2 and "uv could not download it" in text and "make PYTHON=/path/to/python3.10" in text
    assert not list(clone.glob(".venv*/ready*"))
