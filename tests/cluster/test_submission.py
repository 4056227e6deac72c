"""What travels to a cluster, which token opens it, and how a job is followed."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from cluster import jobs_api, shipping, submission
from cluster.errors import ConfigError, SubmissionError
from cluster.submission import Entrypoint

ADDRESS = "http://127.0.0.1:8265"


class Details(SimpleNamespace):
    submission_id: str
    status: str
    start_time = 0
    message = ""
    metadata = None
    driver_exit_code = None


class FakeClient:
    """The Jobs API as far as we use it; `connections` are the pieces each log connection sends."""

    def __init__(self, *, statuses=("SUCCEEDED",), connections=(), refuse=None):
        self.statuses = list(statuses)
        self.connections = list(connections)
        self.refuse = refuse
        self.sent = None
        self.stopped = []

    def submit_job(self, **arguments):
        if self.refuse is not None:
            raise self.refuse
        self.sent = arguments
        self.shipped = sorted(
            str(file.relative_to(arguments["runtime_env"]["working_dir"]))
            for file in Path(arguments["runtime_env"]["working_dir"]).rglob("*")
            if file.is_file()
        )
        return arguments["submission_id"]

    def list_jobs(self):
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return [Details(submission_id="a", status=status), Details(submission_id=None, status="")]

    async def tail_job_logs(self, submission_id):
        pieces = self.connections.pop(0) if len(self.connections) > 1 else self.connections[0]
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def stop_job(self, submission_id):
        self.stopped.append(submission_id)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(submission.time, "sleep", lambda seconds: None)


class TestToken:
    def test_a_named_file_wins_over_the_environment(self, tmp_path):
        file = tmp_path / "token"
        file.write_text("from-file\n")
        assert jobs_api.read_token(str(file), {"RAY_AUTH_TOKEN": "x"}) == "from-file"

    def test_the_environment_is_read_in_rays_order(self, tmp_path):
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("home")
        (tmp_path / "other").write_text("path")
        home = {"HOME": str(tmp_path)}
        path = {**home, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}
        assert jobs_api.read_token(None, home) == "home"
        assert jobs_api.read_token(None, path) == "path"
        assert jobs_api.read_token(None, {**path, "RAY_AUTH_TOKEN": " direct "}) == "direct"

    def test_no_token_anywhere_is_none(self, tmp_path):
        assert jobs_api.read_token(None, {"HOME": str(tmp_path)}) is None

    def test_a_named_file_that_is_absent_or_empty_is_refused(self, tmp_path):
        with pytest.raises(SubmissionError, match=r"No such file.*type: ray get-auth-token"):
            jobs_api.read_token(str(tmp_path / "no"), {})
        (tmp_path / "empty").touch()
        with pytest.raises(SubmissionError, match="is empty"):
            jobs_api.read_token(str(tmp_path / "empty"), {})

    @pytest.mark.parametrize(
        "said", [b"a b", b"a\nb\n", b"a\r\nb", b"x\xff", "ä".encode(), b"a\x1b[2J", b"a\0b"]
    )
    def test_what_no_header_can_hold_is_refused_and_not_repeated(self, tmp_path, said):
        (tmp_path / "token").write_bytes(said)
        with pytest.raises(SubmissionError, match="more than one word") as refused:
            jobs_api.read_token(str(tmp_path / "token"), {})
        assert said.decode(errors="replace") not in str(refused.value)
        with pytest.raises(SubmissionError, match="RAY_AUTH_TOKEN holds more than one word"):
            jobs_api.read_token(None, {"RAY_AUTH_TOKEN": said.decode(errors="replace")})

    @pytest.mark.parametrize("end", ["", "\n", "\r\n", " \n\n"])
    def test_the_end_of_its_line_is_not_part_of_a_token(self, tmp_path, end):
        (tmp_path / "token").write_bytes(f"abc{end}".encode())
        assert jobs_api.read_token(str(tmp_path / "token"), {}) == "abc"


class TestAddress:
    @pytest.mark.parametrize("address", ["ray://h:10001", "h:8265", "auto", "http://"])
    def test_only_the_dashboards_url_is_an_address(self, address):
        with pytest.raises(ConfigError, match="expected the dashboard's URL"):
            jobs_api.check_address(address)

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("http://127.0.0.1:8265", True),
            ("http://127.8.0.1:8265", True),
            ("http://localhost:8265", True),
            ("http://[::1]:8265", True),
            ("http://10.0.0.1:8265", False),
            ("https://cluster.example.com", False),
        ],
    )
    def test_loopback_is_told_from_the_network(self, address, expected):
        assert jobs_api.is_loopback(address) is expected

    def test_a_variable_that_would_win_over_the_address_is_refused(self):
        with pytest.raises(SubmissionError, match="unset RAY_ADDRESS"):
            jobs_api.connect(ADDRESS, None, {"RAY_ADDRESS": "http://elsewhere:8265"})

    def test_a_cluster_with_another_ray_is_refused(self):
        with pytest.raises(SubmissionError, match=r"runs Ray 2\.40\.0, this project needs ray"):
            jobs_api._check_version(ADDRESS, "2.40.0")
        jobs_api._check_version(ADDRESS, "2.60.0")

    def test_nobody_there_says_how_to_open_a_tunnel(self):
        with pytest.raises(SubmissionError, match="type: ssh -N -L 8265"):
            jobs_api.connect("http://127.0.0.1:9", None, {})


class TestWhatTravels:
    def submit(self, client, **changes):
        arguments = {
            "submission_id": "affuse-x",
            "packages": ["torch==1"],
            "env": {"A": "1"},
            "entrypoint": Entrypoint(),
            **changes,
        }
        return submission.submit(client, ["features", "import"], {"root": "s3://b"}, **arguments)

    def test_the_packages_and_metadata_and_nothing_beside_them(self):
        client = FakeClient()
        assert self.submit(client) == "affuse-x"
        tops = {file.split("/")[0] for file in client.shipped}
        assert tops == {*shipping.PACKAGES, *shipping.METADATA, submission.CONFIG_FILE}
        assert not [file for file in client.shipped if "__pycache__" in file or "/." in file]
        assert "jobs/submit.py" in client.shipped

    def test_the_entrypoint_reads_the_config_and_the_environment_is_what_was_asked(self):
        client = FakeClient()
        self.submit(client)
        assert client.sent["entrypoint"] == "python -m jobs features import --config submitted.json"
        assert client.sent["runtime_env"]["env_vars"] == {"PYTHONUNBUFFERED": "1", "A": "1"}
        assert client.sent["runtime_env"]["pip"]["packages"] == ["torch==1"]

    def test_an_image_with_everything_installs_nothing(self):
        client = FakeClient()
        self.submit(client, packages=[])
        assert "pip" not in client.sent["runtime_env"]

    def test_only_resources_that_were_asked_for_are_reserved(self):
        assert Entrypoint().arguments() == {}
        assert Entrypoint(num_cpus=2, memory_gb=1.5).arguments() == {
            "entrypoint_num_cpus": 2,
            "entrypoint_memory": 3 * 2**29,
        }

    def test_a_refusal_is_its_last_line(self):
        refuse = RuntimeError("status 500: Traceback\n  File x\nValueError: id is taken.\n.\n")
        with pytest.raises(SubmissionError, match=r"affuse-x was refused: ValueError: id is taken"):
            self.submit(FakeClient(refuse=refuse))


class TestTheSameCommandAgain:
    WORDS, CONFIG = ("features", "import"), {"root": "s3://b", "rate": 1.0}

    def known(self, *jobs, words=WORDS, config=CONFIG):
        client = FakeClient()
        found = [
            Details(submission_id=name, status=status, metadata=metadata)
            for name, status, metadata in jobs
        ]
        client.list_jobs = lambda: found
        return submission.known(client, words, config)

    def sent(self, words=WORDS, config=CONFIG):
        client = FakeClient()
        submission.submit(
            client, words, config, submission_id="x", packages=[], env={}, entrypoint=Entrypoint()
        )
        return client.sent["metadata"]

    @pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
    def test_a_command_that_runs_or_waits_is_found(self, status):
        assert self.known(("a", status, self.sent())).running == "a"

    @pytest.mark.parametrize("status", submission.TERMINAL)
    def test_one_that_ended_is_submitted_again_and_its_id_counts_on(self, status):
        first = self.known().next_id
        assert first.startswith("affuse-features-import-")
        assert first.endswith("-1")
        after = self.known((first, status, self.sent()))
        assert after.running is None
        assert after.next_id == first.removesuffix("1") + "2"

    @pytest.mark.parametrize(
        ("words", "config"),
        [(("features", "export"), CONFIG), (WORDS, CONFIG | {"rate": 2.0}), (WORDS, {})],
    )
    def test_another_command_is_another_job(self, words, config):
        other = self.known(("a", "RUNNING", self.sent(words, config)))
        assert other.running is None
        assert other.next_id != self.known(words=words, config=config).next_id

    def test_jobs_of_others_and_of_no_submission_are_passed_over(self):
        assert (
            self.known(
                ("a", "RUNNING", None), (None, "RUNNING", None), ("b", "RUNNING", {})
            ).running
            is None
        )

    def test_order_in_the_config_makes_no_difference(self):
        turned = dict(reversed(self.CONFIG.items()))
        assert self.known(("a", "RUNNING", self.sent(config=turned))).running == "a"


def test_rays_own_news_do_not_stand_between_the_lines_of_a_job(monkeypatch):
    sdk = pytest.importorskip("ray.job_submission")
    monkeypatch.setattr(jobs_api, "_ask_version", lambda *_: ray.__version__)
    monkeypatch.setattr(sdk, "JobSubmissionClient", lambda *_, **__: object())
    names = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
    loggers = [logging.getLogger(name) for name in names]
    for each in loggers:
        monkeypatch.setattr(each, "level", logging.INFO)  # as Ray sets it
        each.manager._clear_cache()
    jobs_api.connect(ADDRESS, None, {})
    assert not any(each.isEnabledFor(logging.INFO) for each in loggers)
    assert all(each.isEnabledFor(logging.WARNING) for each in loggers)


class TestFollowing:
    def follow(self, client):
        written = []
        details = submission.follow(client, "a", "affuse submit --address U", write=written.append)
        return str(details.status), "".join(written)

    def test_the_log_is_copied_until_the_job_ends(self):
        client = FakeClient(statuses=["RUNNING", "SUCCEEDED"], connections=[["one\n", "two\n"]])
        assert self.follow(client) == ("SUCCEEDED", "one\ntwo\n")

    def test_an_ended_job_still_shows_its_log(self):
        client = FakeClient(statuses=["FAILED"], connections=[["why\n"]])
        assert self.follow(client) == ("FAILED", "why\n")

    def test_a_lost_connection_repeats_and_skips_nothing(self):
        client = FakeClient(
            statuses=["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"],
            connections=[
                ["one\ntw", RuntimeError("closed")],
                ["one\n", "two\nth", OSError("reset")],
                ["one\ntwo\nthree\n"],
            ],
        )
        assert self.follow(client) == ("SUCCEEDED", "one\ntwo\nthree\n")

    def test_a_cluster_that_stays_away_is_given_up_with_the_way_back(self):
        client = FakeClient(statuses=["RUNNING"], connections=[[OSError("reset")]])
        with pytest.raises(SubmissionError, match="affuse submit --address U --attach a"):
            self.follow(client)

    def test_an_unknown_job_names_the_latest(self):
        with pytest.raises(SubmissionError, match=r"no job 'b'; latest: a \(RUNNING\)"):
            submission.find(FakeClient(statuses=["RUNNING"]), "b")


class TestStopping:
    def test_a_running_job_is_stopped_and_waited_for(self):
        client = FakeClient(statuses=["RUNNING", "RUNNING", "STOPPED"])
        assert submission.stop(client, "a") == "STOPPED"
        assert client.stopped == ["a"]

    def test_an_ended_job_is_left_alone(self):
        client = FakeClient(statuses=["SUCCEEDED"])
        assert submission.stop(client, "a") == "SUCCEEDED"
        assert client.stopped == []

    def test_one_that_will_not_end_is_said(self):
        with pytest.raises(SubmissionError, match="still runs after 0 s"):
            submission.stop(FakeClient(statuses=["RUNNING"]), "a", wait_s=0)
