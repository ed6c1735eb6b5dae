// A model in a context: AscendCL's model id, and everything made for running it.
//
// AscendCL runs one model id in one place at a time, and remembers the gear that was chosen last in the model as well as in the
// dataset. So one lock covers "point the buffers, choose the gear, execute"; concurrent callers take turns. A pipeline submits
// its runs under the same lock, to one stream, and has datasets of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device/acl/acl_context.hpp"
#include "device/acl/acl_dataset.hpp"
#include "device/acl/acl_describe.hpp"
#include "device/acl/acl_load.hpp"
#include "device/acl/acl_pace.hpp"
#include "device/device.hpp"

namespace ais::acl {

// What one run needs, kept for the next: datasets, and memory for the special inputs.
struct DatasetPair {
  explicit DatasetPair(const Api& api) : in(api), out(api) {}
  Dataset in;
  Dataset out;
  std::vector<device::Buffer> special;  // keeps the gear index and AIPP parameters
  int gear = -1;                        // chosen for `in`
  std::vector<Shape> shapes;            // fixed for `in`; of models with open shapes
  std::vector<std::uint64_t> aipp;      // version of the settings in `in`, one an AIPP input
};

class LoadedModel final : public Resident {
 public:
  // All functions are called inside the context, but cancel() and those that only read.
  static Result<std::shared_ptr<LoadedModel>> load(AclContext* context, const device::ModelSource& source,
                                                   const LoadOptions& options, DeviceShare* share);
  explicit LoadedModel(AclContext* context) : context_(*context), api_(context->api()) {}
  ~LoadedModel() override = default;
  void release() override;

  const Layout& layout() const { return layout_; }
  // Whether the outputs' shapes follow from the inputs', and the library allocates none of them.
  bool predictable() const;

  // Guesses of the outputs' sizes in bytes, for models whose shapes are open; fewer or none is fine.
  void expect_outputs(const std::vector<std::size_t>& bytes);

  Status run(const std::vector<TensorView>& inputs, std::vector<device::Output>* outputs);
  Status set_aipp(const device::Aipp& settings);

  // A pipeline's: the outputs' shapes of the run that was prepared, one lock for prepare, sizes, submit and describe, and the
  // stream.
  Result<std::unique_ptr<DatasetPair>> make_datasets();
  std::mutex& lock() { return lock_; }
  // How much memory to bring for an output, and whether that may turn out too little. 0: only a run can tell, and none has.
  struct Room {
    std::size_t bytes = 0;
    bool guessed = false;
  };
  Room room_for(std::size_t output) const;
  // Whether a run that failed with guessed memory may have failed for want of it.
  static bool worth_another(const Status& run);
  // After that: the next run leaves the outputs to the library.
  void forget_sizes();
  Status prepare(const std::vector<TensorView>& inputs, DatasetPair* datasets);
  const std::vector<Shape>& output_shapes(const DatasetPair& datasets) const {
    return layout_.outputs[datasets.gear < 0 ? 0 : datasets.gear];
  }
  Status execute_async(DatasetPair* datasets, std::uint64_t cancels, aclrtStream* stream);
  void async_done() { --in_flight_; }
  int in_flight() const { return in_flight_; }
  // Shapes and bytes of the outputs of the datasets's last run, which has ended.
  Status describe_results(const DatasetPair& datasets, std::vector<device::Output>* outputs);

  // Counts the calls of cancel(): a run that sees it change was asked to stop.
  std::uint64_t cancels() const { return cancels_.load(); }
  // Model::cancel of csrc/device/device.hpp.
  std::string cancel();
  Status cancelled_since(std::uint64_t cancels) const;
  // What a run that was asked to stop answers.
  Status stopped() const;

 private:
  struct AippSettings {
    aclmdlAIPP* handle = nullptr;
    device::Aipp given;  // what it was made of
    std::uint64_t version = 0;
  };

  Status load_id(const device::ModelSource& source, const LoadOptions& options, DeviceShare* share);
  Status learn_outputs();
  Status choose_gear(DatasetPair* datasets, int gear);
  Status apply_gear(const std::vector<TensorView>& inputs, DatasetPair* datasets);
  Status apply_shapes(const std::vector<TensorView>& inputs, DatasetPair* datasets);
  Status apply_aipp(const std::vector<TensorView>& inputs, DatasetPair* datasets);

  // Memory for every output of the next run. `guessed` becomes true where some may turn out too small.
  Status place(std::vector<device::Output>* outputs, bool* guessed);
  Status execute(std::vector<device::Output>* outputs, std::uint64_t cancels);
  Status naming_shapes(Status status, const DatasetPair& datasets) const;
  Status call_execute(const std::vector<device::Output>& outputs, std::uint64_t cancels);
  Status wait_for_stream(std::uint64_t cancels);
  // Takes what the library allocated, whether or not the run succeeded.
  Status claim(std::vector<device::Output>* outputs);
  // The turn to run in the workspace, until this run was started; nothing where the model has one of its own.
  Result<std::unique_lock<std::mutex>> take_turn(std::uint64_t cancels);
  void leave_workspace();
  Result<Shape> result_shape(const DatasetPair& datasets, std::size_t index, std::size_t bytes);

  AclContext& context_;
  const Api& api_;
  Layout layout_;
  std::uint32_t id_ = 0;
  bool loaded_ = false;
  std::vector<device::Buffer> weights_;   // that the loaded model reads, shared with other sessions
  std::shared_ptr<Workspace> workspace_;  // of it and others; null: it has one of its own
  aclmdlDesc* desc_ = nullptr;
  std::atomic<std::uint64_t> cancels_{0};
  std::atomic<int> in_flight_{0};  // runs of the pipeline on stream_
  Pace pace_;
  Pace turn_pace_;  // of waits for the workspace

  std::mutex lock_;  // guards what follows
  std::unique_ptr<DatasetPair> datasets_;
  aclrtStream stream_ = nullptr;
  int gear_ = -1;                     // the model's last
  std::vector<std::size_t> learned_;  // bytes that outputs of unknown size had
  std::vector<std::size_t> guesses_;  // bytes that they may have; 0 once that was too little
  std::vector<AippSettings> aipp_;    // one an AIPP input
};

// The settings as AscendCL's object, which the caller destroys.
Result<aclmdlAIPP*> make_aipp(const Api& api, const device::Aipp& settings);

// Whether `bytes` hold as many pictures as the device is going to read with these settings: AscendCL does not look.
Status check_pictures(const std::string& input, const device::Aipp& settings, std::int64_t pictures, std::size_t bytes);

}  // namespace ais::acl
