"""Columns become batches by index, and no row of the test split is ever among them."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from cluster.errors import ConfigError, NotPreparedError, TestSplitError
from encoders.registry import describe
from fusion.training.ordering import seed_of
from fusion.training.rows import SizedFeed
from jobs.catalog.features import FeatureReader
from jobs.training import feeds, input_names, loading
from jobs.training.feeds import Store
from jobs.training.loading import Request, has_views, load
from jobs.training.speaker_norm import enrolment
from jobs.training.stores import HeldTable, store_of


def store_of_arrays(clips) -> Store:
    """A store of (values [steps dim], valid [steps]) a clip; None where there is nothing."""
    table = pa.table(
        {
            "clip_id": np.arange(len(clips)),
            "values": pa.array(
                [[] if item is None else item[0].tolist() for item in clips],
                pa.list_(pa.list_(pa.float32(), 3)),
            ),
            "valid": pa.array(
                [[] if item is None else item[1].tolist() for item in clips], pa.list_(pa.bool_())
            ),
        }
    )
    return store_of(HeldTable("made up", table), np.arange(len(clips)), "none")


def request(root: str, **changes) -> Request:
    return dataclasses.replace(Request(root=root, inputs=("voice", "face")), **changes)


class TestClips:
    def test_an_input_is_named_by_its_modality(self, root):
        data = load(request(root))
        assert sorted(data.dims) == ["audio", "video"]
        assert data.dims == {"audio": 6, "video": 4}

    def test_two_inputs_of_one_modality_are_named_by_their_encoders(self, root, monkeypatch):
        folders = loading.feature_folders(root)
        same = {name: {**facts, "modality": "audio"} for name, facts in folders.items()}
        monkeypatch.setattr(loading, "feature_folders", lambda _root: same)
        assert sorted(load(request(root)).dims) == ["face", "voice"]

    def test_a_table_that_is_called_as_another_modality_takes_nobodys_place(
        self, root, monkeypatch
    ):
        facts = {
            "a": {"modality": "text", "name": "minilm"},
            "b": {"modality": "audio", "name": "text"},
            "c": {"modality": "audio", "name": "egemaps"},
        }
        monkeypatch.setattr(input_names, "resolve_features", lambda _root, text: text)
        found = input_names.input_folders(root, ("a", "b", "c"), facts)
        assert list(found.values()) == ["a", "b", "c"]

    def test_a_batch_holds_the_clips_that_were_asked_for(self, root):
        data = load(request(root))
        batch = data.feed.batch(torch.tensor([5, 0]))
        assert batch.clip_id.tolist() == [105, 100]
        assert batch.inputs["audio"].mask.sum(1).tolist() == data.feed.lengths[[5, 0]].tolist()

    def test_the_same_clip_is_the_same_beside_any_neighbour(self, root):
        feed = load(request(root)).feed
        alone, together = feed.batch(torch.tensor([2])), feed.batch(torch.arange(20))
        steps = alone.inputs["audio"].values.shape[1]
        assert torch.equal(
            alone.inputs["audio"].values[0], together.inputs["audio"].values[2, :steps]
        )
        assert not together.inputs["audio"].values[2, steps:].any()

    def test_a_missing_modality_is_a_mask_of_zeros(self, root):
        batch = load(request(root)).feed.batch(torch.tensor([3, 4]))
        assert batch.inputs["video"].present.tolist() == [False, True]

    def test_an_unlabelled_clip_is_there_with_an_unknown_target(self, root):
        batch = load(request(root)).feed.batch(torch.tensor([6, 7]))
        assert batch.target_masks["emotion"].tolist() == [True, False]
        assert batch.target_masks["arousal"].tolist() == [True, True]


class TestViews:
    def test_a_row_is_read_from_the_view_that_is_asked_for(self, root, write_views):
        write_views(root, "voice", 2)
        feed = load(request(root, views=2)).feed
        rows = torch.tensor([5, 0, 9])
        plain, other = feed.batch(rows), feed.batch_in_views(rows, torch.tensor([0, 1, 2]))
        shift = other.inputs["audio"].values - plain.inputs["audio"].values
        real = plain.inputs["audio"].mask
        for row, expected in enumerate([0.0, 0.1, 0.2]):
            torch.testing.assert_close(
                shift[row][real[row]],
                torch.full_like(shift[row][real[row]], expected),
                atol=5e-3,
                rtol=0,
            )
        assert torch.equal(other.inputs["audio"].mask, real)

    def test_what_has_no_views_stays_the_original(self, root, write_views):
        write_views(root, "voice", 2)
        feed = load(request(root, views=2)).feed
        rows = torch.arange(6)
        plain, other = feed.batch(rows), feed.batch_in_views(rows, torch.full((6,), 2))
        assert torch.equal(plain.inputs["video"].values, other.inputs["video"].values)
        assert torch.equal(plain.inputs["video"].mask, other.inputs["video"].mask)

    def test_a_clip_that_a_view_has_not_gives_way_to_the_original(self):
        whole = store_of_arrays([(np.ones((2, 3)), np.ones(2, bool))] * 2)
        view = store_of_arrays([None, (np.full((4, 3), 2.0), np.ones(4, bool))])
        steps = feeds.gather_views((whole, view), torch.tensor([0, 1]), torch.tensor([1, 1]))
        assert steps.mask.sum(1).tolist() == [2, 4]
        assert steps.values[:, 0, 0].tolist() == [1.0, 2.0]

    def test_the_utterances_of_a_dialogue_are_all_in_one_view(
        self, write_root, write_views, tmp_path
    ):
        root = write_root(str(tmp_path / "talk"), dialogues=True)
        write_views(root, "voice", 1)
        feed = load(request(root, axis="dialogue", views=1)).feed
        rows = torch.tensor([1, 2])
        shift = (
            feed.batch_in_views(rows, torch.tensor([0, 1])).inputs["audio"].values
            - feed.batch(rows).inputs["audio"].values
        )
        assert not shift[0].any()
        torch.testing.assert_close(shift[1], torch.full_like(shift[1], 0.1), atol=5e-3, rtol=0)

    def test_a_name_means_the_original_and_a_view_is_no_input(self, root, write_views):
        write_views(root, "voice", 1)
        assert load(request(root)).inputs["audio"]["features"] == "voice-1"
        with pytest.raises(ConfigError, match="only training rows may see"):
            load(request(root, inputs=("voice-1v1",)))

    def test_inputs_of_which_none_has_views_are_read_as_they_are(self, root, write_views):
        assert not has_views(request(root, views=1))
        assert load(request(root, views=1)).feed.num_views == 0
        write_views(root, "voice", 1)
        assert has_views(request(root, views=1))
        assert load(request(root, views=1)).feed.num_views == 1
        assert not has_views(request(root))

    @pytest.mark.parametrize(
        "typed", ["egemaps", "whisper_tiny_en:layers=all", "whisper_tiny_en:publish=inputs"]
    )
    def test_too_few_views_of_an_encoder_name_the_job_that_makes_them(self, typed):
        found = describe(typed)
        wanted = Request(root="here", inputs=(typed,), views=2)
        with pytest.raises(NotPreparedError, match=f"--encoders {typed} --views 2"):
            loading.view_folders({found.folder: found.facts()}, found.folder, wanted)


class TestPooling:
    def test_mean_and_spread_of_the_real_steps_stand_side_by_side(self, root):
        steps = load(request(root)).feed.batch(torch.tensor([5])).inputs["audio"].values[0]
        pooled = load(request(root, pool="mean_std")).feed.batch(torch.tensor([5])).inputs["audio"]
        expected = torch.cat([steps.mean(0), steps.std(0, correction=0)])
        torch.testing.assert_close(pooled.values[0, 0], expected)

    def test_what_has_one_step_anyway_is_left_as_it_is(self):
        values, valid = feeds.pooled(np.ones((2, 3), np.float16), np.array([0, 0]) > 0, "mean")
        assert values.shape == (1, 3)
        assert not valid.any()


class TestDialogues:
    def test_utterances_come_in_the_order_of_their_turns(self, write_root, tmp_path):
        root = write_root(str(tmp_path / "talk"), dialogues=True)
        data = load(request(root, axis="dialogue"))
        batch = data.feed.batch(torch.tensor([1]))
        assert batch.clip_id[0].tolist() == [115, 114, 113, 112, 111, 110, 109, 108]
        assert batch.speaker.unique().tolist() == [0]

    def test_a_split_through_a_dialogue_is_refused(self, write_root, tmp_path):
        root = write_root(str(tmp_path / "talk"), dialogues=True)
        data = load(request(root, axis="dialogue"))
        half = np.arange(len(data.clips)) < 4
        with pytest.raises(ConfigError, match="dialogue 'd0' lies on both sides of a split"):
            data.feed.rows_of(half)


class TestMemory:
    def test_a_memory_mapped_file_gives_the_same_batches(self, root, tmp_path):
        cache = tmp_path / "cache"
        mapped = load(request(root, memory_gb=1e-9, cache=str(cache)))
        rows = torch.randperm(len(mapped.clips))
        ours, theirs = mapped.feed.batch(rows), load(request(root)).feed.batch(rows)
        for name in ours.inputs:
            assert torch.equal(ours.inputs[name].values, theirs.inputs[name].values)
        assert list(cache.iterdir()) == []

    def test_a_row_is_as_large_as_its_inputs_together(self, root):
        feed = load(request(root)).feed
        expected = sum(each.lengths * each.dim for each in feed.stores.values())
        assert torch.equal(feed.sizes, expected)
        assert isinstance(feed, SizedFeed)

    def test_pictures_stay_bytes_until_they_are_gathered(self):
        values = pa.array([[[0, 128, 255], [7, 8, 9]]], pa.list_(pa.list_(pa.uint8(), 3)))
        table = pa.table({"clip_id": [0], "values": values, "valid": [[True, False]]})
        store = store_of(HeldTable("pictures", table), np.arange(1), "none")
        assert store.values.dtype == torch.uint8
        assert store.gather(torch.tensor([0])).values.tolist() == [[[0, 128, 255], [0, 0, 0]]]

    def test_a_store_of_arrays_is_what_was_given(self):
        store = store_of_arrays([(np.ones((2, 3)), np.array([True, False])), None])
        steps = store.gather(torch.tensor([1, 0, -1]))
        assert steps.mask.tolist() == [[False, False], [True, False], [False, False]]


class TestSpeakers:
    def test_each_speaker_comes_out_with_mean_zero(self, root):
        data = load(request(root, normalise="speaker", pool="mean"))
        values = data.feed.batch(torch.arange(8)).inputs["audio"].values
        torch.testing.assert_close(values.mean(0), torch.zeros(1, 6), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("enrolled", [2, 3, 5, 100])
    def test_statistics_of_k_clips_equal_a_plain_loop(self, root, enrolled):
        clips = load(request(root)).clips
        raw = load(request(root)).feed.stores["video"]
        ours = load(request(root, normalise=f"speaker:{enrolled}")).feed.stores["video"]
        drawn = [seed_of("enrol", clip) for clip in clips.clip_id.tolist()]
        for who in set(clips.speaker):
            mine = [i for i, speaker in enumerate(clips.speaker) if speaker == who]
            seen = [i for i in mine if raw.lengths[i] > 0]
            first = sorted(seen, key=lambda i: drawn[i])[:enrolled]
            steps = np.concatenate([_steps(raw, i) for i in first])
            for i in mine:
                expected = (_steps(raw, i) - steps.mean(0)) / steps.std(0)
                np.testing.assert_allclose(_steps(ours, i), expected, rtol=2e-4, atol=2e-5)

    def test_as_many_clips_as_there_are_is_the_speaker_whole(self, root):
        some, every = (load(request(root, normalise=n)) for n in ("speaker:999", "speaker"))
        for name, store in every.feed.stores.items():
            torch.testing.assert_close(some.feed.stores[name].values, store.values)

    def test_clips_of_other_people_do_not_change_who_is_enrolled(self, root):
        half = frozenset(range(100, 124))
        some = load(request(root, normalise="speaker:3", clips=half)).feed.stores["audio"]
        every = load(request(root, normalise="speaker:3")).feed.stores["audio"]
        torch.testing.assert_close(some.values, every.values[: len(some.values)])

    @pytest.mark.parametrize(
        "text", ["speaker:1", "speaker:", "speaker:x", "person", "speaker:2.5"]
    )
    def test_other_words_are_refused_with_what_is_expected(self, text):
        with pytest.raises(ConfigError, match="expected none, speaker or speaker:K"):
            enrolment(text)


def _steps(store, clip):
    return store.values[store.offsets[clip] : store.offsets[clip + 1]].double().numpy()


class TestTheTestSplit:
    def test_its_clips_are_not_there(self, root):
        assert load(request(root)).clips.clip_id.max() == 147
        assert load(request(root, test=True)).clips.clip_id.min() == 148

    def test_its_features_are_not_asked_for(self, root, monkeypatch):
        asked = []
        read = FeatureReader.pieces

        def spy(self, clip_ids, columns, **how):
            asked.extend(clip_ids)
            return read(self, clip_ids, columns, **how)

        monkeypatch.setattr(FeatureReader, "pieces", spy)
        load(request(root))
        assert max(asked) == 147

    def test_a_test_row_that_gets_through_is_refused(self, root):
        clips = load(request(root, test=True)).clips
        with pytest.raises(TestSplitError, match="rows of the test split reached training"):
            loading.checked(clips, test=False)


class TestRefusals:
    def test_an_unknown_task_names_the_nearest(self, root):
        with pytest.raises(ConfigError, match="no task 'emotoin'; did you mean 'emotion'"):
            load(request(root, tasks=("emotoin",)))

    def test_unknown_features_name_the_job_that_makes_them(self, root):
        with pytest.raises(NotPreparedError, match="type: affuse encode"):
            load(request(root, inputs=("minilm",)))

    def test_an_input_twice_is_refused(self, root):
        with pytest.raises(ConfigError, match="name a table twice"):
            load(request(root, inputs=("voice", "voice")))
