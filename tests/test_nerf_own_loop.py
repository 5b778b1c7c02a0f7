"""The pieces of nerf/ in a loop of one's own."""

import own_loop
from alphaclip_gen.pictures import open_picture
from formats import read_glb


def test_it_ends_in_a_mesh_and_its_picture(tmp_path) -> None:
    own_loop.main("a red sphere", str(tmp_path / "own.png"), steps=3)
    assert open_picture(tmp_path / "own.png").width > 400
    assert len(read_glb((tmp_path / "own.glb").read_bytes()).faces) > 50
