"""A root's or a bundle's facts that are damaged end a job in one line, whatever they hold."""

import pytest

from cluster import storage
from cluster.errors import TableError
from jobs.__main__ import run
from jobs.catalog.bundles import bundle_facts
from jobs.catalog.manifest import read_dataset

DAMAGED = ["", "{", "[" * 100_000, "\xff\xfe", "null", "[]", "{}", "3", '{"name": "a", "tasks": 3}',
           '{"name": "a", "members": [3], "manifest": "m", "tasks": {"t": {}}}']  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED, ids=lambda text: text[:30] or "nothing")
@pytest.mark.parametrize("file", ["dataset.json", "bundle.json"])
def test_facts_that_are_none_name_their_file(tmp_path, file, content):
    (tmp_path / file).write_bytes(content.encode("latin-1"))
    read = read_dataset if file == "dataset.json" else bundle_facts
    with pytest.raises(TableError, match=f"{tmp_path}/{file}: ") as caught:
        read(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_job_says_it_in_one_line(tmp_path, capsys):
    (tmp_path / "dataset.json").write_text("{")
    assert run(["verify", "--root", str(tmp_path), "--data"]) == 1
    assert "damaged or cut off" in capsys.readouterr().err


def test_a_damaged_document_is_a_value_error_too_for_those_who_pass_over_it(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="damaged or cut off"):
        storage.read_json(str(tmp_path / "a.json"))
