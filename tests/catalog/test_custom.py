"""Entries of the user's own, by file, by call and by dataset_info."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import swift
from swift.catalog import custom, load_catalog
from swift.core.errors import SwiftError

REGISTER = """
import swift

house = swift.Template(
    ["<s>"], ["User: {{QUERY}}\\n", "Bot:"], ["\\n"], [["eos_token_id"]], "Be kind.", ["<s>{{SYSTEM}}\\n"]
)
swift.register_template("house", house)

@swift.register_model("house-7b", "me/house-7b", ["q_proj", "v_proj"], "house", requires=["transformers>=5"], vllm=True)
def load(model_dir, *args, **kwargs):
    return model_dir

swift.register_dataset(
    "house-data", "me/house-data", ["zh"], columns={"q": "query", "a": "response"}, hf_dataset_id="you/data"
)
"""


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    kept = dict(custom._additions)
    yield
    custom._additions.clear()
    custom._additions.update(kept)


def test_register_file(tmp_path: Path) -> None:
    path = tmp_path / "register.py"
    path.write_text(REGISTER)
    for _ in range(2):  # a second command of the same process runs the file again
        catalog = load_catalog(custom_register_path=path)
    model = catalog.models.get("house-7b")
    assert (model.ms, model.lora_targets, model.requires, model.vllm) == (
        "me/house-7b",
        ("q_proj", "v_proj"),
        ("transformers>=5",),
        True,
    )
    assert model.loader is not None
    assert model.loader("x") == "x"
    template = catalog.templates.get("house")
    assert (template.prompt, template.suffix) == ("User: {{query}}\nBot:", "{{eos}}")
    assert (template.system, template.default_system) == ("<s>{{system}}\n", "Be kind.")
    dataset = catalog.datasets.get("house-data")
    assert (dataset.subsets, dataset.columns["q"]) == (("zh",), "query")
    assert catalog.datasets.find_by_id("you/data") == dataset


def test_prefix_with_a_system_slot_serves_both_ways() -> None:
    template = swift.Template(["<s>{{SYSTEM}} "], ["{{QUERY}}"], [], ["</s>"])
    assert (template.prefix, template.system, template.separator) == ("<s> ", "<s>{{system}} ", "")


def test_names_are_taken_once() -> None:
    with pytest.raises(SwiftError, match="the model 'qwen-7b' is registered twice") as found:
        swift.register_model("qwen-7b", "me/qwen", ["q_proj"], "qwen")
    assert "the catalog of swift and " in str(found.value.where)
    assert __file__ in str(found.value.where)
    swift.register_model("qwen-7b", "me/qwen", ["q_proj"], "qwen", exist_ok=True)
    assert load_catalog().models.get("qwen-7b").ms == "me/qwen"


def test_unknown_fields_are_named() -> None:
    with pytest.raises(SwiftError, match="register_model does not know vlm"):
        swift.register_model("x", "me/x", [], "qwen", vlm=True)
    with pytest.raises(SwiftError, match="a template names the token 'unk_token_id'"):
        swift.Template([["unk_token_id"]], ["{{QUERY}}"], None, ["</s>"])


def test_missing_register_file() -> None:
    with pytest.raises(SwiftError, match="there is no file") as found:
        load_catalog(custom_register_path="nowhere.py")
    assert found.value.where == "--custom_register_path"


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("import swift\nfrom swift import LoRATM\n", "cannot import name 'LoRATM'", 2),
        ("x = 1\ndef f(:\n", "SyntaxError", 2),
        ("\n\n1 / 0\n", "ZeroDivisionError", 3),
    ],
)
def test_faults_of_the_register_file_name_its_line(text: str, said: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "register.py"
    path.write_text(text)
    with pytest.raises(SwiftError, match=said) as found:
        load_catalog(custom_register_path=path)
    assert found.value.where == f"{path}:{line}"


INFO = {
    "mine": {"dataset_path": "rows.jsonl", "columns": {"q": "query"}},
    "theirs": {"dataset_id": "a/b", "hf_dataset_id": "c/d", "subsets": ["x"], "split": ["test"], "tags": ["t"]},
    "talk": {"dataset_id": "a/talk", "conversations": {"user_role": "human", "assistant_role": "gpt"}},
}


def test_dataset_info_by_file_text_and_dict(tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps(INFO))
    for given in (path, str(path), json.dumps(INFO), INFO):
        datasets = load_catalog(custom_dataset_info=given).datasets
        assert datasets.get("theirs").subsets == ("x",)
        assert datasets.get("talk").options["user_role"] == "human"
        assert datasets.get("mine").converter == "rename"
    # A path in a file is relative to that file.
    assert load_catalog(custom_dataset_info=path).datasets.get("mine").path == str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.json", "there is no file nowhere.json"),
        ("{", "not valid JSON"),
        ('{"a": 1}', "an entry of dataset_info is not a JSON object"),
        ('{"a": {"dataset_id": "x", "colums": {}}}', "does not know the key 'colums'"),
        ('{"a": {}}', "the dataset has no source"),
    ],
)
def test_wrong_dataset_info(given: str, said: str) -> None:
    with pytest.raises(SwiftError, match=said) as found:
        load_catalog(custom_dataset_info=given)
    assert str(found.value.where).startswith("--custom_dataset_info")


def test_a_function_that_fetches_a_data_set_is_refused() -> None:
    with pytest.raises(SwiftError, match="does not call the get_function of 'mine'"):
        swift.register_dataset("mine", "bob/mine", get_function=print)
