"""A Ray session: joins the cluster that was named, or starts one on this machine and stops it again.

A session stops only what it started. Ray listens on every interface of the machine, so a local one accepts
only who has its token, which is random and lives in the environment of its own processes; where a cluster
is joined, the user's token is used. Workers import the packages of the same checkout as the driver.
"""

import logging
import os
import platform
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import interrupt
from cluster.errors import ConfigError, MachineError
from cluster.home import expanded
from cluster.joining import QUIET, join
from cluster.scratch import anonymous_file
from cluster.session_folder import MAX_PARENT, session_folder
from cluster.session_token import fresh_token
from cluster.settings import Place
from cluster.shipping import CHECKOUT

SHARED_MEMORY = "/dev/shm"

STARTS = 3
"""How often a local session is begun: Ray waits 30 s for its processes, a busy machine may take longer."""


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Ray session: which cluster is joined, or what a local session may use."""

    address: str | None = None
    """Cluster to join (``auto``, ``host:port``); by default RAY_ADDRESS, else this machine."""

    num_cpus: int | None = None
    """CPUs of a local session; by default all that this process may use."""

    num_gpus: int | None = None
    """GPUs of a local session; by default what Ray finds."""

    object_store_gb: float | None = None
    """Shared memory of a local session [GB]; by default Ray's choice."""

    temp_dir: Place | None = None
    """Folder for the sockets, logs and spilled objects of a local session; by default /tmp."""

    dashboard: bool = False
    """Start Ray's dashboard on loopback (a local session only); it asks for RAY_AUTH_TOKEN."""

    def __post_init__(self) -> None:
        if self.num_cpus is not None and self.num_cpus < 1:
            raise ValueError(f"session.num_cpus: expected 1 or more, came {self.num_cpus}")
        if len(parent := str(_parent(self))) > MAX_PARENT:
            raise ValueError(
                f"session.temp_dir: {parent} is longer than the {MAX_PARENT} characters that leave room "
                "for the names of sockets"
            )


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Resources of a machine or cluster."""

    cpus: float
    gpus: float
    memory_gb: float
    object_store_gb: float
    nodes: int = 1
    elastic: bool = False
    """Machines may come and go while a stream runs."""

    node_cpus: float | None = None
    """CPUs of the smallest machine; None: all of them are of one."""

    gpu_memory_gb: float | None = None
    """Memory of the smallest GPU; None: not known."""

    wanted: tuple[Mapping[str, float], ...] = ()
    """Resources of every machine to ask an autoscaler for."""


@contextmanager
def ray_session(config: SessionConfig) -> Iterator[None]:
    """Hold a connection to Ray; an open one is used as it is and left open.

    Raises:
        PlanError: the named cluster cannot be reached.
        ConfigError: Ray does not take the size of the object store.
        MachineError: Ray does not start here, mostly since the machine is too busy.
        StorageError: the disk of a local session is full, or nothing can be written there.
    """
    _quiet_environment(local=cluster_address(config) is None)
    import ray

    if ray.is_initialized():
        yield
        return
    with ExitStack() as ends:
        address = cluster_address(config)
        if address is not None:
            ends.callback(ray.shutdown)
            join(address)
        else:
            # With a random token nobody could open the dashboard that was asked for.
            chosen = os.environ.get("RAY_AUTH_TOKEN") if config.dashboard else None
            ends.enter_context(fresh_token(chosen))
            with _muted_stderr():
                ends.enter_context(_started(config))
        _quiet_data()
        yield


def cluster_address(config: SessionConfig) -> str | None:
    """The cluster that a session would join; None for a session on this machine."""
    address = config.address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def local_capacity(config: SessionConfig) -> Capacity | None:
    """Resources of a local session, known without starting it; None where a cluster is joined."""
    if cluster_address(config) is not None:
        return None
    memory_gb = memory_available_gb()
    return Capacity(
        cpus=config.num_cpus or usable_cpus(),
        gpus=_visible_gpus() if config.num_gpus is None else config.num_gpus,
        memory_gb=memory_gb,
        object_store_gb=config.object_store_gb or 0.3 * memory_gb,
    )


def cluster_capacity() -> Capacity:
    """Resources of the connected cluster, summed over all nodes."""
    import ray

    total = ray.cluster_resources()
    return Capacity(
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        memory_gb=total.get("memory", 0.0) / 1e9,
        object_store_gb=total.get("object_store_memory", 0.0) / 1e9,
        nodes=sum(1 for node in ray.nodes() if node["Alive"]),
    )


def node_kind() -> str:
    """Kinds of machines in the connected cluster; a measurement holds for these alone."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    shapes = set()
    for node in alive:
        has = node["Resources"]
        devices = sorted(name for name in has if name.startswith("accelerator_type:"))
        shapes.add(f"{has.get('CPU', 0):g} CPU, {has.get('GPU', 0):g} GPU {' '.join(devices)}")
    if len(alive) == 1 and alive[0]["NodeManagerHostname"] == socket.gethostname():
        shapes.add(processor())
    return "; ".join(sorted(shapes))


