"""Sources of key frames: video files or folders of extracted frames, found by name."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass

from slowfast_maskfeat.datasets.frame_lists import list_frame_folders, read_frame_lists
from slowfast_maskfeat.datasets.video_list import named_by
from slowfast_maskfeat.videos._numbered_frames import NumberedFrames
from slowfast_maskfeat.videos.media import VIDEO_ENDINGS

# Videos are in the folder itself or in these subfolders.
_INNER = ("trainval", "train", "val", "test", "videos")
_MAX_NAMED = 5


@dataclass(frozen=True)
class Media:
    """Videos of a list by number.

    Attributes:
        names: names in the annotations.
        paths: paths of the files, or of the first frames.
        frames: the extracted frames, or None for video files.
        begin: time in the annotations at which the videos begin, in seconds; None: determined for
            each file.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    frames: tuple[NumberedFrames, ...] | None
    begin: float | None


@dataclass(frozen=True)
class AvaMedia:
    """Location of the videos or extracted frames of a data set.

    Attributes:
        video_folder: folder of video files, `<name>.mp4` or another extension (AVA.VIDEO_DIR).
        video_begin: time at which they begin, in seconds; None: determined (AVA.VIDEO_BEGIN).
        frame_folder: folder of extracted frames, without a `video_folder` (AVA.FRAME_DIR).
        train_frames: lists of training frames (AVA.TRAIN_LISTS in AVA.FRAME_LIST_DIR); without
            lists, the images in `<name>/`.
        test_frames: lists of frames for validation and test (AVA.TEST_LISTS).
        frame_begin: time of the first frame, in seconds (AVA.FRAME_BEGIN).
        frame_rate: frames per second (AVA.FRAME_RATE).
    """

    video_folder: str = ""
    video_begin: float | None = None
    frame_folder: str = ""
    train_frames: tuple[str, ...] = ()
    test_frames: tuple[str, ...] = ()
    frame_begin: float = 900.0
    frame_rate: float = 30.0

    def find(self, names: Sequence[str], split: str, source: str) -> Media:
        """Find videos by their names.

        Args:
            names: names in the annotations.
            split: "train", "val" or "test".
            source: the list, for messages.

        Raises:
            MissingListError: a list of frames is missing.
            ValueError: a folder or a video is missing, a video has two names, or a list of frames
                is malformed.
        """
        if self.video_folder:
            files = find_videos(self.video_folder)
            _check_known(names, files, source, f"AVA.VIDEO_DIR {self.video_folder}")
            paths = tuple(files[name] for name in names)
            _check_names(names, paths, source)
            return Media(tuple(names), paths, None, self.video_begin)
        lists = self.train_frames if split == "train" else self.test_frames
        if not self.frame_folder:
            raise ValueError(
                "AVA.VIDEO_DIR must be the folder of the videos, or AVA.FRAME_DIR the folder of "
                "extracted frames, got '' and ''"
            )
        if lists:
            with named_by("AVA.TRAIN_LISTS" if split == "train" else "AVA.TEST_LISTS"):
                found = read_frame_lists(lists, self.frame_folder, names, fps=self.frame_rate)
            where = ", ".join(lists)
        else:
            found = list_frame_folders(self.frame_folder, names, fps=self.frame_rate)
            where = f"AVA.FRAME_DIR {self.frame_folder}"
        _check_known(names, found, source, where)
        frames = tuple(found[name] for name in names)
        paths = tuple(images.path(0) for images in frames)
        return Media(tuple(names), paths, frames, self.frame_begin)


def find_videos(folder: str) -> dict[str, str]:
    """Find the video files in a folder and in its `trainval`, `train`, `val`, `test`, `videos`.

    Returns:
        Name -> path, for each name with and without its extension.

    Raises:
        ValueError: the folder does not exist.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"AVA.VIDEO_DIR must be a folder, got {folder!r}, which does not exist")
    files: dict[str, str] = {}
    for inside in (folder, *(os.path.join(folder, name) for name in _INNER)):
        for entry in sorted(os.listdir(inside)) if os.path.isdir(inside) else ():
            name, ending = os.path.splitext(entry)
            if ending.lower() in VIDEO_ENDINGS:
                path = os.path.join(inside, entry)
                files.setdefault(name, path)
                files.setdefault(entry, path)
    return files


def _check_known(names: Sequence[str], known: Container[str], source: str, where: str) -> None:
    missing = [name for name in names if name not in known]
    if not missing:
        return
    named = ", ".join(repr(name) for name in missing[:_MAX_NAMED])
    more = ", ..." if len(missing) > _MAX_NAMED else ""
    hint = (
        ""
        if len(missing) == len(names)
        else "; `maskfeat data check-ava` can remove them from the lists"
    )
    raise ValueError(
        f"{source}: {len(missing)} of {len(names)} videos are missing in {where}: {named}{more}"
        f"{hint}"
    )


def _check_names(names: Sequence[str], paths: Sequence[str], source: str) -> None:
    """Check that no file is found by its name both with and without the extension."""
    named: dict[str, str] = {}
    for name, path in zip(names, paths, strict=True):
        first = named.setdefault(path, name)
        if first != name:
            raise ValueError(
                f"{source}: the video {path} must have one name, got {first!r} and {name!r}"
            )
