// Enters a context, manages its memory, closes it.
#include "device/acl/acl_context.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "base/interrupt.hpp"
#include "base/memory.hpp"
#include "base/tuning.hpp"
#include "device/acl/acl_product.hpp"

namespace ais::acl {
namespace {

// The live contexts of this library.
struct OwnContexts {
  std::mutex lock;
  std::unordered_set<aclrtContext> handles;  // guarded by lock
};

OwnContexts& own_contexts() {
  static PerProcess<OwnContexts> contexts;
  return contexts.get();
}

bool is_own(aclrtContext handle) {
  OwnContexts& own = own_contexts();
  const std::lock_guard<std::mutex> guard(own.lock);
  return own.handles.count(handle) != 0;
}

thread_local int t_scopes = 0;  // CurrentContexts of this thread that exist now

std::size_t rounded(std::size_t bytes) {
  return (bytes + tuning::kDeviceBlock - 1 + (bytes == 0 ? 1 : 0)) / tuning::kDeviceBlock * tuning::kDeviceBlock;
}

std::string soc_name(const AclApi& api) {
  const char* name = api.aclrtGetSocName();
  return name == nullptr ? "" : name;
}

}  // namespace

Status closed_status() {
  return Status(Code::kClosed, "finalize() ended the use of the device that this belongs to; make a new InferSession");
}

Status forked_status() {
  return Status(
      Code::kForkedChild,
      "AscendCL was initialised in the process that this one was forked from, and does not survive that; start workers as "
      "new processes (spawn, or MultiDeviceSession, which does)");
}

CurrentContext::CurrentContext(const AclApi& api) : api_(&api) {
  ++t_scopes;
  if (api.aclrtGetCurrentContext(&before_) == 0) return;
  before_ = nullptr;
  static_cast<void>(api.aclGetRecentErrMsg());  // discard its error text: having no context is not a failure
}

void CurrentContext::end() {
  const AclApi* api = std::exchange(api_, nullptr);
  if (api == nullptr) return;
  --t_scopes;
  if (put_back_) static_cast<void>(api->aclrtSetCurrentContext(before_));  // the context may have been destroyed meanwhile
}

void CurrentContext::will_change() { put_back_ = before_ != nullptr && (t_scopes > 1 || !is_own(before_)); }

Status CurrentContext::set(aclrtContext context) {
  if (context == before_) return Status();
  will_change();
  return ACL_CALL(*api_, aclrtSetCurrentContext, context);
}

AclContext::AclContext(const AclApi& api, int device_id, aclrtContext handle, HostRegister host_register)
    : api_(api),
      device_id_(device_id),
      handle_(handle),
      generation_(fork_generation()),
      soc_(soc_name(api)),
      host_register_(host_register),
      can_abort_(api.aclrtStreamAbort != nullptr && product_of(soc_).aborts_streams) {
  OwnContexts& own = own_contexts();
  const std::lock_guard<std::mutex> guard(own.lock);
  own.handles.insert(handle);
}

Result<std::shared_ptr<AclContext>> AclContext::open(const AclApi& api, int device_id, HostRegister host_register) {
  CurrentContext current(api);
  current.will_change();  // both calls make another context current
  AIS_TRY(ACL_CALL(api, aclrtSetDevice, device_id));
  aclrtContext handle = nullptr;
  if (Status status = ACL_CALL(api, aclrtCreateContext, &handle, device_id); !status.ok()) {
    ACL_RELEASE(api, aclrtResetDevice, device_id);
    return status;
  }
  return std::shared_ptr<AclContext>(new AclContext(api, device_id, handle, host_register));
}

AclContext::~AclContext() { close(); }

bool AclContext::come_in() {
  const std::lock_guard<std::mutex> guard(lock_);
  if (closed_) return false;
  ++inside_;
  return true;
}

void AclContext::leave() {
  const std::lock_guard<std::mutex> guard(lock_);
  if (--inside_ == 0) left_.notify_all();
}

Result<AclContext::Entry> AclContext::enter() {
  if (generation_ != fork_generation()) return forked_status();
  if (!come_in()) return closed_status();
  Entry entry(this, api_);
  AIS_TRY(entry.current_.set(handle_));
  return entry;
}

bool AclContext::wait_interrupted() const {
  const bool result = interrupted();
  static_cast<void>(set_current());  // if this fails, the next call fails, too, and reports it
  return result;
}

void AclContext::abort(aclrtStream stream) {
  if (!can_abort()) return;
  const Status status = ACL_CALL(api_, aclrtStreamAbort, stream);
  if (status.code() == Code::kUnsupported) can_abort_ = false;  // it will not work later, either
}

std::string AclContext::why_no_abort() const {
  if (api_.aclrtStreamAbort == nullptr) return "this AscendCL has no aclrtStreamAbort";
  return (soc_.empty() ? "this NPU" : soc_) + " does not support aclrtStreamAbort";
}

void* AclContext::cached_block(std::size_t size) {
  const std::lock_guard<std::mutex> guard(lock_);
  const auto found = cache_.find(size);
  if (found == cache_.end()) return nullptr;
  void* block = found->second.back();
  found->second.pop_back();
  if (found->second.empty()) cache_.erase(found);
  cached_bytes_ -= size;
  return block;
}

Result<void*> AclContext::new_block(std::size_t size) {
  void* block = nullptr;
  Status status = ACL_CALL(api_, aclrtMalloc, &block, size, kHugeFirst);
  if (status.code() == Code::kOutOfMemory) {
    trim();  // the cache may have the missing memory
    status = ACL_CALL(api_, aclrtMalloc, &block, size, kHugeFirst);
  }
  AIS_TRY(std::move(status).with_context("device " + std::to_string(device_id_) + ", " + std::to_string(size) + " bytes"));
  const std::lock_guard<std::mutex> guard(lock_);
  blocks_.insert(block);
  return block;
}

Result<device::Buffer> AclContext::allocate(std::size_t bytes) { return allocate(bytes, true); }

Result<device::Buffer> AclContext::allocate_for_good(std::size_t bytes) { return allocate(bytes, false); }

Result<device::Buffer> AclContext::allocate(std::size_t bytes, bool cacheable) {
  AIS_ASSIGN(const Entry inside, enter());
  const std::size_t size = rounded(bytes);
  if (size < bytes) return Status(Code::kOutOfMemory, "no device has " + std::to_string(bytes) + " bytes of memory");
  void* block = cacheable ? cached_block(size) : nullptr;
  if (block == nullptr) {
    AIS_ASSIGN(block, new_block(size));
  }
  auto self = shared_from_this();
  const auto give_back = [self, size, cacheable](void* data) { self->give_back(data, size, cacheable); };
  return device::Buffer{std::shared_ptr<void>(block, give_back), bytes};
}

// A board with HBM answers the query for DDR with zeros or an error, and the other way round.
Result<device::MemoryInfo> AclContext::memory() {
  if (api_.aclrtGetMemInfo == nullptr) return Status(Code::kUnsupported, "this AscendCL has no aclrtGetMemInfo");
  AIS_ASSIGN(const Entry inside, enter());
  Status status;
  for (const MemoryAttr attr : {kHbm, kDdr}) {
    device::MemoryInfo info;
    status = ACL_CALL(api_, aclrtGetMemInfo, attr, &info.free, &info.total);
    if (status.ok() && info.total != 0) return info;
  }
  return status.ok() ? Status(Code::kUnsupported, "AscendCL reports no memory of the device") : std::move(status);
}

Status AclContext::with_memory(Status status) {
  if (status.code() != Code::kOutOfMemory) return status;
  const Result<device::MemoryInfo> left = memory();
  if (!left.ok()) return status;
  const auto mib = [](std::size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
  return Status(status.code(),
                status.message() + " (device " + std::to_string(device_id_) + " has " + mib(left.value().free) + " free of " +
                    mib(left.value().total) + ")",
                status.vendor_code());
}

device::Buffer AclContext::adopt(void* data, std::size_t bytes) {
  {
    const std::lock_guard<std::mutex> guard(lock_);
    blocks_.insert(data);
  }
  auto self = shared_from_this();
  return device::Buffer{std::shared_ptr<void>(data, [self](void* block) { self->give_back(block, 0, false); }), bytes};
}

// The deleter of a shared pointer, so it does not throw. Without memory for the cache entry, the context frees the block.
void AclContext::give_back(void* block, std::size_t size, bool cacheable) try {
  Result<Entry> inside = enter();
  if (!inside.ok()) return;  // closed: everything was freed. In a forked child the memory belongs to the parent.
  {
    const std::lock_guard<std::mutex> guard(lock_);
    if (cacheable && size <= tuning::kDeviceCacheBytes - cached_bytes_) {
      cache_[size].push_back(block);
      cached_bytes_ += size;
      return;
    }
    blocks_.erase(block);
  }
  ACL_RELEASE(api_, aclrtFree, block);
} catch (const std::bad_alloc&) {
}

void AclContext::trim() {
  std::map<std::size_t, std::vector<void*>> cache;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    cache.swap(cache_);
    cached_bytes_ = 0;
    for (const auto& entry : cache) {
      for (void* block : entry.second) blocks_.erase(block);
    }
  }
  for (const auto& entry : cache) {
    for (void* block : entry.second) ACL_RELEASE(api_, aclrtFree, block);
  }
}

Result<device::Buffer> AclContext::allocate_pinned(std::size_t bytes) {
  AIS_ASSIGN(const Entry inside, enter());
  void* block = nullptr;
  AIS_TRY(ACL_CALL(api_, aclrtMallocHost, &block, rounded(bytes)));
  {
    const std::lock_guard<std::mutex> guard(lock_);
    pinned_.insert(block);
  }
  auto self = shared_from_this();
  return device::Buffer{std::shared_ptr<void>(block, [self](void* data) { self->free_pinned(data); }), bytes};
}

void AclContext::free_pinned(void* block) try {
  Result<Entry> inside = enter();
  if (!inside.ok()) return;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    pinned_.erase(block);
  }
  ACL_RELEASE(api_, aclrtFreeHost, block);
} catch (const std::bad_alloc&) {
}

