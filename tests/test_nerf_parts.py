"""Shapes by hand: distances, memberships, sizes; how parts are written, and what can be wrong."""

import pytest
import torch
import trimesh

from parts import (
    EDGE,
    Part,
    ball,
    bounds,
    box,
    check_mirror,
    half_space,
    parse_part,
    parse_shape,
    share_of_ball,
)


def at(*points: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float)


# Shapes


@pytest.mark.parametrize(
    ("side", "inside"),
    [
        ("top", (0.0, 0.5, 0.0)),
        ("bottom", (0.0, -0.5, 0.0)),
        ("left", (-0.5, 0.0, 0.0)),
        ("right", (0.5, 0.0, 0.0)),
        ("front", (0.0, 0.0, 0.5)),
        ("back", (0.0, 0.0, -0.5)),
    ],
)
def test_sides_are_those_seen_from_the_front(side, inside) -> None:
    x, y, z = inside
    member = parse_shape(side, "part")(at(inside, (0.0, 0.0, 0.0), (-x, -y, -z)))
    assert member.tolist() == [1.0, 0.5, 0.0]


def test_a_side_may_begin_farther_out() -> None:
    member = parse_shape("left 0.4", "part")(at((-0.5, 0, 0), (-0.4, 0, 0), (-0.3, 0, 0)))
    assert member.tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert parse_shape("top -0.2", "part")(at((0, -0.1, 0)))[0] == 1


def test_membership_falls_linearly_across_the_border() -> None:
    shape = parse_shape("ball 0 0 0 0.5", "part")
    radii = torch.tensor([0.5 - EDGE, 0.5 - EDGE / 4, 0.5, 0.5 + EDGE / 4, 0.5 + EDGE])
    member = shape(radii[:, None] * at((0.0, 1.0, 0.0)))
    assert member.tolist() == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0], abs=1e-5)


def test_distances_by_hand() -> None:
    points = at((0, 0, 0), (2, 0, 0), (0, 1, 1))
    assert ball((0.0, 0.0, 0.0), 0.5)(points).tolist() == pytest.approx([-0.5, 1.5, 2**0.5 - 0.5])
    around = box((-1.0, -0.5, -0.5), (1.0, 0.5, 0.5))
    assert around(points).tolist() == pytest.approx([-0.5, 1.0, 0.5**0.5])
    slanted = half_space((3.0, 4.0, 0.0), 0.5)  # of any length
    assert slanted(points).tolist() == pytest.approx([0.5, 0.5 - 1.2, 0.5 - 0.8])


def test_numbers_are_separated_by_spaces_or_commas() -> None:
    first, second = (parse_shape(text, "part") for text in ("ball 0 .5 0 .3", "ball 0,.5, 0,.3"))
    places = torch.rand(20, 3)
    assert torch.equal(first(places), second(places))


def test_shares_and_bounds() -> None:
    half = parse_shape("right", "part")
    assert share_of_ball(half) == pytest.approx(0.5, abs=0.01)
    assert share_of_ball(parse_shape("ball 0 0 0 0.5", "part")) == pytest.approx(1 / 8, abs=0.01)
    low, high = bounds(half, 0.8)
    assert low.tolist() == pytest.approx([0.0, -0.8, -0.8], abs=0.05)
    assert high.tolist() == pytest.approx([0.8, 0.8, 0.8], abs=0.05)
    low, high = bounds(
        parse_shape("ball 0.2 0 0 0.01", "part"), 0.8
    )  # between the lattice's places
    assert torch.allclose(low, high) and low[0] == pytest.approx(0.2, abs=0.03)


def test_a_mesh_file_is_a_shape(tmp_path) -> None:
    path = tmp_path / "my box.ply"
    trimesh.creation.box(bounds=[[-0.5, 0.0, -0.5], [0.5, 0.5, 0.5]]).export(path)
    member = parse_shape(str(path), "part")(at((0, 0.25, 0), (0.4, 0.4, 0.4), (0, -0.1, 0)))
    assert member.tolist() == pytest.approx([1, 1, 0])


# Parts


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a red cone @ top", Part("a red cone", "top")),
        ("a hat@ball 0 1 0 .3:weight=2", Part("a hat", "ball 0 1 0 .3", 2.0)),
        (
            "a hat @ top:avoid=a cap:weight=0.5:avoid=a bow",
            Part("a hat", "top", 0.5, ("a cap", "a bow")),
        ),
        (r"a hat @ C:\shapes\hat@2.ply", Part("a hat", r"C:\shapes\hat@2.ply")),
    ],
)
def test_parts_by_their_writing(text, part) -> None:
    assert parse_part(text) == part


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'has no shape behind an @; expected "TEXT @ SHAPE"'),
        ("a red cone", "has no shape behind an @"),
        ("a red cone @ ", "has no shape behind an @"),
        (" @ top", "has no text before the @"),
        ("a cone @ top:weight=0", "has weight '0'; expected a finite number above 0"),
        ("a cone @ top:weight=-1", "has weight '-1'"),
        ("a cone @ top:weight=nan", "has weight 'nan'"),
        ("a cone @ top:weight=inf", "has weight 'inf'"),
        ("a cone @ top:weight=much", "has weight 'much'"),
        ("a cone @ top:avoid=", "has avoid=''; expected weight=NUMBER or avoid=TEXT"),
        ("a cone @ top:size=2", "has size='2'; expected weight=NUMBER or avoid=TEXT"),
    ],
)
def test_wrong_parts_are_explained(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        parse_part(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topp", "part has the shape 'topp'; expected top, bottom, left, right, front or back"),
        ("cube 0 0 0 1", "part has the shape 'cube 0 0 0 1'; expected top"),
        ("ball 0 0 0", "expected 4 finite numbers behind 'ball'"),
        ("ball 0 0 zero 1", "expected 4 finite numbers"),
        ("box 0 0 0 1 1 nan", "expected 6 finite numbers"),
        ("top 0.1 0.2", "expected at most 1 finite numbers behind 'top'"),
        ("ball 0 0 0 -1", "of radius -1; expected more than 0"),
        ("box 0 0 0 1 -1 1", "of size -1; expected more than 0, the lower corner first"),
        ("half 0 0 0 0.5", "of direction 0; expected more than 0"),
        ("top 1.5", "part 'top 1.5' lies outside of the ball of radius 1"),
        ("ball 2 0 0 0.5", "lies outside of the ball"),
        ("box 0.8 0.8 0.8 1 1 1", "lies outside of the ball"),
    ],
)
def test_wrong_shapes_are_explained(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        parse_shape(text, "part")


def test_a_missing_mesh_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"part 'no-such.glb' not found; expected a mesh"):
        parse_shape("no-such.glb", "part")


@pytest.mark.parametrize(
    ("shape", "mirror", "wanted"),
    [
        ("left", "xz", "--field.mirror z"),
        ("left", "x", "--field.mirror none"),
        ("front", "xz", "--field.mirror x"),
        ("ball 0.5 0 0.5 0.2", "xz", "--field.mirror none"),
    ],
)
def test_a_shape_that_the_field_would_mirror_is_named(shape, mirror, wanted) -> None:
    with pytest.raises(ValueError, match=f"part '{shape}' is not the same .* expected {wanted}"):
        check_mirror([("part", parse_shape(shape, "part"))], mirror)


def test_shapes_as_symmetric_as_the_field_are_fine() -> None:
    given = [("top", "xz"), ("left", "z"), ("front", "x"), ("ball 0.5 0 0.5 0.2", "none")]
    for shape, mirror in given:
        check_mirror([("part", parse_shape(shape, "part"))], mirror)
