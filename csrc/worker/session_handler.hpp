// Runs a model on tasks: feeds are read from their slot, outputs of known shape are written by the device into theirs.
#pragma once

#include <memory>
#include <vector>

#include "session/session.hpp"
#include "worker/handler.hpp"

namespace ais::worker {

class SessionHandler : public Handler {
 public:
  explicit SessionHandler(std::shared_ptr<session::Session> session) : session_(std::move(session)) {}
  Status run(const shm::Task& task, shm::FrameWriter* out, shm::RunTimes* times) override;

 private:
  const std::shared_ptr<session::Session> session_;
  std::vector<session::Feed> feeds_;  // kept for its memory
};

}  // namespace ais::worker
