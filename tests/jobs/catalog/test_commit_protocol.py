"""Any number of jobs on one root, killed anywhere: every clip has its one current row, or the reader refuses.

The machine drives the real functions (units cut, keys, publish, gather, recall, read) with toy rows that
spell out what they were made of, so that a row that does not follow from the present clips is seen at once.
"""

import hashlib
import io
import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cluster import storage, tables
from cluster.errors import NotPreparedError
from cluster.unit_tables import UnitIndex, failed_rows, locate, mended, publish_unit, published
from jobs.catalog.compaction import compact, recall
from jobs.catalog.features import read_features
from jobs.catalog.layout import former_uri
from jobs.catalog.manifest import read_manifest, read_unit, units
from jobs.preparing.keys import by_turn
from jobs.stream.decode import with_context
from tests.jobs.preparing.clip_rows import in_units

READS = {"sound": ("sound",), "context": ("text", "past"), "view": ("sound", "split")}
NAMES = [f"c{i}" for i in range(7)]
CHANGES = (
    *(("text", text) for text in ("a", "b", "")),
    *(("turn", turn) for turn in (0, 9)),
    *(("dialogue", dialogue) for dialogue in ("d0", "d1", None)),
    *(("test", test) for test in (True, False)),
    ("sound", 1),
)
JOBS = ("encode", "compact", "mend", "recall", "prepare", "stale")


class Killed(BaseException):
    """The job's process is gone."""


