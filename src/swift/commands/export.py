"""`swift export`: merge, quantize, convert or push a model."""

from __future__ import annotations

from pathlib import Path

from swift.params.args import Args


def run(args: Args) -> int:
    """Do what the flags ask for, one after the other, each on the result of the last. -> exit code."""
    from swift.core.errors import SwiftError
    from swift.params.groups import Checkpoint, Hub

    _refuse_unbuilt(args)
    folder = Path(args[Checkpoint].ckpt_dir or "")
    if not (args[Checkpoint].merge_lora or args[Hub].push_to_hub):
        raise SwiftError(
            "there is nothing to do", where="swift export", next="add --merge_lora true or --push_to_hub true"
        )
    if args[Checkpoint].merge_lora:
        folder = _merged(args)
    if args[Hub].push_to_hub:
        _push(args, folder)
    return 0


def _merged(args: Args) -> Path:
    from swift.catalog import load_catalog
    from swift.core.log import log
    from swift.hub.machine import probe
    from swift.params.groups import Data, Model
    from swift.plan.merge import plan_merge

    plan = plan_merge(args, load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info), probe())
    log.info(plan.summary())

    from swift.export.merge import merge

    folder = merge(plan)
    log.info("try it: swift infer --ckpt_dir %s", folder)
    return folder


def _push(args: Args, folder: Path) -> None:
    from swift.core.errors import SwiftError
    from swift.core.log import log
    from swift.hub import push
    from swift.params.groups import Checkpoint, Export, Hub
    from swift.plan.model import default_hub

    if not args[Checkpoint].ckpt_dir or not folder.is_dir():
        raise SwiftError("there is no folder to push", where="--ckpt_dir", next="--ckpt_dir output/…/checkpoint-N")
    group = args[Hub]
    if not group.hub_model_id:
        raise SwiftError("--push_to_hub true needs to know where to", where="--hub_model_id", next="owner/name")
    address = push(
        folder,
        group.hub_model_id,
        hub=default_hub(),
        token=group.hub_token,
        private=group.hub_private_repo,
        message=args[Export].commit_message,
        ignore=("optimizer.pt", "scheduler.pt", "rng_state*.pth", "training_args.bin"),
    )
    log.info("pushed to %s", address)


def _refuse_unbuilt(args: Args) -> None:
    from swift.core.errors import NotBuilt
    from swift.params.groups import Export

    export = args[Export]
    asked = {"quant_bits": export.quant_bits, "to_ollama": export.to_ollama, "to_peft_format": export.to_peft_format}
    for flag, value in asked.items():
        if value:
            raise NotBuilt(f"--{flag} is not built yet", where=f"--{flag}", next="--merge_lora and --push_to_hub are")
