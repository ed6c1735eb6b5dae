// Converts numpy arrays to feeds, and outputs to numpy arrays.
//
// A C-contiguous array in native byte order is used without a copy. For anything else (other containers, torch and DLPack
// tensors, scalars, strided views, big-endian arrays) ais_bench.one_device.feeds makes such an array, or raises.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "session/session.hpp"

namespace ais::bind {

namespace py = pybind11;

// Returns the numpy dtype of a DType, as a borrowed reference that stays valid. ml_dtypes has the types that numpy does not
// have.
PyObject* numpy_descr(DType dtype);

// Returns a new array with uninitialised memory.
py::array new_array(DType dtype, const Shape& shape);

// The feeds of one run, and the objects that must live until its end. Release `owners` with the GIL held.
struct Feeds {
  std::vector<session::Feed> feeds;
  std::vector<py::object> owners;
  std::vector<std::vector<std::uint8_t>> packed;  // inputs with element types of less than a byte
};

// The names of a run's feeds, if the model's description is not available.
using FeedNames = std::vector<std::string>;

// `info`: the model's description, for feeds given by name and for errors. Null: errors use `names`, or numbers if that is
// null, too. Raises FeedError for a value that cannot be an input. `memory`: earlier feeds without owners, whose memory is
// used.
Feeds to_feeds(py::handle given, const device::ModelInfo* info, const FeedNames* names = nullptr, Feeds memory = Feeds());
// Returns "input 'x'", or "input 0" for an input without a name.
std::string feed_label(const FeedNames* names, std::size_t index);
// Returns the type of an array; kUndefined if no device has the type, or the byte order is not native.
DType array_type(const py::array& array);
// Returns an array's type (as array_type), shape and bytes, without its memory.
TensorView describe_array(const py::array& array);
// Converts one feed. `label`: its name in errors; null: the name in `desc`. `desc`: as `info` of to_feeds.
session::Feed to_feed(py::handle given, const char* label, const device::TensorDesc* desc, Feeds* keep);

// Delivers outputs into new arrays. The constructor and the functions that return arrays need the GIL; the run does not.
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
    bool fresh = false;  // made for the declared shape, and not returned yet
  };
  void make(OutputArray* slot, DType dtype, const Shape& shape, std::size_t bytes);

  std::vector<OutputArray> slots_;
};

// Returns an array with a copy of the view's values, which are in host memory.
py::array array_from(const TensorView& view);
// Returns an array with the tensor's values.
py::array tensor_to_array(const session::Tensor& tensor);
// Returns a host tensor with the array's values.
session::Tensor tensor_from(py::handle given);

}  // namespace ais::bind
