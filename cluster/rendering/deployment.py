"""One description of a cluster's machines, for every kind of cluster file."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.errors import ConfigError
from cluster.redaction import redacted
from cluster.rendering.cron import check_cron
from cluster.session_token import SETTINGS as TOKEN_SETTINGS

Target = Literal["slurm", "kuberay", "aws"]

RAY = "2.60.0"
"""Release of Ray that the files start; the one of constraints.txt."""

ONLY: Mapping[str, tuple[Target, ...]] = {
    "memory_gb": ("slurm", "kuberay"),
    "time_limit_h": ("slurm", "kuberay"),
    "secrets": ("slurm", "kuberay"),
    "image": ("kuberay", "aws"),
    "identity": ("kuberay", "aws"),
    "partition": ("slurm",),
    "account": ("slurm",),
    "instance_type": ("aws",),
    "region": ("aws",),
    "spot": ("aws",),
}
"""Fields that some kinds of cluster have; elsewhere they are refused instead of being passed over."""

NAMES: Mapping[Target, tuple[str, int]] = {
    "slurm": (r"[A-Za-z0-9][A-Za-z0-9._-]*", 64),
    "kuberay": (r"[a-z]([a-z0-9-]*[a-z0-9])?", 47),
    "aws": (r"[A-Za-z][A-Za-z0-9-]*", 63),
}
"""Pattern and longest length of a cluster's or job's name; KubeRay appends to it."""

MOST = 100_000
"""Beyond it a number is a slip, and for some clusters no number."""

SCHEDULED_NAME = 36
"""Longest name of a job on a schedule, of which each run gets a longer one."""

GPU_KIND = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
SLURM_WORD = r"[A-Za-z0-9][A-Za-z0-9._,-]{0,127}"
DNS_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
PROFILE = r"arn:aws[a-z-]*:iam::(\d{12}|ACCOUNT):instance-profile/[\w+=,.@/-]+"
REGION = r"[a-z]{2}(-[a-z]+)+-\d"
INSTANCE = r"[a-z][a-z0-9-]*\.[a-z0-9-]+"
EXPECTED = {
    "image": "NAME:TAG or NAME@sha256: and 64 hexadecimal digits, as in ghcr.io/you/affuse:0.1.0"
}
"""What a field takes, where its pattern is no help to a reader."""

IMAGE = r"[A-Za-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?"
RESERVED = frozenset({*TOKEN_SETTINGS, "RAY_ADDRESS", "head", "hosts", "status"})
"""Variables that the files set themselves: the token above all."""

SECRET_NAME = re.compile(
    r"secret|token(?!izer)|passw|credential|(api|access|private)_?key", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Machines of a cluster that a file for it asks for."""

    name: str = "affuse"
    """Name of the cluster or job."""

    nodes: int = 8
    """Machines with GPUs at most, besides the head of KubeRay and AWS; Slurm gives them all at once."""

    min_nodes: int = 0
    """Machines that stay while there is nothing to do; on Slurm the fewest to start with (0: all)."""

    cpus: int | None = None
    """CPUs of a machine; by default 16 on Slurm, 14 on KubeRay, those of the instance on AWS."""

    gpus: int = 1
    """GPUs of a machine; 0: none."""

    gpu_kind: str | None = None
    """Kind of GPU as the cluster names it: `a100` (Slurm), `NVIDIA-L4` (KubeRay, a label), `L4` (AWS)."""

    memory_gb: int | None = None
    """Memory of a machine [GiB]; by default the whole node on Slurm, 56 on KubeRay."""

    image: str | None = None
    """Image with Ray and this project (cluster/configs/Dockerfile), by digest: NAME@sha256:..."""

    identity: str | None = None
    """Who may use the bucket: a service account of KubeRay, the ARN of an instance profile on AWS."""

    secrets: tuple[str, ...] = ()
    """Names of Kubernetes Secrets, or of variables that Slurm's sbatch has to find; never their values."""

    time_limit_h: float | None = None
    """End of the job [h]; by default 24 on Slurm, 48 on KubeRay."""

    partition: str | None = None
    """Slurm: partition."""

    account: str | None = None
    """Slurm: account that pays."""

    instance_type: str | None = None
    """AWS: type of machine; by default the one that has these GPUs."""

    region: str = "us-east-1"
    """AWS: region."""

    spot: bool = True
    """AWS: machines that may be taken away; one that is costs the unit it works on."""

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MOST or not 0 <= self.min_nodes <= self.nodes:
            raise ConfigError(
                f"--cluster.nodes {self.nodes} --cluster.min-nodes {self.min_nodes}: expected 1 or more "
                "machines, and at most as many that stay"
            )
        for name in ("cpus", "memory_gb", "time_limit_h"):
            if (value := getattr(self, name)) is not None and not 0 < value <= MOST:
                raise ConfigError(f"{_flag(name)} {value}: expected more than 0, at most {MOST}")
        if self.gpus < 0:
            raise ConfigError(f"--cluster.gpus {self.gpus}: expected 0 or more")
        if self.gpu_kind is not None and not self.gpus:
            raise ConfigError(f"--cluster.gpu-kind {self.gpu_kind}: the machines have no GPU")

    def check(self, target: Target) -> None:
        """Refuse what a kind of cluster does not have, and names that it would not take.

        Raises:
            ConfigError: naming the field.
        """
        for field in dataclasses.fields(self):
            targets = ONLY.get(field.name, (target,))
            if target not in targets and getattr(self, field.name) != field.default:
                raise ConfigError(
                    f"{_flag(field.name)} is for {' and '.join(targets)}; {target} has no such thing"
                )
        pattern, longest = NAMES[target]
        _check_word("name", self.name, pattern)
        if len(self.name) > longest:
            raise ConfigError(f"--cluster.name {self.name}: expected at most {longest} characters")
        _check_word("gpu_kind", self.gpu_kind, GPU_KIND)
        _check_word("image", self.image, IMAGE)
        _check_word("identity", self.identity, PROFILE if target == "aws" else DNS_NAME)
        _check_word("partition", self.partition, SLURM_WORD)
        _check_word("account", self.account, SLURM_WORD)
        _check_word("region", self.region, REGION)
        _check_word("instance_type", self.instance_type, INSTANCE)
        for secret in self.secrets:
            _check_word("secrets", secret, VARIABLE if target == "slurm" else DNS_NAME)


