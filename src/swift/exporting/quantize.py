"""`--quant_bits`: weights in few bits, written as one transaction and held to the original before that."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from swift import models
from swift.catalog import Catalog
from swift.core.errors import CheckFailed, SwiftError
from swift.core.log import log
from swift.core.transaction import fault, write_file, write_folder
from swift.core.writable import require_writable
from swift.engines.vllm_process import leash
from swift.exporting import gptqmodel_process
from swift.exporting.calibration import Rows, read_rows, require_enough
from swift.exporting.quantization_report import Report, Seen, divergence, look
from swift.hub import model_card
from swift.models import quantize as loading
from swift.models import saving
from swift.models.families import is_multimodal
from swift.models.limits import limits_of
from swift.models.load import TORCH_DTYPES
from swift.params.checkpoint_args import SFT_ARGS, read_saved
from swift.plan.model import read_config
from swift.plan.quantization import QuantPlan, stored_quant
from swift.plan.quantize import QuantizePlan
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.parity import require_same_template
from swift.tuners.tensor_files import SHARD

REPORT = "quantization_report.json"
GROUP_SIZES = (128, 64, 32)
"""Weights that share a scale; the first that divides the inputs of every layer."""
AWQ_OUTPUTS = 64
"""The search of gptqmodel for AWQ's clipping takes that many rows of a layer at a time."""
ROOM = "make room, or give --quant_output_dir a folder where there is some"
POLL = 0.2
"""Seconds between two looks at the quantizing process."""


def make_encoder(plan: QuantizePlan, catalog: Catalog) -> Encoder:
    """The plan's prompts. Raises SwiftError when they are not those the checkpoint was trained with."""
    source = models.fetch(plan.model)
    tokenizer = models.load_tokenizer(plan.model, source)
    vocab_size = models.embedded_tokens(tokenizer, limits_of(plan.model, source).vocab_size)
    encoder = build_encoder(replace(plan.prompt, vocab_size=vocab_size), tokenizer, catalog)
    if plan.checkpoint:
        require_same_template(plan.checkpoint, encoder, plan.prompt.ignore_mismatch)
    return encoder


def quantize(plan: QuantizePlan, encoder: Encoder) -> Path:
    """Quantize, load the result again, compare it on held rows, and give it its name. -> the folder.

    Raises SwiftError for a model or rows that do not serve and for a full disk, CheckFailed when the result is further
    from the original than the plan allows; nothing is under the folder's name then.
    """
    require_writable(plan.target.parent, "--quant_output_dir", ROOM)
    source = models.fetch(plan.model)
    _check_folder(plan, source)
    rows = read_rows(plan, encoder)
    request = _request(plan, source, rows)
    if plan.target.exists():
        _check_existing(plan, request)
        return plan.target
    original = models.load_model(plan.model, source)
    group_size = _group_size(plan, original, rows)
    log.info("looking at the original on %d held rows", len(rows.held))
    before = look(original, rows.held)
    size = _bytes(source)
    del original
    began = time.monotonic()
    try:
        with write_folder(plan.target) as scratch:
            if plan.method == "bnb":
                _with_bitsandbytes(plan, source, scratch)
            else:
                _with_gptqmodel(plan, source, rows, group_size, scratch)
            seconds = time.monotonic() - began
            _write_beside(plan, source, encoder.tokens.tokenizer, scratch)
            after = look(_reload(plan, scratch), rows.held)
            report = _report(plan, rows, group_size, (before, size), (after, _bytes(scratch)), seconds, encoder)
            _judge(report, request, plan, scratch)
            _write_card(plan, source, report, scratch)
    except saving.FAILURES as error:
        why = saving.unwritten(error)
        if why is None:
            raise
        raise SwiftError(f"{plan.target} could not be written", why=why, next=ROOM) from error
    for line in report.lines():
        log.info(line)
    return plan.target


def _request(plan: QuantizePlan, source: Path, rows: Rows) -> dict[str, Any]:
    """What tells this quantization from others."""
    return {
        "source": models.identity(source),
        "method": plan.method,
        "bits": plan.bits,
        "dtype": plan.model.dtype,
        "rows": hashlib.sha256(repr(rows).encode()).hexdigest(),
    }


def _check_existing(plan: QuantizePlan, request: Mapping[str, Any]) -> None:
    """What an earlier run of the same command left whole is gone on from. Raises SwiftError for anything else."""
    report = plan.target / REPORT
    wrong = fault(plan.target)
    if wrong is None and (not report.is_file() or json.loads(report.read_text("utf-8")).get("request") != request):
        wrong = "it is another quantization"
    if wrong:
        raise SwiftError(
            f"{plan.target} exists", where="--quant_output_dir", why=wrong, next=f"remove it: rm -r {plan.target}"
        )
    log.info("%s is there already and complete: left as it is", plan.target)


