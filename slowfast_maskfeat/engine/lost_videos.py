"""Count of the videos that could not be decoded, which stops a training at too many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slowfast_maskfeat import distributed
from slowfast_maskfeat.clips.batch import LostVideo


class LostVideos:
    """Videos that training could not decode, over all processes.

    Args:
        num_videos: number of videos in the split.
        max_fraction: fraction of lost videos above which training stops (DATA.MAX_BAD_FRACTION).
        source: annotation file, for messages.
    """

    def __init__(self, num_videos: int, max_fraction: float, source: str) -> None:
        self.num_videos = num_videos
        self.max_fraction = max_fraction
        self.source = source
        self.num_replaced = 0
        self._known: dict[int, LostVideo] = {}
        self._new: list[LostVideo] = []

    @property
    def num_distinct(self) -> int:
        """Number of distinct videos lost so far."""
        return len(self._known)

    @property
    def counts(self) -> dict[str, int]:
        """Counts for the log: videos listed, found, decoded and lost, and clips replaced.

        Videos that were not sampled yet count as found and decoded; an epoch omits less than one
        batch.
        """
        num_missing = sum(video.is_missing for video in self._known.values())
        return {
            "num_expected": self.num_videos,
            "num_found": self.num_videos - num_missing,
            "num_decoded": self.num_videos - self.num_distinct,
            "num_lost": self.num_distinct,
            "num_replaced": self.num_replaced,
        }

    def add(self, lost: Iterable[LostVideo]) -> None:
        """Add the videos that one batch of this process lost."""
        self._new.extend(lost)

    def gather(self) -> list[LostVideo]:
        """Combine the videos that all processes lost since the last call.

        Returns:
            The videos lost for the first time, so that each is logged once.

        Raises:
            ValueError: more than `max_fraction` of the videos are lost; the message names some.
        """
        everyone = distributed.gather_objects(self._new)
        self._new = []
        first: list[LostVideo] = []
        for video in (video for mine in everyone for video in mine):
            self.num_replaced += 1
            if video.row not in self._known:
                self._known[video.row] = video
                first.append(video)
        if self.num_distinct > self.max_fraction * self.num_videos:
            shown = list(self._known.values())[:5]
            raise ValueError(
                f"{self.source}: {self.num_distinct} of {self.num_videos} videos can't be decoded, "
                f"more than DATA.MAX_BAD_FRACTION {self.max_fraction}: "
                + "; ".join(f"{video.path}: {video.reason}" for video in shown)
                + ("; ..." if self.num_distinct > len(shown) else "")
            )
        return first

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        known = [list(video) for video in self._known.values()]
        return {"num_replaced": self.num_replaced, "known": known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`.

        Raises:
            ValueError: it is the state of something else.
        """
        rows, num_replaced = state.get("known"), state.get("num_replaced")
        if rows is None or not (_are_rows(rows) and isinstance(num_replaced, int)):
            raise ValueError(
                "the state of lost videos in the checkpoint must have the rows 'known' and the "
                "number 'num_replaced'; resume from another checkpoint"
            )
        self.num_replaced = num_replaced
        self._known = {row: LostVideo(row, *rest) for row, *rest in rows}


def _are_rows(rows: Any) -> bool:
    """Whether a value is what `LostVideos.state_dict` has as `known`."""
    return isinstance(rows, list) and all(
        isinstance(row, list) and list(map(type, row)) == [int, str, str, bool] for row in rows
    )
