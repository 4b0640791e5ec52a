"""The files beside a model's weights that say how images, videos and sounds become numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from swift.core.transaction import write_file

PREPROCESSOR = "preprocessor_config.json"
"""Of images, or of sounds."""
VIDEOS = "video_preprocessor_config.json"
WHOLE = "processor_config.json"
"""What transformers 5 writes: the others may be inside, and go before files of their own there."""
INSIDE = {"image_processor": PREPROCESSOR, "feature_extractor": PREPROCESSOR, "video_processor": VIDEOS}


def copy_processor(trained: Path, base: Path, folder: Path) -> None:
    """Put into `folder` what a checkpoint has `trained` with, and what it does not say as its base has it."""
    own = [name for name in (PREPROCESSOR, VIDEOS) if (trained / name).is_file()]
    for name in (PREPROCESSOR, VIDEOS):
        origin = trained if name in own else base
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)
    if (base / WHOLE).is_file():
        whole = json.loads((base / WHOLE).read_text(encoding="utf-8"))
        kept = {name: value for name, value in whole.items() if INSIDE.get(name) not in own}
        write_file(folder / WHOLE, json.dumps(kept, indent=2) + "\n")