Status AclContext::copy(void* to, const void* from, std::size_t bytes, MemcpyKind kind) {
  if (bytes == 0) return Status();
  AIS_ASSIGN(const Entry inside, enter());
  return ACL_CALL(api_, aclrtMemcpy, to, bytes, from, bytes, kind);
}

// All libraries export the call, but only some products support it. Up to kernel 5.10 it accepts memory that cannot be pinned,
// and copies of such memory fail.
Status AclContext::check_registering() const {
  std::string why;
  if (host_register_ == HostRegister::kOff) {
    why = "host_register is 'off'";
  } else if (api_.aclrtHostRegisterV2 == nullptr || api_.aclrtHostUnregister == nullptr) {
    why = "this AscendCL has no aclrtHostRegisterV2";
  } else if (host_register_ == HostRegister::kAuto && !product_of(soc_).registers_host) {
    why = soc_ + " does not support aclrtHostRegisterV2";
  } else if (host_register_ == HostRegister::kAuto && !kernel_pins()) {
    why = "kernel " + kernel_release() + " is not newer than 5.10";
  }
  return why.empty() ? Status() : Status(Code::kUnsupported, why);
}

Status AclContext::try_registering() {
  AIS_TRY(check_registering());
  return with_one_page([this](void* page, std::size_t bytes) {
    AIS_TRY(register_host(page, bytes));
    return unregister_host(page);
  });
}

