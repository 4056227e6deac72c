"""Random tables of labels against a slow, obvious reader: right rows, or every fault and exit 1."""

import ast
import csv
import io
import json
import re
import shutil
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import AffuseError, LabelTableError, TableError
from jobs import prepare
from jobs.catalog import manifest
from jobs.datasets.folder import Config

EXAMPLES = 400
NOTHING = {"", "NA", "N/A", "null", "None", "NULL", "#N/A", "<NA>"}
NAN = {"nan", "NaN", "-nan"}
FORMATS = (",", ";", "\t", "|", "jsonl", "json", "parquet")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "utf-32")
ASKED = {
    "Speaker": "speaker",
    "speaker_id": "speaker",
    "Split": "split",
    "TURN": "turn",
    "Text": "text",
}


@dataclass
class Sheet:
    """A table as its author means it, and how it is written down."""

    header: list[str]
    rows: list[list[str]]
    form: str
    encoding: str
    ending: str
    before: list[str] = field(default_factory=list)
    ragged: dict[int, int] = field(default_factory=dict)
    """Row -> cells too many (above 0) or too few."""

    blank: bool = False

    @property
    def delimited(self):
        return len(self.form) == 1


NAMES = (
    "a",
    "b",
    "007",
    "7",
    "Zo\u00eb",
    "Zoe\u0308",
    "x y",
    "1e5",
    "NA",
    "c-1",
    "d",
    "#e",
    "f",
    "",
)
WORDS = (
    "happy",
    "sad",
    "happy ",
    " sad",
    "",
    "NaN",
    "NA",
    "Happy",
    "so, so",
    "a;b",
    'say "hi"',
    "m|n",
)
POINTS = ("1", "-2.5", "1e1", ".5", "", "NA", "0", "+2")
COMMAS = ("1", "-2,5", "0,25", "", "3,125")
TAGS = ("a", "a|b", "a;b", "b, c", "|", "", "NA", "['a', 'x, y']", "[]", '["b"]', "none")
BRACKETS = ("[a]", "[1, 2]", "['a', b]")
ODD = ("oops", "nan", "inf", "1_0", "0x1", "1.2.3")
letters = st.text("ab ,;|\t\"'\n\r#\u00e9.", max_size=8)


@st.composite
def sheets(draw):
    extra = draw(
        st.lists(
            st.sampled_from(
                [
                    "score",
                    "speaker",
                    "split",
                    "turn",
                    "text",
                    "age",
                    *ASKED,
                    "mood",
                    "score",
                    "tags",
                ]
            ),
            max_size=5,
        )
    )
    header = ["name", "mood", *extra]
    if draw(st.integers(0, 5)):
        header = list(dict.fromkeys(header))
    if draw(st.integers(0, 9)) == 0:
        header.append("")
    style = draw(st.sampled_from([POINTS, POINTS, COMMAS, (*POINTS, *COMMAS), (*POINTS, *ODD)]))
    few = draw(st.booleans())
    pools = {
        "name": st.sampled_from(NAMES if few else NAMES[:4]),
        "mood": st.sampled_from(WORDS if few else WORDS[:3]),
        "score": st.sampled_from(style),
        "speaker": st.sampled_from(("p", "q", "", "NA", "P") if few else ("p", "q")),
        "split": st.sampled_from(("train", "test", "", "dev", "Train") if few else ("train", "")),
        "turn": st.sampled_from(("0", "1", "2", "", "1.5", "x") if few else ("0", "1")),
        "text": letters,
        "tags": st.sampled_from((*TAGS, *BRACKETS) if few else TAGS),
        "": st.just(""),
    }
    count = draw(st.integers(0, 6))
    cells = [pools.get(column, st.sampled_from(("3", "x", ""))) for column in header]
    rows = [[draw(cell) for cell in cells] for _ in range(count)]
    form = draw(st.sampled_from(FORMATS))
    sheet = Sheet(
        header=header,
        rows=rows,
        form=form,
        encoding=draw(st.sampled_from(ENCODINGS)),
        ending=draw(st.sampled_from(("\n", "\r\n", "\r"))),
    )
    if sheet.delimited:
        sheet.before = draw(st.lists(st.sampled_from(("", "# of us, and more", "   ")), max_size=2))
        sheet.blank = draw(st.booleans())
        if count > 3 and draw(st.integers(0, 4)) == 0:
            sheet.ragged = {draw(st.integers(0, count - 1)): draw(st.sampled_from((-1, 1)))}
    else:
        sheet.header = [column or "extra" for column in dict.fromkeys(header)]
        sheet.rows = [row[: len(sheet.header)] for row in rows]
    return sheet


