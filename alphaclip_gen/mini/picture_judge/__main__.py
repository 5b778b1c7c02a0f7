"""Trains the judge of pictures, and goes on where an interrupted training stopped.

Usage: python -m alphaclip_gen.mini.picture_judge --work runs/picture-judge
"""

import json
import logging

import tyro

from .training import PictureJudgeTraining, run

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info("%s", json.dumps(run(tyro.cli(PictureJudgeTraining))["held_out"], indent=1))
