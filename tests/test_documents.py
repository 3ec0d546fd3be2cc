"""The documents: links, both languages, the commands that they show, and what those commands do.

Commands are taken from the documents' own text. Every flag is parsed by the program's own parser. What runs on the
models of `make quickstart` is run, in a copy of the repository.
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pytest
import requests
from conftest import ROOT, _chdir
from markdown_it import MarkdownIt
from test_serving import free_port

WRITTEN = ("best_models", "data", "models", "log")  # by commands of the documents
OURS = [path for path in ROOT.iterdir() if path.name[0] != "." and path.name not in WRITTEN]
PAGES = sorted(
    path.relative_to(ROOT)
    for root in OURS
    for path in (root.rglob("*.md") if root.is_dir() else [root])
    if path.suffix == ".md" and not any(part[0] == "." for part in path.relative_to(ROOT).parts)
)
PAIRS = [(page, page.with_stem(f"{page.stem}_zh")) for page in PAGES if page.with_stem(f"{page.stem}_zh") in PAGES]
# Whose commands run, beside having the right flags. The Chinese pages have the same.
RUN = [Path(name) for name in ("README.md", "deploy/README.md", "deploy/predictor/README.md",
                               "deploy/simple_serving/README.md", "docs/model_folder.md")]  # fmt: skip
# Needs a device, a package or an hour that no test has; names no file (DIR, FILE); or has its own tests (the clients).
NOT_RUN = re.compile(r"infer_gpu|run_triton|benchmarks/|paddle\.distributed|client_|docker|git clone|\b(DIR|FILE)\b")
VOCAB = ROOT / "examples" / "model" / "vocab.txt"
# Unicode categories of what GitHub keeps of a heading in its anchor.
WORD = ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Pc")
SERVER = re.compile(r"^(?:\w+=\S+ )*(?:python \S*server_\w+\.py|uvicorn )", re.MULTILINE)


@functools.cache
def tokens_of(page):
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8"))


def blocks_of(page, *languages):
    """(language, text) of each block of code."""
    blocks = [(token.info.strip(), token.content) for token in tokens_of(page) if token.type == "fence"]
    return [block for block in blocks if block[0] in languages] if languages else blocks


def links_of(page):
    """Where the links and pictures of a page lead, those of HTML included."""
    found = []
    for token in tokens_of(page):
        for part in (token, *(token.children or ())):
            found += [part.attrs[name] for name in ("href", "src") if name in part.attrs]
            if part.type in ("html_block", "html_inline"):
                found += re.findall(r'(?:href|src|srcset)="([^"]+)"', part.content)
    return [unquote(link) for link in found if not re.match(r"https?:|mailto:", link)]


@functools.cache
def anchors_of(page):
    """The anchors of a page, as GitHub makes them."""
    tokens, found = tokens_of(page), set()
    for heading, content in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            text = "".join(part.content for part in content.children if part.type in ("text", "code_inline"))
            # Letters, marks, decimal numbers and connectors stay, of any script.
            kept = (c for c in text.strip().lower() if c in "- " or unicodedata.category(c)[:2] in WORD)
            anchor = "".join(kept).replace(" ", "-")
            found.add(next(name for name in (anchor, *(f"{anchor}-{i}" for i in range(1, 99))) if name not in found))
    return found | set(re.findall(r'(?:id|name)="([^"]+)"', (ROOT / page).read_text(encoding="utf-8")))


def target_of(page, link):
    """(path from the root, anchor)."""
    path, _, anchor = link.partition("#")
    target = Path(os.path.normpath(page.parent / path)) if path else page
    return (target / "README.md" if (ROOT / target / "README.md").is_file() else target), anchor


def test_there_are_documents():
    assert len(PAIRS) >= 8 and {Path("README.md"), *RUN} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    wrong = []
    for link in links_of(page):
        target, anchor = target_of(page, link)
        if not (ROOT / target).exists():
            wrong.append(f"{link}: no {target}")
        elif anchor and target.suffix == ".md" and anchor not in anchors_of(target):
            wrong.append(f"{link}: not one of {sorted(anchors_of(target))}")
    assert not wrong


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair[0]))
def test_links_stay_in_their_language(pair):
    """Each page leads to the other language of itself, and else to pages of its own language."""
    other = dict(PAIRS) | {chinese: english for english, chinese in PAIRS}
    for page in pair:
        targets = [target_of(page, link)[0] for link in links_of(page)]
        assert other[page] in targets
        strangers = [
            str(target)
            for target in targets
            if target in other and target != other[page] and (target.stem[-3:] == "_zh") != (page.stem[-3:] == "_zh")
        ]
        assert not strangers, page


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair[0]))
def test_both_languages_have_the_same_code(pair):
    english, chinese = ([(language, code_of(language, text)) for language, text in blocks_of(page)] for page in pair)
    for ours, theirs in itertools.zip_longest(english, chinese):
        assert ours == theirs


def code_of(language, text):
    """The lines of a block without comments, which are translated. In a tree of files these follow a gap."""
    comment = r"(?:^|\s)#.*" if language else r"(?<=[^\s│├└─])\s{3,}.*"
    lines = (re.sub(comment, "", line).rstrip() for line in text.splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair[0]))
def test_both_languages_have_the_same_figures(pair):
    """In each row of each table; a translation may have them in another order."""
    english, chinese = map(figures_of, pair)
    for ours, theirs in itertools.zip_longest(english, chinese):
        assert ours == theirs


def figures_of(page):
    """For each table, for each row: its numbers, sorted."""
    tables, row = [], None
    for token in tokens_of(page):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
            tables[-1].append(row)
        elif token.type == "tr_close":
            row.sort()
            row = None
        elif token.type == "inline" and row is not None:
            row += re.findall(r"\d(?:[\d,.]*\d)?", token.content)
    return tables


def test_every_benchmark_is_described():
    for page in ("README.md", "README_zh.md"):
        written = (ROOT / "benchmarks" / page).read_text(encoding="utf-8")
        assert [path.name for path in (ROOT / "benchmarks").glob("*.py") if f"[`{path.name}`](#" not in written] == []


def test_figures_of_accuracy_are_those_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import clue

    figures = clue.read(ROOT / "benchmarks" / "results" / "clue.json")
    table = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for name, found in figures["data sets"].items():
        assert clue.table_of(name, found["variants"], found["speed"]) in table
        assert clue.choice_of(found["variants"], found["speed"], 0.5) in table
        for variant in ("INT8", "width 0.75", "width 0.75, INT8"):
            row = found["variants"][variant]
            for page, to in (("README.md", "to"), ("README_zh.md", "到")):
                text = f"{row['change']:+.2f} ({row['low']:+.2f} {to} {row['high']:+.2f})"
                assert text in (ROOT / page).read_text(encoding="utf-8")


def test_the_readme_is_short():
    for name in ("README.md", "README_zh.md"):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) < 200


def folder_of(page):
    """Where the commands of a page run: in the root, and in a folder of deploy/ for its own page."""
    return page.parent if page.parts[0] == "deploy" and len(page.parts) > 2 else Path(".")


def commands_of(text):
    """Yields the commands of a block as lists of words, without assignments before them, redirections and comments."""
    text = re.sub(r"<<-?\s*'?(\w+)'?(.*)\n(?:.*\n)*?\1$", r"\2", text, flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        words.whitespace_split, command = True, []
        for word in [*words, ";"]:
            if not set(word) <= set("|&;()"):
                command.append(word)
                continue
            command = [w for before, w in zip(["", *command], command) if not (set(w) | set(before)) & set("<>")]
            command = list(itertools.dropwhile(lambda w: re.match(r"[A-Za-z_]\w*=", w), command))
            if command:
                yield command
            command = []


class Parsed(BaseException):
    """A program has parsed its command line: (values, what its parser does not know)."""


def parse(program, arguments):
    """What a program's own parser makes of arguments. One that does not fit ends with SystemExit."""
    parse_known_args = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(*args, **kwargs):
        raise Parsed(*parse_known_args(*args, **kwargs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(program), *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
        patch.syspath_prepend(str(program.parent))
        try:
            runpy.run_path(str(program), run_name="__main__")
        except Parsed as e:
            return e.args
    raise AssertionError("parses no command line")


# Programs that are not the project's own.
OTHERS = {"printf", "cc", "cat", "cd", "cp", "mkdir", "head", "echo", "ls", "curl", "git", "docker", "visualdl", "scp",
          "kubectl", "tail", ".", "promtool", "apt-get", "cmake", "ray",
          "build/ernie_infer", "build-sanitize/fuzz"}  # fmt: skip


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page, "bash")], ids=str)
def test_commands_have_files_and_flags_that_exist(page, capsys):
    wrong, written = [], (ROOT / page).read_text(encoding="utf-8")
    for _, text in blocks_of(page, "bash"):
        folder = ROOT / folder_of(page)
        for program, *arguments in commands_of(text):
            if program == "cd":
                folder = folder / arguments[0]
            with _chdir(folder):
                try:
                    check(program, arguments, written)
                except (SystemExit, AssertionError) as e:
                    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
                    wrong.append((shlex.join([program, *arguments]), str(e).partition("\n")[0], *errors))
    assert not wrong


