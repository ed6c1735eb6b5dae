// Opens a session, stages feeds, runs, delivers outputs, closes.
#include "session/session.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/interrupt.hpp"
#include "base/process.hpp"
#include "base/tuning.hpp"
#include "session/iteration.hpp"

namespace ais::session {
namespace {

Status closed_status() {
  return Status(Code::kClosed,
                "the session was freed (free_resource or finalize); make a new InferSession to run the model again");
}

// Returns whether the model's elements can be read in place. A caller's bytes may start anywhere, as in a slice of a file.
bool is_aligned(const TensorView& view) {
  const std::size_t item = std::max<std::size_t>(dtype_bits(view.dtype) / 8, 1);
  return reinterpret_cast<std::uintptr_t>(view.data) % std::min<std::size_t>(item, 8) == 0;
}

std::string device_text(const device::Device& device) {
  return std::to_string(device.id()) + " of runtime '" + device.runtime() + "'";
}

// For tests: every run checks whether bound outputs were written.
constexpr unsigned char kUnwritten = 0x5C;

bool checks_outputs() {
  static const bool checks = std::getenv("AIS_BENCH_CHECK_OUTPUTS") != nullptr;
  return checks;
}

// The live sessions of this process, for close_all.
struct Registry {
  std::mutex lock;
  std::vector<Session*> sessions;  // guarded by lock
};

Registry& registry() {
  static PerProcess<Registry> registry;
  return registry.get();
}

}  // namespace

Status no_room(const device::TensorDesc& desc, std::size_t bytes) {
  return Status(Code::kOutOfMemory,
                "there is not enough memory for output '" + desc.name + "' of " + std::to_string(bytes) + " bytes");
}

bool known_bytes(const device::TensorDesc& desc, std::size_t* bytes) {
  std::size_t elements = 0;
  if (desc.open() || !count_elements(desc.shape, &elements)) return false;
  *bytes = packed_bytes(desc.dtype, elements);
  return true;
}

Result<std::shared_ptr<Session>> Session::open(device::Runtime* runtime, const SessionConfig& config) {
  if (config.loop < 1) return Status(Code::kInvalidArgument, "loop must be at least 1, got " + std::to_string(config.loop));
  AIS_ASSIGN(std::shared_ptr<device::Device> device, runtime->open(config.device_id, config.options));
  AIS_ASSIGN(std::shared_ptr<device::Model> model, device->load(config.source, config.options));
  auto session = std::shared_ptr<Session>(new Session(std::move(device), std::move(model), config.loop));
  Registry& all = registry();
  const std::lock_guard<std::mutex> guard(all.lock);
  all.sessions.push_back(session.get());
  return session;
}

Session::Session(std::shared_ptr<device::Device> device, std::shared_ptr<device::Model> model, int loop)
    : device_(std::move(device)), info_(model->info()), generation_(fork_generation()), born_ns_(monotonic_ns()), loop_(loop) {
  state_.lock()->model = std::move(model);
}

Session::~Session() {
  if (inherited()) return;
  Registry& all = registry();
  const std::lock_guard<std::mutex> guard(all.lock);
  all.sessions.erase(std::remove(all.sessions.begin(), all.sessions.end(), this), all.sessions.end());
}

Result<std::shared_ptr<device::Model>> Session::model() const {
  const auto state = state_.lock();
  if (!state) return forked_child();
  if (state->model == nullptr) return closed_status();
  return state->model;
}

void Session::close() {
  std::shared_ptr<device::Model> model;  // released outside the lock, because it may take a while
  std::unique_ptr<device::Pipeline> idle;
  std::vector<std::weak_ptr<Iteration>> iterations;
  if (const auto state = state_.lock()) {
    model.swap(state->model);
    idle.swap(state->idle);
    iterations.swap(state->iterations);
  }
  for (const auto& known : iterations) {
    if (const auto iteration = known.lock()) iteration->release();
  }
}

void Session::add_iteration(const std::shared_ptr<Iteration>& iteration) {
  const auto state = state_.lock();
  if (!state) return;  // a forked child: there is no model to release
  auto& all = state->iterations;
  all.erase(std::remove_if(all.begin(), all.end(), [](const auto& known) { return known.expired(); }), all.end());
  all.push_back(iteration);
}

bool Session::closed() const {
  const auto state = state_.lock();
  return !state || state->model == nullptr;
}

void Session::close_all() {
  std::vector<std::shared_ptr<Session>> live;
  {
    Registry& all = registry();
    const std::lock_guard<std::mutex> guard(all.lock);
    for (Session* session : all.sessions) {
      // Null if the last owner is being destroyed now; the destructor waits for the lock that is held here.
      if (auto alive = session->weak_from_this().lock()) live.push_back(std::move(alive));
    }
  }
  for (const auto& session : live) session->close();
}

Status Session::append_times(const Session& other, std::uint64_t since) {
  const double shift_ms = static_cast<double>(other.born_ns_ - born_ns_) * 1e-6;
  AIS_ASSIGN(const auto part, other.exec_times_.read(since));
  for (const Execution& span : part.entries) exec_times_.add({span.start_ms + shift_ms, span.end_ms + shift_ms});
  return Status();
}

Result<std::string> Session::cancel() {
  AIS_ASSIGN(const std::shared_ptr<device::Model> running, model());
  cancels_.fetch_add(1);  // first: a run that the model does not know yet looks at it afterwards
  return running->cancel();
}

Status Session::cancelled_since(std::uint64_t cancels) const {
  return cancels == cancels_.load() ? Status() : Status(Code::kCancelled, "the run was asked to stop");
}

Status Session::expect_outputs(const std::vector<std::size_t>& bytes) {
  AIS_ASSIGN(const std::shared_ptr<device::Model> loaded, model());
  return loaded->expect_outputs(bytes);
}

Status Session::set_aipp(const device::Aipp& settings) {
  AIS_ASSIGN(const std::shared_ptr<device::Model> loaded, model());
  return loaded->set_aipp(settings);
}

std::unique_ptr<device::Pipeline> Session::take_pipeline() {
  const auto state = state_.lock();
  return state ? std::move(state->idle) : nullptr;
}

void Session::keep_pipeline(std::unique_ptr<device::Pipeline> pipeline) {
  const auto state = state_.lock();
  if (!state) {
    static_cast<void>(pipeline.release());  // its device belongs to the parent
  } else if (state->model != nullptr && state->idle == nullptr) {
    state->idle = std::move(pipeline);
  }
}

void Session::note_run(const RunTimes& times, const std::string& why) {
  const auto ms = [](std::int64_t ns) { return static_cast<double>(ns) * 1e-6; };
  if (times.execute_known) exec_times_.add({ms(times.staged_ns - born_ns_), ms(times.executed_ns - born_ns_)});
  if (times.copy_in_known) memory_times().to_device.add(static_cast<float>(ms(times.staged_ns - times.start_ns)));
  if (times.copy_out_known) memory_times().to_host.add(static_cast<float>(ms(times.delivered_ns - times.executed_ns)));
  if (times.execute_known && times.copy_in_known && times.copy_out_known) return;
  const auto state = state_.lock();
  if (!state || state->times_missed) return;
  state->times_missed = true;
  state->notices.push_back(
      {Notice::NoticeKind::kTimes, "device " + std::to_string(device_->id()) +
                                       " did not report how long a run took, so its times are left out of the "
                                       "statistics (said once for each session): " +
                                       why});
  notices_pending_.store(true, std::memory_order_relaxed);
}

Status Session::set_shapes(std::optional<std::vector<Shape>> shapes) {
  const auto state = state_.lock();
  if (!state) return forked_child();
  if (state->model == nullptr) return closed_status();
  state->shapes = std::move(shapes);
  return Status();
}

Result<std::optional<std::vector<Shape>>> Session::shapes() const {
  const auto state = state_.lock();
  if (!state) return forked_child();
  return state->shapes;
}

void Session::print_notices() {
  if (!has_notices()) return;
  for (const auto& [kind, text] : take_notices()) {
    std::fprintf(stderr, "%s: %s\n", kind == Notice::NoticeKind::kFeed ? "FeedWarning" : "TimesWarning", text.c_str());
  }
}

void Session::keep_notes(const std::vector<Note>& notes, const std::vector<TensorView>& inputs,
                         const std::vector<Shape>& shapes) {
  const auto state = state_.lock();
  if (!state) return;
  for (const Note& note : notes) {
    const TensorView& view = inputs[note.input];
    const NoteKey key{note.input, note.kind, view.dtype, view.shape.size()};
    if (state->noted.count(key) != 0) continue;
    state->notices.push_back({Notice::NoticeKind::kFeed, note_text(note, info_.fed(note.input), view, shapes[note.input])});
    state->noted.insert(key);
    notices_pending_.store(true, std::memory_order_relaxed);
  }
}

std::vector<Session::Notice> Session::take_notices() {
  notices_pending_.store(false, std::memory_order_relaxed);
  const auto state = state_.lock();
  return state ? std::exchange(state->notices, {}) : std::vector<Notice>();
}

void Session::tell_again() {
  if (const auto state = state_.lock()) state->noted.clear();
}

Result<std::vector<Shape>> Session::fit_views(const std::vector<TensorView>& inputs, Mode mode,
                                              const std::vector<Shape>* pattern) {
  std::vector<Note> notes;
  AIS_ASSIGN(std::vector<Shape> shapes, fit_all(info_, mode, pattern, inputs, &notes));
  if (!notes.empty()) keep_notes(notes, inputs, shapes);
  return shapes;
}

Status Session::fit_feeds(const std::vector<Feed>& feeds, ShapeRule rule, std::vector<TensorView>* inputs) {
  inputs->reserve(feeds.size());
  for (const Feed& feed : feeds) inputs->push_back(feed.view);
  std::optional<std::vector<Shape>> setting;
  if (rule.use_setting) {
    AIS_ASSIGN(setting, shapes());
  }
  if (!setting && fits_as_declared(info_, *inputs)) return Status();
  AIS_ASSIGN(std::vector<Shape> fitted, fit_views(*inputs, rule.mode, setting ? &*setting : nullptr));
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    if ((*inputs)[i].absent()) continue;
    (*inputs)[i].dtype = info_.fed(i).dtype;
    (*inputs)[i].shape = std::move(fitted[i]);
  }
  return Status();
}

