"""What a run has told is read back and drawn."""

from matplotlib.image import imread

from sslaudio.training.report import draw, history

LOSS = [(2, 3.0), (4, 2.5)]


def test_history_is_every_scalar_with_its_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 0, "probe/knn": 0.25}\n'
        '{"step": 2, "objective/loss": 3.0}\n'
        '{"step": 4, "objective/loss": 2.5, "probe/knn": 0.5}\n'
    )

    assert history(path) == {"probe/knn": [(0, 0.25), (4, 0.5)], "objective/loss": LOSS}


def test_the_probe_is_drawn_beside_the_loss(tmp_path):
    probe = {"probe/knn": [(0, 0.25), (4, 0.5)], "probe/chance": [(0, 0.1), (4, 0.1)]}
    draw({"objective/loss": LOSS}, tmp_path / "alone.png")
    draw({"objective/loss": LOSS, **probe}, tmp_path / "both.png")
    draw({}, tmp_path / "nothing.png")

    alone, both = (imread(tmp_path / f"{name}.png")[..., :3] for name in ("alone", "both"))

    assert alone.shape == both.shape
    assert not (tmp_path / "nothing.png").exists()
    # Matplotlib's blue is in both, its orange in one.
    assert has(alone, 31, 119, 180) and has(both, 31, 119, 180)
    assert has(both, 255, 127, 14) and not has(alone, 255, 127, 14)


def has(picture, *colour: int) -> bool:
    """Whether a pixel is of this colour, in 255ths."""
    return bool((abs(255 * picture - colour).max(axis=2) < 2).any())
