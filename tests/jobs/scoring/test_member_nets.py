"""Where the nets of a member predict: only those that own an encoder are worth a GPU."""

from types import SimpleNamespace

import pytest

from jobs.scoring import member_nets
from jobs.scoring.member_nets import MemberNets


class FakeNet:
    def __init__(self, *, owns: bool, device: str = "cpu") -> None:
        self.net, self.device = SimpleNamespace(owns_encoders=owns), device

    def to(self, device):
        self.device = device
        return self


@pytest.mark.parametrize(
    ("owns", "here", "device"),
    [(True, "cuda", "cuda"), (True, "cpu", "cpu"), (False, "cuda", "cpu"), (False, "cpu", "cpu")],
)
def test_an_encoder_inside_a_net_predicts_on_the_gpu_and_a_net_of_features_on_the_cpu(
    monkeypatch, owns, here, device
):
    monkeypatch.setattr(member_nets, "worker_device", lambda: here)
    nets = (FakeNet(owns=owns), FakeNet(owns=owns))
    member = MemberNets(name="m", card=None, nets=nets)
    assert member.at_work[0] == device
    assert [net.device for net in member.at_work[1]] == [device, device]
    assert [net.device for net in nets] == [
        "cpu",
        "cpu",
    ]  # their scalers are read beside the features
    assert member.at_work is member.at_work