Status Session::stage(const std::vector<Feed>& feeds, ShapeRule rule, std::vector<TensorView>* inputs,
                      std::vector<device::Buffer>* held, std::int64_t* staged_ns) {
  AIS_TRY(fit_feeds(feeds, rule, inputs));
  CopyLaps laps(&memory_times().to_device, monotonic_ns());
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    TensorView& input = (*inputs)[i];
    if (input.absent()) continue;
    const device::Device* where = feeds[i].device.get();
    if (where != nullptr && !device::same_device(*where, *device_)) {
      return Status(Code::kFeedMismatch, "input '" + info_.fed(i).name + "' must be on the host or on this session's device " +
                                             device_text(*device_) + ", got a tensor on device " + device_text(*where) +
                                             "; call to_host() on the tensor first");
    }
    if (where != nullptr) continue;
    if (!device_->host_visible() || !is_aligned(input)) {
      AIS_ASSIGN(device::Buffer buffer, device_->allocate(input.bytes));
      AIS_TRY(device_->copy_to_device(buffer.data.get(), input.data, input.bytes));
      input.data = buffer.data.get();
      held->push_back(std::move(buffer));
    }
    laps.add();
  }
  if (staged_ns != nullptr) *staged_ns = laps.last_ns();
  return Status();
}

