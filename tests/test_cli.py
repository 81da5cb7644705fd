"""The contract of the command line: exit codes, errors of two lines, help that costs nothing."""

import ast
import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from imnetprep import __version__, cli
from imnetprep.commands.verb import Verb
from tests.conftest import TRAIN, VAL, Run, command, snapshot, spoil
from tests.packings import openable

_HEAVY = ("torch", "torchvision", "boto3", "libtorrent", "numpy", "PIL", "matplotlib", "tqdm")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from imnetprep.cli import run; code = run(['--help']);"
        f"print([name for name in {_HEAVY} if name in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"


@pytest.mark.parametrize("verb", list(cli.imnetprep.commands))
def test_every_verb_has_help_with_an_example(verb: str, run: Run) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"\n  imnetprep {verb}" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fly"], "there is no verb 'fly'"),
        (["verify", "--wrong"], "No such option"),
        (["download", "--split", "vale"], "'vale' is not one of"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(words: list[str], told: str, run: Run) -> None:
    done = run(*words)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("Error: ") and told in error
    assert hint.startswith("Hint: imnetprep ") and hint.endswith("--help")


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "serve", "inspect", "demo"])
def test_without_torch_what_needs_it_says_what_to_install(
    verb: str, organized_once: Path, tmp_path: Path
) -> None:
    words = {
        "evaluate": [str(tmp_path / "best.pt"), "--root", str(organized_once)],
        "predict": [str(tmp_path / "best.pt"), str(tmp_path / "image.JPEG")],
        "serve": [str(tmp_path / "best.pt")],
        "demo": ["--root", str(tmp_path / "demo")],
    }.get(verb, ["--root", str(organized_once)])
    for file in ("best.pt", "image.JPEG"):
        (tmp_path / file).touch()
    code = "import sys; sys.modules['torch'] = None; from imnetprep.cli import run\n"
    code += "sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, verb, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    error, hint = done.stderr.splitlines()
    assert error == f"Error: imnetprep {verb} needs torch, which is not installed"
    assert hint == f"Hint: {sys.executable} -m pip install 'imnetprep[train]'"
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG])
def test_an_odd_path_is_no_bug_of_ours(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "odd")

    monkeypatch.setattr("imnetprep.checking.recognise.recognise", fail)
    assert cli.run(["verify"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"Error: odd: {os.strerror(number)}"
    assert hint.startswith("Hint: ")


def test_a_bug_of_ours_keeps_its_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("imnetprep.checking.recognise.recognise", None)
    assert cli.run(["verify"]) == 70
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: a bug in imnetprep: TypeError")
    path = Path(hint.split(" is in ")[1].split(";")[0])
    assert "Traceback" in path.read_text()
    path.unlink()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, packed: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    words = ["--dataset", packed, "--archives", packed.parent]
    done = run("organize", "--root", tmp_path / "file" / "root", *words)
    assert done.returncode == 1, done.stderr
    assert "Error: " in done.stderr and "Hint: " in done.stderr


def test_one_process_at_a_time_works_in_a_root(organized: Path, packed: Path, run: Run) -> None:
    from imnetprep.fs import locked

    with locked(organized / ".organizing"):
        done = run("organize", "--root", organized, "--archives", packed.parent)
    assert done.returncode == 1
    assert "another imnetprep is at work" in done.stderr


def test_the_version_and_the_help_of_a_verb(here: Run) -> None:
    assert here("-V").stdout == here("--version").stdout == f"imnetprep, version {__version__}\n"
    assert here("help", "organize").stdout == here("organize", "--help").stdout
    assert here("help").stdout == here("--help").stdout
    for words, hint in (
        (["help", "fly"], "imnetprep --help"),
        (["help", "organise"], "imnetprep organize --help"),
        (["organise", "--root", "my tin"], "imnetprep organize --root 'my tin'"),
    ):
        done = here(*words)
        assert (done.returncode, done.stderr.splitlines()[1]) == (2, f"Hint: {hint}")


@pytest.mark.parametrize("verb", list(cli.imnetprep.commands))
def test_every_heading_of_a_help_has_options_of_that_verb(verb: str) -> None:
    command = cli.imnetprep.commands[verb]
    assert isinstance(command, Verb)
    options = {each.name for each in command.params if isinstance(each, click.Option)}
    named = [name for names in command.headings.values() for name in names]
    assert options.issuperset(named) and len(named) == len(set(named))
    if len(options) > 12:
        assert command.headings, "so many options are found by their headings"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["status", "tin"], "imnetprep status --root tin"),
        (["verify", "my tin", "--split", "val"], "imnetprep verify --split val --root 'my tin'"),
        (["status", "--root", "tin", "can"], "imnetprep status --help"),
        (["subset", "imagenette", "tin", "--to", "x"], None),
    ],
)
def test_a_root_without_its_option_is_hinted_at(
    words: list[str], hint: str | None, here: Run
) -> None:
    done = here(*words)
    assert done.returncode == 2
    hint = hint or "imnetprep subset imagenette --to x --root tin"
    assert done.stderr.splitlines()[1] == f"Hint: {hint}"


