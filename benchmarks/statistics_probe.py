"""What a network adds to the log-mel statistics: a linear probe on them, alone and together.

    python benchmarks/statistics_probe.py --task fsdd --root DIR [--checkpoint RUN] --out DIR2

Mean, deviation and four time-slice means of 64 log-mels a clip (no network), and with
``--checkpoint`` the embedding beside them. Folds, strengths and records as ``sslaudio finetune
--protocol linear``; the protocol is called ``statistics`` or ``statistics+linear``.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sslaudio import config as configs
from sslaudio import models
from sslaudio.downstream import embed, probe, results, table
from sslaudio.downstream.statistics import logmel_statistics
from sslaudio.features.front_end import Config, FrontEnd
from sslaudio.recipe import Finetune
from sslaudio.tasks import sources
from sslaudio.tasks.base import Example, Fold, Task


def statistics(examples: Sequence[Example]) -> np.ndarray:
    """Log-mel statistics, one row an example."""
    front_end = FrontEnd(Config(mel_bins=64))
    rows = []
    for example in examples:
        sound = torch.from_numpy(example.waveform(front_end.sample_rate))[None]
        mel, frames = front_end(sound, torch.tensor([sound.shape[1]]))
        rows.append(logmel_statistics(mel[0, :, : int(frames)]).numpy())
    return np.stack(rows)


def run_fold(
    recipe: Finetune, task: Task, fold: Fold, checkpoint: Path | None
) -> tuple[probe.ProbeResult, int]:
    """Probe one fold; also the length of its vectors."""
    encoder = models.load_encoder(checkpoint) if checkpoint else None
    parts = []
    for examples in fold.parts().values():
        vectors = statistics(examples)
        if encoder is not None:
            vectors = np.concatenate([vectors, embed.embed_examples(encoder, examples)], axis=1)
        parts.append(probe.part_of(task, vectors, examples))
    train, validation, test = parts
    return probe.fit(train, validation, test, len(task.classes), recipe.probe), vectors.shape[1]


def main() -> int:
    """Probe every fold and write the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--task", required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="{name, ours, peer, ratio, goal}; peer: chance")
    arguments, flags = parser.parse_known_args()
    recipe = configs.build(
        Finetune,
        configs.parse_flags(
            ["--task", arguments.task, *flags], Finetune, {"task": {"name": arguments.task}}
        ),
    )
    task = recipe.task.build(sources.root_of(recipe.task, arguments.root))
    records = []
    for fold in task.folds:
        began = time.perf_counter()
        found, width = run_fold(recipe, task, fold, arguments.checkpoint)
        records.append(
            results.record(
                task,
                fold,
                protocol="statistics+linear" if arguments.checkpoint else "statistics",
                seed=recipe.training.seed,
                validation=found.validation,
                test=found.test,
                checkpoint=arguments.checkpoint,
                trainable=len(task.classes) * (width + 1),
                seconds=time.perf_counter() - began,
            )
        )
    results.write(arguments.out / "results.json", records)
    print(table.markdown(table.rows(records)))
    if arguments.json:
        chance = 1 / len(task.classes)
        rows = [
            {
                "name": f"{task.name} {record.fold}, {record.protocol}, test accuracy",
                "ours": record.test,
                "peer": chance,
                "ratio": record.test / chance,
                "goal": None,
            }
            for record in records
        ]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
