"""Both hubs through their own clients, against a small hub on loopback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from swift import hub
from swift.core.errors import SwiftError
from swift.core.transaction import seal
from swift.hub.checkpoint_uploader import NOT_OF_THE_MODEL, Pusher

from .small_hub import TOKEN, Repo, SmallHub

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's way with httpx2
    pytest.mark.filterwarnings("ignore:Environment variable MODELSCOPE_DOMAIN:FutureWarning"),
]

WEIGHTS = {"adapter_model.safetensors", "adapter_config.json"}
HUBS = ("huggingface", "modelscope")
both = pytest.mark.parametrize("name", HUBS)
MODEL = {"config.json": b'{"model_type": "llama"}', "model.safetensors": os.urandom(2000), "original/a.bin": b"big"}


@both
def test_model_and_dataset_come_whole(name: str, small_hub: SmallHub, tmp_path: Path) -> None:
    small_hub.repos["model", "bob/m"] = Repo(dict(MODEL))
    small_hub.repos["dataset", "bob/d"] = Repo({"data/train.jsonl": b"{}\n"})

    model = hub.download("bob/m", hub=name, cache_dir=tmp_path)
    data = hub.download("bob/d", hub=name, kind="dataset", cache_dir=tmp_path)

    assert {path: (model / path).read_bytes() for path in MODEL} == MODEL
    assert (data / "data/train.jsonl").read_bytes() == b"{}\n"


@both
def test_patterns_limit_the_download(name: str, small_hub: SmallHub, tmp_path: Path) -> None:
    small_hub.repos["model", "bob/m"] = Repo(dict(MODEL))

    folder = hub.download("bob/m", hub=name, cache_dir=tmp_path, allow=["*.json"])

    assert [path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")] == [
        "config.json"
    ]


@both
def test_weights_in_other_forms_are_not_downloaded(name: str, small_hub: SmallHub, tmp_path: Path) -> None:
    others = {"consolidated.safetensors": b"1", "original/consolidated.00.pth": b"2", "model.gguf": b"3"}
    small_hub.repos["model", "bob/m"] = Repo({**MODEL, **others})
    small_hub.repos["dataset", "bob/d"] = Repo({"pictures.zip": b"4"})

    model = hub.download("bob/m", hub=name, cache_dir=tmp_path)

    assert (model / "model.safetensors").is_file() and (model / "original/a.bin").is_file()
    assert not any((model / path).exists() for path in others)
    assert (hub.download("bob/d", hub=name, kind="dataset", cache_dir=tmp_path) / "pictures.zip").is_file()


@both
def test_files_left_out_come_when_they_are_asked_for(name: str, small_hub: SmallHub, tmp_path: Path) -> None:
    small_hub.repos["dataset", "bob/d"] = Repo({"a.jsonl": b"{}\n", "1/pictures.zip": b"zip", "2/pictures.zip": b"no"})

    def files(**patterns: list[str]) -> set[str]:
        folder = hub.download("bob/d", hub=name, kind="dataset", cache_dir=tmp_path, **patterns)  # type: ignore[arg-type]
        return {
            path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.suffix in (".jsonl", ".zip")
        }

    assert files(ignore=["*.zip"]) == {"a.jsonl"}
    assert files(allow=["3/pictures.zip"]) == {"a.jsonl"}
    assert files(allow=["1/pictures.zip"]) == {"a.jsonl", "1/pictures.zip"}


@both
def test_a_cut_download_goes_on_where_it_stopped(name: str, small_hub: SmallHub, tmp_path: Path) -> None:
    weights = os.urandom(12_000_000)
    small_hub.repos["model", "bob/m"] = Repo({"config.json": b"{}", "model.safetensors": weights})
    small_hub.cut["model.safetensors"] = 11_000_000

    folder = hub.download("bob/m", hub=name, cache_dir=tmp_path)

    assert (folder / "model.safetensors").read_bytes() == weights
    starts = [int(asked.split("bytes=")[1].split("-")[0]) for asked in small_hub.ranges]
    assert max(starts) >= 10_000_000


@both
def test_the_cache_serves_when_the_hub_is_gone(
    name: str, small_hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_hub.repos["model", "bob/m"] = Repo(dict(MODEL))
    first = hub.download("bob/m", hub=name, cache_dir=tmp_path)
    for variable in ("HF_ENDPOINT", "MODELSCOPE_DOMAIN"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")

    assert hub.download("bob/m", hub=name, cache_dir=tmp_path) == first
    with pytest.raises(SwiftError, match="cannot download the model bob/other: no answer"):
        hub.download("bob/other", hub=name, cache_dir=tmp_path)


@both
def test_offline_mode_asks_nobody(
    name: str, small_hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_hub.repos["model", "bob/m"] = Repo(dict(MODEL))
    first = hub.download("bob/m", hub=name, cache_dir=tmp_path)
    small_hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert hub.download("bob/m", hub=name, cache_dir=tmp_path) == first
    with pytest.raises(SwiftError, match="offline mode is on"):
        hub.download("bob/other", hub=name, cache_dir=tmp_path)
    assert small_hub.requests == []


@both
def test_without_check_latest_the_cache_is_enough(name: str, small_hub: SmallHub, tmp_path: Path) -> None:
    small_hub.repos["model", "bob/m"] = Repo(dict(MODEL))
    first = hub.download("bob/m", hub=name, cache_dir=tmp_path, check_latest=False)
    small_hub.repos.clear()

    assert hub.download("bob/m", hub=name, cache_dir=tmp_path, check_latest=False) == first


@both
def test_refusals_say_what_to_do(name: str, small_hub: SmallHub, tmp_path: Path) -> None:
    small_hub.repos["model", "bob/m"] = Repo(dict(MODEL))
    small_hub.repos["model", "bob/hidden"] = Repo(dict(MODEL), private=True)

    with pytest.raises(SwiftError, match="there is no model bob/typo"):
        hub.download("bob/typo", hub=name, cache_dir=tmp_path)
    with pytest.raises(SwiftError, match="revision"):
        hub.download("bob/m", hub=name, cache_dir=tmp_path, revision="v9")
    with pytest.raises(SwiftError, match="the hub rejects the token"):
        hub.download("bob/hidden", hub=name, cache_dir=tmp_path, token="wrong")
    with pytest.raises(SwiftError, match="TOKEN"):
        hub.download("bob/hidden", hub=name, cache_dir=tmp_path)
    assert (hub.download("bob/hidden", hub=name, cache_dir=tmp_path, token=TOKEN) / "config.json").is_file()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(1000))
    (folder / "adapter_config.json").write_text("{}")
    (folder / "optimizer.pt").write_bytes(b"state")
    return folder


@both
def test_push_makes_a_private_repository_once(name: str, small_hub: SmallHub, checkpoint: Path) -> None:
    for _ in range(2):
        page = hub.push(checkpoint, "alice/tuned", hub=name, token=TOKEN, private=True)

    repo = small_hub.repos["model", "alice/tuned"]
    assert repo.private
    assert repo.files["adapter_config.json"] == b"{}"
    assert page.startswith(small_hub.url) and page.endswith("alice/tuned")


@both
def test_what_everybody_can_read_is_no_private_repository(name: str, small_hub: SmallHub, checkpoint: Path) -> None:
    small_hub.repos["model", "alice/tuned"] = Repo()
    with pytest.raises(SwiftError, match="everybody can read it"):
        hub.push(checkpoint, "alice/tuned", hub=name, token=TOKEN, private=True)
    assert small_hub.blobs == {} and small_hub.repos["model", "alice/tuned"].files == {}


@both
def test_a_push_that_broke_off_goes_on_where_it_stopped(name: str, small_hub: SmallHub, tmp_path: Path) -> None:
    shards = {f"model-{number}.safetensors": os.urandom(3000) for number in range(3)}
    folder = tmp_path / "large"
    folder.mkdir()
    for file, data in shards.items():
        (folder / file).write_bytes(data)
    small_hub.room = 2
    with pytest.raises(SwiftError):
        hub.push(folder, "alice/large", hub=name, token=TOKEN)
    small_hub.room = 1  # what is there is not sent again
    hub.push(folder, "alice/large", hub=name, token=TOKEN)
    assert small_hub.repos["model", "alice/large"].files == shards


@both
def test_only_the_model_goes(name: str, small_hub: SmallHub, checkpoint: Path) -> None:
    """No states, rows or logs, wherever they lie; the manifest names what went, the card no path of this machine."""
    for left in (
        "global_step4/zero.pt",
        "infer_result/a.jsonl",
        "sub/optimizer.pt",
        "logging.jsonl",
        "trainer_state.json",
    ):
        (checkpoint / left).parent.mkdir(exist_ok=True)
        (checkpoint / left).write_bytes(b"{}")
    (checkpoint / "README.md").write_text("---\nbase_model: /home/alice/llama\n---\nA card.\n")
    (checkpoint / "adapter_config.json").write_text('{"base_model_name_or_path": "meta/llama"}')
    report = {"perplexity": 2.0, "answers": [{"prompt": "a row of mine"}]}
    (checkpoint / "quantization_report.json").write_text(json.dumps(report))
    seal(checkpoint)

    hub.push(checkpoint, "alice/tuned", hub=name, token=TOKEN, ignore=NOT_OF_THE_MODEL)

    files = small_hub.repos["model", "alice/tuned"].files
    assert set(files) == {*WEIGHTS, "README.md", "quantization_report.json", "manifest.json"}
    assert json.loads(files["quantization_report.json"]) == {"perplexity": 2.0}
    assert set(json.loads(files["manifest.json"])["files"]) == WEIGHTS
    assert b"base_model: meta/llama\n" in files["README.md"] and b"/home" not in files["README.md"]


@both
def test_push_with_a_bare_name_goes_to_the_owner_of_the_token(name: str, small_hub: SmallHub, checkpoint: Path) -> None:
    hub.push(checkpoint, "tuned", hub=name, token=TOKEN)

    assert ("model", "alice/tuned") in small_hub.repos


@both
def test_push_with_a_wrong_token_is_refused(name: str, small_hub: SmallHub, checkpoint: Path) -> None:
    with pytest.raises(SwiftError, match="the hub rejects the token"):
        hub.push(checkpoint, "alice/tuned", hub=name, token="wrong")


STRATEGIES = {
    "end": (0, WEIGHTS),
    "every_save": (1, WEIGHTS),
    "checkpoint": (2, WEIGHTS | {f"last-checkpoint/{file}" for file in WEIGHTS | {"optimizer.pt"}}),
    "all_checkpoints": (2, WEIGHTS | {f"checkpoint-2/{file}" for file in WEIGHTS | {"optimizer.pt"}}),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_decide_what_is_pushed_when(strategy: str, small_hub: SmallHub, checkpoint: Path) -> None:
    commits_on_the_way, files = STRATEGIES[strategy]
    pusher = Pusher("alice/t", hub="huggingface", token=TOKEN, private=False, strategy=strategy)  # type: ignore[arg-type]

    pusher.saved(checkpoint)
    pusher.finish(checkpoint)

    repo = small_hub.repos["model", "alice/t"]
    assert {path for path in repo.files if not path.endswith("README.md")} == files
    assert len(repo.commits) <= commits_on_the_way + 1


def test_a_push_that_fails_on_the_way_does_not_stop_the_training(small_hub: SmallHub, checkpoint: Path) -> None:
    pusher = Pusher("alice/t", hub="huggingface", token="wrong", private=False, strategy="every_save")

    pusher.saved(checkpoint)

    with pytest.raises(SwiftError, match="the hub rejects the token"):
        pusher.finish(checkpoint)
