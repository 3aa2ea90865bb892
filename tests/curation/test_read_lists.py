"""Lists that commands on data read together: a number means the same class in all of them."""

from __future__ import annotations

import pytest

from slowfast_maskfeat.curation.read_lists import common_class_names, read_lists, write_class_names


def _write(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["path,label", *rows]))
    return path


def _read(*paths):
    return read_lists(paths, separator=" ", prefix="")


def test_a_list_that_lacks_a_class_has_the_numbers_of_the_training_list(tmp_path):
    val = _write(tmp_path / "val.csv", "4.mp4,dog")
    train = _write(tmp_path / "train.csv", "1.mp4,cat", "2.mp4,dog")
    for paths in ((val,), (val, train), (train, val)):
        lists = _read(*paths)
        assert lists[val].videos.labels.tolist() == [1]
        assert common_class_names(lists) == ("cat", "dog")
    (file,) = write_class_names(common_class_names(lists), tmp_path / "out")
    assert file.read_text() == "cat\ndog\n"


def test_names_of_another_folder_count_if_the_list_has_no_others(tmp_path):
    train = _write(tmp_path / "a" / "train.csv", "1.mp4,cat", "2.mp4,dog")
    small = _write(tmp_path / "b" / "val.csv", "3.mp4,dog")
    other = _write(tmp_path / "c" / "val.csv", "4.mp4,run")
    assert _read(train, small)[small].videos.labels.tolist() == [1]
    lists = _read(train, other)
    assert lists[other].class_names == ("run",)
    with pytest.raises(ValueError, match=r"must have the same classes, but .*train\.csv and .*val"):
        common_class_names(lists)


def test_a_list_with_a_class_of_its_own_is_read_whatever_lies_beside_it(tmp_path):
    _write(tmp_path / "train.csv", "1.mp4,cat")
    extra = _write(tmp_path / "extra.csv", "2.mp4,emu")
    assert _read(extra)[extra].class_names == ("emu",)
    (tmp_path / "train.csv").write_text("not,a\nlist")
    assert _read(extra)[extra].class_names == ("emu",)


def test_numbers_have_no_names(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("1.mp4 3\n")
    lists = _read(path)
    assert common_class_names(lists) is None
    assert write_class_names(None, tmp_path) == []