def written(sheet, folder):
    """The sheet as a file; its path."""
    if sheet.form == "parquet":
        columns = {c: [r[k] or None for r in sheet.rows] for k, c in enumerate(sheet.header)}
        pq.write_table(
            pa.table(columns, schema=pa.schema([(c, pa.string()) for c in columns])),
            folder / "l.parquet",
        )
        return folder / "l.parquet"
    objects = [dict(zip(sheet.header, row, strict=True)) for row in sheet.rows]
    if sheet.form == "json":
        text, name = json.dumps(objects, ensure_ascii=False), "l.json"
    elif sheet.form == "jsonl":
        text, name = "\n".join(json.dumps(o, ensure_ascii=False) for o in objects), "l.jsonl"
    else:
        text, name = delimited(sheet), "l.csv"
    encoding = sheet.encoding
    try:
        content = text.encode(encoding)
    except UnicodeEncodeError:
        content = text.encode("utf-8")
    (folder / name).write_bytes(content)
    return folder / name


def delimited(sheet):
    out = io.StringIO()
    # The library forgets the quotes that line ends other than its own need.
    returns = any({"\r", "\n"} & {*cell} for row in sheet.rows for cell in row)
    quoting = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=sheet.form, lineterminator=sheet.ending, quoting=quoting)
    for line in sheet.before:
        out.write(line + sheet.ending)
    writer.writerow(sheet.header)
    for index, row in enumerate(sheet.rows):
        change = sheet.ragged.get(index, 0)
        writer.writerow([*row, "more"] if change > 0 else row[: len(row) + change])
        if sheet.blank:
            out.write(sheet.ending)
    return out.getvalue()


# ---- the slow, obvious reader


def plain(cell):
    return unicodedata.normalize("NFC", cell.strip())


def as_numbers(cells, semicolons):
    """Value, None, or the word "wrong" for each cell."""
    number = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
    comma = re.compile(r"[+-]?(\d+|\d*,\d+)([eE][+-]?\d+)?")
    thousands = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
    cells = [cell.strip() for cell in cells]
    there = [cell for cell in cells if cell not in NOTHING and cell not in NAN]
    with_comma = [cell for cell in there if "," in cell and comma.fullmatch(cell)]
    behind = bool(with_comma) and all(comma.fullmatch(cell) for cell in there)
    if behind and not semicolons and all(thousands.fullmatch(cell) for cell in with_comma):
        behind = False
    found = []
    for cell in cells:
        if cell in NOTHING:
            found.append(None)
        elif behind and comma.fullmatch(cell):
            found.append(float(cell.replace(",", ".")))
        elif number.fullmatch(cell):
            found.append(float(cell))
        else:
            found.append("wrong")
    return found


def as_labels(cell):
    """The labels of a cell, None, or the word "wrong"."""
    cell = cell.strip()
    if cell in NOTHING or cell in NAN:
        return None
    if cell.startswith("[") and cell.endswith("]"):
        try:
            words = ast.literal_eval(cell)
        except (SyntaxError, ValueError):
            return "wrong"
        return frozenset(words) if all(isinstance(word, str) for word in words) else "wrong"
    for mark in ";,":
        cell = cell.replace(mark, "|")
    return frozenset(part.strip() for part in cell.split("|") if part.strip())


def differ_in_case(cells):
    families = defaultdict(set)
    for cell in cells:
        if cell is not None:
            families[cell.casefold()].add(cell)
    return [family for family in families.values() if len(family) > 1]


