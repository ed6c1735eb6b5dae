// numpy arrays to feeds, and outputs to numpy arrays.
//
// A C-contiguous array in native byte order is used where it lies. Anything else (another container, torch and DLPack tensors,
// scalars, views with strides, big-endian arrays) goes through ais_bench.one_device.feeds, which returns such an array or
// raises.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "session/session.hpp"

namespace ais::bind {

namespace py = pybind11;

// The numpy dtype of a DType; a borrowed reference that lives for ever. Types numpy lacks come from ml_dtypes. Needs the GIL.
PyObject* numpy_descr(DType dtype);

// A new array with uninitialised memory of its own.
py::array new_array(DType dtype, const Shape& shape);

// The feeds of one run and whatever must stay alive for it. `owners` hold references: release them under the GIL.
struct Feeds {
  std::vector<session::Feed> feeds;
  std::vector<py::object> owners;
  std::vector<std::vector<std::uint8_t>> packed;  // inputs of types narrower than a byte
};

// What the feeds of a run are called, where their model is not at hand.
using FeedNames = std::vector<std::string>;

// `info` is the model's, for feeds given by name and the words of errors; null: of no model, and errors call inputs by `names`,
// or by number if there are none. Raises FeedError for what cannot be an input.
Feeds to_feeds(py::handle given, const device::ModelInfo* info, const FeedNames* names = nullptr);
// "input 'x'", or "input 0" for one without a name.
std::string feed_label(const FeedNames* names, std::size_t index);
// The type of an array; kUndefined for one that no device has, or in foreign byte order.
DType array_type(const py::array& array);
// An array's type (kUndefined for one that no device has, or in foreign byte order), shape and bytes, without its memory.
TensorView describe_array(const py::array& array);
// One of them. `label` is what errors call it; null: `desc` has its name. `desc` as `info` of to_feeds.
session::Feed to_feed(py::handle given, const char* label, const device::TensorDesc* desc, Feeds* keep);

// Delivers outputs into new arrays. Make it and take from it with the GIL held; the run in between needs none.
class NumpySink final : public session::OutputSink {
 public:
  explicit NumpySink(const device::ModelInfo& info);
  void* reserve(std::size_t index, const device::TensorDesc& desc, const Shape& shape, std::size_t bytes) override;
  py::list take();

 private:
  struct OutputArray {
    py::object array;
    DType dtype = DType::kUndefined;
    std::vector<std::uint8_t> packed;
    bool fresh = false;  // made for the declared shape, and not handed out yet
  };
  void make(OutputArray* slot, DType dtype, const Shape& shape, std::size_t bytes);

  std::vector<OutputArray> slots_;
};

// An array with the values of host memory.
py::array array_from(const TensorView& view);
// An array with the tensor's values.
py::array tensor_to_array(const session::Tensor& tensor);
// A host tensor with the array's values.
session::Tensor tensor_from(py::handle given);

}  // namespace ais::bind
