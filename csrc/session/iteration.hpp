// Runs whose inputs are outputs of the run before, without leaving the device.
//
// Two sets of output buffers take turns, A and B: a step reads the set the step before wrote and writes the other. So no input
// ever shares memory with an output of the same run, whatever the chain of outputs and inputs, and nothing is copied. What a
// step needs of the runtime is bound once for each turn and kept while the chain stays the same.
//
//   first:  feeds      -> A
//   step 1: feeds + A  -> B          step 2: feeds + B -> A          step 3 as step 1, ...
//
// An input that is not chained keeps the memory it had. Outputs of unknown shape come from the runtime, new in each run.
// Threads: calls from several threads take turns. Once the session is closed, or in a forked child, every call fails.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "session/session.hpp"

namespace ais::session {

class Iteration {
 public:
  // The session knows it, to release it when it is closed.
  static std::shared_ptr<Iteration> open(std::shared_ptr<Session> session);

  // The first run. Copies the feeds, so the caller's memory is free afterwards.
  Status first(const std::vector<Feed>& feeds, ShapeRule rule);

  // One more run. chain[i] is the output that input i takes, negative to leave the input as it is.
  Status step(const std::vector<int>& chain);

  // The outputs of the last run, in memory of their own.
  Result<std::vector<Tensor>> outputs() const;
  // The same, copied to the host.
  Status deliver(OutputSink* sink) const;

  // Gives model and memory back, after the run that is executing. There is no going on after it.
  void release();

 private:
  explicit Iteration(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  struct Turn {
    std::vector<device::Buffer> memory;        // one an output of known shape
    std::unique_ptr<device::Binding> binding;  // writes into memory; null until it is needed
  };

  Status check_chain(const std::vector<int>& chain) const;
  Status apply_chain(const std::vector<int>& chain);
  Status run_turn();

  const std::shared_ptr<Session> session_;
  mutable std::mutex lock_;  // guards the rest; taken after the session is known to be of this process
  std::shared_ptr<device::Model> model_;
  std::vector<TensorView> inputs_;     // of the next run
  std::vector<device::Buffer> owned_;  // one an input: its memory where it is not an output's
  std::vector<device::Output> last_;   // of the last run
  std::vector<int> chain_;
  Turn turns_[2];
  int turn_ = 0;  // whose memory the next run writes
};

}  // namespace ais::session