def check(program, arguments, written):
    """Fails if a command names a file, module, target or flag that does not exist."""
    if program == "python" and arguments[:2] == ["-m", "paddle.distributed.launch"]:
        script = next(i for i, word in enumerate(arguments) if word.endswith(".py"))
        arguments = arguments[script:]
    if program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]), "no such module"
    elif program == "python" and arguments[0] == "-c":
        compile(arguments[1], "-c", "exec")
    elif program == "python":
        script = Path(arguments[0])
        assert script.is_file(), "no such file"
        _, unknown = parse(script.resolve(), [str(VOCAB) if word == "FILE" else word for word in arguments[1:]])
        assert not unknown or script.name == "run_triton.py", f"unknown {unknown}"  # which are tritonserver's
        for flag, name in itertools.pairwise(arguments):
            if flag in ("--config", "--data_dir", "--vocab_file", "--calibration"):
                made = re.match(rf"(\.\./)*({'|'.join(WRITTEN)})(/|$)|/tmp/|DIR|FILE|-$", name)
                assert made or Path(name).exists(), f"no {name}"
    elif program == "make":
        done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for name in (word.partition("=")[0] for word in arguments if "=" in word):
            assert re.search(rf"\$\({name}\)|\b{name} \?=", makefile), f"no variable {name}"
    elif program == "pip":
        assert arguments[0] == "install"
        for flag, name in itertools.pairwise(arguments):
            assert flag != "-r" or Path(name).is_file(), f"no {name}"
    elif program == "uvicorn":
        import uvicorn

        uvicorn.main.make_context("uvicorn", list(arguments))
        check_app(arguments[0], written)
    elif program == "paddlenlp":
        assert arguments[0] == "server"
        check_app(arguments[1], written)
    else:
        assert program in OTHERS, f"{program}: no program that the documents may use; add it to OTHERS"


