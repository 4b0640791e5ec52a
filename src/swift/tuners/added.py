"""Small trained modules that change what a model's own modules put out.

Nothing of the model is replaced. A small module hangs below the one whose output it changes, as a child of a fixed
name, and a forward hook lets it in; so a model with such modules is moved, copied and recomputed like any other, and
its state dict calls them by the names that the 2.5 release writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn


class Added(nn.Module):
    """A trained module that changes the output of the one it hangs below."""

    child: ClassVar[str]
    """Its name there."""

    def __init__(self, settings: Mapping[str, Any]):
        super().__init__()
        self.settings = dict(settings)
        """All that it takes to make it again, as JSON."""
        self.switched_on = True

    def forward(self, output: Tensor) -> Tensor:
        """(…, width) -> (…, width)."""
        raise NotImplementedError

    def go_on(self) -> str | None:
        """Get ready to be trained on from loaded weights; what had to be changed for it, to be told."""
        return None


def hang(host: nn.Module, added: Added) -> None:
    """Let `added` change what `host` puts out from now on."""
    host.add_module(added.child, added)
    host.register_forward_hook(_let_in)


def _let_in(module: nn.Module, inputs: Any, output: Any) -> Any:
    """The hook. It closes over nothing, so that a copy of the model uses the modules of the copy."""
    for added in module.children():
        if isinstance(added, Added) and added.switched_on:
            output = (added(output[0]), *output[1:]) if isinstance(output, tuple) else added(output)
    return output
