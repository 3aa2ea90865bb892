"""Name the action in a video.

    python tools/predict.py --checkpoint checkpoint_epoch_00100.pyth --video x.mp4

The checkpoint brings its configuration and class names along.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import Any

import torch

from slowfast_maskfeat.build import build_model, build_task
from slowfast_maskfeat.build.data import build_test_views
from slowfast_maskfeat.checkpoints import load_checkpoint, load_weights
from slowfast_maskfeat.config import parse_config
from slowfast_maskfeat.tasks import ClassifyTask
from slowfast_maskfeat.videos.decode import DecodeError, open_video

INVALID_INPUT = 2


def main(arguments: list[str]) -> int:
    """Print the likeliest classes.

    Returns:
        the exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # the configuration was warned about when it trained
    options = _parse(arguments)
    try:
        answer = predict(
            options.checkpoint, options.video, options.opts, top=options.top, device=options.device
        )
    except (ValueError, DecodeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return INVALID_INPUT
    if options.json:
        print(json.dumps(answer))
        return 0
    for row in answer["top"]:
        print(f"{row['score']:.4f}  {row['name']}")
    return 0


@torch.no_grad()
def predict(
    checkpoint: str, video: str, overrides: list[str], *, top: int, device: str
) -> dict[str, Any]:
    """The `top` likeliest classes of a video, by the mean score of its views.

    Raises:
        ValueError: the checkpoint is no classifier of this package.
        DecodeError: the video can't be decoded.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device: {device!r}, but torch sees no GPU; 'cpu' would run")
    content = load_checkpoint(checkpoint)
    if not isinstance(content.get("cfg"), str):
        raise ValueError(f"{checkpoint}: it holds no configuration; one that run_net.py wrote does")
    names = list(content.get("class_names") or ())
    # The lists it was trained on need not exist here: the classes are in the checkpoint.
    fixed = [
        "DATA.PATH_TO_DATA_DIR",
        "",
        *(["MODEL.NUM_CLASSES", str(len(names))] if names else []),
    ]
    cfg = parse_config(content["cfg"], checkpoint, [*fixed, *overrides])
    model = build_model(cfg).to(device).eval()
    load_weights(model, checkpoint, complete=True)
    task = build_task(cfg)
    if not isinstance(task, ClassifyTask):
        raise ValueError(f"{checkpoint}: it is of a pre-training; fine-tune it first")
    views = build_test_views(cfg)
    with open_video(video, cfg.DATA.DECODING_BACKEND.replace("torchvision", "auto")) as opened:
        clips = views(opened).permute(0, 4, 1, 2, 3)  # (V, C, T, H, W)
    chunks = clips.split(cfg.TEST.BATCH_SIZE)
    scores = torch.cat([task.activation(task.logits(model, x.to(device))) for x in chunks]).mean(0)
    best = scores.cpu().topk(min(top, len(scores)))
    return {
        "video": video,
        "num_views": len(clips),
        "top": [
            {
                "class": int(number),
                "name": names[number] if names else str(int(number)),
                "score": round(float(score), 6),
            }
            for score, number in zip(best.values, best.indices, strict=True)
        ],
    }


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="of a fine-tuning or training")
    parser.add_argument("--video", required=True, help="file that a decoder opens")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--top", type=int, default=5, help="how many classes")
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        choices=["cpu", "cuda"],
    )
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
