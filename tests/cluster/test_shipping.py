"""A cluster gets the sources of the four packages and the versions that were tested; nothing beside them."""

import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cluster import shipping
from cluster.errors import ConfigError, SubmissionError

ROOT = Path(__file__).resolve().parents[2]


class TestWhatIsInstalled:
    def test_requirements_are_the_projects_own_without_ray(self):
        names = {Requirement(line).name for line in shipping.requirements()}
        assert {"torch", "mlflow", "pyarrow"} <= names
        assert "ray" not in names

    def test_an_extra_adds_its_packages_and_a_wrong_one_names_the_nearest(self):
        assert any(line.startswith("silero-vad") for line in shipping.requirements(["offline"]))
        with pytest.raises(ConfigError, match="did you mean 'offline'"):
            shipping.requirements(["ofline"])

    def test_versions_are_the_tested_ones_without_this_machines_build(self, tmp_path):
        (tmp_path / "pyproject.toml").write_text(
            "[project]\n"
            'dependencies = ["ray>=2", "torch>=2.6", "A_b[x]>=1; python_version > \'3\'", "free>=3"]\n'
            "[project.optional-dependencies]\n"
        )
        (tmp_path / "constraints.txt").write_text("torch==2.13.0+cpu\na-b==1.5\n")
        assert shipping.requirements(checkout=tmp_path) == [
            "torch==2.13.0",
            'A_b[x]==1.5 ; python_version > "3"',
            "free>=3",
        ]

    def test_a_checkout_without_constraints_keeps_its_ranges(self, tmp_path):
        (tmp_path / "pyproject.toml").write_text(
            '[project]\ndependencies = ["torch>=2.6"]\n[project.optional-dependencies]\n'
        )
        assert shipping.requirements(checkout=tmp_path) == ["torch>=2.6"]

    def test_the_scheme_of_a_root_brings_its_extra(self):
        assert shipping.extras_for(["s3://a/b", "gs://c", "/d", "file:///e"]) == ["gcs", "s3"]


class TestWhatTravels:
    def test_secrets_and_data_stay_here_wherever_they_lie(self, tmp_path):
        checkout = tmp_path / "checkout"
        stay = (
            ".env", "token", "data/mine/patients.csv", "runs/x/config.json", "notes.py", "mlflow.db",
            "jobs/.env", "jobs/.secret.py", "jobs/.cache/x.py", "jobs/token", "jobs/patients.csv",
            "jobs/__pycache__/a.pyc", "encoders/weights.safetensors", "cluster/configs/aws.yaml",
        )  # fmt: skip
        go = ("jobs/a.py", "fusion/nets/steps.c", "pyproject.toml", "encoders/text/own.py")
        for name in (*stay, *go):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_text("x")
        (tmp_path / "stage").mkdir()
        staged = shipping.stage(tmp_path / "stage", checkout=checkout)
        files = {str(f.relative_to(staged)) for f in staged.rglob("*") if f.is_file()}
        assert files == set(go)

    def test_every_file_that_the_packages_need_is_a_source(self):
        out = subprocess.run(
            ["git", "ls-files", *shipping.PACKAGES], capture_output=True, text=True, cwd=ROOT
        )
        if out.returncode or not out.stdout:
            pytest.skip("not a git checkout")
        names = {Path(name) for name in out.stdout.splitlines() if (ROOT / name).is_file()}
        people = (("cluster", "configs"), ("jobs", "serving", "page"))
        for_people = {name for name in names if name.parent.parts in people}
        assert names - for_people <= set(shipping.shipped())

    def test_what_is_too_much_to_send_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "table.py").write_bytes(b" " * 2_000_000)
        monkeypatch.setattr(shipping, "MAX_SHIPPED_MB", 1.0)
        with pytest.raises(SubmissionError, match=r"weigh 2 MB, of which jobs/table\.py 2 MB"):
            shipping.stage(tmp_path / "out", checkout=tmp_path)
