"""Lists of key frames: what is read of them, and each thing that is wrong, with file and line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from slowfast_maskfeat.datasets import (
    AvaFolder,
    AvaMedia,
    MissingListError,
    ava_class_names,
    read_ava,
)
from slowfast_maskfeat.datasets.box_rows import read_box_rows, read_excluded
from slowfast_maskfeat.datasets.frame_lists import list_frame_folders, read_frame_lists
from slowfast_maskfeat.datasets.label_map import read_labelmap

MAP = 'item {\n  name: "walk"\n  id: 1\n}\nitem {\n  name: "run {fast}"\n  id: 3\n}\n'
DRAWN = "a,0902,0.1,0.2,0.3,0.4,1,7\na,0902,0.1,0.2,0.3,0.4,3,7\nb,0903,0,0,1,1,2,0\n"


def _write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)


def _data(folder: Path, **options) -> AvaFolder:
    """A data set whose videos are empty files."""
    (folder / "map.pbtxt").write_text(options.pop("label_map", MAP))
    (folder / "videos" / "trainval").mkdir(parents=True, exist_ok=True)
    for name in ("a.mp4", "trainval/b.mkv", "c.webm", "notes.txt"):
        (folder / "videos" / name).touch()
    media = options.pop("media", AvaMedia(video_folder=str(folder / "videos")))
    files = {"ground_truth": ("drawn.csv",), "test_boxes": ("found.csv",), **options}
    return AvaFolder(str(folder), media=media, label_map="map.pbtxt", **files)


def _labels(key_frames) -> list:
    return key_frames.table.labels(np.arange(len(key_frames.table))).tolist()


FORMS = {
    "published": "a,0902,0.1,0.2,0.3,0.4,12,7\nb é,1000,0,0,1,1,80,0\n",
    "header": "video_id,middle_frame_timestamp,x1,y1,x2,y2,action_id,person_id\r\n"
    "a,0902,0.1,0.2,0.3,0.4,12,7\r\nb é,1000,0,0,1,1,80,0\r\n",
    "odd": "\ufeffa, 902, 1e-1,.2,+0.3,0.40,12, 7\n\n\nb é,1e3,0,0,1,1.0,80.0,0\n",
    "plain": "a,0902,0.1,0.2,0.3,0.4,12\nb é,1000,0,0,1,1,80",
    "open": "a,0902,0.1,0.2,0.3,0.4,,0.25\nb é,1000,0,0,1,1,-1,1e-05\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_boxes_are_read_in_every_form(form, tmp_path):
    (tmp_path / "x.csv").write_bytes(FORMS[form].encode())
    rows = read_box_rows(tmp_path / "x.csv")
    assert rows.names == ("a", "b é")
    assert rows.video.tolist() == [0, 1]
    assert rows.seconds.tolist() == [902, 1000]
    assert rows.boxes.tolist() == [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]]
    assert rows.actions.tolist() == ([-1, -1] if form == "open" else [12, 80])
    last = {"plain": None, "open": [0.25, 1e-5]}.get(form, [7, 0])
    assert (rows.last is None and last is None) or rows.last.tolist() == last


def test_names_in_quotes_or_between_spaces_are_the_same(tmp_path):
    rows = ["{},902,0.1,0.1,0.5,0.5,12", '{},"903","0.1","0.1","0.5","0.5","12"']
    text = "\n".join(row.format(name) for row in rows for name in ("vid", '"vid"', " vid "))
    for content in (text, "\n".join(text.splitlines()[:3])):
        (tmp_path / "x.csv").write_text(content)
        assert read_box_rows(tmp_path / "x.csv").names == ("vid",)


@pytest.mark.parametrize("name", ["video", "Name"])
def test_a_video_may_have_the_name_of_a_column(name, tmp_path):
    rows = [f"{name},{second},0.1,0.1,0.5,0.5,1" for second in (1, 2)]
    for text in ("\n".join(rows), "\n".join(["video,second,x1,y1,x2,y2,action", *rows])):
        (tmp_path / "x.csv").write_text(text)
        assert read_box_rows(tmp_path / "x.csv").seconds.tolist() == [1, 2]
    (tmp_path / "x.csv").write_text(f"{name},0902\n{name},0903\n")
    assert read_excluded(tmp_path / "x.csv")[1].tolist() == [902, 903]


def test_long_names_are_read(tmp_path):
    name = "n" * 100
    _write(tmp_path, long=f"{name},1,0,0,1,1,1\n" * 3)
    assert read_box_rows(tmp_path / "long.csv").names == (name,)


def test_more_rows_than_are_parsed_at_a_time_are_read(tmp_path):
    num_rows = 540_000  # 2 ** 19 are parsed at a time
    _write(tmp_path, many="".join(f"v{i % 7},{i},0,0,1,1,1\n" for i in range(num_rows)))
    rows = read_box_rows(tmp_path / "many.csv")
    assert np.array_equal(rows.seconds, np.arange(num_rows))
    assert rows.names == tuple(f"v{i}" for i in range(7))
    assert np.array_equal(rows.video, np.arange(num_rows) % 7)


GOOD = "a,0902,0.1,0.2,0.3,0.4,1,0.9\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "a,0902,0.5,0.2,0.3,0.4,1,0.9",
            r"x\.csv, line 4: the box must be .*got 0\.5, 0\.2, 0\.3, 0\.4",
        ),
        ("a,0902,0.1,0.2,0.3,1.2,1,0.9", r"x\.csv, line 4: the box must be .*\[0, 1\].*1\.2"),
        ("a,0902,-0.1,0.2,0.3,1,1,0.9", r"x\.csv, line 4: the box must be .*got -0\.1"),
        ("a,0902,nan,0.2,0.3,1,1,0.9", r"x\.csv, line 4: the box must be .*got nan"),
        ("a,-5,0.1,0.2,0.3,1,1,0.9", r"x\.csv, line 4: the time must be .*got -5"),
        ("a,0902,0.1,0.2,0.3,0.4,1", r"x\.csv, line 4: .* fields must be 8.*got 7"),
        ("a,noon,0.1,0.2,0.3,0.4,1,0.9", r"x\.csv, line 4: the time must be .*got 'noon'"),
        ("a,0902,0.1,?,0.3,0.4,1,0.9", r"x\.csv, line 4: the box must be .*got '\?'"),
        (
            "a,0902,0.1,0.2,0.3,0.4,1.5,0.9",
            r"x\.csv, line 4: the action must be .*got '1\.5'",
        ),
        (",0902,0.1,0.2,0.3,0.4,1,0.9", r"x\.csv, line 4: the name .* must not be empty"),
    ],
)
def test_a_malformed_row_is_named_with_its_line(row, message, tmp_path):
    _write(tmp_path, x=f"{GOOD}\n{GOOD}{row}\n{GOOD}")
    with pytest.raises(ValueError, match=message):
        read_box_rows(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}a,0902,12,20,96,72,1,0.9", "in .0, 1., as fractions of the frame, not in pixels"),
        (f"{GOOD}a,0902,0.1,?,0.3,0.4,1,0.9", "a row must be `video,second,x1,y1,x2,y2,action`"),
        (f"video_id,second,y1,x1,y2,x2,action,score\n{GOOD}", "order x1,y1,x2,y2, got the header"),
    ],
)
def test_the_columns_of_boxes_are_named(text, message, tmp_path):
    _write(tmp_path, x=text)
    with pytest.raises(ValueError, match=message):
        read_box_rows(tmp_path / "x.csv")


def test_all_malformed_rows_are_named_and_other_forms_refused(tmp_path):
    _write(tmp_path, x=GOOD + "a,0902,1,1,0,0,1,1\n" * 2, y="a,b,c\n", z="\n\n", e="")
    with pytest.raises(ValueError, match=r"x\.csv: 2 malformed rows: line 2: .*; line 3: "):
        read_box_rows(tmp_path / "x.csv")
    with pytest.raises(ValueError, match=r"y\.csv, line 1: .*`video,second,.* got 3 fields"):
        read_box_rows(tmp_path / "y.csv")
    for name in ("z", "e"):
        with pytest.raises(ValueError, match=rf"{name}\.csv has no rows"):
            read_box_rows(tmp_path / f"{name}.csv")
    with pytest.raises(MissingListError, match=r"n\.csv does not exist"):
        read_box_rows(tmp_path / "n.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{'x' * 140_000},0902,0,0,1,1,1", "line 2: the row is malformed: field larger than"),
        (f"a,{'0' * 140_000}x,0,0,1,1,1", "line 2: the row is malformed: field larger than"),
        (f"a,{'y' * 9_000},0,0,1,1,1", "line 2: the time must be a number, got 'yyy"),
        ("a,0902,0,0,1,1,inf", "line 2: the action must be an integer, got 'inf'"),
        ("a,0902,0,0,1,1,nan", "line 2: the action must be an integer, got 'nan'"),
        ("a,0902,0,0,1,1,1e300", "line 2: the action must be an integer, got '1e300'"),
        (f"a,0902,0,0,1,1,{'9' * 400}", "line 2: the action must be an integer, got '999"),
    ],
    ids=["name", "number", "text", "inf", "nan", "huge", "digits"],
)
def test_fields_of_any_length_are_one_short_line(row, message, tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(f"a,0902,0,0,1,1,1\n{row}\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}, {message}")) as error:
        read_box_rows(path)
    assert len(str(error.value)) < len(str(path)) + 400


def test_a_long_field_of_an_excluded_key_frame_is_one_short_line(tmp_path):
    path = tmp_path / "excluded.csv"
    path.write_text(f"a,0902\n{'x' * 140_000},1\n")
    with pytest.raises(ValueError, match="line 2: the row is malformed: field larger than"):
        read_excluded(path)


def test_a_number_of_many_digits_is_read_as_it_is(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("a,0902,0,0,1,1,\na,0902,0,0,1,1,0000000012\n")
    assert read_box_rows(path).actions.tolist() == [-1, 12]


def test_a_path_with_braces_is_named_as_it_is(tmp_path):
    folder = tmp_path / "{0}{x}"
    folder.mkdir()
    _write(folder, drawn="a,0902,0,0,1,1,9\n")
    with pytest.raises(ValueError, match=re.escape(f"1..3 ({folder / 'map.pbtxt'}), got 9")):
        read_ava(_data(folder), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('item { name: "a" id: 2000000000 }', r"the id must be in \[1, 65536\]"),
        ('item { name: "a" id: 1 ' * 20_000, "a } after each"),
        ('item { name: "a" id: 1 parts { } }\n' + MAP, "without braces in them"),
        (f'item {{ name: "{"x" * 9999}" id: 1 }}\n' * 2, "ids must be unique, got 1 as for"),
    ],
    ids=["id", "not closed", "nested", "long name"],
)
def test_a_label_map_of_any_content_is_one_short_line(text, message, tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_labelmap(path)
    assert len(str(error.value)) < len(str(path)) + 400


def test_excluded_key_frames(tmp_path):
    _write(tmp_path, x="a,0902\nb,1000\n", none="", bad="a,0902\na;0903\na,x\n")
    names, seconds = read_excluded(tmp_path / "x.csv")
    assert (names, seconds.tolist()) == (["a", "b"], [902, 1000])
    assert read_excluded(tmp_path / "none.csv")[0] == []
    with pytest.raises(
        ValueError,
        match=r"bad\.csv: 2 malformed rows: line 2.*line 3: the second must be .*got 'x'",
    ):
        read_excluded(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    "text",
    [
        MAP,
        "label { name: 'walk' label_id: 1 label_type: X }\nlabel{label_id:3 name:\"run {fast}\"}",
    ],
)
def test_label_maps_are_read_in_both_forms(text, tmp_path):
    (tmp_path / "m.pbtxt").write_text(text)
    assert read_labelmap(tmp_path / "m.pbtxt") == {1: "walk", 3: "run {fast}"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('# item { name: "x" id: 9 }\nitem { name: "a" id: 1 }', {1: "a"}),
        ('item {\n name: "a"  # id: 7, the dog\'s {\n id: 1\n}', {1: "a"}),
        ('item { name: "#1 \\"fan\\"" id: 2 } # "', {2: '#1 "fan"'}),
        (r'item { name: "caf\303\251 \x41\u00e9\U0001F600\\" id: 3 }', {3: "café Aé😀\\"}),
        ("item { name: 'é\\'s' id: 4 }", {4: "é's"}),
    ],
)
def test_comments_and_escapes_of_label_maps(text, names, tmp_path):
    (tmp_path / "m.pbtxt").write_text(text, "utf-8")
    assert read_labelmap(tmp_path / "m.pbtxt") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must contain `item"),
        (r'item {name: "\377" id: 1}', r"line 1: the name must be UTF-8"),
        (r'item {name: "\ud800" id: 1}', r"line 1: the name must be UTF-8"),
        (r'item {name: "\U00110000" id: 1}', r"line 1: the name must be UTF-8"),
        (r'item {name: "a\nb" id: 1}', r"line 1: the name must be printable, got 'a\\nb'"),
        ('item {\n name: "a"\n}\n', r"line 1: an item must have"),
        (
            'item {name: "a" id: 1}\n\nitem {name: "b" id: 1}',
            r"line 3: ids must be unique, got 1 .*'a'",
        ),
        (
            'item {name: "a" id: 1}\nitem {name: "a" id: 2}',
            r"line 2: names must be unique, got 'a'",
        ),
        ('item {name: "a" id: 0}', r"line 1: the id must be .*got 0"),
    ],
)
def test_a_malformed_label_map_is_named_with_its_line(text, message, tmp_path):
    (tmp_path / "m.pbtxt").write_text(text)
    with pytest.raises(ValueError, match=rf"m\.pbtxt.*{message}"):
        read_labelmap(tmp_path / "m.pbtxt")
    with pytest.raises(ValueError, match="does not exist"):
        read_labelmap(tmp_path / "gone.pbtxt")


def test_equal_boxes_are_one_with_the_actions_of_all(tmp_path):
    found = "b,0903,0.0,0,1.000,1,3,0.95\nb,0903,0,0,1,0.5,-1,0.97\nb,0903,0,0,1,0.4,1,0.8\n"
    _write(tmp_path, drawn=DRAWN, found=found)
    rows = read_ava(_data(tmp_path, train_boxes=("found.csv",)), "train")
    assert [(rows.media.names[v], s) for v, s in zip(rows.video, rows.seconds, strict=True)] == [
        ("a", 902.0),
        ("b", 903.0),
    ]
    assert rows.box_ends.tolist() == [1, 3]
    assert _labels(rows) == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert rows.table.scores.tolist() == pytest.approx([1, 1, 0.97])
    assert rows.key_frame(1).boxes.tolist() == [[0, 0, 1, 1], [0, 0, 1, 0.5]]
    assert rows.key_frame(1).first_box == 1
    assert rows.rows_of_boxes(np.array([2, 0, 1])).tolist() == [1, 0, 1]
    assert [Path(rows.path(row)).name for row in range(2)] == ["a.mp4", "b.mkv"]
    (note,) = rows.notes
    assert re.match(r"found\.csv: .*1 of 3 rows .*0\.9 \(AVA\.DETECTION_SCORE_THRESH\)", note)


def test_key_frames_come_in_the_order_of_videos_and_times(tmp_path):
    text = "b,5,0,0,1,1,1\na,9,0,0,1,1,1\nb,3,0,0,0.5,1,2\nb,5,0,0,0.2,1,3\nb,3,0,0,1,1,3\n"
    _write(tmp_path, drawn=text)
    rows = read_ava(_data(tmp_path), "train")
    keys = [(rows.media.names[v], s) for v, s in zip(rows.video, rows.seconds, strict=True)]
    assert keys == [("b", 3), ("b", 5), ("a", 9)]
    assert rows.table.boxes[:, 2].tolist() == pytest.approx([0.5, 1, 1, 0.2, 1])
    assert _labels(rows) == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_tests_take_detected_boxes_and_validation_every_fourth_second(tmp_path):
    found = "".join(f"a,{second},0,0,1,1,,0.95\n" for second in range(900, 909))
    _write(tmp_path, drawn=DRAWN, found=found)
    data = _data(tmp_path, every=4)
    assert read_ava(data, "test").seconds.tolist() == list(range(900, 909))
    assert read_ava(data, "val").seconds.tolist() == [900, 904, 908]
    assert read_ava(data, "train").seconds.tolist() == [902, 903]


def test_numbers_of_persons_are_no_scores(tmp_path):
    _write(tmp_path, found=DRAWN)
    rows = read_ava(_data(tmp_path), "test")
    assert len(rows.table) == 2
    (note,) = rows.notes
    assert re.match(r"found\.csv: .*numbers of persons and not scores: .*_THRESH 0\.9", note)


def test_videos_without_a_box_that_is_used_are_not_looked_for(tmp_path):
    text = "gone,1,0,0,1,1,,0.2\nb,1,0,0,1,1,,0.95\ngone,4,0,0,1,1,,0.1\na,4,0,0,1,1,,0.95\n"
    _write(tmp_path, found=text)
    rows = read_ava(_data(tmp_path), "test")
    assert rows.media.names == ("b", "a")
    assert rows.video.tolist() == [0, 1]
    assert read_ava(_data(tmp_path, every=4), "val").media.names == ("a",)
    _write(tmp_path, found="gone,1,0,0,1,1,,0.95\n" + text)
    with pytest.raises(ValueError, match=r"1 of 3 videos are missing .*'gone'"):
        read_ava(_data(tmp_path), "test")


def test_a_video_has_one_name(tmp_path):
    _write(tmp_path, found="a,1,0,0,1,1,,0.95\na.mp4,1,0,0,1,1,,0.95\n")
    with pytest.raises(ValueError, match=r"a\.mp4 must have one name, got 'a' and 'a\.mp4'"):
        read_ava(_data(tmp_path), "test")


def test_single_labels(tmp_path):
    one = "a,1,0,0,1,1,1\na,1,0,0,1,0.5,\na,2,0,0,1,0.5,-1\na,3,0,0,1,1,2\n"
    _write(tmp_path, drawn=one, found=one)
    rows = read_ava(_data(tmp_path, multi_label=False), "train")
    assert rows.seconds.tolist() == [1, 3]
    assert rows.table.labels(np.array([1, 0])).tolist() == [1, 0]
    assert rows.notes == ("ignored 2 of 4 boxes, which have no action",)
    tested = read_ava(_data(tmp_path, multi_label=False), "test")
    assert tested.table.labels(np.arange(4)).tolist() == [0, -1, -1, 1]
    _write(tmp_path, drawn=DRAWN)
    with pytest.raises(
        ValueError, match=r"drawn\.csv: .*AVA\.MULTI_LABEL False, got 1 .* of a at 902 s"
    ):
        read_ava(_data(tmp_path, multi_label=False), "train")


def test_classes_are_those_of_the_label_map_with_what_it_leaves_out(tmp_path):
    assert ava_class_names(_data(tmp_path)) == ("walk", "action 2", "run {fast}")


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            {"drawn": "a,1,0,0,1,1,4\n"},
            {},
            r"drawn\.csv, line 1: the action must be in 1\.\.3 .*map.*got 4",
        ),
        ({"drawn": "a,1,0,0,1,1,0\n"}, {}, r"drawn\.csv, line 1: the action must be .*got 0"),
        (
            {"drawn": "x,1,0,0,1,1,1\n"},
            {},
            r"drawn\.csv: 1 of 1 videos .*AVA\.VIDEO_DIR",
        ),
        (
            {"drawn": "a,1,0,0,1,1,1\nx,1,0,0,1,1,1\n"},
            {},
            r"1 of 2 videos .*'x'.*maskfeat data check-ava",
        ),
        ({"drawn": "a,1,0,0,1,1,-1\n"}, {}, r"drawn\.csv: .*must have actions, got none"),
        ({"drawn": ""}, {}, r"drawn\.csv has no rows"),
        ({}, {}, r"drawn\.csv does not exist"),
        ({}, {"ground_truth": ()}, r"AVA\.TRAIN_GT_BOX_LISTS must .*got \[\]"),
        (
            {"drawn": DRAWN},
            {"media": AvaMedia()},
            r"AVA\.VIDEO_DIR must .*AVA\.FRAME_DIR .*got '' and ''",
        ),
        (
            {"drawn": DRAWN},
            {"media": AvaMedia(video_folder="gone")},
            "AVA.VIDEO_DIR must be .*got 'gone'",
        ),
        ({"drawn": DRAWN}, {"label_map": "item {}"}, r"map\.pbtxt, line 1"),
    ],
)
def test_what_can_not_be_trained_on_is_one_clear_error(files, options, message, tmp_path):
    _write(tmp_path, **files)
    with pytest.raises(ValueError, match=message):
        read_ava(_data(tmp_path, **options), "train")


def test_what_can_not_be_tested_on_is_one_clear_error(tmp_path):
    _write(tmp_path, found="a,1,0,0,1,1,,0.5\n", wild="a,1,0,0,1,1,,7.5\n")
    with pytest.raises(ValueError, match=r"found\.csv: no box remains: .*1 of 1 rows .*below 0\.9"):
        read_ava(_data(tmp_path), "test")
    with pytest.raises(ValueError, match=r"wild\.csv, line 1: the score must be .*got 7\.5"):
        read_ava(_data(tmp_path, test_boxes=("wild.csv",)), "test")
    with pytest.raises(ValueError, match=r"AVA\.TEST_PREDICT_BOX_LISTS must .*got \[\]"):
        read_ava(_data(tmp_path, test_boxes=()), "test")


def test_the_hash_is_of_the_rows_and_not_of_where_videos_lie(tmp_path):
    _write(tmp_path, drawn=DRAWN)
    first = read_ava(_data(tmp_path), "train").fingerprint
    (tmp_path / "videos").rename(tmp_path / "elsewhere")
    media = AvaMedia(video_folder=str(tmp_path / "elsewhere"))
    moved = read_ava(_data(tmp_path, media=media), "train")
    assert moved.fingerprint == first
    _write(tmp_path, drawn=DRAWN.replace("a,0902,0.1,0.2,0.3,0.4,3", "a,0902,0.1,0.2,0.3,0.4,2"))
    assert read_ava(_data(tmp_path), "train").fingerprint != first


HEADER = "original_vido_id video_id frame_id path labels\n"


def _frame_rows(name: str, numbers, video: int = 0) -> str:
    return "".join(
        f'{name} {video} {i} {name}/{name}_{n:06d}.jpg ""\n' for i, n in enumerate(numbers)
    )


def test_a_list_of_frames_longer_than_what_is_looked_at_at_a_time(tmp_path):
    name = "n" * 250
    text = HEADER + _frame_rows(name, range(25_000)) + _frame_rows("b", range(30), 1)
    assert len(text) > 2**24  # bytes that are looked at at a time
    _write(tmp_path, frames=text)
    found = read_frame_lists([str(tmp_path / "frames.csv")], "", [name, "b"], fps=30)
    assert {n: images.num_frames for n, images in found.items()} == {name: 25_000, "b": 30}


def test_lists_of_frames_give_the_numbers_of_each_video(tmp_path):
    text = HEADER + _frame_rows("a-1", range(1, 41)) + _frame_rows("b_2", range(30), 1)
    _write(tmp_path, frames=text)
    found = read_frame_lists([str(tmp_path / "frames.csv")], "root", ["a-1", "b_2", "c"], fps=30)
    assert {name: images.num_frames for name, images in found.items()} == {"a-1": 40, "b_2": 30}
    assert found["a-1"].path(0) == "root/a-1/a-1_000001.jpg"
    assert found["b_2"].path(29) == "root/b_2/b_2_000029.jpg"
    assert list(read_frame_lists([str(tmp_path / "frames.csv")], "", ["b_2"], fps=30)) == ["b_2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + _frame_rows("a", [1, 2, 4]),
            r"line 4: .*must be a/a_000003\.jpg, got a/a_000004",
        ),
        (
            HEADER + _frame_rows("a", [1]) + _frame_rows("b", [1]) + _frame_rows("a", [2]),
            "line 4: .*'a'",
        ),
        (HEADER + "a 0 0 a/a_1.jpg\n", "line 2: a row must be .*got 'a 0 0 a/a_1.jpg'"),
        (_frame_rows("a", [1]), "line 1: the header must have .*`path`"),
        (HEADER + 'a 0 0 a/frame.jpg ""\n', r"a/frame\.jpg: .*must contain its number"),
    ],
)
def test_lists_of_frames_that_tell_no_time_are_refused(text, message, tmp_path):
    _write(tmp_path, frames=text)
    with pytest.raises(ValueError, match=message):
        read_frame_lists([str(tmp_path / "frames.csv")], "", ["a", "b"], fps=30)
    with pytest.raises(MissingListError, match=r"gone\.csv does not exist"):
        read_frame_lists([str(tmp_path / "gone.csv")], "", ["a"], fps=30)


def test_folders_of_frames_are_listed_by_number(tmp_path):
    for number in range(8, 13):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"img{number}.png").touch()
    (tmp_path / "a" / "notes.txt").touch()
    found = list_frame_folders(str(tmp_path), ["a", "b"], fps=25)
    assert list(found) == ["a"]
    assert found["a"].path(4) == str(tmp_path / "a" / "img12.png")
    assert (found["a"].num_frames, found["a"].fps) == (5, 25)
    (tmp_path / "a" / "img10.png").unlink()
    with pytest.raises(ValueError, match=r"must be .*img10\.png, got .*img11\.png"):
        list_frame_folders(str(tmp_path), ["a"], fps=25)


def test_videos_and_frame_lists_of_a_split(tmp_path):
    _write(
        tmp_path, drawn=DRAWN, train=HEADER + _frame_rows("a", [1, 2]) + _frame_rows("b", [1, 2])
    )
    media = AvaMedia(frame_folder="f", train_frames=(str(tmp_path / "train.csv"),))
    rows = read_ava(_data(tmp_path, media=media), "train")
    assert rows.path(1) == "f/b/b_000001.jpg"
    assert rows.media.begin == 900
    _write(tmp_path, train=HEADER + _frame_rows("a", [1, 2]))
    with pytest.raises(ValueError, match=r"1 of 2 videos .*train\.csv: 'b'"):
        read_ava(_data(tmp_path, media=media), "train")
