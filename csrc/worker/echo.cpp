// The handler that returns its feeds.
#include <cstring>

#include "base/process.hpp"
#include "worker/handler.hpp"

namespace ais::worker {

Status EchoHandler::run(const shm::PortTask& task, shm::FrameWriter* out, shm::StageTimes* times) {
  const std::int64_t begun = monotonic_ns();
  for (std::size_t i = 0; task.mode != 1 && i < task.feeds.size(); ++i) {
    const TensorView& feed = task.feeds[i];
    void* room = out->reserve(i, feed.dtype, feed.shape.data(), feed.shape.size(), feed.bytes);
    if (room != nullptr && feed.bytes != 0) std::memcpy(room, feed.data, feed.bytes);
  }
  const auto until = begun + static_cast<std::int64_t>(task.option) * 1000;
  while (monotonic_ns() < until) {
  }
  times->execute_ns = monotonic_ns() - begun;
  return Status();
}

}  // namespace ais::worker
