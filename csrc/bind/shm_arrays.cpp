// Copies feeds into a slot, and makes arrays of outputs in a slot.
#include "bind/shm_arrays.hpp"

#include <cstring>
#include <string>
#include <utility>

#include "base/tuning.hpp"
#include "shm/copy.hpp"

namespace ais::bind {

bool same_layout(DType dtype) { return dtype_bits(dtype) % 8 == 0; }

FeedArrays::FeedArrays(py::handle given, const shm::Region* region, const FeedNames* names, Feeds memory)
    : region_(region), feeds_(to_feeds(given, nullptr, names, std::move(memory))), frame_bytes_(2 * shm::kPayloadAlignment) {
  if (feeds_.feeds.size() > shm::kMaxTensors) {
    raise_if_error(Status(Code::kFeedMismatch, std::to_string(feeds_.feeds.size()) + " arrays were given for one task; " +
                                                   std::to_string(shm::kMaxTensors) + " are the most"));
  }
  for (std::size_t i = 0; i < feeds_.feeds.size(); ++i) {
    const session::Feed& feed = feeds_.feeds[i];
    if (feed.device != nullptr && !feed.device->host_visible()) {
      raise_if_error(Status(Code::kFeedMismatch, feed_label(names, i) + " is a tensor on device " +
                                                     std::to_string(feed.device->id()) + "; call its to_host() first"));
    }
    frame_bytes_ += shm::FrameWriter::entry_bytes(feed.view.shape.size());
    if (in_place(feed.view)) {
      any_in_place_ = true;
      continue;
    }
    frame_bytes_ += shm::aligned(feed.view.bytes, shm::kPayloadAlignment);
    copied_bytes_ += feed.view.bytes;
  }
}

Feeds FeedArrays::take_memory() {
  feeds_.owners.clear();
  feeds_.packed.clear();
  for (session::Feed& feed : feeds_.feeds) feed.device.reset();
  return std::move(feeds_);
}

bool FeedArrays::in_place(const TensorView& view) const {
  return region_ != nullptr && view.bytes != 0 && region_->contains(view.data) &&
         reinterpret_cast<std::uintptr_t>(view.data) % shm::kPayloadAlignment == 0;
}

py::object FeedArrays::kept() const {
  if (!any_in_place_) return py::object();
  py::tuple owners(feeds_.owners.size());
  for (std::size_t i = 0; i < feeds_.owners.size(); ++i) owners[i] = feeds_.owners[i];
  return owners;
}

py::list FeedArrays::copy() const {
  py::list copies;
  for (const session::Feed& feed : feeds_.feeds) copies.append(copy_tensor(feed.view));
  return copies;
}

bool FeedArrays::write(shm::FrameWriter* writer, const shm::Region& region, bool checked) const {
  const auto reserve = checked ? &shm::FrameWriter::reserve_checked : &shm::FrameWriter::reserve;
  for (std::size_t i = 0; i < feeds_.feeds.size(); ++i) {
    const TensorView& view = feeds_.feeds[i].view;
    if (in_place(view)) {
      const auto offset = static_cast<std::uint64_t>(static_cast<const std::uint8_t*>(view.data) - region.data());
      writer->refer(i, view.dtype, view.shape.data(), view.shape.size(), view.bytes, offset);
      continue;
    }
    void* room = (writer->*reserve)(i, view.dtype, view.shape.data(), view.shape.size(), view.bytes);
    if (room != nullptr) shm::copy_across(room, view.data, view.bytes);
  }
  return !writer->full() && writer->refused().ok();
}

py::array copy_tensor(const TensorView& tensor) {
  if (!same_layout(tensor.dtype)) return array_from(tensor);
  py::array array = new_array(tensor.dtype, tensor.shape);
  void* out = py::detail::array_proxy(array.ptr())->data;
  if (tensor.bytes >= tuning::kLargeBytes) {
    const NoGil release;
    std::memcpy(out, tensor.data, tensor.bytes);
  } else if (tensor.bytes != 0) {
    std::memcpy(out, tensor.data, tensor.bytes);
  }
  return array;
}

py::array view_tensor(const TensorView& tensor, py::handle base, bool writable) {
  if (!same_layout(tensor.dtype)) return array_from(tensor);
  using NumpyApi = py::detail::npy_api;
  static_assert(sizeof(Py_intptr_t) == sizeof(std::int64_t));
  auto& api = NumpyApi::get();
  PyObject* descr = numpy_descr(tensor.dtype);
  Py_INCREF(descr);  // the call takes a reference
  PyObject* made = api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, static_cast<int>(tensor.shape.size()),
                                             reinterpret_cast<const Py_intptr_t*>(tensor.shape.data()), nullptr, tensor.data,
                                             writable ? NumpyApi::NPY_ARRAY_WRITEABLE_ : 0, nullptr);
  if (made == nullptr) throw py::error_already_set();
  py::array array = py::reinterpret_steal<py::array>(made);
  Py_INCREF(base.ptr());  // the call takes this reference, too
  if (api.PyArray_SetBaseObject_(made, base.ptr()) != 0) throw py::error_already_set();
  return array;
}

}  // namespace ais::bind
