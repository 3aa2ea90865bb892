"""What a run says: the figures of an evaluation in words, and what they stand on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.clips import ClipLoader
from slowfast_maskfeat.videos.decode import decoder_versions


def figures(results: Mapping[str, Any]) -> str:
    """One line of what an evaluation of any task gave."""
    if "top1" in results:
        loss = "" if results["loss"] is None else f", loss {results['loss']:.4f}"
        return (
            f"top-1 {results['top1']:.2f}, top-5 {results['top5']:.2f}{loss}; "
            f"{results['num_videos_scored']} of {results['num_videos']} videos decoded"
        )
    if "mean_ap" in results:
        return (
            f"mAP {100 * results['mean_ap']:.2f} over {results['num_classes_counted']} of "
            f"{results['num_classes']} classes; {results['num_boxes']} boxes detected, "
            f"{results['num_boxes_expected']} wanted; {results['num_frames_matched']} of "
            f"{results['num_frames_expected']} wanted key frames have detections; "
            f"{results['num_decoded']} of {results['num_expected']} key frames decoded"
        )
    return (
        f"loss {results['loss']:.4f}, constant prediction {results['baseline']:.4f}; "
        f"{results['num_decoded']} of {results['num_expected']} videos decoded"
    )


def class_table(results: Mapping[str, Any]) -> str:
    """AP and wanted boxes of each class, the best first; classes that are not counted last."""
    per_class, boxes = results["per_class_ap"], results["per_class_boxes"]
    names = sorted(per_class, key=lambda name: -1.0 if per_class[name] is None else per_class[name])
    width = max(map(len, (*names, "class")))
    lines = [f"  {'class':{width}}  AP (%)   boxes"]
    for name in reversed(names):
        precision = "-" if per_class[name] is None else f"{100 * per_class[name]:.1f}"
        lines.append(f"  {name:{width}}  {precision:>6}  {boxes[name]:6d}")
    return "\n".join(lines)


def data_facts(cfg: CfgNode, loader: ClipLoader) -> dict[str, Any]:
    """What a result stands on: the list and the decoder."""
    videos = loader.dataset.videos
    return {
        "list": videos.source,
        "list_sha256": videos.fingerprint,
        "list_notes": list(videos.notes),
        "decoders": decoder_versions(cfg.DATA.DECODING_BACKEND),
    }


def tell_notes(loader: ClipLoader) -> None:
    """Say what a user should know of the list."""
    for note in loader.dataset.videos.notes:
        say(f"warning: {loader.dataset.videos.source}: {note}")


def say(message: str) -> None:
    """A line for people, from the main process alone."""
    if distributed.is_main():
        print(message, file=sys.stderr)
