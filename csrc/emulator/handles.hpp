// Handles: the opaque pointers of an AscendCL program.
//
// A handle contains a kind and a unique number. Its address cannot be mapped (0x5A.. above a non-zero byte: not canonical on
// x86-64 or aarch64), so a program that dereferences it faults. The emulator always recognises a handle that was destroyed or
// has another kind, because numbers are not used again.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace ais::emulator {

enum class Kind : std::uint8_t {
  kContext = 1,
  kStream,
  kEvent,
  kBuffer,
  kDataset,
  kModelDesc,
  kTensorDesc,
  kAipp,
  kLoadConfig,
  kExecConfig,
  kProfConfig,
  kProfStamp,
  kException,
  kModel,  // a number, not a handle; listed for its name
};

// "stream", "dataset"...
const char* kind_name(Kind kind);

constexpr std::uint64_t kHandleTag = 0x5AULL << 56;

inline void* make_handle(Kind kind, std::uint64_t id) {
  return reinterpret_cast<void*>(kHandleTag | (static_cast<std::uint64_t>(kind) << 48) | id);
}

// Returns "stream#3" if `pointer` is a handle of a live or destroyed object; otherwise "".
std::string handle_name(const void* pointer);

// All live objects of one kind. A caller that found an object may read and change it. As in the real library, only the aclrt
// objects have locks.
template <typename T, Kind K>
class HandleTable {
 public:
  void* add(std::shared_ptr<T> object) {
    const std::lock_guard<std::mutex> lock(mutex_);
    void* handle = make_handle(K, ++last_id_);
    living_.emplace(handle, std::move(object));
    return handle;
  }

  std::shared_ptr<T> find(const void* handle) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = living_.find(handle);
    return found == living_.end() ? nullptr : found->second;
  }

  // Returns the object and removes it from the table.
  std::shared_ptr<T> take(const void* handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = living_.find(handle);
    if (found == living_.end()) return nullptr;
    std::shared_ptr<T> object = std::move(found->second);
    living_.erase(found);
    return object;
  }

  std::vector<std::pair<const void*, std::shared_ptr<T>>> all() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {living_.begin(), living_.end()};
  }

  std::size_t size() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return living_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::map<const void*, std::shared_ptr<T>> living_;
  std::uint64_t last_id_ = 0;
};

}  // namespace ais::emulator
