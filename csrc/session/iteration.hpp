// Runs whose inputs are outputs of the previous run, without leaving the device.
//
// Two sets of output buffers alternate, A and B: a step reads the set that the previous step wrote, and writes the other one.
// So no input shares memory with an output of the same run, for any chain of outputs and inputs, and nothing is copied. The
// memory of each step is bound once for each set and kept while the chain stays the same.
//
//   first:  feeds      -> A
//   step 1: feeds + A  -> B          step 2: feeds + B -> A          step 3 as step 1, ...
//
// An input that is not chained keeps its memory. The runtime allocates outputs of unknown shape in each run. A chained output
// is checked like feeds (feeds.hpp): types, shapes, gears. A failed run leaves the state of the last successful run; only the
// contents of the memory that it would have written can no longer be kept as an input. Threads: calls from several threads take
// turns. Once the session is closed, or in a forked child, every call fails.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/guarded.hpp"
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

  Session& session() const { return *session_; }

  // Gives model and memory back, after the run that is executing. There is no going on after it.
  void release();

 private:
  explicit Iteration(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  struct Turn {
    std::vector<device::Buffer> memory;        // one an output of known shape
    std::unique_ptr<device::Binding> binding;  // reads `bound` and writes into memory; null until it is needed
    std::vector<TensorView> bound;
  };
  // The inputs of a run, and what keeps their memory where no turn does.
  struct Inputs {
    std::vector<TensorView> views;
    std::vector<device::Buffer> owned;
  };
  // All there is after a first run. A first run makes a new one; a step changes it when nothing can fail any more.
  struct State {
    std::shared_ptr<device::Model> model;
    Mode mode = Mode::kStatic;
    std::optional<std::vector<Shape>> pattern;  // that the inputs of every run are held to
    Inputs inputs;                              // of the last run
    std::vector<device::Output> last;           // of the last run
    std::vector<int> chain;                     // of the last run
    std::vector<bool> lost;                     // one an input: a run that failed may have written over it
    Turn turns[2];
    int turn = 0;  // whose memory the next run writes
  };

  Result<std::unique_ptr<State>> start(const std::vector<Feed>& feeds, ShapeRule rule);
  Status check_chain(const State* state, const std::vector<int>& chain) const;
  Result<Inputs> next_inputs(const State& state, const std::vector<int>& chain) const;
  // Runs over `inputs` into the memory of the state's turn.
  Result<std::vector<device::Output>> run_turn(State* state, const std::vector<TensorView>& inputs) const;

  const std::shared_ptr<Session> session_;
  Guarded<std::unique_ptr<State>> state_;  // null before a first run that succeeded, and once released
};

}  // namespace ais::session
