"""A model's card: what the Hugging Face Hub shows of it."""

from __future__ import annotations

from piip import config, zoo

PIPELINES = {
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "classification": "image-classification",
}


def model_card(model: config.Model, licence: str | None = None) -> str:
    """A model card for the Hub: what the model is, what it tells apart, and how to use it."""
    entry = zoo.MODELS.get(model.name)
    branches = "\n".join(
        f"| {index} | {branch.model or branch.family} | {branch.size} | {branch.depth} | {branch.width} |"
        for index, branch in enumerate(model.backbone.branches)
    )
    lines = ["---", "library_name: piip", f"pipeline_tag: {PIPELINES[model.task]}"]
    lines += [f"license: {licence.lower()}"] if licence else []
    lines += ["tags: [piip, computer-vision]", "---", "", f"# {model.name}", ""]
    lines += [
        f"A PIIP model for {model.task} with {len(model.classes)} classes, written by the Python package `piip`.",
        "",
    ]
    lines += ["| branch | architecture | image | depth | width |", "|---|---|---|---|---|", branches, ""]
    lines += ["```python", "import piip", "", 'model = piip.PIIP.from_pretrained("this/repository")']
    lines += ['result = model.predict("image.jpg")', "```", "", f"Classes: {', '.join(model.classes)}.", ""]
    if entry is not None and entry.pretraining:
        known = ", ".join(f"{label} ({name})" for label, name in entry.licences.items() if label != "checkpoint")
        lines += [f"If its branches began as in the published model: {known}. Their licences apply.", ""]
    lines += ["Method: Parameter-Inverted Image Pyramid Networks, Zhu et al., NeurIPS 2024 (arXiv 2406.04330).", ""]
    return "\n".join(lines)
