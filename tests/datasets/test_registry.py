"""One row a data set: what is registered is found, and nothing else."""

from __future__ import annotations

import pytest

from slowfast_maskfeat.datasets import (
    DataSetKind,
    MissingListError,
    dataset_names,
    find_dataset,
    register_dataset,
    registry,
)


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """Restore the registry after each test."""
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))


def _read(data, split, class_names):
    raise MissingListError(split)


def test_the_flags_of_the_published_data_sets():
    flags = ("has_boxes", "images_only", "segmented", "blue_first", "in_shards")
    found = {
        name: [flag for flag in flags if getattr(find_dataset(name, "key"), flag)]
        for name in dataset_names()
    }
    assert {name: flags for name, flags in found.items() if flags} == {
        "ava": ["has_boxes"],
        "imagenet": ["images_only"],
        "ssv2": ["segmented", "blue_first"],
        "webdataset": ["in_shards"],
    }


def test_an_unknown_name_is_an_error_with_all_names_and_the_nearest():
    with pytest.raises(
        ValueError, match=r"TRAIN.DATASET must be .* got 'kinetic'.*'kinetics'$"
    ) as e:
        find_dataset("kinetic", "TRAIN.DATASET")
    assert all(repr(name) in str(e.value) for name in dataset_names())


def test_a_registered_name_is_known_and_stays_what_it_is():
    kind = DataSetKind(read=_read, class_names=lambda _: None, images_only=True)
    register_dataset("mine", kind)
    register_dataset("mine", kind)  # a module that is imported twice
    assert find_dataset("mine", "key") is kind
    assert dataset_names()[-1] == "mine"
    for name in ("mine", "kinetics"):
        with pytest.raises(ValueError, match=f"{name!r} is already registered"):
            register_dataset(name, DataSetKind(read=_read, class_names=lambda _: None))
