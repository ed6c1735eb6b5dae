// A stand-in for a provider library: the plugin interface of ONNX Runtime (onnxruntime_ep_c_api.h), with simulated devices.
//
// Its devices have memory that the host cannot access: pages are protected except during copies and executions. It runs the
// operator Neg over float32, and leaves all other operators to the processor. Environment variables set its properties:
//
//   STANDIN_DEVICES  number of devices
//   STANDIN_EXEC_MS  duration of an execution
//   STANDIN_COPY_MS  duration of a copy
//   STANDIN_BYTES    memory of each device
//   STANDIN_LOST     "D:N": device D fails from its execution N on
//   STANDIN_STAGING  1: the devices offer host memory for copies
//   STANDIN_LOG      a file to which each process that loads the library writes lines:
//
//     its process id; "run D" for each execution of device D; "in D", "out D" and "within D" for each copy; "staged D" if the
//     copy used the offered host memory; "overlap D" if the copy began during an execution
//
// Built with -DSTANDIN_NAME='"CUDAExecutionProvider"', -DSTANDIN_VENDOR=0x10DE and linked with fake_cudart.cpp, it stands for
// the provider for CUDA. Then it also writes "registered D" for a copy from or to registered host memory. A copy in a thread
// whose current device is another one fails, and so does an execution in a thread with an error that nobody took back.
//
// The functions of ONNX Runtime are taken from its tables by number, so its headers are not needed.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

// Null without fake_cudart.cpp.
extern "C" {
int fakeCudaError() __attribute__((weak));
int fakeCudaDevice() __attribute__((weak));
bool fakeCudaIsRegistered(const void* host, std::size_t bytes) __attribute__((weak));
}

