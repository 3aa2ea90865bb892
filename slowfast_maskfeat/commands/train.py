"""Train and test a model by a configuration.

    maskfeat train --cfg A.yaml [B.yaml ...] [KEY VALUE ...]
    torchrun --nproc_per_node 8 -m slowfast_maskfeat train --cfg A.yaml [KEY VALUE ...]
    srun --ntasks 8 maskfeat train --cfg A.yaml [KEY VALUE ...]

Arguments ending in .yaml or .yml, in any case, are files unless they follow a key, and so are the
names of shipped configurations, such as k400_MVITv2_S_16x4_FT. Later files override earlier ones.
The others are keys and values, which override files. --checkpoint is TRAIN.CHECKPOINT_FILE_PATH.
The same command resumes an interrupted run.
"""

from __future__ import annotations

from collections.abc import Sequence

from slowfast_maskfeat.commands._run import parse_run, run_configuration, run_parser


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Returns:
        The exit code, see `exit_code`.
    """
    options = parse_run(run_parser("train", __doc__, checkpoint="weights to start from"), arguments)
    return run_configuration(options, checkpoint_key="TRAIN.CHECKPOINT_FILE_PATH")
