"""Trains the judge, and goes on where an interrupted training stopped.

Usage: python -m alphaclip_gen.mini.judge --work runs/judge
"""

import json
import logging

import tyro

from .training import JudgeTraining, run

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info("%s", json.dumps(run(tyro.cli(JudgeTraining))["held_out"], indent=1))