def _check_folder(plan: QuantizePlan, source: Path) -> None:
    """What only the folder tells of a model from a hub."""
    stored = stored_quant(read_config(source))
    wrong = f"quantized already ({stored})" if stored else None
    if is_multimodal(models.load_config(plan.model, source)):
        wrong = "a multimodal model"
    if wrong:
        raise SwiftError(
            f"{plan.model.source} is {wrong}", where="--quant_bits", next="give a model of text in full precision"
        )


def _group_size(plan: QuantizePlan, model: PreTrainedModel, rows: Rows) -> int | None:
    """The largest group that fits every layer but the head; bitsandbytes has its own."""
    if plan.method == "bnb":
        return None
    head = model.get_output_embeddings()
    widths = {layer.in_features for layer in model.modules() if type(layer) is nn.Linear and layer is not head}
    if not widths:
        raise SwiftError(f"{plan.model.source} has no linear layers to quantize", where="--quant_bits")
    require_enough(rows, max(widths))
    outputs = {layer.out_features for layer in model.modules() if type(layer) is nn.Linear and layer is not head}
    odd = sorted(count for count in outputs if count % AWQ_OUTPUTS)
    if plan.method == "awq" and odd:
        raise SwiftError(
            f"awq does not quantize the layers of {plan.model.source} that have {odd[0]} outputs",
            where="--quant_method",
            why=f"it takes multiples of {AWQ_OUTPUTS}",
            next="use --quant_method gptq or bnb",
        )
    fitting = [size for size in GROUP_SIZES if all(width % size == 0 for width in widths)]
    if not fitting:
        raise SwiftError(
            f"the layers of {plan.model.source} do not make groups of {' or '.join(map(str, GROUP_SIZES))} weights",
            where="--quant_method",
            why=f"they have {', '.join(map(str, sorted(widths)))} inputs",
            next="use --quant_method bnb",
        )
    return fitting[0]


def _with_bitsandbytes(plan: QuantizePlan, source: Path, folder: Path) -> None:
    quant = QuantPlan(method="bnb", bits=plan.bits, compute_dtype=plan.model.dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=TORCH_DTYPES[plan.model.dtype],
        device_map=plan.device_map or plan.model.device_map,
        quantization_config=loading.transformers_config(quant),
    )
    model.save_pretrained(folder, max_shard_size=SHARD)


def _with_gptqmodel(plan: QuantizePlan, source: Path, rows: Rows, group_size: int | None, folder: Path) -> None:
    """Let the process quantize into `folder`, and say how far it is. What it leaves behind goes."""
    work = folder / "work"
    work.mkdir()
    device = plan.device_map or ("cpu" if plan.model.device_map is None else "cuda:0")
    request = {
        "source": str(source.resolve()),
        "target": str(folder.resolve()),
        "method": plan.method,
        "bits": plan.bits,
        "group_size": group_size,
        "batch_size": plan.batch_size,
        "device_map": device,
        "seed": plan.data.seed,
        "rows": rows.calibration,
    }
    (work / "request.json").write_text(json.dumps(request), encoding="utf-8")
    output = work / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", gptqmodel_process.__name__, "request.json"],
            cwd=work,
            env={**os.environ, "TMPDIR": str(work.resolve())},  # it leaves folders behind there
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        guard = leash([process.pid])  # if this process is killed, the other one does not go on
        try:
            _follow(process, work / gptqmodel_process.PROGRESS, read_config(source).get("num_hidden_layers"))
        finally:
            process.kill()
            process.wait()
            guard.kill()
            guard.wait()
    if process.returncode:
        text = output.read_text("utf-8", errors="replace").strip()
        log.debug("%s", text)
        if "No space left on device" in text:
            raise SwiftError(f"{plan.target} could not be written", why="No space left on device", next=ROOM)
        raise SwiftError(
            f"gptqmodel could not quantize {plan.model.source} to {plan.bits} bit with {plan.method}",
            where="--quant_method",
            why=_last_words(text) or f"it ended with exit code {process.returncode}",
            next="--quant_method bnb works without it; --debug shows all that it wrote",
        )
    shutil.rmtree(work)
    (folder / "quant_log.csv").unlink(missing_ok=True)  # what it lost layer by layer, which the report sums up


