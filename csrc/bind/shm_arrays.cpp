// Conversion without numpy's headers: pybind11 carries numpy's C table.
#include "bind/shm_arrays.hpp"

#include <cstring>
#include <string>
#include <unordered_map>

namespace ais::bind {
namespace {

using NumpyApi = py::detail::npy_api;


constexpr std::string_view kNumpyDTypes[] = {
#define AIS_DTYPE(name, number, bits, numpy) numpy,
    AIS_DTYPES(AIS_DTYPE)
#undef AIS_DTYPE
};
constexpr DType kDTypes[] = {
#define AIS_DTYPE(name, number, bits, numpy) DType::k##name,
    AIS_DTYPES(AIS_DTYPE)
#undef AIS_DTYPE
};

// Both directions, made at the first use and never freed: interpreters end without asking static objects.
struct DTypeTables {
  std::unordered_map<int, DType> by_type_num;
  std::unordered_map<std::int32_t, PyObject*> by_number;

  DTypeTables() {
    const py::object ml_dtypes = py::module_::import("ml_dtypes");
    for (std::size_t i = 0; i < std::size(kDTypes); ++i) {
      const std::string name(kNumpyDTypes[i]);
      py::object spec = py::str(name);
      if (py::hasattr(ml_dtypes, name.c_str())) spec = ml_dtypes.attr(name.c_str());
      py::dtype dtype = py::dtype::from_args(spec);
      by_type_num.emplace(dtype.num(), kDTypes[i]);
      by_number.emplace(static_cast<std::int32_t>(kDTypes[i]), dtype.release().ptr());
    }
    // The C types of one size are two types to numpy (long and long long).
    for (const auto& [code, dtype] : {std::pair("q", DType::kInt64), std::pair("Q", DType::kUInt64)}) {
      by_type_num.emplace(py::dtype(code).num(), dtype);
    }
  }
};

const DTypeTables& tables() {
  static const DTypeTables* const made = new DTypeTables();
  return *made;
}

bool native_order(char byteorder) { return byteorder == '=' || byteorder == '|' || byteorder == '<'; }

[[noreturn]] void raise_feed_error(const std::string& message) {
  raise_if_error(Status(Code::kFeedMismatch, message));
  throw std::logic_error("unreachable");
}

// numpy keeps a 4-bit element in a byte; a device packs two, the first in the low half.
void pack(std::uint8_t* out, const std::uint8_t* elements, std::size_t count) {
  for (std::size_t i = 0; i < count; i += 2) {
    const std::uint8_t high = i + 1 < count ? elements[i + 1] : 0;
    out[i / 2] = static_cast<std::uint8_t>((elements[i] & 0x0f) | (high << 4));
  }
}

void unpack(std::uint8_t* elements, const std::uint8_t* packed, std::size_t count, bool is_signed) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto nibble = static_cast<std::uint8_t>(i % 2 == 0 ? packed[i / 2] & 0x0f : packed[i / 2] >> 4);
    elements[i] = is_signed && (nibble & 0x08) != 0 ? static_cast<std::uint8_t>(nibble | 0xf0) : nibble;
  }
}

std::size_t count_of(const std::int64_t* dims, std::size_t rank) {
  std::size_t count = 1;
  for (std::size_t i = 0; i < rank; ++i) count *= static_cast<std::size_t>(dims[i]);
  return count;
}

py::object make_array(DType dtype, const std::int64_t* dims, std::size_t rank, void* data, bool writable) {
  static_assert(sizeof(Py_intptr_t) == sizeof(std::int64_t));
  const auto found = tables().by_number.find(static_cast<std::int32_t>(dtype));
  if (found == tables().by_number.end()) throw std::logic_error("a tensor of an unknown type passed the frame's check");
  auto& api = NumpyApi::get();
  Py_INCREF(found->second);  // stolen by the next call
  PyObject* array = api.PyArray_NewFromDescr_(
      api.PyArray_Type_, found->second, static_cast<int>(rank), reinterpret_cast<const Py_intptr_t*>(dims), nullptr, data,
      data != nullptr && writable ? NumpyApi::NPY_ARRAY_WRITEABLE_ : 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(array);
}

}  // namespace

bool same_layout(DType dtype) { return dtype_bits(dtype) % 8 == 0; }

DType tensor_dtype(const py::dtype& dtype) {
  if (!native_order(dtype.byteorder())) return DType::kUndefined;
  const auto found = tables().by_type_num.find(dtype.num());
  return found == tables().by_type_num.end() ? DType::kUndefined : found->second;
}

