"""The packing tool: ATC's options, output shapes, and refusals. No emulator is loaded here."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from ais_bench.emulator import pack
from ais_bench.emulator.__main__ import main
from ais_bench.emulator.aipp_config import read_aipp_config
from ais_bench.emulator.onnx_shapes import NotOnnx, with_input_shapes
from support import emulator_models as models


def _read(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    magic, version, _, description, graph = struct.unpack_from("<8sIIQQ", content)
    assert (magic, version, len(content)) == (b"AISEMUOM", 1, 32 + description + graph)
    return json.loads(content[32 : 32 + description]), content[32 + description :]


def test_a_static_model(tmp_path):
    model = models.add(tmp_path, (2, 5))
    description, graph = _read(pack(model, tmp_path / "m.om", soc_version="Ascend310P3"))
    assert graph == model.read_bytes()
    assert (description["soc"], description["name"]) == ("Ascend310P3", "add")
    assert [(item["name"], item["shape"], item["dtype"]) for item in description["inputs"]] == [
        ("a", [2, 5], 0),
        ("b", [2, 5], 0),
    ]
    assert description["outputs"] == [{"name": "sum", "dtype": 0, "format": 2, "shapes": [[2, 5]]}]
    assert description["gears"] == {"kind": "none", "values": [], "order": [0, 1]}


def test_input_shape_fixes_dimensions(tmp_path):
    description, _ = _read(pack(models.image(tmp_path), tmp_path / "m.om", input_shape="picture:1,3,8,9", input_format="NHWC"))
    assert [output["shapes"] for output in description["outputs"]] == [[[1, 3, 8, 9]], [[1, 3]]]
    assert description["inputs"][0]["format"] == 1
    assert description["gears"]["kind"] == "none"


@pytest.mark.parametrize("batches", ["1,4,8", [1, 4, 8]])
def test_batch_gears(tmp_path, batches):
    description, _ = _read(pack(models.matmul(tmp_path), tmp_path / "m.om", dynamic_batch_size=batches))
    assert description["gears"] == {"kind": "batch", "values": [[1], [4], [8]], "order": [0]}
    assert description["outputs"][0]["shapes"] == [[1, 4], [4, 4], [8, 4]]


def test_ranges_and_open_shapes(tmp_path):
    description, _ = _read(pack(models.matmul(tmp_path), tmp_path / "m.om", input_shape="x:2~6,3"))
    assert description["gears"]["kind"] == "shape"
    assert description["inputs"][0]["range"] == [[2, 6], [3, 3]]
    assert (description["outputs"][0]["shapes"], description["outputs"][0]["largest"]) == ([[-1, 4]], [6, 4])
    description, _ = _read(pack(models.matmul(tmp_path), tmp_path / "m.om"))
    assert description["inputs"][0]["range"] == [[1, -1], [3, 3]]
    assert "largest" not in description["outputs"][0]


def test_an_output_that_depends_on_the_data(tmp_path):
    description, _ = _read(pack(models.nonzero(tmp_path), tmp_path / "m.om"))
    assert (description["gears"]["kind"], description["outputs"][0]["shapes"], description["outputs"][0]["dtype"]) == (
        "none",
        [[1, -1]],
        9,
    )


@pytest.mark.parametrize(("declared", "packed"), [(["n", "k"], [-1, -1]), (None, [-2]), ([], [])])
def test_an_output_of_which_nothing_is_inferred(tmp_path, declared, packed):
    """It has the declared rank, and no sizes, like the result of ATC. Without a rank it has AscendCL's -2."""
    description, _ = _read(pack(models.unknown_rank(tmp_path, declared), tmp_path / "m.om"))
    assert description["outputs"][0]["shapes"] == [packed]


def test_an_input_without_a_rank_needs_one(tmp_path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["x"], ["y"])],
        "neg",
        [value("x", onnx.TensorProto.FLOAT, None)],
        [value("y", onnx.TensorProto.FLOAT, None)],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m")
    with pytest.raises(ValueError, match="declares no shape of input 'x'"):
        pack(tmp_path / "m", tmp_path / "m.om")
    description, _ = _read(pack(tmp_path / "m", tmp_path / "m.om", input_shape="x:2,5"))
    assert description["outputs"][0]["shapes"] == [[2, 5]]


def test_shapes_that_the_model_computes(tmp_path):
    """A reshape to a computed shape is known if the input's shape is known."""
    nodes = [
        onnx.helper.make_node("Shape", ["x"], ["shape"]),
        onnx.helper.make_node("ReduceProd", ["shape"], ["count"], keepdims=1),
        onnx.helper.make_node("Reshape", ["x", "count"], ["y"]),
    ]
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [tensor("x", 1, ["n", 3])], [tensor("y", 1, ["k"])])
    path = tmp_path / "reshape.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    description, _ = _read(pack(path, tmp_path / "m.om", dynamic_batch_size="2,4"))
    assert description["outputs"][0]["shapes"] == [[6], [12]]