def expected(sheet):
    """(rows by name, parts of every fault)."""
    faults = [
        f"columns are called {column!r}"
        for column, count in Counter(c for c in sheet.header if c).items()
        if count > 1
    ]
    rows = [row for k, row in enumerate(sheet.rows) if k not in sheet.ragged]
    rows = [row for row in rows if any(cell.strip() for cell in row)] if sheet.delimited else rows
    # A row that says nothing is passed over, whatever its length.
    uneven = [
        index
        for index, change in sheet.ragged.items()
        if change > 0 or any(cell.strip() for cell in sheet.rows[index][:change])
    ]
    faults += ["the header has"] * len(uneven)
    place = {column: sheet.header.index(column) for column in sheet.header}
    if not sheet.delimited and not sheet.rows and sheet.form != "parquet":
        return {}, None
    roles = ("text", "turn", "speaker", "split")
    free = [role for role in roles if role not in place]
    faults += [f"column {c!r} is not read" for c in place if ASKED.get(c) in free]

    def column(name):
        return [row[place[name]] for row in rows] if name in place else [""] * len(rows)

    names = [plain(cell) for cell in column("name")]
    faults += ["has no name"] * names.count("")
    seen = Counter(name for name in names if name)
    faults += [
        f"{name}: the name stands twice" for name, count in seen.items() for _ in range(count - 1)
    ]
    words = {}
    for role in ("mood", "speaker", "split"):
        cells = [cell.strip() for cell in column(role)]
        words[role] = [None if cell in NOTHING | NAN else cell for cell in cells]
    for role in ("mood", "speaker"):
        faults += ["differ only in case"] * len(differ_in_case(words[role]))
    known = {
        "train": "train",
        "valid": "valid",
        "dev": "valid",
        "val": "valid",
        "test": "test",
        None: None,
    }
    semicolons = sheet.form == ";"
    numbers = {role: as_numbers(column(role), semicolons) for role in ("score", "turn")}
    tags = [as_labels(cell) for cell in column("tags")]
    faults += ["such cells): expected a|b"] * ("wrong" in tags)
    found, splits = {}, defaultdict(set)
    for k, name in enumerate(names):
        split, turn, score = words["split"][k], numbers["turn"][k], numbers["score"][k]
        if name and split not in known:
            faults.append(f"split {split!r}")
        if turn == "wrong" or (turn is not None and turn % 1):
            faults.append("; expected a whole number")
        if "score" in place and score == "wrong":
            faults.append("; expected a number")
        if not name:
            continue
        last = max(
            j for j, other in enumerate(names) if other == name
        )  # of twins, which are a fault
        splits[words["speaker"][k] or name].add(known.get(words["split"][last]))
        found[name] = (
            words["mood"][k],
            score,
            column("text")[k].strip() or None,
            words["speaker"][k],
            turn,
            tags[k],
        )
    faults += ["stands in more than one split"] * sum(len(s - {None}) > 1 for s in splits.values())
    if not found and not faults:
        faults.append("the source holds no clip")
    return found, faults


# ---- the two side by side


@pytest.mark.slow
def test_every_random_table_is_read_as_the_obvious_reader_does(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)
    (tmp_path / "none").mkdir()
    outcomes = Counter()

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(sheets())
    def check(sheet):
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        rows, faults = expected(sheet)
        tasks = {"mood": "classification"}
        tasks |= {"score": "regression"} if "score" in sheet.header else {}
        tasks |= {"tags": "multilabel"} if "tags" in sheet.header else {}
        config = Config(
            root=str(tmp_path / "root"),
            source=str(tmp_path / "none"),
            labels=str(written(sheet, tmp_path)),
            tasks=tasks,
            workers=1,
        )
        try:
            prepare.main(config)
        except TableError as error:
            outcomes["refused"] += 1
            message = str(error)
            assert not (tmp_path / "root").exists()
            if faults is None:
                return
            assert faults, message
            for part, count in Counter(faults).items():
                assert message.count(part) >= count, (part, message)
            stated = int(re.search(r"^(\d+) fault|(\d+) fault", message)[0].split()[0])
            assert stated == len(faults), (faults, message)
            return
        outcomes["read"] += 1
        assert faults == []
        read = manifest.read_manifest(str(tmp_path / "root")).to_pylist()
        labels = manifest.read_dataset(str(tmp_path / "root")).tasks
        got = {
            r["name"]: (
                r["mood"], r.get("score"), r["text"], r["speaker"], r["turn"],
                None if r.get("tags") is None else frozenset(
                    label for label, there in zip(labels["tags"].classes, r["tags"], strict=True) if there
                ),
            )
            for r in read
        }  # fmt: skip
        assert got == rows

    check()
    assert sum(outcomes.values()) >= EXAMPLES
    assert min(outcomes["read"], outcomes["refused"]) > EXAMPLES / 25


def test_the_faults_of_a_table_end_a_job_with_exit_1():
    assert issubclass(TableError, AffuseError)
    assert issubclass(LabelTableError, TableError)
