// Runs the steps of an iteration in turns.
#include "session/iteration.hpp"

#include <algorithm>
#include <utility>

#include "base/interrupt.hpp"

namespace ais::session {
namespace {

Status no_first() {
  return Status(Code::kInvalidArgument, "there was no first run to go on from; call first_inner_run before inner_run");
}

bool same_views(const std::vector<TensorView>& a, const std::vector<TensorView>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const TensorView& one, const TensorView& other) {
    return one.data == other.data && one.bytes == other.bytes && one.dtype == other.dtype && one.shape == other.shape;
  });
}

}  // namespace

std::shared_ptr<Iteration> Iteration::open(std::shared_ptr<Session> session) {
  Session* const owner = session.get();
  auto iteration = std::shared_ptr<Iteration>(new Iteration(std::move(session)));
  owner->add_iteration(iteration);
  return iteration;
}

void Iteration::release() {
  if (in_handler()) return;  // of a signal during a step, which holds the lock; the destructor releases the rest
  std::unique_ptr<State> released;
  if (const auto state = state_.lock()) released.swap(*state);
}

Status Iteration::first(const std::vector<Feed>& feeds, ShapeRule rule) {
  AIS_TRY(check_not_in_handler());
  const auto state = state_.lock();
  if (!state) return forked_child();
  AIS_ASSIGN(std::unique_ptr<State> fresh, start(feeds, rule));
  *state = std::move(fresh);
  return Status();
}

Result<std::unique_ptr<Iteration::State>> Iteration::start(const std::vector<Feed>& feeds, ShapeRule rule) {
  auto state = std::make_unique<State>();
  const std::uint64_t cancels = session_->cancels();
  AIS_ASSIGN(state->model, session_->model());
  state->mode = rule.mode;
  if (rule.use_setting) {
    AIS_ASSIGN(state->pattern, session_->shapes());
  }
  std::vector<device::Buffer> staged;
  StepInputs& inputs = state->inputs;
  AIS_TRY(session_->stage(feeds, rule, &inputs.views, &staged));
  device::Device& device = *session_->device_;
  for (TensorView& input : inputs.views) {
    inputs.owned.emplace_back();
    if (input.absent()) continue;
    AIS_ASSIGN(device::Buffer copy, device.allocate(input.bytes));
    AIS_TRY(device.copy_on_device(copy.data.get(), input.data, input.bytes));
    input.data = copy.data.get();
    inputs.owned.back() = std::move(copy);
  }
  for (Turn& turn : state->turns) {
    for (const device::TensorDesc& desc : session_->info_.outputs) {
      std::size_t bytes = 0;
      device::Buffer memory;
      if (known_bytes(desc, &bytes)) {
        AIS_ASSIGN(memory, device.allocate(bytes));
      }
      turn.memory.push_back(std::move(memory));
    }
  }
  state->chain.assign(inputs.views.size(), -1);
  state->lost.assign(inputs.views.size(), false);
  AIS_ASSIGN(state->last, run_turn(state.get(), inputs.views, cancels));
  state->turn ^= 1;
  return state;
}

Result<std::vector<device::Output>> Iteration::run_turn(State* state, const std::vector<TensorView>& inputs,
                                                        std::uint64_t cancels) const {
  Turn& turn = state->turns[state->turn];
  bool all_known = true;
  std::vector<device::Output> outputs(turn.memory.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    all_known = all_known && turn.memory[i].data != nullptr;
    outputs[i].data = turn.memory[i].data.get();
    outputs[i].capacity = turn.memory[i].bytes;
    outputs[i].shape = session_->info_.outputs[i].shape;
  }
  if (all_known && (turn.binding == nullptr || !same_views(turn.bound, inputs))) {
    turn.binding.reset();  // free its memory before another binding is made
    AIS_ASSIGN(std::unique_ptr<device::Binding> binding, state->model->bind(inputs, outputs));
    turn.bound = inputs;
    turn.binding = std::move(binding);
  }
  std::vector<device::Output> results;
  std::int64_t looked_ns = monotonic_ns();
  for (int i = session_->loop_; i > 0; --i) {
    AIS_TRY(Session::check_interrupt(&looked_ns));
    AIS_TRY(session_->cancelled_since(cancels));
    if (all_known) {
      AIS_TRY(session_->timed([&] { return turn.binding->run(); }));
      results = turn.binding->outputs();
    } else {
      results = outputs;
      AIS_TRY(session_->timed([&] { return state->model->execute(inputs, &results); }));
    }
  }
  AIS_TRY(session_->cancelled_since(cancels));
  return results;
}

