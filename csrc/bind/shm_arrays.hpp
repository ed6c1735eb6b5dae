// Converts numpy arrays to frames and back.
#pragma once

#include <cstdint>

#include "base/tensor.hpp"
#include "bind/arrays.hpp"
#include "bind/bind.hpp"
#include "shm/frame.hpp"
#include "shm/memfd.hpp"

namespace ais::bind {

// The arrays of one task or reply that are to be written into a slot. Needs the GIL, except for write().
class FeedArrays {
 public:
  // `given`: any iterable of inputs. Arrays that are already in `region` (may be null) are not copied. Throws FeedError for a
  // value that cannot be an input; the error has its name from `names`. `memory`: what an earlier object returned.
  FeedArrays(py::handle given, const shm::Region* region, const FeedNames* names = nullptr, Feeds memory = Feeds());
  // Drops the arrays. Returns the memory of the lists, for another object.
  Feeds take_memory();

  // Returns an upper bound of the bytes of a frame with these arrays.
  std::size_t frame_bytes() const { return frame_bytes_; }
  std::size_t copied_bytes() const { return copied_bytes_; }
  // Returns the arrays that are used in place, which must live until the worker has finished the task. Null: there are none.
  py::object kept() const;
  // Returns copies of the arrays.
  py::list copy() const;

  // Copies into the writer's slot. Returns false if it has no room. Release the GIL first if copied_bytes() is large.
  // `checked`: see FrameWriter::reserve_checked.
  bool write(shm::FrameWriter* writer, const shm::Region& region, bool checked = false) const;

 private:
  bool in_place(const TensorView& view) const;

  const shm::Region* region_;
  Feeds feeds_;
  std::size_t frame_bytes_;
  std::size_t copied_bytes_ = 0;
  bool any_in_place_ = false;
};

// Returns a new array with a copy of the tensor.
py::array copy_tensor(const TensorView& tensor);
// Returns an array over the tensor's memory, which `base` keeps alive; a copy if numpy has another layout (4-bit types).
py::array view_tensor(const TensorView& tensor, py::handle base, bool writable);
// Returns whether view_tensor needs no copy.
bool same_layout(DType dtype);

}  // namespace ais::bind
