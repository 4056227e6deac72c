"""A net on disk is two documents that execute nothing, and comes back as it was."""

import json

import pytest
import torch

from fusion.batch import Batch, Steps
from fusion.predictor import Card, build, from_bytes, to_bytes
from fusion.tasks import Task

CARD = Card(
    net="lmf",
    config={"rank": 2},
    tasks={"emotion": Task(kind="classification", classes=("a", "b"))},
    dims={"audio": 4, "text": 6},
    pca={"text": 3},
    inputs={"audio": {"features": "egemaps-1"}},
)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        inputs={
            name: Steps(torch.randn(3, 2, dim, generator=generator), torch.ones(3, 2) > 0)
            for name, dim in CARD.dims.items()
        }
    )


class TestRoundTrip:
    def test_the_same_logits_come_out_after_a_trip_through_both_documents(self):
        predictor = build(CARD).eval()
        card = Card.from_json(json.loads(json.dumps(CARD.to_json())))
        again = from_bytes(to_bytes(predictor), card)
        assert card == CARD
        ours = predictor(batch()).logits["emotion"]
        assert torch.equal(ours, again(batch()).logits["emotion"])


class TestRefusals:
    def test_another_document_is_no_card(self):
        with pytest.raises(ValueError, match="expected the card of a net, version 1"):
            Card.from_json({"net": "lmf"})

    def test_a_card_that_lacks_a_field_names_it(self):
        with pytest.raises(ValueError, match=r"lacks \['dims'\]"):
            Card.from_json({"affuse.net": 1, "net": "lmf", "config": {}, "tasks": {}})

    def test_weights_of_another_net_are_refused(self):
        other = Card(net="tfn", config={}, tasks=CARD.tasks, dims=CARD.dims, pca=CARD.pca)
        with pytest.raises(ValueError, match="weights do not fit the card of net 'tfn'"):
            from_bytes(to_bytes(build(CARD)), other)

    def test_what_is_no_safetensors_document_is_refused(self):
        with pytest.raises(ValueError, match="do not fit the card"):
            from_bytes(b"not weights", CARD)
