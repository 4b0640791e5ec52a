"""`--merge_lora true` for commands that answer: the adapter is merged first, and the merged model answers."""

from __future__ import annotations

from swift.catalog import Catalog
from swift.core.log import log
from swift.core.machine import Machine
from swift.core.quick_imports import quick_imports
from swift.params.args import Args
from swift.params.groups import Checkpoint


def with_merged(args: Args, catalog: Catalog, machine: Machine) -> Args:
    """The arguments with `--ckpt_dir` naming the merged folder, made now or found; as they are without `--merge_lora`.

    The merged model is loaded in full precision, also when the adapter was trained on a quantized base, unless
    `--quantization_bit` is given.

    Raises SwiftError when there is no adapter to merge, CheckFailed when the merged model does not answer like it.
    """
    if not args[Checkpoint].merge_lora:
        return args

    with quick_imports():
        from swift.exporting.merge import merge
    from swift.plan.merge import plan_merge

    plan = plan_merge(args, catalog, machine)
    log.info(plan.summary())
    bits = 0 if args.origins["quantization_bit"] == "checkpoint" else args.values["quantization_bit"]
    return args.with_values(ckpt_dir=str(merge(plan)), merge_lora=False, quantization_bit=bits)
