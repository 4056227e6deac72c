"""Files that are sent to a cluster: the sources of the four packages, nothing that lies beside them.

Both ways to a cluster use it: a job that is submitted, and a session that joins. A file travels because its
kind is that of a source: no data, no environment, no token, nothing whose name begins with a dot.
"""

import re
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.errors import ConfigError, SubmissionError
from cluster.settings import nearest

CHECKOUT = Path(__file__).resolve().parent.parent
"""The folder that holds our four packages."""

PACKAGES = ("cluster", "encoders", "fusion", "jobs")
METADATA = ("constraints.txt", "pyproject.toml")
SOURCES = (".py", ".c")
"""Kinds of file that a package is made of; cluster files and the page are for people, not needed there."""

MAX_SHIPPED_MB = 100.0
"""Ray refuses 500; sources that weigh more than this are something else."""

EXTRA_OF_SCHEME = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}


def shipped(checkout: Path = CHECKOUT) -> Iterator[Path]:
    """Files to send, relative to the checkout, by name."""
    yield from (Path(name) for name in METADATA if (checkout / name).is_file())
    for package in PACKAGES:
        for file in sorted((checkout / package).rglob("*")):
            inside = file.relative_to(checkout)
            hidden = any(part.startswith(".") for part in inside.parts)
            if file.suffix in SOURCES and not hidden and file.is_file():
                yield inside


def stage(folder: Path, *, checkout: Path = CHECKOUT) -> Path:
    """Copy the files to send into an empty folder.

    Raises:
        SubmissionError: it weighs too much; the largest file is named.
    """
    files = list(shipped(checkout))
    sizes = {name: (checkout / name).stat().st_size / 1e6 for name in files}
    if (total_mb := sum(sizes.values())) > MAX_SHIPPED_MB:
        largest = max(sizes, key=lambda name: sizes[name])
        raise SubmissionError(
            f"the sources in {checkout} weigh {total_mb:.0f} MB, of which {largest} "
            f"{sizes[largest]:.0f} MB; expected at most {MAX_SHIPPED_MB:.0f} MB to send to a cluster; "
            "move it out of the packages"
        )
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkout / name, folder / name)
    return folder


def requirements(extras: Sequence[str] = (), *, checkout: Path = CHECKOUT) -> list[str]:
    """Requirements that the cluster's machines install, from the project's own metadata.

    Ray is left out: a job cannot change the Ray that runs it. Versions are those that were tested,
    where the constraints file names them.

    Raises:
        ConfigError: an extra the project does not have; the nearest one is named.
    """
    from packaging.requirements import Requirement

    project = project_metadata(checkout)
    optional = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for extra in extras:
        if extra not in optional:
            raise ConfigError(f"there is no extra {extra!r}; {nearest(extra, list(optional))}")
        wanted += optional[extra]
    pinned = _constraints(checkout)
    found = []
    for requirement in map(Requirement, dict.fromkeys(wanted)):
        if requirement.name == "ray":
            continue
        version = pinned.get(_canonical(requirement.name))
        marker = f" ; {requirement.marker}" if requirement.marker else ""
        specifier = f"=={version}" if version else str(requirement.specifier)
        found.append(f"{requirement.name}{_bracketed(requirement.extras)}{specifier}{marker}")
    return found


def project_metadata(checkout: Path = CHECKOUT) -> dict[str, Any]:
    """The `[project]` table of pyproject.toml."""
    with (checkout / "pyproject.toml").open("rb") as file:
        project: dict[str, Any] = tomllib.load(file)["project"]
    return project


def _constraints(checkout: Path) -> dict[str, str]:
    file = checkout / "constraints.txt"
    if not file.is_file():
        return {}
    # A local version such as 2.13.0+cpu names this machine's build, not the cluster's.
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#+]+)", file.read_text(), flags=re.MULTILINE)
    return {_canonical(name): version for name, version in pairs}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _bracketed(extras: set[str]) -> str:
    return f"[{','.join(sorted(extras))}]" if extras else ""


def extras_for(locations: Sequence[str]) -> list[str]:
    """Extras that the schemes of some URIs need, such as `s3` for ``s3://``."""
    schemes = {urlsplit(location).scheme for location in locations}
    return sorted({EXTRA_OF_SCHEME[scheme] for scheme in schemes if scheme in EXTRA_OF_SCHEME})
