"""The generated world: deterministic, and its words are true of its pictures.

Guards against words that the pictures do not bear out, and data that differ from run to run.
"""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from mod.batches import IGNORE, collate
from mod.world.dialogues import look, read, watch
from mod.world.questions import QUESTIONS
from mod.world.streams import World
from mod.world.summaries import digest
from mod.world.things import COLOURS, NAMES, NOTHING, UNKNOWN, Thing, cells
from mod.world.words import MOTIONS, Look, Narrator, look_of
from tests.mod.small import small_config, small_layout


def test_a_seed_fixes_everything_and_another_seed_changes_it() -> None:
    a, b, c = (list(islice(World(seed), 30)) for seed in (7, 7, 8))
    assert all(
        np.array_equal(x.frame, y.frame) and x.text == y.text for x, y in zip(a, b, strict=True)
    )
    assert not np.array_equal(a[0].frame, c[0].frame)


def test_film_of_one_picture_a_sample_is_the_stream() -> None:
    film = [sample for _, sample in islice(World(3).film(1), 20)]
    for sample, expected in zip(film, islice(World(3), 20), strict=True):
        assert sample is not None
        assert np.array_equal(sample.frame, expected.frame)


@pytest.mark.slow
def test_film_moves_smoothly_between_samples() -> None:
    """Guards against film that jumps once a sample, which no camera does."""
    pictures, samples = zip(*islice(World(21, cut_rate=0.0).film(12), 241), strict=True)
    assert [i for i, s in enumerate(samples) if s is not None] == list(range(0, 241, 12))
    steps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(pictures)]
    assert max(steps) < 40


@pytest.mark.slow
def test_every_cut_is_said_and_nothing_else_is_called_one() -> None:
    for seed in range(5):
        for sample in islice(World(seed), 60):
            assert (sample.text or "").startswith("Cut to") == sample.cut


@pytest.mark.parametrize(
    ("rgb", "words"),
    [
        ((0, 0, 0), "black"),
        ((60, 60, 60), "dark grey"),
        ((120, 120, 120), "grey"),
        ((240, 240, 240), "bright grey"),
        ((200, 30, 30), "red"),
        ((40, 40, 200), "dark blue"),
        ((250, 220, 60), "bright yellow"),
        ((60, 160, 70), "green"),
    ],
)
def test_looks_are_named_as_people_would(rgb: tuple[int, int, int], words: str) -> None:
    assert look_of(np.array(rgb, float)).phrase == words


def test_a_look_near_a_boundary_keeps_its_word() -> None:
    """Guards against words that flicker with noise."""
    near = np.full(3, 76.0)
    assert look_of(near) == Look("", "grey")
    assert look_of(near, Look("dark", "grey")) == Look("dark", "grey")
    assert look_of(np.full(3, 90.0), Look("dark", "grey")) == Look("", "grey")


def test_the_narrator_says_each_change_once() -> None:
    narrator = Narrator()
    blue, red = np.array([20.0, 20, 120]), np.array([250.0, 60, 60])
    assert narrator.tell(blue, cut=False, move=None) == "A dark blue scene."
    assert narrator.tell(blue, cut=False, move="left") == MOTIONS["left"]
    assert narrator.tell(blue, cut=False, move="left") is None
    assert narrator.tell(blue, cut=False, move="up") == MOTIONS["up"]
    assert narrator.tell(blue, cut=False, move="still") == MOTIONS["still"]
    assert narrator.tell(red, cut=True, move=None) == "Cut to a red scene."
    assert narrator.tell(np.zeros(3), cut=False, move=None) == "The picture fades to black."
    assert narrator.tell(np.zeros(3), cut=False, move=None) is None


def thing(name: str, x: float, y: float = 0.5, radius: float = 0.15) -> Thing:
    colour, shape = name.split()
    return Thing(name, x, y, 0.0, 0.0, radius, COLOURS[colour], shape == "ball")


def test_the_narrator_follows_things() -> None:
    """Each comes, meets and leaves once; one statement a sample; a cut forgets them."""
    narrator = Narrator()
    grey = np.full(3, 120.0)

    def tell(*things: Thing, cut: bool = False) -> str | None:
        return narrator.tell(grey, cut=cut, move=None, things=things)

    assert tell() == "A grey scene."
    ball, far, near = thing("red ball", 0.2), thing("blue box", 0.8), thing("blue box", 0.4)
    assert tell(ball, far) == "A red ball appears."
    assert tell(ball, far) == "A blue box appears."
    assert tell(ball, far) is None
    assert tell(ball, near) == "The red ball meets the blue box."
    assert tell(ball, near) is None
    assert tell(ball, far) is None
    assert tell(ball, near) == "The red ball meets the blue box."
    assert tell(near) == "The red ball leaves."
    assert tell(near, cut=True) == "Cut to a grey scene."
    assert tell(near) == "A blue box appears."


