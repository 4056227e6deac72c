"""Submit a job to a running Ray cluster through its Jobs API, and follow it.

What travels: the sources of the four packages and the job's config as one JSON file. The cluster's machines
install what the metadata asks for, unless their image has it already. A job runs once: whoever submitted it
submits it again, and it does what is missing; while it runs, the same command finds it.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import SubmissionError
from cluster.scratch import scratch_folder
from cluster.shipping import stage

CONFIG_FILE = "submitted.json"
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
MAX_LOST_CONNECTIONS = 5
PROJECT = "affuse"


@dataclass(frozen=True, kw_only=True)
class Entrypoint:
    """Resources of the machine that runs the job's driver; all zero: the head node, unreserved."""

    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory_gb: float = 0.0

    def arguments(self) -> dict[str, Any]:
        """As the Jobs API names them; what is zero is not asked for."""
        asked = {
            "entrypoint_num_cpus": self.num_cpus,
            "entrypoint_num_gpus": self.num_gpus,
            "entrypoint_memory": int(self.memory_gb * 2**30),
        }
        return {name: value for name, value in asked.items() if value}


@dataclass(frozen=True)
class Known:
    """What a cluster knows of one command: its jobs are the same words with the same config."""

    running: str | None
    """Submission id of the one that runs or waits."""

    next_id: str
    """Id of the next one, such as ``affuse-encode-1f2e3d4c-2``; two who submit it at once name it alike."""


def known(client: Any, words: Sequence[str], config: Mapping[str, Any]) -> Known:
    """Look for jobs of the same command, of which a second one at the same time would gain nothing.

    Raises:
        SubmissionError: the cluster did not answer.
    """
    digest = digest_of(words, config)
    with refusals("the cluster did not answer"):
        jobs = [job for job in client.list_jobs() if job.submission_id]
    same = [job for job in jobs if (job.metadata or {}).get("command") == digest]
    running = [job.submission_id for job in same if str(job.status) not in TERMINAL]
    taken = {job.submission_id for job in jobs}
    ids = (f"{PROJECT}-{'-'.join(words)}-{digest}-{number}" for number in itertools.count(1))
    return Known(next(iter(running), None), next(name for name in ids if name not in taken))


def digest_of(words: Sequence[str], config: Mapping[str, Any]) -> str:
    """What two submissions of one command have in common."""
    text = json.dumps([list(words), config], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def submit(
    client: Any,
    words: Sequence[str],
    config: Mapping[str, Any],
    *,
    submission_id: str,
    packages: Sequence[str],
    env: Mapping[str, str],
    entrypoint: Entrypoint,
) -> str:
    """Send one job and return its submission id.

    Args:
        client: from `cluster.jobs_api.connect`.
        words: the job and its command, e.g. ``["encode"]`` or ``["features", "import"]``.
        config: its resolved config.
        submission_id: must not have been used on this cluster.
        packages: requirement lines to install; none where the image has everything.
        env: environment variables of the job and its workers.
        entrypoint: what the driver reserves.

    Raises:
        SubmissionError: the cluster refused it.
    """
    with scratch_folder() as folder:
        staged = stage(Path(folder))
        (staged / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        environment: dict[str, Any] = {
            "working_dir": str(staged),
            "env_vars": {"PYTHONUNBUFFERED": "1", **env},
        }
        if packages:
            environment["pip"] = {"packages": list(packages), "pip_check": False}
        with refusals(f"job {submission_id} was refused"):
            return str(
                client.submit_job(
                    entrypoint=" ".join(["python -m jobs", *words, "--config", CONFIG_FILE]),
                    submission_id=submission_id,
                    runtime_env=environment,
                    metadata={
                        "project": PROJECT,
                        "job": words[0],
                        "command": digest_of(words, config),
                    },
                    **entrypoint.arguments(),
                )
            )


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what Ray's client raises about a cluster into one line of ours.

    Raises:
        SubmissionError: with the cluster's own words.
    """
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except (
        RuntimeError,
        ValueError,
        ConnectionError,
        AuthenticationError,
        requests.exceptions.RequestException,
    ) as error:
        # A refusal may come with the head node's traceback, of which the last line is the reason.
        lines = [line.strip() for line in str(error).splitlines() if re.search(r"\w", line)]
        said = lines[-1] if lines else type(error).__name__
        raise SubmissionError(f"{what}: {said}") from error


def follow(client: Any, submission_id: str, again: str, *, write: Callable[[str], object]) -> Any:
    """Copy a job's log until it ends, across lost connections.

    Args:
        client: from `cluster.jobs_api.connect`.
        submission_id: the job.
        again: the command that asks this cluster once more.
        write: takes each new piece of the log.

    Returns:
        Ray's details of the ended job (status, message, driver_exit_code).

    Raises:
        SubmissionError: there is no such job, or the cluster went away.
    """
    log = _Log(write)
    lost = 0
    while str((details := find(client, submission_id)).status) not in TERMINAL or not log.whole:
        try:
            asyncio.run(log.copy(client.tail_job_logs(submission_id)))
            lost = 0
        except (RuntimeError, OSError) as error:
            # A web socket through tunnels and proxies breaks now and then; the job does not notice.
            lost += 1
            if lost > MAX_LOST_CONNECTIONS:
                raise SubmissionError(
                    f"lost the log of {submission_id}: {error}; it may still run, type: "
                    f"{again} --attach {submission_id}"
                ) from error
        time.sleep(0.5)
    return details


class _Log:
    """The log of one job, of which each connection sends the whole from its beginning."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self.write = write
        self.written = 0
        self.whole = False

    async def copy(self, pieces: AsyncIterator[str]) -> None:
        """Write what has not been written yet."""
        self.whole = False
        seen = 0
        async for piece in pieces:
            fresh = piece[max(self.written - seen, 0) :]
            seen += len(piece)
            if fresh:
                self.write(fresh)
                self.written = seen
        self.whole = True


def find(client: Any, submission_id: str) -> Any:
    """Ray's details of one job.

    Raises:
        SubmissionError: there is no such job; the latest ones are named.
    """
    with refusals("the cluster did not answer"):
        jobs = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
    if submission_id in jobs:
        return jobs[submission_id]
    latest = sorted(jobs.values(), key=lambda job: job.start_time or 0)[-5:]
    known = ", ".join(f"{job.submission_id} ({job.status})" for job in latest)
    raise SubmissionError(
        f"there is no job {submission_id!r}; latest: {known or 'none was ever submitted'}"
    )


def stop(client: Any, submission_id: str, *, wait_s: float = 60.0) -> str:
    """Ask a job to end and wait until it has.

    Returns:
        Its last status.

    Raises:
        SubmissionError: there is no such job, or it still runs after `wait_s` seconds.
    """
    if str(find(client, submission_id).status) not in TERMINAL:
        with refusals(f"job {submission_id} could not be stopped"):
            client.stop_job(submission_id)
    deadline = time.monotonic() + wait_s
    while (status := str(find(client, submission_id).status)) not in TERMINAL:
        if time.monotonic() > deadline:
            raise SubmissionError(f"job {submission_id} still runs after {wait_s:.0f} s")
        time.sleep(0.5)
    return status
