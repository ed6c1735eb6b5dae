// numpy's data handler, and the blocks it keeps.
#include "bind/recycling.hpp"

#include <malloc.h>
#include <pybind11/numpy.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <vector>

namespace ais::bind {
namespace {

constexpr std::size_t kStep = 4096;      // blocks are multiples of it
constexpr std::size_t kSmallest = 1024;  // the C library keeps smaller ones at hand for each thread
constexpr std::size_t kClasses = 16;     // up to 64 KiB; larger outputs are lent, not copied
constexpr std::size_t kMost = std::size_t{8} << 20;

// Blocks of the C library, by how many steps they hold at least. Any thread.
class Blocks {
 public:
  void* take(std::size_t bytes) {
    const std::size_t steps = steps_for(bytes);
    if (steps == 0) return std::malloc(bytes);
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      std::vector<void*>& kept = kept_[steps];
      if (!kept.empty()) {
        void* block = kept.back();
        kept.pop_back();
        bytes_ -= steps * kStep;
        return block;
      }
    }
    return std::malloc(steps * kStep);
  }

  void give(void* block) {
    // By what the block holds, whatever its array said last.
    const std::size_t steps = malloc_usable_size(block) / kStep;
    if (steps >= 1 && steps <= kClasses && keep(block, steps)) return;
    std::free(block);
  }

 private:
  static std::size_t steps_for(std::size_t bytes) {
    return bytes < kSmallest || bytes > kClasses * kStep ? 0 : (bytes + kStep - 1) / kStep;
  }

  bool keep(void* block, std::size_t steps) {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (bytes_ + steps * kStep > kMost) return false;
    try {
      kept_[steps].push_back(block);
    } catch (const std::bad_alloc&) {
      return false;
    }
    bytes_ += steps * kStep;
    return true;
  }

  std::mutex mutex_;
  std::array<std::vector<void*>, kClasses + 1> kept_;
  std::size_t bytes_ = 0;
};

// Never destroyed: arrays may outlive everything.
Blocks& blocks() {
  static auto* const all = new Blocks();
  return *all;
}

// PyDataMem_Handler of numpy's C API, version 1.
struct Handler {
  char name[127];
  std::uint8_t version;
  void* context;
  void* (*malloc)(void*, std::size_t);
  void* (*calloc)(void*, std::size_t, std::size_t);
  void* (*realloc)(void*, void*, std::size_t);
  void (*free)(void*, void*, std::size_t);
};

py::handle handler() {
  static Handler ours = {
      "ais_bench",
      1,
      nullptr,
      [](void*, std::size_t bytes) { return blocks().take(bytes); },
      [](void*, std::size_t count, std::size_t bytes) { return std::calloc(count, bytes); },
      [](void*, void* block, std::size_t bytes) { return std::realloc(block, bytes); },
      [](void*, void* block, std::size_t) { blocks().give(block); },
  };
  static const py::handle capsule = py::capsule(&ours, "mem_handler").release();
  return capsule;
}

using SetHandler = PyObject* (*)(PyObject*);

// PyDataMem_SetHandler: slot 304 of numpy's C API since 1.22.
SetHandler set_handler() {
  static const SetHandler found = [] {
    const py::object api = py::detail::import_numpy_core_submodule("multiarray").attr("_ARRAY_API");
    return reinterpret_cast<SetHandler>(static_cast<void**>(PyCapsule_GetPointer(api.ptr(), nullptr))[304]);
  }();
  return found;
}

}  // namespace

void Recycling::prepare() { set_handler(); }

Recycling::Recycling() : before_(py::reinterpret_steal<py::object>(set_handler()(handler().ptr()))) {
  if (!before_) throw py::error_already_set();
}

Recycling::~Recycling() {
  py::error_scope keep;  // of an exception on its way through
  PyObject* const ours = set_handler()(before_.ptr());
  if (ours == nullptr) PyErr_Clear();  // then later arrays have such memory, too, which is as good
  Py_XDECREF(ours);
}

}  // namespace ais::bind
