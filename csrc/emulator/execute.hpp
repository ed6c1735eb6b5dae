// One execution: everything checked and looked up when it is submitted, and run now or on a stream.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "emulator/call.hpp"
#include "emulator/memory.hpp"
#include "emulator/objects.hpp"
#include "emulator/stream.hpp"

namespace ais::emulator {

struct ExecutionInput {
  Range memory;
  Shape shape;            // of the graph; empty for special inputs
  std::size_t bytes = 0;  // that the device reads
  std::size_t given = 0;  // what the program says there is
};

struct ExecutionOutput {
  Range memory;           // none: the library allocates
  Shape shape;            // where known before the run
  std::size_t bytes = 0;  // 0: not known before the run
  std::shared_ptr<DataBuffer> buffer;
  std::size_t given = 0;
  bool allocate = false;
};

class Execution {
 public:
  // Checks what AscendCL checks, and what goes wrong on the device where AscendCL does not (that is kept for run()).
  // `stream` is where it will run, nullptr for the calling thread. A synchronous one allocates the outputs that have no memory.
  static aclError plan(const Scope& scope, std::uint32_t model_id, const aclmdlDataset* input, aclmdlDataset* output,
                       const Stream* stream, bool synchronous, std::shared_ptr<Execution>* out);
  ~Execution();

  TaskResult run(std::int64_t ready_ns);

 private:
  Execution() = default;
  aclError plan_input(const Scope& scope, std::size_t index);
  aclError plan_output(const Scope& scope, std::size_t index);
  aclError claim_model(const Stream* stream);
  void count_users(int change);
  void note_overlaps() const;

  // The memory of a buffer as the device sees it; what is wrong with it becomes the device's fault.
  void look_up(const Scope& scope, const void* address, std::size_t bytes, const std::string& what, Range* out);
  aclError check_before_run() const;
  Status prepare_inputs(std::vector<TensorView>* views);
  TaskResult compute(std::int64_t ready_ns);
  aclError deliver(const std::vector<device::Output>& results);
  aclError deliver_one(std::size_t index, const device::Output& result);
  TaskResult fail_on_device(aclError code, const std::string& text) const;

  std::shared_ptr<Model> model_;
  std::shared_ptr<Context> context_;
  std::shared_ptr<Dataset> input_set_;
  std::shared_ptr<Dataset> output_set_;
  std::vector<std::shared_ptr<DataBuffer>> used_buffers_;
  std::vector<ExecutionInput> inputs_;
  std::vector<ExecutionOutput> outputs_;
  std::vector<std::vector<std::byte>> converted_;  // pictures after AIPP, inputs that were fed short
  std::size_t gear_ = 0;
  bool synchronous_ = false;
  bool claimed_ = false;
  bool counted_ = false;
  aclError device_fault_ = ACL_SUCCESS;
  std::string device_fault_text_;
};

}  // namespace ais::emulator
