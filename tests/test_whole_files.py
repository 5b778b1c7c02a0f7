"""Files that appear whole or not at all."""

import json

import pytest

from alphaclip_gen.whole_files import whole_file, write_bytes, write_json, write_text


def test_a_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "new" / "page.md"
    with whole_file(path) as part:
        part.write_text("half")
        assert not path.exists() and part.parent == path.parent
    assert path.read_text() == "half" and list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "page.md"
    write_text(path, "before")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_bytes_text_and_json_in_utf_8(tmp_path):
    write_bytes(tmp_path / "a.bin", b"\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\xff"
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "a.bin", "not bytes")
    assert (tmp_path / "a.bin").read_bytes() == b"\xff"
    write_json(tmp_path / "a.json", {"é": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"é": [1, 2]} and "é" in text
    write_text(tmp_path / "a.md", "é\n")
    assert (tmp_path / "a.md").read_bytes() == "é\n".encode()
