// Conversions between numpy's arrays and tensors.
#include "bind/arrays.hpp"

#include <array>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>

#include "bind/bind.hpp"
#include "bind/numpy_abi.hpp"
#include "bind/recycling.hpp"
#include "bind/tensor.hpp"

namespace ais::bind {
namespace {

struct DescrEntry {
  DType dtype;
  const char* name;
  bool builtin;  // numpy has the type; otherwise ml_dtypes
  PyObject* descr;
};

// Filled with the GIL held when a type is first used, and never emptied.
std::vector<DescrEntry>& descr_table() {
  static auto* const table = new std::vector<DescrEntry>{
#define AIS_DTYPE(name, number, bits, numpy) {DType::k##name, numpy, numpy_has(DType::k##name), nullptr},
      AIS_DTYPES(AIS_DTYPE)
#undef AIS_DTYPE
  };
  return *table;
}

PyObject* descr_of(DescrEntry* entry) {
  if (entry->descr == nullptr) {
    py::object type = entry->builtin
                          ? py::object(py::str(entry->name))
                          : in_python([&] { return py::object(py::module_::import("ml_dtypes").attr(entry->name)); });
    entry->descr = py::dtype::from_args(std::move(type)).release().ptr();
  }
  return entry->descr;
}

// Returns whether a type has 4 or 2 bits: numpy has one element in each byte, in its low bits; devices have two or four.
bool is_packed(DType dtype) { return dtype_bits(dtype) < 8; }

void pack(const std::uint8_t* from, DType dtype, std::size_t elements, std::vector<std::uint8_t>* to) {
  const std::size_t bits = dtype_bits(dtype);
  to->assign(packed_bytes(dtype, elements), 0);
  for (std::size_t i = 0; i < elements; ++i) {
    const unsigned value = from[i] & ((1u << bits) - 1);
    (*to)[i * bits / 8] = static_cast<std::uint8_t>((*to)[i * bits / 8] | value << (i * bits % 8));
  }
}

void unpack(const std::uint8_t* from, DType dtype, std::size_t elements, std::uint8_t* to) {
  const std::size_t bits = dtype_bits(dtype);
  for (std::size_t i = 0; i < elements; ++i) {
    to[i] = static_cast<std::uint8_t>((from[i * bits / 8] >> (i * bits % 8)) & ((1u << bits) - 1));
  }
}

// Returns whether an array is of numpy.ma's class, or of a similar one.
bool may_be_masked(py::handle array) {
  return Py_TYPE(array.ptr()) != py::detail::npy_api::get().PyArray_Type_ && PyObject_HasAttrString(array.ptr(), "mask") == 1;
}

// Makes a feed of `given`, if it is an array that can be used without a copy. Returns whether it is.
bool view_array(py::handle given, session::Feed* feed, Feeds* keep) {
  if (!py::isinstance<py::array>(given) || may_be_masked(given)) return false;
  const auto array = py::reinterpret_borrow<py::array>(given);
  if ((array.flags() & py::array::c_style) == 0) return false;
  const DType dtype = array_type(array);
  if (dtype == DType::kUndefined) return false;
  TensorView& view = feed->view;
  view.dtype = dtype;
  view.shape.assign(array.shape(), array.shape() + array.ndim());
  view.data = const_cast<void*>(array.data());
  const auto elements = static_cast<std::size_t>(array.size());
  view.bytes = packed_bytes(dtype, elements);
  if (is_packed(dtype)) {
    keep->packed.emplace_back();
    pack(static_cast<const std::uint8_t*>(array.data()), dtype, elements, &keep->packed.back());
    view.data = keep->packed.back().data();
  }
  return true;
}

// Returns feeds that are not a list or tuple as a list in the model's order, and whether they were given by name.
std::pair<py::object, bool> to_sequence(py::handle given, const device::ModelInfo* info) {
  py::list names;
  py::list ranks;
  py::list optional;
  py::list overridable;
  if (info != nullptr) {
    for (const auto& desc : info->inputs) {
      names.append(desc.name);
      ranks.append(desc.ranked ? static_cast<int>(desc.shape.size()) : -1);
      if (desc.optional) optional.append(desc.name);
    }
    for (const auto& desc : info->overridable) overridable.append(desc.name);
  }
  return in_python([&] {
    const py::module_ feeds = py::module_::import("ais_bench.one_device.feeds");
    return std::pair(py::object(feeds.attr("to_sequence")(given, names, ranks, optional, overridable)),
                     feeds.attr("is_by_name")(given).cast<bool>());
  });
}

}  // namespace

DType array_type(const py::array& array) {
  PyObject* descr = py::detail::array_proxy(array.ptr())->descr;
  for (const DescrEntry& entry : descr_table()) {
    if (entry.descr == descr) return entry.dtype;
  }
  const py::dtype dtype = array.dtype();
  const char order = dtype.byteorder();
  if (order != '=' && order != '|') return DType::kUndefined;
  if (dtype.num() >= 256 && !py::module_::import("sys").attr("modules").contains("ml_dtypes")) return DType::kUndefined;
  for (DescrEntry& entry : descr_table()) {
    if (!entry.builtin && dtype.num() < 256) continue;  // do not import ml_dtypes if the type cannot be one of its types
    if (dtype.equal(py::reinterpret_borrow<py::object>(descr_of(&entry)))) return entry.dtype;
  }
  return DType::kUndefined;
}

PyObject* numpy_descr(DType dtype) {
  for (DescrEntry& entry : descr_table()) {
    if (entry.dtype == dtype) return descr_of(&entry);
  }
  throw py::value_error("there is no numpy dtype for element type " + std::to_string(static_cast<int>(dtype)));
}

TensorView describe_array(const py::array& array) {
  TensorView view;
  view.dtype = array_type(array);
  view.shape.assign(array.shape(), array.shape() + array.ndim());
  view.bytes = packed_bytes(view.dtype, static_cast<std::size_t>(array.size()));
  return view;
}

py::array new_array(DType dtype, const Shape& shape) {
  auto& api = py::detail::npy_api::get();
  std::array<Py_intptr_t, 64> dims;
  if (shape.size() > dims.size()) throw py::value_error("an array has at most 64 dimensions");
  for (std::size_t i = 0; i < shape.size(); ++i) dims[i] = static_cast<Py_intptr_t>(shape[i]);
  PyObject* descr = numpy_descr(dtype);
  Py_INCREF(descr);  // the call takes a reference
  PyObject* array = api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, static_cast<int>(shape.size()), dims.data(), nullptr,
                                              nullptr, 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::array>(array);
}

std::string feed_label(const FeedNames* names, std::size_t index) {
  return names != nullptr && index < names->size() ? "input '" + (*names)[index] + "'" : "input " + std::to_string(index);
}

session::Feed to_feed(py::handle given, const char* called, const device::TensorDesc* desc, Feeds* keep) {
  session::Feed feed;
  if (view_array(given, &feed, keep)) return feed;
  if (given.is_none() && desc != nullptr && desc->optional) return feed;
  if (py::isinstance<PyTensor>(given)) {
    const auto& tensor = given.cast<const PyTensor&>().tensor;
    feed.view = tensor.view();
    feed.device = tensor.device();
    return feed;
  }
  const std::string label = called != nullptr ? std::string(called) : "input '" + desc->name + "'";
  const std::string wanted = desc == nullptr ? "" : session::numpy_type(desc->dtype);
  py::object array = in_python(
      [&] { return py::object(py::module_::import("ais_bench.one_device.feeds").attr("to_array")(given, label, wanted)); });
  if (!view_array(array, &feed, keep)) {
    const std::string text = label + " is an array of " + py::str(array.attr("dtype")).cast<std::string>() +
                             "; a device takes numbers and booleans of the ONNX element types only";
    const py::object kind = in_python([] { return py::object(py::module_::import("ais_bench.errors").attr("FeedTypeError")); });
    PyErr_SetString(kind.ptr(), text.c_str());
    throw py::error_already_set();
  }
  keep->owners.push_back(std::move(array));
  return feed;
}

Feeds to_feeds(py::handle given, const device::ModelInfo* info, const FeedNames* names, Feeds memory) {
  Feeds result = std::move(memory);
  py::object items = py::reinterpret_borrow<py::object>(given);
  bool by_name = false;
  if (!PyList_CheckExact(given.ptr()) && !PyTuple_CheckExact(given.ptr())) {
    std::tie(items, by_name) = to_sequence(given, info);
  }
  const auto sequence = py::reinterpret_borrow<py::sequence>(items);
  const std::size_t count = sequence.size();
  // Values for constants can be given only by name.
  if (info != nullptr && !by_name && count != info->inputs.size()) raise_if_error(session::wrong_count(*info, count));
  result.feeds.resize(count);
  result.owners.reserve(count * 2);
  for (std::size_t i = 0; i < count; ++i) {
    py::object item = sequence[i];
    session::Feed& feed = result.feeds[i];
    if (!view_array(item, &feed, &result)) {
      feed = info != nullptr ? to_feed(item, nullptr, &info->fed(i), &result)
                             : to_feed(item, feed_label(names, i).c_str(), nullptr, &result);
    }
    result.owners.push_back(std::move(item));  // the caller may change the list while the GIL is released
  }
  return result;
}

NumpySink::NumpySink(const device::ModelInfo& info) : slots_(info.outputs.size()) {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const device::TensorDesc& desc = info.outputs[i];
    std::size_t bytes = 0;
    if (!session::known_bytes(desc, &bytes)) continue;
    try {
      make(&slots_[i], desc.dtype, desc.shape, bytes);
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_MemoryError)) throw;
      raise_if_error(Status(Code::kOutOfMemory,
                            "the host has no memory for output '" + desc.name + "' of " + std::to_string(bytes) + " bytes"));
    }
    slots_[i].fresh = true;
  }
}

