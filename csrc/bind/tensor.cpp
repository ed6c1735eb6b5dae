// _native.Tensor: the buffer protocol of a host tensor, and moves between host and device.
#include "bind/tensor.hpp"

#include <pybind11/stl.h>

#include "bind/arrays.hpp"
#include "bind/bind.hpp"
#include "bind/runtimes.hpp"

namespace ais::bind {
namespace {

void need_host(const session::Tensor& tensor) {
  if (tensor.is_on_host()) return;
  raise_if_error(Status(Code::kInvalidArgument, "the tensor is on device " + std::to_string(tensor.device_id()) +
                                                    " and can't be converted to numpy array there; call to_host() first"));
}

// Returns the letter of a dtype in the struct module; null: there is none, and only __array__ converts.
const char* buffer_format(DType dtype) {
  switch (dtype) {
    case DType::kUInt8:
      return "B";
    case DType::kInt8:
      return "b";
    case DType::kUInt16:
      return "H";
    case DType::kInt16:
      return "h";
    case DType::kUInt32:
      return "I";
    case DType::kInt32:
      return "i";
    case DType::kUInt64:
      return "L";
    case DType::kInt64:
      return "l";
    case DType::kFloat16:
      return "e";
    case DType::kFloat32:
      return "f";
    case DType::kFloat64:
      return "d";
    case DType::kBool:
      return "?";
    case DType::kComplex64:
      return "Zf";
    case DType::kComplex128:
      return "Zd";
    default:
      return nullptr;
  }
}

// The data of one exported buffer.
struct Export {
  std::shared_ptr<void> memory;
  std::vector<Py_ssize_t> shape;
  std::vector<Py_ssize_t> strides;
};

// pybind11's buffer protocol keeps the object alive, but not the memory, which may be moved. So this is written by hand.
int get_buffer(PyObject* object, Py_buffer* view, int flags) {
  view->obj = nullptr;
  try {
    const session::Tensor& tensor = py::handle(object).cast<PyTensor&>().tensor;
    if (!tensor.is_on_host()) throw py::buffer_error("the tensor is on a device; call to_host() first");
    const char* format = buffer_format(tensor.dtype());
    if (format == nullptr) throw py::buffer_error("the buffer protocol has no letter for this element type; use numpy.asarray");
    auto exported = std::make_unique<Export>();
    exported->memory = tensor.buffer().data;
    exported->shape.assign(tensor.shape().begin(), tensor.shape().end());
    view->itemsize = static_cast<Py_ssize_t>(dtype_bits(tensor.dtype()) / 8);
    exported->strides = py::detail::c_strides(exported->shape, view->itemsize);
    view->buf = tensor.data();
    view->len = static_cast<Py_ssize_t>(tensor.bytes());
    view->readonly = 0;
    view->ndim = static_cast<int>(exported->shape.size());
    view->format = (flags & PyBUF_FORMAT) != 0 ? const_cast<char*>(format) : nullptr;
    view->shape = (flags & PyBUF_ND) != 0 ? exported->shape.data() : nullptr;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? exported->strides.data() : nullptr;
    view->suboffsets = nullptr;
    view->internal = exported.release();
    Py_INCREF(object);
    view->obj = object;
    return 0;
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_BufferError, error.what());
    return -1;
  }
}

void release_buffer(PyObject*, Py_buffer* view) { delete static_cast<Export*>(view->internal); }

py::object as_array(const PyTensor& self, const py::object& dtype) {
  need_host(self.tensor);
  py::array array = tensor_to_array(self.tensor);
  return dtype.is_none() ? py::object(array) : in_python([&] { return py::object(array.attr("astype")(dtype)); });
}

void to_device(PyTensor& self, int device_id) {
  const std::shared_ptr<device::Device> device = open_current_device(device_id);
  move(&self, [&](session::Tensor* moved) { return moved->to_device(device); });
}

PyTensor copied(const PyTensor& self) {
  const session::Tensor from = self.tensor;  // another thread may move it meanwhile
  Result<session::Tensor> made = [&] {
    const NoGil nogil;
    return from.copy();
  }();
  return PyTensor{value_or_raise(std::move(made))};
}

void to_host(PyTensor& self) {
  move(&self, [](session::Tensor* moved) { return moved->to_host(); });
}

}  // namespace

void register_tensor(py::module_& module) {
  const auto add_buffers = [](PyHeapTypeObject* type) {
    type->as_buffer.bf_getbuffer = get_buffer;
    type->as_buffer.bf_releasebuffer = release_buffer;
    type->ht_type.tp_as_buffer = &type->as_buffer;
  };
  py::class_<PyTensor>(module, "Tensor", py::custom_type_setup(add_buffers), py::dynamic_attr())
      .def(py::init<const PyTensor&>(), py::arg("tensor"))  // shares its memory
      .def(py::init([](const py::object& array) { return PyTensor{tensor_from(array)}; }), py::arg("array"))
      .def(
          "__array__", [](const PyTensor& self, const py::object& dtype, const py::object&) { return as_array(self, dtype); },
          py::arg("dtype") = py::none(), py::arg("copy") = py::none())
      .def("to_device", &to_device, py::arg("device_id"))
      .def("to_host", &to_host)
      .def("_copied", &copied)
      .def_property_readonly("device", [](const PyTensor& self) { return self.tensor.device_id(); })
      .def_property_readonly("shape", [](const PyTensor& self) { return self.tensor.shape(); })
      .def_property_readonly("data_ptr",
                             [](const PyTensor& self) { return reinterpret_cast<std::uintptr_t>(self.tensor.data()); })
      .def_property_readonly("nbytes", [](const PyTensor& self) { return self.tensor.bytes(); })
      .def_property_readonly("_dtype_number", [](const PyTensor& self) { return static_cast<int>(self.tensor.dtype()); });
}

}  // namespace ais::bind
