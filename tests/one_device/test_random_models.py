"""Random models and feeds: the result is that of `onnxruntime`, or an error; if the API accepts more, its table decides.

AIS_BENCH_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from ais_bench.errors import FeedError, FeedWarning, InferenceError
from ais_bench.session import InferSession
from support import MORE
from support.random_models import Case, Reference, a_case, bits


def ours(case: Case) -> tuple[list[Any] | Exception, list[str]]:
    feeds: Any = case.feeds
    with (
        InferSession(0, case.model.SerializeToString(), threads=1) as session,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        if case.form == "mapping":
            feeds = dict(zip(case.names, feeds, strict=True))
        elif case.form == "tuple":
            feeds = tuple(feeds)
        try:
            if case.form == "pipeline":
                outputs = session.infer_pipeline([feeds, feeds], "dymshape")[1]
            elif case.form == "device":
                tensors = session.infer(feeds, "dymshape", out_array=False)
                session.convert_tensors_to_host(tensors)
                outputs = session.convert_tensors_to_arrays(tensors)
            else:
                outputs = session.infer(feeds, "dymshape")
        except (FeedError, InferenceError) as error:
            return error, []
    return [bits(output) for output in outputs], [str(one.message) for one in caught if one.category is FeedWarning]


@pytest.mark.random
@pytest.mark.parametrize("part", range(4))
def test_random_models_and_feeds(part: int) -> None:
    @settings(
        max_examples=150 * MORE,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @seed(part)
    @given(a_case())
    def check(case: Case) -> None:
        wanted = Reference(case.model, case.names, case.declared).wanted(case.feeds)
        outcome, said = ours(case)
        if wanted.outputs is None:
            assert isinstance(outcome, FeedError if wanted.refused else Exception), outcome
            return
        assert outcome == wanted.outputs, outcome
        if wanted.taken is None:
            assert said == []
            return
        for name, (dtype, _), feed, (_, measured) in zip(case.names, case.declared, case.feeds, wanted.taken, strict=True):
            kind = feed.dtype.newbyteorder("=")
            raw = feed.ndim == 1 and kind in (np.uint8, np.int8) and kind.itemsize != dtype.itemsize
            texts = [text for text in said if text.startswith(f"input '{name}' ")]
            assert any("nothing is converted" in text for text in texts) == (kind != dtype and not raw), texts
            assert any("by its size" in text for text in texts) == measured, texts

    check()
