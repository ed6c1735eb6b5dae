// numpy's data handler, and the blocks that it keeps.
#include "bind/recycling.hpp"

#include <malloc.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "base/tuning.hpp"
#include "bind/numpy_abi.hpp"

namespace ais::bind {
namespace {

// Blocks of the C library, by their size in steps, rounded down. Any thread.
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
        bytes_ -= steps * tuning::kRecycledStep;
        return block;
      }
    }
    return std::malloc(steps * tuning::kRecycledStep);
  }

  void give(void* block) {
    // By the block's real size, whatever the size of its last array.
    const std::size_t steps = malloc_usable_size(block) / tuning::kRecycledStep;
    if (steps >= 1 && steps <= tuning::kRecycledClasses && keep(block, steps)) return;
    std::free(block);
  }

 private:
  static std::size_t steps_for(std::size_t bytes) {
    return bytes < tuning::kRecycledFrom || bytes > tuning::kRecycledClasses * tuning::kRecycledStep
               ? 0
               : (bytes + tuning::kRecycledStep - 1) / tuning::kRecycledStep;
  }

  bool keep(void* block, std::size_t steps) {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (bytes_ + steps * tuning::kRecycledStep > tuning::kRecycledBytes) return false;
    try {
      kept_[steps].push_back(block);
    } catch (const std::bad_alloc&) {
      return false;
    }
    bytes_ += steps * tuning::kRecycledStep;
    return true;
  }

  std::mutex mutex_;
  std::array<std::vector<void*>, tuning::kRecycledClasses + 1> kept_;
  std::size_t bytes_ = 0;
};

// Never destroyed, because arrays may outlive static objects.
Blocks& blocks() {
  static auto* const all = new Blocks();
  return *all;
}

py::handle handler() {
  static numpy_abi::DataHandler ours = {
      "ais_bench",
      numpy_abi::kHandlerVersion,
      nullptr,
      [](void*, std::size_t bytes) { return blocks().take(bytes); },
      [](void*, std::size_t count, std::size_t bytes) { return std::calloc(count, bytes); },
      [](void*, void* block, std::size_t bytes) { return std::realloc(block, bytes); },
      [](void*, void* block, std::size_t) { blocks().give(block); },
  };
  static const py::handle capsule = py::capsule(&ours, "mem_handler").release();
  return capsule;
}

}  // namespace

void Recycling::prepare() { numpy_abi::table(); }

Recycling::Recycling() : before_(py::reinterpret_steal<py::object>(numpy_abi::table().set_handler(handler().ptr()))) {
  if (!before_) throw py::error_already_set();
}

Recycling::~Recycling() {
  py::error_scope keep;  // an exception may be set
  PyObject* const ours = numpy_abi::table().set_handler(before_.ptr());
  if (ours == nullptr) PyErr_Clear();  // then later arrays use recycled memory, too, which does no harm
  Py_XDECREF(ours);
}

}  // namespace ais::bind