// Sets the memory of outputs of known shape: the caller's memory if the device can write to it, otherwise the device's.
Status Session::place_outputs(OutputSink* sink, std::vector<device::Output>* outputs, std::vector<device::Buffer>* held,
                              std::vector<void*>* host) {
  outputs->resize(info_.outputs.size());
  host->assign(info_.outputs.size(), nullptr);
  for (std::size_t i = 0; i < info_.outputs.size(); ++i) {
    const device::TensorDesc& desc = info_.outputs[i];
    device::Output& output = (*outputs)[i];
    if (!known_bytes(desc, &output.capacity)) continue;
    output.shape = desc.shape;
    if (sink != nullptr && device_->host_visible()) {
      output.data = sink->reserve(i, desc, desc.shape, output.capacity);
      if (output.data == nullptr) return no_room(desc, output.capacity);
      (*host)[i] = output.data;
    } else {
      AIS_ASSIGN(device::Buffer buffer, device_->allocate(output.capacity));
      output.data = buffer.data.get();
      held->push_back(std::move(buffer));
    }
  }
  return Status();
}

Status Session::execute(device::Model* model, const std::vector<TensorView>& inputs, std::uint64_t cancels,
                        std::vector<device::Output>* outputs, std::int64_t* executed_ns) {
  const int loop = loop_;                                           // another thread may set it meanwhile
  const bool checks = checks_outputs() && device_->host_visible();  // on other devices each check costs two copies
  const std::vector<device::Output> placed = loop > 1 || checks ? *outputs : std::vector<device::Output>();
  std::int64_t looked_ns = monotonic_ns();
  AIS_TRY(cancelled_since(cancels));  // while the feeds were copied
  for (int i = 0; i < loop; ++i) {
    if (i != 0) {
      AIS_TRY(check_interrupt(&looked_ns));
      *outputs = placed;
    }
    if (checks) AIS_TRY(fill_unwritten(placed));
    AIS_TRY(timed([&] { return model->execute(inputs, outputs); }, executed_ns));
    AIS_TRY(cancelled_since(cancels));  // the model knows nothing of a cancel between two executions
    if (checks) AIS_TRY(check_written(placed, *outputs));
  }
  return Status();
}

