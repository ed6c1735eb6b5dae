// A context on one device: what every call needs, and the owner of everything that was made in it.
//
// Lifetime: models and buffers share a context, and the last of them closes it: residents (models,
// pipelines) first, the newest foremost, then memory, the context, and the device. finalize() closes contexts early; then what
// is left outside is empty shells that answer Closed and free nothing. Threads: AscendCL's current context belongs to a thread,
// so every use begins with enter(), which makes this one current, and the context that another library had there is put back
// when the use ends. close() waits until nobody is inside, and nobody gets in after. Processes: in a forked child nothing is
// entered and nothing is released.
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

namespace ais::acl {

// What calls answer after finalize(), and in a forked child.
Status closed_status();
Status forked_status();

// What a context must give back before its memory. It may hold buffers of the context, until release().
class Resident {
 public:
  virtual ~Resident() = default;
  // Called once, with the context current, and nobody using the resident.
  virtual void release() = 0;
};

// Keeps a thread's current context for whoever made it current: what this library does to it within the scope is undone at the
// end. A context of this library's own is put back only within another scope, because nobody else expects it; one that nobody
// expects stays current, so that the next use on the thread finds it there.
class CurrentContext {
 public:
  explicit CurrentContext(const Api& api);
  CurrentContext(CurrentContext&& other) noexcept
      : api_(std::exchange(other.api_, nullptr)), before_(other.before_), put_back_(other.put_back_) {}
  CurrentContext& operator=(CurrentContext&&) = delete;
  ~CurrentContext() { end(); }

  Status set(aclrtContext context);
  // For calls that make another context current by themselves.
  void will_change();
  void end();

 private:
  const Api* api_;
  aclrtContext before_ = nullptr;  // null: there was none
  bool put_back_ = false;
};

class AclContext : public std::enable_shared_from_this<AclContext> {
 public:
  // Takes a reference to the device and makes a context on it.
  static Result<std::shared_ptr<AclContext>> open(const Api& api, int device_id, HostRegister host_register);
  ~AclContext();
  AclContext(const AclContext&) = delete;
  AclContext& operator=(const AclContext&) = delete;

  // Being inside. The context is current on the thread that entered, which is the one that leaves.
  class Entry {
   public:
    Entry(AclContext* context, const Api& api) : context_(context), current_(api) {}
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
  // interrupted() of base/interrupt.hpp, for a wait that is inside. The handlers may use a library that changes the thread's
  // context, so this one is made current again.
  bool wait_interrupted() const;

  const Api& api() const { return api_; }
  aclrtContext handle() const { return handle_; }
  int device_id() const { return device_id_; }

  // Whether aclrtStreamAbort may work here: the library has it, the product's manual does not deny it, and it was not refused.
  bool can_abort() const { return can_abort_.load(std::memory_order_relaxed); }
  // Why not, as the end of a sentence.
  std::string why_no_abort() const;
  // Makes the stream drop its work, where that can be done; else the work ends by itself. Called inside.
  void abort(aclrtStream stream);

  // Device memory for at least `bytes`, 64-byte aligned. Freed memory is kept for the next allocation of the same size.
  Result<device::Buffer> allocate(std::size_t bytes);
  // The same for memory of a size that will not be asked for again: freed memory goes back to the device at once.
  Result<device::Buffer> allocate_for_good(std::size_t bytes);
  // Free and total bytes of the device's memory.
  Result<device::MemoryInfo> memory();
  // The status, with what memory is left where it is OutOfMemory.
  Status with_memory(Status status);
  // Takes over memory that the library allocated; nobody reuses it. Called inside.
  device::Buffer adopt(void* data, std::size_t bytes);
  // Host memory that copies use at full speed, and that asynchronous copies need.
  Result<device::Buffer> allocate_pinned(std::size_t bytes);
  Status copy(void* to, const void* from, std::size_t bytes, MemcpyKind kind);
  Status register_host(void* host, std::size_t bytes);
  Status unregister_host(void* host);
  // Device::host_memory of csrc/device/device.hpp. The first call tries with a page of the kind that a pool's slots are made
  // of.
  std::string host_memory();
  // Whether all of it lies in one piece of memory that is registered.
  bool is_registered(const void* host, std::size_t bytes) const;

  void add(std::shared_ptr<Resident> resident);
  // Releases the resident, unless close() did or does.
  void remove(const std::shared_ptr<Resident>& resident);
  // Gives cached memory back to the device.
  void trim();
  // As described above. Idempotent.
  void close();

 private:
  AclContext(const Api& api, int device_id, aclrtContext handle, HostRegister host_register);
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

  const Api& api_;
  const int device_id_;
  const aclrtContext handle_;
  const std::uint64_t generation_;
  const std::string soc_;
  const HostRegister host_register_;
  std::atomic<bool> can_abort_;

  mutable std::mutex lock_;  // guards what follows; never held during a call into the library that may wait
  std::condition_variable left_;
  int inside_ = 0;
  bool closed_ = false;
  std::vector<std::shared_ptr<Resident>> residents_;
  std::unordered_set<void*> blocks_;                 // device memory, in use or cached
  std::map<std::size_t, std::vector<void*>> cache_;  // by size
  std::size_t cached_bytes_ = 0;
  std::unordered_set<void*> pinned_;
  std::string host_memory_;                           // "": nobody has asked
  std::map<std::uintptr_t, std::size_t> registered_;  // addresses and sizes; 0: not any more, but it failed
};

}  // namespace ais::acl
