"""Run any job on a Ray cluster: the same command line, after `--`. Or write the file that starts a cluster.

Reads:  the checkout, the job's flags, and the token of the cluster
Writes: nothing here; the job writes below its root, which every machine of the cluster must see.
        With --render: --out FILE and FILE.config.json, or what is printed

Tunnel:  ssh -N -L 8265:127.0.0.1:8265 HEAD
Submit:  affuse submit --token-path token -- encode --root s3://bucket/mine --encoders bert_base
Return:  affuse submit --token-path token --attach ID
Stop:    affuse submit --token-path token --stop ID
Start:   affuse submit --render slurm --cluster.nodes 4 --out job.sh -- encode --root R --encoders minilm
"""

import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster import interrupt, jobs_api, settings, shipping, storage, submission
from cluster.errors import ConfigError
from cluster.redaction import redacted
from cluster.rendering import Deployment, Target, is_secret, remarks, render
from cluster.settings import Place
from cluster.submission import Entrypoint
from jobs.catalog.outputs import check_outputs, publish_outputs, record_of

STAY_HERE = ("demo", "serve", "submit")
"""Jobs that belong to the machine in front of you."""

OF_A_FILE = ("render", "schedule", "out", "overwrite", "cluster")
"""Fields that describe a file; `env` and `command` belong to what is submitted, too."""


ENDED = 143
"""Status of a job that was stopped, for which Ray keeps none: that of SIGTERM, by which Ray stops it."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which cluster runs which job, what it installs, and how the job is followed."""

    address: str = "http://127.0.0.1:8265"
    """URL of the cluster's dashboard; a tunnel keeps it off the network."""

    token_path: Place | None = None
    """File with the cluster's token. Else RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token."""

    follow: bool = True
    """Copy the log of the job until it ends, and exit with its status; else return once it is accepted."""

    submission_id: str | None = None
    """Name of the job on the cluster; by default its kind, the hash of its command, and a number."""

    attach: str | None = None
    """Follow the job of this submission id again instead of submitting."""

    stop: str | None = None
    """End the job of this submission id instead of submitting."""

    pip: bool = True
    """Install the project's requirements on the cluster; --no-pip where the image has them."""

    extras: tuple[str, ...] = ("offline",)
    """Extras of the project to install; those of s3:// and gs:// roots are added."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of the job and its workers, NAME=VALUE; no other variable is passed on."""

    num_cpus: float = 0.0
    """CPUs to reserve for the job's driver; 0: the head node, unreserved."""

    num_gpus: float = 0.0
    """GPUs to reserve for the job's driver; its workers ask for their own."""

    memory_gb: float = 0.0
    """Memory to reserve for the job's driver [GiB]."""

    render: Target | None = None
    """Write a finished file for a Slurm, KubeRay or AWS cluster instead of submitting."""

    schedule: str | None = None
    """Line of cron (UTC) by which a job of --render kuberay runs again and again, as in '0 3 * * *'."""

    out: Place | None = None
    """File to write with --render; by default it is printed."""

    overwrite: bool = False
    """Replace an --out that no earlier run made."""

    cluster: Deployment = field(default_factory=Deployment)
    """Machines of the cluster that --render describes."""

    command: tuple[str, ...] = ()
    """Job to run, with its flags; on the command line it follows `--`."""

    def __post_init__(self) -> None:
        jobs_api.check_address(self.address)
        check_kind(self)
        if self.render is not None:
            return
        chosen = sum(map(bool, (self.command, self.attach, self.stop)))
        if chosen != 1:
            raise ConfigError(
                "expected one of: a job after --, --attach ID, --stop ID; "
                "type: affuse submit --address URL -- encode --root s3://..."
            )
        if min(self.num_cpus, self.num_gpus, self.memory_gb) < 0:
            raise ConfigError("num_cpus, num_gpus and memory_gb are zero or more")