// Returns Cancelled if a signal handler raised between two runs of a loop. A run that is short ends before it is stopped.
Status Session::check_interrupt(std::int64_t* looked_ns) {
  const std::int64_t now_ns = monotonic_ns();
  if (now_ns - *looked_ns <= tuning::kSignalCheckNs) return Status();
  *looked_ns = now_ns;
  return interrupted() ? Status(Code::kCancelled, "interrupted") : Status();
}

Status Session::fill_unwritten(const std::vector<device::Output>& placed) {
  for (const device::Output& output : placed) {
    if (output.data == nullptr || output.capacity == 0) continue;
    const std::vector<unsigned char> pattern(output.capacity, kUnwritten);
    AIS_TRY(device_->copy_to_device(output.data, pattern.data(), pattern.size()));
  }
  return Status();
}

Status Session::check_written(const std::vector<device::Output>& placed, const std::vector<device::Output>& outputs) {
  for (std::size_t i = 0; i < placed.size(); ++i) {
    if (placed[i].data == nullptr || outputs[i].data != placed[i].data || outputs[i].bytes == 0) continue;
    std::vector<unsigned char> got(outputs[i].bytes);
    AIS_TRY(device_->copy_to_host(got.data(), outputs[i].data, got.size()));
    if (std::all_of(got.begin(), got.end(), [](unsigned char byte) { return byte == kUnwritten; })) {
      return Status(Code::kExecution, "output '" + info_.outputs[i].name + "' was bound, and the device did not write it");
    }
  }
  return Status();
}

Status Session::deliver(const std::vector<device::Output>& outputs, OutputSink* sink, const std::vector<void*>& host,
                        std::int64_t from_ns, std::int64_t* delivered_ns) {
  CopyLaps laps(&memory_times().to_host, from_ns);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const device::Output& output = outputs[i];
    if (host[i] == nullptr || output.data != host[i]) {  // not written in place
      void* to = sink->reserve(i, info_.outputs[i], output.shape, output.bytes);
      if (to == nullptr) return no_room(info_.outputs[i], output.bytes);
      AIS_TRY(device_->copy_to_host(to, output.data, output.bytes));
    }
    laps.add();
  }
  if (delivered_ns != nullptr) *delivered_ns = laps.last_ns();
  return Status();
}

Status Session::run(const std::vector<Feed>& feeds, ShapeRule rule, OutputSink* sink, RunTimes* times) {
  AIS_ASSIGN(const std::shared_ptr<device::Model> loaded, model());
  const std::uint64_t cancels = this->cancels();
  RunTimes ignored;
  if (times == nullptr) times = &ignored;
  times->start_ns = monotonic_ns();
  std::vector<TensorView> inputs;
  std::vector<device::Buffer> held;
  AIS_TRY(stage(feeds, rule, &inputs, &held, &times->staged_ns));
  std::vector<device::Output> outputs;
  std::vector<void*> host;
  AIS_TRY(place_outputs(sink, &outputs, &held, &host));
  AIS_TRY(execute(loaded.get(), inputs, cancels, &outputs, &times->executed_ns));
  return deliver(outputs, sink, host, times->executed_ns, &times->delivered_ns);
}

Result<std::vector<Tensor>> Session::run_on_device(const std::vector<Feed>& feeds, ShapeRule rule) {
  AIS_ASSIGN(const std::shared_ptr<device::Model> loaded, model());
  const std::uint64_t cancels = this->cancels();
  std::vector<TensorView> inputs;
  std::vector<device::Buffer> held;
  AIS_TRY(stage(feeds, rule, &inputs, &held));
  std::vector<device::Output> outputs;
  std::vector<device::Buffer> kept;
  std::vector<void*> host;
  AIS_TRY(place_outputs(nullptr, &outputs, &kept, &host));
  AIS_TRY(execute(loaded.get(), inputs, cancels, &outputs));
  std::vector<Tensor> tensors;
  std::size_t next = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    std::size_t bytes = 0;
    device::Buffer mine = known_bytes(info_.outputs[i], &bytes) ? std::move(kept[next++]) : device::Buffer();
    device::Output& output = outputs[i];
    if (output.owner != nullptr) mine.data = std::shared_ptr<void>(output.owner, output.data);
    mine.bytes = output.bytes;
    tensors.emplace_back(info_.outputs[i].dtype, std::move(output.shape), std::move(mine), device_);
  }
  return tensors;
}

}  // namespace ais::session