std::string AclContext::host_memory() {
  {
    const std::lock_guard<std::mutex> guard(lock_);
    if (!host_memory_.empty()) return host_memory_;
  }
  const Status status = try_registering();
  const std::lock_guard<std::mutex> guard(lock_);
  if (status.ok() && !host_memory_.empty()) return host_memory_;  // a slot was refused in the meantime
  host_memory_ = status.ok() ? "registered" : "page-locked (" + status.message() + ")";
  return host_memory_;
}

Status AclContext::register_host(void* host, std::size_t bytes) {
  AIS_TRY(check_registering());
  AIS_ASSIGN(const Entry inside, enter());
  // It is not documented which memory can be pinned, so any error counts as a refusal.
  Status status = api_.check(api_.aclrtHostRegisterV2(host, bytes, kRegisterPinned), "aclrtHostRegisterV2", Code::kUnsupported);
  if (!status.ok()) return refused(std::move(status));
  const std::lock_guard<std::mutex> guard(lock_);
  registered_[reinterpret_cast<std::uintptr_t>(host)] = bytes;
  return Status();
}

// From now on host_memory() reports the refusal. No more memory is registered, and registered memory stays registered.
Status AclContext::refused(Status status) {
  const std::lock_guard<std::mutex> guard(lock_);
  const bool some = std::any_of(registered_.begin(), registered_.end(), [](const auto& entry) { return entry.second != 0; });
  host_memory_ = std::string(some ? "registered, and page-locked for more" : "page-locked") + " (" + status.message() + ")";
  return status;
}