@pytest.mark.slow
def test_labels_of_cells_are_true_of_the_pixels() -> None:
    """Where a cell is said to show a thing, its colour fills part of the cell."""
    shown = 0
    for seed in range(12):
        for sample in islice(World(seed, cut_rate=0.2), 20):
            label = cells(sample.things)
            if sample.things is None:
                assert (label == UNKNOWN).all()
                continue
            for row, column in zip(*np.nonzero(label > NOTHING), strict=True):
                colour = NAMES[label[row, column]].split()[0]
                patch = sample.frame[row * 32 : (row + 1) * 32, column * 32 : (column + 1) * 32]
                # The exposure scales all channels alike: proportions are compared.
                pixels = patch.reshape(-1, 3).astype(float)
                bright = pixels.max(1, keepdims=True).clip(1.0)
                want = np.array(COLOURS[colour]) / max(COLOURS[colour])
                near = (np.abs(pixels / bright - want).max(1) < 0.3) & (bright[:, 0] > 20)
                # A fifth of the cell, most of which may be the rim.
                assert near.mean() > 0.02
                shown += 1
    assert shown > 100
    assert (cells([]) == NOTHING).all()


@pytest.mark.slow
def test_things_that_meet_part_again() -> None:
    """Guards against things that hide others for good, which no narrator could tell apart."""
    overlaps = longest = 0
    for seed in range(30):
        run = 0
        for sample in islice(World(seed), 60):
            pair = [t for t in sample.things or () if t.name]
            deep = len(pair) == 2 and (
                np.hypot(pair[0].x - pair[1].x, pair[0].y - pair[1].y)
                < 0.5 * (pair[0].radius + pair[1].radius)
            )
            run = run + 1 if deep else 0
            longest = max(longest, run)
            overlaps += deep
    assert overlaps > 0
    assert longest <= 6


def test_summaries_add_up() -> None:
    parts = [
        digest(["A red scene.", "Cut to a blue scene."]).sentence,
        digest(["A blue scene.", MOTIONS["up"], "The picture turns dark grey."]).sentence,
    ]
    whole = digest(parts)
    assert (whole.opens, whole.ends, whole.cuts, whole.moves) == ("red", "dark grey", 1, True)
    with pytest.raises(ValueError, match="how the video looks"):
        digest([MOTIONS["in"]])


def test_supervision_sits_on_decisions_words_and_ends_only() -> None:
    """Guards the LIVE labels: each frame's last token decides, questions are only read."""
    config = small_config(pool_grid=3)
    layout = small_layout(config)
    dialogue = watch(3, 6)
    batch = collate([dialogue], layout, config)
    decisions = (batch.frame_starts + config.tokens_per_frame - 1).tolist()
    for place, text in zip(decisions, dialogue.texts, strict=True):
        wanted = layout.silence if text is None else layout.encode(text)[0]
        assert batch.labels[place] == wanted
    asked = set((batch.labels != IGNORE).nonzero()[:, 0].tolist())
    n_words = sum(1 if t is None else len(layout.encode(t)) + 1 for t in dialogue.texts)
    assert len(dialogue.turns) == 2
    n_answers = sum(len(layout.encode(turn.answer)) + 1 for turn in dialogue.turns)
    assert len(asked) == n_words + n_answers
    for start in batch.frame_starts.tolist():
        assert not asked & set(range(start, start + config.tokens_per_frame - 1))


def test_batches_mix_lengths_by_padding_what_nobody_attends_to() -> None:
    config = small_config()
    layout = small_layout(config)
    batch = collate([watch(1, 3), watch(2, 5)], layout, config)
    assert len(set(batch.lengths)) == 1
    assert len(batch.token_ids) == sum(batch.lengths)
    silent = collate([look(1, 4)], layout, config)
    assert set(silent.labels.tolist()) == {IGNORE, layout.silence}
    assert len(collate([read(1, 3)], layout, config).frames) == 0


def test_answers_follow_from_what_was_said() -> None:
    said = [
        "A blue scene.",
        MOTIONS["up"],
        "A red ball appears.",
        "A blue box appears.",
        "The red ball meets the blue box.",
        "Cut to a red scene.",
        "The picture turns dark red.",
    ]
    answers = {question: rule(said) for question, rule in QUESTIONS.items()}
    assert answers == {
        "How did it begin?": "It was blue.",
        "How does it look now?": "It is dark red.",
        "How many cuts so far?": "One cut.",
        "What did the camera do last?": "The camera tilts up.",
        "What appeared first?": "A red ball.",
        "How many things appeared?": "Two things.",
        "What met last?": "The red ball meets the blue box.",
    }
    assert QUESTIONS["What did the camera do last?"](said[:1]) == "Nothing."
    assert QUESTIONS["How many cuts so far?"](["Cut to a red scene."] * 10) == "Many cuts."
