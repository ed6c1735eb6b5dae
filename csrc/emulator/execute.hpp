// One execution. It is checked when it is submitted, and runs at once or on a stream.
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
  std::size_t given = 0;  // the size that the program gave
};

struct ExecutionOutput {
  Range memory;           // empty: the library allocates
  Shape shape;            // if known before the run
  std::size_t bytes = 0;  // 0: unknown before the run
  std::shared_ptr<DataBuffer> buffer;
  std::size_t given = 0;
  bool allocate = false;
};

class Execution {
 public:
  // Checks what AscendCL checks. Errors that AscendCL does not check but that occur on the device are kept for run(). `stream`:
  // the stream that will run it; nullptr: the calling thread, which allocates the outputs that have no memory.
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

  // Looks up the memory of a buffer for the device. If it is invalid, the execution fails on the device.
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
  std::vector<std::vector<std::byte>> converted_;  // pictures after AIPP, and inputs with too few bytes
  std::size_t gear_ = 0;
  bool synchronous_ = false;
  bool claimed_ = false;
  bool counted_ = false;
  aclError device_fault_ = ACL_SUCCESS;
  std::string device_fault_text_;
};

}  // namespace ais::emulator
