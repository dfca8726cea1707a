"""The stream of what ``data.shards`` names: folders by their index, or tars as they are."""

from sslaudio.data.stream import Config, Stream
from sslaudio.data.unindexed import TarStream, is_unindexed

AnyStream = Stream | TarStream
"""What training drinks from."""


def open_stream(
    config: Config,
    *,
    sample_rate: int,
    seed: int,
    rank: int = 0,
    ranks: int = 1,
    accumulation: int = 1,
) -> AnyStream:
    """Open what ``config.shards`` names; see :class:`Stream` for the arguments.

    Raises:
        ValueError: it names folders and tars at once, or cannot be opened.
    """
    without = [shards for shards in config.shards if is_unindexed(shards)]
    if without and len(without) < len(config.shards):
        other = next(shards for shards in config.shards if shards not in without)
        raise ValueError(
            f"data.shards names the tar {without[0]} and the folder {other}; one run hears either. "
            f"Make an index with `sslaudio shards index DIR` and name folders alone"
        )
    kind = TarStream if without else Stream
    return kind(
        config,
        sample_rate=sample_rate,
        seed=seed,
        rank=rank,
        ranks=ranks,
        accumulation=accumulation,
    )
