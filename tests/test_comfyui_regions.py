"""Masks of every kind, regions from numbers and words, and regions named."""

from pathlib import Path

import comfy_stub as stub
import pytest
import torch

from alphaclip_gen import RegionEncoder, alpha_from_box, as_image
from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS, host
from alphaclip_gen.comfyui.entries import box_of, lines_of, points_of
from alphaclip_gen.comfyui.locating import find_region, neighbors, rated, windows
from alphaclip_gen.comfyui.masks import (
    CUT_OUT,
    NO_REGION,
    as_comfy_image,
    as_comfy_mask,
    candidates,
    fitted,
    is_cut_out,
    picture,
    reference,
    region,
)
from alphaclip_gen.comfyui.scoring import name_regions, table

SCENE = Path(__file__).resolve().parents[1] / "docs" / "scene.png"
SOLIDS = {
    "a cyan cube": (58, 46, 116, 116),
    "a red sphere": (102, 82, 208, 190),
    "a yellow torus": (50, 140, 136, 192),
}


@pytest.fixture
def core(monkeypatch, tmp_path):
    return stub.install(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def mini():
    return RegionEncoder.from_pretrained("mini")


@pytest.fixture
def scene():
    return as_image(SCENE)


def node(name):
    return NODE_CLASS_MAPPINGS[f"AlphaCLIP{name}"]()


@pytest.fixture
def heard(caplog):
    """Calls a function; its result, and what it warned of."""

    def call(function, *args, **settings):
        caplog.clear()
        return function(*args, **settings), caplog.messages

    return call


# Masks


@pytest.mark.parametrize("shape", [(8, 12), (1, 8, 12), (3, 8, 12)])
def test_masks_with_and_without_batch(heard, shape):
    mask = torch.zeros(shape)
    mask[..., :4] = 1
    alpha, said = heard(region, mask)
    assert alpha.shape == (shape[0] if len(shape) == 3 else 1, 1, 8, 12) and not said
    assert torch.equal(as_comfy_mask(alpha), mask.reshape(-1, 8, 12))


def test_zeros_are_no_region_and_that_is_said(heard):
    """LoadImage gives zeros(64, 64) for a picture without transparency."""
    assert heard(region, torch.zeros(64, 64)) == (None, [NO_REGION])
    assert heard(region, torch.zeros(1, 64, 64), inverted=True) == (None, [NO_REGION])
    opaque_but_for_rounding = torch.full((1, 4, 4), 1 - 254 / 255)
    assert heard(region, opaque_but_for_rounding) == (None, [NO_REGION])
    mixed = torch.stack([torch.zeros(4, 4), torch.eye(4)])
    alpha, said = heard(region, mixed)
    assert said == [NO_REGION] and alpha[0].eq(1).all() and torch.equal(alpha[1, 0], torch.eye(4))
    alpha, _ = heard(region, mixed, inverted=True)
    assert alpha[0].eq(1).all() and torch.equal(alpha[1, 0], 1 - torch.eye(4))


def test_the_mask_of_a_cut_out_is_recognized_and_said(heard):
    """LoadImage's MASK is 1 - alpha: of a cut-out subject it is the background."""
    background = torch.ones(1, 32, 32)
    background[:, 8:24, 8:24] = 0
    alpha, said = heard(region, background)
    assert said == [CUT_OUT] and torch.equal(alpha[:, 0], background)
    alpha, said = heard(region, background, inverted=True)
    assert not said and torch.equal(alpha[:, 0], 1 - background)
    background[:, 16:, 10:22] = 0  # a subject that leaves the picture below
    assert is_cut_out(background[:, None])
    painted = torch.zeros(1, 1, 32, 32)
    painted[..., :20] = 1
    assert not is_cut_out(painted) and not is_cut_out(torch.ones(1, 1, 5, 5))


def test_strength_and_the_whole_picture(heard):
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1
    assert region(mask, strength=0.25)[0, 0, :, 0].tolist() == [1, 1, 0.75, 0.75]
    assert heard(region, mask, strength=0.0) == (None, [])
    assert heard(region, torch.ones(1, 4, 4)) == (None, [])
    with pytest.raises(ValueError, match="focus_mask is white all over and invert is on"):
        region(torch.ones(1, 4, 4), inverted=True)


def test_masks_out_of_range_are_clamped_and_broken_ones_refused():
    mask = torch.tensor([[[-0.2, 1.3], [0.5, 0.0]]])
    assert region(mask).tolist() == [[[[0.0, 1.0], [0.5, 0.0]]]]
    assert region(mask > 0).tolist() == [[[[0.0, 1.0], [1.0, 0.0]]]]
    with pytest.raises(ValueError, match="focus_mask has NaN or infinite values"):
        region(torch.tensor([[[float("nan"), 1.0]]]))
    for shape in ((1, 2, 3, 4), (4,), (0, 8, 8)):
        with pytest.raises(ValueError, match=r"focus_mask has shape .*; expected a MASK: \(height"):
            region(torch.ones(shape))


def test_a_mask_of_another_shape_is_said(heard):
    alpha = torch.ones(1, 1, 10, 20)
    found, said = heard(fitted, alpha, (30, 60))
    assert found.shape[-2:] == (30, 60) and not said
    _, said = heard(fitted, alpha, (40, 40))
    assert "10 x 20 and the picture 40 x 40" in said[0]


def test_a_reference_has_pictures_and_regions_of_one_size():
    image, mask = torch.rand(2, 8, 8, 3), torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    pictures, alpha = reference(image, mask)
    assert pictures.shape == (2, 3, 8, 8) and alpha.shape == (1, 1, 8, 8)
    assert alpha[0, 0, 0].tolist() == [1, 1, 1, 0.875, 0.125, 0, 0, 0]  # antialiased
    assert reference(image, torch.zeros(64, 64)).alpha is None


def test_candidates_are_those_that_select_something():
    masks = torch.stack([torch.zeros(4, 4), torch.eye(4), torch.ones(4, 4)])
    assert torch.equal(candidates(masks, (4, 4))[:, 0], masks[1:])
    with pytest.raises(ValueError, match="candidates is black; expected one mask or more"):
        candidates(masks[:1], (4, 4))
    with pytest.raises(ValueError, match=r"candidates has shape \(4,\)"):
        candidates(masks[1, 1], (4, 4))


def test_pictures_there_and_back():
    image = torch.rand(2, 4, 5, 4)
    found = picture(image)
    assert found.shape == (2, 3, 4, 5)
    assert torch.equal(as_comfy_image(found), image[..., :3])
    found.zero_()
    assert image.any()
    for shape in ((4, 5, 3), (1, 4, 5, 2), (0, 4, 5, 3)):
        with pytest.raises(ValueError, match=r"image has shape .*; expected an IMAGE"):
            picture(torch.rand(shape))
    image[1, 2, 3, 0] = float("nan")
    with pytest.raises(ValueError, match=r"image has NaN .* start ComfyUI with --fp32-vae"):
        picture(image)


# Numbers


def test_region_from_box_and_points(core):
    image = torch.zeros(1, 20, 40, 3)
    (mask,) = node("RegionFromBox").run(image, 0.25, 0.5, 0.75, 1.0, "fractions")
    expected = torch.zeros(1, 20, 40)
    expected[:, 10:, 10:30] = 1
    assert torch.equal(mask, expected)
    (pixels,) = node("RegionFromBox").run(image, 10.0, 10.0, 30.0, 20.0, "pixels")
    assert torch.equal(pixels, expected)
    (dots,) = node("RegionFromPoints").run(image, "10, 10\n30 10", 4.0, 0.0, "pixels")
    assert dots.shape == (1, 20, 40) and dots[0, 10, 10] == dots[0, 10, 30] == 1
    assert dots[0, 10, 20] == 0 and abs(dots.sum() - 2 * 3.14159 * 16) < 2


def test_text_boxes():
    assert lines_of(" a cat \n\n a dog, big\n") == ["a cat", "a dog, big"]
    points = [(0.5, 0.25), (1.0, 2.0), (3.0, 4.0)]
    assert points_of("0.5, 0.25; (1 2)\n 3,4 ", "pixels") == points
    for wrong in ("0.5", "a, b", "1, 2, 3"):
        with pytest.raises(ValueError, match="expected two numbers, x and y"):
            points_of(wrong, "pixels")
    with pytest.raises(ValueError, match="points is empty"):
        points_of(" \n", "pixels")
    with pytest.raises(ValueError, match=r"points has '30, 0.2'; .* Choose unit 'pixels'"):
        points_of("0.5, 0.5\n30, 0.2", "fractions")


@pytest.mark.parametrize(
    ("box", "unit", "message"),
    [
        ((0.6, 0.1, 0.2, 0.9), "fractions", "left is 0.6 and right 0.2 .* no width or height"),
        ((0.1, 0.5, 0.2, 0.5), "fractions", "top is 0.5 and bottom 0.5 .* expected top below"),
        ((10.0, 10.0, 30.0, 40.0), "fractions", "left is 10 and right 30 .* Choose unit 'pixels'"),
        ((0.2, 0.2, 0.8, 0.8), "pixels", "right 0.8 in pixels; .* Choose unit 'fractions'"),
        ((10.0, 5.0, 30.0, 21.0), "pixels", "bottom 21 in pixels; expected 0 to 20"),
    ],
)
def test_boxes_that_cannot_be_meant(box, unit, message):
    assert box_of(10.0, 5.0, 30.0, 20.0, "pixels", (20, 40)) == (10.0, 5.0, 30.0, 20.0)
    with pytest.raises(ValueError, match=message):
        box_of(*box, unit, (20, 40))


# Words


def test_windows_cover_the_picture_and_neighbors_stay_in_it():
    boxes = windows()
    assert len(boxes) == len(set(boxes)) < 120
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    for x in (0.01, 0.5, 0.99):
        for y in (0.01, 0.5, 0.99):
            assert any(b[0] <= x <= b[2] and b[1] <= y <= b[3] for b in boxes)
    assert (0.0, 0.0, 0.4, 0.5) in neighbors((0.0, 0.0, 0.5, 0.5), 0.1)
    assert all(min(box) >= 0 and max(box) <= 1 for box in neighbors((0.0, 0.0, 1.0, 1.0), 0.3))


def test_the_best_region_by_hand():
    """Not the one with the largest cosine, where another text fits as well."""
    best = rated(torch.tensor([[0.5, 0.5], [0.46, 0.1]]), 10.0)
    assert best.place == 1
    probability = 1 / (1 + 2.718281828**-3.6)
    assert best.score == pytest.approx(probability, rel=1e-5)
    assert best.rank == pytest.approx(4.6 + torch.tensor(probability).log().item(), rel=1e-5)
    alone = rated(torch.tensor([[0.5], [0.4]]), 10.0)
    assert (alone.place, alone.score) == (0, 0.5)


def test_a_phrase_finds_its_solid(mini, scene):
    """mini, three solids in a scene: the region for each one's name lies on it."""
    for text, (x0, y0, x1, y1) in SOLIDS.items():
        reports = []
        alpha, score = find_region(mini, scene, text, list(SOLIDS), report=reports.append)
        rows, columns = (alpha[0, 0] > 0.5).nonzero().float().mean(0).tolist()
        assert x0 < columns < x1 and y0 < rows < y1, text
        assert 0.5 < score <= 1 and reports == sorted(reports)


def test_candidates_are_chosen_from(mini, scene):
    boxes = torch.cat([alpha_from_box(box, (224, 224)) for box in SOLIDS.values()])
    for number, text in enumerate(SOLIDS):
        alpha, _ = find_region(mini, scene, text, list(SOLIDS), boxes)
        assert torch.equal(alpha, boxes[number : number + 1])


def test_nothing_to_look_for(mini, scene):
    with pytest.raises(ValueError, match="text is empty"):
        find_region(mini, scene, " ", [])


def test_regions_are_named(mini, scene):
    texts = list(SOLIDS)
    boxes = torch.cat([alpha_from_box(box, (224, 224)) for box in SOLIDS.values()])
    named = name_regions(mini, scene, boxes, texts)
    assert named.best == texts
    expected = mini.score(scene, texts, boxes)
    assert named.score == pytest.approx(float(expected[0].max()))
    assert named.table == table(texts, expected)
    one = name_regions(mini, scene.expand(2, -1, -1, -1), boxes[:1], texts)
    assert one.best == [texts[0]] * 2
    with pytest.raises(ValueError, match="texts has 1 lines; expected two or more"):
        name_regions(mini, scene, boxes, texts[:1])


def test_the_table_by_hand():
    found = table(["a", "b"], torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    assert found.splitlines() == [
        "| text | 1 | 2 |",
        "|---|---|---|",
        "| b | 0.750 | 0.500 |",
        "| a | 0.250 | 0.500 |",
    ]


# The nodes


@pytest.fixture
def vision(core):
    (loaded,) = node("LoadVision").run("mini", "its own")
    return loaded


def test_score_and_find_by_nodes(core, vision, scene):
    image = as_comfy_image(scene)
    corners = map(float, SOLIDS["a red sphere"])
    (mask,) = node("RegionFromBox").run(image, *corners, "pixels")
    copies = image.clone(), mask.clone()
    texts = "\n".join(SOLIDS)
    best, lines, score = node("ScoreRegion").run(vision, image, mask, texts, 1.0, False, "7")
    assert best == "a red sphere" and score > 0.5 and "| a red sphere |" in lines
    found, probability = node("RegionFromText").run(vision, image, "a red sphere", texts)
    assert found.shape == (1, 224, 224) and probability > 0.5
    done = [value for value, *_ in core.progress]
    assert done == sorted(done) and done
    chosen, _ = node("RegionFromText").run(vision, image, "a red sphere", texts, mask)
    assert torch.equal(chosen, mask)
    assert torch.equal(image, copies[0]) and torch.equal(mask, copies[1])


def test_nodes_that_read_texts_work_in_half_precision_as_on_gpus(core, monkeypatch, scene):
    monkeypatch.setattr(host, "vision_dtype", lambda device: torch.bfloat16)
    (vision,) = node("LoadVision").run("mini", "its own")
    assert next(vision.model.parameters()).dtype == torch.bfloat16
    image, texts = as_comfy_image(scene), "\n".join(SOLIDS)
    (mask,) = node("RegionFromBox").run(image, *map(float, SOLIDS["a red sphere"]), "pixels")
    best, _, _ = node("ScoreRegion").run(vision, image, mask, texts, 1.0, False, "7")
    found, probability = node("RegionFromText").run(vision, image, "a red sphere", texts)
    assert best == "a red sphere" and found.shape == (1, 224, 224) and probability > 0.5


def test_what_is_said_reaches_the_node(core, vision, scene, caplog):
    node("Focus").run(vision, torch.zeros(1, 64, 64), 1.0, False, "auto", "12")
    assert core.said == [("12", NO_REGION)] and NO_REGION in caplog.text
    image, wide = as_comfy_image(scene), torch.ones(1, 10, 40)
    wide[..., :20] = 0
    texts = "a red sphere\na green gryphon"
    node("ScoreRegion").run(vision, image, wide, texts, 1.0, False, "13")
    where, said = core.said[-1]
    assert where == "13" and "another shape" in said and "'gryphon'" in said
    node("ScoreRegion").run(vision, image, wide[..., :10], texts, 1.0, False)
    assert core.said[-1] == (where, said)  # nothing is left listening


def test_search_stops_when_cancelled(core, vision, scene):
    core.interrupt_after = 2
    with pytest.raises(core.interruption):
        node("RegionFromText").run(vision, as_comfy_image(scene), "a red sphere", "")
