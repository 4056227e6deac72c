"""Serve a bundle: a page to speak, film, upload or type to, and POST /predict for programs.

Everything works on this machine; nothing is asked of another server. The queue is one for all visitors;
worker processes hold the models. The address is loopback; any other one asks for a token, which is printed
once or comes from AFFUSE_SERVE_TOKEN. TLS is the work of a proxy in front (docs/serve.md).

Reads:  a bundle, and the weights that it names
Writes: nothing; a visitor's files lie in a folder of their own until the answer was kept --keep-s

Laptop:    affuse serve --bundle data/demo/bundles/demo
Untrained: affuse serve
Network:   affuse serve --bundle data/demo/bundles/demo --host 0.0.0.0 --names emotion.example.org
Cluster:   affuse serve --bundle s3://bucket/mosei/bundles/best --replicas 8 --session.address auto
"""

import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cluster import storage
from cluster.errors import ConfigError, MissingExtraError
from cluster.session import SessionConfig, ray_session
from cluster.settings import NameOrPlace, Place
from jobs.serving import TOKEN

if TYPE_CHECKING:
    from jobs.serving.guard import Rules
    from jobs.serving.hands import Hand

SHORTEST_TOKEN = 16

EVERY = ("", "0.0.0.0", "::")
"""Hosts that mean all addresses of the machine."""

BACKLOG = 128
"""Visitors whom the system lets wait at the door."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is served, where, and how much one visitor may ask."""

    bundle: NameOrPlace = "face_expression"
    """Bundle: a name under --root, a folder, or face_expression, which needs no training."""

    root: Place = ""
    """Folder or URI of a dataset; a bundle's plain name is looked up under it."""

    host: str = "127.0.0.1"
    """Address to listen on; one that is not loopback asks visitors for a token."""

    port: int = 8700
    """Port to listen on; 0 takes a free one."""

    names: tuple[str, ...] = ()
    """Names by which visitors may ask for the server, beside loopback; without any, all on a --host that
    asks for a token."""

    workers: int = 1
    """Processes that hold the models."""

    replicas: int = 0
    """Ray actors that hold the models in place of --workers, a CPU each, on the cluster of --session."""

    queue: int = 64
    """Orders that may wait; more are refused."""

    max_mb: float = 64.0
    """Largest upload [MB]."""

    max_s: float = 120.0
    """Longest clip [s]."""

    per_minute: int = 30
    """Orders that one address may send in a minute."""

    keep_s: float = 300.0
    """How long an answer and its file are kept [s]."""

    limit_s: float = 300.0
    """Longest time for one order [s]."""

    store: Place | None = None
    """Store of the weights; by default ~/.cache/affuse/store, or ROOT/../store where ROOT is remote."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Ray session of --replicas: which cluster is joined, or what a local session may use."""

    def __post_init__(self) -> None:
        if self.replicas < 0:
            raise ConfigError(f"--replicas {self.replicas}: expected 0 or more")
        counts = {"workers": self.workers, "queue": self.queue, "per_minute": self.per_minute}
        sizes = {name: getattr(self, name) for name in ("max_mb", "max_s", "keep_s", "limit_s")}
        for name, value in {**counts, **sizes}.items():
            if not value > 0:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} {value:g}: expected more than 0")
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"--port {self.port}: expected 0 to 65535")


def main(config: Config) -> None:
    """Listen, load the models, and answer until Ctrl-C."""
    try:
        import uvicorn

        from jobs.serving.app import guarded
        from jobs.serving.desk import Desk
        from jobs.serving.facts import facts_of
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"serve ({error.name})", "serve") from error
    rules = rules_of(config)
    facts = facts_of(
        config.bundle, absolute_root(config), config.max_mb, config.max_s, config.keep_s
    )
    listening = listen(config.host, config.port)
    with ray_of(config):
        desk = Desk(hands_of(config), queue=config.queue, keep_s=config.keep_s)
        try:
            say_where(config, listening.getsockname()[1], rules)
            settings = uvicorn.Config(
                guarded(desk, rules, facts), log_level="warning", timeout_graceful_shutdown=1
            )
            uvicorn.Server(settings).run([listening])
        finally:
            desk.close()


def rules_of(config: Config) -> "Rules":
    """Who may ask.

    Raises:
        ConfigError: the token of the environment is too short.
    """
    from jobs.serving.guard import LOOPBACK, Rules

    token = None
    if config.host not in LOOPBACK:
        token = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
        if len(token) < SHORTEST_TOKEN or not token.isascii():
            raise ConfigError(f"{TOKEN}: expected {SHORTEST_TOKEN} ASCII letters or more")
    names = LOOPBACK | {name.lower() for name in config.names}
    return Rules(
        token=token,
        names=frozenset() if token is not None and not config.names else names,
        per_minute=config.per_minute,
        max_bytes=round(config.max_mb * 2**20),
    )


def ray_of(config: Config) -> AbstractContextManager[None]:
    """The cluster of the replicas, where there are any."""
    return ray_session(config.session) if config.replicas else nullcontext()


def hands_of(config: Config) -> "Sequence[Hand]":
    """What does the work: actors of a cluster, or processes of this machine."""
    from jobs.scoring.opening import open_bundle
    from jobs.serving.hands import ProcessHand
    from jobs.serving.judge import open_judge

    root = absolute_root(config)
    # Where it lies: other machines have another working folder, and no registry.
    bundle = open_bundle(config.bundle, root).uri or config.bundle
    start = partial(open_judge, bundle, root, config.store, config.max_s)
    if config.replicas:
        from jobs.serving.replicas import ActorHand, check_room

        check_room(config.replicas)
        return [ActorHand(start, config.limit_s) for _ in range(config.replicas)]
    return [ProcessHand(start, config.limit_s) for _ in range(config.workers)]


def absolute_root(config: Config) -> str:
    """The root, where there is one."""
    return storage.absolute(config.root) if config.root else ""


def listen(host: str, port: int) -> socket.socket:
    """A socket that visitors reach; nobody else has the port.

    Raises:
        ConfigError: the port is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)  # at once: two that are only bound may have one port
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"{host} port {port}: {error.strerror}; type another --port, or another --host"
        ) from error
    return listening


def visited(config: Config, rules: "Rules") -> str:
    """A name by which visitors reach the server, which the address that means all of them is not."""
    if rules.token is not None and config.names:
        return config.names[0]  # no other one is answered
    return socket.gethostname() if config.host in EVERY else config.host


def say_where(config: Config, port: int, rules: "Rules") -> None:
    """Print the address, once with the token."""
    host = visited(config, rules)
    shown = f"[{host}]" if ":" in host else host
    where = f"http://{shown}:{port}/"
    print(f"bundle {config.bundle}; the models are being loaded")
    if rules.token is None:
        print(f"open {where}")
    elif os.environ.get(TOKEN):
        print(f"open {where} with the token of {TOKEN}")
    else:
        print(f"open {where}?token={rules.token}")
    if rules.token is not None:
        print("the network reads along without TLS: put a proxy with TLS in front (docs/serve.md)")
    print("programs: POST /predict, described under /docs; Ctrl-C ends", flush=True)
