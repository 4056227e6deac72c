"""The card says what a bundle is made of, how it was judged and what it is not for; exports carry it."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from cluster import storage
from cluster.errors import ConfigError
from jobs import bundle, ensemble, train
from jobs.catalog import layout
from jobs.library.loaded_bundle import load
from jobs.registry.export import exported
from jobs.registry.model_card import card_of, yaml_head
from jobs.registry.registering import example_of, requirements, signature_of, write_card


@pytest.fixture(scope="module")
def root(write_root, tmp_path_factory):
    """A bundle of two judged nets."""
    root = write_root(str(tmp_path_factory.mktemp("card") / "root"))
    for name in ("voice", "face"):
        train.main(
            train.Config(
                root=root, run=name, inputs=(name,), net="linear", folds="speaker", refit=True,
                tasks=("emotion",), tracking=False,
            )
        )  # fmt: skip
    runs = ("voice", "face")
    ensemble.main(ensemble.Config(root=root, runs=runs, task="emotion", rule="mean", resamples=100))
    return root


@pytest.fixture(scope="module")
def card(root):
    return write_card(root, "ensemble")


class TestTheCard:
    @pytest.mark.parametrize(
        ("kind", "is_calibrated"),
        [("classification", True), ("multilabel", True), ("regression", False)],
    )
    def test_calls_probabilities_alone_calibrated(self, root, kind, is_calibrated):
        facts = storage.read_json(layout.bundle_uri(root, "ensemble", layout.BUNDLE))
        text = card_of({**facts, "kind": kind}, None)
        assert ("Probabilities are calibrated on held-out people" in text) == is_calibrated
        assert ("Errors of the values were measured on held-out" in text) != is_calibrated

    def test_lies_in_the_bundle(self, root, card):
        uri = layout.bundle_uri(root, "ensemble", layout.MODEL_CARD)
        assert storage.read_bytes(uri).decode() == card

    def test_says_data_protocol_figures_with_intervals_members_and_licences(self, card):
        assert "- data: small, manifest abc; licence: none" in card
        assert re.search(
            r"judged on \d+ clips of 6 groups that no net trained on, cross-fitted", card
        )
        assert re.search(
            r"\| ensemble \(ensemble\) \| \d+ \| \d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] \|", card
        )
        assert "- member voice: linear over voice, 1 seed(s)" in card
        assert "imported features voice-1; their licence is their maker's" in card

    def test_says_what_it_is_refused_for_and_by_which_law(self, card):
        refused = card[card.index("## Refused uses") :]
        assert "at work or in education" in refused
        assert "Regulation (EU) 2024/1689, Article 5(1)(f)" in refused
        assert "No face and no voice is in these files" in refused

    def test_names_each_pretrained_encoder_with_its_licence(self, toys, tmp_path):
        toys.bundle.write_bundle(tmp_path)
        facts = storage.read_json(f"{tmp_path}/bundles/b/bundle.json")
        text = card_of(facts, None)
        assert "- toy_text (text, " in text
        assert "it has not been judged on held-out rows" in text

    def test_names_that_people_gave_are_no_markup(self, toys, tmp_path):
        toys.bundle.write_bundle(tmp_path, classes=("<script>x</script>", "a|b", "[c](http://d)"))
        text = card_of(storage.read_json(f"{tmp_path}/bundles/b/bundle.json"), None)
        assert "<script" not in text
        assert "[c](http" not in text

    def test_the_head_for_hubs_is_yaml_with_the_figures(self, root):
        uri = layout.bundle_uri(root, "ensemble")
        facts, results = (storage.read_json(f"{uri}/{name}.json") for name in ("bundle", "results"))
        head = yaml_head(facts, results)
        assert head.startswith("---\n")
        assert head.endswith("---\n")
        read = yaml.safe_load(head.strip("-\n"))
        (model,) = read["model-index"]
        figures = {each["type"]: each["value"] for each in model["results"][0]["metrics"]}
        assert figures["accuracy"] == pytest.approx(
            results["rows"][-1]["figures"]["accuracy"]["value"], abs=1e-4
        )


class TestExport:
    @pytest.fixture(scope="class")
    def folder(self, root, tmp_path_factory):
        out = tmp_path_factory.mktemp("hub") / "out"
        bundle.main(bundle.ExportConfig(root=root, bundle="ensemble", out=str(out)))
        return out

    def test_the_folder_is_a_bundle_that_says_the_same(self, root, folder):
        frame = {"voice": [[0.5] * 6, None], "face": [[[0.1] * 4] * 3, [[1.0] * 4]]}
        here = load(str(folder)).predict(frame)
        there = load("ensemble", root=root).predict(frame)
        columns = [name for name in here if name.startswith("p_")]
        assert here[columns].to_numpy() == pytest.approx(there[columns].to_numpy(), abs=1e-9)

    def test_holds_card_example_requirements_and_no_pickle(self, folder):
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert {
            "README.md",
            "example.py",
            "requirements.txt",
            "bundle.json",
            "results.json",
        } <= files
        assert {path for path in files if path.endswith("model.safetensors")} == {
            f"nets/{run}/seed=0/model.safetensors" for run in ("voice", "face")
        }
        assert not [name for name in files if name.endswith((".pkl", ".pt", ".bin"))]
        compile((folder / "example.py").read_text(), "example.py", "exec")
        needed = (folder / "requirements.txt").read_text()
        assert "torch==" in needed
        assert needed.startswith("# affuse ")  # nothing of that name is to be had from an index

    def test_of_imported_inputs_what_the_card_says_works(self, folder, tmp_path):
        card = (folder / "README.md").read_text()
        assert "affuse score clip.mp4" not in card
        assert "$ python FOLDER/example.py features.npz" in card
        assert "face 4 wide, voice 6 wide" in card
        draws = np.random.default_rng(0)
        values = {"voice": draws.normal(size=(3, 6)), "face": draws.normal(size=(3, 2, 4))}
        np.savez(tmp_path / "features.npz", **values)
        words = [sys.executable, str(folder / "example.py"), str(tmp_path / "features.npz")]
        place = str(Path(bundle.__file__).parents[1])
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": place},
        )  # fmt: skip
        assert "p_glad" in done.stdout
        assert len(done.stdout.strip().splitlines()) == 4

    def test_of_encoders_it_says_how_raw_clips_are_scored(self, toys, tmp_path):
        toys.bundle.write_bundle(tmp_path)
        facts = storage.read_json(f"{tmp_path}/bundles/b/bundle.json")
        files = dict(exported(layout.bundle_uri(str(tmp_path), "b"), facts, None))
        assert b"$ affuse score clip.mp4 --bundle FOLDER" in files["README.md"]
        assert b"example.py CLIP" in files["example.py"]

    def test_an_input_of_any_name_leaves_the_example_a_script(self, root):
        uri = layout.bundle_uri(root, "ensemble")
        facts = json.loads(json.dumps(storage.read_json(f"{uri}/bundle.json")))
        for member in facts["members"]:
            for source in member["card"]["inputs"].values():
                source["name"] = 'a"""\nraise SystemExit\\'
        files = dict(exported(uri, facts, None))
        ast.parse(files["example.py"])
        assert b"\nraise" not in files["example.py"]

    def test_nothing_names_a_place_of_this_machine(self, root, folder):
        for path in folder.rglob("*"):
            if path.is_file():
                assert str(folder).encode() not in path.read_bytes(), path
                assert root.encode() not in path.read_bytes(), path

    def test_again_it_is_the_same_and_what_is_not_its_own_stays(self, root, folder, tmp_path):
        bundle.main(bundle.ExportConfig(root=root, bundle="ensemble", out=str(folder)))
        (tmp_path / "README.md").write_text("mine")
        with pytest.raises(ConfigError, match="README"):
            bundle.main(bundle.ExportConfig(root=root, bundle="ensemble", out=str(tmp_path)))
        assert (tmp_path / "README.md").read_text() == "mine"

    def test_what_has_no_nets_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="has no nets of its own"):
            bundle.main(bundle.ExportConfig(bundle="face_expression", out=str(tmp_path)))


class TestTheSignature:
    def test_names_what_comes_out_as_it_comes_out(self, root):
        opened = load("ensemble", root=root)
        example = example_of(opened)
        answered = opened.predict(example)
        signature = signature_of(opened)
        assert signature.outputs.input_names() == [*answered]
        assert set(example) <= set(signature.inputs.input_names())

    def test_requirements_are_pinned_and_of_no_machine(self):
        for line in requirements():
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