def check_app(name, written):
    module = f"{name.partition(':')[0]}.py"
    assert Path(module).is_file() or f"`{module}`" in written, f"no {module}"


class Shell:
    """Runs blocks of a document in a copy of the repository.

    Their text is run as it is, but for the port, /tmp and the models of an operator. Only a few programs are found:
    `python` is tests/quick_python.py, and what installs does nothing.
    """

    NOTHING = ("pip", "make")
    REAL = ("bash", "cat", "cp", "curl", "head", "ls", "mkdir", "tail", "uvicorn")

    def __init__(self, tree, sample_model):
        self.tree, self.port, self.server = tree, free_port(), None
        tools = tree / ".tools"
        tools.mkdir()
        (tree / "tmp").mkdir()
        programs = dict.fromkeys(self.NOTHING, "true")
        programs["python"] = f'exec {sys.executable} {ROOT}/tests/quick_python.py "$@"'
        for name in self.REAL:
            path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
            if path:
                programs[name] = f'exec {path} {"--fail -sS " if name == "curl" else ""}"$@"'
        for name, line in programs.items():
            (tools / name).write_text(f"#!{shutil.which('bash')}\n{line}\n")
            (tools / name).chmod(0o755)
        self.environment = {
            **os.environ,
            **{"PATH": str(tools), "TEST_PATH": os.environ["PATH"], "TEST_MODEL": str(sample_model)},
            **dict.fromkeys(("PORT", "UVICORN_PORT"), str(self.port)),  # where a command names none
        }

    def start(self, language, text, folder):
        text = text.replace("8189", str(self.port)).replace("/tmp/", f"{self.tree}/tmp/")
        text = re.sub(r"(?<==)/models/(\w+)", rf"{self.tree}/best_models/\1/export", text)
        command = ["python", "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
        return subprocess.Popen(
            [str(self.tree / ".tools" / command[0]), *command[1:]],
            cwd=self.tree / folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, language, text, folder):
        """What a block prints. A server goes on until the next one starts."""
        if language == "bash" and SERVER.search(text):
            self.stop()
            self.server = self.start(language, text, folder)
            self.wait()
            return ""
        process = self.start(language, text, folder)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, f"{text}\n{output[-3000:]}"
        return output

    def wait(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.server.poll() is None:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"http://127.0.0.1:{self.port}/ready", timeout=60).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(self.stop()[-3000:])

    def stop(self):
        """Ends the server, and returns what it printed."""
        if self.server is None:
            return ""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)
        output, _ = self.server.communicate()
        self.server = None
        return output


