"""Evaluate the frozen features of a network: linear or attentive probe, or nearest neighbors.

    maskfeat probe --kind linear --cfg k400_MVITv2_S_16x4_FT \\
        --checkpoint ssl_checkpoint_epoch_00300.pyth --output output/probe \\
        DATA.PATH_TO_DATA_DIR lists

This is `maskfeat train` with PROBE.KIND. --checkpoint is TEST.CHECKPOINT_FILE_PATH. Without it the
last checkpoint of the output folder is taken (the best with TRAIN.KEEP_BEST validation), else
TRAIN.CHECKPOINT_FILE_PATH; without any of them the weights are random.
"""

from __future__ import annotations

from collections.abc import Sequence

from slowfast_maskfeat.commands._run import parse_run, run_configuration, run_parser


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Returns:
        The exit code, see `exit_code`.
    """
    parser = run_parser("probe", __doc__, checkpoint="weights to evaluate")
    parser.add_argument(
        "--kind",
        choices=("linear", "attentive", "knn"),
        default="linear",
        help="PROBE.KIND",
    )
    options = parse_run(parser, arguments)
    return run_configuration(
        options,
        checkpoint_key="TEST.CHECKPOINT_FILE_PATH",
        preset=("PROBE.KIND", options.kind),
    )
