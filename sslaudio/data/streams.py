"""Which stream hears what ``data.shards`` names: folders by their index, or tars as they are."""

from sslaudio.data.indexed import ShardStream
from sslaudio.data.stream import Config, Stream
from sslaudio.data.unindexed import TarStream, is_unindexed


def stream_for(config: Config) -> type[Stream]:
    """The stream to open ``config.shards`` with.

    Raises:
        ValueError: it names folders and tars at once.
    """
    without = [shards for shards in config.shards if is_unindexed(shards)]
    if without and len(without) < len(config.shards):
        other = next(shards for shards in config.shards if shards not in without)
        raise ValueError(
            f"data.shards names the tar {without[0]} and the folder {other}; one run hears either. "
            f"Make an index with `sslaudio shards index DIR` and name folders alone"
        )
    return TarStream if without else ShardStream
