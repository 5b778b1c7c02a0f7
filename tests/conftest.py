"""What several test files share as fixtures."""

import pytest


@pytest.fixture(scope="session")
def shared_pipe():
    from tiny_blip_diffusion import tiny_pipeline  # takes seconds that most files need not wait

    return tiny_pipeline()


@pytest.fixture
def pipe(shared_pipe):
    """The tiny pipeline, with the scheduler that published folders have."""
    from diffusers import PNDMScheduler

    shared_pipe.scheduler = PNDMScheduler(skip_prk_steps=True)
    return shared_pipe
