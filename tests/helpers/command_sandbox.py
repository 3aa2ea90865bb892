"""A folder in which the documented commands run: the files that they name, made small."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import yaml
from fvcore.common.config import CfgNode
from helpers import detection_commands, tiny_run
from helpers.documents import ROOT, shown_files
from helpers.load_tool import run_tool
from helpers.tar_shards import write_shard
from helpers.tiny_teachers import IMAGE_CLASSIFIER, save_dalle, save_teacher, save_tokenizer
from helpers.videos_on_disk import numbered_frames, write_video
from PIL import Image

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.builders.weights import model_facts
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.checkpoints.naming import NAMINGS
from slowfast_maskfeat.config import load_config, split_words
from slowfast_maskfeat.config.shipped import shipped_file

# Later pairs win, so these make any configuration as small as a test's.
SMALL = {
    **tiny_run.MODEL,
    "MVIT.NUM_HEADS": 1,
    "MVIT.PATCH_KERNEL": [3, 7, 7],
    "MVIT.PATCH_STRIDE": [2, 4, 4],
    "MVIT.DIM_MUL": [],
    "MVIT.HEAD_MUL": [],
    "MASK.PRETRAIN_DEPTH": [1],
    "AUG.MASK_WINDOW_SIZE": [],
    "SOLVER.MAX_EPOCH": 1,
    "SOLVER.WARMUP_EPOCHS": 0,
    "TOKENIZER.CROP_SIZE": 0,
}
# What images need in the place of the above, and what has one clip along the time.
SMALL_IMAGES = {
    "DATA.NUM_FRAMES": 1,
    "MVIT.PATCH_KERNEL": [7, 7],
    "MVIT.PATCH_STRIDE": [4, 4],
    "MVIT.PATCH_PADDING": [3, 3],
    "MVIT.POOL_KVQ_KERNEL": [1, 3, 3],
    "MVIT.REL_POS_TEMPORAL": False,
}
# An autoencoder is a plain transformer with absolute positions, and BEiT's is plain.
SMALL_AUTOENCODER = {
    "MVIT.POOL_Q_STRIDE": [],
    "MVIT.POOL_KVQ_KERNEL": None,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
    "MVIT.REL_POS_SPATIAL": False,
    "MVIT.REL_POS_TEMPORAL": False,
    "MVIT.USE_ABS_POS": True,
    "MVIT.PATCH_KERNEL": [8, 8],
    "MVIT.PATCH_STRIDE": [8, 8],
    "MVIT.PATCH_PADDING": [0, 0],
}
SMALL_VIDEO_AUTOENCODER = {
    "MVIT.PATCH_KERNEL": [2, 8, 8],
    "MVIT.PATCH_STRIDE": [2, 8, 8],
    "MVIT.PATCH_PADDING": [0, 0, 0],
    "MVIT.RESIDUAL_POOLING": False,
    "MVIT.EMBED_DIM": 16,
    "MASK.DECODER_DEPTH": 1,
    "MASK.DECODER_EMBED_DIM": 16,
    "MASK.DECODER_NUM_HEADS": 1,
}
SMALL_TOKENIZER = {
    "TOKENIZER.WIDTHS": [8, 8, 8],
    "TOKENIZER.NUM_CODES": 16,
    "TOKENIZER.CODE_DIM": 4,
}
# Keys of frozen networks, with what a tiny one needs besides.
TEACHERS: dict[str, dict[str, object]] = {
    "MASK.TEACHER_CHECKPOINT": {"MASK.TEACHER_CFG": ""},
    "TOKENIZER.PERCEPTUAL_CHECKPOINT": {
        "TOKENIZER.PERCEPTUAL_CFG": "",
        "TOKENIZER.PERCEPTUAL_LAYERS": ["blocks.1"],
    },
}
# Of a published tokenizer, in whose place the command gets a tiny one with its configuration.
OF_TOKENIZER = {"TOKENIZER.CFG": {"TOKENIZER.CFG": "", "TOKENIZER.CROP_SIZE": 0}}
TOKENIZER, DECODER = "TOKENIZER.CHECKPOINT", "TOKENIZER.DECODER_CHECKPOINT"
SMALL_VIEWS = {
    "DATA.SSL_LOCAL_CROP_SIZE": 16,
    "CONTRASTIVE.DIM": 64,
    "CONTRASTIVE.MLP_DIM": 16,
}
SMALL_SEGMENTS = {"TEST.NUM_ENSEMBLE_VIEWS": 1}
CONFIGS = {
    "ssl": ROOT / "configs/masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT.yaml",
    "ssl_eval": ROOT / "configs/masked_ssl/k400_MVITv2_S_16x4_FT.yaml",
}
SHOWN_FILES = shown_files()
DETECTOR = ROOT / "configs/AVA/MVITv2_S_16x4_MaskFeat.yaml"


def small(words: Sequence[str]) -> list[str]:
    """A command of run_net.py with the pairs that make it tiny."""
    pairs, cfg = dict(SMALL), configuration(words)
    if cfg.DATA.NUM_FRAMES == 1:
        pairs |= SMALL_IMAGES
    if cfg.MODEL.MODEL_NAME == "Tokenizer":
        pairs |= SMALL_TOKENIZER
    if cfg.MASK.MAE_ON or cfg.MVIT.REL_POS_BIAS or cfg.TOKENIZER.ARCH == "vit":
        pairs |= SMALL_AUTOENCODER
        pairs |= SMALL_VIDEO_AUTOENCODER if cfg.DATA.NUM_FRAMES > 1 else {}
    if cfg.MODEL.MODEL_NAME == "ContrastiveModel":
        pairs |= SMALL_VIEWS
    if cfg.MASK.TARGET == "latents":
        pairs["MASK.TEACHER_NUM_LAYERS"] = 1
    if cfg.TRAIN.FREEZE_BLOCKS > 1:
        pairs["TRAIN.FREEZE_BLOCKS"] = 1
    if cfg.TEST.DATASET == "ssv2":
        pairs |= SMALL_SEGMENTS
    if "TEST.NUM_TEMPORAL_CLIPS" not in words:
        pairs["TEST.NUM_TEMPORAL_CLIPS"] = []
    return [*words, *tiny_run.pairs(pairs), *pairs_of_networks(words)]


def pairs_of_networks(words: Sequence[str]) -> list[str]:
    """Keys and values that a command needs where its frozen networks are tiny."""
    known = {**TEACHERS, **OF_TOKENIZER}
    return tiny_run.pairs(*(pairs for key, pairs in known.items() if key in words))


def configuration(words: Sequence[str]) -> CfgNode:
    """Return the configuration of a run_net.py command at its full size."""
    files, pairs = split_words(words[list(words).index("--cfg") + 1 :])
    return load_config(files, pairs)


def as_run_net(words: Sequence[str]) -> list[str]:
    """Return `maskfeat train`, `test` or `probe` as a command of run_net.py, others as is."""
    if words[0] != "maskfeat" or words[1] not in ("train", "test", "probe"):
        return list(words)
    checkpoint = "TRAIN" if words[1] == "train" else "TEST"
    keys = {"--output": "OUTPUT_DIR", "--checkpoint": f"{checkpoint}.CHECKPOINT_FILE_PATH"}
    rest, last = [keys.get(word, word) for word in words[2:]], []
    if words[1] == "test":
        last = ["TRAIN.ENABLE", "False"]
    if "--kind" in rest:
        place = rest.index("--kind")
        last = ["PROBE.KIND", rest[place + 1]]
        del rest[place : place + 2]
    return ["python", "tools/run_net.py", *rest, *last]


def make_finished(folders: Mapping[str, Path], videos: Path) -> None:
    """Pre-train, and fine-tune from it.

    Args:
        folders: by TASK, where each run is written.
        videos: what it learns from.
    """
    for task, config in CONFIGS.items():
        pairs = {"DATA.PATH_TO_DATA_DIR": videos, "OUTPUT_DIR": folders[task], **SMALL}
        pairs["TEST.NUM_TEMPORAL_CLIPS"] = []
        if task == "ssl_eval":
            pairs["TRAIN.CHECKPOINT_FILE_PATH"] = checkpoint_of(folders["ssl"])
        done = run_tool("tools/run_net.py", "--cfg", config, *tiny_run.pairs(pairs))
        assert done.returncode == 0, done.stderr


def make_longer_videos(folder: Path) -> Path:
    """The videos of a tiny run and a longer one."""
    tiny_run.make_videos(folder)
    write_video(folder / "long.mp4", numbered_frames(40))
    return folder


def checkpoint_of(folder: Path) -> Path:
    """The only checkpoint of a run."""
    (path,) = (folder / "checkpoints").glob("*.pyth")
    return path


class Sandbox:
    """A folder that looks like the checkout, where commands may write."""

    def __init__(
        self,
        folder: Path,
        videos: Path,
        finished: Callable[[], dict[str, Path]],
        boxes: Callable[[], Path],
    ) -> None:
        self.folder = folder
        self.videos = videos
        self.finished = finished
        self.boxes = boxes
        for name in ("tools", "configs", "datasets", "slowfast_maskfeat"):
            (folder / name).symlink_to(ROOT / name)
        for name, text in SHOWN_FILES.items():
            (folder / name).write_text(text)

    def provide(self, words: Sequence[str]) -> None:
        """Make the files that a command names, itself or in a YAML file that a document shows."""
        if list(words[:2]) == ["maskfeat", "convert"]:
            return  # its rule makes them
        words = [*_shown_pairs(words), *words]
        keys = dict(pairwise(words))
        networks = self._networks(keys)
        for word in words:
            if word in networks:
                continue
            if "/ava_checkpoint" in word:
                path, pairs = self.folder / word, tiny_run.pairs(SMALL)
                detection_commands.write_detector(path, self.boxes(), DETECTOR, pairs)
            elif "beit" in word and word.endswith((".pyth", ".pth")):
                self._beit(word, words)
            elif word.endswith(".pyth"):
                is_pretrained = "ssl_checkpoint" in word or "_PT_" in word
                task = "ssl" if is_pretrained else "ssl_eval"
                self._copy(checkpoint_of(self.finished()[task]), word)
            elif word.endswith(".mp4"):
                self._copy(self.videos / "long.mp4", word)
        if "--clips" in words:
            np.save(words[words.index("--clips") + 1], np.zeros((2, 3, 4, 32, 32), np.uint8))
        if "AVA.VIDEO_DIR" in keys:
            detection_commands.provide_files(configuration(words), self.boxes())
        elif "MASK.LABEL_MAPS" in keys:
            self._labeled_images(keys)
        elif "DATA.PATH_TO_DATA_DIR" in keys:
            self._lists(keys)
        if keys.get("TRAIN.ENABLE") == "False" and "TEST.CHECKPOINT_FILE_PATH" not in keys:
            trained = checkpoint_of(self.finished()["ssl_eval"])
            self._copy(trained, f"{keys['OUTPUT_DIR']}/checkpoints/{trained.name}")

    def _networks(self, keys: Mapping[str, str]) -> set[str]:
        """Make the frozen networks that a command names; returns their paths."""
        for key in ("MASK.TEACHER_CFG", "TOKENIZER.PERCEPTUAL_CFG", "TOKENIZER.CFG"):
            if keys.get(key):
                load_config([shipped_file(keys[key], key)])
        named = {key: keys[key] for key in (TOKENIZER, DECODER, *TEACHERS) if key in keys}
        if DECODER in named:
            for part, path in save_dalle(self.folder).items():
                self._copy(path, named[part])
            return set(named.values())
        for key, name in named.items():
            is_tokenizer = key == TOKENIZER
            make = save_tokenizer if is_tokenizer else partial(save_teacher, case=IMAGE_CLASSIFIER)
            self._copy(make(self.folder), name)
        return set(named.values())

    def _beit(self, path: str, words: Sequence[str]) -> None:
        """Save a BEiT of a command's sizes: as trained here, or (.pth) as its authors do."""
        cfg = configuration(small(words))
        model = build_model(cfg)
        content: dict[str, object] = {"model_state": model.state_dict()}
        if path.endswith(".pth"):
            facts = model_facts(cfg, model)
            content = {"model": NAMINGS["beit"].from_published(model.state_dict(), facts)}
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self.folder / path, content)

    def results(self, folder: str) -> None:
        """Put what a finished fine-tuning has written."""
        shutil.copytree(self.finished()["ssl_eval"], self.folder / folder)
        for scores in list((self.folder / folder).glob("test_scores_*.npz")):
            shutil.copy(scores, scores.with_name("test_scores_1x10.npz"))

    def _copy(self, source: Path, target: str) -> None:
        path = self.folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)

    def _labeled_images(self, pairs: dict[str, str]) -> None:
        """Images in the layout of ImageNet, with label maps."""
        data, maps = (
            self.folder / pairs[key] for key in ("DATA.PATH_TO_DATA_DIR", "MASK.LABEL_MAPS")
        )
        for number in range(8):
            name = f"{'train' if number < 4 else 'val'}/n0144076{number % 2}/{number}"
            for file in (data / f"{name}.JPEG", maps / f"{name}.pt"):
                file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (48, 40), (30 * number, 0, 0)).save(data / f"{name}.JPEG")
            torch.save(torch.zeros(2, 5, 3, 3).half(), maps / f"{name}.pt")

    def _lists(self, pairs: dict[str, str]) -> None:
        """Lists in the form and with the prefix that the command says."""
        lists = self.folder / pairs["DATA.PATH_TO_DATA_DIR"]
        lists.mkdir(parents=True)
        prefix = pairs.get("DATA.PATH_PREFIX")
        if prefix is not None:
            (self.folder / prefix).symlink_to(self.videos)
        separator = pairs.get("DATA.PATH_LABEL_SEPARATOR", " ")
        for split in ("train", "val", "test"):
            rows = (self.videos / f"{split}.csv").read_text().splitlines()
            rows = rows[:-1] if split == "val" else rows  # another list than that of the test
            fields = [row.split() for row in rows]
            if prefix is not None:
                fields = [[Path(path).name, label] for path, label in fields]
            text = "".join(separator.join(row) + "\n" for row in fields)
            (lists / f"{split}.csv").write_text(text)
        shutil.copy(self.videos / "classes.txt", lists)
        if pairs.get("TRAIN.DATASET") == "webdataset":
            members = {path.name: path.read_bytes() for path in self.videos.glob("[0-9]*.mp4")}
            members |= {f"{name[:-4]}.cls": b"%d" % (int(name[:-4]) % 3) for name in members}
            for split in ("train", "val", "test"):
                write_shard(lists / f"{split}-000000.tar", members)


def _shown_pairs(words: Sequence[str]) -> list[str]:
    """The keys and values of the YAML files that a command names and a document shows."""
    files = [yaml.safe_load(SHOWN_FILES[word]) for word in words if word in SHOWN_FILES]
    return [str(word) for file in files for pair in file.items() for word in pair]
