"""The example workflows, described once: this writes example_workflows/*.json and their pictures.

Usage: python tests/example_workflows.py [name ...]

Those that need no downloads and no minutes are run by the stand-in of the core, and their pictures
are their results; of text_to_3d_mini they are meshes of the evaluation, of the others their wires.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import comfy_core_nodes as core_nodes
import comfy_graph
import comfy_stub
import workflow_pictures

FOLDER = Path(__file__).resolve().parents[1] / "example_workflows"


# The workflows


def name_regions(graph):
    graph.note(
        "Point at a part of a picture and ask what it is. mini is a small Alpha-CLIP inside the "
        "pack: nothing is downloaded. Move the box, or wire a mask of your own to focus_mask.",
        (-420, 0),
    )
    (picture,) = graph.add("AlphaCLIPExamplePicture", (0, 0), picture="scene.png")
    (tower,) = graph.add("AlphaCLIPLoadVision", (0, 140))
    (box,) = graph.add(
        "AlphaCLIPRegionFromBox", (0, 300), image=picture, left=0.2, top=0.2, right=0.52,
        bottom=0.52,
    )  # fmt: skip
    texts = "a red sphere\na cyan cube\na yellow torus\na black snowman"
    best, table, _ = graph.add(
        "AlphaCLIPScoreRegion", (400, 0), clip_vision=tower, image=picture, focus_mask=box,
        texts=texts,
    )  # fmt: skip
    graph.add("PreviewAny", (780, 0), source=best)
    graph.add("PreviewAny", (780, 140), source=table)
    _, _, _, seen = graph.add(
        "AlphaCLIPEncodeRegion", (400, 330), clip_vision=tower, image=picture, focus_mask=box,
        geometry="pad",
    )  # fmt: skip
    graph.add("PreviewImage", (780, 330), images=seen)
    heat, _ = graph.add(
        "AlphaCLIPAttentionMap", (400, 680), clip_vision=tower, image=picture, focus_mask=box
    )
    graph.add("PreviewImage", (780, 680), images=heat)
    found, _ = graph.add(
        "AlphaCLIPRegionFromText", (0, 560), clip_vision=tower, image=picture, text="a red sphere",
        others=texts,
    )  # fmt: skip
    _, _, _, lit = graph.add(
        "AlphaCLIPEncodeRegion", (1160, 330), clip_vision=tower, image=picture, focus_mask=found,
        geometry="pad",
    )  # fmt: skip
    graph.add("PreviewImage", (1540, 330), images=lit)


def text_to_3d(graph):
    graph.note(
        "A mesh from a prompt, by mini: nothing is downloaded. mini knows colored solids: cone, "
        "cube, sphere, torus, mushroom, snowman ... For your own words, wire a CLIP with its text "
        "tower to guidance. The glb output holds the colors: on cores that have FILE_3D, wire it "
        "to Save 3D Model in place of mesh.",
        (-420, 0),
    )
    mesh, _, turntable = graph.add("AlphaCLIPTextTo3D", (0, 0), prompt="a yellow cone")
    graph.add("SaveGLB", (400, 0), mesh=mesh, filename_prefix="3d/alphaclip")
    graph.add("PreviewImage", (400, 160), images=turntable)


def subject(graph):
    graph.note(
        "New pictures of the subject that the region shows, by mini: nothing is downloaded. With a "
        "BLIP-Diffusion folder in models/diffusers, choose it as model and load your own picture.",
        (-420, 0),
    )
    (picture,) = graph.add("AlphaCLIPExamplePicture", (0, 0), picture="emoji.png")
    (box,) = graph.add(
        "AlphaCLIPRegionFromBox", (0, 140), image=picture, left=0.31, top=0.11, right=0.9,
        bottom=0.58,
    )  # fmt: skip
    (made,) = graph.add(
        "AlphaCLIPSubjectGenerate", (400, 0), image=picture, focus_mask=box, model="mini",
        prompt="a large {subject} on a yellow background", subject="thing", steps=4,
        guidance_scale=1.5, count=3,
    )  # fmt: skip
    graph.add("PreviewImage", (400, 420), images=picture)
    graph.add("PreviewImage", (780, 0), images=made)


def sampled(graph, model, positive, negative, vae, side, at):
    """The usual end of a graph."""
    x, y = at
    (empty,) = graph.add("EmptyLatentImage", (x, y + 370), width=side, height=side, batch_size=1)
    (latent,) = graph.add(
        "KSampler", at, model=model, positive=positive, negative=negative, latent_image=empty,
        seed=1, steps=30, cfg=6.0, sampler_name="dpmpp_2m", scheduler="karras",
    )  # fmt: skip
    (decoded,) = graph.add("VAEDecode", (x + 360, y), samples=latent, vae=vae)
    graph.add("SaveImage", (x + 360, y + 100), images=decoded, filename_prefix="alphaclip")


def focus_ipadapter(graph):
    graph.note(
        "IPAdapter looks at a part of the reference only. Paint the part with the mask editor of "
        "Load Image. Needs ComfyUI_IPAdapter_plus, its ViT-H in models/clip_vision and "
        "ip-adapter-plus_sd15 in models/ipadapter. The tower is focused without training. Where in "
        "the result something appears is said by attn_mask, not here.",
        (-420, 0),
        (380, 190),
    )
    reference, mask = graph.add("LoadImage", (0, 0), image="example.png")
    (tower,) = graph.add(
        "CLIPVisionLoader", (0, 340), clip_name="CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
    )
    (focused,) = graph.add(
        "AlphaCLIPFocus", (400, 200), clip_vision=tower, focus_mask=mask, method="training-free"
    )
    (adapter,) = graph.add(
        "IPAdapterModelLoader", (400, 0), ipadapter_file="ip-adapter-plus_sd15.safetensors"
    )
    model, clip, vae = graph.add(
        "CheckpointLoaderSimple", (0, 480), ckpt_name="v1-5-pruned-emaonly-fp16.safetensors"
    )
    (adapted,) = graph.add(
        "IPAdapterAdvanced", (780, 0), model=model, ipadapter=adapter, image=reference,
        clip_vision=focused, weight=0.8, weight_type="linear", combine_embeds="concat",
        embeds_scaling="V only",
    )  # fmt: skip
    (positive,) = graph.add("CLIPTextEncode", (400, 460), clip=clip, text="a photo, best quality")
    (negative,) = graph.add("CLIPTextEncode", (400, 680), clip=clip, text="blurry, low quality")
    sampled(graph, adapted, positive, negative, vae, 512, (1160, 0))


def focus_unclip(graph):
    graph.note(
        "unCLIP makes variations of a part of the reference. Paint the part with the mask editor "
        "of Load Image. Needs sd21-unclip-l.ckpt in models/checkpoints and an Alpha-CLIP L/14 "
        "(research only, CC BY-NC 4.0) in models/clip_vision. Without it, wire the checkpoint's "
        "own CLIP_VISION to Focus CLIP Vision: it is focused without training.",
        (-420, 0),
        (380, 190),
    )
    reference, mask = graph.add("LoadImage", (0, 0), image="example.png")
    (tower,) = graph.add("AlphaCLIPLoadVision", (0, 340), model="clip_l14_grit20m_fultune_2xe.pth")
    (focused,) = graph.add("AlphaCLIPFocus", (400, 200), clip_vision=tower, focus_mask=mask)
    (output,) = graph.add(
        "CLIPVisionEncode", (780, 200), clip_vision=focused, image=reference, crop="center"
    )
    model, clip, vae, _ = graph.add(
        "unCLIPCheckpointLoader", (0, 500), ckpt_name="sd21-unclip-l.ckpt"
    )
    (text,) = graph.add("CLIPTextEncode", (400, 460), clip=clip, text="")
    (positive,) = graph.add(
        "unCLIPConditioning", (780, 360), conditioning=text, clip_vision_output=output,
        strength=1.0, noise_augmentation=0.05,
    )  # fmt: skip
    (negative,) = graph.add("CLIPTextEncode", (400, 680), clip=clip, text="blurry, low quality")
    sampled(graph, model, positive, negative, vae, 768, (1160, 0))


WORKFLOWS: dict[str, Callable] = {
    "name_regions_mini": name_regions,
    "text_to_3d_mini": text_to_3d,
    "subject_mini": subject,
    "focus_ipadapter": focus_ipadapter,
    "focus_unclip": focus_unclip,
}
RESULTS = {
    "name_regions_mini": ('the region: "a cyan cube"', "where mini looks", 'found: "a red sphere"'),
    "subject_mini": ("the picture", "the bus,", "on a yellow", "background"),
}
"""Workflows whose pictures are their results, and the captions of these."""
MESHES = {
    "a yellow cone": (3, 0), "a cyan mushroom": (11, 0), "a purple torus": (4, 0),
    "a brown snowman": (10, 0), "a pink disk": (6, 1), "a cyan pyramid": (5, 2),
    "an orange cylinder": (2, 1), "a red capsule": (9, 1),
}  # fmt: skip
WIRES = {
    "focus_ipadapter": (
        "LoadImage", "CLIPVisionLoader", "AlphaCLIPFocus", "IPAdapterAdvanced", "KSampler",
    ),
    "focus_unclip": (
        "LoadImage", "AlphaCLIPLoadVision", "AlphaCLIPFocus", "CLIPVisionEncode",
        "unCLIPConditioning",
    ),
}  # fmt: skip
"""What the pictures of the others show."""
NAMES = {
    "LoadImage": "Load Image",
    "CLIPVisionLoader": "Load CLIP Vision",
    "IPAdapterAdvanced": "IPAdapter Advanced",
    "CLIPVisionEncode": "CLIP Vision Encode",
    "PreviewImage": "Preview Image",
    "AlphaCLIPExamplePicture": "Example Picture",
    "AlphaCLIPLoadVision": "Load Alpha-CLIP",
    "AlphaCLIPFocus": "Focus CLIP Vision",
    "AlphaCLIPRegionFromBox": "Region from Box",
    "AlphaCLIPSubjectGenerate": "Subject Generate",
}


def declarations(classes: dict[str, type]) -> dict[str, dict]:
    """Of the core's nodes and of ours; a file that is not here is as good as any."""
    ours = {name: comfy_graph.declare(kind) for name, kind in classes.items()}
    options = ours["AlphaCLIPLoadVision"]["input"]["required"]
    options["model"] = (comfy_graph.ANY_FILE, {**options["model"][1], "default": "mini"})
    return {**core_nodes.DECLARATIONS, **ours}


