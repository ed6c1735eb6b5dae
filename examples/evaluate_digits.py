"""Score a classifier of scikit-learn's digits: a run that is interrupted and resumed, and one on eight emulated NPUs.

python examples/evaluate_digits.py [folder]

The run folders stay in the folder (digits-runs): open report.html in a browser, or try `ais-bench compare` on them.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from ais_bench import emulator
from ais_bench.evaluate import TopK, evaluate, score

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "digits-runs")
if folder.exists():
    sys.exit(f"{folder} is there already; name another folder for the runs")
folder.mkdir()
images, labels = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(images.astype(np.float32) / 16, labels, random_state=0)
classifier = MLPClassifier((64,), max_iter=400, random_state=0).fit(train_x, train_y)
model = folder / "digits.onnx"
# zipmap=False: outputs are plain arrays. A batch of 16: evaluate joins samples, and fills the last batch
options = {"zipmap": False}
model.write_bytes(to_onnx(classifier, np.zeros((16, 64), np.float32), options=options).SerializeToString())


class Digits:
    """A data set like those of torch: samples are read by index, in the workers."""

    def __len__(self) -> int:
        return len(test_x)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], int]:
        return test_x[index], int(test_y[index])


def probabilities(outputs: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the second output of a sample, the probabilities; the first one is the label."""
    return outputs[1]


def f1(outputs: list[npt.NDArray[Any]], targets: list[int]) -> dict[str, float]:
    """Return scikit-learn's F1 score. `final` may be any function of all outputs and all targets."""
    return {"f1": f1_score(targets, [int(one.argmax()) for one in outputs], average="macro")}


settings: dict[str, Any] = {"postprocess": probabilities, "metrics": [TopK(1), TopK(3)], "final": f1, "batch_size": 16}
whole = evaluate(model, Digits(), output=folder / "whole", **settings)
print(whole)

# Cut the file as if the process had been killed while it wrote a line.
cut = folder / "cut"
evaluate(model, Digits(), output=cut, **settings)
records = (cut / "records.jsonl").read_bytes()
(cut / "records.jsonl").write_bytes(records[: len(records) // 3])
resumed = evaluate(model, Digits(), output=cut, devices=[0], resume=True, **settings)
print(f"resumed after {resumed.run['turns'][-1]['samples_before']} samples: same score: {resumed.metrics == whole.metrics}")
print(f"scored again without inference: {score(cut, TopK(1)).metrics}")

compiled = emulator.pack(model, folder / "digits.om")
with emulator.npus(8, exec_ms=5):
    npus = evaluate(compiled, Digits(), output=folder / "npus", **settings)
print(f"eight emulated NPUs: {npus.report['throughput_per_s']:.0f} samples/s, same score: {npus.metrics == whole.metrics}")