def test_the_shell_completes_verbs_and_options(run: Run) -> None:
    def completed(words: str) -> list[str]:
        at = {"COMP_WORDS": f"imnetprep {words}", "COMP_CWORD": str(len(words.split()))}
        done = run(env={**os.environ, "_IMNETPREP_COMPLETE": "bash_complete", **at})
        return [line.removeprefix("plain,") for line in done.stdout.splitlines()]

    assert completed("verify") == ["verify", "verify-archives"]
    assert completed("help org") == ["organize"]
    assert completed("organize --layout web") == ["webdataset"]
    assert completed("divide --val") == ["--val-fraction"]


# Each fails where nothing is, or the root of `organized`, whose archives lie elsewhere.
_FAILING = [
    "verify",
    "verify --layout webdataset",
    "repair",
    "verify-archives",
    "verify-archives --split val",
    "repair-archives",
    "organize",
    "organize --consume",
    "organize --layout webdataset --resize 8",
    "subset imagenette --to elsewhere",
    "train",
    "train --resume --run first",
    "evaluate",
    "evaluate --run first",
    "inspect",
]


@pytest.mark.parametrize("words", _FAILING)
@pytest.mark.parametrize("kind", ["nothing", "organized"])
def test_a_hint_carries_the_root_of_the_command_that_failed(
    words: str, kind: str, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    root = tmp_path / "the root"
    if kind == "organized":
        root.mkdir()
        for name in ("manifest.db", "receipt.json"):
            shutil.copy(organized_once / name, root)
    done = here(*words.split(), "--root", root)
    if done.returncode in (0, 5):
        return
    hint = done.stderr.splitlines()[-1]
    assert hint.startswith("Hint: ") and done.returncode < 70, done.stderr
    assert all(f"--root '{root}'" in command for command in hinted(hint)), hint


def hinted(hint: str) -> list[str]:
    """The commands in a hint, each of which the command line takes as it stands."""
    commands = []
    for verb, rest in re.findall(r"\bimnetprep ([a-z][a-z0-9-]*)([^;,\n]*)", hint):
        if rest.startswith((" makes", " has", " was")):
            continue
        command = cli.imnetprep.commands[verb]
        options = {name: each for each in command.params for name in each.opts}
        words = shlex.split(rest)
        used = int(verb == "sync-s3")  # behind the address
        while used < len(words) and words[used] in options:
            option = options[words[used]]
            used += 1 if isinstance(option, click.Option) and option.is_flag else 2
        command.make_context(verb, words[:used])
        commands.append(shlex.join(["imnetprep", verb, *words[:used]]))
    return commands


def test_a_hint_carries_what_else_decides_and_leaves_another_root_alone(
    tmp_path: Path, here: Run
) -> None:
    done = here("verify", "--root", tmp_path, "--layout", "webdataset")
    assert f"imnetprep organize --root {tmp_path} --layout webdataset" in done.stderr
    words = ["--archives", tmp_path, "--dataset", "imagenette", "--split", "train"]
    done = here("organize", "--root", tmp_path, *words)
    assert f"imnetprep download --root {tmp_path} --dataset imagenette" in done.stderr
    assert "imnetprep download," in here("verify").stderr, "the default needs no option"


def test_a_hint_carries_the_splits_and_the_bucket_once(tmp_path: Path, here: Run) -> None:
    words = ["--root", tmp_path, "--split", "val", "--split", "train"]
    done = here("verify-archives", *words, "--dataset", "imagenette")
    download = f"imnetprep download --root {tmp_path} --dataset imagenette"
    assert hinted(done.stderr) == [f"{download} --split val --split train"]
    done = here("sync-s3", "s3://b", "--root", tmp_path, "--push", "--pull")
    assert hinted(done.stderr) == [f"imnetprep sync-s3 s3://b --root {tmp_path} --push"]


def test_the_hint_at_a_wrong_archive_mends_it_where_it_lies(
    archived: Path, published: Path, here: Run
) -> None:
    spoil(archived / "archives" / TRAIN, 70_000)
    folder = (archived / "archives").rename(archived.parent / "the archives")
    words = ["--root", archived, "--split", "train"]
    done = here("organize", *words, "--archives", folder)
    mend, again = hinted(done.stderr)
    assert (
        mend == f"imnetprep repair-archives --root {archived} --split train --archives '{folder}'"
    )
    assert again == f"imnetprep download --root {archived} --split train"
    assert here(*shlex.split(mend)[1:], "--dry-run").returncode == 0
    assert here(*shlex.split(mend)[1:], "--from", published.parent).returncode == 0
    assert here("organize", *words, "--archives", folder).returncode == 0


def test_the_hints_of_consume_lead_to_it(archived: Path, here: Run) -> None:
    words = ["organize", "--root", archived, "--split", "val", "--consume"]
    elsewhere = archived.parent / "elsewhere"
    elsewhere.mkdir()
    (archived / "archives" / VAL).rename(elsewhere / VAL)
    hint = here(*words, "--archives", elsewhere).stderr.splitlines()[-1].removeprefix("Hint: ")
    assert hint.startswith(f"mv {elsewhere / VAL} {archived / 'archives'}; imnetprep ")
    subprocess.run(shlex.split(hint.partition(";")[0]), check=True)
    (prove,) = hinted(hint)
    assert here(*words).stderr.endswith(f"Hint: {prove} --split val\n")
    assert here(*shlex.split(prove)[1:]).returncode == 0
    assert here(*words, "--archives", archived / "archives").returncode == 0


def test_every_hint_names_a_verb_that_there_is() -> None:
    package, verbs = Path(cli.__file__).parent, cli.imnetprep.commands
    unfinished = {"launch", "machines"} - verbs.keys()  # until they are verbs
    for path in package.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.keyword) or call.arg != "hint":
                continue
            texts = [each.value for each in ast.walk(call.value) if isinstance(each, ast.Constant)]
            text = " ".join(map(str, texts))
            for verb, rest in re.findall(r"imnetprep ([a-z][a-z0-9-]*)((?: +-[^;,]*)?)", text):
                if verb != "that" and verb not in unfinished:  # that wrote it
                    options = {name for each in verbs[verb].params for name in each.opts}
                    assert {"--help", *options}.issuperset(re.findall("--[a-z][a-z-]+", rest)), (
                        texts
                    )
            assert not re.search(rf"(?<!imnetprep )\b({'|'.join(verbs)}) --", text), texts


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("organize --quality 90", "--quality"),
        ("organize --seed 1 --shard-size 9", "--shard-size and --seed"),
        ("organize --layout webdataset --meta-bin", "--meta-bin"),
        ("inspect --split val --crop-scale 0.5", "--crop-scale"),
        ("repair-archives --from x --wait 3s --no-dht", "--no-dht and --wait"),
        ("subset imagenette --to x --dataset imagenette", "--dataset"),
        ("subset imagenette --archives x --copy", "--copy"),
        ("subset imagenette --archives x --to y --root z", "--root"),
        ("sync-s3 s3://b --deep", "--deep"),
        ("sync-s3 s3://b --push --yes", "--yes"),
        ("sync-s3 s3://b --check --replace --delete", "--replace and --delete"),
        ("sync-s3 s3://b --pull --sse AES256", "--sse"),
        ("sync-s3 s3://b --pull --abort-stale 1d", "--abort-stale"),
        ("sync-s3 s3://b --push --sse-kms-key-id k", "--sse-kms-key-id"),
    ],
)
def test_an_option_that_cannot_be_used_is_not_dropped(words: str, options: str, here: Run) -> None:
    done = here(*words.split())
    error, hint = done.stderr.splitlines()
    assert (done.returncode, hint) == (2, f"Hint: leave out {options}")
    assert error.startswith(f"Error: {options} cannot be used: ")


