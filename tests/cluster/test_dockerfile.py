"""The Dockerfile is well formed, and what it copies and runs works, as far as shows without a container."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "cluster" / "configs" / "Dockerfile"
KNOWN = {"ARG", "FROM", "WORKDIR", "COPY", "RUN"}


def instructions():
    """(instruction, words) of the file, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A folder with what the COPY lines put into the image's."""
    folder = tmp_path_factory.mktemp("image")
    for name, words in instructions():
        if name != "COPY":
            continue
        owner, *sources, target = words.split()
        assert owner == "--chown=ray:users", "files of root could not be replaced in the image"
        for source in sources:
            assert not Path(source).is_absolute()
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, folder / target, ignore=ignored)
            else:
                shutil.copy(ROOT / source, folder / target)
    return folder


class TestInstructions:
    def test_each_is_known_and_starts_from_one_base_that_can_be_named_by_digest(self):
        found = instructions()
        assert {name for name, _ in found} <= KNOWN
        assert [name for name, _ in found[:2]] == ["ARG", "FROM"]
        assert found[0][1].startswith("BASE=rayproject/ray:")
        assert [words for name, words in found if name == "FROM"] == ["${BASE}"]

    def test_nothing_runs_as_root_and_nothing_is_fetched_by_a_script(self):
        for _, words in instructions():
            assert not re.search(r"\bsudo\b|\bcurl\b|\bwget\b|\bADD\b|USER root", words)

    def test_the_cache_of_pip_does_not_stay_in_the_image(self):
        for name, words in instructions():
            if name == "RUN" and "pip install" in words:
                assert "--no-cache-dir" in words
                assert "--constraint" in words


class TestWhatIsCopied:
    def test_it_is_enough_to_build_the_project(self, image, tmp_path):
        """Metadata is built by the backend from the copied files alone; nothing is installed or fetched."""
        pytest.importorskip("setuptools", minversion="77")
        code = (
            "import setuptools.build_meta as backend, sys; "
            "print(backend.prepare_metadata_for_build_editable(sys.argv[1]))"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
            cwd=image,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        (metadata,) = tmp_path.glob("*.dist-info/METADATA")
        text = metadata.read_text()
        assert "License-File: LICENSE" in text
        assert "Provides-Extra: offline" in text
        assert "Provides-Extra: s3" in text
        (points,) = tmp_path.glob("*.dist-info/entry_points.txt")
        assert "affuse = jobs.__main__:main" in points.read_text()

    def test_the_command_line_runs_from_it(self, image, tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "jobs", "encode", "--list"],
            cwd=image,
            env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(image)},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        assert "hubert_base" in done.stdout

    def test_a_joining_session_finds_there_what_it_sends(self, image):
        from cluster.shipping import METADATA, PACKAGES, shipped

        tops = {path.parts[0] for path in shipped(image)}
        assert tops == {*METADATA, *PACKAGES}


class TestConstraints:
    @pytest.fixture(scope="class")
    def written(self, image, tmp_path_factory):
        """The constraints that the first half of the RUN line writes, run by a shell."""
        (run,) = (words for name, words in instructions() if name == "RUN")
        target = tmp_path_factory.mktemp("run") / "constraints.txt"
        first = run.split("&&")[0].replace("/tmp/constraints.txt", str(target))
        subprocess.run(["bash", "-c", first], cwd=image, check=True, timeout=60)
        return target.read_text()

    def test_no_build_for_the_cpu_alone_is_asked_for(self, written):
        assert "+cpu" not in written
        assert re.search(r"^torch==[\d.]+$", written, re.MULTILINE)

    def test_they_allow_the_ray_of_the_base_image(self, written):
        (base,) = (words for name, words in instructions() if name == "ARG")
        version = re.search(r"ray:([\d.]+)-py311", base)[1]
        assert f"ray=={version}\n" in written

    def test_every_requirement_of_the_installed_extras_can_be_met_by_them(self, written):
        """A resolver would stop at a pin outside of what the metadata asks for; no index is asked."""
        from cluster.shipping import project_metadata

        project = project_metadata(ROOT)
        optional = project["optional-dependencies"]
        wanted = [*project["dependencies"], *optional["offline"], *optional["s3"]]
        pins = dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)$", written, re.MULTILINE))
        assert len(pins) > 50
        for requirement in map(Requirement, wanted):
            if requirement.name in pins:
                assert requirement.specifier.contains(pins[requirement.name]), requirement