bool AclContext::is_registered(const void* host, std::size_t bytes) const {
  const std::lock_guard<std::mutex> guard(lock_);
  return device::is_in_one_range(registered_, host, bytes);
}

Status AclContext::unregister_host(void* host) {
  AIS_ASSIGN(const Entry inside, enter());
  const auto address = reinterpret_cast<std::uintptr_t>(host);
  {
    const std::lock_guard<std::mutex> guard(lock_);
    const auto found = registered_.find(address);
    if (found == registered_.end()) return Status(Code::kInvalidArgument, "this memory was not registered here");
    found->second = 0;  // it is not used any more; if the call fails, close() tries again
  }
  if (Status status = ACL_CALL(api_, aclrtHostUnregister, host); !status.ok()) return refused(std::move(status));
  const std::lock_guard<std::mutex> guard(lock_);
  registered_.erase(address);
  return Status();
}

void AclContext::add(std::shared_ptr<Resident> resident) {
  const std::lock_guard<std::mutex> guard(lock_);
  residents_.push_back(std::move(resident));
}

void AclContext::remove(const std::shared_ptr<Resident>& resident) {
  Result<Entry> inside = enter();
  if (!inside.ok()) return;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    residents_.erase(std::remove(residents_.begin(), residents_.end(), resident), residents_.end());
  }
  resident->release();
}

void AclContext::close() {
  if (generation_ != fork_generation()) return;
  {
    std::unique_lock<std::mutex> guard(lock_);
    if (std::exchange(closed_, true)) return;
    left_.wait(guard, [this] { return inside_ == 0; });
  }
  release_all();
}

// No other thread is inside or can enter, so this needs no lock. After a failure the object stays until the process ends.
void AclContext::release_all() {
  CurrentContext current(api_);
  current.will_change();
  static_cast<void>(set_current().ok() || set_current().ok());
  while (!residents_.empty()) {
    residents_.back()->release();
    residents_.pop_back();
  }
  for (const auto& entry : registered_) ACL_RELEASE(api_, aclrtHostUnregister, reinterpret_cast<void*>(entry.first));
  for (void* block : pinned_) ACL_RELEASE(api_, aclrtFreeHost, block);
  for (void* block : blocks_) ACL_RELEASE(api_, aclrtFree, block);
  {
    OwnContexts& own = own_contexts();
    const std::lock_guard<std::mutex> guard(own.lock);
    own.handles.erase(handle_);
  }
  ACL_RELEASE(api_, aclrtDestroyContext, handle_);
  ACL_RELEASE(api_, aclrtResetDevice, device_id_);
}

}  // namespace ais::acl
