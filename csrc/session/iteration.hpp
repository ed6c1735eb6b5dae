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
  // The session keeps a reference, and releases the iteration when the session is closed.
  static std::shared_ptr<Iteration> open(std::shared_ptr<Session> session);

  // Makes the first run. Copies the feeds, so the caller may reuse their memory afterwards.
  Status first(const std::vector<Feed>& feeds, ShapeRule rule);

  // Runs once more. chain[i] is the output that input i takes; if it is negative, the input stays as it is.
  Status step(const std::vector<int>& chain);

  // Returns copies of the outputs of the last run.
  Result<std::vector<Tensor>> outputs() const;
  // The same, copied to the host.
  Status deliver(OutputSink* sink) const;

  Session& session() const { return *session_; }

  // Releases the model and the memory, after the run in progress. Later calls fail.
  void release();

 private:
  explicit Iteration(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  struct Turn {
    std::vector<device::Buffer> memory;        // one for each output of known shape
    std::unique_ptr<device::Binding> binding;  // reads `bound` and writes to `memory`; null until it is needed
    std::vector<TensorView> bound;
  };
  // The inputs of a run, and the owners of their memory, except memory that belongs to a turn.
  struct StepInputs {
    std::vector<TensorView> views;
    std::vector<device::Buffer> owned;
  };
  // The state after a first run. Each first run makes a new State. A step changes it only with operations that cannot fail.
  struct State {
    std::shared_ptr<device::Model> model;
    Mode mode = Mode::kStatic;
    std::optional<std::vector<Shape>> pattern;  // shapes that the caller has set, for the inputs of every run
    StepInputs inputs;                          // of the last run
    std::vector<device::Output> last;           // of the last run
    std::vector<int> chain;                     // of the last run
    std::vector<bool> lost;                     // for each input: whether a failed run may have overwritten it
    Turn turns[2];
    int turn = 0;  // the turn to whose memory the next run writes
  };

  Result<std::unique_ptr<State>> start(const std::vector<Feed>& feeds, ShapeRule rule);
  Status check_chain(const State* state, const std::vector<int>& chain) const;
  Result<StepInputs> next_inputs(const State& state, const std::vector<int>& chain) const;
  // Runs with `inputs`, and writes to the memory of the state's turn. `cancels`: as for Session::execute.
  Result<std::vector<device::Output>> run_turn(State* state, const std::vector<TensorView>& inputs,
                                               std::uint64_t cancels) const;

  const std::shared_ptr<Session> session_;
  Guarded<std::unique_ptr<State>> state_;  // null before the first successful run, and after release()
};

}  // namespace ais::session
