"""Dialogue net with profiles of speaker and listener, beside text, sound and pictures.

    early:  u_t = [x_1; ...; x_M; role];   h = attention(BiLSTM(u))
    late:   h_m = attention(BiLSTM([x_m; role])) of each modality, and the first one (text) reads every other
            by cross-modal attention over the utterances; h = attention(BiLSTM([h_m; crossed; profile]))
    logits_t = head([h_t; profile])

The two networks of an AvaMERG empathy system: `audio_text` (early, two layers) and `video_text` (late).
AvaMERG: Zhang et al., WWW 2025, https://arxiv.org/abs/2502.04976.

Differs from that system: logits for every utterance (it read the last one; mask the targets for the same
task); attention honours the padding; cross-modal attention runs over utterances (there, over a sequence of
length one, where it is a linear map); norms per row instead of batch norms; a causal form, in which backward
LSTM directions are silent. Profile codes outside a vocabulary count as unknown (0). The annotators' empathy
chain (causes, goals), which names the feeling, is taken only as modalities called ``oracle...`` and only with
`oracle=True`: such inputs do not exist when a net is used.

Shapes: batch, time (utterances), feature, hidden, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output, Steps
from fusion.nets._attention import Attention, allowed_keys, heads_for
from fusion.nets._layers import Heads, Net, Range, module_dict
from fusion.nets._profile import ProfileEmbedding
from fusion.nets.kernels.recurrent import Recurrent

AVAMERG = {
    "speaker_age": 4,
    "speaker_gender": 2,
    "speaker_timbre": 3,
    "speaker_id": 100,
    "listener_age": 4,
    "listener_gender": 2,
    "listener_timbre": 3,
    "listener_id": 100,
}
"""Profile fields of the data set and their numbers of codes, unknown not counted."""


class DialogueProfile(Net):
    """Recurrent dialogue encoder with profile embeddings."""

    axis = "dialogue"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Form, width and the profile."""

        form: Literal["early", "late"] = "late"
        hidden: int = 256
        """Width of one direction of an LSTM."""

        layers: int = 1
        heads: int = 8
        """At most; the largest number that divides a width is taken."""

        profile: Mapping[str, int] = field(default_factory=lambda: dict(AVAMERG))
        """Profile fields and their numbers of codes; speaker_x and listener_x share a table, ids do not."""

        profile_width: int = 16
        """Width of the embedding of each field."""

        speakers: int = 2
        """Roles in a dialogue that have an embedding; later ones share the last."""

        role_width: int = 16
        head: int = 256
        dropout: float = 0.3
        anchor: str = "text"
        """The modality that reads the others in the late form."""

        oracle: bool = False
        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        oracles = [name for name in self.dims if name.startswith("oracle")]
        if oracles and not config.oracle:
            raise ValueError(
                f"{oracles} were annotated with the label known and do not exist at inference; "
                "set oracle=True to measure how far they would carry, or leave them out"
            )
        self.config = config
        self.anchor = config.anchor if config.anchor in self.dims else next(iter(self.dims))
        wide, role = 2 * config.hidden, config.role_width
        self.profile = ProfileEmbedding(config.profile, config.profile_width)
        self.role = nn.Embedding(config.speakers + 1, role)
        self.norm = module_dict({n: nn.LayerNorm(dim) for n, dim in self.dims.items()})
        if config.form == "early":
            self.fuse = ProfiledDialogueEncoder(sum(self.dims.values()) + role, config)
        else:
            streams = {
                n: ProfiledDialogueEncoder(dim + role, config) for n, dim in self.dims.items()
            }
            self.stream = module_dict(streams)
            others = [name for name in self.dims if name != self.anchor]
            heads = heads_for(wide, config.heads)
            self.cross = module_dict({n: Attention(wide, heads, config.dropout) for n in others})
            parts = (len(self.dims) + len(others)) * wide + self.profile.width
            self.fuse = ProfiledDialogueEncoder(parts, config)
        self.head = nn.Sequential(
            nn.Linear(wide + self.profile.width, config.head),
            nn.LayerNorm(config.head),
            nn.GELU(),
            nn.Dropout(config.dropout),
        )
        self.heads = Heads(config.head, outputs, squash=config.squash)

    def forward(self, batch: Batch) -> Output:
        sequences = self.read(batch)
        profile = self.profile(batch)
        h = self.fuse(self._joined(batch, sequences, profile), batch.causal)
        return Output(self.heads(self.head(torch.cat([h, profile], -1))))

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """Where each utterance looks in the dialogue, beside what each modality changes."""
        joined = self._joined(batch, self.read(batch), self.profile(batch))
        look = self.fuse.weights(joined, batch.causal)
        return {"attention": look, **super().explain(batch)}

    def _joined(self, batch: Batch, sequences: Mapping[str, Steps], profile: Tensor) -> Steps:
        """What the last encoder reads at every utterance."""
        assert batch.steps is not None
        codes = batch.steps.long()
        if batch.speaker is not None:
            codes = (batch.speaker + 1).clamp(0, self.config.speakers)
        role = self.role(codes)
        x = {
            n: self.norm[n](s.values).masked_fill(~s.mask.unsqueeze(-1), 0.0)
            for n, s in sequences.items()
        }
        if self.config.form == "early":
            return Steps(torch.cat([*x.values(), role], -1), batch.steps)
        masks = {n: batch.inputs[n].mask for n in x}
        streams = {
            n: self.stream[n](Steps(torch.cat([v, role], -1), masks[n]), batch.causal)
            for n, v in x.items()
        }
        text = streams[self.anchor]
        crossed = [
            attention(text, streams[n], streams[n], allowed_keys(masks[n], causal=batch.causal))
            for n, attention in self.cross.items()
        ]
        return Steps(torch.cat([*streams.values(), *crossed, profile], -1), batch.steps)


class ProfiledDialogueEncoder(nn.Module):
    """BiLSTM over the utterances, then self-attention with a residual."""

    def __init__(self, width: int, config: DialogueProfile.Config) -> None:
        super().__init__()
        self.lstm = Recurrent(
            width,
            config.hidden,
            layers=config.layers,
            bidirectional=True,
            dropout=config.dropout,
        )
        wide = self.lstm.width
        self.attention = Attention(wide, heads_for(wide, config.heads), config.dropout)
        self.norm = nn.LayerNorm(wide)

    def forward(self, sequence: Steps, causal: bool) -> Tensor:
        h = self.lstm(sequence, causal=causal).values
        mixed = self.attention(h, h, h, allowed_keys(sequence.mask, causal=causal))
        after: Tensor = self.norm(h + mixed)
        return after.masked_fill(~sequence.mask.unsqueeze(-1), 0.0)

    def weights(self, sequence: Steps, causal: bool) -> Tensor:
        h = self.lstm(sequence, causal=causal).values
        return self.attention.weights(h, h, allowed_keys(sequence.mask, causal=causal))


PRESETS = {
    "audio_text": lambda: DialogueProfile.Config(form="early", layers=2, head=512, dropout=0.2),
    "video_text": lambda: DialogueProfile.Config(form="late", layers=1, head=512, dropout=0.3),
}
"""The two published forms."""
