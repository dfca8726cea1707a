"""``sslaudio stats DIR …``: mean and deviation of the log-mels of shards, ready for a recipe."""

import argparse
import sys

from sslaudio import recipe as recipes
from sslaudio.pretrain import shard_statistics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the verb; leaves of ``features`` and ``data`` may follow."""
    parser.add_argument("shards", nargs="+", help="folders of shards")
    parser.add_argument("--clips", type=int, help="measure so many clips at most (all)")


def main(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Print the statistics as the YAML that a recipe takes."""
    recipe = recipes.read(None, ["--data.shards", *arguments.shards, *flags])
    found = shard_statistics(recipe, arguments.clips)
    sys.stdout.write(
        f"# {found.clips} clips, {found.frames} frames of {recipe.features.mel_bins} mel bins\n"
        f"features:\n  mean: {found.mean:.6f}\n  std: {found.std:.6f}\n"
    )
    return 0
