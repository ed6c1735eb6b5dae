// The turns.
#include "session/iteration.hpp"

#include <utility>

#include "base/interrupt.hpp"

namespace ais::session {

std::shared_ptr<Iteration> Iteration::open(std::shared_ptr<Session> session) {
  Session* const owner = session.get();
  auto iteration = std::shared_ptr<Iteration>(new Iteration(std::move(session)));
  owner->add_iteration(iteration);
  return iteration;
}

void Iteration::release() {
  if (in_handler()) return;  // of a signal during a step, which holds the lock; what it ends is released with the object
  const std::lock_guard<std::mutex> guard(lock_);
  for (Turn& turn : turns_) turn = Turn();
  last_.clear();
  owned_.clear();
  inputs_.clear();
  model_.reset();
}

Status Iteration::first(const std::vector<Feed>& feeds, ShapeRule rule) {
  AIS_TRY(check_not_in_handler());
  AIS_ASSIGN(auto model, session_->model());
  const std::lock_guard<std::mutex> guard(lock_);
  AIS_TRY(session_->check_open());  // again: it may have been closed, and this released
  model_ = std::move(model);
  std::vector<TensorView> inputs;
  std::vector<device::Buffer> staged;
  AIS_TRY(session_->stage(feeds, rule, &inputs, &staged));
  device::Device& device = *session_->device_;
  owned_.clear();
  for (TensorView& input : inputs) {
    AIS_ASSIGN(device::Buffer copy, device.allocate(input.bytes));
    AIS_TRY(device.copy_on_device(copy.data.get(), input.data, input.bytes));
    input.data = copy.data.get();
    owned_.push_back(std::move(copy));
  }
  inputs_ = std::move(inputs);
  for (Turn& turn : turns_) {
    turn = Turn();
    for (const device::TensorDesc& desc : session_->info_.outputs) {
      std::size_t bytes = 0;
      device::Buffer memory;
      if (known_bytes(desc, &bytes)) {
        AIS_ASSIGN(memory, device.allocate(bytes));
      }
      turn.memory.push_back(std::move(memory));
    }
  }
  turn_ = 0;
  chain_.assign(inputs_.size(), -1);
  return run_turn();
}

Status Iteration::run_turn() {
  Turn& turn = turns_[turn_];
  bool all_known = true;
  std::vector<device::Output> outputs(turn.memory.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const device::TensorDesc& desc = session_->info_.outputs[i];
    all_known = all_known && turn.memory[i].data != nullptr;
    outputs[i].data = turn.memory[i].data.get();
    outputs[i].capacity = turn.memory[i].bytes;
    outputs[i].shape = desc.shape;
  }
  for (int i = session_->loop_; i > 0; --i) {
    if (all_known) {
      if (turn.binding == nullptr) {
        AIS_ASSIGN(turn.binding, model_->bind(inputs_, outputs));
      }
      AIS_TRY(session_->timed([&] { return turn.binding->run(); }));
      last_ = turn.binding->outputs();
    } else {
      std::vector<device::Output> results = outputs;
      AIS_TRY(session_->timed([&] { return model_->execute(inputs_, &results); }));
      last_ = std::move(results);
    }
  }
  for (std::size_t i = 0; i < last_.size(); ++i) {
    if (last_[i].data == turn.memory[i].data.get()) continue;
    // A result in memory of its own, new in every run: what is bound to the turns' memory would read old bytes.
    turns_[0].binding.reset();
    turns_[1].binding.reset();
    break;
  }
  turn_ ^= 1;
  return Status();
}

Status Iteration::check_chain(const std::vector<int>& chain) const {
  const auto& info = session_->info_;
  if (model_ == nullptr)
    return Status(Code::kInvalidArgument, "there was no first run to go on from; call first_inner_run before inner_run");
  if (chain.size() != info.inputs.size()) {
    return Status(Code::kInvalidArgument, "in_out_list has " + std::to_string(chain.size()) + " entries; the model has " +
                                              std::to_string(info.inputs.size()) +
                                              " inputs, and each needs one (-1 to keep it)");
  }
  for (std::size_t i = 0; i < chain.size(); ++i) {
    if (chain[i] < 0) continue;
    if (static_cast<std::size_t>(chain[i]) >= info.outputs.size()) {
      return Status(Code::kInvalidArgument, "in_out_list[" + std::to_string(i) + "] is " + std::to_string(chain[i]) +
                                                "; the model has outputs 0 to " + std::to_string(info.outputs.size() - 1));
    }
  }
  return Status();
}

Status Iteration::apply_chain(const std::vector<int>& chain) {
  device::Device& device = *session_->device_;
  const bool same = chain == chain_;
  for (std::size_t i = 0; i < chain.size(); ++i) {
    TensorView& input = inputs_[i];
    if (chain[i] < 0) {
      if (chain_[i] < 0) continue;
      // It was chained until now, and its memory is a turn's that the next runs overwrite: give it its own.
      AIS_ASSIGN(device::Buffer copy, device.allocate(input.bytes));
      AIS_TRY(device.copy_on_device(copy.data.get(), input.data, input.bytes));
      input.data = copy.data.get();
      owned_[i] = std::move(copy);
      continue;
    }
    const device::Output& output = last_[chain[i]];
    const device::TensorDesc& desc = session_->info_.inputs[i];
    TensorView next{output.data, output.bytes, session_->info_.outputs[chain[i]].dtype, output.shape};
    AIS_ASSIGN(next.shape, fit(desc, next));
    next.dtype = desc.dtype;
    input = std::move(next);
    owned_[i] = device::Buffer{output.owner, 0};  // a result the runtime allocated lives as long as it is an input
  }
  if (!same) {
    turns_[0].binding.reset();
    turns_[1].binding.reset();
    chain_ = chain;
  }
  return Status();
}

Status Iteration::step(const std::vector<int>& chain) {
  AIS_TRY(check_not_in_handler());
  AIS_TRY(session_->check_open());
  const std::lock_guard<std::mutex> guard(lock_);
  AIS_TRY(session_->check_open());  // again: it may have been closed, and this released
  AIS_TRY(check_chain(chain));
  AIS_TRY(apply_chain(chain));
  return run_turn();
}

Result<std::vector<Tensor>> Iteration::outputs() const {
  AIS_TRY(check_not_in_handler());
  AIS_TRY(session_->check_open());
  const std::lock_guard<std::mutex> guard(lock_);
  AIS_TRY(session_->check_open());
  const auto& info = session_->info_;
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < last_.size(); ++i) {
    AIS_ASSIGN(device::Buffer copy, session_->device_->allocate(last_[i].bytes));
    AIS_TRY(session_->device_->copy_on_device(copy.data.get(), last_[i].data, last_[i].bytes));
    tensors.emplace_back(info.outputs[i].dtype, last_[i].shape, std::move(copy), session_->device_);
  }
  return tensors;
}

Status Iteration::deliver(OutputSink* sink) const {
  AIS_TRY(session_->check_open());
  const std::lock_guard<std::mutex> guard(lock_);
  AIS_TRY(session_->check_open());
  return session_->deliver(last_, sink, std::vector<void*>(last_.size(), nullptr));
}

}  // namespace ais::session