FeedArrays::FeedArrays(py::handle feeds, const shm::Region* region) : frame_bytes_(2 * shm::kPayloadAlignment) {
  if (PyBytes_Check(feeds.ptr()) || PyUnicode_Check(feeds.ptr()) || !py::hasattr(feeds, "__iter__")) {
    raise_feed_error(std::string("feeds are a sequence of arrays, not ") + Py_TYPE(feeds.ptr())->tp_name);
  }
  // A tuple, because the caller may change a list while Python code runs below or the GIL is released.
  sequence_ = py::reinterpret_steal<py::object>(PySequence_Tuple(feeds.ptr()));
  if (!sequence_) throw py::error_already_set();
  arrays_.reserve(static_cast<std::size_t>(PyTuple_GET_SIZE(sequence_.ptr())));
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(sequence_.ptr()); ++i) add(PyTuple_GET_ITEM(sequence_.ptr(), i));
  for (FeedArray& array : arrays_) {
    frame_bytes_ += 24 + 8 * array.rank;
    array.in_arena = region != nullptr && array.bytes != 0 && region->contains(array.data) && same_layout(array.dtype) &&
                     reinterpret_cast<std::uintptr_t>(array.data) % shm::kPayloadAlignment == 0;
    if (array.in_arena) {
      any_in_arena_ = true;
      continue;
    }
    frame_bytes_ += shm::aligned(array.bytes, shm::kPayloadAlignment);
    copied_bytes_ += array.bytes;
  }
}

void FeedArrays::add(py::handle feed) {
  auto& api = NumpyApi::get();
  py::handle source = feed;
  if (!api.PyArray_Check_(source.ptr())) {
    static PyObject* const as_array = py::object(py::module_::import("numpy").attr("asarray")).release().ptr();
    // Only what speaks numpy's protocols is an array here: a list or a number is a mistake in this API.
    if (!py::hasattr(feed, "__array__") && !PyObject_CheckBuffer(feed.ptr())) {
      raise_feed_error("an input is an array, not " + std::string(Py_TYPE(feed.ptr())->tp_name));
    }
    copies_.push_back(py::handle(as_array)(feed));
    source = copies_.back();
  }
  py::dtype dtype = py::reinterpret_borrow<py::array>(source).dtype();
  if (!native_order(dtype.byteorder())) {
    copies_.push_back(source.attr("astype")(dtype.attr("newbyteorder")("=")));
    source = copies_.back();
    dtype = py::reinterpret_borrow<py::array>(source).dtype();
  }
  const int wanted = NumpyApi::NPY_ARRAY_C_CONTIGUOUS_ | NumpyApi::NPY_ARRAY_ALIGNED_;
  if ((py::detail::array_proxy(source.ptr())->flags & wanted) != wanted) {
    copies_.push_back(source.attr("copy")("C"));
    source = copies_.back();
  }
  const auto* array = py::detail::array_proxy(source.ptr());
  const DType type = tensor_dtype(dtype);
  if (type == DType::kUndefined) {
    raise_feed_error("an input of dtype " + std::string(py::str(dtype)) + " has no counterpart on a device");
  }
  const auto* dims = reinterpret_cast<const std::int64_t*>(array->dimensions);
  const auto rank = static_cast<std::size_t>(array->nd);
  arrays_.push_back({array->data, packed_bytes(type, count_of(dims, rank)), type, dims, rank, false});
}

py::list FeedArrays::copy() const {
  py::list copies;
  for (const FeedArray& array : arrays_) {
    py::object made = make_array(array.dtype, array.dims, array.rank, nullptr, true);
    const std::size_t bytes = same_layout(array.dtype) ? array.bytes : count_of(array.dims, array.rank);
    if (bytes != 0) std::memcpy(py::detail::array_proxy(made.ptr())->data, array.data, bytes);
    copies.append(std::move(made));
  }
  return copies;
}

bool FeedArrays::write(shm::FrameWriter* writer, const shm::Region& region) const {
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    const FeedArray& array = arrays_[i];
    if (array.in_arena) {
      const auto offset = static_cast<const std::uint8_t*>(array.data) - region.data();
      writer->refer(i, array.dtype, array.dims, array.rank, array.bytes, static_cast<std::uint64_t>(offset));
      continue;
    }
    void* room = writer->reserve(i, array.dtype, array.dims, array.rank, array.bytes);
    if (room == nullptr || array.bytes == 0) continue;
    if (same_layout(array.dtype)) {
      std::memcpy(room, array.data, array.bytes);
    } else {
      pack(static_cast<std::uint8_t*>(room), static_cast<const std::uint8_t*>(array.data), count_of(array.dims, array.rank));
    }
  }
  return !writer->full();
}

py::object copy_tensor(const TensorView& tensor) {
  py::object array = make_array(tensor.dtype, tensor.shape.data(), tensor.shape.size(), nullptr, true);
  void* out = py::detail::array_proxy(array.ptr())->data;
  if (tensor.bytes == 0) return array;
  if (!same_layout(tensor.dtype)) {
    const std::size_t count = count_of(tensor.shape.data(), tensor.shape.size());
    unpack(static_cast<std::uint8_t*>(out), static_cast<const std::uint8_t*>(tensor.data), count, tensor.dtype == DType::kInt4);
  } else if (tensor.bytes >= kLarge) {
    const py::gil_scoped_release release;
    std::memcpy(out, tensor.data, tensor.bytes);
  } else {
    std::memcpy(out, tensor.data, tensor.bytes);
  }
  return array;
}

py::object view_tensor(const TensorView& tensor, py::handle base, bool writable) {
  py::object array = make_array(tensor.dtype, tensor.shape.data(), tensor.shape.size(), tensor.data, writable);
  Py_INCREF(base.ptr());  // stolen by the next call
  if (NumpyApi::get().PyArray_SetBaseObject_(array.ptr(), base.ptr()) != 0) throw py::error_already_set();
  return array;
}

}  // namespace ais::bind