def test_an_image_size_is_that_of_every_input_that_varies(tmp_path):
    shapes = "a:1,3,-1,-1;b:1,3,-1,-1"
    options = {"input_shape": shapes, "dynamic_image_size": "4,6;8,2"}
    description, _ = _read(pack(models.add(tmp_path, ("n", 3, "h", "w")), tmp_path / "m.om", **options))
    assert description["outputs"][0]["shapes"] == [[1, 3, 4, 6], [1, 3, 8, 2]]
    options["input_shape"] = "a:1,3,-1,-1;b:1,3,-1,4"
    with pytest.raises(ValueError, match="exactly the dimensions 2 and 3"):
        pack(models.add(tmp_path, ("n", 3, "h", "w")), tmp_path / "m.om", **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dynamic_batch_size": "1", "dynamic_dims": "1"}, "exclude each other"),
        ({"dynamic_batch_size": "1", "input_shape": "picture:1,3,4,4"}, "nothing to choose gears for"),
        ({"dynamic_batch_size": "1,2"}, "only the first dimension"),
        ({"dynamic_batch_size": "1,x", "input_shape": "picture:-1,3,4,4"}, "dynamic_batch_size must be numbers"),
        ({"dynamic_batch_size": "1,1", "input_shape": "picture:-1,3,4,4"}, "1 to 128 different gears"),
        ({"dynamic_batch_size": "0", "input_shape": "picture:-1,3,4,4"}, "positive"),
        ({"dynamic_image_size": "4,4"}, "exactly the dimensions 2 and 3"),
        ({"dynamic_image_size": "4", "input_shape": "picture:1,3,-1,-1"}, "2 positive values"),
        ({"dynamic_dims": "1,2"}, "3 positive values"),
        ({"input_shape": "other:1"}, "model's inputs are picture"),
        ({"input_shape": "picture:1,3"}, "2 dimensions; the model has 4"),
        ({"input_shape": "picture:1,3,a,4"}, "'a'"),
        ({"input_shape": "picture:5~2,3,4,4"}, "empty"),
        ({"input_shape": "picture"}, "name:dim"),
        ({"input_format": "NCDHW"}, "'NCHW', 'NHWC'"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        pack(models.image(tmp_path), tmp_path / "m.om", **options)
    assert not (tmp_path / "m.om").exists()


def test_shapes_that_the_model_does_not_take(tmp_path):
    with pytest.raises(ValueError, match=r"does not take the shapes \{'x': \[2, 5\]\}"):
        pack(models.matmul(tmp_path), tmp_path / "m.om", input_shape="x:2,5")


def test_what_is_no_model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be loaded"):
        pack(path, tmp_path / "m.om")
    with pytest.raises(OSError, match="none"):
        pack(tmp_path / "none.onnx", tmp_path / "m.om")


def test_text_tensors_are_refused(tmp_path):
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [tensor("x", 8, [1])], [tensor("y", 8, [1])]
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "t.onnx"
    )
    with pytest.raises(ValueError, match=r"'x' is of type tensor\(string\)"):
        pack(tmp_path / "t.onnx", tmp_path / "m.om")


class TestRewriting:
    def test_only_shapes_change(self, tmp_path):
        original = onnx.load(models.image(tmp_path))
        changed = onnx.load_from_string(with_input_shapes(original.SerializeToString(), {"picture": [2, 3, -1, 300]}))
        dims = changed.graph.input[0].type.tensor_type.shape.dim
        assert [dim.dim_value if dim.HasField("dim_value") else None for dim in dims] == [2, 3, None, 300]
        assert not changed.graph.output[0].type.tensor_type.HasField("shape")
        assert changed.graph.output[0].type.tensor_type.elem_type == 1
        assert changed.graph.node == original.graph.node
        assert changed.graph.initializer == original.graph.initializer

    @pytest.mark.parametrize("content", [b"\x3a\xff", b"\x3a\x05\x0a", b"\x0b", b"\xff" * 12, b"\x3a\x02\x5a\x7f"])
    def test_broken_bytes(self, content):
        with pytest.raises(NotOnnx):
            with_input_shapes(content, {"x": [1]})


class TestAippConfig:
    def _read(self, tmp_path, text):
        path = tmp_path / "aipp.cfg"
        path.write_text(text)
        return read_aipp_config(path)

    def test_values(self, tmp_path):
        text = """
        aipp_op {
          aipp_mode : static   # comments
          input_format : YUV420SP_U8
          csc_switch : true; rbuv_swap_switch : false
          matrix_r0c0 : -298 var_reci_chn_0 : 0.0039216 min_chn_1 : 1e-3
        }
        aipp_op { aipp_mode: dynamic related_input_rank: 3 max_src_image_size: 752640 }
        """
        assert self._read(tmp_path, text) == [
            {
                "input": 0, "mode": "static", "input_format": "YUV420SP_U8", "csc_switch": 1, "rbuv_swap_switch": 0,
                "matrix_r0c0": -298,
                "var_reci_chn_0": 0.0039216, "min_chn_1": 0.001,
            },
            {"input": 3, "mode": "dynamic", "max_src_image_size": 752640},
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "no aipp_op"),
            ("aipp_op {", "no closing '}'"),
            ("op { }", "expected 'aipp_op {', got 'op {'"),
            ("aipp_op { crop }", "name: value"),
            ("aipp_op { @ }", "not protobuf text"),
            ("aipp_op { aipp_mode: static }", "needs input_format"),
            ("aipp_op { aipp_mode: dynamic }", "needs max_src_image_size"),
            ("aipp_op { aipp_mode: both }", "aipp_mode must be 'static' or 'dynamic'"),
            ("aipp_op { input_format: RAW10 }", "input_format must be one of .*, got RAW10"),
            ("aipp_op { input_format: RGB888_U8 mean_chn_0: 256 }", "0 to 255"),
            ("aipp_op { input_format: RGB888_U8 var_reci_chn_0: 1e6 }", "65504"),
            ("aipp_op { input_format: RGB888_U8 crop: maybe }", "true or false"),
            ("aipp_op { input_format: RGB888_U8 resize: true }", "not emulated"),
            ("aipp_op { input_format: RGB888_U8 nonsense: 1 }", "does not exist"),
        ],
    )
    def test_what_is_refused(self, tmp_path, text, complaint):
        with pytest.raises(ValueError, match=complaint):
            self._read(tmp_path, text)

    def test_it_must_fit_the_model(self, tmp_path):
        config = tmp_path / "aipp.cfg"
        for text, complaint in (
            ("related_input_rank: 4", "input 4; the model has 2"),
            ("", "needs an NCHW picture of float32, float16 or uint8; input a is not one"),
        ):
            config.write_text(f"aipp_op {{ input_format: RGB888_U8 {text} }}")
            with pytest.raises(ValueError, match=complaint):
                pack(models.add(tmp_path), tmp_path / "m.om", insert_op_conf=config)
        config.write_text("aipp_op { input_format: RGB888_U8 related_input_rank: 0 }" * 2)
        with pytest.raises(ValueError, match="static shapes or gears"):
            pack(models.image(tmp_path), tmp_path / "m.om", insert_op_conf=config)
        with pytest.raises(ValueError, match="at most one aipp_op"):
            pack(models.image(tmp_path, size=(4, 4)), tmp_path / "m.om", input_shape="picture:1,3,4,4", insert_op_conf=config)


