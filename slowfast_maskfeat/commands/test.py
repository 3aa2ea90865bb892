"""Test a trained model by a configuration, without training it.

    maskfeat test --cfg k400_MVITv2_S_16x4_FT --checkpoint checkpoint_epoch_00100.pyth \\
        --output output/test DATA.PATH_TO_DATA_DIR lists

This is `maskfeat train` with TRAIN.ENABLE False and TEST.ENABLE True. --checkpoint is
TEST.CHECKPOINT_FILE_PATH, or the folder of a run; without it, the output folder is that run. Of a
run, the last checkpoint is tested, or the best one with TRAIN.KEEP_BEST validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from slowfast_maskfeat.commands._run import parse_run, run_configuration, run_parser


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Returns:
        The exit code, see `exit_code`.
    """
    return run_configuration(
        parse_run(run_parser("test", __doc__, checkpoint="weights to test"), arguments),
        checkpoint_key="TEST.CHECKPOINT_FILE_PATH",
        preset=("TRAIN.ENABLE", "False", "TEST.ENABLE", "True"),
    )
