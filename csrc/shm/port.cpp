// The worker's end: see port.hpp for the steps, and layout.hpp for the rules of access.
#include "shm/port.hpp"

#include <time.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/process.hpp"
#include "shm/copy.hpp"

namespace ais::shm {
namespace {

Status check_value(const char* name, std::uint64_t found, std::uint64_t wanted) {
  if (found == wanted) return Status();
  return Status(Code::kCorrupt, std::string("the shared memory's ") + name + " is " + std::to_string(found) + ", expected " +
                                    std::to_string(wanted) + ": both processes must run the same version");
}

Status check_geometry(const Geometry& geometry, std::size_t region_bytes) {
  AIS_TRY(check_value("magic number", geometry.magic, kMagic));
  AIS_TRY(check_value("layout version", geometry.version, kVersion));
  AIS_TRY(check_value("number of ring slots", geometry.ring_slots, kRingSlots));
  AIS_TRY(check_value("size", geometry.arena_bytes, region_bytes));
  return check_value("data offset", geometry.data_offset, kDataOffset);
}

}  // namespace

Result<std::unique_ptr<Port>> Port::attach(Fd arena, Fd parent_bell) {
  AIS_ASSIGN(std::shared_ptr<Region> region, Region::attach(std::move(arena), kDataOffset));
  AIS_ASSIGN(std::shared_ptr<Bell> bell, Bell::attach(std::move(parent_bell)));
  Geometry geometry;
  fetch(&geometry, region->data(), sizeof geometry);
  AIS_TRY(check_geometry(geometry, region->size()));
  set_plain_copies(geometry.plain_copies == 1);
  region->populate(kDataOffset, std::min<std::uint64_t>(geometry.warm_bytes, region->size() - kDataOffset));
  return std::unique_ptr<Port>(new Port(std::move(region), std::move(bell)));
}

Port::Port(std::shared_ptr<Region> region, std::shared_ptr<Bell> parent_bell)
    : region_(std::move(region)),
      header_(reinterpret_cast<Header*>(region_->data())),
      bell_(std::move(parent_bell)),
      parent_bell_(bell_->doorbell()),
      own_bell_(&header_->worker_bell.value),
      data_{kDataOffset, region_->size() - kDataOffset},
      tasks_(&header_->task_write.value, &header_->task_read.value, region_->data() + kTaskRingOffset),
      results_(&header_->result_write.value, &header_->result_read.value, region_->data() + kResultRingOffset) {}

Result<Next> Port::next(std::int64_t deadline_ns, PortTask* out) {
  while (true) {
    const std::uint32_t ticket = own_bell_.ticket();
    const bool was_closed = closed();  // read before the check, so that tasks published before the close are taken
    Result<bool> taken = try_next(out);
    if (!taken.ok()) {
      close();
      return taken.take_status();
    }
    if (taken.value()) return Next::kTask;
    if (was_closed) return Next::kClosed;
    if (nap_in_stream()) continue;
    const std::int64_t spin_ns = header_->spin_ns.load(std::memory_order_relaxed);  // a hint
    switch (own_bell_.wait(ticket, deadline_ns, spin_ns)) {
      case Wake::kRung:
        break;
      case Wake::kTimeout:
        return Next::kTimeout;
      case Wake::kInterrupted:
        return Next::kInterrupted;
    }
  }
}

// In a stream of short tasks the worker is faster than the parent, and would block before each task. A nap needs no wake-up, so
// it saves the parent a system call for each task, and several tasks arrive during it. If none arrives, the worker blocks.
bool Port::nap_in_stream() {
  const std::uint32_t nap_ns = header_->nap_ns.load(std::memory_order_relaxed);  // a hint
  if (nap_ns == 0 || taken_since_nap_ == 0) return false;
  taken_since_nap_ = 0;
  const timespec nap{0, static_cast<long>(std::min<std::uint32_t>(nap_ns, 1'000'000))};
  nanosleep(&nap, nullptr);  // a signal ends it early, which does no harm
  return true;
}

Result<bool> Port::try_next(PortTask* out) {
  TaskDescriptor task;
  AIS_ASSIGN(const bool popped, tasks_.try_pop(&task));
  if (!popped) return false;
  out->picked_ns = monotonic_ns();
  ++taken_since_nap_;
  if (task.kind > static_cast<std::uint16_t>(Kind::kObject)) {
    return Status(Code::kCorrupt, "a task of kind " + std::to_string(task.kind));
  }
  if (!data_.holds(task.result_offset, task.result_bytes) || task.result_bytes < kPayloadAlignment ||
      task.result_offset % kPayloadAlignment != 0) {
    return Status(Code::kCorrupt, "a task with its result slot at " + std::to_string(task.result_offset) + " with " +
                                      std::to_string(task.result_bytes) + " bytes");
  }
  AIS_TRY(read_frame(region_->data(), {task.table_offset, task.table_bytes}, data_, data_, &out->feeds));
  out->seq = task.seq;
  out->mode = task.mode;
  out->kind = static_cast<Kind>(task.kind);
  out->option = task.option;
  out->punched = header_->punched.load(std::memory_order_relaxed);
  out->result = {task.result_offset, task.result_bytes};
  out->writer.reset(region_->data(), out->result);
  return true;
}

Status Port::finish(PortTask* task, Kind kind, const StageTimes& times) {
  Span table;
  if (!task->writer.finish(&table)) {
    return Status(Code::kOutOfMemory, "the outputs need " + std::to_string(task->writer.needed()) +
                                          " bytes, their slot in shared memory has " + std::to_string(task->result.bytes));
  }
  ResultDescriptor result{};
  result.table_offset = table.offset;
  result.table_bytes = static_cast<std::uint32_t>(table.bytes);
  result.kind = static_cast<std::uint16_t>(kind);
  return publish(*task, result, times);
}

Status Port::fail(PortTask* task, Code code, std::string_view text, std::int64_t vendor_code, const StageTimes& times) {
  constexpr std::size_t kLongestText = 16 << 10;  // fits in the smallest result slot
  const auto length = static_cast<std::int64_t>(std::min(text.size(), kLongestText));
  const std::int64_t codes[2] = {static_cast<std::int64_t>(code), vendor_code};
  const std::int64_t two = 2;
  task->writer.reset(region_->data(), task->result);
  void* text_room = task->writer.reserve(0, DType::kUInt8, &length, 1, static_cast<std::size_t>(length));
  void* code_room = task->writer.reserve(1, DType::kInt64, &two, 1, sizeof codes);
  if (text_room != nullptr && code_room != nullptr) {
    std::memcpy(text_room, text.data(), static_cast<std::size_t>(length));
    std::memcpy(code_room, codes, sizeof codes);
  }
  return finish(task, Kind::kError, times);
}

Status Port::too_large(PortTask* task, std::uint64_t needed_bytes) {
  ResultDescriptor result{};
  result.needed_bytes = needed_bytes;
  result.kind = static_cast<std::uint16_t>(Kind::kTooLarge);
  return publish(*task, result, StageTimes());
}

Status Port::publish(const PortTask& task, ResultDescriptor result, const StageTimes& times) {
  const std::lock_guard<std::mutex> one_at_a_time(publishing_);
  result.seq = task.seq;
  result.picked_ns = task.picked_ns;
  result.done_ns = monotonic_ns();
  result.copy_in_ns = static_cast<float>(times.copy_in_ns);
  result.execute_ns = static_cast<float>(times.execute_ns);
  result.copy_out_ns = static_cast<float>(times.copy_out_ns);
  result.preprocess_ns = static_cast<float>(times.preprocess_ns);
  result.postprocess_ns = static_cast<float>(times.postprocess_ns);
  result.unknown = times.unknown;
  AIS_ASSIGN(const bool pushed, results_.try_push(result));
  if (!pushed) return Status(Code::kCorrupt, "the parent did not take replies to tasks that it counts as answered");
  parent_bell_.ring();
  return Status();
}

void Port::close() {
  header_->closed.store(1, std::memory_order_release);  // SYNC(close)
  own_bell_.ring();
  parent_bell_.ring();
}

bool Port::closed() const { return header_->closed.load(std::memory_order_acquire) != 0; }  // SYNC(close)

}  // namespace ais::shm
