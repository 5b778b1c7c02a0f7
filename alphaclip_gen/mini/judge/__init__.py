"""The judge: a small convolutional classifier that names a solid and its color from pictures.

It never guides an optimisation and never sees one's output. It learns from `splat` renders of
`solid_meshes` under cameras, lights and backgrounds of its own, so that its word on an optimised
mesh is independent of the model that made the mesh.

    judge = Judge.from_pretrained()
    mesh = trimesh.load_mesh("mesh.glb", skip_materials=True)  # a material would hide the colors
    verdict = judge_mesh(judge, mesh, color_space="linear")
    verdict.caption  # "a red cone"
"""

from .model import SIZE, WEIGHTS, Judge, Verdict, judge_mesh, turntable

__all__ = ["SIZE", "WEIGHTS", "Judge", "Verdict", "judge_mesh", "turntable"]
