"""The flags by topic: one frozen dataclass a group, one field a flag."""

from swift.params.groups.checkpoint import Checkpoint
from swift.params.groups.data import Data
from swift.params.groups.distributed import Distributed
from swift.params.groups.engine import Lmdeploy, Vllm
from swift.params.groups.evaluate import Evaluate
from swift.params.groups.export import Export
from swift.params.groups.generate import Generate
from swift.params.groups.hub import Hub
from swift.params.groups.infer import Infer
from swift.params.groups.model import Model, Quant
from swift.params.groups.optim import Optim
from swift.params.groups.page import Page
from swift.params.groups.prompt import Prompt
from swift.params.groups.rlhf import Rlhf
from swift.params.groups.run import Run
from swift.params.groups.serve import Serve
from swift.params.groups.train import Train
from swift.params.groups.tuner import Lora, Tuner
from swift.params.groups.tuner_methods import Adalora, Adapter, Boft, Fourierft, Galore, Ia3, Lisa, Llamapro, Reft, Vera

__all__ = [
    "Adalora",
    "Adapter",
    "Boft",
    "Checkpoint",
    "Data",
    "Distributed",
    "Evaluate",
    "Export",
    "Fourierft",
    "Galore",
    "Generate",
    "Hub",
    "Ia3",
    "Infer",
    "Lisa",
    "Llamapro",
    "Lmdeploy",
    "Lora",
    "Model",
    "Optim",
    "Page",
    "Prompt",
    "Quant",
    "Reft",
    "Rlhf",
    "Run",
    "Serve",
    "Train",
    "Tuner",
    "Vera",
    "Vllm",
]
