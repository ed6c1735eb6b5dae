// numpy arrays to frames and back.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/tensor.hpp"
#include "bind/bind.hpp"
#include "shm/frame.hpp"
#include "shm/memfd.hpp"

namespace ais::bind {

// From this many bytes on a copy is worth letting other threads run (GIL), and a result worth lending instead of copying.
constexpr std::size_t kLarge = std::size_t{64} << 10;

// An array that can go into a frame: C-contiguous, in native byte order, of a type that tensors have.
struct FeedArray {
  const void* data;
  std::size_t bytes;  // in a frame
  DType dtype;
  const std::int64_t* dims;
  std::size_t rank;
  bool in_arena;  // lies in the arena already, aligned: it is named instead of copied
};

// The arrays of one call, and what keeps them alive. Needs the GIL, but for write().
class FeedArrays {
 public:
  // `feeds` is any iterable of arrays. Throws FeedError on what is no array of a known type. An array that is not C-contiguous
  // or not in native byte order is copied here.
  FeedArrays(py::handle feeds, const shm::Region* region);

  // Bytes of a frame with these arrays; an upper bound.
  std::size_t frame_bytes() const { return frame_bytes_; }
  std::size_t copied_bytes() const { return copied_bytes_; }
  // What must live until the worker is done with the task: the arrays that are named in place. Null where there are none.
  py::object kept() const { return any_in_arena_ ? sequence_ : py::object(); }
  // The arrays as new ones.
  py::list copy() const;

  // Copies into the writer's slot. False: no room. Call without the GIL where copied_bytes() is large.
  bool write(shm::FrameWriter* writer, const shm::Region& region) const;

 private:
  void add(py::handle array);

  py::object sequence_;
  std::vector<py::object> copies_;
  std::vector<FeedArray> arrays_;
  std::size_t frame_bytes_ = 0;
  std::size_t copied_bytes_ = 0;
  bool any_in_arena_ = false;
};

// A new array with a copy of the tensor.
py::object copy_tensor(const TensorView& tensor);
// An array over the tensor's memory, which `base` keeps alive.
py::object view_tensor(const TensorView& tensor, py::handle base, bool writable);
// True for types of which numpy's elements are laid out as a frame's (all but the 4-bit ones).
bool same_layout(DType dtype);
// The tensor type of a numpy dtype, kUndefined where there is none.
DType tensor_dtype(const py::dtype& dtype);

}  // namespace ais::bind
