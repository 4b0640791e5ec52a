"""`swift export`: merge, quantize, convert or push a model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from swift.params.args import Args

if TYPE_CHECKING:
    from swift.catalog import Catalog
    from swift.core.machine import Machine


def run(args: Args) -> int:
    """As `exported`. -> exit code."""
    exported(args)
    return 0


def exported(args: Args) -> Path:
    """Do what the flags ask for, one after the other, each on the result of the last. -> the last file or folder."""
    from swift.core.errors import SwiftError
    from swift.exporting.merge_first import with_merged
    from swift.models.gguf.unpack import with_unpacked
    from swift.params.groups import Checkpoint, Data, Export, Hub, Model
    from swift.plan.reward_model import how_to_try

    to_ollama, push, to_peft = args[Export].to_ollama, args[Hub].push_to_hub, args[Export].to_peft_format
    to_gguf, quantize = args[Export].to_gguf is not None, bool(args[Export].quant_bits)
    if not (args[Checkpoint].merge_lora or to_ollama or push or to_peft or to_gguf or quantize):
        raise SwiftError(
            "there is nothing to do",
            where="swift export",
            next="add --merge_lora true, --quant_bits 4, --to_gguf q8_0, --to_peft_format true, --to_ollama true or "
            "--push_to_hub true",
        )

    from swift.catalog import load_catalog
    from swift.core.log import log
    from swift.core.probe import probe

    catalog, machine = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info), probe()
    args = with_unpacked(args)
    _check_first(args, machine)
    results: list[Path] = []
    if to_peft:
        args = _to_peft(args, catalog, machine)
        results = [Path(args[Checkpoint].ckpt_dir or "").expanduser()]
    if args[Checkpoint].merge_lora and quantize:
        _check_quantization(args, catalog, machine)
    if args[Checkpoint].merge_lora or quantize:
        _check_conversion(args, catalog, machine)
    if args[Checkpoint].merge_lora:
        args = with_merged(args, catalog, machine)
        log.info("try it: %s", how_to_try(args[Checkpoint].ckpt_dir or ""))
        results = [Path(args[Checkpoint].ckpt_dir or "").expanduser()]
    if quantize:  # the merged weights, which stay where they are
        results = [_quantize(args, catalog, machine)]
    if to_gguf and not to_ollama:  # which has the file beside the Modelfile
        results.append(_to_gguf(args, catalog, machine))
    if to_ollama:
        results.append(_to_ollama(args, catalog, machine))
    results = results or [Path(args[Checkpoint].ckpt_dir or "").expanduser()]
    if push:
        _push(args, [path if path.is_dir() else path.parent for path in results])
    return results[-1]


def _check_first(args: Args, machine: Machine) -> None:
    """What one of the later steps would refuse after hours of the others."""
    from swift.core.errors import SwiftError
    from swift.core.hubs import default_hub
    from swift.hub import open_repository
    from swift.params.groups import Checkpoint, Export, Hub
    from swift.plan.quantize import check_method

    export, hub = args[Export], args[Hub]
    if export.quant_bits:
        check_method(args, machine)
    if export.to_gguf is not None:
        from swift.engines.gguf_conversion import require_packages

        require_packages()
    if hub.push_to_hub:
        makes = export.quant_bits or export.to_gguf is not None or export.to_ollama
        if not makes and not Path(args[Checkpoint].ckpt_dir or "").expanduser().is_dir():
            raise SwiftError("there is no folder to push", where="--ckpt_dir", next="--ckpt_dir output/…/checkpoint-N")
        assert hub.hub_model_id is not None  # a rule
        open_repository(hub.hub_model_id, hub=default_hub(), token=hub.hub_token, private=hub.hub_private_repo)


def _to_peft(args: Args, catalog: Catalog, machine: Machine) -> Args:
    """Convert the adapter; what follows takes the result."""
    from swift.core.log import log
    from swift.core.quick_imports import quick_imports
    from swift.params.groups import Checkpoint
    from swift.plan.model import plan_model
    from swift.plan.reward_model import how_to_try

    model = plan_model(args.with_values(quantization_bit=0, quant_method=None), catalog, machine)
    with quick_imports():
        from swift.exporting.to_peft import to_peft

    target = to_peft(Path(args[Checkpoint].ckpt_dir or "").expanduser(), model)
    log.info("try it: %s", how_to_try(target))
    return args.with_values(ckpt_dir=str(target))


def _quantize(args: Args, catalog: Catalog, machine: Machine) -> Path:
    """Quantize the model, or what was merged, and compare it with that. -> the folder."""
    from swift.core.log import log
    from swift.core.quick_imports import quick_imports
    from swift.plan.quantize import plan_quantize

    plan = plan_quantize(args, catalog, machine)
    log.info(plan.summary())
    with quick_imports():
        from swift.exporting.quantize import make_encoder, quantize

    folder = quantize(plan, make_encoder(plan, catalog))
    log.info("try it: swift infer --ckpt_dir %s", folder)
    return folder


def _check_quantization(args: Args, catalog: Catalog, machine: Machine) -> None:
    """What the quantization would refuse after the hours of a merge: the model, the folder, the rows."""
    from swift.core.quick_imports import quick_imports
    from swift.plan.merge import plan_merge
    from swift.plan.quantize import plan_quantize, target_of

    target = target_of(args, plan_merge(args, catalog, machine).target)  # it is named by what is merged
    plan = plan_quantize(args.with_values(quant_output_dir=str(target)), catalog, machine)
    with quick_imports():
        from swift.exporting.calibration import read_rows
        from swift.exporting.quantize import make_encoder

    read_rows(plan, make_encoder(plan, catalog))


def _check_conversion(args: Args, catalog: Catalog, machine: Machine) -> None:
    """What the conversion that follows would refuse after the hours of a merge and a quantization."""
    from swift.params.groups import Checkpoint, Export

    if args[Export].to_ollama:
        from swift.plan.merge import plan_merge
        from swift.plan.ollama import plan_ollama, target_of

        if args[Checkpoint].merge_lora:  # the folder is named by what is merged
            target = target_of(args, plan_merge(args, catalog, machine).target)
            args = args.with_values(ollama_output_dir=str(target))
        plan = plan_ollama(args, catalog, machine)

        from swift.exporting.ollama import make_modelfile, require_weights

        _, encoder = make_modelfile(plan, catalog)
        require_weights(plan, encoder)
    elif args[Export].to_gguf is not None:
        from swift.plan.gguf import plan_gguf, target_of
        from swift.plan.merge import plan_merge

        if args[Checkpoint].merge_lora:  # the file is named by what is merged
            target = target_of(args, plan_merge(args, catalog, machine).target)
            args = args.with_values(gguf_output_dir=str(target))
        plan = plan_gguf(args, catalog, machine)

        from swift.exporting.to_gguf import make_encoder, require_convertible

        require_convertible(plan, make_encoder(plan, catalog))


def _to_gguf(args: Args, catalog: Catalog, machine: Machine) -> Path:
    """Write and check the file; llama.cpp takes whole models, so an adapter is merged first. -> the file."""
    from swift.core.log import log
    from swift.exporting.merge_first import with_merged
    from swift.plan.gguf import plan_gguf

    plan = plan_gguf(args, catalog, machine)
    log.info(plan.summary())

    from swift.exporting.to_gguf import make_encoder, require_convertible, to_gguf

    encoder = make_encoder(plan, catalog)  # what is wrong with the prompt shows before anything is merged
    if plan.model.adapter is not None:
        require_convertible(plan, encoder)
        merged = with_merged(args.with_values(merge_lora=True), catalog, machine)
        plan = plan_gguf(merged.with_values(gguf_output_dir=str(plan.target)), catalog, machine)
    path = to_gguf(plan, encoder)
    log.info("try it: llama-cli -m %s", shlex.quote(str(path)))
    return path


def _to_ollama(args: Args, catalog: Catalog, machine: Machine) -> Path:
    """Write the Modelfile; Ollama takes whole models, so an adapter is merged first. -> the file."""
    from swift.core.log import log
    from swift.exporting.merge_first import with_merged
    from swift.plan.ollama import plan_ollama

    plan = plan_ollama(args, catalog, machine)
    name = plan.name
    log.info(plan.summary())

    from swift.exporting.ollama import make_modelfile, require_weights, write_modelfile

    modelfile, encoder = make_modelfile(plan, catalog)  # what is wrong with the prompt shows before anything is merged
    if plan.model.adapter is not None:
        require_weights(plan, encoder)
        merged = with_merged(args.with_values(merge_lora=True), catalog, machine)
        plan = plan_ollama(merged.with_values(ollama_output_dir=str(plan.target)), catalog, machine)
    path = write_modelfile(modelfile, encoder, plan)
    log.info("try it: %s", shlex.join(["ollama", "create", name, "-f", str(path)]))
    return path


def _push(args: Args, folders: list[Path]) -> None:
    """Push what the command made, the first folder's files before those of the others, or the checkpoint."""
    from swift.core.hubs import default_hub
    from swift.core.log import log
    from swift.hub import push
    from swift.hub.checkpoint_uploader import NOT_OF_THE_MODEL
    from swift.params.groups import Export, Hub

    group = args[Hub]
    assert group.hub_model_id is not None  # a rule
    address = push(
        folders[0],
        group.hub_model_id,
        hub=default_hub(),
        token=group.hub_token,
        private=group.hub_private_repo,
        message=args[Export].commit_message,
        ignore=NOT_OF_THE_MODEL,
        beside=folders[1:],
    )
    log.info("pushed to %s", address)
