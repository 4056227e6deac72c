"""Several bundles in one command say what each says in a command of its own, and clips are encoded once."""

import json
import shutil

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from cluster.errors import ConfigError
from cluster.resources import PROCESS_GB, WorkersConfig
from cluster.session import Capacity, SessionConfig
from jobs import score
from jobs.catalog.manifest import units
from jobs.scoring.judges import by_transcriber, nets_gb, open_judges, passes

MACHINE = Capacity(cpus=2, gpus=0, memory_gb=8, object_store_gb=1)


@pytest.fixture
def bundles(toys, tmp_path):
    """A dataset with the bundles both (words and sound), sound, and hearing (words that are recognised)."""
    texts = [None, "so it is", *[f"words of {i}" for i in range(2, 6)]]
    toys.corpus.write_corpus(tmp_path, 6, texts=texts)
    (tmp_path / "media" / "3.wav").unlink()
    made = {"both": {}, "sound": {"text": None}, "hearing": {"ear": "toy_ear"}}
    for name, options in made.items():
        toys.bundle.write_bundle(tmp_path, **options)
        folder = tmp_path / "bundles" / name
        shutil.move(tmp_path / "bundles" / "b", folder)
        facts = json.loads((folder / "bundle.json").read_text()) | {"name": name}
        (folder / "bundle.json").write_text(json.dumps(facts))
    return tmp_path


def config(root, **changes):
    return score.Config(
        root=str(root),
        session=SessionConfig(num_cpus=2, num_gpus=0),
        workers=WorkersConfig(gpus_per_actor=0, actors=1),
        max_failed_share=1.0,
        **changes,
    )


def judges(root, *names):
    return open_judges(config(root, bundle=names[0], also=names[1:]))


def rows(root, name):
    table = score.read_scores(str(root), name).sort_by("clip_id")
    return table.drop_columns("bundle").to_pylist()


def alone(root, name):
    score.main(config(root, bundle=name, name=f"{name}-alone"))
    return rows(root, f"{name}-alone")


NAMES = ("both", "sound", "hearing")


class TestADataset:
    @pytest.mark.parametrize("order", [NAMES, ("sound", "hearing"), ("hearing", "both")])
    def test_every_bundle_says_what_it_says_alone(self, bundles, here, order):
        first, *others = order
        score.main(config(bundles, bundle=first, also=tuple(others)))
        for name in order:
            assert rows(bundles, name) == alone(bundles, name)

    def test_what_two_bundles_read_is_encoded_once(self, bundles, here):
        score.main(config(bundles, bundle="both", also=("sound",)))
        assert sorted(unit for unit, _ in here.encoded) == sorted(
            ref.unit for ref in units(str(bundles))
        )
        assert all(len(folders) == 2 for _, folders in here.encoded)

    def test_after_a_stop_only_what_is_missing_is_done(self, bundles, here, capsys):
        expected = {name: alone(bundles, name) for name in ("both", "sound")}
        here.encoded.clear()
        here.limit = 1
        with pytest.raises(KeyboardInterrupt):
            score.main(config(bundles, bundle="both", also=("sound",)))
        here.limit = None
        score.main(config(bundles, bundle="both", also=("sound",)))
        assert len(here.encoded) == len(units(str(bundles)))
        assert {name: rows(bundles, name) for name in expected} == expected
        capsys.readouterr()
        score.main(config(bundles, bundle="both", also=("sound",)))
        assert capsys.readouterr().out.count("nothing to do") == 2

    def test_a_bundle_that_is_done_is_not_done_again_for_another(self, bundles, here):
        score.main(config(bundles, bundle="both"))
        here.encoded.clear()
        score.main(config(bundles, bundle="both", also=("sound",)))
        assert {len(folders) for _, folders in here.encoded} == {1}

    @pytest.mark.ray
    def test_one_stream_of_ray_data_serves_two_bundles(self, bundles, capsys):
        score.main(config(bundles, bundle="both", also=("sound",)))
        assert capsys.readouterr().out.count("plan: encode") == 1
        for name in ("both", "sound"):
            assert len(rows(bundles, name)) == 6


class TestThePlan:
    def test_counts_the_memory_of_the_nets(self, bundles):
        both, sound = judges(bundles, "both", "sound")
        weights = sum(f.stat().st_size for f in (bundles / "bundles/both").rglob("*.safetensors"))
        assert nets_gb(both.bundle) == pytest.approx(weights / 1e9)
        ((together, plan),) = passes([both, sound], "", MACHINE, WorkersConfig())
        assert together == [both, sound]
        assert plan.encode.memory_gb_each > PROCESS_GB + nets_gb(both.bundle)

    def test_bundles_that_do_not_fit_together_are_scored_one_after_the_other(
        self, bundles, monkeypatch
    ):
        sizes = {"both": 1.5, "sound": 1.4}
        monkeypatch.setattr("jobs.scoring.judges.nets_gb", lambda bundle: sizes[bundle.name])
        small = Capacity(cpus=1, gpus=0, memory_gb=4.2, object_store_gb=0.5)
        found = [*passes(judges(bundles, "both", "sound"), "", small, WorkersConfig())]
        assert [[judge.name for judge in group] for group, _ in found] == [["both"], ["sound"]]

    def test_words_that_are_heard_and_words_that_are_not_share_no_pass(self, bundles):
        groups = by_transcriber(judges(bundles, "both", "hearing", "sound"))
        assert [[judge.name for judge in group] for group in groups] == [
            ["both", "sound"],
            ["hearing"],
        ]


class TestFiles:
    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_every_file_has_a_row_of_every_bundle(self, bundles, suffix, capsys):
        out = bundles / f"out.{suffix}"
        media = str(bundles / "media")
        options = {"clips": (media,), "out": str(out)}
        score.main(config(bundles, bundle="both", also=("sound", "hearing"), **options))
        table = pa.parquet.read_table(out) if suffix == "parquet" else pa.csv.read_csv(out)
        counts = {
            pair["values"]: pair["counts"] for pair in table["bundle"].value_counts().to_pylist()
        }
        assert counts == dict.fromkeys(NAMES, 5)

    def test_many_files_are_scored_by_every_bundle(self, bundles, here, monkeypatch):
        monkeypatch.setattr(score, "FEW", 2)
        out = bundles / "out.parquet"
        options = {"clips": (str(bundles / "media"),), "out": str(out)}
        score.main(config(bundles, bundle="both", also=("sound",), **options))
        assert pa.parquet.read_table(out).num_rows == 10
        assert not (bundles / "out.parquet.affuse").exists()


class TestRefusals:
    def test_two_bundles_of_one_name(self, bundles):
        with pytest.raises(ConfigError, match="called both"):
            score.main(config(bundles, bundle="both", also=(str(bundles / "bundles/both"),)))

    def test_one_name_for_the_scores_of_two(self, bundles):
        with pytest.raises(ConfigError, match="--name x"):
            config(bundles, bundle="both", also=("sound",), name="x")