def configure(argv: list[str]) -> Config:
    """Flags before `--`, another job's command line after it."""
    from jobs._cli import parse_config

    flags, given = argv, {}
    if "--" in argv:
        cut = argv.index("--")
        flags, given = argv[:cut], {"command": argv[cut + 1 :]}
    config = parse_config("affuse submit", Config, flags, description=__doc__ or "", given=given)
    assert isinstance(config, Config)
    return config


def check_kind(config: Config) -> None:
    """Refuse flags of a submission where a file is written, and of a file where a job is submitted.

    Raises:
        ConfigError: naming the first one.
    """
    for each in dataclasses.fields(config):
        of_both = each.name in ("env", "command")
        if of_both or (each.name in OF_A_FILE) == (config.render is not None):
            continue
        unset = (
            each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        )
        if getattr(config, each.name) != unset:
            why = (
                "is for --render KIND" if config.render is None else "has no meaning with --render"
            )
            raise ConfigError(f"{flag(each.name)} {why}; leave one of them out")


def main(config: Config) -> None:
    """Submit, follow or stop, and exit with the job's own status; or write a file."""
    if config.render is not None:
        write_file(config, config.render)
        return
    check_variables(config.env)
    token = jobs_api.read_token(config.token_path, os.environ)
    job = None if not config.command else resolve(config.command, config.address)
    client = jobs_api.connect(config.address, token, os.environ)
    if config.stop is not None:
        print(f"{config.stop}: {submission.stop(client, config.stop)}")
        return
    name = config.attach if job is None else send(client, job, config)
    assert name is not None
    if config.follow:
        sys.exit(watch(client, name, config))
    print(f"{name} goes on; type: {again(config)} --attach {name}")


def again(config: Config) -> str:
    """How this cluster is asked once more: with its address, and the token where a file was named."""
    token = () if config.token_path is None else ("--token-path", config.token_path)
    return shlex.join(("affuse", "submit", "--address", config.address, *token))


def write_file(config: Config, target: Target) -> None:
    """Render the file of a cluster, with a command that was parsed here; print it, or write it to --out."""
    if config.command:
        # The nodes of a Slurm cluster share this machine's folders, those of the others do not.
        resolve(config.command, config.address if target == "slurm" else target)
    text = render(target, config.cluster, config.command, config.env, schedule=config.schedule)
    for remark in remarks(text):
        print(f"affuse submit: {remark}", file=sys.stderr)
    if config.out is None:
        print(text, end="")
        return
    out = storage.absolute(config.out)
    check_outputs([out], record_of(out), overwrite=config.overwrite)
    publish_outputs(config, {out: text.encode()}, record_of(out))
    print(f"wrote {out}")


@dataclass(frozen=True)
class Job:
    """The parsed command line of another job."""

    words: tuple[str, ...]
    """The job and, where it has commands of its own, the command."""

    values: Mapping[str, Any]
    """Its resolved config, places made absolute."""

    places: tuple[str, ...]
    """Where it reads and writes; on a cluster they must mean the same everywhere."""


def resolve(command: Sequence[str], address: str) -> Job:
    """Parse a job's command line here, so that a typo never reaches the cluster.

    Raises:
        ConfigError: no such job, one that does not run on a cluster, a bad flag, a secret, or a path
            of this machine for a cluster elsewhere.
    """
    import importlib

    from jobs import JOBS
    from jobs._cli import parse

    name, *rest = command
    if name not in JOBS:
        raise ConfigError(f"there is no job {name!r}; {settings.nearest(name, list(JOBS))}")
    if name in STAY_HERE:
        raise ConfigError(f"{name} runs on your own machine; it cannot be submitted")
    module = importlib.import_module(f"jobs.{name}")
    config = parse(name, module, rest)
    check_secrets(settings.to_mapping(config))
    for key, place in settings.places(config):
        if not is_default(config, key, place):
            check_place(key, place, address)
    has_commands = hasattr(module, "COMMANDS") or hasattr(module, "configure")
    words = (name, rest[0]) if has_commands and not rest[0].startswith("-") else (name,)
    values = settings.resolved(config)
    places = tuple(place for _, place in settings.places(config))
    return Job(words, values, places)