namespace {

constexpr std::uint32_t kApiVersion = 23;
#ifndef STANDIN_VENDOR
#define STANDIN_VENDOR 0xBE57
#endif
constexpr std::uint32_t kVendor = STANDIN_VENDOR;  // ONNX Runtime finds allocators and copies by the vendor
#ifndef STANDIN_NAME
#define STANDIN_NAME "StandInExecutionProvider"
#endif
constexpr const char* kName = STANDIN_NAME;
constexpr int kFail = 1;
constexpr int kEpFail = 11;
constexpr int kGpuMemory = 1;
constexpr int kDeviceMemory = 0;
constexpr int kHostAccessible = 5;
using Opaque = void;  // a type of the runtime's
using Answer = Opaque*;

const void* const* g_api = nullptr;
const void* const* g_ep_api = nullptr;

template <typename F>
F* ort(int slot) {
  return reinterpret_cast<F*>(const_cast<void*>(g_api[slot]));
}
template <typename F>
F* ep(int slot) {
  return reinterpret_cast<F*>(const_cast<void*>(g_ep_api[slot]));
}

Answer failure(int code, const std::string& text) { return ort<Answer(int, const char*)>(0)(code, text.c_str()); }

#define TRY(call) \
  if (Answer answer_ = (call); answer_ != nullptr) return answer_

long number(const char* name, long fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtol(text, nullptr, 10);
}
void log(const std::string& line) {
  const char* name = std::getenv("STANDIN_LOG");
  if (name == nullptr) return;
  const int fd = open(name, O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (fd < 0 || write(fd, (line + "\n").data(), line.size() + 1) < 0) std::abort();
  close(fd);
}

// ---- memory that the host may not touch ----

struct Block {
  std::size_t bytes = 0;
  int device = 0;
  int users = 0;  // who may touch it now
};
std::mutex g_lock;
std::map<std::uintptr_t, Block> g_blocks;  // guarded by g_lock, as what follows
std::map<int, std::size_t> g_used;

std::size_t rounded(std::size_t bytes) { return (bytes + 4095) / 4096 * 4096 + 4096; }

void* take_block(int device, std::size_t bytes) {
  const std::lock_guard<std::mutex> guard(g_lock);
  const long limit = number("STANDIN_BYTES", 0);
  if (limit > 0 && g_used[device] + bytes > static_cast<std::size_t>(limit)) return nullptr;
  void* at = mmap(nullptr, rounded(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  g_used[device] += bytes;
  g_blocks[reinterpret_cast<std::uintptr_t>(at)] = {bytes, device, 0};
  return at;
}

void give_block(void* at) {
  const std::lock_guard<std::mutex> guard(g_lock);
  const auto found = g_blocks.find(reinterpret_cast<std::uintptr_t>(at));
  if (found == g_blocks.end()) return;
  g_used[found->second.device] -= found->second.bytes;
  munmap(at, rounded(found->second.bytes));
  g_blocks.erase(found);
}

// Lets the device touch the block that an address lies in, if it is one of a device.
class Touch {
 public:
  explicit Touch(const void* at) { change(at, 1); }
  ~Touch() { change(nullptr, -1); }
  Touch(const Touch&) = delete;
  Touch& operator=(const Touch&) = delete;

 private:
  void change(const void* at, int by) {
    const std::lock_guard<std::mutex> guard(g_lock);
    if (by > 0) {
      auto next = g_blocks.upper_bound(reinterpret_cast<std::uintptr_t>(at));
      if (next == g_blocks.begin()) return;
      --next;
      if (reinterpret_cast<std::uintptr_t>(at) > next->first + next->second.bytes) return;
      key_ = next->first;
    }
    const auto found = g_blocks.find(key_);
    if (key_ == 0 || found == g_blocks.end()) return;
    found->second.users += by;
    mprotect(reinterpret_cast<void*>(key_), rounded(found->second.bytes),
             found->second.users > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
  std::uintptr_t key_ = 0;
};

// ---- the allocator ----

struct Allocator {
  std::uint32_t version = kApiVersion;
  void* (*Alloc)(Allocator*, std::size_t);
  void (*Free)(Allocator*, void*);
  const Opaque* (*Info)(const Allocator*);
  void* (*Reserve)(Allocator*, std::size_t) = nullptr;
  Answer (*GetStats)(const Allocator*, Opaque**) = nullptr;
  void* (*AllocOnStream)(Allocator*, std::size_t, Opaque*) = nullptr;
  const Opaque* info = nullptr;
  int device = 0;
  bool staging = false;  // host memory
};

int kind_of(const Opaque* info) { return ep<int(const Opaque*)>(10)(ep<const Opaque*(const Opaque*)>(6)(info)); }

Allocator* make_allocator(const Opaque* info) {
  auto* made = new Allocator;
  made->Alloc = [](Allocator* self, std::size_t bytes) {
    return self->staging ? std::malloc(bytes) : take_block(self->device, bytes);
  };
  made->Free = [](Allocator* self, void* at) { self->staging ? std::free(at) : give_block(at); };
  made->Info = [](const Allocator* self) { return self->info; };
  made->info = info;
  made->staging = kind_of(info) == kHostAccessible;
  if (Answer answer = ort<Answer(const Opaque*, int*)>(72)(info, &made->device); answer != nullptr) std::abort();
  return made;
}

// ---- copies ----

// Does one thing after the other, each for a given time. Like a device, it needs no processor of the host to go on: if the
// threads that wait for it wake up late, it is not late itself.
class Engine {
 public:
  using Clock = std::chrono::steady_clock;
  // Takes the next turn, and returns its begin. Wait for its end.
  Clock::time_point take(long ms, Clock::time_point* end) {
    const std::lock_guard<std::mutex> guard(lock_);
    const Clock::time_point now = Clock::now();
    if (free_at_ < now) busy_since_ = now;
    const Clock::time_point begin = std::max(free_at_, now);
    *end = free_at_ = begin + std::chrono::milliseconds(ms);
    return begin;
  }
  bool is_busy(Clock::time_point when) {
    const std::lock_guard<std::mutex> guard(lock_);
    return busy_since_ <= when && when < free_at_;
  }

 private:
  std::mutex lock_;
  Clock::time_point busy_since_;  // guarded by lock_, as what follows: since then it has never been idle
  Clock::time_point free_at_;
};

// A device has an engine for copies in each direction, and one that executes.
struct Engines {
  Engine in;
  Engine out;
  Engine execute;
  std::atomic<long> executions{0};
};
Engines& engines(int device) {
  static std::mutex lock;
  static auto* const all = new std::map<int, std::unique_ptr<Engines>>;
  const std::lock_guard<std::mutex> guard(lock);
  std::unique_ptr<Engines>& made = (*all)[device];
  if (made == nullptr) made = std::make_unique<Engines>();
  return *made;
}

bool is_mine(const Opaque* memory_device) { return ep<std::uint32_t(const Opaque*)>(11)(memory_device) == kVendor; }
bool is_device(const Opaque* memory_device) {
  return is_mine(memory_device) && ep<int(const Opaque*)>(10)(memory_device) == kDeviceMemory;
}

struct DataTransfer {
  std::uint32_t version = kApiVersion;
  void (*Release)(DataTransfer*);
  bool (*CanCopy)(const DataTransfer*, const Opaque*, const Opaque*);
  Answer (*CopyTensors)(DataTransfer*, const Opaque**, Opaque**, Opaque**, std::size_t);
};

Answer copy(DataTransfer*, const Opaque** from, Opaque** to, Opaque**, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t bytes = 0;
    const void* source = nullptr;
    void* target = nullptr;
    TRY((ort<Answer(const Opaque*, std::size_t*)>(318)(from[i], &bytes)));
    TRY((ort<Answer(const Opaque*, const void**)>(378)(from[i], &source)));
    TRY((ort<Answer(Opaque*, void**)>(51)(to[i], &target)));
    // ONNX Runtime goes on with what an allocator could not give.
    if (bytes != 0 && (source == nullptr || target == nullptr)) return failure(kFail, "stand-in device: out of memory");
    const Opaque* const where = ep<const Opaque*(const Opaque*)>(7)(to[i]);
    const Opaque* const origin = ep<const Opaque*(const Opaque*)>(7)(from[i]);
    const bool inward = is_device(where);
    const int device = static_cast<int>(ep<std::uint32_t(const Opaque*)>(12)(inward ? where : origin));
    Engines& all = engines(device);
    Engine::Clock::time_point end;
    const auto begin = (inward ? all.in : all.out).take(number("STANDIN_COPY_MS", 0), &end);
    log((!inward ? "out " : is_device(origin) ? "within " : "in ") + std::to_string(device));
    if (is_mine(where) && is_mine(origin) && is_device(where) != is_device(origin)) log("staged " + std::to_string(device));
    if (all.execute.is_busy(begin)) log("overlap " + std::to_string(device));
    if (fakeCudaDevice != nullptr && fakeCudaDevice() != device) return failure(kFail, "stand-in device: not the current one");
    if (fakeCudaIsRegistered != nullptr && fakeCudaIsRegistered(inward ? source : target, bytes)) {
      log("registered " + std::to_string(device));
    }
    std::this_thread::sleep_until(end);
    const Touch reading(source);
    const Touch writing(target);
    std::memcpy(target, source, bytes);
  }
  return nullptr;
}

// ---- executing ----

struct Compute {
  std::uint32_t version = kApiVersion;
  Answer (*CreateState)(Compute*, Opaque*, void**);
  Answer (*Run)(Compute*, void*, Opaque*);
  void (*ReleaseState)(Compute*, void*);
  int device = 0;
};

bool is_lost(int device, long execution) {
  const char* text = std::getenv("STANDIN_LOST");
  int lost = -1;
  long from = 0;
  return text != nullptr && std::sscanf(text, "%d:%ld", &lost, &from) == 2 && device == lost && execution >= from;
}

Answer negate(Compute* self, void*, Opaque* context) {
  const Opaque* input = nullptr;
  TRY((ort<Answer(const Opaque*, std::size_t, const Opaque**)>(90)(context, 0, &input)));
  Opaque* info = nullptr;
  TRY((ort<Answer(const Opaque*, Opaque**)>(65)(input, &info)));
  std::size_t rank = 0;
  std::size_t elements = 0;
  TRY((ort<Answer(const Opaque*, std::size_t*)>(61)(info, &rank)));
  std::vector<std::int64_t> shape(rank);
  TRY((ort<Answer(const Opaque*, std::int64_t*, std::size_t)>(62)(info, shape.data(), rank)));
  TRY((ort<Answer(const Opaque*, std::size_t*)>(64)(info, &elements)));
  ort<void(Opaque*)>(99)(info);
  Opaque* output = nullptr;
  TRY((ort<Answer(Opaque*, std::size_t, const std::int64_t*, std::size_t, Opaque**)>(91)(context, 0, shape.data(), rank,
                                                                                         &output)));
  const void* from = nullptr;
  void* to = nullptr;
  TRY((ort<Answer(const Opaque*, const void**)>(378)(input, &from)));
  TRY((ort<Answer(Opaque*, void**)>(51)(output, &to)));
  if (elements != 0 && (from == nullptr || to == nullptr)) return failure(kFail, "stand-in device: out of memory");
  Engines& mine = engines(self->device);
  if (is_lost(self->device, mine.executions++)) {
    return failure(kEpFail, "stand-in device " + std::to_string(self->device) + " is lost");
  }
  if (fakeCudaError != nullptr && fakeCudaError() != 0) return failure(kFail, "stand-in device: an old error of CUDA");
  log("run " + std::to_string(self->device));
  Engine::Clock::time_point end;
  mine.execute.take(number("STANDIN_EXEC_MS", 0), &end);
  std::this_thread::sleep_until(end);
  const Touch reading(from);
  const Touch writing(to);
  for (std::size_t i = 0; i < elements; ++i) static_cast<float*>(to)[i] = -static_cast<const float*>(from)[i];
  return nullptr;
}

// ---- the provider ----

struct Provider {
  std::uint32_t version = kApiVersion;
  const char* (*GetName)(const Provider*);
  Answer (*GetCapability)(Provider*, const Opaque*, Opaque*);
  Answer (*Compile)(Provider*, const Opaque**, const Opaque**, std::size_t, Compute**, Opaque**);
  void (*ReleaseNodeComputeInfos)(Provider*, Compute**, std::size_t);
  void* unused[21] = {};
  int device = 0;
};

Answer capability(Provider*, const Opaque* graph, Opaque* support) {
  std::size_t count = 0;
  TRY((ort<Answer(const Opaque*, std::size_t*)>(344)(graph, &count)));
  std::vector<const Opaque*> nodes(count);
  TRY((ort<Answer(const Opaque*, const Opaque**, std::size_t)>(345)(graph, nodes.data(), count)));
  for (const Opaque* node : nodes) {
    const char* type = nullptr;
    TRY((ort<Answer(const Opaque*, const char**)>(350)(node, &type)));
    if (std::strcmp(type, "Neg") != 0) continue;
    struct {
      std::uint32_t version = kApiVersion;
      bool drop_constants = false;
    } options;
    TRY((ep<Answer(Opaque*, const Opaque* const*, std::size_t, const void*)>(2)(support, &node, 1, &options)));
  }
  return nullptr;
}

Answer compile(Provider* self, const Opaque**, const Opaque**, std::size_t count, Compute** infos, Opaque**) {
  for (std::size_t i = 0; i < count; ++i) {
    auto* made = new Compute;
    made->CreateState = [](Compute*, Opaque*, void** state) -> Answer {
      *state = nullptr;
      return nullptr;
    };
    made->Run = negate;
    made->ReleaseState = [](Compute*, void*) {};
    made->device = self->device;
    infos[i] = made;
  }
  return nullptr;
}

// ---- the factory ----

struct Factory {
  std::uint32_t version = kApiVersion;
  const char* (*GetName)(const Factory*);
  const char* (*GetVendor)(const Factory*);
  Answer (*GetSupportedDevices)(Factory*, const Opaque* const*, std::size_t, Opaque**, std::size_t, std::size_t*);
  Answer (*CreateEp)(Factory*, const Opaque* const*, const Opaque* const*, std::size_t, const Opaque*, const Opaque*,
                     Provider**);
  void (*ReleaseEp)(Factory*, Provider*);
  std::uint32_t (*GetVendorId)(const Factory*);
  const char* (*GetVersion)(const Factory*);
  Answer (*ValidateCompiledModel)(Factory*, const Opaque* const*, std::size_t, const char*, int*);
  Answer (*CreateAllocator)(Factory*, const Opaque*, const Opaque*, Allocator**);
  void (*ReleaseAllocator)(Factory*, Allocator*);
  Answer (*CreateDataTransfer)(Factory*, DataTransfer**);
  bool (*IsStreamAware)(const Factory*);
  Answer (*CreateSyncStream)(Factory*, const Opaque*, const Opaque*, Opaque**);
  void* unused[7] = {};
};

Answer supported(Factory* self, const Opaque* const* hardware, std::size_t count, Opaque** devices, std::size_t most,
                 std::size_t* found) {
  *found = 0;
  for (std::size_t h = 0; h < count; ++h) {
    if (ort<int(const Opaque*)>(307)(hardware[h]) != 0) continue;  // they stand beside the processor
    const long wanted = number("STANDIN_DEVICES", 2);
    for (long id = 0; id < wanted; ++id) {
      if (*found == most) return failure(kFail, "the runtime takes " + std::to_string(most) + " devices");
      Opaque* metadata = nullptr;
      ort<void(Opaque**)>(295)(&metadata);
      ort<void(Opaque*, const char*, const char*)>(296)(metadata, "standin_id", std::to_string(id).c_str());
      Answer answer = ep<Answer(Factory*, const Opaque*, const Opaque*, const Opaque*, Opaque**)>(0)(
          self, hardware[h], metadata, nullptr, &devices[*found]);
      ort<void(Opaque*)>(300)(metadata);
      if (answer != nullptr) return answer;
      Opaque* memory = nullptr;
      TRY((ort<Answer(const char*, int, std::uint32_t, std::int32_t, int, std::size_t, int, Opaque**)>(320)(
          "StandIn", kGpuMemory, kVendor, static_cast<std::int32_t>(id), 0, 0, 0, &memory)));
      TRY((ep<Answer(Opaque*, const Opaque*)>(5)(devices[*found], memory)));
      if (number("STANDIN_STAGING", 0) != 0) {
        Opaque* staging = nullptr;
        TRY((ort<Answer(const char*, int, std::uint32_t, std::int32_t, int, std::size_t, int, Opaque**)>(320)(
            "StandInStaging", kGpuMemory, kVendor, static_cast<std::int32_t>(id), kHostAccessible, 0, 0, &staging)));
        TRY((ep<Answer(Opaque*, const Opaque*)>(5)(devices[*found], staging)));
      }
      ++*found;
    }
    return nullptr;
  }
  return nullptr;
}

Answer create(Factory*, const Opaque* const*, const Opaque* const* metadata, std::size_t, const Opaque*, const Opaque*,
              Provider** out) {
  auto* made = new Provider;
  made->GetName = [](const Provider*) { return kName; };
  made->GetCapability = capability;
  made->Compile = compile;
  made->ReleaseNodeComputeInfos = [](Provider*, Compute** infos, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) delete infos[i];
  };
  const char* id = ort<const char*(const Opaque*, const char*)>(297)(metadata[0], "standin_id");
  made->device = id == nullptr ? 0 : std::atoi(id);
  *out = made;
  return nullptr;
}

Factory* make_factory() {
  auto* made = new Factory;
  made->GetName = [](const Factory*) { return kName; };
  made->GetVendor = [](const Factory*) { return "Stand-in"; };
  made->GetSupportedDevices = supported;
  made->CreateEp = create;
  made->ReleaseEp = [](Factory*, Provider* provider) { delete provider; };
  made->GetVendorId = [](const Factory*) { return kVendor; };
  made->GetVersion = [](const Factory*) { return "1.0.0"; };
  made->ValidateCompiledModel = [](Factory*, const Opaque* const*, std::size_t, const char*, int* fit) -> Answer {
    *fit = 0;
    return nullptr;
  };
  made->CreateAllocator = [](Factory*, const Opaque* info, const Opaque*, Allocator** out) -> Answer {
    *out = make_allocator(info);
    return nullptr;
  };
  made->ReleaseAllocator = [](Factory*, Allocator* allocator) { delete allocator; };
  made->CreateDataTransfer = [](Factory*, DataTransfer** out) -> Answer {
    auto* transfer = new DataTransfer;
    transfer->Release = [](DataTransfer* self) { delete self; };
    transfer->CanCopy = [](const DataTransfer*, const Opaque* from, const Opaque* to) {
      return is_device(from) || is_device(to);
    };
    transfer->CopyTensors = copy;
    *out = transfer;
    return nullptr;
  };
  made->IsStreamAware = [](const Factory*) { return false; };
  made->CreateSyncStream = [](Factory*, const Opaque*, const Opaque*, Opaque** out) -> Answer {
    *out = nullptr;
    return nullptr;
  };
  return made;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) Answer CreateEpFactories(const char*, const void* base, const Opaque*,
                                                                Factory** factories, std::size_t most, std::size_t* count) {
  struct ApiBase {
    const void* const* (*GetApi)(std::uint32_t);
  };
  g_api = static_cast<const ApiBase*>(base)->GetApi(kApiVersion);
  if (g_api == nullptr || most == 0) return nullptr;
  g_ep_api = ort<const void* const*()>(317)();
  log(std::to_string(getpid()));
  factories[0] = make_factory();
  *count = 1;
  return nullptr;
}

__attribute__((visibility("default"))) Answer ReleaseEpFactory(Factory* factory) {
  delete factory;
  return nullptr;
}
}
