"""Which stream hears what ``data`` names: folders by their index, tars as they are,
and procedural sound."""

from sslaudio.data.blended import BlendedStream
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
    if without and config.procedural:
        raise ValueError(
            f"data.procedural is {config.procedural:g} and data.shards names the tar {without[0]}, "
            f"which has no index; make one with `sslaudio shards index DIR` and name the folder"
        )
    if config.procedural:
        return BlendedStream
    return TarStream if without else ShardStream
