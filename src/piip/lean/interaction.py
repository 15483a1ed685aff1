"""One direction of an exchange in training on a CPU: norms are computed again, scales are in the weights."""

from __future__ import annotations

from piip.backbone.frames import between
from piip.backbone.interaction import DeformableCrossAttention, Injector
from piip.lean.normalised_linear import normalised_linear
from piip.lean.scaled_linear import scaled_linear
from piip.lean.situation import recomputes
from piip.structures import BranchState


class LeanInjector(Injector):
    """The plain injector's numbers without keeping its normalised and scaled tokens."""

    def forward(self, receiver: BranchState, source: BranchState) -> BranchState:
        """The receiver's new state."""
        x, attention, ffn = receiver.tokens, self.attention, self.ffn
        if not isinstance(attention, DeformableCrossAttention) or not recomputes(x):
            return super().forward(receiver, source)
        (value,) = normalised_linear(self.source_norm, [attention.value], self.projection(source.tokens))
        layers = attention.sampling_offsets, attention.attention_weights
        offsets, logits = normalised_linear(self.query_norm, layers, x)
        frame = between(receiver.frame, source.frame)
        mixed = attention.mix(value, offsets, logits, receiver.size, source.size, frame)
        x = x + scaled_linear(attention.output, mixed, self.ca_gamma)
        if ffn is not None:
            (hidden,) = normalised_linear(self.ffn_norm, [ffn.fc1], x)
            x = x + self.drop_path(scaled_linear(ffn.fc2, ffn.mix(hidden, receiver.size), self.cffn_gamma))
        return receiver._replace(tokens=x)