def _last_words(text: str) -> str:
    """The error at the end of a traceback; of one without words the line that raised it, too."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t^~")]
    return " in ".join(reversed(lines[-2:])) if lines and lines[-1].isidentifier() else "".join(lines[-1:])


def _follow(process: subprocess.Popen[bytes], progress: Path, layers: int | None) -> None:
    """Wait for the end, with a line for each layer that is done and the time that is left."""
    began, shown = time.monotonic(), 0
    while True:
        ended = _ended(process)
        done = len(progress.read_bytes().splitlines()) if progress.is_file() else 0
        if done > shown:
            passed = time.monotonic() - began
            left = f", {passed / done * (layers - done):.0f} s left" if layers else ""
            log.info("quantized layer %d of %s in %.0f s%s", done, layers or "?", passed, left)
            shown = done
        if ended:
            return


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL)
    except subprocess.TimeoutExpired:
        return False
    return True


def _write_beside(plan: QuantizePlan, source: Path, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """What a model's folder has beside weights; the library's own logs and copies are not part of it."""
    tokenizer.save_pretrained(folder)
    (folder / "configuration.json").write_text("{}\n", encoding="utf-8")
    for name in ("configuration.json", "template.json", "generation_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    saved: Mapping[str, Any] = read_saved(plan.checkpoint) if plan.checkpoint else {}
    if saved:
        whole = {"sft_type": "full", "quantization_bit": 0, "quant_method": None, "ckpt_dir": str(plan.target)}
        text = json.dumps({**saved, **whole, "dtype": plan.model.dtype}, indent=2, ensure_ascii=False)
        (folder / SFT_ARGS).write_text(text + "\n", encoding="utf-8")


def _reload(plan: QuantizePlan, folder: Path) -> PreTrainedModel:
    """The written folder as any later command reads it. Raises CheckFailed when it cannot be read."""
    local = replace(plan.model, source=str(folder), hub="local", entry=None)
    try:
        return models.load_model(local, models.fetch(local))
    except SwiftError as error:
        raise CheckFailed(
            "the quantized model that was written cannot be read back",
            why=f"{error.what}: {error.why}",
            next="nothing was written: try another --quant_method",
        ) from error


def _report(
    plan: QuantizePlan,
    rows: Rows,
    group_size: int | None,
    original: tuple[Seen, int],
    quantized: tuple[Seen, int],
    seconds: float,
    encoder: Encoder,
) -> Report:
    (before, size), (after, quantized_size) = original, quantized
    kl, agreement = divergence(before, after)
    decode: Callable[..., Any] = encoder.tokens.tokenizer.decode
    answers = tuple(
        {"prompt": decode(row.ids[: row.prompt]), "original": decode(left), "quantized": decode(right)}
        for row, left, right in zip(rows.held, before.answers, after.answers, strict=False)
    )
    return Report(
        source=plan.model.source,
        method=plan.method,
        bits=plan.bits,
        group_size=group_size,
        calibration_rows=len(rows.calibration),
        calibration_tokens=rows.tokens,
        held_tokens=sum(len(row.ids) - 1 for row in rows.held),
        perplexity=before.perplexity,
        quantized_perplexity=after.perplexity,
        perplexity_ratio=after.perplexity / before.perplexity,
        max_perplexity_ratio=plan.max_perplexity_ratio,
        kl_divergence=kl,
        top1_agreement=agreement,
        bytes=size,
        quantized_bytes=quantized_size,
        tokens_per_second=before.tokens_per_second,
        quantized_tokens_per_second=after.tokens_per_second,
        seconds=seconds,
        answers=answers,
    )


def _judge(report: Report, request: Mapping[str, Any], plan: QuantizePlan, scratch: Path) -> None:
    fields = {**asdict(report), "faults": report.faults(), "request": request}
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    if report.faults():
        beside = plan.target.with_name(f"{plan.target.name}.{REPORT}")
        write_file(beside, text)
        raise CheckFailed(
            f"the quantized model is too far from {plan.model.source}",
            where=str(beside),
            why="; ".join(report.faults()),
            next="nothing else was written: give more bits or other rows, or allow more with "
            "--quant_max_perplexity_ratio",
        )
    (scratch / REPORT).write_text(text, encoding="utf-8")


def _write_card(plan: QuantizePlan, source: Path, report: Report, folder: Path) -> None:
    calibration = f", calibrated on {report.calibration_tokens} tokens" if report.calibration_tokens else ""
    group = f", groups of {report.group_size}" if report.group_size else ""
    figures = "\n".join(report.lines())
    text = f"{plan.bits} bit with {plan.method}{group}{calibration}. Against the original:"
    model_card.write_card(
        folder,
        model_card.origin_of(source, plan.model.source, plan.model.hub),
        title=f"{plan.model.model_type}, {plan.bits} bit",
        relation="quantized",
        library="transformers",
        tags=[plan.method, f"{plan.bits}-bit"],
        sections={
            "Quantization": f"{text}\n\n```\n{figures}\n```\n\n```\n{plan.command}\n```",
            "Use": "`swift infer --ckpt_dir THIS-FOLDER`",
        },
    )


def _bytes(folder: Path) -> int:
    """Size of the weights in a model's folder."""
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    return sum(path.stat().st_size for path in files)