def processor() -> str:
    """The name of this machine's processor."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_available_gb() -> float:
    """Memory that new processes may use [GB]: what is free, or what is left of the cgroup's limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free_kb = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (FileNotFoundError, StopIteration):
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return pages / 1e9
    free_gb = free_kb * 1024 / 1e9
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        free_gb = min(free_gb, (int(text) - int(used.read_text())) / 1e9)
    return free_gb


def _parent(config: SessionConfig) -> Path:
    return Path(expanded(config.temp_dir or "/tmp")).absolute()


def _started(config: SessionConfig) -> ExitStack:
    """A local session that began, as what ends it; one that a busy machine kept down is begun again."""
    import ray

    for left in reversed(range(STARTS)):
        with ExitStack() as begun:
            folder = begun.enter_context(session_folder(_parent(config)))
            begun.callback(ray.shutdown)
            try:
                _start(config, folder)
            except MachineError as error:
                if not left or not _too_slow(error):
                    raise
            else:
                return begun.pop_all()
    raise AssertionError("the last try returns or raises")


def _too_slow(error: MachineError) -> bool:
    """Whether Ray gave up waiting for a process of its own: another time it may come in time."""
    return "timed out" in str(error.__cause__)


def _start(config: SessionConfig, folder: Path) -> None:
    import ray

    store = config.object_store_gb
    try:
        ray.init(
            address="local",
            num_cpus=config.num_cpus or usable_cpus(),
            num_gpus=config.num_gpus,
            object_store_memory=None if store is None else int(store * 1e9),
            include_dashboard=config.dashboard,
            dashboard_host="127.0.0.1",
            _temp_dir=str(folder),
            **QUIET,
        )
        interrupt.obey_again()
    except FileNotFoundError as error:
        if error.filename != SHARED_MEMORY:
            raise
        raise MachineError(
            f"Ray keeps what its workers share at {SHARED_MEMORY}, which is not there; type: "
            f"mkdir {SHARED_MEMORY} && mount -t tmpfs tmpfs {SHARED_MEMORY}"
        ) from error
    except ValueError as error:  # of a size that it does not take
        raise ConfigError(
            f"Ray does not start with these settings: {error} Type another --session.object-store-gb, "
            "or leave it out"
        ) from error
    except Exception as error:
        # A process of Ray that is not up within half a minute is told by Exception itself, others by these.
        if type(error) is not Exception and not isinstance(error, ConnectionError | RuntimeError):
            raise
        raise MachineError(
            f"Ray could not be started: {error} Over the last minute {os.getloadavg()[0]:.0f} processes "
            f"wanted the {usable_cpus()} cores, {memory_available_gb():.1f} GB of memory are free"
        ) from error


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Hold back what native code writes to stderr, and show it if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with anonymous_file() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            said.seek(0)
            os.write(2, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


DEATHS = r"^A worker died or was killed while|retries remaining, so the task will be retried"
"""What Ray prints of workers that die, at length; a job says itself what was lost with them."""


def _quiet_environment(*, local: bool) -> None:
    """Settings that Ray's processes inherit; what the user has set stays."""
    defaults = {
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_DEDUP_LOGS": "1",
        "RAY_DEDUP_LOGS_SKIP_REGEX": DEATHS,
        # Ray's own helpers ask each other without looking at the answers; once one was ended for want of
        # memory, that is an error every five seconds of a job that goes on. Those of a job's tasks are read.
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if local:
        path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if str(CHECKOUT) not in path:
            os.environ["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *filter(None, path)])
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _quiet_data() -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray\..*")


def _visible_gpus() -> int:
    """GPUs of this machine, without loading torch: Ray counts the same device files."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return len([item for item in hidden.split(",") if item.strip() not in ("", "-1")])
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
