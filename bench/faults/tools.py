"""The tools of the fault table: how each wants its rows, and its command line for a step of a cell.

Flags are those that a user would type for the step and, the same for all, a tiny run on a CPU: three steps, a log line
for each, 32-bit weights. What a fault does not need is left at the tool's default.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from prepare import Row, newest_checkpoint, rows, write_rows

ENVIRONMENTS = Path.home() / ".cache" / "swift" / "bench"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Command:
    """A command line, and what is typed into it."""

    words: list[str]
    typed: Path | None = None

    def shown(self) -> str:
        """As a user types it, in the cell's folder."""
        text = " ".join(f"'{word}'" if set(word) & set(" <|>*") else word for word in self.words)
        return text if self.typed is None else f"{text} < {self.typed}"


class Tool(ABC):
    """A column of the table."""

    name: str
    title: str
    package: str
    binaries: Path
    """The folder of its interpreter and programs."""
    variables: ClassVar[dict[str, str]] = {}
    """Environment variables that it needs here."""
    names: ClassVar[dict[str, str]]
    """Settings of a step, and what the tool calls them."""

    @abstractmethod
    def render(self, row: Row) -> dict[str, Any]:
        """A row as the tool's documentation writes it."""

    def write(self, step: dict[str, Any], cell: Path) -> None:
        """Write the rows of a step into the cell's folder."""
        for name, file in self.files(step).items():
            write_rows(name, cell / file, self.render)

    def files(self, step: dict[str, Any]) -> dict[str, Path]:
        """Names of rows, and where the tool reads them."""
        names = [step[key] for key in ("rows", "eval") if key in step]
        return {name: Path(FOLDERS.get(name, "rows"), "rows.jsonl") for name in names}

    @abstractmethod
    def train(self, step: dict[str, Any], cell: Path) -> Command:
        """Training, with the settings of the step."""

    @abstractmethod
    def merge(self, step: dict[str, Any], cell: Path) -> Command:
        """Fold the adapter of an earlier step into a model."""

    @abstractmethod
    def infer(self, step: dict[str, Any], cell: Path) -> Command:
        """Ask the model of an earlier step the questions of the rows."""

    def value(self, said: Any) -> Any:
        """A value of the step for this tool."""
        return said.get(self.name) if isinstance(said, dict) else said

    def flags(self, step: dict[str, Any], names: dict[str, str], **fixed: object) -> list[str]:
        """Flags of the step under the tool's own names; None and settings without a name are left out."""
        said = {names[key]: self.value(value) for key, value in step.items() if key in names}
        words: list[str] = []
        for name, value in {**{key: value for key, value in fixed.items() if value is not None}, **said}.items():
            if value is not None:
                words += [f"--{name}", *map(_word, value if isinstance(value, list) else [value])]
        return [*words, *step.get("extra", [])]


FOLDERS = {"other": "boxes", "questions": "questions", "asked": "questions"}
"""Where rows lie; `rows` for all others, so that no path names a fault."""


def folder(step: dict[str, Any]) -> str:
    """The folder of the step's rows, as it is typed."""
    return step.get("rows_as", FOLDERS.get(step["rows"], "rows"))


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def learn(step: dict[str, Any]) -> dict[str, Any]:
    """Settings under which the tiny model learns its few rows by heart, where the step asks for it."""
    if not step.get("learn"):
        return {"steps": 3, **step}
    count = len(rows(step["rows"]))
    return {"steps": 200, "tuner": "full", "rate": "5e-3", "batch": count, "accumulate": 1, "hold": 0, **step}


def checkpoint(cell: Path, out: str) -> str:
    """The newest checkpoint of an earlier step, relative to the cell's folder."""
    return str(newest_checkpoint(cell / out).relative_to(cell))


def _present(row: Row, **names: str) -> dict[str, Any]:
    return {name: row[key] for key, name in names.items() if key in row}


