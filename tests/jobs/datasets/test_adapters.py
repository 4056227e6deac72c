"""Adapters read the layouts that the datasets are handed out in."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from cluster.errors import LabelTableError, NotPreparedError
from cluster.settings import from_mapping
from jobs import prepare
from jobs.catalog import manifest
from jobs.datasets import (
    avamerg,
    cremad,
    emodb,
    empathic_reactions,
    iemocap,
    meld,
    mosi,
    ravdess,
)
from tests.jobs.preparing.clip_rows import checked

DATA = Path(os.environ.get("AFFUSE_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


def collect(module, source, **options):
    values = {"root": "r", "source": str(source), **options}
    collected = from_mapping(module.Config, values).collect()
    return {row.name: row for row in checked(collected)}, collected


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


@pytest.mark.parametrize("module", [avamerg, cremad, emodb, iemocap, meld, mosi, ravdess])
@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_source_that_is_not_the_dataset_is_named(module, folder, tmp_path):
    with pytest.raises(NotPreparedError, match="--source"):
        collect(module, tmp_path / folder)


class TestRavdess:
    def test_a_film_with_sound_stands_for_all_files_of_its_take(self, tmp_path):
        both = touch(tmp_path / "Actor_02" / "01-01-03-01-01-01-02.mp4")
        touch(tmp_path / "Actor_02" / "03-01-03-01-01-01-02.wav")
        film = touch(tmp_path / "Actor_11" / "02-01-05-02-02-01-11.mp4")
        sound = touch(tmp_path / "Actor_11" / "03-01-05-02-02-01-11.wav")
        touch(tmp_path / "Actor_11" / "03-02-05-02-02-01-11.wav")  # song
        rows, collected = collect(ravdess, tmp_path)
        assert list(rows) == ["01-01-03-01-01-01-02", "03-01-05-02-02-01-11"]
        happy, angry = rows.values()
        assert happy.video.uri == happy.audio.uri == both
        assert (angry.video.uri, angry.audio.uri) == (film, sound)
        assert (angry.labels["emotion"], angry.profile["gender"]) == ("angry", "male")
        assert collected.folds["subject"] == {happy.name: 0, angry.name: 2}


class TestCremad:
    def test_pictures_and_sound_of_a_take_meet(self, tmp_path):
        film = touch(tmp_path / "VideoFlash" / "1001_DFA_ANG_XX.flv")
        sound = touch(tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav")
        alone = touch(tmp_path / "VideoFlash" / "1002_IEO_HAP_HI.flv")
        rows, _ = collect(cremad, tmp_path)
        first, second = rows.values()
        assert (first.video.uri, first.audio.uri) == (film, sound)
        assert (second.video.uri, second.audio.uri) == (alone, alone)
        assert first.text == "Don't forget a jacket."
        assert (first.labels["emotion"], first.speaker) == ("angry", "actor-1001")


class TestMeld:
    HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season\n"

    def write(self, tmp_path, part, *lines):
        text = self.HEADER + "\n".join(lines) + "\n"
        (tmp_path / f"{part}_sent_emo.csv").write_bytes(text.encode("cp1252"))

    def test_lines_and_films_are_joined_by_dialogue_and_utterance(self, tmp_path):
        self.write(
            tmp_path,
            "train",
            "1,You\u2019re late,Ross,anger,negative,0,0,1",
            "2,Sorry,Joey,sadness,negative,0,2,1",
        )
        self.write(tmp_path, "dev", "1,Hi,Ross,joy,positive,0,0,1")
        there = touch(tmp_path / "train_splits" / "dia0_utt0.mp4")
        touch(tmp_path / "train_splits" / "dia0_utt1.mp4")  # a film without a line
        dev = touch(tmp_path / "dev_splits_complete" / "dia0_utt0.mp4")
        touch(tmp_path / "dev_splits_complete" / "final_videos_testdia0_utt0.mp4")
        rows, _ = collect(meld, tmp_path)
        assert list(rows) == ["train/dia0_utt0", "train/dia0_utt2", "dev/dia0_utt0"]
        first, missing, other = rows.values()
        assert first.text == "You\u2019re late"
        assert first.video.uri == there
        assert missing.video.uri.endswith("train/dia0_utt2.mp4")
        assert (other.video.uri, other.split, other.dialogue) == (dev, "valid", "dev/dia0")

    def test_faults_of_the_table_are_listed(self, tmp_path):
        self.write(tmp_path, "dev", "1,Hi,R,joyful,positive,0,0,1", "2,Ho,R,joy,positive,x,1,1")
        with pytest.raises(LabelTableError, match="2 faults") as caught:
            collect(meld, tmp_path)
        assert "did you mean 'joy'?" in str(caught.value)
        assert "dev_sent_emo.csv, row 2" in str(caught.value)

    @pytest.mark.skipif(not (DATA / "meld").is_dir(), reason="AFFUSE_DATA holds no meld folder")
    def test_the_official_tables_give_the_published_counts(self):
        rows, _ = collect(meld, DATA / "meld")
        splits = Counter(row.split for row in rows.values())
        assert splits == {"train": 9989, "valid": 1109, "test": 2610}
        train = Counter(row.labels["emotion"] for row in rows.values() if row.split == "train")
        assert train == {
            "neutral": 4710, "joy": 1743, "surprise": 1205, "anger": 1109, "sadness": 683,
            "disgust": 271, "fear": 268,
        }  # fmt: skip
        assert not any(0x80 <= ord(c) < 0xA0 for row in rows.values() for c in row.text)

    @pytest.mark.skipif(not (DATA / "meld").is_dir(), reason="AFFUSE_DATA holds no meld folder")
    def test_emotion_and_sentiment_together_make_eight_classes(self):
        rows, collected = collect(meld, DATA / "meld", glued=True)
        assert len(collected.tasks["emotion_sentiment"].classes) == 8
        test = [row.labels for row in rows.values() if row.split == "test"]
        assert Counter(labels["emotion_sentiment"] for labels in test) == {
            "anger-negative": 345, "disgust-negative": 68, "fear-negative": 50, "joy-positive": 402,
            "neutral-neutral": 1256, "sadness-negative": 208, "surprise-negative": 162,
            "surprise-positive": 119,
        }  # fmt: skip


class TestEmodb:
    def test_a_name_says_speaker_sentence_and_emotion(self, tmp_path):
        sound = touch(tmp_path / "wav" / "16b10Eb.wav")
        touch(tmp_path / "lablaut" / "16b10Eb.lablaut")
        touch(tmp_path / "wav" / "99b10Eb.wav")  # nobody
        rows, collected = collect(emodb, tmp_path)
        row = rows["16b10Eb"]
        assert list(rows) == ["16b10Eb"]
        assert (row.audio.uri, row.speaker, row.labels["emotion"]) == (
            sound,
            "speaker-16",
            "disgust",
        )
        assert row.text.startswith("Die wird auf dem Platz sein")
        assert collected.folds["speaker"] == {"16b10Eb": 9}


class TestEmpathicReactions:
    def test_a_rating_outside_its_range_and_a_word_for_a_number_are_faults(self, tmp_path):
        head = "message_id,response_id,article_id,empathy,distress,empathy_bin,distress_bin,essay\n"
        table = tmp_path / "empathic_reactions_messages.csv"
        table.write_text(head + "a,p,1,5,5,1,1,x\nb,p,1,7.5,5,1,2,x\nc,q,1,high,5,1,1,x\n")
        with pytest.raises(LabelTableError) as caught:
            collect(empathic_reactions, tmp_path)
        for said in ("7.5", "'2'", "row 3", "3 faults"):
            assert said in str(caught.value)

    @pytest.mark.skipif(
        not (DATA / "empathic_reactions").is_dir(), reason="AFFUSE_DATA holds no essays"
    )
    def test_the_published_table_gives_its_essays(self):
        rows, _ = collect(empathic_reactions, DATA / "empathic_reactions")
        assert len(rows) == 1860
        assert len({row.group for row in rows.values()}) == 417
        by_person, _ = collect(empathic_reactions, DATA / "empathic_reactions", grouping="person")
        assert len({row.group for row in by_person.values()}) == 372


class TestMosi:
    def test_the_label_table_of_the_films(self, tmp_path):
        (tmp_path / "label.csv").write_text(
            "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
            "aqsj,1,good,0.8,1.0,0.2,0.4,Positive,train\n"
            "aqsj,2,bad,-0.6,-1.0,0.0,0.2,Negative,train\n"
            "zzz,1,so so,0.0,0.0,0.0,0.0,Neutral,valid\n"
        )
        film = touch(tmp_path / "Raw" / "aqsj" / "1.mp4")
        rows, collected = collect(mosi, tmp_path, corpus="sims")
        assert list(rows) == ["aqsj_1", "aqsj_2", "zzz_1"]
        assert rows["aqsj_1"].video.uri == film
        assert rows["aqsj_2"].video.uri.endswith("Raw/aqsj/2.mp4")
        assert rows["aqsj_1"].labels["sentiment_audio"] == 0.2
        assert collected.tasks["sentiment"].range == (-1.0, 1.0)
        assert [row.group for row in rows.values()] == ["aqsj", "aqsj", "zzz"]

    @pytest.mark.skipif(not (DATA / "mosi").is_dir(), reason="AFFUSE_DATA holds no mosi folder")
    def test_one_split_can_be_taken_alone_and_cut_into_folds(self, tmp_path):
        root = str(tmp_path / "root")
        flags = ["--protocol", "bclstm", "--part", "test", "--folds", "5", "--root", root]
        prepare.main(prepare.configure(["mosi", "--source", str(DATA / "mosi"), *flags]))
        rows = manifest.read_manifest(root).to_pylist()
        folds = manifest.read_folds(root, "group5")
        assert len(rows) == len(folds) == 752
        assert len({row["group"] for row in rows}) == 31
        assert len({(row["group"], folds[row["clip_id"]]) for row in rows}) == 31
        assert max(Counter(folds.values()).values()) < 1.1 * 752 / 5


class TestIemocap:
    @pytest.fixture
    def release(self, tmp_path):
        dialog = tmp_path / "Session2" / "dialog"
        labels = dialog / "EmoEvaluation" / "Ses02F_impro01.txt"
        touch(labels)
        labels.write_text(
            "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
            "[8.5000 - 9.7500]\tSes02F_impro01_M000\texc\t[4.0000, 3.5000, 2.5000]\n"
            "C-E1:\tHappiness;\t()\n"
            "[6.2901 - 8.2357]\tSes02F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
            "[9.8000 - 11.000]\tSes02F_impro01_F001\txxx\t[2.5000, 2.5000, 2.5000]\n"
        )
        words = dialog / "transcriptions" / "Ses02F_impro01.txt"
        touch(words)
        words.write_text("Ses02F_impro01_F000 [006.2901-008.2357]: Excuse me.\n")
        wav = tmp_path / "Session2" / "sentences" / "wav" / "Ses02F_impro01"
        touch(wav / "Ses02F_impro01_F000.wav")
        touch(dialog / "avi" / "DivX" / "Ses02F_impro01.avi")
        return tmp_path

    def test_turns_come_in_order_with_labels_words_and_their_own_sound(self, release):
        rows, collected = collect(iemocap, release)
        assert list(rows) == [f"Ses02F_impro01_{turn}" for turn in ("F000", "M000", "F001")]
        first, second, third = rows.values()
        assert first.text == "Excuse me."
        assert first.audio.uri.endswith("Ses02F_impro01_F000.wav")
        assert first.video is None
        assert [row.labels["emotion"] for row in rows.values()] == ["neutral", "excited", None]
        assert second.labels["valence"] == 4.0
        assert (second.speaker, second.group, third.turn) == ("Ses02M", "Ses02", 2)
        assert set(collected.folds["session"].values()) == {1}

    def test_films_are_segments_of_the_dialogue(self, release):
        rows, _ = collect(iemocap, release, media="films", scheme="four")
        row = rows["Ses02F_impro01_M000"]
        assert row.video.uri.endswith("Ses02F_impro01.avi")
        assert (row.start_s, row.end_s, row.labels["emotion"]) == (8.5, 9.75, "happy")


class TestAvamerg:
    def conversation(self, emotion="anxious"):
        person = {"age": "young", "gender": "male", "timbre": "mid", "ID": 7}
        said = [
            {"index": 0, "role": "speaker", "utterance": "I failed."},
            {"index": 1, "role": "listener", "utterance": "Oh."},
            {"index": 2, "role": "speaker", "utterance": "Again."},
        ]
        turn = {
            "turn_id": "2", "context": "", "dialogue_history": said, "response": "Courage!",
            "chain_of_empathy": {"speaker_emotion": emotion},
        }  # fmt: skip
        return {
            "conversation_id": "00012",
            "speaker_profile": person,
            "listener_profile": {**person, "ID": 9},
            "topic": "Education",
            "turns": [{"dialogue_history": said[:1]}, turn],
        }

    def test_the_last_turn_gives_all_utterances_and_the_reply(self, tmp_path):
        (tmp_path / "train.json").write_text(json.dumps([self.conversation()]))
        film = touch(tmp_path / "video" / "dia00012utt0_7.mp4")
        sound = touch(tmp_path / "audio" / "dia00012utt0_7.wav")
        rows, _ = collect(avamerg, tmp_path)
        assert list(rows) == [f"dia00012utt{k}" for k in range(4)]
        assert rows["dia00012utt0"].video.uri == film
        assert rows["dia00012utt0"].audio.uri == sound
        assert [row.labels["emotion"] for row in rows.values()] == ["sad", None, "sad", None]
        assert rows["dia00012utt3"].text == "Courage!"
        assert {row.split for row in rows.values()} == {"train"}
        assert rows["dia00012utt1"].speaker == "avatar-9"

    def test_an_unknown_emotion_is_a_fault_unless_an_alias_maps_it(self, tmp_path):
        (tmp_path / "test.json").write_text(json.dumps([self.conversation("worried")]))
        with pytest.raises(LabelTableError, match="'worried' is not among its classes"):
            collect(avamerg, tmp_path)
        rows, _ = collect(avamerg, tmp_path, aliases={"worried": "anxious"})
        assert rows["dia00012utt0"].labels["emotion"] == "sad"
