"""Media of registered data sets, from the small hub: fetched once, safely, and only where they are used."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from hub.small_hub import Repo, SmallHub
from swift.core.errors import SwiftError
from swift.data.prompt_rows import Question, prompt_rows
from swift.data.unpack_archive import unpack
from swift.prompts.encode import Encoder

from .rows import entries, plan, run, write_rows

SHAREGPT = "AI-ModelScope/ShareGPT-4o"
BELOW = "mnt/petrelfs/wangwenhai/workspace_cef/4o/image"
"""Where the pictures are in the archive of this data set."""
TURNS = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]


def zipped(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def tarred(mode: str = "w", **files: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def records(*pictures: str, key: str = "image") -> bytes:
    return "".join(json.dumps({key: path, "conversations": TURNS}) + "\n" for path in pictures).encode()


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., list[Question]]:
    """The rows of a data set as an engine would get them, with their media."""

    def ask(dataset: str, media: str = "media") -> list[Question]:
        planned = plan("--val_dataset", dataset, command="infer")
        return prompt_rows(replace(planned, media=tmp_path / media))

    return ask


def shown(question: Question) -> bytes:
    """The content of the one file that a row shows."""
    assert question.conversation is not None, question.fault
    media = question.conversation.media
    (path,) = [*media.images, *media.videos]
    return Path(path).read_bytes()


@pytest.fixture
def pictured(hub: SmallHub) -> Repo:
    """A data set whose pictures lie in an archive of the same repository; one row has lost its picture."""
    pictures = {f"{BELOW}/": b"", f"{BELOW}/1.jpg": b"one", f"{BELOW}/2.jpg": b"two"}
    rows = records("1.jpg", "3.jpg", "2.jpg")
    repo = Repo({"image_caption/images.jsonl": rows, "images.zip": zipped(**pictures)})
    hub.repos["dataset", SHAREGPT] = repo
    return repo


def test_rows_get_the_files_of_their_archive(hub: SmallHub, pictured: Repo, asked: Callable[..., Any]) -> None:
    first, lost, last = asked("MS::" + SHAREGPT)

    assert (shown(first), shown(last)) == (b"one", b"two")
    assert "missing file: image" in lost.fault and "3.jpg" in lost.fault and "images.zip" in lost.fault


def test_an_archive_is_unpacked_once(hub: SmallHub, pictured: Repo, asked: Callable[..., Any], tmp_path: Path) -> None:
    asked(SHAREGPT)
    (folder,) = [path for path in (tmp_path / "media").rglob("images.zip-*") if path.is_dir()]
    before = folder.stat().st_mtime_ns
    (folder / BELOW / "1.jpg").write_bytes(b"still here")

    assert shown(asked(SHAREGPT)[0]) == b"still here"
    assert folder.stat().st_mtime_ns == before


def test_a_text_model_fetches_no_archive(hub: SmallHub, pictured: Repo, encoder: Encoder, tmp_path: Path) -> None:
    built = run(encoder, tmp_path / "ledger", "--dataset", SHAREGPT, "--dataset_test_ratio", "0", "--no_cache")

    assert len(built.train) == 3
    assert not list(tmp_path.rglob("*.zip"))
    assert all("left out" in entry["note"] for entry in entries(tmp_path / "ledger"))


def test_a_cut_download_is_resumed(hub: SmallHub, pictured: Repo, asked: Callable[..., Any]) -> None:
    hub.cut["images.zip"] = 40

    assert shown(asked(SHAREGPT)[0]) == b"one"


def test_only_the_archives_that_rows_name_are_fetched(hub: SmallHub, asked: Callable[..., Any], tmp_path: Path) -> None:
    rows = records("vg/VG_100K/1.jpg", "ocr_vqa/images/2.jpg")
    hub.repos["dataset", "AI-ModelScope/ShareGPT4V"] = Repo({"ShareGPT4V.jsonl": rows})
    hub.repos["dataset", "hjh0119/sharegpt4v-images"] = Repo(
        {"VG_100K.zip": zipped(**{"VG_100K/1.jpg": b"one"}), "coco.zip": b"not asked for",
         "ocr_vqa.tar": tarred(**{"ocr_vqa/images/2.jpg": b"two"})}
    )  # fmt: skip

    assert [shown(question) for question in asked("sharegpt4v:ShareGPT4V")] == [b"one", b"two"]
    assert not list(tmp_path.rglob("coco.zip"))


def test_a_series_of_archives_is_opened_as_far_as_needed(
    hub: SmallHub, asked: Callable[..., Any], tmp_path: Path
) -> None:
    subset = "0_30_s_academic_v0_1"
    parts = {
        f"{subset}/{subset}_videos_{number}.tar.gz": tarred("w:gz", **{f"source/{number}.mp4": b"%d" % number})
        for number in (1, 2, 3)
    }
    rows = {f"{subset}/{subset}_caption.json": records("source/2.mp4", key="video")}
    hub.repos["dataset", "lmms-lab/LLaVA-Video-178K"] = Repo({**rows, **parts})

    assert [shown(question) for question in asked(f"llava-video-178k:{subset}")] == [b"2"]
    assert sorted(path.name for path in (tmp_path / "hub").rglob("*.tar.gz")) == [
        f"{subset}_videos_1.tar.gz", f"{subset}_videos_2.tar.gz",
    ]  # fmt: skip

    hub.repos["dataset", "lmms-lab/LLaVA-Video-178K"].files.update(
        {name: records("source/9.mp4", key="video") for name in rows}
    )
    (lost,) = asked(f"llava-video-178k:{subset}", "other")
    assert "missing file: video" in lost.fault


def test_an_archive_that_is_gone_is_an_error(hub: SmallHub, pictured: Repo, asked: Callable[..., Any]) -> None:
    del pictured.files["images.zip"]

    with pytest.raises(SwiftError, match=r"there is no archive images\.zip"):
        asked(SHAREGPT)


@pytest.mark.parametrize("damage", ["cut", "no archive"])
def test_a_broken_archive_is_named_and_leaves_nothing(
    damage: str, hub: SmallHub, pictured: Repo, asked: Callable[..., Any], tmp_path: Path
) -> None:
    whole = pictured.files["images.zip"]
    pictured.files["images.zip"] = whole[: len(whole) // 2] if damage == "cut" else b"<html>"

    with pytest.raises(SwiftError, match=r"images\.zip cannot be unpacked|cannot be unpacked"):
        asked(SHAREGPT)
    assert not [path for path in (tmp_path / "media").rglob("images.zip-*") if path.suffix == ""]


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "C:/out.jpg", "..\\out.jpg"])
def test_no_archive_writes_outside_its_folder(make: Callable[..., bytes], name: str, tmp_path: Path) -> None:
    archive = tmp_path / "in" / "a.zip"
    archive.parent.mkdir()
    archive.write_bytes(make(**{"good.jpg": b"1", name: b"2"}))

    with pytest.raises(SwiftError, match="outside its folder"):
        unpack(archive, tmp_path / "deep" / "a" / "out")
    assert not list(tmp_path.rglob("out.jpg")) and not (tmp_path / "deep" / "a" / "out").exists()


def test_an_absolute_name_stays_inside_and_links_stay_out(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as written:
        member = tarfile.TarInfo("/mnt/1.jpg")
        member.size = 3
        written.addfile(member, io.BytesIO(b"one"))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        written.addfile(link)

    folder = unpack(archive, tmp_path / "out")

    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")] == ["mnt/1.jpg"]


def test_unpacking_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(**{"1.jpg": b"one", "2.jpg": b"two", "3.jpg": b"three"}))
    unfinished = tmp_path / "out.partial"
    unfinished.mkdir()
    (unfinished / "1.jpg").write_bytes(b"ONE")  # whole: it has its size
    (unfinished / "2.jpg").write_bytes(b"t")

    folder = unpack(archive, tmp_path / "out")

    assert [(folder / f"{number}.jpg").read_bytes() for number in (1, 2, 3)] == [b"ONE", b"two", b"three"]
    assert not unfinished.exists()


def test_two_that_unpack_at_once_do_it_once(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(**{f"{number}.jpg": b"%d" % number for number in range(200)}))

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: unpack(archive, tmp_path / "out"), range(4)))

    assert folders == {tmp_path / "out"}
    assert len(list((tmp_path / "out").iterdir())) == 200
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == {"a.zip", "out"}


PICTURE = b"\x89PNG\r\n\x1a\n\xff\x00"


def parquet(path: Path) -> Path:
    cell = {"bytes": PICTURE, "path": "1.png"}
    pyarrow.parquet.write_table(
        pyarrow.table({"query": ["<image>q", "p"], "response": ["a", "b"], "images": [[cell], [cell]]}), path
    )
    return path


def test_pictures_in_a_parquet_file_are_kept_once(tmp_path: Path, asked: Callable[..., Any]) -> None:
    first, second = asked(str(parquet(tmp_path / "rows.parquet")))

    assert shown(first) == shown(second) == PICTURE
    assert [path.suffix for path in (tmp_path / "media").rglob("*") if path.is_file()] == [".png"]


def test_pictures_that_are_a_column_of_bytes_are_found_and_texts_stay(
    tmp_path: Path, asked: Callable[..., Any]
) -> None:
    table = {"query": [b"BMW?", b"q"], "response": ["a", "b"], "images": [[PICTURE], [b"BM" + bytes(60)]]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "rows.parquet")
    first, second = asked(str(tmp_path / "rows.parquet"))

    assert (shown(first), shown(second)) == (PICTURE, b"BM" + bytes(60))
    assert "BMW?" in str(first)


@pytest.mark.parametrize("road", [(), ("--lazy_tokenize", "true"), ("--streaming", "true", "--max_steps", "9")])
def test_a_text_model_leaves_pictures_in_a_parquet_file(
    road: tuple[str, ...], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = parquet(tmp_path / "rows.parquet")
    flags = ("--dataset", str(file), "--dataset_test_ratio", "0", "--no_cache", *road)
    built = run(encoder, tmp_path / "ledger", *flags)

    assert len(list(built.train if road[:1] == ("--streaming",) else map(built.train.__getitem__, range(2)))) == 2
    assert not (tmp_path / "cache").exists()


def test_local_rows_without_their_picture_are_named_as_before(tmp_path: Path, asked: Callable[..., Any]) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"query": "q", "response": "a", "images": ["no.jpg"]}])

    assert "missing file: images[0]" in asked(str(file))[0].fault