class TestCommandLine:
    def test_pack(self, tmp_path, capsys):
        model, target = models.matmul(tmp_path), tmp_path / "m.om"
        assert main(["pack", str(model), "--dynamic-batch-size", "1,2", "-o", str(target)]) == 0
        assert str(target) in capsys.readouterr().out
        assert _read(target)[0]["gears"]["values"] == [[1], [2]]
        assert main(["pack", str(model), "--dynamic_batch_size=1,4", "--input_shape=x:-1,3", "-o", str(target)]) == 0
        assert _read(target)[0]["gears"]["values"] == [[1], [4]]

    def test_errors(self, tmp_path, capsys):
        assert main(["pack", str(tmp_path / "none.onnx"), "-o", str(tmp_path / "m.om")]) == 2
        assert "error: " in capsys.readouterr().err
        assert main(["run"]) == 2
        with pytest.raises(SystemExit):
            main([])

    def test_as_a_module(self):
        result = subprocess.run(
            [sys.executable, "-m", "ais_bench.emulator", "library"], capture_output=True, text=True, check=True
        )
        assert result.stdout.strip().endswith("libascendcl_emulator.so")


def test_real_models_pack(tmp_path):
    """The models of the onnx wheel with real operators and declared static shapes."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    path = folder / "light_squeezenet.onnx"
    if not path.exists():
        pytest.skip("this onnx wheel has no light models")
    description, _ = _read(pack(path, tmp_path / "m.om"))
    assert all(dim > 0 for output in description["outputs"] for shape in output["shapes"] for dim in shape)
    assert np.prod(description["inputs"][0]["shape"]) == 3 * 224 * 224
