"""List files: every form that is read, every malformed row that is named, and what they cost."""

from __future__ import annotations

import json
import os
import pickle
import time
import tracemalloc

import numpy as np
import pytest

from slowfast_maskfeat.datasets import DataFolder, read_class_names, read_csv, read_list
from slowfast_maskfeat.datasets.list_file import list_lines
from slowfast_maskfeat.datasets.list_format import find_separator


def _read(tmp_path, content: str | bytes, **arguments):
    path = tmp_path / "train.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_list(path, **arguments)


def _rows(videos) -> list[tuple[str, int | None]]:
    labels = [None] * len(videos) if videos.labels is None else videos.labels.tolist()
    return [(videos.path(i), label) for i, label in enumerate(labels)]


TWO = [("a/x.mp4", 3), ("b/y.mp4", 0)]


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        ("a/x.mp4 3\nb/y.mp4 0\n", " "),
        ("a/x.mp4   3 \n\n \t\n  b/y.mp4\t0", " "),
        ("a/x.mp4 3\r\nb/y.mp4 0\r\n", " "),
        ("\ufeffa/x.mp4 3\nb/y.mp4 0\n", " "),
        ("path label\na/x.mp4 3\nb/y.mp4 0\n", " "),
        ("a/x.mp4,3\nb/y.mp4,0\n", ","),
        ("\ufeff\r\na/x.mp4 , 3\r\n\r\n b/y.mp4,0\r\n", ","),
        ("path,label\na/x.mp4,3\nb/y.mp4,0\n", ","),
        ("Label,Video_Path,split\n3,a/x.mp4,train\n0,b/y.mp4,train\n", ","),
        ('"a/x.mp4","3"\n"b/y.mp4","0"\n', ","),
        ("a/x.mp4\t3\nb/y.mp4\t0\n", "\t"),
        ("a/x.mp4\t3\nb/y.mp4\t0\n", "\\t"),  # as a shell passes "\t"
        ("a/x.mp4;3\nb/y.mp4;0\n", ";"),
        ('"a/x.mp4";"3"\n"b/y.mp4";"0"\n', ";"),
        ("path;label;score\na/x.mp4;3;0,5\nb/y.mp4;0;0,25\n", ";"),
        ("Video Path;Class-ID\na/x.mp4;3\nb/y.mp4;0\n", ";"),
        ("clip_path,action\na/x.mp4,3\nb/y.mp4,0\n", ","),
    ],
)
def test_path_and_label(content, separator, tmp_path):
    assert _rows(_read(tmp_path, content, separator=separator)) == TWO


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        ("a/x.mp4\nb/y.mp4\n", " "),
        ("a/x.mp4\nb/y.mp4\n", ","),
        ("path\na/x.mp4\nb/y.mp4\n", "\t"),
    ],
)
def test_path_alone(content, separator, tmp_path):
    videos = _read(tmp_path, content, separator=separator)
    assert videos.labels is None
    assert _rows(videos) == [("a/x.mp4", None), ("b/y.mp4", None)]