Status Iteration::check_chain(const State* state, const std::vector<int>& chain) const {
  const auto& info = session_->info_;
  if (state == nullptr) return no_first();
  if (chain.size() != info.inputs.size()) {
    return Status(Code::kInvalidArgument, "in_out_list must have " + std::to_string(info.inputs.size()) +
                                              " entries, one for each input (-1 to keep it), got " +
                                              std::to_string(chain.size()));
  }
  for (std::size_t i = 0; i < chain.size(); ++i) {
    if (chain[i] < 0) {
      if (!state->lost[i]) continue;
      return Status(Code::kInvalidArgument, "in_out_list[" + std::to_string(i) + "] keeps input '" + info.inputs[i].name +
                                                "', whose memory a run that failed has written over; chain it, or begin again "
                                                "with first_inner_run");
    }
    if (static_cast<std::size_t>(chain[i]) >= info.outputs.size()) {
      return Status(Code::kInvalidArgument, "in_out_list[" + std::to_string(i) + "] must be -1 or an output, 0 to " +
                                                std::to_string(info.outputs.size() - 1) + ", got " + std::to_string(chain[i]));
    }
  }
  return Status();
}

Result<Iteration::StepInputs> Iteration::next_inputs(const State& state, const std::vector<int>& chain) const {
  device::Device& device = *session_->device_;
  const auto& info = session_->info_;
  StepInputs next = state.inputs;
  for (std::size_t i = 0; i < chain.size(); ++i) {
    TensorView& input = next.views[i];
    if (chain[i] >= 0) {
      const device::Output& output = state.last[chain[i]];
      input = {output.data, output.bytes, info.outputs[chain[i]].dtype, output.shape};
      next.owned[i] = device::Buffer{output.owner, 0};  // a result of the runtime lives as long as it is an input
    } else if (state.chain[i] >= 0) {
      // It was chained until now, and later runs overwrite its memory: copy it.
      AIS_ASSIGN(device::Buffer copy, device.allocate(input.bytes));
      AIS_TRY(device.copy_on_device(copy.data.get(), input.data, input.bytes));
      input.data = copy.data.get();
      next.owned[i] = std::move(copy);
    }
  }
  const auto& pattern = state.pattern;
  AIS_ASSIGN(std::vector<Shape> shapes, session_->fit_views(next.views, state.mode, pattern ? &*pattern : nullptr));
  for (std::size_t i = 0; i < chain.size(); ++i) {
    if (next.views[i].absent()) continue;
    next.views[i].dtype = info.inputs[i].dtype;
    next.views[i].shape = std::move(shapes[i]);
  }
  return next;
}

Status Iteration::step(const std::vector<int>& chain) {
  AIS_TRY(check_not_in_handler());
  const std::uint64_t cancels = session_->cancels();
  const auto held = state_.lock();
  if (!held) return forked_child();
  AIS_TRY(session_->check_open());  // the session may have been closed, which releases the iteration
  AIS_TRY(check_chain(held->get(), chain));
  State& state = **held;
  AIS_ASSIGN(StepInputs inputs, next_inputs(state, chain));
  std::vector<int> chained = chain;
  Result<std::vector<device::Output>> results = run_turn(&state, inputs.views, cancels);
  if (!results.ok()) {
    for (const device::Buffer& written : state.turns[state.turn].memory) {
      for (std::size_t i = 0; i < state.lost.size(); ++i) {
        if (written.data != nullptr && state.inputs.views[i].data == written.data.get()) state.lost[i] = true;
      }
    }
    return results.take_status();
  }
  // Nothing below fails.
  state.last = results.take();
  state.inputs = std::move(inputs);
  state.chain = std::move(chained);
  std::fill(state.lost.begin(), state.lost.end(), false);
  state.turn ^= 1;
  return Status();
}

Result<std::vector<Tensor>> Iteration::outputs() const {
  AIS_TRY(check_not_in_handler());
  const auto held = state_.lock();
  if (!held) return forked_child();
  AIS_TRY(session_->check_open());
  if (*held == nullptr) return no_first();
  const std::vector<device::Output>& last = (*held)->last;
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < last.size(); ++i) {
    AIS_ASSIGN(device::Buffer copy, session_->device_->allocate(last[i].bytes));
    AIS_TRY(session_->device_->copy_on_device(copy.data.get(), last[i].data, last[i].bytes));
    tensors.emplace_back(session_->info_.outputs[i].dtype, last[i].shape, std::move(copy), session_->device_);
  }
  return tensors;
}

Status Iteration::deliver(OutputSink* sink) const {
  const auto held = state_.lock();
  if (!held) return forked_child();
  AIS_TRY(session_->check_open());
  if (*held == nullptr) return no_first();
  const std::vector<device::Output>& last = (*held)->last;
  return session_->deliver(last, sink, std::vector<void*>(last.size(), nullptr), monotonic_ns());
}

}  // namespace ais::session
