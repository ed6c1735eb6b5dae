// One run: places outputs, executes, describes outputs.
//
// In the first run the library allocates an output of unknown size. The size is kept, and later runs have memory with headroom,
// which saves the library's allocation. If this is too small, the run is repeated in the first way. Before a size is known, a
// plausible guess of the caller is used.
#include <algorithm>
#include <string>
#include <utility>

#include "base/tuning.hpp"
#include "device/acl/acl_loaded.hpp"

namespace ais::acl {

using device::Output;

// AscendCL has no error number for a buffer that is too small.
bool LoadedModel::worth_another(const Status& run) {
  return !run.ok() && run.code() != Code::kDeviceLost && run.code() != Code::kCancelled;
}

LoadedModel::Room LoadedModel::room_for(std::size_t output) const {
  if (const std::size_t declared = layout_.output_bytes[output]; declared != 0) return {declared, false};
  return {std::max(learned_[output] + learned_[output] / 4, guesses_[output]), true};
}

// Guesses are used only for models with open shapes, because only their results are described. For other models memory of a
// different size would give no information about the result.
void LoadedModel::expect_outputs(const std::vector<std::size_t>& bytes) {
  const std::lock_guard<std::mutex> guard(lock_);
  for (std::size_t i = 0; i < guesses_.size(); ++i) {
    const bool sane = layout_.open_shapes && i < bytes.size() && bytes[i] <= tuning::kLargestGuess;
    guesses_[i] = sane ? bytes[i] : 0;
  }
}

void LoadedModel::forget_sizes() {
  learned_.assign(learned_.size(), 0);
  guesses_ = learned_;
}

Status LoadedModel::run(const std::vector<TensorView>& inputs, std::vector<Output>* outputs) {
  const std::uint64_t cancels = cancels_.load();
  const std::lock_guard<std::mutex> guard(lock_);
  AIS_TRY(cancelled_since(cancels));
  // Runs of a pipeline are in flight. Their errors are reported to the pipeline at their events; here only the end matters.
  if (in_flight_ > 0 && api_.aclrtSynchronizeStream(stream_) != 0) AIS_TRY(ACL_CALL(api_, aclrtSynchronizeStream, stream_));
  AIS_TRY(prepare(inputs, datasets_.get()));
  bool guessed = false;
  const std::vector<Output> given = *outputs;
  AIS_TRY(place(outputs, &guessed));
  Status status = execute(outputs, cancels);
  if (guessed && worth_another(status)) {
    *outputs = given;
    forget_sizes();
    status = place(outputs, &guessed);
    if (status.ok()) status = execute(outputs, cancels);
  }
  AIS_TRY(std::move(status).with_context("device " + std::to_string(context_.device_id())));
  AIS_TRY(describe_results(*datasets_, outputs));
  return cancelled_since(cancels);
}

Status LoadedModel::place(std::vector<Output>* outputs, bool* guessed) {
  for (std::size_t i = 0; i < outputs->size(); ++i) {
    Output& output = (*outputs)[i];
    if (output.data == nullptr) {
      const Room room = room_for(i);
      Result<device::Buffer> buffer = room.bytes == 0 ? device::Buffer() : context_.allocate(room.bytes);
      // If there is no memory for the guess, there may be enough for the result.
      if (!buffer.ok() && !(room.guessed && buffer.status().code() == Code::kOutOfMemory)) return buffer.take_status();
      if (buffer.ok() && room.bytes != 0) {
        output.owner = buffer.value().data;
        output.data = output.owner.get();
        output.capacity = room.bytes;
        *guessed = *guessed || room.guessed;
      }
    }
    AIS_TRY(datasets_->out.point(i, output.data, output.data == nullptr ? 0 : output.capacity));
  }
  return Status();
}

Status LoadedModel::execute(std::vector<Output>* outputs, std::uint64_t cancels) {
  Status status = call_execute(*outputs, cancels);
  Status claimed = claim(outputs);
  return status.ok() ? claimed : status;
}

// A library without aclmdlGetInputDimsRange refuses shapes for which the model was not compiled with this number, and without
// details.
Status LoadedModel::naming_shapes(Status status, const DatasetPair& datasets) const {
  if (status.vendor_code() != kInvalidParam || !layout_.open_shapes) return status;
  std::string text = status.message() + "; the inputs had the shapes ";
  for (std::size_t i = 0; i < datasets.shapes.size(); ++i) {
    text += (i == 0 ? "" : ", ") + shape_text(datasets.shapes[i]) + " ('" + layout_.info.inputs[i].name + "')";
  }
  return Status(status.code(), text + "; shapes for which the model was not compiled are refused in this way",
                status.vendor_code());
}

// Executes on the model's stream, so that the run can be stopped, if the library supports this and allocates no output.
Status LoadedModel::call_execute(const std::vector<Output>& outputs, std::uint64_t cancels) {
  const bool placed = std::all_of(outputs.begin(), outputs.end(), [](const Output& output) { return output.data != nullptr; });
  if (!context_.can_abort() || !placed) {
    AIS_ASSIGN(const std::unique_lock<std::mutex> turn, take_turn(cancels));
    return naming_shapes(ACL_CALL(api_, aclmdlExecute, id_, datasets_->in.get(), datasets_->out.get()), *datasets_);
  }
  aclrtStream stream = nullptr;
  AIS_TRY(execute_async(datasets_.get(), cancels, &stream));
  Status status = wait_for_stream(cancels);
  async_done();
  return status;
}

// Waits until the stream is idle, after any failure, because the run uses its memory until then.
Status LoadedModel::wait_for_stream(std::uint64_t cancels) {
  const auto ended = [&]() -> Result<bool> {
    int state = 0;
    AIS_TRY(ACL_CALL(api_, aclrtStreamQuery, stream_, &state));
    return state == kStreamIdle;
  };
  const auto unwanted = [&](bool look) { return look && context_.wait_interrupted() ? stopped() : cancelled_since(cancels); };
  Status waited = pace_.wait(false, ended, unwanted);
  const bool unfinished = waited.code() == Code::kCancelled;
  if (unfinished) context_.abort(stream_);  // if that fails, the run ends by itself
  Status status = ACL_CALL(api_, aclrtSynchronizeStream, stream_);
  if (!status.ok())
    static_cast<void>(api_.aclrtSynchronizeStream(stream_));  // the first call may have failed for another reason
  if (unfinished) return stopped();
  return status.ok() ? std::move(waited) : std::move(status);
}

Status LoadedModel::claim(std::vector<Output>* outputs) {
  Status status;
  for (std::size_t i = 0; i < outputs->size(); ++i) {
    void* data = datasets_->out.filled(i);
    if (data == nullptr) continue;
    Output& output = (*outputs)[i];
    output.data = data;
    output.capacity = datasets_->out.bytes(i);
    output.owner = context_.adopt(data, output.capacity).data;
    Status emptied = datasets_->out.empty(i);
    if (status.ok()) status = std::move(emptied);
  }
  return status;
}

Status LoadedModel::describe_results(const DatasetPair& datasets, std::vector<Output>* outputs) {
  for (std::size_t i = 0; i < outputs->size(); ++i) {
    Output& output = (*outputs)[i];
    const Shape& known = output_shapes(datasets)[i];
    if (!layout_.open_shapes && layout_.info.outputs[i].ranked && !is_dynamic(known)) {
      output.shape = known;
    } else {
      AIS_ASSIGN(output.shape, result_shape(datasets, i, output.capacity));
    }
    std::size_t elements = 0;
    if (!count_elements(output.shape, &elements)) {
      return Status(Code::kExecution, "AscendCL gave output '" + layout_.info.outputs[i].name + "' the shape " +
                                          shape_text(output.shape) + ", which no array can have");
    }
    output.bytes = packed_bytes(layout_.info.outputs[i].dtype, elements);
    if (output.bytes > output.capacity) {
      return Status(Code::kExecution, "output '" + layout_.info.outputs[i].name + "' of shape " + shape_text(output.shape) +
                                          " needs " + std::to_string(output.bytes) + " bytes, AscendCL gave it " +
                                          std::to_string(output.capacity));
    }
  }
  return Status();
}

// Returns the shape from the dataset's description of the result. If there is none, it is the model's shape, with its only open
// dimension computed from the allocated size. So only a size with a description is kept: memory of another size would give no
// information.
Result<Shape> LoadedModel::result_shape(const DatasetPair& datasets, std::size_t index, std::size_t bytes) {
  Shape shape;
  if (const aclTensorDesc* desc = api_.aclmdlGetDatasetTensorDesc(datasets.out.get(), index); desc != nullptr) {
    const std::size_t rank = api_.aclGetTensorDescNumDims(desc);
    const device::TensorDesc& declared = layout_.info.outputs[index];
    if (rank > kMaxDims || (declared.ranked && rank != declared.shape.size())) {  // it returns 0 if it is unknown
      return Status(Code::kExecution, "output '" + declared.name + "' must have the rank of its shape in the model, " +
                                          shape_text(declared.shape) + ", AscendCL gave it the rank " + std::to_string(rank));
    }
    shape.resize(rank);
    for (std::size_t d = 0; d < rank; ++d) AIS_TRY(ACL_CALL(api_, aclGetTensorDescDimV2, desc, d, &shape[d]));
    std::size_t elements = 0;
    if (layout_.output_bytes[index] == 0 && count_elements(shape, &elements)) {
      learned_[index] = std::max(learned_[index], packed_bytes(layout_.info.outputs[index].dtype, elements));
    }
    return shape;
  }
  aclmdlIODims dims = {};
  AIS_TRY(ACL_CALL(api_, aclmdlGetCurOutputDims, desc_, index, &dims));
  shape = shape_of(dims);
  std::int64_t* open = nullptr;
  std::size_t unit = 1;
  for (std::int64_t& dim : shape) {
    if (dim >= 0)
      unit *= static_cast<std::size_t>(dim);
    else if (dim == -1 && open == nullptr)
      open = &dim;
    else
      return shape;  // two are open, or the rank is (-2): the caller refuses the shape
  }
  if (open != nullptr && bytes == 0) {  // it never allocates 0 bytes: a query failed
    return Status(Code::kExecution, "AscendCL reports no size of output '" + layout_.info.outputs[index].name + "'");
  }
  const std::size_t item = dtype_bits(layout_.info.outputs[index].dtype) * unit;
  if (open != nullptr && item != 0) *open = static_cast<std::int64_t>(bytes * 8 / item);
  return shape;
}

Status LoadedModel::execute_async(DatasetPair* datasets, std::uint64_t cancels, aclrtStream* stream) {
  if (stream_ == nullptr) AIS_TRY(ACL_CALL(api_, aclrtCreateStream, &stream_));
  *stream = stream_;
  if (datasets == nullptr) return Status();
  AIS_ASSIGN(const std::unique_lock<std::mutex> turn, take_turn(cancels));
  AIS_TRY(naming_shapes(ACL_CALL(api_, aclmdlExecuteAsync, id_, datasets->in.get(), datasets->out.get(), stream_), *datasets));
  ++in_flight_;
  return Status();
}

// Both waits poll, so that a long wait can be stopped. The second one is for a stream of another context. A stream with a fault
// has no work any more.
Result<std::unique_lock<std::mutex>> LoadedModel::take_turn(std::uint64_t cancels) {
  std::unique_lock<std::mutex> turn;
  if (workspace_ == nullptr) return turn;
  const auto unwanted = [&](bool look) { return look && context_.wait_interrupted() ? stopped() : cancelled_since(cancels); };
  turn = std::unique_lock<std::mutex>(workspace_->lock, std::defer_lock);
  AIS_TRY(turn_pace_.wait(false, [&]() -> Result<bool> { return turn.try_lock(); }, unwanted));
  LoadedModel* last = std::exchange(workspace_->last, this);
  if (last == nullptr || last == this || last->stream_ == nullptr) return turn;
  const auto ended = [&]() -> Result<bool> {
    CurrentContext current(api_);
    int state = kStreamIdle;
    if (!current.set(last->context_.handle()).ok() || api_.aclrtStreamQuery(last->stream_, &state) != 0) {
      static_cast<void>(api_.aclGetRecentErrMsg());
      return true;
    }
    return state == kStreamIdle;
  };
  Status status = turn_pace_.wait(false, ended, unwanted);
  if (status.ok()) return turn;
  workspace_->last = last;
  return status;
}

// Makes sure that the next model does not use this model's stream.
void LoadedModel::leave_workspace() {
  if (workspace_ == nullptr) return;
  const std::lock_guard<std::mutex> guard(workspace_->lock);
  if (workspace_->last != this) return;
  if (stream_ != nullptr)
    static_cast<void>(api_.aclrtSynchronizeStream(stream_) == 0 || api_.aclrtSynchronizeStream(stream_) == 0);
  workspace_->last = nullptr;
}

}  // namespace ais::acl
