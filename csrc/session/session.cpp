// Opening, staging, running, delivering, closing.
#include "session/session.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/process.hpp"
#include "session/iteration.hpp"

namespace ais::session {
namespace {

Status closed_status() {
  return Status(Code::kClosed,
                "the session was freed (free_resource or finalize); make a new InferSession to run the model again");
}

Status forked_status() {
  return Status(Code::kForkedChild,
                "this session was made in the process that this one was forked from; make a new InferSession here");
}

// Whether the model's elements may be read where they lie. A caller's bytes may start anywhere (a slice of a file, say).
bool is_aligned(const TensorView& view) {
  const std::size_t item = std::max<std::size_t>(dtype_bits(view.dtype) / 8, 1);
  return reinterpret_cast<std::uintptr_t>(view.data) % std::min<std::size_t>(item, 8) == 0;
}

std::string device_text(const device::Device& device) {
  return std::to_string(device.id()) + " of runtime '" + device.runtime() + "'";
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
  return Status(Code::kOutOfMemory, "there is no room for output '" + desc.name + "' of " + std::to_string(bytes) + " bytes");
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
    : device_(std::move(device)),
      info_(model->info()),
      generation_(fork_generation()),
      born_ns_(monotonic_ns()),
      loop_(loop),
      model_(std::move(model)),
      kind_warned_(info_.inputs.size(), false) {}

Session::~Session() {
  if (inherited()) return;
  Registry& all = registry();
  const std::lock_guard<std::mutex> guard(all.lock);
  all.sessions.erase(std::remove(all.sessions.begin(), all.sessions.end(), this), all.sessions.end());
}

Result<std::shared_ptr<device::Model>> Session::model() const {
  if (inherited()) return forked_status();
  const std::lock_guard<std::mutex> guard(lock_);
  if (model_ == nullptr) return closed_status();
  return model_;
}

void Session::close() {
  if (inherited()) return;
  std::shared_ptr<device::Model> model;  // released outside the lock: it may take a while
  std::unique_ptr<device::Pipeline> idle;
  std::vector<std::weak_ptr<Iteration>> iterations;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    model.swap(model_);
    idle.swap(idle_);
    iterations.swap(iterations_);
  }
  for (const auto& known : iterations) {
    if (const auto iteration = known.lock()) iteration->release();
  }
}

void Session::add_iteration(const std::shared_ptr<Iteration>& iteration) {
  if (inherited()) return;  // it will not get a model
  const std::lock_guard<std::mutex> guard(lock_);
  iterations_.erase(std::remove_if(iterations_.begin(), iterations_.end(), [](const auto& known) { return known.expired(); }),
                    iterations_.end());
  iterations_.push_back(iteration);
}

bool Session::closed() const {
  if (inherited()) return true;
  const std::lock_guard<std::mutex> guard(lock_);
  return model_ == nullptr;
}

void Session::close_all() {
  std::vector<std::shared_ptr<Session>> live;
  {
    Registry& all = registry();
    const std::lock_guard<std::mutex> guard(all.lock);
    for (Session* session : all.sessions) {
      // Null where the last owner is letting go right now; its destructor waits for the lock we hold.
      if (auto alive = session->weak_from_this().lock()) live.push_back(std::move(alive));
    }
  }
  for (const auto& session : live) session->close();
}

void Session::append_times(const Session& other, std::uint64_t since) {
  std::uint64_t total = 0;
  std::uint64_t clears = 0;
  const double shift_ms = static_cast<double>(other.born_ns_ - born_ns_) * 1e-6;
  for (const Span& span : other.exec_times_.read(since, &total, &clears)) {
    exec_times_.add({span.start_ms + shift_ms, span.end_ms + shift_ms});
  }
}

Result<std::string> Session::cancel() {
  AIS_ASSIGN(const std::shared_ptr<device::Model> running, model());
  return running->cancel();
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
  const std::lock_guard<std::mutex> guard(lock_);
  return std::move(idle_);
}

void Session::keep_pipeline(std::unique_ptr<device::Pipeline> pipeline) {
  if (inherited()) {
    static_cast<void>(pipeline.release());  // its device is the parent's
    return;
  }
  const std::lock_guard<std::mutex> guard(lock_);
  if (model_ != nullptr && idle_ == nullptr) idle_ = std::move(pipeline);
}

void Session::note_run(const RunTimes& times, const std::string& why) {
  const auto ms = [](std::int64_t ns) { return static_cast<double>(ns) * 1e-6; };
  if (times.execute_known) exec_times_.add({ms(times.staged_ns - born_ns_), ms(times.executed_ns - born_ns_)});
  if (times.copy_in_known) memory_times().to_device.add(static_cast<float>(ms(times.staged_ns - times.start_ns)));
  if (times.copy_out_known) memory_times().to_host.add(static_cast<float>(ms(times.delivered_ns - times.executed_ns)));
  if (times.execute_known && times.copy_in_known && times.copy_out_known) return;
  const std::lock_guard<std::mutex> guard(lock_);
  if (times_missed_) return;
  times_missed_ = true;
  notices_.push_back({Notice::Kind::kTimes, "device " + std::to_string(device_->id()) +
                                                " did not tell how long a run took, and its times are left out of the "
                                                "statistics (said once for a session): " +
                                                why});
  notices_pending_.store(true, std::memory_order_relaxed);
}

Status Session::set_shapes(std::optional<std::vector<Shape>> shapes) {
  AIS_TRY(check_open());
  const std::lock_guard<std::mutex> guard(lock_);
  shapes_ = std::move(shapes);
  return Status();
}

std::optional<std::vector<Shape>> Session::shapes() const {
  if (inherited()) return std::nullopt;
  const std::lock_guard<std::mutex> guard(lock_);
  return shapes_;
}

void Session::note_kinds(const std::vector<TensorView>& views) {
  for (std::size_t i = 0; i < views.size(); ++i) {
    if (!kind_differs(info_.inputs[i].dtype, views[i].dtype)) continue;
    const std::lock_guard<std::mutex> guard(lock_);
    if (kind_warned_[i]) continue;
    kind_warned_[i] = true;
    notices_.push_back({Notice::Kind::kFeed, "input '" + info_.inputs[i].name + "' takes " +
                                                 std::string(dtype_name(info_.inputs[i].dtype)) + " and was given " +
                                                 std::string(dtype_name(views[i].dtype)) +
                                                 "; its bytes are used as they are, nothing is converted"});
    notices_pending_.store(true, std::memory_order_relaxed);
  }
}

void Session::print_notices() {
  if (!has_notices()) return;
  for (const auto& [kind, text] : take_notices()) {
    std::fprintf(stderr, "%s: %s\n", kind == Notice::Kind::kFeed ? "FeedWarning" : "TimesWarning", text.c_str());
  }
}

std::vector<Session::Notice> Session::take_notices() {
  const std::lock_guard<std::mutex> guard(lock_);
  notices_pending_.store(false, std::memory_order_relaxed);
  return std::exchange(notices_, {});
}

Status Session::fit_feeds(const std::vector<Feed>& feeds, ShapeRule rule, std::vector<TensorView>* inputs) {
  inputs->reserve(feeds.size());
  for (const Feed& feed : feeds) inputs->push_back(feed.view);
  const std::optional<std::vector<Shape>> setting = rule.use_setting ? shapes() : std::nullopt;
  AIS_ASSIGN(std::vector<Shape> fitted, fit_all(info_, rule.mode, setting ? &*setting : nullptr, *inputs));
  note_kinds(*inputs);
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    (*inputs)[i].dtype = info_.inputs[i].dtype;
    (*inputs)[i].shape = std::move(fitted[i]);
  }
  return Status();
}

Status Session::stage(const std::vector<Feed>& feeds, ShapeRule rule, std::vector<TensorView>* inputs,
                      std::vector<device::Buffer>* held) {
  AIS_TRY(fit_feeds(feeds, rule, inputs));
  TimeLog<float>* log = &memory_times().to_device;
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    TensorView& input = (*inputs)[i];
    const device::Device* where = feeds[i].device.get();
    if (where != nullptr && !device::same_device(*where, *device_)) {
      return Status(Code::kFeedMismatch, "input '" + info_.inputs[i].name + "' is a tensor on device " + device_text(*where) +
                                             "; this session is on device " + device_text(*device_) +
                                             ", call to_host() on the tensor first");
    }
    if (where != nullptr) continue;
    const CopyTimer timer(log);
    if (device_->host_visible() && is_aligned(input)) continue;
    AIS_ASSIGN(device::Buffer buffer, device_->allocate(input.bytes));
    AIS_TRY(device_->copy_to_device(buffer.data.get(), input.data, input.bytes));
    input.data = buffer.data.get();
    held->push_back(std::move(buffer));
  }
  return Status();
}

