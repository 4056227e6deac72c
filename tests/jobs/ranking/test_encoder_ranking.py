"""benchmark encoders: feature tables ranked on a dataset's labels, layer by layer, with what they cost."""

import numpy as np
import pytest

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from jobs import benchmark
from jobs.ranking.config import EncodersConfig
from jobs.ranking.encoders import seconds_a_clip


def ranked(root, **options):
    options = {"task": "emotion", "folds": "speaker", "resamples": 100, **options}
    benchmark.main(EncodersConfig(root=root, **options))
    base = f"{root}/comparisons/{options.get('name', 'encoders')}"
    return storage.read_json(f"{base}/results.json"), base


def stacked(root, name="voice", layers=(0, 3), width=3):
    """The table of that name says that it holds several layers."""
    uri = f"{root}/features/{name}-1/descriptor.json"
    facts = storage.read_json(uri) | {"layers": list(layers), "layer_dim": width}
    storage.publish_json(facts, uri)


def noise(root, name, like="voice"):
    """A table of noise: another encoder, which knows nothing."""
    import pyarrow as pa

    table = storage.read_table(f"{root}/features/{like}-1/rows.parquet")
    draws = np.random.default_rng(5)
    kind = table.schema.field("values").type
    rows = [
        draws.standard_normal((len(v), kind.value_type.list_size)).astype(np.float16).tolist()
        for v in table["values"].to_pylist()
    ]
    place = table.column_names.index("values")
    storage.publish_table(
        table.set_column(place, "values", pa.array(rows, kind)),
        f"{root}/features/{name}-1/rows.parquet",
    )
    facts = storage.read_json(f"{root}/features/{like}-1/descriptor.json") | {"name": name}
    storage.publish_json(facts, f"{root}/features/{name}-1/descriptor.json")


def hollow(root, name):
    """No clip of a table has a value, as texts of a corpus without texts."""
    import pyarrow as pa

    uri = f"{root}/features/{name}-1/rows.parquet"
    table = storage.read_table(uri)
    for column in ("values", "step_start_s", "step_end_s", "valid"):
        place = table.column_names.index(column)
        kind = table.schema.field(column).type
        table = table.set_column(place, column, pa.array([[]] * len(table), kind))
    place = table.column_names.index("status")
    table = table.set_column(place, "status", pa.array(["missing"] * len(table)))
    storage.publish_table(table, uri)


class TestRanking:
    def test_what_knows_the_labels_stands_above_noise_by_more_than_chance(self, root):
        noise(root, "deaf")
        facts, base = ranked(root)
        assert [row["name"] for row in facts["rows"]][-1] == "deaf"
        best, *_, worst = facts["rows"]
        assert best["behind"] is None
        assert worst["behind"]["high"] < 0
        assert best["figures"]["accuracy"]["value"] > 0.9
        assert facts["num_groups"] == 6  # the three people of the test split are not read
        assert {"config.json", "results.json", "table.csv", "ranking.png"} <= set(
            storage.names(base)
        )

    def test_every_layer_of_a_stack_is_a_line_of_its_own(self, root):
        stacked(root)
        facts, _ = ranked(root, encoders=("voice",))
        lines = {row["name"]: (row["layer"], row["dim"]) for row in facts["rows"]}
        assert lines == {"voice": (None, 6), "voice, layer 0": (0, 3), "voice, layer 3": (3, 3)}
        # The three classes stand in the first three columns; the other three are noise.
        figures = {row["name"]: row["figures"]["accuracy"]["value"] for row in facts["rows"]}
        assert figures["voice, layer 0"] > 0.9 > figures["voice, layer 3"]
        whole, _ = ranked(root, encoders=("voice",), layers=False)
        assert len(whole["rows"]) == 1

    @pytest.mark.parametrize("task", ["emotion", "arousal"])
    def test_labels_and_features_of_the_test_split_change_nothing(self, tmp_path, write_root, task):
        roots = [write_root(str(tmp_path / str(seed)), noise_on_test=seed) for seed in (None, 7)]
        one, other = (ranked(root, task=task)[0]["rows"] for root in roots)
        assert one == other

    def test_folds_of_whole_groups_are_made_where_none_are_named(self, root, capsys):
        facts, _ = ranked(root, folds=None)
        assert facts["rows"][0]["figures"]["accuracy"]["value"] > 0.9
        assert "5 folds of groups" in " ".join(capsys.readouterr().out.split())

    def test_views_and_published_inputs_are_not_ranked_unless_named(self, root, write_views):
        write_views(root, "voice", 1)
        noise(root, "raw")
        uri = f"{root}/features/raw-1/descriptor.json"
        storage.publish_json(storage.read_json(uri) | {"options": {"publish": "inputs"}}, uri)
        facts, _ = ranked(root)
        assert {row["folder"] for row in facts["rows"]} == {"voice-1", "face-1"}

    def test_a_clip_without_the_input_is_judged_too_and_counted(self, root):
        facts, _ = ranked(root)
        shares = {row["name"]: row["share"] for row in facts["rows"]}
        assert shares["voice"] == 1.0
        assert 0.9 < shares["face"] < 1.0

    def test_a_table_without_a_value_is_left_out_with_the_reason(self, root, capsys):
        noise(root, "empty")
        hollow(root, "empty")
        facts, _ = ranked(root)
        assert {row["name"] for row in facts["rows"]} == {"voice", "face"}
        assert "empty: left out: " in capsys.readouterr().out
        with pytest.raises(ConfigError, match=r"no table under .* can be ranked by 'emotion'"):
            ranked(root, encoders=("empty",), name="other")


class TestCost:
    def test_is_what_all_commands_recorded_a_clip(self, root):
        for name, clips, seconds in (("a", 10, 5.0), ("b", 30, 3.0), ("c", 0, 0.0)):
            done = {"clips": clips, "seconds/voice-1": seconds, "seconds/decode": 1.0}
            storage.publish_json({"passes": [done]}, f"{root}/encodings/{name}/summary.json")
        assert seconds_a_clip(root)["voice-1"] == pytest.approx(0.2)
        facts, _ = ranked(root)
        seconds = {row["name"]: row["seconds"] for row in facts["rows"]}
        assert seconds == {"voice": pytest.approx(0.2), "face": None}


class TestRefusals:
    def test_tables_that_are_not_there_are_named_with_the_command(self, root):
        with pytest.raises(NotPreparedError, match="affuse encode --root"):
            ranked(root, encoders=("minilm",))

    def test_a_table_twice(self, root):
        with pytest.raises(ConfigError, match="each table once"):
            ranked(root, encoders=("voice", "voice"))

    def test_a_root_without_features(self, root):
        import shutil

        shutil.rmtree(f"{root}/features")
        with pytest.raises(NotPreparedError, match="no features under"):
            ranked(root)
