"""The object as it grows, in a browser on this machine (viser); it shows the mesh of the results.

Building the mesh takes a tenth of the time at most, whatever the size of the field.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from formats import write_glb
from live import figures
from loop import Progress
from surface import NothingFormed, extract

HOST = "127.0.0.1"
"""This machine only: anybody who reaches the port could look on."""


class Viewer:
    """A page with the object, and below it the prompt, the step, score and losses."""

    def __init__(self, port: int, share: float = 0.1, pause: float = 1.0) -> None:
        import viser

        self.server = viser.ViserServer(host=HOST, port=port, label="alphaclip-gen", verbose=False)
        self.server.scene.set_up_direction("+y")
        self.words = self.server.gui.add_markdown("Starting ...")
        self.share, self.pause = share, pause
        self.due = 0.0

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server.get_port()}"

    def show(self, prompt: str, steps: int, now: Progress) -> None:
        """Nothing; updates the page if it is due, and always after the last step."""
        begin = time.monotonic()
        if begin < self.due and now.step < steps:
            return
        with suppress(NothingFormed):  # something may form later
            self.server.scene.add_glb("/object", write_glb(extract(now.volume())))
        lines = [f"**{name}** {value}" for name, value in figures(now).items()]
        self.words.content = "\n\n".join([f"### {prompt}", f"step {now.step} of {steps}", *lines])
        end = time.monotonic()
        self.due = end + max(self.pause, (end - begin) * (1 / self.share - 1))


@contextmanager
def open_viewer(port: int) -> Iterator[Viewer]:
    """A viewer, until the block ends."""
    viewer = Viewer(port)
    try:
        yield viewer
    finally:
        viewer.server.stop()