// Memory for the outputs whose shape is known: the caller's own where the device can write there, else the device's.
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

Status Session::execute(device::Model* model, const std::vector<TensorView>& inputs, std::vector<device::Output>* outputs) {
  const std::vector<device::Output> placed = *outputs;
  const int loop = loop_;  // another thread may set it meanwhile
  for (int i = 0; i < loop; ++i) {
    if (i != 0) *outputs = placed;
    AIS_TRY(timed([&] { return model->execute(inputs, outputs); }));
  }
  return Status();
}

Status Session::deliver(const std::vector<device::Output>& outputs, OutputSink* sink, const std::vector<void*>& host) {
  TimeLog<float>* log = &memory_times().to_host;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const device::Output& output = outputs[i];
    const CopyTimer timer(log);
    if (host[i] != nullptr && output.data == host[i]) continue;  // written in place
    void* to = sink->reserve(i, info_.outputs[i], output.shape, output.bytes);
    if (to == nullptr) return no_room(info_.outputs[i], output.bytes);
    AIS_TRY(device_->copy_to_host(to, output.data, output.bytes));
  }
  return Status();
}

Status Session::run(const std::vector<Feed>& feeds, ShapeRule rule, OutputSink* sink, RunTimes* times) {
  AIS_ASSIGN(const std::shared_ptr<device::Model> loaded, model());
  if (times != nullptr) times->start_ns = monotonic_ns();
  std::vector<TensorView> inputs;
  std::vector<device::Buffer> held;
  AIS_TRY(stage(feeds, rule, &inputs, &held));
  if (times != nullptr) times->staged_ns = monotonic_ns();
  std::vector<device::Output> outputs;
  std::vector<void*> host;
  AIS_TRY(place_outputs(sink, &outputs, &held, &host));
  AIS_TRY(execute(loaded.get(), inputs, &outputs));
  if (times != nullptr) times->executed_ns = monotonic_ns();
  AIS_TRY(deliver(outputs, sink, host));
  if (times != nullptr) times->delivered_ns = monotonic_ns();
  return Status();
}

Result<std::vector<Tensor>> Session::run_on_device(const std::vector<Feed>& feeds, ShapeRule rule) {
  AIS_ASSIGN(const std::shared_ptr<device::Model> loaded, model());
  std::vector<TensorView> inputs;
  std::vector<device::Buffer> held;
  AIS_TRY(stage(feeds, rule, &inputs, &held));
  std::vector<device::Output> outputs;
  std::vector<device::Buffer> kept;
  std::vector<void*> host;
  AIS_TRY(place_outputs(nullptr, &outputs, &kept, &host));
  AIS_TRY(execute(loaded.get(), inputs, &outputs));
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