class Swift(Tool):
    """Ours."""

    name, title, package = "swift", "swift", "swift-llm"
    binaries = Path(sys.executable).parent
    model: tuple[str, ...] = ()
    """What says which model it is, beside its folder."""

    names: ClassVar = {
        **{"steps": "max_steps", "length": "max_length", "rate": "learning_rate", "batch": "batch_size"},
        **{"accumulate": "gradient_accumulation_steps", "warmup": "warmup_steps", "packing": "packing"},
        **{"template": "template_type", "targets": "target_modules", "rank": "lora_rank", "tuner": "sft_type"},
        "hold": "dataset_test_ratio",
    }

    def render(self, row: Row) -> dict[str, Any]:
        keys = {"question": "query", "answer": "response", "rejected": "rejected_response"}
        return _present(row, **keys, system="system", history="history", label="label")

    def train(self, step: dict[str, Any], cell: Path) -> Command:
        step = learn(step)
        method = step["train"]
        words = ["swift", *(["sft"] if method == "sft" else ["rlhf", "--rlhf_type", method])]
        fixed = {
            "dataset": f"{folder(step)}/rows.jsonl",
            "val_dataset": f"{FOLDERS.get(step['eval'], 'rows')}/rows.jsonl" if "eval" in step else None,
            "output_dir": step.get("out", "out"),
            "add_output_dir_suffix": None if step.get("suffix") else "false",
            "logging_steps": 1,
            "resume_from_checkpoint": checkpoint(cell, step["resume"]) if "resume" in step else None,
        }
        return Command([*words, *self._model(step), *self.flags(step, self.names, **fixed), *self._grpo(step)])

    def _model(self, step: dict[str, Any]) -> list[str]:
        kind = [word for word in self.model if not (word in TEMPLATE and "template" in step)]
        return ["--model_id_or_path", "model", *kind]

    def _grpo(self, step: dict[str, Any]) -> list[str]:
        if step["train"] != "grpo":
            return []
        answers = ["--num_generations", "4", "--batch_size", "4", "--max_new_tokens", "16"]
        return ["--external_plugins", "rewards.py", "--reward_funcs", step["reward"], *answers]

    def merge(self, step: dict[str, Any], cell: Path) -> Command:
        bits = ["--quantization_bit", str(step["bits"])] if "bits" in step else []
        base = ["--model_id_or_path", step["onto"]] if "onto" in step else []
        return Command(["swift", "merge-lora", "--ckpt_dir", checkpoint(cell, step["merge"]), *base, *bits])

    def infer(self, step: dict[str, Any], cell: Path) -> Command:
        fixed = {"val_dataset": f"{folder(step)}/rows.jsonl", "max_new_tokens": 8}
        words = ["swift", "infer", "--ckpt_dir", checkpoint(cell, step["infer"])]
        return Command([*words, *self.flags(step, {"template": "template_type"}, **fixed)])


TEMPLATE = ("--template_type", "chatml")


class MsSwift25(Swift):
    """The release whose contract ours is."""

    name, title, package = "ms-swift", "ms-swift 2.5.2", "ms-swift"
    binaries = ENVIRONMENTS / "ms-swift-2.5" / "bin"
    model = ("--model_type", "llama3-8b-instruct", *TEMPLATE, "--dtype", "fp32")
    # torch reads pickled states otherwise than in the time of 2.5.2, which would end every resume.
    variables: ClassVar = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}


class Trl(Tool):
    """TRL's own command line; PEFT where it has no command."""

    name, title, package = "trl", "TRL", "trl"
    binaries = Path(sys.executable).parent

    names: ClassVar = {
        **{
            "steps": "max_steps",
            "length": "max_length",
            "rate": "learning_rate",
            "batch": "per_device_train_batch_size",
        },
        **{"accumulate": "gradient_accumulation_steps", "warmup": "warmup_steps", "packing": "packing"},
        **{"template": "chat_template_path", "targets": "lora_target_modules", "rank": "lora_r"},
    }

    def render(self, row: Row) -> dict[str, Any]:
        turn: Callable[[str, str], dict[str, str]] = lambda role, text: {"role": role, "content": text}  # noqa: E731
        prompt = [turn("system", row["system"])] if "system" in row else []
        for question, answer in row.get("history", ()):
            prompt += [turn("user", question), turn("assistant", answer)]
        prompt.append(turn("user", row["question"]))
        made: dict[str, Any] = {"prompt": prompt}
        if "rejected" in row:
            return {
                **made,
                "chosen": [turn("assistant", row["answer"])],
                "rejected": [turn("assistant", row["rejected"])],
            }
        if "history" in row:
            return {"messages": [*prompt, turn("assistant", row["answer"])]}
        if "answer" in row:
            made["completion"] = [turn("assistant", row["answer"])]
        return {**made, **_present(row, label="label")}

    def files(self, step: dict[str, Any]) -> dict[str, Path]:
        return {step["rows"]: Path(FOLDERS.get(step["rows"], "rows"), "train.jsonl")} if "rows" in step else {}

    def write(self, step: dict[str, Any], cell: Path) -> None:
        super().write(step, cell)
        if "eval" in step:
            write_rows(step["eval"], cell / FOLDERS.get(step["rows"], "rows") / "test.jsonl", self.render)

    def train(self, step: dict[str, Any], cell: Path) -> Command:
        step = learn(step)
        fixed = {
            "model_name_or_path": "model",
            "dataset_name": folder(step),
            "output_dir": step.get("out", "out"),
            "logging_steps": 1,
            "report_to": "none",
            "use_cpu": "true",
            "bf16": "false",
            "eval_strategy": "steps" if "eval" in step else None,
            "eval_steps": 1 if "eval" in step else None,
            "resume_from_checkpoint": checkpoint(cell, step["resume"]) if "resume" in step else None,
        }
        # The script is what the command starts; only the command looks at every flag.
        start = ["trl", step["train"]] if "extra" in step else ["python", "-m", f"trl.scripts.{step['train']}"]
        words = [*start, *self.flags(step, self.names, **fixed)]
        if step.get("tuner") != "full":
            words.append("--use_peft")
        if step["train"] == "grpo":
            answers = ["--num_generations", "4", "--per_device_train_batch_size", "4", "--max_completion_length", "16"]
            words += ["--reward_funcs", f"rewards.{step['reward']}", *answers]
        return Command(words)

    def merge(self, step: dict[str, Any], cell: Path) -> Command:
        adapter = checkpoint(cell, step["merge"])
        words = ["python", "bench/faults/merge_with_peft.py", step.get("onto", "model"), adapter]
        return Command([*words, "merged", *([str(step["bits"])] if "bits" in step else [])])

    def infer(self, step: dict[str, Any], cell: Path) -> Command:
        raise NotImplementedError("see `not_applicable` in faults.toml")


