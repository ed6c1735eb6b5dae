// numpy arrays to frames and back.
#pragma once

#include <cstdint>

#include "base/tensor.hpp"
#include "bind/arrays.hpp"
#include "bind/bind.hpp"
#include "shm/frame.hpp"
#include "shm/memfd.hpp"

namespace ais::bind {

// The arrays of one task or reply, on their way into a slot. Needs the GIL, but for write().
class FeedArrays {
 public:
  // `given` is any iterable of inputs. Arrays that lie in `region` (may be null) already are named there instead of copied.
  // Throws FeedError for what cannot be an input, and calls it by `names`.
  FeedArrays(py::handle given, const shm::Region* region, const FeedNames* names = nullptr);

  // Bytes of a frame with these arrays; an upper bound.
  std::size_t frame_bytes() const { return frame_bytes_; }
  std::size_t copied_bytes() const { return copied_bytes_; }
  // What must live until the worker is done with the task: the arrays that are named in place. Null where there are none.
  py::object kept() const;
  // The arrays as new ones.
  py::list copy() const;

  // Copies into the writer's slot. False: no room. Call without the GIL where copied_bytes() is large. `checked`: see
  // FrameWriter::reserve_checked.
  bool write(shm::FrameWriter* writer, const shm::Region& region, bool checked = false) const;

 private:
  bool in_place(const TensorView& view) const;

  const shm::Region* region_;
  Feeds feeds_;
  std::size_t frame_bytes_;
  std::size_t copied_bytes_ = 0;
  bool any_in_place_ = false;
};

// A new array with a copy of the tensor.
py::array copy_tensor(const TensorView& tensor);
// An array over the tensor's memory, which `base` keeps alive. A copy where numpy lays the type out differently (4-bit types).
py::array view_tensor(const TensorView& tensor, py::handle base, bool writable);
// Whether view_tensor can do without a copy.
bool same_layout(DType dtype);

}  // namespace ais::bind
