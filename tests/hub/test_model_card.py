"""What the README.md of a result says: of what it was made, how, and under which licence. No weights are looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from swift.hub import model_card
from swift.hub.model_card import Origin, card_of_training, complete_card, front_matter, is_shown, origin_of

ARGUMENTS = {
    "model_id_or_path": "meta/llama",
    "model_type": "llama",
    "train_type": "rlhf",
    "rlhf_type": "dpo",
    "sft_type": "lora",
    "dataset": ["a|b.jsonl", "alpaca-zh#500"],
    "lora_rank": 8,
    "max_steps": -1,
    "hub_token": "never shown",
    "command_line": "swift rlhf --rlhf_type dpo",
}
LOG = [{"loss": 2.0, "step": 1}, {"eval_loss": 1.5, "eval_runtime": 9.0, "step": 2}, {"loss": 1.0, "step": 3}]


def checkpoint(folder: Path, *, adapter: bool = True, **arguments: Any) -> Path:
    """A folder as a training leaves it, without its card."""
    folder.mkdir()
    (folder / "sft_args.json").write_text(json.dumps(ARGUMENTS | arguments))
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": LOG}))
    if adapter:
        (folder / "adapter_config.json").write_text("{}")
    return folder


def base(folder: Path, front: str) -> Path:
    """The folder of a model with a page of its own."""
    folder.mkdir()
    (folder / "README.md").write_text(f"---\n{front}\n---\n## Training\nBy its makers.\n")
    (folder / "LICENSE").write_text("terms")
    return folder


def test_a_checkpoint_says_how_it_was_trained(tmp_path: Path) -> None:
    source, folder = base(tmp_path / "base", "license: apache-2.0"), checkpoint(tmp_path / "checkpoint-3")
    card_of_training(folder, origin_of(source, "meta/llama", "huggingface"), "llama")
    card, front = (folder / "README.md").read_text(), front_matter(folder)
    assert front == {
        "base_model": "meta/llama",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["swift", "lora"],
    }
    for line in (
        "| method | rlhf dpo lora |",
        "| dataset | a\\|b.jsonl, alpaca-zh#500 |",
        "| eval_loss | 1.5 | 2 |",
        "| loss | 1 | 3 |",
        "swift rlhf --rlhf_type dpo",
        "whose licence is apache-2.0",
    ):
        assert line in card
    assert not any(word in card for word in ("eval_runtime", "max_steps", "never shown", "By its makers"))
    assert (folder / "LICENSE").read_text() == "terms"


def test_what_is_made_of_it_carries_that_on(tmp_path: Path) -> None:
    """A merged folder has no log; a second training names the first."""
    source, first = base(tmp_path / "base", "license: mit"), checkpoint(tmp_path / "checkpoint-3", adapter=False)
    card_of_training(first, origin_of(source, "meta/llama", "huggingface"), "llama")
    (first / "trainer_state.json").unlink()
    origin = origin_of(first, str(first), "local")
    assert (origin.base, origin.licence) == ("meta/llama", {"license": "mit"})
    assert origin.training and "| eval_loss | 1.5 | 2 |" in origin.training

    second = checkpoint(tmp_path / "checkpoint-9", train_type="sft", rlhf_type=None)
    card_of_training(second, origin, "llama")
    card = (second / "README.md").read_text()
    assert (
        card.index("| method | sft lora |") < card.index("### Before that") < card.index("| method | rlhf dpo lora |")
    )
    assert front_matter(second)["base_model"] == "meta/llama"


def test_a_base_that_only_this_machine_has_is_not_named(tmp_path: Path) -> None:
    source = base(tmp_path / "base", "license: other\nlicense_name: my-terms\nlicense_link: LICENSE")
    folder = checkpoint(tmp_path / "checkpoint-3", model_id_or_path=str(source))
    complete_card(folder)  # as the 2.5 release left it
    card = (folder / "README.md").read_text()
    assert "base_model" not in card.partition("## Training")[0] and str(tmp_path) not in card
    assert (
        front_matter(folder)["license_name"] == "my-terms"
        and "a model that is on no hub, whose licence is my-terms" in card
    )


@pytest.mark.parametrize(
    ("front", "shown"),
    [
        ("---\nbase_model: /home/me/llama\n---\n", False),
        ("---\nbase_model: ./llama\n---\n", False),
        ("---\nbase_model: [meta/llama, /x/y]\n---\n", False),
        ("---\nbase_model: meta/llama\n---\n", True),
        ("---\r\nbase_model: meta/llama\r\n---\r\nText", True),
        ("No front matter", True),
        ("---\n: : :\n---\n", True),
        (None, False),
    ],
)
def test_cards_that_hubs_refuse(tmp_path: Path, front: str | None, shown: bool) -> None:
    if front is not None:
        (tmp_path / "README.md").write_text(front)
    assert is_shown(tmp_path) is shown


def test_front_matter_is_yaml_whatever_it_holds(tmp_path: Path) -> None:
    origin = Origin(base="a/b", licence={"license": "other: #1"}, training=None, folder=tmp_path)
    card = {"title": "x", "relation": "quantized", "library": "gguf", "sections": {}}
    model_card.write_card(tmp_path, origin, **card)
    assert yaml.safe_load((tmp_path / "README.md").read_text().split("---")[1])["license"] == "other: #1"
