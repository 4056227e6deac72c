"""A cluster that is not there is told in one line, within seconds, with the way out."""

import socket
import time

import pytest

from cluster import joining
from cluster.errors import PlanError
from cluster.session import SessionConfig, ray_session


class TestClusterThatIsNotThere:
    @pytest.fixture
    def silent(self):
        """A port that takes whoever comes and never says a word."""
        with socket.socket() as waiting:
            waiting.bind(("", 0))
            waiting.listen()
            yield f"127.0.0.1:{waiting.getsockname()[1]}"

    def refusal(self, **config):
        began = time.monotonic()
        with pytest.raises(PlanError) as caught, ray_session(SessionConfig(**config)):
            pass
        assert time.monotonic() - began < 30  # of the 90 s that Ray would take
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("address", ["127.0.0.1:9", "nosuch.invalid:6379", "nonsense"])
    def test_a_stale_address_of_the_environment_is_told_with_the_way_out(
        self, address, monkeypatch
    ):
        monkeypatch.setenv("RAY_ADDRESS", address)
        said = self.refusal()
        assert said.startswith(f"RAY_ADDRESS={address}: ")
        assert said.endswith(
            "type: unset RAY_ADDRESS, or --session.address local, to run on this machine"
        )

    def test_one_that_accepts_and_never_answers_is_given_up(self, silent, monkeypatch):
        monkeypatch.setattr(joining, "ANSWER_S", 2.0)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        said = self.refusal(address=silent)
        assert said.startswith(f"{silent}: no Ray cluster answers")
        assert "leave --session.address out" in said

    def test_the_url_of_a_dashboard_is_not_an_address(self, monkeypatch):
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
        assert "nvalid address" in self.refusal()
