// A context on one device. Every call needs it, and it owns everything that was made in it.
//
// Lifetime: models and buffers share a context, and the last of them closes it: first residents (models, pipelines), the newest
// first, then memory, the context, and the device. finalize() closes contexts early; the remaining objects then return Closed
// and free nothing. Threads: AscendCL's current context belongs to a thread. So every use begins with enter(), which makes this
// context current, and the end of the use restores the context of another library. close() waits until no thread is inside, and
// no thread can enter afterwards. Processes: in a forked child nothing is entered or released.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/process.hpp"
#include "device/acl/acl_api.hpp"
#include "device/acl/acl_product.hpp"
#include "device/device.hpp"
#include "device/registered.hpp"

namespace ais::acl {

// Returns the error of calls after finalize(), and in a forked child.
Status closed_status();
Status forked_status();

// An object that a context must release before its memory. It may hold buffers of the context until release().
class Resident {
 public:
  virtual ~Resident() = default;
  // Called once, with the context current, when no thread uses the resident.
  virtual void release() = 0;
};

// Restores a thread's current context at the end of a scope. A context of this library is restored only inside another scope,
// because no other code expects it. Otherwise it stays current, so that the next use on this thread needs no change.
class CurrentContext {
 public:
  explicit CurrentContext(const AclApi& api);
  CurrentContext(CurrentContext&& other) noexcept
      : api_(std::exchange(other.api_, nullptr)), before_(other.before_), put_back_(other.put_back_) {}
  CurrentContext& operator=(CurrentContext&&) = delete;
  ~CurrentContext() { end(); }

  Status set(aclrtContext context);
  // Must be called before a call that makes another context current by itself.
  void will_change();
  void end();

 private:
  const AclApi* api_;
  aclrtContext before_ = nullptr;  // null: there was none
  bool put_back_ = false;
};

class AclContext : public std::enable_shared_from_this<AclContext> {
 public:
  // Takes a reference to the device, and makes a context on it.
  static Result<std::shared_ptr<AclContext>> open(const AclApi& api, int device_id, HostRegister host_register);
  ~AclContext();
  AclContext(const AclContext&) = delete;
  AclContext& operator=(const AclContext&) = delete;

  // A use of the context, which is current on this thread. The same thread must end the use.
  class Entry {
   public:
    Entry(AclContext* context, const AclApi& api) : context_(context), current_(api) {}
    Entry(Entry&& other) noexcept : context_(std::exchange(other.context_, nullptr)), current_(std::move(other.current_)) {}
    Entry& operator=(Entry&&) = delete;
    ~Entry() {
      current_.end();
      if (context_ != nullptr) context_->leave();
    }

   private:
    friend class AclContext;
    AclContext* context_;
    CurrentContext current_;
  };
  Result<Entry> enter();
  // interrupted() of base/interrupt.hpp, for a wait during a use. The handlers may change the thread's context, so this context
  // is made current again.
  bool wait_interrupted() const;

  const AclApi& api() const { return api_; }
  aclrtContext handle() const { return handle_; }
  int device_id() const { return device_id_; }

  // Returns whether aclrtStreamAbort may work: the library has it, the product may support it, and it was not refused.
  bool can_abort() const { return can_abort_.load(std::memory_order_relaxed); }
  // Returns the reason why not, as the end of a sentence.
  std::string why_no_abort() const;
  // Makes the stream drop its work, if possible; otherwise the work ends by itself. Call it during a use.
  void abort(aclrtStream stream);

  // Allocates at least `bytes` of device memory, 64-byte aligned. Freed memory is kept for the next allocation of this size.
  Result<device::Buffer> allocate(std::size_t bytes);
  // The same for a size that is not needed again: freed memory is returned to the device at once.
  Result<device::Buffer> allocate_for_good(std::size_t bytes);
  // Returns free and total bytes of the device's memory.
  Result<device::MemoryInfo> memory();
  // Adds the available memory to an OutOfMemory error.
  Status with_memory(Status status);
  // Takes ownership of memory that the library allocated; it is not reused. Call it during a use.
  device::Buffer adopt(void* data, std::size_t bytes);
  // Allocates host memory for fast copies and for asynchronous copies.
  Result<device::Buffer> allocate_pinned(std::size_t bytes);
  Status copy(void* to, const void* from, std::size_t bytes, MemcpyKind kind);
  Status register_host(void* host, std::size_t bytes);
  Status unregister_host(void* host);
  // Device::host_memory of csrc/device/device.hpp. The first call tries to register a page like those of a pool's slots.
  std::string host_memory();
  // Returns whether all of it is in one registered range.
  bool is_registered(const void* host, std::size_t bytes) const;

  void add(std::shared_ptr<Resident> resident);
  // Releases the resident, unless close() does.
  void remove(const std::shared_ptr<Resident>& resident);
  // Returns cached memory to the device.
  void trim();
  // Closes the context as described above. Idempotent.
  void close();

 private:
  AclContext(const AclApi& api, int device_id, aclrtContext handle, HostRegister host_register);
  Status check_registering() const;
  Status try_registering();
  Status refused(Status status);

  bool come_in();
  void leave();
  Status set_current() const { return ACL_CALL(api_, aclrtSetCurrentContext, handle_); }
  Result<void*> new_block(std::size_t size);
  Result<device::Buffer> allocate(std::size_t bytes, bool cacheable);
  void* cached_block(std::size_t size);
  void give_back(void* block, std::size_t size, bool cacheable);
  void free_pinned(void* block);
  void release_all();

  const AclApi& api_;
  const int device_id_;
  const aclrtContext handle_;
  const std::uint64_t generation_;
  const std::string soc_;
  const HostRegister host_register_;
  std::atomic<bool> can_abort_;

  mutable std::mutex lock_;  // guards the members below; never held during a call of the library that may wait
  std::condition_variable left_;
  int inside_ = 0;
  bool closed_ = false;
  std::vector<std::shared_ptr<Resident>> residents_;
  std::unordered_set<void*> blocks_;                 // device memory, in use or cached
  std::map<std::size_t, std::vector<void*>> cache_;  // by size
  std::size_t cached_bytes_ = 0;
  std::unordered_set<void*> pinned_;
  std::string host_memory_;        // "": not queried yet
  device::Registered registered_;  // size 0: unregistering failed
};

}  // namespace ais::acl
