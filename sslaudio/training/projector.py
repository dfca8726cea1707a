"""Embeddings for TensorBoard's projector: tables of a step, and the list of those there are.

``RUN/projector/NAME/step-00000123/`` holds ``tensors.tsv`` (a row a clip), ``metadata.tsv`` (what
is known of each) and ``sprite.png`` (its picture); ``RUN/projector_config.pbtxt`` lists them and is
made anew from the folders, so that a resumed run lists each once.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sslaudio.training.storage import replacing_folder, write_text

FOLDER = "projector"
CONFIG = "projector_config.pbtxt"
MOST_CLIPS = 512
MOST_NUMBERS = 1_000_000
"""Of one table."""
BYTES_A_NUMBER = 8
"""As text."""
NEWEST = 2
"""Tables of a name that stay, beside its first."""
SIDE = 32
"""Pixels of a clip's picture."""


def write(
    run: Path,
    name: str,
    step: int,
    embeddings: Float[np.ndarray, "clips dim"],
    columns: Mapping[str, Sequence[str]],
    pictures: Any = None,
) -> None:
    """Write a step's table, let go of older ones, and list what there is.

    Args:
        run: the RUN.
        name: whose embeddings they are.
        step: taken when they were made.
        embeddings: of the first clips so many are written as the projector can show.
        columns: what is known of each clip, by the column's name.
        pictures: RGB in [0, 1], ``[clips, 3, 32, 32]``, NumPy's.
    """
    clips, dim = embeddings.shape
    shown = min(clips, MOST_CLIPS, max(1, MOST_NUMBERS // dim))
    place = run / FOLDER / name / f"step-{step:08d}"
    with replacing_folder(place, shown * dim * BYTES_A_NUMBER) as draft:
        np.savetxt(draft / "tensors.tsv", embeddings[:shown], fmt="%.5g", delimiter="\t")
        (draft / "metadata.tsv").write_text(_metadata(columns, shown), encoding="utf-8")
        if pictures is not None:
            _sprite(pictures[:shown], draft / "sprite.png")
    for old in _steps(place.parent)[1:-NEWEST]:
        shutil.rmtree(old)
    _list(run)


def forget_after(run: Path, step: int) -> None:
    """Drop the tables of steps that a resumed run will take again."""
    if not (run / FOLDER).is_dir():
        return
    for folder in (run / FOLDER).iterdir():
        for place in _steps(folder):
            if int(place.name.removeprefix("step-")) > step:
                shutil.rmtree(place)
    _list(run)


def small(pictures: Float[Tensor, "clips bins frames"]) -> Float[Tensor, "clips side side"]:
    """Pictures of the size that the projector shows."""
    return torch.nn.functional.adaptive_avg_pool2d(pictures[:MOST_CLIPS].float(), SIDE)


def _steps(folder: Path) -> list[Path]:
    """Whole tables of a name, oldest first."""
    return sorted(folder.glob("step-*"))


def _list(run: Path) -> None:
    """Write the list that TensorBoard looks for, the newest last: it opens the last."""
    entries = []
    for folder in sorted((run / FOLDER).iterdir()):
        for place in _steps(folder):
            within = place.relative_to(run)
            step = int(place.name.removeprefix("step-"))
            entry = [
                f'  tensor_name: "{folder.name}, step {step}"',
                f'  tensor_path: "{within}/tensors.tsv"',
                f'  metadata_path: "{within}/metadata.tsv"',
            ]
            if (place / "sprite.png").is_file():
                size = f"single_image_dim: {SIDE} single_image_dim: {SIDE}"
                entry.append(f'  sprite {{ image_path: "{within}/sprite.png" {size} }}')
            entries.append("\n".join(["embeddings {", *entry, "}\n"]))
    write_text(run / CONFIG, "".join(entries))


def _metadata(columns: Mapping[str, Sequence[str]], rows: int) -> str:
    """A row a clip; two columns and more have a heading, as the projector wants it."""
    names = [] if len(columns) == 1 else [tuple(columns)]
    cells = [*names, *zip(*(column[:rows] for column in columns.values()), strict=True)]
    return "".join("\t".join(" ".join(str(one).split()) for one in row) + "\n" for row in cells)


def _sprite(pictures: Any, path: Path) -> None:
    """All pictures in one, row by row, as wide as high."""
    from matplotlib.image import imsave

    side = math.ceil(math.sqrt(len(pictures)))
    whole = np.ones((side * side, *pictures.shape[1:]))
    whole[: len(pictures)] = pictures
    rows = whole.reshape(side, side, 3, SIDE, SIDE).transpose(0, 3, 1, 4, 2)
    imsave(path, rows.reshape(side * SIDE, side * SIDE, 3))