void NumpySink::make(OutputArray* slot, DType dtype, const Shape& shape, std::size_t bytes) {
  slot->array = new_array(dtype, shape);
  slot->dtype = dtype;
  if (is_packed(dtype)) slot->packed.resize(bytes + 1);  // never a null pointer
}

void* NumpySink::reserve(std::size_t index, const device::TensorDesc& desc, const Shape& shape, std::size_t bytes) {
  OutputArray& slot = slots_[index];
  if (slot.fresh && !desc.open() && shape == desc.shape) {
    slot.fresh = false;
  } else {
    const Gil gil;
    try {
      make(&slot, desc.dtype, shape, bytes);
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_MemoryError)) error.discard_as_unraisable("ais_bench output allocation");
      return nullptr;
    }
  }
  if (is_packed(slot.dtype)) return slot.packed.data();
  return py::detail::array_proxy(slot.array.ptr())->data;
}

py::list NumpySink::take() {
  py::list outputs(slots_.size());
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    OutputArray& slot = slots_[i];
    if (is_packed(slot.dtype)) {
      auto array = py::reinterpret_borrow<py::array>(slot.array);
      unpack(slot.packed.data(), slot.dtype, static_cast<std::size_t>(array.size()),
             static_cast<std::uint8_t*>(array.mutable_data()));
    }
    PyList_SET_ITEM(outputs.ptr(), static_cast<Py_ssize_t>(i), slot.array.release().ptr());
  }
  return outputs;
}