class LlamaFactory(Tool):
    """LLaMA-Factory's command line, which takes flags as well as its YAML."""

    name, title, package = "llamafactory", "LLaMA-Factory", "llamafactory"
    binaries = ENVIRONMENTS / "llamafactory" / "bin"

    names: ClassVar = {
        **{
            "steps": "max_steps",
            "length": "cutoff_len",
            "rate": "learning_rate",
            "batch": "per_device_train_batch_size",
        },
        **{"accumulate": "gradient_accumulation_steps", "warmup": "warmup_steps", "packing": "packing"},
        **{"template": "template", "rank": "lora_rank"},
    }

    def render(self, row: Row) -> dict[str, Any]:
        keys = {"question": "instruction", "system": "system", "history": "history", "label": "kto_tag"}
        if "rejected" in row:
            return _present(row, **keys, answer="chosen", rejected="rejected")
        return _present(row, **keys, answer="output")

    def write(self, step: dict[str, Any], cell: Path) -> None:
        super().write(step, cell)
        described = cell / "dataset_info.json"
        known = json.loads(described.read_text()) if described.is_file() else {}
        for name, file in self.files(step).items():
            known[file.parent.name] = self._describe(step, name, file)
        described.write_text(json.dumps(known, indent=2))
        if "infer" in step:
            typed = "".join(f"{row['question']}\n" for row in rows(step["rows"])[:2]) + "exit\n"
            (cell / "typed.txt").write_text(typed)

    def _describe(self, step: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
        path = str(file) if "rows_as" not in step else f"{step['rows_as']}/rows.jsonl"
        first = rows(name)[0]
        if "question" not in first:
            return {"file_name": path}
        columns = {"prompt": "instruction", "response": "output"}
        columns |= {key: key for key in ("system", "history") if key in first}
        if "rejected" in first:
            pair = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
            return {"file_name": path, "ranking": True, "columns": pair}
        if "label" in first:
            columns["kto_tag"] = "kto_tag"
        return {"file_name": path, "columns": columns}

    def train(self, step: dict[str, Any], cell: Path) -> Command:
        step = learn(step)
        fixed = {
            "stage": step["train"],
            "do_train": "true",
            "model_name_or_path": "model",
            "dataset_dir": ".",
            "dataset": FOLDERS.get(step["rows"], "rows"),
            "eval_dataset": FOLDERS.get(step["eval"], "rows") if "eval" in step else None,
            "eval_strategy": "steps" if "eval" in step else None,
            "eval_steps": 1 if "eval" in step else None,
            "template": "smollm2",
            "finetuning_type": step.get("tuner", "lora"),
            "output_dir": step.get("out", "out"),
            "logging_steps": 1,
            "report_to": "none",
            "lora_target": ",".join(step["targets"]) if "targets" in step else None,
            "resume_from_checkpoint": checkpoint(cell, step["resume"]) if "resume" in step else None,
        }
        return Command(["llamafactory-cli", "train", *self.flags(step, self.names, **fixed)])

    def merge(self, step: dict[str, Any], cell: Path) -> Command:
        fixed = {
            "model_name_or_path": step.get("onto", "model"),
            "adapter_name_or_path": checkpoint(cell, step["merge"]),
            "template": "smollm2",
            "export_dir": "merged",
            "quantization_bit": step.get("bits"),
        }
        return Command(["llamafactory-cli", "export", *self.flags({}, {}, **fixed)])

    def infer(self, step: dict[str, Any], cell: Path) -> Command:
        fixed = {
            "model_name_or_path": "model",
            "adapter_name_or_path": checkpoint(cell, step["infer"]),
            "max_new_tokens": 8,
        }
        words = ["llamafactory-cli", "chat", *self.flags(step, {"template": "template"}, **fixed)]
        return Command(words, typed=Path("typed.txt"))


TOOLS: dict[str, Tool] = {tool.name: tool for tool in (Swift(), MsSwift25(), Trl(), LlamaFactory())}
