// _native.Tensor: the buffer protocol over a host tensor, and the moves between host and device.
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

// The struct-module letter of a dtype; null where there is none, and then only __array__ converts.
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

py::buffer_info buffer_of(PyTensor& self) {
  const session::Tensor& tensor = self.tensor;
  if (!tensor.is_on_host()) throw py::buffer_error("the tensor is on a device; call to_host() first");
  const char* format = buffer_format(tensor.dtype());
  if (format == nullptr) throw py::buffer_error("the buffer protocol has no letter for this element type; use numpy.asarray");
  const auto item = static_cast<py::ssize_t>(dtype_bits(tensor.dtype()) / 8);
  std::vector<py::ssize_t> shape(tensor.shape().begin(), tensor.shape().end());
  const std::shared_ptr<void>& memory = tensor.buffer().data;
  if (self.exported.empty() || self.exported.back() != memory) self.exported.push_back(memory);
  return py::buffer_info(tensor.data(), item, format, static_cast<py::ssize_t>(shape.size()), shape,
                         py::detail::c_strides(shape, item));
}

py::object as_array(const PyTensor& self, const py::object& dtype) {
  need_host(self.tensor);
  py::array array = tensor_to_array(self.tensor);
  return dtype.is_none() ? py::object(array) : in_python([&] { return py::object(array.attr("astype")(dtype)); });
}

void to_device(PyTensor& self, int device_id) {
  std::shared_ptr<device::Device> device = open_current_device(device_id);
  Status status;
  {
    const NoGil nogil;
    status = self.tensor.to_device(device);
  }
  raise_if_error(status);
}

void to_host(PyTensor& self) {
  Status status;
  {
    const NoGil nogil;
    status = self.tensor.to_host();
  }
  raise_if_error(status);
}

}  // namespace

void register_tensor(py::module_& module) {
  py::class_<PyTensor>(module, "Tensor", py::buffer_protocol(), py::dynamic_attr())
      .def(py::init<const PyTensor&>(), py::arg("tensor"))  // shares its memory
      .def(py::init([](const py::object& array) { return PyTensor{tensor_from(array)}; }), py::arg("array"))
      .def_buffer(&buffer_of)
      .def(
          "__array__", [](const PyTensor& self, const py::object& dtype, const py::object&) { return as_array(self, dtype); },
          py::arg("dtype") = py::none(), py::arg("copy") = py::none())
      .def("to_device", &to_device, py::arg("device_id"))
      .def("to_host", &to_host)
      .def_property_readonly("device", [](const PyTensor& self) { return self.tensor.device_id(); })
      .def_property_readonly("shape", [](const PyTensor& self) { return self.tensor.shape(); })
      .def_property_readonly("data_ptr",
                             [](const PyTensor& self) { return reinterpret_cast<std::uintptr_t>(self.tensor.data()); })
      .def_property_readonly("nbytes", [](const PyTensor& self) { return self.tensor.bytes(); })
      .def_property_readonly("_dtype_number", [](const PyTensor& self) { return static_cast<int>(self.tensor.dtype()); });
}

}  // namespace ais::bind
