"""Recognise a few hundred lines of text with PP-OCRv4, on every device of this machine, and score the answers.

    python examples/evaluate_ocr.py [number of lines]

The model comes from the rapidocr-onnxruntime wheel (`make demo` installs it). The lines are rendered here,
in varying widths, so the true text is known. No main guard is needed: workers never import this file.
"""

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image, ImageDraw, ImageFont

from ais_bench.evaluate import Collect, EditDistance, Result, evaluate

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 300
WORDS = "river stone market winter paper silver garden seven orange bridge letter number planet window ocean".split()  # noqa: SIM905
HEIGHT = 48  # the height the model was trained on; the width is free

spec = importlib.util.find_spec("rapidocr_onnxruntime")
if spec is None or not spec.submodule_search_locations:
    sys.exit("the model is missing; get it with: pip install --no-deps --ignore-requires-python rapidocr-onnxruntime==1.4.4")
MODEL = Path(spec.submodule_search_locations[0], "models", "ch_PP-OCRv4_rec_infer.onnx")
METADATA = {entry.key: entry.value for entry in onnx.load(MODEL).metadata_props}
ALPHABET = ["", *METADATA["character"].split("\n"), " "]


def make_line(rng: random.Random) -> str:
    words = [*rng.sample(WORDS, rng.randint(1, 5)), str(rng.randint(10, 9999))]
    rng.shuffle(words)
    return " ".join(words)


def render(text: str) -> npt.NDArray[np.float32]:
    """Return the line in the model's format: float32 (1, 3, 48, width) in [-1, 1]."""
    font = ImageFont.load_default(34)
    width = int(font.getlength(text)) + 24
    image = Image.new("RGB", (width, HEIGHT), "white")
    ImageDraw.Draw(image).text((12, HEIGHT // 2), text, font=font, fill="black", anchor="lm")
    pixels: npt.NDArray[np.float32] = np.asarray(image, np.float32).transpose(2, 0, 1)[None]
    return pixels / 127.5 - 1.0


def decode(outputs: list[npt.NDArray[Any]]) -> str:
    """Return the text by greedy CTC: the best symbol of every step, without repeats and blanks (symbol 0)."""
    best = outputs[0][0].argmax(axis=-1)
    kept = best[(best != 0) & (best != np.concatenate(([0], best[:-1])))]
    return "".join(ALPHABET[index] for index in kept).strip()


class Lines:
    """A data set like those of torch: samples are read by index, in the workers. A sample is (image, true text)."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], str]:
        return render(self.texts[index]), self.texts[index]


rng = random.Random(0)
truth = [make_line(rng) for _ in range(COUNT)]


def read_lines(devices: list[int] | None = None) -> Result:
    """Run all lines through the model, with one computing thread for each device, so a single device has the same share."""
    metrics = [EditDistance(), Collect()]
    return evaluate(MODEL, Lines(truth), postprocess=decode, metrics=metrics, mode="dymshape", threads=1, devices=devices)


print(f"recognising {COUNT} lines of text on all devices, then on one", flush=True)
every = read_lines()
devices = list(every.report["devices"])
alone = read_lines(devices=[0])

texts = every.metrics.pop("collect")["outputs"]
wrong = [(want, got) for want, got in zip(truth, texts, strict=True) if want != got]
same = texts == alone.metrics["collect"]["outputs"]
print(every)
for want, got in wrong[:5]:
    print(f"misread: {want!r} as {got!r}")
print(f"accuracy: {COUNT - len(wrong)} of {COUNT} lines, {1 - len(wrong) / COUNT:.1%}")
print(f"answers equal to one device alone: {same}")
seconds, alone_seconds = every.report["wall_s"], alone.report["wall_s"]
print(f"{len(devices)} devices: {seconds:.2f} s; one alone: {alone_seconds:.2f} s; {alone_seconds / seconds:.2f} times as fast")
if not same:
    sys.exit(1)
