"""``sslaudio stats DIR …``: mean and deviation of the pictures of shards, ready for a recipe."""

import argparse
import sys

from sslaudio import recipe as recipes
from sslaudio.features.stats import of_shards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    parser.epilog = "Leaves of features and data may follow: --features.kind librosa"
    parser.add_argument("shards", nargs="+", help="folders of shards")
    parser.add_argument("--clips", type=int, help="measure so many clips at most (all)")


def main(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Print the statistics as the YAML that a recipe takes."""
    if arguments.clips is not None and arguments.clips < 1:
        raise ValueError(f"--clips is {arguments.clips}; it is at least 1")
    recipe = recipes.read(None, ["--data.shards", *arguments.shards, *flags])
    found = of_shards(recipe.data, recipe.features, arguments.clips)
    sys.stdout.write(
        f"# {found.clips} clips, {found.frames} frames of {recipe.features.bins} bins, "
        f"kind {recipe.features.kind}\n"
        f"features:\n  mean: {found.mean:.6f}\n  std: {found.std:.6f}\n"
    )
    return 0