def is_secret(name: str, value: str) -> bool:
    """Whether a variable looks like one that must not be written down."""
    return bool(SECRET_NAME.search(name)) or redacted(value) != value


def check_environment(env: Mapping[str, str]) -> None:
    """Refuse variables that are no variables, and secrets: whoever reads the file reads them.

    Raises:
        ConfigError: naming the variable.
    """
    for name, value in env.items():
        if not re.fullmatch(VARIABLE, name) or not value.isprintable():
            raise ConfigError(f"--env {name}: expected NAME=VALUE, a name and one line of text")
        if name in RESERVED:
            raise ConfigError(f"--env {name} is set by the file itself; leave it out")
        if is_secret(name, value):
            raise ConfigError(
                f"--env {name} holds a secret, which would stand in the file; leave it out, and name by "
                "--cluster.secrets where it is kept"
            )


def check_command(command: Sequence[str]) -> None:
    """Refuse words that no file can hold.

    Raises:
        ConfigError: a word has a line break or another control character.
    """
    for word in command:
        if not word.isprintable():
            raise ConfigError(f"{word!r} in the command: expected one line of text")


def check_schedule(schedule: str, target: Target, name: str) -> None:
    """Refuse what is no line of cron, and clusters that have no schedule.

    Raises:
        ConfigError: naming the flag.
    """
    if target != "kuberay":
        raise ConfigError(f"--schedule is for kuberay; {target} has no such thing")
    check_cron(schedule)
    if len(name) > SCHEDULED_NAME:
        raise ConfigError(
            f"--cluster.name {name}: expected at most {SCHEDULED_NAME} characters with --schedule"
        )


def _check_word(field: str, value: str | None, pattern: str) -> None:
    if value is not None and not re.fullmatch(pattern, value, re.ASCII):
        raise ConfigError(
            f"{_flag(field)} {value!r}: expected {EXPECTED.get(field, f'a name like {pattern}')}"
        )


def _flag(field: str) -> str:
    return f"--cluster.{field.replace('_', '-')}"
