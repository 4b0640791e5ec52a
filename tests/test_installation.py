"""What a wheel carries, what works where torch is not installed, and what `swift doctor` says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from tests.test_docs import commands_of

from swift.cli import main
from swift.commands import doctor
from swift.core.installation import Extra, extras, requirements

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SITE = Path(sysconfig.get_path("purelib"))
NOT_A_PART = {"all", "quant", "dev", "docs"}
"""Extras made of others, and those of people who work on swift."""


def test_the_wheel_has_every_file_that_is_no_code() -> None:
    package = ROOT / "src" / "swift"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["swift"]
    carried = {path for pattern in patterns for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if path.suffix != ".py"} == carried


def test_the_wheel_has_every_example() -> None:
    shared = PROJECT["tool"]["setuptools"]["data-files"]
    carried = {path for patterns in shared.values() for pattern in patterns for path in ROOT.glob(pattern)}
    files = {path for path in (ROOT / "examples").rglob("*") if path.is_file() and path.parent.name != "output"}
    assert {path for path in files if "__pycache__" not in path.parts} == carried
    assert set(shared) == {
        f"share/swift-llm/{folder.relative_to(ROOT)}" for folder in {path.parent for path in carried}
    }


def test_every_extra_is_explained() -> None:
    declared = set(PROJECT["project"]["optional-dependencies"]) - NOT_A_PART
    assert set(extras()) == declared
    asked = {
        line.partition('extra="')[2].partition('"')[0]
        for path in (ROOT / "src" / "swift").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "need(" in line and 'extra="' in line
    }
    assert asked and asked <= {*declared, "quant"}


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with everything that is installed here but torch."""
    folder = tmp_path_factory.mktemp("site")
    for path in SITE.iterdir():
        if path.suffix != ".pth" and path.name.partition("-")[0].partition(".")[0] not in (
            "torch",
            "functorch",
            "torchgen",
        ):
            (folder / path.name).symlink_to(path)
    return folder


CODE = """
import importlib.util, json, sys
assert importlib.util.find_spec("torch") is None
from swift import cli
for words in json.loads(sys.argv[1]):
    print(f"== {cli.main(words)} {words[0]} {words[-1]}", file=sys.stderr, flush=True)
"""


def test_what_works_where_torch_is_not_installed(without_torch: Path, tiny_llama_dir: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "Say it", "response": "It is said"}\n' * 4)
    sft = [
        "sft",
        "--model_id_or_path",
        str(tiny_llama_dir),
        "--dataset",
        str(rows),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    lines = [["--help"], ["sft", "--help-all"], [*sft, "--print_config"], [*sft, "--dry_run"], ["doctor"], sft]
    # -S: no folder of packages but the one that is named.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(without_torch)])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", CODE, json.dumps(lines)], env=env, capture_output=True, text=True, check=False
    )
    codes = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("== ")]
    assert codes == ["0", "0", "0", "0", "1", "2"], done.stderr
    assert "MISSING  torch" in done.stdout and "torch is not installed: pip install 'torch" in done.stdout
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "the package `torch` cannot be imported" in error and "Traceback" not in done.stderr
    assert "-m pip install 'torch>=" in done.stderr


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["python"] == ".".join(map(str, sys.version_info[:3])) and facts["problems"] == []
    assert {one["name"] for one in facts["packages"]} >= {"torch", "transformers", "peft"}
    assert {one["name"] for one in facts["extras"]} == set(extras())

    absent = Extra(name="serve", what="a server", commands=("deploy",), modules=("no_such_module",))
    monkeypatch.setattr(doctor, "extras", lambda: {"serve": absent})
    outside = [one for one in requirements() if one.name == "torch"]
    assert outside[0].fit == "ok" and outside[0].range.startswith(">=")
    declared = ["torch<1.0", "not-there>=2", "x; extra == 'y'", "numpy<1.0; extra == 'serve'"]
    monkeypatch.setattr("swift.core.installation.requires", lambda _: declared)
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "deploy: pip install 'swift-llm[serve]'" in told
    assert "is outside the tested range: pip install 'torch<1.0'" in told
    assert "is outside the tested range <1.0: pip install 'swift-llm[serve]'" in told
    assert "not-there is not installed: pip install 'not-there>=2'" in told
    assert requires("swift-llm")
    assert main(["doctor", "--jsn"]) == 2


