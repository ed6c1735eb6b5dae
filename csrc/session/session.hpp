// One model on one device: feeds checked and staged, run, outputs delivered, everything timed.
//
// Memory: feeds belong to the caller and are only read until the call returns. A host-visible device uses them without a copy,
// and writes outputs of known shape directly into the caller's memory. Other devices copy both.
// Threads: any thread may make any call, and runs may be concurrent. A run holds the model, so close() during a run takes
// effect after it. Processes: in a forked child every call returns ForkedChild, without touching a lock that the parent may
// have held (Guarded).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/guarded.hpp"
#include "base/status.hpp"
#include "base/tensor.hpp"
#include "device/device.hpp"
#include "session/feeds.hpp"
#include "session/tensor.hpp"
#include "session/timings.hpp"

namespace ais::session {

// An input of the caller: on the host, or (a tensor) on a device.
struct Feed {
  TensorView view;
  std::shared_ptr<device::Device> device;  // null: on the host
};

// The destination of outputs: host memory of the caller.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  // Returns memory for at least `bytes` of output `index`. Called once for each output: before the run if the shape is known,
  // otherwise after it. If it returns null, the run fails with OutOfMemory.
  virtual void* reserve(std::size_t index, const device::TensorDesc& desc, const Shape& shape, std::size_t bytes) = 0;
};

// The times of one run, in nanoseconds of CLOCK_MONOTONIC. With loop > 1 the execution includes all loops.
// A time that the device did not report is 0 here, and is marked.
struct RunTimes {
  std::int64_t start_ns = 0;
  std::int64_t staged_ns = 0;
  std::int64_t executed_ns = 0;
  std::int64_t delivered_ns = 0;
  bool copy_in_known = true;
  bool execute_known = true;
  bool copy_out_known = true;
};

// How the shapes of a run are found: by mode from the feeds, or by an earlier setting (see setting.hpp).
struct ShapeRule {
  Mode mode = Mode::kStatic;
  bool use_setting = false;
};

struct SessionConfig {
  device::ModelSource source;
  int device_id = 0;
  int loop = 1;
  device::Options options;
};

class Iteration;

class Session : public std::enable_shared_from_this<Session> {
 public:
  static Result<std::shared_ptr<Session>> open(device::Runtime* runtime, const SessionConfig& config);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const device::ModelInfo& info() const { return info_; }
  const std::shared_ptr<device::Device>& device() const { return device_; }

  // Runs `loop` times and delivers the outputs of the last run. `times` may be null.
  Status run(const std::vector<Feed>& feeds, ShapeRule rule, OutputSink* sink, RunTimes* times = nullptr);
  // The same, with the outputs left on the device.
  Result<std::vector<Tensor>> run_on_device(const std::vector<Feed>& feeds, ShapeRule rule);

  // Cancels every run in progress; each of them returns Cancelled, also if it is between two executions. Returns the result of
  // Model::cancel.
  Result<std::string> cancel();
  // Returns the number of calls of cancel(). A call of several runs takes it at its start, and asks before each run.
  std::uint64_t cancels() const { return cancels_.load(); }
  // Returns Cancelled if cancel() was called since the number was `cancels`.
  Status cancelled_since(std::uint64_t cancels) const;

  // Sets the expected bytes of outputs of unknown size: a hint, which limits nothing.
  Status expect_outputs(const std::vector<std::size_t>& bytes);

  // Sets how the device preprocesses a picture, for runs that start afterwards.
  Status set_aipp(const device::Aipp& settings);

  // Frees the model. Idempotent. Runs in progress finish first; later runs return Closed.
  void close();
  bool closed() const;
  // Returns Closed or ForkedChild if calls would return it.
  Status check_open() const { return model().take_status(); }
  // Returns ForkedChild in a child of the process that made it.
  Status check_process() const { return inherited() ? forked_child() : Status(); }
  // Closes every session of this process.
  static void close_all();

  void set_loop(int loop) { loop_ = loop; }
  int loop() const { return loop_; }

  // Sets the shapes of runs with use_setting; nullopt returns to the model's own shapes.
  Status set_shapes(std::optional<std::vector<Shape>> shapes);
  Result<std::optional<std::vector<Shape>>> shapes() const;

  TimeLog<Execution>& exec_times() { return exec_times_; }
  // Adds the executions of another session from its entry `since` on, in this session's time.
  Status append_times(const Session& other, std::uint64_t since);

