"""What every adapter does, on a small copy of the layout in which its dataset is handed out."""

import importlib
import shlex

import pytest

from cluster.errors import AffuseError, NotPreparedError
from cluster.settings import from_mapping
from jobs import prepare
from jobs.catalog.manifest import read_manifest
from jobs.datasets import DATASETS
from tests.jobs.datasets.official_layouts import LAYOUTS
from tests.jobs.preparing.clip_rows import checked

WITHOUT_SOURCE = {"synthetic"}
OF_ANY_FOLDER = {"arrays", "folder", "huggingface", "webdataset"}
"""They read files of your own, of any name."""
ADAPTERS = [name for name in DATASETS if name not in WITHOUT_SOURCE]


def module_of(name):
    return importlib.import_module(f"jobs.datasets.{name}")


def is_cited(about):
    """Whether the facts of a dataset name a paper, or say that there is none."""
    sites = ("doi.org", "arxiv.org", "github.com")
    return about.citation.startswith("None: ") or any(site in about.citation for site in sites)


def config_of(name, folder, **options):
    given = {"root": str(folder.parent / "root"), "source": str(folder)}
    given |= (LAYOUTS[name](folder) or {}) | options
    return from_mapping(module_of(name).Config, given)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_every_adapter_has_a_small_copy_of_its_dataset():
    assert len(DATASETS) == 19
    assert set(LAYOUTS) == set(ADAPTERS)


@pytest.mark.parametrize("name", DATASETS)
class TestFacts:
    def test_how_says_what_to_download_and_a_command_that_is_understood(self, name, capsys):
        with pytest.raises(SystemExit) as left:
            prepare.configure([name, "--how"])
        shown = capsys.readouterr().out
        about = module_of(name).ABOUT
        assert left.value.code == 0
        assert about.name == name
        for fact in (about.download, about.groups, about.splits, about.command, *about.layout):
            assert fact
            assert fact in shown
        words = shlex.split(about.command)
        assert words[:3] == ["affuse", "prepare", name]
        assert isinstance(prepare.configure(words[2:]), module_of(name).Config)

    def test_cite_gives_papers_and_licence(self, name, capsys):
        with pytest.raises(SystemExit) as left:
            prepare.configure([name, "--cite"])
        about = module_of(name).ABOUT
        assert left.value.code == 0
        assert capsys.readouterr().out.strip() == about.cite().strip()
        assert is_cited(about) or name in OF_ANY_FOLDER | WITHOUT_SOURCE


@pytest.mark.parametrize("name", ADAPTERS)
class TestRows:
    def test_names_are_unique_and_labels_are_of_their_tasks(self, name, source):
        collected = config_of(name, source).collect()
        rows = checked(collected)
        assert len(rows) >= 3
        assert len({row.name for row in rows}) == len(rows)
        assert all(set(row.labels) == set(collected.tasks) for row in rows)
        assert all(set(folds) == {row.name for row in rows} for folds in collected.folds.values())
        own = getattr(config_of(name, source), "licence", None)
        assert collected.licence == (module_of(name).ABOUT.licence if own is None else own)

    def test_it_becomes_a_manifest_of_as_many_clips(self, name, source):
        config = config_of(name, source)
        prepare.main(config)
        assert read_manifest(config.root).num_rows == len(checked(config.collect()))


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name not in {"arrays", "folder"}])
class TestDamage:
    def test_a_folder_of_something_else_is_refused_by_the_file_that_was_looked_for(
        self, name, source
    ):
        (source / "holiday.txt").write_text("sun")
        required = {"corpus": "emodb"} if name == "emobox" else {}
        given = {"root": "r", "source": str(source), **required}
        config = from_mapping(module_of(name).Config, given)
        with pytest.raises(NotPreparedError) as caught:
            config.collect()
        assert module_of(name).ABOUT.looked_for.format(**required) in str(caught.value)
        assert f"affuse prepare {name} --how" in str(caught.value)

    def test_a_source_that_is_not_there_is_named(self, name, source):
        config = config_of(name, source, source=str(source / "nowhere.pkl"))
        with pytest.raises(AffuseError, match=r"nowhere\.pkl"):
            config.collect()
