"""Qwen2-Audio: a sound is a spectrogram, and 40 ms of it are a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModelForMultimodalLM

from swift.models.families.base import Family, Waveform
from swift.plan.tuner import Parts


class Qwen2Audio(Family):
    """`Qwen2AudioForConditionalGeneration`."""

    auto_class: ClassVar[Any] = AutoModelForMultimodalLM
    token_name = "audio_token_id"
    parts = Parts(("model.audio_tower",), ("model.multi_modal_projector",), ("model.language_model",))
    audio_form = "Audio {{number}}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"

    @staticmethod
    def load_processor(folder: Path, **settings: Any) -> Any:
        """What makes spectrograms."""
        return AutoFeatureExtractor.from_pretrained(folder, **settings)

    @property
    def tokens(self) -> Mapping[str, tuple[str, int]]:
        """One for pieces of sounds."""
        return {"audios": (self.token_text, self.token)}

    @property
    def rate(self) -> int:
        """That of the feature extractor."""
        return self._processor.sampling_rate

    @property
    def longest(self) -> int:
        """As long as a spectrogram is."""
        return self._processor.n_samples

    def pieces(self, samples: int) -> int:
        """Two convolutions halve a spectrogram, and pairs of what is left are one token."""
        frames = -(-min(samples, self.longest) // self._processor.hop_length)
        count = ((frames - 1) // 2 + 1 - 2) // 2 + 1
        if count < 2:  # the model takes tokens that stand alone for those of an older processor
            raise ValueError(f"it has {samples / self.rate:.3f} s, which is too short")
        return count

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Waveform]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`input_features` (sounds, bands, frames) and `feature_attention_mask` (sounds, frames)."""
        sounds = [sound for row in rows for sound in row]
        if not sounds:
            return {}
        given = processor(
            sounds,
            sampling_rate=self.rate,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {"input_features": given["input_features"], "feature_attention_mask": given["attention_mask"]}