def build(name: str, declared: dict[str, dict]) -> dict:
    """The workflow of a name."""
    graph = comfy_graph.Graph(declared)
    WORKFLOWS[name](graph)
    return graph.workflow()


def as_text(workflow: dict) -> str:
    return json.dumps(workflow, indent=1) + "\n"


# Their pictures


def shown(prompt: dict, results: dict) -> list:
    """The IMAGEs that the workflow previews, in the order of the graph."""
    return [
        results[number][0]
        for number, node in prompt.items()
        if node["class_type"] == "PreviewImage"
    ]


def write(names: list[str]) -> None:
    """Nothing; the files are in example_workflows/ then."""
    from pytest import MonkeyPatch

    from alphaclip_gen.comfyui import NODE_CLASS_MAPPINGS

    FOLDER.mkdir(exist_ok=True)
    with MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        comfy_stub.install(patch, Path(folder))
        classes = {**core_nodes.CLASSES, **NODE_CLASS_MAPPINGS}
        declared = declarations(NODE_CLASS_MAPPINGS)
        for name in names:
            workflow = build(name, declared)
            (FOLDER / f"{name}.json").write_text(as_text(workflow), encoding="utf-8")
            if name == "text_to_3d_mini":
                picture = workflow_pictures.of_meshes(MESHES)
            elif name in RESULTS:
                prompt = comfy_graph.as_prompt(workflow, declared)
                images = shown(prompt, comfy_graph.execute(prompt, classes))
                picture = workflow_pictures.of_results(images, RESULTS[name])
            else:
                picture = workflow_pictures.of_wires(workflow, declared, WIRES[name], NAMES)
            picture.save(FOLDER / f"{name}.jpg", quality=88)
            print(f"{name}: {len(workflow['nodes'])} nodes")


if __name__ == "__main__":
    write(sys.argv[1:] or list(WORKFLOWS))