  // Returns the new warnings since the last call: how feeds were read (feeds.hpp), once for each input, type and rank of a
  // session, and once that the device did not report its times.
  struct Notice {
    enum class NoticeKind { kFeed, kTimes };
    NoticeKind kind;
    std::string text;
  };
  std::vector<Notice> take_notices();
  // Repeats a warning about feeds: a filter made it an error, and the same feeds must raise again.
  void tell_again();
  // In a worker: what it writes, the parent logs.
  void print_notices();
  bool has_notices() const { return notices_pending_.load(std::memory_order_relaxed); }

 private:
  friend class Iteration;
  friend class SessionPipeline;

  Session(std::shared_ptr<device::Device> device, std::shared_ptr<device::Model> model, int loop);

  Result<std::shared_ptr<device::Model>> model() const;
  // Returns feeds as inputs without a copy, with the model's types and exact shapes.
  Status fit_feeds(const std::vector<Feed>& feeds, ShapeRule rule, std::vector<TensorView>* inputs);
  // Returns feeds as inputs on the device. `held` keeps the necessary copies alive. `staged_ns`: when they were there.
  Status stage(const std::vector<Feed>& feeds, ShapeRule rule, std::vector<TensorView>* inputs,
               std::vector<device::Buffer>* held, std::int64_t* staged_ns = nullptr);
  Status place_outputs(OutputSink* sink, std::vector<device::Output>* outputs, std::vector<device::Buffer>* held,
                       std::vector<void*>* host);
  // `from_ns`: when the outputs were ready. `delivered_ns`: when they were delivered.
  Status deliver(const std::vector<device::Output>& outputs, OutputSink* sink, const std::vector<void*>& host,
                 std::int64_t from_ns, std::int64_t* delivered_ns = nullptr);
  // `cancels`: the number of calls of cancel() when the run began. `executed_ns`: when the last execution ended.
  Status execute(device::Model* model, const std::vector<TensorView>& inputs, std::uint64_t cancels,
                 std::vector<device::Output>* outputs, std::int64_t* executed_ns = nullptr);
  static Status check_interrupt(std::int64_t* looked_ns);
  Status fill_unwritten(const std::vector<device::Output>& placed);
  Status check_written(const std::vector<device::Output>& placed, const std::vector<device::Output>& outputs);
  // Measures one call of `once` and logs its times. `ended_ns`: its end.
  template <typename Once>
  Status timed(Once once, std::int64_t* ended_ns = nullptr);
  // Logs a run that was measured elsewhere, as far as its times are known; `why`: the reason if one is not known.
  void note_run(const RunTimes& times, const std::string& why);
  // Objects that close() releases besides the model.
  void add_iteration(const std::shared_ptr<Iteration>& iteration);
  // Takes an unused pipeline of the runtime, if there is one, and puts it back for the next user.
  std::unique_ptr<device::Pipeline> take_pipeline();
  void keep_pipeline(std::unique_ptr<device::Pipeline> pipeline);
  // Returns the exact shapes of `inputs`, which have the types that were fed. `pattern`: as for fit_all.
  Result<std::vector<Shape>> fit_views(const std::vector<TensorView>& inputs, Mode mode, const std::vector<Shape>* pattern);
  void keep_notes(const std::vector<Note>& notes, const std::vector<TensorView>& inputs, const std::vector<Shape>& shapes);
  bool inherited() const { return generation_ != fork_generation(); }

  const std::shared_ptr<device::Device> device_;
  const device::ModelInfo info_;
  const std::uint64_t generation_;
  const std::int64_t born_ns_;
  std::atomic<int> loop_;
  std::atomic<std::uint64_t> cancels_{0};
  TimeLog<Execution> exec_times_;

  struct State {
    std::shared_ptr<device::Model> model;    // null when closed
    std::unique_ptr<device::Pipeline> idle;  // see take_pipeline
    std::vector<std::weak_ptr<Iteration>> iterations;
    std::optional<std::vector<Shape>> shapes;
    std::set<NoteKey> noted;
    std::vector<Notice> notices;
    bool times_missed = false;  // it was reported
  };
  Guarded<State> state_;
  std::atomic<bool> notices_pending_{false};
};

template <typename Once>
Status Session::timed(Once once, std::int64_t* ended_ns) {
  const std::int64_t start = monotonic_ns();
  Status status = once();
  const std::int64_t end = monotonic_ns();
  if (ended_ns != nullptr) *ended_ns = end;
  if (status.ok()) {
    exec_times_.add({static_cast<double>(start - born_ns_) * 1e-6, static_cast<double>(end - born_ns_) * 1e-6});
  }
  return status;
}

// The failure of a sink that refused an output.
Status no_room(const device::TensorDesc& desc, std::size_t bytes);

// Bytes of a declared shape, and whether that shape is known before a run.
bool known_bytes(const device::TensorDesc& desc, std::size_t* bytes);

}  // namespace ais::session