def test_shards_of_class_folders_read_no_archive(organized_once: Path, here: Run) -> None:
    words = ["--root", organized_once, "--layout", "webdataset", "--archives", "x", "--dry-run"]
    done = here("organize", *words)
    assert done.returncode == 2, done.stderr
    assert "are made of class folders: no archive is read" in done.stderr


@pytest.fixture
def place(
    tmp_path: Path, packed: Path, organized_once: Path, archived: Path, published: Path
) -> Path:
    """Whatever a verb may be run on: all of it as it is before the work."""
    for name in ("mine", "damaged"):
        shutil.copytree(organized_once, tmp_path / name)
    for name in ("manifest.db", "receipt.json"):
        (tmp_path / "mine" / name).unlink()
    first, second, *_ = sorted((tmp_path / "damaged" / "train").glob("*/*"))
    first.unlink()
    spoil(second, 100)
    (second.parent / "stray.txt").write_text("mine")
    archived.rename(tmp_path / "archived")
    spoil(tmp_path / "archived" / "archives" / TRAIN, 70_000)
    shutil.copytree(published.parent, tmp_path / "published")
    shutil.copytree(packed.parent, tmp_path / "packed")
    (tmp_path / "archived" / "archives" / "x.part").write_text("left")
    for at in range(8):
        (tmp_path / "photos" / f"class{at % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / f"class{at % 2}" / f"{at}.jpg").write_bytes(openable(f"{at}"))
    (tmp_path / "list.txt").write_text(f"{first.parent.name}\n")
    return tmp_path


_DRY = [
    "download --root new --dataset published/packed.toml --split train",
    "prepare --root new --dataset published/packed.toml --split train",
    "organize --root new --dataset published/packed.toml --archives published",
    "organize --root archived --split val",
    "organize --root archived --split val --resize 16 --meta-bin",
    "organize --root archived --split val --layout webdataset",
    "organize --root damaged --layout webdataset --shard-size 9",
    "verify --root damaged --digests",
    "adopt mine --dataset packed/packed.toml",
    "repair --root damaged --digests --delete --from packed",
    "verify-archives --root archived",
    "repair-archives --root archived --split train",
    "divide photos --root new --val-fraction 0.5 --copy",
    "subset list.txt --root damaged --to new --copy",
    "subset list.txt --root damaged --to new",
    "subset list.txt --archives published --root new --dataset published/packed.toml",
    "clean --root archived --yes",
]


@pytest.mark.parametrize("words", _DRY)
def test_a_dry_run_changes_nothing_on_the_disk(
    words: str, place: Path, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    monkeypatch.chdir(place)
    before = snapshot(place)
    done = here(*words.split(), "--dry-run")
    assert snapshot(place) == before
    assert done.returncode in (0, 5) and done.stdout, done.stderr
    assert ("meta.bin" in done.stdout) == ("--meta-bin" in words)


def test_every_verb_that_changes_something_has_a_dry_run() -> None:
    tried = {words.split()[0] for words in _DRY}
    # In tests/sync, tests/training, tests/launching and test_demo.py.
    tried |= {"sync-s3", "train", "inspect", "plot", "export", "launch", "demo"}
    verbs = cli.imnetprep.commands
    assert {verb for verb in verbs if any(p.name == "dry_run" for p in verbs[verb].params)} == tried
    # `sessions` and `machines` show; what they end or remove is asked for by an option of its own.
    # `bench` keeps nothing but its rates, `seed` only the .torrent that it is asked for, and
    # `ladder` its picture.
    shows = {"sessions", "machines", "bench", "seed", "ladder"}
    assert set(verbs) - tried - shows == {
        "archs",
        "datasets",
        "doctor",
        "sources",
        "status",
        "evaluate",
        "predict",
        "recipes",
        "serve",
        "show",
        "help",
    }


@pytest.mark.parametrize("words", ["status --root damaged", "status --root archived", "help clean"])
def test_a_verb_without_a_dry_run_changes_nothing(
    words: str, place: Path, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    monkeypatch.chdir(place)
    before = snapshot(place)
    done = here(*words.split())
    assert (snapshot(place), done.returncode) == (before, 0)


_SIGNALS_ITSELF = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIG{name})
    time.sleep(5)
except BaseException as error:
    raise ImportError("half of it is loaded") from error
"""


@pytest.mark.parametrize(
    ("module", "name", "code", "told"),
    [
        ("click", "INT", -2, ""),  # before the command line is loaded
        ("click", "TERM", -15, ""),
        ("botocore", "INT", 130, "Stopped: run the same command to resume\n"),
        ("botocore", "TERM", 143, "Stopped: run the same command to resume\n"),
    ],
)
def test_a_stop_in_the_first_moments_tells_no_traceback(
    module: str, name: str, code: int, told: str, tmp_path: Path
) -> None:
    (tmp_path / f"{module}.py").write_text(_SIGNALS_ITSELF.format(name=name))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"}
    done = subprocess.run(
        command("sync-s3", "s3://bucket/key"),
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, told)
