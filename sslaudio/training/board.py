"""TensorBoard events that are in their file as soon as they are told.

TensorBoard's own writer keeps events in a queue: a kill loses them, and on a full disk its thread
dies with a traceback while the run goes on. Here each event is written where it is told of.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any, cast

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from sslaudio.training.storage import Growing


class Board(SummaryWriter):
    """torch's writer of scalars, pictures and texts, without the queue.

    Its methods raise :class:`~sslaudio.training.storage.DiskFullError` on a full disk.

    Args:
        run: folder of the events.
        purge_step: first step that is told anew; what older files tell of it and later is hidden.
    """

    file_writer: Any
    all_writers: Any

    def __init__(self, run: Path, purge_step: int) -> None:
        super().__init__(str(run), purge_step=purge_step)

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = _Events(Path(self.log_dir))
            self.all_writers = {self.log_dir: self.file_writer}
            start = SessionLog(status=SessionLog.START)
            self.file_writer.add_event(Event(session_log=start), self.purge_step)
        return cast(FileWriter, self.file_writer)

    def close(self) -> None:
        """Nothing is left to be written."""
        self.file_writer.close()


class _Events(FileWriter):
    """A file of events."""

    def __init__(self, run: Path) -> None:
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.run, self.event_writer = run, self
        self.file = Growing(run / name)
        self.records = RecordWriter(self.file)
        self.add_event(Event(file_version="brain.Event:2"))

    def get_logdir(self) -> str:
        return str(self.run)

    def add_event(
        self, event: Event, step: int | None = None, walltime: float | None = None
    ) -> None:
        event.wall_time = time.time() if walltime is None else walltime
        if step is not None:
            event.step = int(step)
        self.records.write(event.SerializeToString())

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()
