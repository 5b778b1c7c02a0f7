"""What the generator can be asked for: wordings, and the grounds that they name."""

import random

import pytest
import torch

from alphaclip_gen.mini.captions import COLORS
from alphaclip_gen.mini.dice import Dice
from alphaclip_gen.mini.generator.grounds import draw_grounds
from alphaclip_gen.mini.generator.model import WORDS, new_prompt_tokenizer
from alphaclip_gen.mini.generator.prompts import (
    GROUNDS,
    SCENERY,
    SUBJECT,
    Instruction,
    random_instruction,
    say,
    vocabulary,
    wording,
)
from alphaclip_gen.mini.picture_judge import ground_colors


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (Instruction(), "a {subject}"),
        (Instruction("blue"), "a {subject} on a blue background"),
        (Instruction("orange", 2), "two {subject} on an orange background"),
        (Instruction("grass", 1, "small"), "a small {subject} on grass"),
        (Instruction("night", 3), "three {subject} on a night sky"),
    ],
)
def test_canonical_wordings(instruction, text):
    assert wording(instruction) == text


def test_every_wording_names_the_subject_and_only_what_is_asked():
    rng = random.Random(0)
    said = {say(rng, Instruction("purple", 2)) for _ in range(200)}
    assert len(said) > 10
    assert all(text.count(SUBJECT) == 1 for text in said)
    assert all(("purple" in text or "violet" in text) for text in said)
    assert all(("two" in text or "pair" in text) for text in said)


def test_an_instruction_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="ground is 'lava'; expected None or one of"):
        Instruction("lava")
    with pytest.raises(ValueError, match=r"count is 4; expected one of \(1, 2, 3\)"):
        Instruction(count=4)
    with pytest.raises(ValueError, match="size is 'small' for 2 subjects; expected 'medium'"):
        Instruction(count=2, size="small")


def test_random_instructions_cover_all_and_are_mostly_one_subject_on_a_color():
    rng = random.Random(0)
    drawn = [random_instruction(rng) for _ in range(2000)]
    assert {instruction.ground for instruction in drawn} == {None, *GROUNDS}
    assert {(i.count, i.size) for i in drawn} == {
        (1, "medium"),
        (1, "small"),
        (1, "large"),
        (2, "medium"),
        (3, "medium"),
    }
    colored = sum(instruction.ground in COLORS for instruction in drawn) / len(drawn)
    assert 0.55 < colored < 0.65


def test_every_word_of_a_prompt_is_one_token_and_the_longest_fits():
    tokenizer = new_prompt_tokenizer()
    ids = [tokenizer(word).input_ids for word in vocabulary()]
    assert {len(one) for one in ids} == {3}
    assert not any(tokenizer.unk_token_id in one for one in ids)
    assert len({tuple(one) for one in ids}) == len(ids)
    rng = random.Random(0)
    texts = [say(rng, random_instruction(rng)) for _ in range(500)]
    longest = max(len(tokenizer(text.replace(SUBJECT, "red cone")).input_ids) for text in texts)
    assert longest + 6 <= WORDS  # six more words of a long name
    assert tokenizer("A Thing").input_ids == tokenizer("a thing").input_ids


def test_grounds_have_their_colors_and_repeat_by_seed():
    names = [*COLORS, *SCENERY]
    first, again = (
        draw_grounds(Dice(torch.Generator().manual_seed(3)), names, 32) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert first.shape == (len(names), 3, 32, 32) and first.min() >= 0 and first.max() <= 1
    assert ground_colors(first[: len(COLORS)]).tolist() == list(range(len(COLORS)))
    flat, patterned = first[: len(COLORS)], first[len(COLORS) :]
    assert flat.flatten(2).std(2).max() < 1e-6
    assert patterned.flatten(2).std(2).amax(1).min() > 0.02
    assert torch.pdist(first.mean((2, 3))).min() > 0.02
