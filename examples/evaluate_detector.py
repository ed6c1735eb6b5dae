"""Find the lines of text on pages with PP-OCRv4's detector, on every device, and score the boxes of all pages together.

    python examples/evaluate_detector.py [number of pages]

The model comes from the rapidocr-onnxruntime wheel (`make demo` installs it). The pages are drawn here, so the true boxes are
known. `final=` gets the boxes of all pages and the true ones; pycocotools and similar libraries are used in the same way.
"""

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ais_bench.evaluate import evaluate

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 40
WORDS = "river stone market winter paper silver garden seven orange bridge letter number planet window ocean".split()  # noqa: SIM905
SIDE = 320
Box = tuple[float, float, float, float]  # left, top, right, bottom

spec = importlib.util.find_spec("rapidocr_onnxruntime")
if spec is None or not spec.submodule_search_locations:
    sys.exit("the model is missing; get it with: pip install --no-deps --ignore-requires-python rapidocr-onnxruntime==1.4.4")
MODEL = Path(spec.submodule_search_locations[0], "models", "ch_PP-OCRv4_det_infer.onnx")


class Pages:
    """Pages of one to five lines, drawn in the workers. A sample is (image, boxes)."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Image.Image, list[Box]]:
        rng = random.Random(index)
        font = ImageFont.load_default(18)
        image = Image.new("RGB", (SIDE, SIDE), "white")
        draw = ImageDraw.Draw(image)
        boxes = []
        for line in range(rng.randint(1, 5)):
            text = " ".join(rng.sample(WORDS, rng.randint(1, 3)))
            place = (rng.randint(8, 60), 16 + 58 * line + rng.randint(0, 16))
            draw.text(place, text, font=font, fill="black")
            boxes.append(draw.textbbox(place, text, font=font))
        return image, boxes


def normalised(sample: tuple[Image.Image, list[Box]]) -> npt.NDArray[np.float32]:
    """Return the picture in the model's format: float32 (1, 3, height, width)."""
    pixels = np.asarray(sample[0], np.float32) / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    picture: npt.NDArray[np.float32] = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    return picture


def true_boxes(sample: tuple[Image.Image, list[Box]]) -> list[Box]:
    return sample[1]


def boxes_of(outputs: list[npt.NDArray[Any]]) -> list[Box]:
    """Return the boxes of a page: connected areas of the probability map, enlarged, because the model marks only their core."""
    text = outputs[0][0, 0] > 0.3
    labels = np.where(text, np.arange(1, text.size + 1).reshape(text.shape), 0)
    while True:  # each pixel takes the highest number beside it, until none changes
        wide = np.pad(labels, 1)
        around = [wide[1 + y : wide.shape[0] - 1 + y, 1 + x : wide.shape[1] - 1 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
        larger = np.where(text, np.maximum.reduce(around), 0)
        if (larger == labels).all():
            break
        labels = larger
    found = []
    for label in np.unique(labels[text]):
        rows, columns = np.nonzero(labels == label)
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        more = 1.6 * (right - left) * (bottom - top) / (2 * (right - left + bottom - top))
        found.append((float(left - more), float(top - more), float(right + more), float(bottom + more)))
    return found


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def precision_and_recall(outputs: list[list[Box]], targets: list[list[Box]]) -> dict[str, float]:
    """Return both for all pages. A box is right if it overlaps an unused true box by more than half."""
    right = found = wanted = 0
    for boxes, true in zip(outputs, targets, strict=True):
        left = list(true)
        for box in boxes:
            best = max(left, key=lambda other: overlap(box, other), default=None)
            if best is not None and overlap(box, best) > 0.5:
                left.remove(best)
                right += 1
        found, wanted = found + len(boxes), wanted + len(true)
    return {"precision": right / max(found, 1), "recall": right / wanted}


result = evaluate(
    MODEL,
    Pages(),
    preprocess=normalised,
    target=true_boxes,
    postprocess=boxes_of,
    final=precision_and_recall,
    mode="dymshape",
)
print(result)
if min(result.metrics["precision"], result.metrics["recall"]) < 0.5:
    sys.exit(1)