py::array array_from(const TensorView& view) {
  py::array array = new_array(view.dtype, view.shape);
  if (is_packed(view.dtype)) {
    unpack(static_cast<const std::uint8_t*>(view.data), view.dtype, static_cast<std::size_t>(array.size()),
           static_cast<std::uint8_t*>(array.mutable_data()));
  } else if (view.bytes != 0) {
    std::memcpy(array.mutable_data(), view.data, view.bytes);
  }
  return array;
}

// The first use of numpy's C API imports it, which runs Python code and may release the GIL. If a daemon thread did this while
// the interpreter shuts down, CPython up to 3.13 would unwind the thread through C++ frames. If it happened while a reply is
// taken, Ctrl-C could lose the reply. So it is done here.
void register_arrays(py::module_& module) {
  module.def("load_numpy", [] {
    Recycling::prepare();  // first: it checks the version of numpy's C interface, which pybind11 assumes to be known
    py::detail::npy_api::get();
  });
  module.def("_check_numpy", &numpy_abi::check_versions);
}

py::array tensor_to_array(const session::Tensor& tensor) { return array_from(tensor.view()); }

session::Tensor tensor_from(py::handle given) {
  Feeds keep;
  keep.packed.reserve(1);
  const session::Feed feed = to_feed(given, "the array of a Tensor", nullptr, &keep);
  session::Tensor tensor = value_or_raise(session::Tensor::on_host(feed.view.dtype, feed.view.shape));
  if (feed.view.bytes != 0) std::memcpy(tensor.data(), feed.view.data, feed.view.bytes);
  return tensor;
}

}  // namespace ais::bind