def check_secrets(values: Mapping[str, Any]) -> None:
    """Refuse a password, token or signature in the command: the cluster stores it and shows it.

    Raises:
        ConfigError: naming the flag, without the secret.
    """
    for key, value in values.items():
        if (shown := redacted(value)) != value:
            raise ConfigError(
                f"{flag(key)} {shown} holds a secret, which the cluster would store and show; leave it "
                "out, and set it in the environment of the cluster's machines, such as "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )


def check_variables(env: Mapping[str, str]) -> None:
    """Refuse a secret among the variables of a job: the cluster writes them into its logs and shows them.

    Raises:
        ConfigError: naming the variable, without its value.
    """
    for name, value in env.items():
        if is_secret(name, value):
            raise ConfigError(
                f"--env {name} holds a secret, which the cluster would store and show; leave it out, and set "
                "it in the environment of the cluster's machines"
            )


def is_default(config: Any, key: str, place: str) -> bool:
    """Whether a place is a default such as `~/.cache/affuse/store`, of which each machine has its own."""
    found: Any = config
    *above, last = key.split(".")
    for name in above:
        found = getattr(found, name)
    return bool(type(found).__dataclass_fields__[last].default == place)


def check_place(key: str, place: str, address: str) -> None:
    """Refuse a plain path where the cluster is another machine.

    Raises:
        ConfigError: naming the two ways out.
    """
    if "://" not in place and not jobs_api.is_loopback(address):
        raise ConfigError(
            f"{flag(key)} {place} is a path of this machine, which the cluster at {address} does not "
            f"see; give s3://..., or file://{storage.absolute(place)} for a folder that is "
            "mounted under this name on every machine"
        )


def flag(key: str) -> str:
    """A field as it is typed."""
    return f"--{key.replace('_', '-')}"


def send(client: Any, job: Job, config: Config) -> str:
    """Submit, and print what is sent and what is installed; a command that runs already is found instead."""
    known = submission.known(client, job.words, job.values)
    if known.running is not None and config.submission_id in (None, known.running):
        print(f"{known.running} is this command and has not ended: no second one is started")
        return known.running
    packages: list[str] = []
    if config.pip:
        extras = sorted({*config.extras, *shipping.extras_for(job.places)})
        packages = shipping.requirements(extras)
        print(f"installing {len(packages)} requirements there (extras: {', '.join(extras)})")
    if not jobs_api.is_loopback(config.address) and config.address.startswith("http://"):
        print("warning: http to another machine shows the token to the network; use a tunnel")
    name = submission.submit(
        client,
        job.words,
        job.values,
        submission_id=config.submission_id or known.next_id,
        packages=packages,
        env=config.env,
        entrypoint=Entrypoint(
            num_cpus=config.num_cpus, num_gpus=config.num_gpus, memory_gb=config.memory_gb
        ),
    )
    print(f"{name}: accepted by {config.address}", flush=True)
    return name


def watch(client: Any, name: str, config: Config) -> int:
    """Follow the log; return the job's exit status."""
    try:
        details = submission.follow(
            client, name, again(config), write=lambda text: print(text, end="", flush=True)
        )
    except KeyboardInterrupt:
        print(
            f"\n{name} goes on; {again(config)} --attach {name} follows it, --stop {name} ends it"
        )
        return interrupt.status()
    status = str(details.status)
    print(f"{name}: {status}")
    if status == "SUCCEEDED":
        return 0
    reason = (details.message or status).splitlines()[0].split(", last available logs")[0]
    print(f"affuse submit: {name}: {reason}", file=sys.stderr)
    return details.driver_exit_code or (ENDED if status == "STOPPED" else 1)
