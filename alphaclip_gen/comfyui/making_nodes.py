"""Nodes that make something: pictures of a subject, and objects from words or from a picture."""

from typing import Any

from . import widgets as w

FOLDER_TOOLTIP = "A folder of models/diffusers with a model_index.json"
MESH_OUTPUTS = ("MESH", "FILE_3D", "IMAGE")
MESH_NAMES = ("mesh", "glb", "turntable")
MESH_TOOLTIPS = (
    "The surface, without colors, for Save 3D Model and others.",
    "The object with its colors, for Save 3D Model and Preview 3D; None on a core without FILE_3D.",
    "Pictures all around the object.",
)


class SubjectGenerate:
    """Pictures of the subject that a region shows."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = (
        "BLIP-Diffusion with regions: pictures of the subject that the region shows, in a new "
        "scene. Needs diffusers."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The pictures.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from .pipeline_folders import BLIP_DIFFUSION, names

        return {
            "required": {
                "image": w.image("The reference; several are views of one subject."),
                "focus_mask": w.focus_mask(),
                "model": w.choice(
                    ["mini", *names(BLIP_DIFFUSION)],
                    f"mini, or BLIP-Diffusion: {FOLDER_TOOLTIP}.",
                ),
                "prompt": w.text(
                    "on a beach",
                    "What the subject does or where it is. {subject} stands for its name; without "
                    "it, 'a <name>' is put in front.",
                    True,
                ),
                "subject": w.text("dog", "Name of what the region shows."),
                "target": w.text("", "Name of what to generate; empty: the same."),
                "negative_prompt": w.text("", "What to stay away from.", True),
                "geometry": w.geometry(w.AS_TRAINED),
                "steps": w.whole(50, 1, 1000, "Of the diffusion."),
                "guidance_scale": w.number(7.5, 0.0, 100.0, 0.1, "How closely to follow."),
                "width": w.whole(0, 0, 4096, "Of the result; 0: as trained.", 8),
                "height": w.whole(0, 0, 4096, "Of the result; 0: as trained.", 8),
                "count": w.whole(1, 1, 64, "Pictures at once."),
                "seed": w.seed(),
                "strength": w.strength(),
                "invert": w.invert(),
            },
            "hidden": w.NODE_ID,
        }

    def run(
        self,
        image: Any,
        focus_mask: Any,
        model: str,
        prompt: str,
        subject: str,
        target: str,
        strength: float,
        invert: bool,
        node: str | None = None,
        **settings: Any,
    ) -> tuple:
        from .host import warnings_on
        from .masks import as_comfy_image, reference
        from .subject import generate

        with warnings_on(node):
            pictures, alpha = reference(image, focus_mask, strength, invert)
            made = generate(model, pictures, alpha, prompt, subject, target, **settings)
        return (as_comfy_image(made),)


class TextTo3D:
    """An object from a prompt."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = (
        "An object from a prompt, guided by a tower whose alpha is the object's own opacity. With "
        "mini nothing is downloaded; it knows colored solids ('a red cone')."
    )
    RETURN_TYPES = MESH_OUTPUTS
    RETURN_NAMES = MESH_NAMES
    OUTPUT_TOOLTIPS = MESH_TOOLTIPS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "prompt": w.text("a yellow cone", "What to make; may be empty if there are parts."),
                "parts": w.text(
                    "",
                    "A text and the shape where it holds, one part a line: a red cone @ top. "
                    "Shapes: top, bottom, left, right, front, back; box x0 y0 z0 x1 y1 z1; ball x "
                    "y z radius; half x y z offset; a mesh file of the input folder.",
                    True,
                ),
                "steps": w.whole(
                    200, 1, 20000, "More steps, more shape; 100 are enough for one object."
                ),
                "views": w.whole(4, 1, 64, "Pictures a step; 2 are enough for one object."),
                "resolution": w.whole(
                    *(64, 16, 512),
                    "Side of these pictures in pixels; they are smaller at first without parts.",
                    8,
                ),
                "negatives": w.text("", "What it should not be, one text a line.", True),
                "frames": w.whole(24, 4, 240, "Pictures of the turntable."),
                "size": w.whole(256, 32, 1024, "Side of the turntable's pictures.", 8),
                "seed": w.seed(),
            },
            "optional": {
                "guidance": w.clip_vision_with_texts(),
            },
            "hidden": w.NODE_ID,
        }

    def run(
        self, prompt: str, guidance: Any = None, node: str | None = None, **settings: Any
    ) -> tuple:
        from .host import glb_file, warnings_on
        from .masks import as_comfy_image
        from .meshes import as_comfy_mesh
        from .text_to_3d import text_to_3d
        from .vision import encoder_of

        with warnings_on(node):
            encoder = None if guidance is None else encoder_of(guidance, "guidance")
            made = text_to_3d(prompt, encoder, **settings)
        return as_comfy_mesh(made.mesh), glb_file(made.glb), as_comfy_image(made.frames)


class ImageTo3D:
    """The object that a region shows."""

    CATEGORY = w.CATEGORY
    FUNCTION = "run"
    DESCRIPTION = "The object that the region of a picture shows, by Shap-E. Needs diffusers."
    RETURN_TYPES = MESH_OUTPUTS
    RETURN_NAMES = MESH_NAMES
    OUTPUT_TOOLTIPS = MESH_TOOLTIPS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from .pipeline_folders import SHAP_E, names

        return {
            "required": {
                "image": w.image("The picture; of several, the first."),
                "focus_mask": w.focus_mask(),
                "engine": w.choice(["Shap-E"], "What makes the object."),
                "model": w.choice(names(SHAP_E) or [""], f"{SHAP_E.source}: {FOLDER_TOOLTIP}."),
                "steps": w.whole(64, 1, 1000, "Of the diffusion."),
                "guidance_scale": w.number(3.0, 0.0, 100.0, 0.1, "How closely to follow."),
                "frame_size": w.whole(128, 32, 512, "Side of the turntable's pictures.", 32),
                "seed": w.seed(),
                "strength": w.strength(),
                "invert": w.invert(),
            },
            "optional": {
                "clip_vision": w.wire(
                    "CLIP_VISION",
                    "An Alpha-CLIP L/14 from Load Alpha-CLIP Vision in place of the pipeline's own "
                    "tower, which else is focused without training.",
                ),
            },
            "hidden": w.NODE_ID,
        }

    def run(
        self,
        image: Any,
        focus_mask: Any,
        engine: str,
        model: str,
        strength: float,
        invert: bool,
        clip_vision: Any = None,
        node: str | None = None,
        **settings: Any,
    ) -> tuple:
        from .host import glb_file, warnings_on
        from .image_to_3d import image_to_3d, own_tower
        from .masks import as_comfy_image, reference
        from .meshes import as_comfy_mesh, as_glb

        with warnings_on(node):
            tower = None if clip_vision is None else own_tower(clip_vision)
            mask = focus_mask if focus_mask.ndim == 2 else focus_mask[:1]
            picture, alpha = reference(image[:1], mask, strength, invert)
            made = image_to_3d(model, picture, alpha, tower, **settings)
        glb = glb_file(as_glb(made.mesh))
        return as_comfy_mesh(made.mesh), glb, as_comfy_image(made.frames)


NODES: dict[str, tuple[type, str]] = {
    "AlphaCLIPSubjectGenerate": (SubjectGenerate, "Subject Generate"),
    "AlphaCLIPTextTo3D": (TextTo3D, "Text to 3D"),
    "AlphaCLIPImageTo3D": (ImageTo3D, "Image to 3D"),
}
