"""Train a classifier on scikit-learn's digits, export it to ONNX, and classify the test images on every device.

python examples/classify_digits.py
"""

import tempfile
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from ais_bench.session import MultiDeviceSession

images, labels = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(images.astype(np.float32) / 16, labels, random_state=0)
classifier = MLPClassifier((64,), max_iter=400, random_state=0).fit(train_x, train_y)

with tempfile.TemporaryDirectory() as folder:
    model = Path(folder, "digits.onnx")
    # zipmap=False: plain arrays as outputs, which is what a device can return
    model.write_bytes(to_onnx(classifier, train_x[:1], options={"zipmap": False}).SerializeToString())

    with MultiDeviceSession(model) as session:
        # One call: split along axis 0, spread over the devices, the last batch padded and trimmed, joined in order.
        predicted, probabilities = session.infer_batch([test_x], batch_size=32)
        print(session.report())

expected = classifier.predict(test_x)
print(f"accuracy on {len(test_y)} images: {(predicted == test_y).mean():.1%}")
print(f"same labels as scikit-learn: {np.array_equal(predicted, expected)}")