@pytest.fixture
def shell(tmp_path, run_quickstart, exported, sample_model):
    """A copy of the repository with the models of `make quickstart`, and for the pages of deploy/ those of run_*.py."""
    tree = tmp_path / "tree"
    (tree / ".venv" / "bin").mkdir(parents=True)  # `make` has made it
    (tree / ".venv" / "bin" / "activate").touch()
    for path in OURS:
        if path.is_dir():
            shutil.copytree(path, tree / path.name, ignore=shutil.ignore_patterns(".venv*", "__pycache__"))
        else:
            shutil.copy(path, tree)
    models = tree / "best_models"
    shutil.copytree(run_quickstart("tnews")[1] / "tnews", models / "quickstart" / "tnews")
    for name in ("afqmc", "msra_ner", "cmrc2018"):
        shutil.copytree(exported(name)[0], models / "quickstart" / name / "export")
    shell = Shell(tree, sample_model)
    yield shell
    shell.stop()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", RUN, ids=str)
def test_commands_run(page, shell):
    """Each block of a page, in order, on what the blocks before it made."""
    if page.parts[0] == "deploy":
        for path in (shell.tree / "best_models" / "quickstart").iterdir():
            (shell.tree / "best_models" / path.name).symlink_to(path)
    program, ran = None, []
    for language, text in blocks_of(page, "bash", "python"):
        if NOT_RUN.search(text):
            continue
        # "... write my_server.py": the program that is shown before it is started.
        for module in re.findall(r"uvicorn (\w+):app", text):
            path = shell.tree / folder_of(page) / f"{module}.py"
            if not path.exists():
                path.write_text(program, encoding="utf-8")
        output = shell.run(language, text, folder_of(page))
        ran.append(language)
        if language == "python":
            program = text
        assert "Traceback" not in output
        if re.search(r"infer_cpu\.py(?!.*--(output|benchmark))", text):
            assert "confidence" in output
        if "curl" in text and "/models/" in text:
            assert '"result"' in output or '"outputs"' in output, output
    assert ran
