"""The places below a root: said in one file, and by no other."""

import ast
import re
from pathlib import Path

import pytest

from cluster import storage
from jobs.catalog import layout

ROOM = Path(layout.__file__).parents[1]
PAGE = ROOM.parent / "docs" / "files.md"


def texts(node: ast.AST) -> set[str]:
    """The literal parts of an expression."""
    return {
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def joined(file: Path) -> set[str]:
    """The literal names that a file joins to places."""
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    return {
        text.strip("/")
        for call in calls
        if ast.unparse(call.func) == "storage.join"
        for argument in call.args[1:]
        for text in texts(argument)
    }


CONSTANTS = {
    value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)
}
NAMES = CONSTANTS | joined(Path(layout.__file__)) - {"", ".parquet"}


def test_the_layout_knows_the_folders_of_a_root():
    folders = {"runs", "bundles", "scores", "evaluations", "looks", "folds", "reports", "shards"}
    assert folders | {"config.json", "summary.json", "bundle.json", "results.json"} <= NAMES


def test_the_page_of_files_shows_every_folder_of_a_root():
    tree = PAGE.read_text().split("```")[1]
    folders = re.findall(r"(?m)^ {4}(?:\S+, )*(\w+)/", layout.__doc__)
    assert len(folders) > 10
    assert not [name for name in folders if f"{name}/" not in tree]


@pytest.mark.parametrize(
    "file",
    sorted({str(file.relative_to(ROOM)) for file in ROOM.rglob("*.py")} - {"catalog/layout.py"}),
)
def test_no_other_file_joins_its_names(file):
    assert not joined(ROOM / file) & NAMES


@pytest.mark.parametrize("root", ["/data/own", "data/own", "s3://bucket/own", "/data/own/"])
def test_every_place_lies_below_its_root(root):
    base = root.rstrip("/")
    places = [
        layout.dataset_uri(root),
        layout.manifest_uri(root, "abc", layout.CONFIG),
        layout.features_uri(root),
        layout.features_uri(root, "minilm-1", layout.DESCRIPTOR),
        layout.part_uri(root, "voice", None, 1, layout.WEIGHTS),
        layout.part_uri(root, "voice", 2, 1, layout.PREDICTIONS),
        layout.former_uri(layout.transcripts_uri(root, "ear-1")),
    ]
    assert [place.removeprefix(base) for place in places] == [
        "/dataset.json",
        "/manifest/abc/config.json",
        "/features",
        "/features/minilm-1/descriptor.json",
        "/runs/voice/refit/seed=1/model.safetensors",
        "/runs/voice/fold=2/seed=1/predictions.parquet",
        "/former/transcripts/ear-1",
    ]


@pytest.mark.parametrize("root", ["/data/bundles/runs", "s3://bucket/runs"])
def test_the_root_of_a_net_is_found_from_its_folder(root):
    bundle = layout.bundle_uri(root, "best")
    assert layout.root_of_net(layout.part_uri(root, "voice", 0, 0)) == root or "bundles" in root
    assert layout.root_of_net(layout.nets_uri(bundle, "voice", "seed=0")) == root


def test_runs_and_bundles_are_named_by_their_folders(tmp_path):
    for uri in (
        layout.run_uri(str(tmp_path), "a", "x"),
        layout.bundle_uri(str(tmp_path), "b", "x"),
    ):
        storage.publish_bytes(b"", uri)
    storage.publish_bytes(b"", layout.folds_uri(str(tmp_path), "five"))
    there = (layout.runs_there, layout.bundles_there, layout.folds_there)
    assert [names(str(tmp_path)) for names in there] == [["a"], ["b"], ["five"]]
