// The worker's end of one arena: takes tasks and publishes their results.
//
//   next -> the task and its feeds, over the slot -> write outputs with task.writer -> finish
//
// Threads: one at a time; any thread may call close(). Several tasks may be taken before the first one is finished, and they
// may be finished in any order.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "base/status.hpp"
#include "shm/bell.hpp"
#include "shm/frame.hpp"
#include "shm/layout.hpp"
#include "shm/memfd.hpp"
#include "shm/ring.hpp"

namespace ais::shm {

struct StageTimes {
  std::int64_t copy_in_ns = 0;
  std::int64_t execute_ns = 0;
  std::int64_t copy_out_ns = 0;
  std::int64_t preprocess_ns = 0;  // time of the caller's functions around the model
  std::int64_t postprocess_ns = 0;
  std::uint16_t unknown = 0;  // bits of UnknownTime
};

struct PortTask {
  std::uint64_t seq = 0;
  std::uint16_t mode = 0;
  Kind kind = Kind::kTensors;
  std::uint64_t option = 0;
  std::int64_t picked_ns = 0;
  // How often the parent has released memory of slots. It releases none of this task's slots until the task is answered.
  std::uint64_t punched = 0;
  std::vector<TensorView> feeds;
  FrameWriter writer;  // over the result slot
  Span result;
};

enum class Next { kTask, kTimeout, kInterrupted, kClosed };

class Port {
 public:
  // Takes ownership of both descriptors. Corrupt, with both values, if this code cannot serve the arena.
  static Result<std::unique_ptr<Port>> attach(Fd arena, Fd parent_bell);

  // Waits for the next task until `deadline_ns` of CLOCK_MONOTONIC. `out` is reused to save allocations. kClosed once the lane
  // is closed and everything published was taken. Corrupt: the parent wrote invalid data; the lane is then closed.
  Result<Next> next(std::int64_t deadline_ns, PortTask* out);

  // Several threads may publish, each its own tasks.
  // Publishes the contents of task->writer. OutOfMemory if there is no room; then nothing is published.
  Status finish(PortTask* task, Kind kind, const StageTimes& times);
  // Publishes a failure. A long text is truncated.
  Status fail(PortTask* task, Code code, std::string_view text, std::int64_t vendor_code, const StageTimes& times);
  // Publishes that the outputs need `needed_bytes`. The parent then submits the task again with that much room.
  Status too_large(PortTask* task, std::uint64_t needed_bytes);

  void close();
  bool closed() const;
  const std::shared_ptr<Region>& region() const { return region_; }

 private:
  Port(std::shared_ptr<Region> region, std::shared_ptr<Bell> parent_bell);
  Result<bool> try_next(PortTask* out);
  bool nap_in_stream();
  Status publish(const PortTask& task, ResultDescriptor result, const StageTimes& times);

  const std::shared_ptr<Region> region_;
  Header* const header_;
  const std::shared_ptr<Bell> bell_;
  const Doorbell parent_bell_;
  const Doorbell own_bell_;
  const Span data_;
  Consumer<TaskDescriptor> tasks_;
  Producer<ResultDescriptor> results_;
  std::mutex publishing_;
  std::uint64_t taken_since_nap_ = 0;
};

}  // namespace ais::shm