class Commit(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.root = tempfile.mkdtemp(prefix="af-test-")
        self.clips = {
            name: {"text": "a", "turn": i, "dialogue": f"d{i % 3}", "sound": 0, "test": i == 6}
            for i, name in enumerate(NAMES[:6])
        }
        self.sounds, self.broken, self.waiting = {}, set(), None
        self.best = {encoder: {} for encoder in READS}
        for encoder, reads in READS.items():
            facts = {"name": encoder, "options": {}, "reads": reads}
            storage.publish_json(facts, f"{self.uri(encoder)}/descriptor.json")
        self.prepare()

    def teardown(self):
        if hasattr(self, "root"):
            self.all_is_well_in_the_end()
            shutil.rmtree(self.root)

    def uri(self, encoder):
        return f"{self.root}/features/{encoder}-1"

    # ---- the jobs

    def prepare(self):
        """What `prepare` does, without media."""
        rows = [self.row(name, clip) for name, clip in sorted(self.clips.items())]
        before = {}
        if Path(self.root, "dataset.json").exists():
            for row in read_manifest(self.root, ["unit", "clip_id"]).to_pylist():
                before.setdefault(row["unit"], []).append(row["clip_id"])
        stamps = {n: {"size": 1, "mtime": str(c["sound"])} for n, c in self.clips.items()}
        clips = in_units(rows, before.values(), stamps, most_clips=3)
        digest = hashlib.sha256(json.dumps(clips).encode()).hexdigest()[:12]
        uri = f"{self.root}/manifest/{digest}/part-0.parquet"
        self.sounds[uri] = {int(n[1:]): c["sound"] for n, c in self.clips.items()}
        table = tables.MANIFEST.conform(pa.Table.from_pylist(clips, tables.MANIFEST.schema))
        buffer = io.BytesIO()
        with pq.ParquetWriter(buffer, table.schema) as writer:
            for unit in dict.fromkeys(table["unit"].to_pylist()):
                writer.write_table(table.filter(pa.compute.equal(table["unit"], unit)))
        storage.publish_bytes(buffer.getvalue(), uri)
        facts = {"name": "toy", "manifest": digest, "tasks": {}}
        storage.publish_json(facts, f"{self.root}/dataset.json")

    def row(self, name, clip):
        blank = dict.fromkeys(tables.MANIFEST.schema.names)
        source = {"uri": name, "offset": None, "size": None}
        return blank | {
            "clip_id": int(name[1:]),
            "name": name,
            "audio": source,
            "text": clip["text"],
            "dialogue": clip["dialogue"],
            "turn": clip["turn"],
            "split": "test" if clip["test"] else "train",
            "cost": 1.0,
        }

    def encode(self, encoder, most=99):
        """Encode up to `most` units of what is missing; what is finished is gathered."""
        refs = units(self.root)
        recall(self.uri(encoder), {ref.version(READS[encoder]) for ref in refs})
        self.write(encoder, refs, most)

    def write(self, encoder, refs, most):
        done = published(self.uri(encoder))
        todo = [ref for ref in refs if ref.version(READS[encoder]) not in done]
        for ref in todo[:most]:
            self.publish(encoder, ref, self.rows(encoder, ref))
        if len(todo) <= most:
            self.compact(encoder)

    def publish(self, encoder, ref, table, **how):
        version = ref.version(READS[encoder])
        publish_unit(self.uri(encoder), version, table, **how)
        failed = table["status"].to_pylist().count("failed")
        self.best[encoder][version] = min(failed, self.best[encoder].get(version, 99))

    def rows(self, encoder, ref):
        rows = with_context(read_unit(ref).to_pylist())
        made_of = {
            "sound": lambda row: str(self.sounds[ref.file][row["clip_id"]]),
            "context": lambda row: "/".join([*row["context"][0], row["text"]]),
            "view": lambda row: f"{self.sounds[ref.file][row['clip_id']]} {row['split'] == 'test'}",
        }[encoder]
        states = ["failed" if row["name"] in self.broken else "ok" for row in rows]
        return pa.table(
            {
                "clip_id": pa.array([row["clip_id"] for row in rows], pa.int64()),
                "status": states,
                "made_of": [made_of(row) for row in rows],
            }
        )

    def compact(self, encoder):
        reads, uri = READS[encoder], self.uri(encoder)
        wanted = lambda: [ref.version(reads) for ref in units(self.root)]  # noqa: E731
        compact(uri, wanted, former=former_uri(uri), target_mb=0.004, least_mb=0.002)

    def mend(self, encoder):
        refs = units(self.root)
        uri = self.uri(encoder)
        failed = failed_rows(uri, {ref.version(READS[encoder]) for ref in refs})
        index = UnitIndex(uri)
        for ref in refs:
            version = ref.version(READS[encoder])
            if ref.unit in failed and version in index:
                again = self.rows(encoder, ref)
                wanted = pa.array(sorted(failed[ref.unit]), pa.int64())
                again = again.filter(pa.compute.is_in(again["clip_id"], value_set=wanted))
                self.publish(encoder, ref, mended(index.read(version), again), mended=True)

    def recall(self, encoder):
        recall(self.uri(encoder), {r.version(READS[encoder]) for r in units(self.root)})

    def stale(self, encoder):
        """A job that began by an older manifest goes on to its end."""
        if self.waiting is not None:
            refs, self.waiting = self.waiting, None
            self.write(encoder, refs, 99)

    def do(self, job, encoder):
        self.prepare() if job == "prepare" else getattr(self, job)(encoder)

    # ---- what happens

    @rule(name=st.sampled_from(NAMES[:6]), change=st.sampled_from(CHANGES))
    def prepare_again(self, name, change):
        what, value = change
        if name in self.clips:
            clip = self.clips[name]
            clip[what] = clip["sound"] + 1 if what == "sound" else value
            self.prepare()

    @rule(name=st.sampled_from(NAMES))
    def a_clip_comes_or_goes(self, name):
        if name in self.clips and len(self.clips) > 2:
            self.kept = getattr(self, "kept", {}) | {name: self.clips.pop(name)}
        else:
            fresh = {"text": "c", "turn": 4, "dialogue": "d1", "sound": 0, "test": False}
            self.clips.setdefault(name, getattr(self, "kept", {}).get(name, fresh))
        self.prepare()

    @rule(name=st.sampled_from(NAMES[:6]))
    def media_break_or_are_put_back(self, name):
        self.broken ^= {name}

    @rule()
    def another_job_begins(self):
        self.waiting = units(self.root)

    @rule(job=st.sampled_from(JOBS), encoder=st.sampled_from(list(READS)))
    def a_job_runs(self, job, encoder):
        self.do(job, encoder)

    @rule(encoder=st.sampled_from(list(READS)), most=st.integers(0, 2))
    def some_units_are_encoded(self, encoder, most):
        self.encode(encoder, most)

    @rule(job=st.sampled_from(JOBS), encoder=st.sampled_from(list(READS)), steps=st.integers(0, 6))
    def a_job_is_killed(self, job, encoder, steps):
        def die():
            raise Killed

        try:
            with at_change(steps, die):
                self.do(job, encoder)
        except Killed:
            pass

    @rule(
        first=st.sampled_from(JOBS),
        second=st.sampled_from(JOBS),
        encoder=st.sampled_from(list(READS)),
        steps=st.integers(0, 6),
    )
    def a_job_runs_in_the_middle_of_another(self, first, second, encoder, steps):
        with at_change(steps, lambda: self.do(second, encoder)):
            self.do(first, encoder)

    @rule(job=st.sampled_from(JOBS), encoder=st.sampled_from(list(READS)), steps=st.integers(0, 6))
    def a_job_runs_under_a_reader(self, job, encoder, steps):
        with at_change(steps, lambda: self.do(job, encoder), names=("open_parquet",)):
            self.read(encoder)

    # ---- what holds

    @invariant()
    def every_clip_has_its_one_current_row_or_the_reader_refuses(self):
        for encoder in READS if hasattr(self, "root") else ():
            self.read(encoder)

    def read(self, encoder):
        try:
            rows = read_features(self.root, f"{encoder}-1").to_pylist()
        except NotPreparedError:
            return None
        found = {row["clip_id"]: row for row in rows}
        assert len(found) == len(rows)
        expected = self.expected(encoder)
        assert found.keys() == expected.keys()
        for clip, row in found.items():
            assert row["made_of"] == expected[clip]
        return found

    def expected(self, encoder):
        facts = {}
        for name, clip in self.clips.items():
            around = [{**c, "name": n} for n, c in self.clips.items()]
            said = by_turn(c for c in around if c["dialogue"] == clip["dialogue"])
            before = said[: [c["name"] for c in said].index(name)] if clip["dialogue"] else []
            texts = [c["text"] for c in before if c["text"]]
            facts[int(name[1:])] = {
                "sound": str(clip["sound"]),
                "context": "/".join([*texts, clip["text"]]),
                "view": f"{clip['sound']} {clip['test']}",
            }[encoder]
        return facts

    @invariant()
    def nothing_that_was_published_is_lost(self):
        for encoder in READS if hasattr(self, "root") else ():
            uri = self.uri(encoder)
            here, apart = locate(uri), locate(former_uri(uri))
            for version, failed in self.best[encoder].items():
                left = [rows[version].failed for rows in (here, apart) if version in rows]
                assert left, f"{encoder} {version} is gone"
                assert min(left) <= failed, f"{encoder} {version} has failed again"

    def all_is_well_in_the_end(self):
        """Without disturbance every job ends, and who reads the files without us sees each clip once."""
        for encoder in READS:
            self.encode(encoder)
            assert self.read(encoder) is not None
            files = Path(self.uri(encoder)).glob("*.parquet")
            ids = [i for file in files for i in pq.read_table(file)["clip_id"].to_pylist()]
            assert sorted(ids) == sorted(self.expected(encoder))


@contextmanager
def at_change(steps, act, names=("publish_bytes", "remove")):
    """`act` once, before the storage is changed (or opened) for the n-th time."""
    count = 0

    def counted(change):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == steps + 1:
                act()
            return change(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(storage, name, counted(getattr(storage, name)))
        yield


def checked(examples, steps):
    case = Commit.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return case()


def test_a_few_jobs_on_one_root_at_any_timing():
    checked(6, 20).runTest()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_jobs_on_one_root_at_any_timing():
    checked(20, 50).runTest()