def test_paths_with_blanks_commas_and_any_script(tmp_path):
    content = 'hula hooping/x y.mp4,1\n"a, b/«quoted"".mp4",0\n視頻/été.mp4,2\n'
    assert _rows(_read(tmp_path, content, separator=",")) == [
        ("hula hooping/x y.mp4", 1),
        ('a, b/«quoted".mp4', 0),
        ("視頻/été.mp4", 2),
    ]
    assert _rows(_read(tmp_path, "hula hooping/x.mp4\t1\n", separator="\t")) == [
        ("hula hooping/x.mp4", 1)
    ]


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "\ufeffutf-16-be", "utf-32"]
)
@pytest.mark.parametrize("form", ["a/x.mp4 3\r\nb/視頻.mp4 0\r\n", "視頻 視頻/été.mp4\t3\n"])
def test_lists_in_other_unicode_encodings(encoding, form, tmp_path):
    """PowerShell writes UTF-16 with a byte order mark, spreadsheets with tabs."""
    mark = "\ufeff" if encoding.startswith("\ufeff") else ""
    content = (mark + form).encode(encoding.removeprefix("\ufeff"))
    separator = "\t" if "\t" in form else " "
    assert _rows(_read(tmp_path, content, separator=separator)) == _rows(
        _read(tmp_path, form, separator=separator)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4 1\nb.mp4 2\n".encode("utf-16")[:-1], "not UTF-16-LE: truncated data$"),
        (b"\xff\xfea\0\x00\xd8 \0", "train.csv must be text in .*not UTF-16"),
        (b"\x1a\x45\xdf\xa3\0\0\0\0" * 99, "got NUL bytes, as in a binary file"),
    ],
)
def test_a_list_that_is_no_text_is_one_clear_error(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        _read(tmp_path, content)


def test_a_first_line_that_may_be_a_header_is_told(tmp_path):
    videos = _read(tmp_path, "ident\na.mp4\nb.mp4\n")
    assert [videos.path(row) for row in range(3)] == ["ident", "a.mp4", "b.mp4"]
    (note,) = videos.notes
    assert "'ident' in the first line is read as a path" in note
    assert "(path, video, clip" in note
    assert _read(tmp_path, "folder\nother\n").notes == ()


def test_the_column_that_is_read_is_told_where_a_header_names_several(tmp_path):
    videos = _read(tmp_path, "name,path,class,class_id\na,b.mp4,hop,3\n", separator=",")
    assert videos.path(0) == "a"
    assert videos.class_names == ("hop",)
    (note,) = videos.notes
    assert note == (
        "the header names the columns 'name', 'path' for paths, of which the first is read; "
        "the header names the columns 'class', 'class_id' for labels, of which the first is read"
    )
    assert _read(tmp_path, "fold,path,class\n1,b.mp4,hop\n", separator=",").notes == ()


def test_a_path_that_is_not_utf8_opens_the_same_file(tmp_path):
    name = b"caf\xe9.mp4"
    videos = _read(tmp_path, name + b" 0\n")
    assert os.fsencode(videos.path(0)) == name


@pytest.mark.parametrize("space", ["\u202f", "\u3000", "\xa0", "\x0c"])
def test_other_spaces_are_part_of_a_path(space, tmp_path):
    """As in the names of screen recordings; a line of them alone is blank."""
    path = tmp_path / "a.csv"
    path.write_text(f"a.mp4 0\nRecording{space}PM.mov \t1 \n{space}\nb.mkv 2\n")
    videos = read_list(path)
    assert [videos.path(row) for row in range(3)] == ["a.mp4", f"Recording{space}PM.mov", "b.mkv"]
    assert videos.labels.tolist() == [0, 1, 2]
    header, lines = list_lines(str(path), " ", 3)
    assert header == ""
    assert [number for number, _ in lines] == [1, 2, 4]


def test_prefix_is_put_in_front(tmp_path):
    assert _read(tmp_path, "x.mp4 1\n", prefix="/data/k400").path(0) == "/data/k400/x.mp4"
    assert _read(tmp_path, "/else/x.mp4 1\n", prefix="/data").path(0) == "/else/x.mp4"


KINETICS = """label,youtube_id,time_start,time_end,split
riding a bike,-3b7l_o2IsQ,28,38,train
"abseiling",0347ZoDXyP0,95,105,train
riding a bike,xyzxyzxyzxy,1000,1010.0,train
"""


@pytest.mark.parametrize("separator", [" ", ","])
def test_official_kinetics_annotation(separator, tmp_path):
    videos = _read(tmp_path, KINETICS, separator=separator, prefix="/k400")
    assert _rows(videos) == [
        ("/k400/riding a bike/-3b7l_o2IsQ_000028_000038.mp4", 1),
        ("/k400/abseiling/0347ZoDXyP0_000095_000105.mp4", 0),
        ("/k400/riding a bike/xyzxyzxyzxy_001000_001010.mp4", 1),
    ]
    assert videos.class_names == ("abseiling", "riding a bike")
    given = ("archery", "riding a bike", "abseiling")
    assert _read(tmp_path, KINETICS, class_names=given).labels.tolist() == [1, 2, 1]
    bare = "youtube_id,time_start,time_end,split\nabcabcabcab,1,11,test\n"
    videos = _read(tmp_path, bare)
    assert _rows(videos) == [("abcabcabcab_000001_000011.mp4", None)]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("a.mp4 1\n\nb.mp4\n", {}, "line 3: no label"),
        ("a.mp4\nb.mp4 1\n", {}, "line 2: .*fields must be 1, got 2"),
        ("a.mp4 1\nb b.mp4 1\n", {}, "line 2: .*fields must be 2, got 3.*comma or tab"),
        ("a.mp4,1\nb,b.mp4,1\n", {"separator": ","}, "line 2: .*fields must be 2, got 3.*quotes"),
        ("a.mp4 1\nb.mp4 x\n", {}, "line 2: the label must be .*got 'x'"),
        ("a.mp4 -1\n", {}, "line 1: the label must be .*'-1'"),
        ("a.mp4 1.0\n", {}, "line 1: the label must be"),
        ("a.mp4 99999999999999999999\n", {}, "line 1: the label must be .*got 9+$"),
        ("path,label\na.mp4,\n", {"separator": ","}, "line 2: no label"),
        (",1\n", {"separator": ","}, "line 1: the path is empty"),
        ("a.mp4,1\n", {}, "line 1: .*a comma before a number.*','"),
        ("a.mp4 1\n", {"separator": ","}, "line 1: .*a space before a number"),
        ('a.mp4,1\n"b.mp4,1\nc.mp4,1\n', {"separator": ","}, "line 2: .*(quote|end of data)"),
        (
            "a.mp4 0\nb.mp4 2\n",
            {"class_names": ("x", "y")},
            r"line 2: the label must be in \[0, 2\), got 2",
        ),
        (
            KINETICS,
            {"class_names": ("abseilin", "riding a bike")},
            "line 3: .*got 'abseiling'.*'abseilin'",
        ),
        (KINETICS + "a,b,c,d,e\n", {}, "line 5: times must be seconds"),
        (KINETICS + "a,b\n", {}, "line 5: .*fields must be 5, got 2"),
        (KINETICS + "a,,1,2,train\n", {}, "line 5: the youtube_id must not be empty"),
        ("", {}, "has no rows"),
        ("path,label\n\n", {"separator": ","}, "has no rows"),
        ("a.mp4|1\n", {"separator": "|"}, r"PATH_LABEL_SEPARATOR must be .* tab, got '\|'"),
        ("a.mp4;1\n", {}, "line 1: .*a semicolon before a number.*_SEPARATOR to ';'"),
        ("a.mp4;jump\nb.mp4;1\n", {}, "line 1: .*a semicolon after the name of a file"),
        ("a.mp4,jump\n", {}, "line 1: .*a comma after the name of a file"),
        ("path;label\na.mp4;jump\n", {}, "line 1: .*a semicolon between the names of a header"),
        ("clip;verb\na.mp4;1\n", {}, "line 2: .*a semicolon before a number"),
        ('"a.mp4" 1\n', {}, r"line 1: got the path '\"a.mp4\"'.* write 'a.mp4'$"),
        ("b.mp4 1\na.mp4, 1\n", {}, "line 2: got the path 'a.mp4,'.*PATH_LABEL_SEPARATOR to ','"),
        ("a b.mp4;1\n", {}, "line 1: the label .*it has a semicolon before a number"),
        ("ident,label\na.mp4,1\n", {"separator": ","}, r"if this .* the paths \(path, video"),
        ("path,verb\na.mp4,1\n", {"separator": ","}, r"if this .* the labels \(label, lab"),
        (
            "frames/v0 16 1\n",
            {},
            "line 1: .*comma or tab; if it is a folder of frames .* ava only",
        ),
        ("a\0.mp4 1\n" + "b.mp4 1\n" * 9, {}, "got NUL bytes, as in a binary file"),
        ("b.mp4 1\n" * 999 + "a\0.mp4 1\n", {}, "line 1000: the path has a NUL byte"),
    ],
)
def test_a_malformed_row_is_named(content, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        _read(tmp_path, content, **arguments)
    if "PATH_LABEL_SEPARATOR must" not in message:
        assert "train.csv" in str(caught.value)


ROWS = "".join(f"path with spaces/{i}.mp4,{i % 3}\n" for i in range(99))


@pytest.mark.parametrize(
    ("first", "rows", "message"),
    [
        ("# a comment", ROWS, "2, as in the rows below, got 1: '# a comment'; if it is a title"),
        ("# list of 99", ROWS, "must be 2, as in the rows below, got 1: '# list of 99'; "),
        ("# by me, in May, too", ROWS, "2, as in the rows below, got 3: '# by me, in May, too'; "),
        ("My videos", "path,label\n" + ROWS, "2, as in the rows below, got 1: 'My videos'; if it"),
        ("a.mp4", ROWS, "got 1: 'a.mp4'; .* remove it; if it is a sample, add its label"),
        ("a, b.mp4,1", ROWS, "got 3: .*; if a comma is part of its path, put quotes around"),
        ("#comment", 'a.mp4 0\nb.mp4 1,2\nc.mp4 ""\n', "2, as in the rows below, got 1: '#com"),
        ("# all clips", "a.mp4\nb.mp4\n", "1, as in the rows below, got 3: '# all clips'; if it"),
        ("# comment", "a.mp4 0\nb.mp4 1\n", "got 'comment'; .*if it is a title or a comment, "),
    ],
)
def test_a_title_is_named_instead_of_the_rows_below(first, rows, message, tmp_path):
    (tmp_path / "train.csv").write_text(f"\n{first}\n{rows}")
    with pytest.raises(ValueError, match=rf"train\.csv, line 2: .*{message}"):
        read_csv(DataFolder(str(tmp_path)), "train")


@pytest.mark.parametrize(
    "content",
    [
        "a.mp4\nmy video.mp4\nyour video.mp4\n",
        "a.mp4 0\nmy video.mp4 1\nyour video.mp4 2\n",
        "a.mp4 0\nb.mp4\nc.mp4\n",
        "path\na.mp4 0\nb.mp4 1\n",
        "a.mp4\nb.mp4 0\nc.mp4 1\nd.mp4\n",
    ],
)
def test_a_first_row_that_is_right_is_not_named(content, tmp_path):
    with pytest.raises(ValueError, match=r"train\.csv: 2 malformed rows: line 2: "):
        _read(tmp_path, content)


def test_every_malformed_row_is_named(tmp_path):
    content = "a.mp4 1\nb.mp4\n\nc.mp4 x\nd d.mp4 1\ne.mp4 2\na.mp4 2\n"
    with pytest.raises(ValueError, match=r"train\.csv: 4 malformed rows: ") as caught:
        _read(tmp_path, content)
    for what in (
        "line 2: no label",
        "line 4: the label must be an integer >= 0, got 'x'",
        "line 5: the number of fields must be 2, got 3",
        "line 7: 'a.mp4' has the label 2, but 1 in line 1",
    ):
        assert what in str(caught.value)


def test_a_list_that_is_wrong_as_a_whole_is_not_read_on(tmp_path):
    with pytest.raises(ValueError, match=r"50 or more malformed rows") as caught:
        _read(tmp_path, "a.mp4 1\n" + "b.mp4 x\n" * 100_000)
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("separator", [" ", ","])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_that_repeat_a_path_stay_and_are_told(separator, end, tmp_path):
    rows = ["a.mp4 1", "b.mp4 2", "a.mp4 1", "é.mp4 0", "a.mp4 1", "é.mp4 0"]
    content = "".join(row.replace(" ", separator) + end for row in rows)
    videos = _read(tmp_path, content, separator=separator)
    assert [videos.path(row) for row in range(6)] == [row.split()[0] for row in rows]
    assert videos.notes == ("3 rows repeat a path, the first of them is 'a.mp4' in line 3",)
    assert _read(tmp_path, content.replace("a.mp4", "c.mp4", 1), separator=separator).notes == (
        "2 rows repeat a path, the first of them is 'a.mp4' in line 5",
    )
    assert _read(tmp_path, "a.mp4\nb.mp4\na.mp4\n").notes[0].startswith("1 rows repeat a path")
    assert _read(tmp_path, "a.mp4 1\nb.mp4 1\n").notes == ()


def test_a_path_with_two_labels_is_an_error_that_names_both_lines(tmp_path):
    content = "path,label\nx y.mp4,dog\nb.mp4,cat\nx y.mp4,cat\n"
    with pytest.raises(ValueError, match=r"line 4: 'x y.mp4' has the label 'cat', but 'dog' in li"):
        _read(tmp_path, content, separator=",")
    content = "".join(f"{number}.mp4 {number}\n" for number in range(300))
    with pytest.raises(ValueError, match=r"2 malformed rows: line 301: '7\.mp4' .* 7 in line 8;"):
        _read(tmp_path, content + "7.mp4 8\n9.mp4 8\n")


def test_under_a_header_labels_may_be_names(tmp_path):
    content = "video,class,fold\nb.mp4,jump,1\na.mp4,hop,2\nc.mp4,jump,1\n"
    videos = _read(tmp_path, content, separator=",")
    assert videos.class_names == ("hop", "jump")
    assert videos.labels.tolist() == [1, 0, 1]
    given = _read(tmp_path, content, separator=",", class_names=("jump", "run", "hop"))
    assert given.labels.tolist() == [0, 2, 0]
    with pytest.raises(ValueError, match="line 3: the label must be a class name, got 'hop'"):
        _read(tmp_path, content, separator=",", class_names=("jump", "run"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"val\.csv does not exist"):
        read_list(tmp_path / "val.csv")


def test_a_row_that_is_not_there(tmp_path):
    videos = _read(tmp_path, "a.mp4 1\n")
    for index in (-1, 1):
        with pytest.raises(IndexError, match=rf"must be in \[0, 1\), got {index}"):
            videos.path(index)


def test_fingerprint_goes_by_content(tmp_path):
    reference = _read(tmp_path, "a.mp4 1\nb.mp4 2\n").fingerprint
    assert len(reference) == 64
    same = _read(tmp_path, "path,label\r\na.mp4,1\r\nb.mp4,2\r\n", separator=",", prefix="/else")
    assert same.fingerprint == reference
    for other in ("a.mp4 1\nb.mp4 3\n", "a.mp4 1\nc.mp4 2\n", "a.mp4\nb.mp4\n", "a.mp4 1\n"):
        assert _read(tmp_path, other).fingerprint != reference
    # Where one path ends and the next begins counts too.
    assert _read(tmp_path, "ab\nc\n").fingerprint != _read(tmp_path, "a\nbc\n").fingerprint


def test_a_quarter_of_a_million_rows_are_cheap(tmp_path):
    num_rows = 240_000
    path = tmp_path / "train.csv"
    with path.open("w") as file:
        for i in range(num_rows):
            file.write(
                f"/data/k400/train/some class {i % 400:03d}/abcde{i:06d}_000012.mp4,{i % 400}\n"
            )
    started = time.process_time()
    videos = read_list(path, separator=",")
    assert time.process_time() - started < 2.0  # measured: 0.5 s
    assert videos.path(num_rows - 1).endswith("some class 399/abcde239999_000012.mp4")
    assert np.array_equal(videos.labels, np.arange(num_rows) % 400)
    copy = pickle.loads(pickle.dumps(videos))
    assert copy.path(77) == videos.path(77)
    assert copy.fingerprint == videos.fingerprint
    assert len(pickle.dumps(videos)) < path.stat().st_size + 17 * num_rows
    tracemalloc.start()
    kept = read_list(path, separator=",")
    resting, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == num_rows
    assert peak < 100 << 20  # measured: 47 MB
    assert resting < 30 << 20


def test_class_names(tmp_path):
    assert read_class_names(tmp_path) is None
    (tmp_path / "kinetics_classnames.json").write_text(
        json.dumps({'"riding a bike"': 1, "abseiling": 0})
    )
    assert read_class_names(tmp_path) == ("abseiling", "riding a bike")
    (tmp_path / "class_names.json").write_text(json.dumps(["up", "down"]))
    assert read_class_names(tmp_path) == ("up", "down")
    (tmp_path / "classes.txt").write_bytes("\ufefflinks\r\nrechts herum\r\n\r\n".encode())
    assert read_class_names(tmp_path) == ("links", "rechts herum")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.txt", "\n", "must contain class names, got none"),
        ("classes.txt", "a\nb\na\n", "once, got 'a' twice"),
        ("class_names.json", "{", "must be valid JSON"),
        ("class_names.json", '{"a": 0, "b": 2}', r"must map its 2 names to 0..1"),
        ("class_names.json", '"a"', "must be a list"),
    ],
)
def test_malformed_class_names_are_told(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_class_names(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "vids/a 3\nvids/b 3,7\nvids/c 1\n",  # several labels of paths without a suffix
        "a.mp4 3\nb.mp4,v2.mp4 4\nc.mp4 1\n",  # a comma in a path
        "a 3\nb.mp4,v2 4\nc 1\n",
    ],
)
def test_a_first_row_of_path_and_label_shows_the_space(text):
    assert find_separator(text.splitlines()[:2]) == " "