def test_doctor_names_what_is_here_and_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fine_part.py").touch()
    (tmp_path / "broken_part.py").write_text("raise OSError('libx.so: no')")
    (tmp_path / "fatal_part.py").write_text("import os; os._exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    part = Extra(
        name="serve", what="a server", commands=("deploy",), modules=("broken_part", "fatal_part", "fine_part")
    )
    monkeypatch.setattr(doctor, "extras", lambda: {"serve": part})
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    again = "pip install --force-reinstall --no-deps"
    assert f"broken_part cannot be imported (OSError: libx.so: no): {again} 'broken_part'" in told
    assert f"fatal_part cannot be imported (it ended Python (exit code 3)): {again} 'fatal_part'" in told
    assert "fine_part" not in told and "  !   serve" in told
    assert main(["doctor", "--quick"]) == 0
    assert "cannot be imported" not in capsys.readouterr().out


def test_examples_are_copied_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples", str(tmp_path / "examples")]) == 0
    assert (tmp_path / "examples" / "data" / "cities.jsonl").is_file()
    (tmp_path / "examples" / "sft-lora.yaml").write_text("mine")
    assert main(["examples", str(tmp_path / "examples")]) == 0
    assert "0 files copied" in capsys.readouterr().out.splitlines()[-1]
    assert (tmp_path / "examples" / "sft-lora.yaml").read_text() == "mine"
    (tmp_path / "file").touch()
    assert main(["examples", str(tmp_path / "file")]) == 2


BUILD = "import setuptools.build_meta as b, sys; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"


def python(*words: str, where: Path) -> None:
    """Run Python in a folder, without a word unless it fails."""
    done = subprocess.run([sys.executable, *words], cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What `pip install` leaves of a wheel that was built from the sdist of the tracked files."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    python("-c", BUILD, str(tmp_path), where=tmp_path / "tree")
    shutil.unpack_archive(next(tmp_path.glob("*.tar.gz")), tmp_path / "unpacked")
    (tmp_path / "built").mkdir()
    python("-c", BUILD, str(tmp_path / "built"), where=next((tmp_path / "unpacked").iterdir()))
    wheel, site = next((tmp_path / "built").glob("*.whl")), tmp_path / "site"
    flags = ["--quiet", "--no-deps", "--no-index", "--target", str(site)]
    python("-m", "pip", "install", *flags, str(wheel), where=tmp_path)
    return site


@pytest.mark.slow
def test_the_readme_from_a_wheel_of_the_sdist(installed: Path, tmp_path: Path, smollm2_dir: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    env = {**os.environ, "PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(line: str) -> str:
        """What a command prints that is started by a user of the wheel."""
        command = f"{sys.executable} -m {line}"
        done = subprocess.run(command, shell=True, cwd=work, env=env, capture_output=True, text=True, input="Hi\n")
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    assert f"in {installed}" in run("swift doctor")
    for line in commands_of(ROOT / "README.md"):
        if line.split()[1] not in ("deploy", "app-ui", "web-ui") and "…" not in line:
            run(line)


def test_the_weekly_job_names_what_there_is() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8"))
    extra = PROJECT["project"]["optional-dependencies"]
    declared = " ".join([*PROJECT["project"]["dependencies"], *extra["ui"], *extra["serve"]])
    for package in job["jobs"]["newest-of-all"]["strategy"]["matrix"]["package"]:
        assert f"{package}>=" in declared
    steps = [step.get("run", "") for body in job["jobs"].values() for step in body["steps"]]
    assert any("--upgrade-strategy eager --editable '.[dev]'" in step for step in steps)
