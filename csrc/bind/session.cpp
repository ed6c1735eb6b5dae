// _native.Session and _native.Iteration: convert, release the GIL, delegate, convert back.
#include "session/session.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/tuning.hpp"
#include "bind/arrays.hpp"
#include "bind/bind.hpp"
#include "bind/feed_rule.hpp"
#include "bind/runtimes.hpp"
#include "bind/signal_watch.hpp"
#include "bind/tensor.hpp"
#include "bind/time_span.hpp"
#include "device/gears.hpp"
#include "session/iteration.hpp"
#include "session/pipeline.hpp"
#include "session/setting.hpp"

namespace ais::bind {
namespace {

using session::Iteration;
using session::Session;
using session::ShapeRule;
using SessionPtr = std::shared_ptr<Session>;

template <typename Call>
auto without_gil(Call call) {
  const SignalWatch watch;
  auto result = [&call] {
    const NoGil nogil;
    return call();
  }();
  raise_if_interrupted();
  return result;
}

// Converts a mode of any type. The error for an invalid one has the form of all options.
ShapeRule rule_for(const py::object& mode) {
  if (py::isinstance<py::str>(mode)) {
    Result<session::Mode> parsed = session::parse_mode(mode.cast<std::string>());
    if (parsed.ok()) return {parsed.value(), false};
  }
  const py::object number =
      in_python([&] { return py::object(py::module_::import("ais_bench.options").attr("as_mode")(mode)); });
  return {static_cast<session::Mode>(number.cast<int>()), false};
}
constexpr ShapeRule kSetting{session::Mode::kShape, true};

void emit_warnings(Session& self) {
  if (!self.has_notices()) return;
  py::module_ errors = in_python([] { return py::module_::import("ais_bench.errors"); });
  for (const auto& [kind, text] : self.take_notices()) {
    const char* name = kind == Session::Notice::NoticeKind::kFeed ? "FeedWarning" : "TimesWarning";
    py::object category = in_python([&] { return py::object(errors.attr(name)); });
    if (in_python([&] { return PyErr_WarnEx(category.ptr(), text.c_str(), 2); }) != 0) {
      py::error_already_set error;
      self.tell_again();
      throw error;
    }
  }
}

// Returns a run's result after its warnings, so that the warnings of a failed run are not shown with the next run.
template <typename Outcome>
Outcome warning(Session& self, Outcome outcome) {
  emit_warnings(self);
  return outcome;
}

py::list to_list(std::vector<session::Tensor> tensors) {
  py::list list;
  for (session::Tensor& tensor : tensors) list.append(PyTensor{std::move(tensor)});
  return list;
}

Result<SessionPtr> open_with(const std::string& runtime_name, const session::SessionConfig& config) {
  AIS_ASSIGN(device::Runtime * runtime, find_runtime(runtime_name));
  return without_gil([&] { return Session::open(runtime, config); });
}

// Adds the model's name to an error, except if an option is wrong.
Result<SessionPtr> naming(const device::ModelSource& source, Result<SessionPtr> opened) {
  if (opened.ok()) return opened;
  Status status = opened.take_status();
  const bool said = status.message().find(source.name()) != std::string::npos;
  if (said || status.code() == Code::kInvalidArgument) return status;
  return std::move(status).with_context("cannot load the model '" + source.name() + "'");
}

SessionPtr open(const py::object& model, int device_id, int loop, const device::Options& options,
                const std::string& runtime_name) {
  session::SessionConfig config;
  py::buffer_info bytes;
  if (py::isinstance<py::str>(model)) {
    // Encode for the file system: a name that is not UTF-8 has escapes in Python.
    auto path = py::reinterpret_steal<py::bytes>(PyUnicode_EncodeFSDefault(model.ptr()));
    if (!path) throw py::error_already_set();
    config.source.path = path;
  } else {
    bytes = py::reinterpret_borrow<py::buffer>(model).request();
    config.source.bytes = bytes.ptr;
    config.source.size = static_cast<std::size_t>(bytes.size * bytes.itemsize);
  }
  config.device_id = device_id;
  config.loop = loop;
  config.options = options;
  const std::string name = value_or_raise(without_gil([&] { return device::runtime_for(config.source, runtime_name); }));
  if (name != "acl") {  // callers pass these options for any runtime
    for (const char* option : {"acl_json_path", "host_register", "share_workspace"}) config.options.erase(option);
  }
  SessionPtr session = value_or_raise(naming(config.source, open_with(name, config)));
  set_current_runtime(name, config.options);
  return session;
}

py::list infer(Session& self, const py::object& given, const py::object& mode, bool out_array) {
  const ShapeRule rule = rule_for(mode);
  const Feeds feeds = to_feeds(given, &self.info());
  if (!out_array) {
    return to_list(value_or_raise(warning(self, without_gil([&] { return self.run_on_device(feeds.feeds, rule); }))));
  }
  NumpySink sink(self.info());
  raise_if_error(warning(self, without_gil([&] { return self.run(feeds.feeds, rule, &sink); })));
  return sink.take();
}

// Runs many sets of feeds, and draws them from `sets` when the pipeline has room. Returns the outputs of each, in order.
class Many {
 public:
  // With `returns`, the error of a set replaces its outputs.
  Many(const SessionPtr& self, ShapeRule rule, bool returns)
      : self_(self), rule_(rule), returns_(returns), cancels_(self->cancels()) {
    pipeline_ = value_or_raise(without_gil([&] { return session::SessionPipeline::open(self_); }));
  }

  py::list run(const py::iterable& sets) {
    try {
      for (const py::handle& given : sets) {
        results_.append(py::none());
        run_step(results_.size() - 1, [&] { submit(given); });
      }
      while (!under_way_.empty()) finish();
      emit_warnings(*self_);
    } catch (py::error_already_set& error) {
      // Wait for the runs in progress first; other threads run meanwhile. The error may be a Ctrl-C in the caller's iterable.
      const bool stop = !error.matches(PyExc_Exception);
      {
        const NoGil nogil;
        if (stop) static_cast<void>(self_->cancel());  // an error means that the session is closed, so nothing runs
        pipeline_.reset();
      }
      throw;
    }
    return results_;
  }

 private:
  struct Submitted {
    std::size_t index;
    std::unique_ptr<NumpySink> sink;
  };

  void submit(const py::handle& given) {
    const Feeds feeds = to_feeds(given, &self_->info());
    while (pipeline_->under_way() == pipeline_->depth()) finish();
    // A cancel that no set in progress has reported came between two sets, so this set reports it.
    while (self_->cancels() != cancels_ && !under_way_.empty()) finish();
    raise_if_error(answered(self_->cancelled_since(cancels_)));
    auto sink = std::make_unique<NumpySink>(self_->info());
    const Status status = without_gil([&] { return pipeline_->submit(feeds.feeds, rule_, sink.get()); });
    if (status.ok()) under_way_.push_back({results_.size() - 1, std::move(sink)});
    raise_if_error(warning(*self_, status));
  }

  void finish() {
    const Submitted oldest = std::move(under_way_.front());
    under_way_.pop_front();
    run_step(oldest.index, [&] {
      raise_if_error(answered(without_gil([&] { return pipeline_->finish(nullptr); })));
      if (results_[oldest.index].is_none())
        results_[oldest.index] = oldest.sink->take();  // no warning was turned into an error
    });
  }

  // Notes that a set has reported the cancels until now.
  Status answered(Status status) {
    if (status.code() == Code::kCancelled) cancels_ = self_->cancels();
    return status;
  }

  // Runs one step of set `index`. An error names the set. It is the set's result, or ends the call.
  template <typename Step>
  void run_step(std::size_t index, const Step& step) {
    try {
      step();
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_Exception)) throw;
      in_python([&] {
        return py::object(
            py::module_::import("ais_bench.errors").attr("name_task")(error.value(), index, self_->device()->id()));
      });
      if (!returns_) {
        while (!under_way_.empty()) finish();  // the error of an earlier set comes first
        throw;
      }
      results_[index] = error.value();
    }
  }

  const SessionPtr self_;
  const ShapeRule rule_;
  const bool returns_;
  std::uint64_t cancels_;  // calls of Session::cancel that no set has to report
  py::list results_;
  std::deque<Submitted> under_way_;  // oldest first
  std::unique_ptr<session::SessionPipeline>
      pipeline_;  // the last member, so that it is destroyed before the memory that it writes to
};

py::list infer_many(const SessionPtr& self, const py::iterable& sets, const py::object& mode, bool returns) {
  return Many(self, rule_for(mode), returns).run(sets);
}

// Runs with the shapes that were set before, for the low-level module.
py::list run(Session& self, const py::object& given) {
  const Feeds feeds = to_feeds(given, &self.info());
  return to_list(value_or_raise(warning(self, without_gil([&] { return self.run_on_device(feeds.feeds, kSetting); }))));
}

py::list iterate(const SessionPtr& self, const py::object& given, const py::object& mode, const std::vector<int>& chain,
                 std::int64_t times) {
  const ShapeRule rule = rule_for(mode);
  const Feeds feeds = to_feeds(given, &self->info());
  NumpySink sink(self->info());
  const std::uint64_t cancels = self->cancels();
  Status status = without_gil([&]() -> Status {
    const auto iteration = Iteration::open(self);
    AIS_TRY(iteration->first(feeds.feeds, rule));
    std::int64_t checked_ns = monotonic_ns();
    for (std::int64_t i = 1; i < times; ++i) {
      if (const std::int64_t now_ns = monotonic_ns(); now_ns - checked_ns > tuning::kSignalCheckNs) {
        checked_ns = now_ns;
        const Gil gil;
        if (PyErr_CheckSignals() != 0) return Status(Code::kCancelled, "interrupted");
      }
      AIS_TRY(self->cancelled_since(cancels));  // between two steps
      AIS_TRY(iteration->step(chain));
    }
    return iteration->deliver(&sink);
  });
  raise_if_error(warning(*self, std::move(status)));
  return sink.take();
}

py::list describe(const Session& self, const std::vector<device::TensorDesc>& side) {
  raise_if_error(self.check_process());
  py::list list;
  for (const auto& desc : side) {
    list.append(py::make_tuple(desc.name, static_cast<int>(desc.dtype), desc.format, desc.shape, desc.bytes, desc.symbols,
                               desc.optional));
  }
  return list;
}

// Returns the maximum bytes of a picture that the device preprocesses (dynamic AIPP); with a gear, the gear's part of them.
std::size_t picture_bytes(const device::ModelInfo& info, const device::TensorDesc& desc, const Shape& set) {
  Shape gear;
  for (std::size_t d = 0; d < desc.shape.size(); ++d) {
    if (desc.shape[d] < 0) gear.push_back(set[d]);
  }
  std::size_t elements = 0;
  std::size_t most = 0;
  for (const Shape& other : info.gears.values) {
    if (count_elements(other, &elements)) most = std::max(most, elements);
  }
  return most != 0 && count_elements(gear, &elements) ? desc.bytes / most * elements : desc.bytes;
}

// Returns the bytes of every input for the next run with the present shapes.
std::vector<std::size_t> real_sizes(const Session& self) {
  const device::ModelInfo& info = self.info();
  std::vector<std::size_t> sizes;
  const auto shapes = value_or_raise(self.shapes());
  for (std::size_t i = 0; i < info.inputs.size(); ++i) {
    const device::TensorDesc& desc = info.inputs[i];
    std::size_t elements = 0;
    const bool set = shapes.has_value() && count_elements((*shapes)[i], &elements);
    const bool picture = std::find(info.aipp_inputs.begin(), info.aipp_inputs.end(), i) != info.aipp_inputs.end();
    const std::size_t bytes = picture && set ? picture_bytes(info, desc, (*shapes)[i]) : packed_bytes(desc.dtype, elements);
    sizes.push_back(set ? bytes : desc.bytes);
  }
  return sizes;
}

// Returns the TimeSpans from entry `since` on, the number of entries, and the number of clears.
py::tuple exec_times(Session& self, std::uint64_t since) {
  const auto part = value_or_raise(self.exec_times().read(since));
  py::list list(part.entries.size());
  for (std::size_t i = 0; i < part.entries.size(); ++i) {
    const session::Execution& span = part.entries[i];
    PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i), time_span(span.start_ms, span.end_ms).release().ptr());
  }
  return py::make_tuple(list, part.total, part.clears);
}

std::vector<float> memory_times(const std::string& direction) {
  session::MemoryTimes& times = session::memory_times();
  return value_or_raise((direction == "h2d" ? times.to_device : times.to_host).read(0)).entries;
}

// Returns the session. Raises SessionClosed in a forked child.
const Session& here(const Session& self) {
  raise_if_error(self.check_process());
  return self;
}

void set_shapes(Session& self, Result<std::vector<Shape>> shapes) {
  raise_if_error(self.set_shapes(value_or_raise(std::move(shapes))));
}

// `size`: (width, height). `swaps`: two switches (R and B or U and V; A and X). `lists`: by name, as in device::Aipp.
void set_aipp(Session& self, std::size_t input, std::int64_t pictures, int format, std::pair<int, int> size,
              std::pair<bool, bool> swaps, const std::map<std::string, std::vector<double>>& lists) {
  device::Aipp aipp;
  aipp.input = input;
  aipp.pictures = pictures;
  aipp.format = format;
  std::tie(aipp.width, aipp.height) = size;
  std::tie(aipp.swap_rb_uv, aipp.swap_alpha) = swaps;
  const auto fill = [&lists](const char* name, auto* out) {
    const auto given = lists.find(name);
    if (given == lists.end()) return;
    using Value = typename std::remove_pointer_t<decltype(out)>::value_type;
    for (const double value : given->second) out->push_back(static_cast<Value>(value));
  };
  fill("csc", &aipp.csc);
  fill("crop", &aipp.crop);
  fill("resize", &aipp.resize);
  fill("padding", &aipp.padding);
  fill("mean", &aipp.mean);
  fill("min", &aipp.min);
  fill("reciprocal", &aipp.reciprocal);
  raise_if_error(without_gil([&] { return self.set_aipp(aipp); }));
}

void register_iteration(py::module_& module) {
  py::class_<Iteration, std::shared_ptr<Iteration>>(module, "Iteration")
      .def(py::init(&Iteration::open), py::arg("session"))
      .def(
          "first",
          [](Iteration& self, Session& owner, const py::object& given, const std::optional<py::object>& mode) {
            const ShapeRule rule = mode ? rule_for(*mode) : kSetting;
            const Feeds feeds = to_feeds(given, &owner.info());
            raise_if_error(warning(self.session(), without_gil([&] { return self.first(feeds.feeds, rule); })));
          },
          py::arg("session"), py::arg("feeds"), py::arg("mode"))
      .def("step",
           [](Iteration& self, const std::vector<int>& chain) {
             raise_if_error(warning(self.session(), without_gil([&] { return self.step(chain); })));
           })
      .def("outputs", [](Iteration& self) { return to_list(value_or_raise(without_gil([&] { return self.outputs(); }))); });
}

using SessionClass = py::class_<Session, SessionPtr>;

// Registers the descriptions of the model and the device.
void register_descriptions(SessionClass& session) {
  session.def("inputs", [](const Session& self) { return describe(self, self.info().inputs); })
      .def("outputs", [](const Session& self) { return describe(self, self.info().outputs); })
      .def("overridable", [](const Session& self) { return describe(self, self.info().overridable); })
      .def("metadata",
           [](const Session& self) -> py::object {
             const device::Metadata& said = self.info().metadata;
             if (!said.known) return py::none();
             return py::make_tuple(said.producer, said.version, said.domain, said.graph, said.description, said.custom);
           })
      .def("placement",
           [](const Session& self) -> std::optional<std::pair<std::size_t, std::vector<std::string>>> {
             const device::Placement& placement = self.info().placement;
             if (!placement.known) return std::nullopt;
             return std::pair(placement.nodes, placement.on_the_cpu);
           })
      .def("gears",
           [](const Session& self) {
             raise_if_error(self.check_process());
             return py::make_tuple(device::gear_mode(self.info().gears.kind), self.info().gears.values);
           })
      .def("aipp_inputs",
           [](const Session& self) {
             raise_if_error(self.check_process());
             return self.info().aipp_inputs;
           })
      .def("memory",
           [](Session& self) -> std::optional<std::pair<std::size_t, std::size_t>> {
             const Result<device::MemoryInfo> memory = without_gil([&] { return self.device()->memory(); });
             if (!memory.ok()) return std::nullopt;
             return std::pair(memory.value().free, memory.value().total);
           })
      .def("host_memory", [](const Session& self) { return without_gil([&] { return self.device()->host_memory(); }); })
      .def_property_readonly("device_id", [](const Session& self) { return self.device()->id(); })
      .def_property_readonly("runtime", [](const Session& self) { return self.device()->runtime(); });
}

// Registers the functions that set shapes for later runs.
void register_shapes(SessionClass& session) {
  session.def("set_static", [](Session& self) { raise_if_error(self.set_shapes(std::nullopt)); })
      .def("set_batch",
           [](Session& self, std::int64_t batch) { set_shapes(self, session::batch_setting(here(self).info(), batch)); })
      .def("set_image", [](Session& self, std::int64_t height,
                           std::int64_t width) { set_shapes(self, session::image_setting(here(self).info(), height, width)); })
      .def("set_dims",
           [](Session& self, const std::string& text) { set_shapes(self, session::dims_setting(here(self).info(), text)); })
      .def("set_shape",
           [](Session& self, const std::string& text) { set_shapes(self, session::shape_setting(here(self).info(), text)); })
      .def("set_aipp", &set_aipp, py::arg("input"), py::arg("pictures"), py::arg("format"), py::arg("size"), py::arg("swaps"),
           py::arg("lists"))
      .def(
          "expect_outputs",
          [](Session& self, const std::vector<std::size_t>& bytes) {
            raise_if_error(without_gil([&] { return self.expect_outputs(bytes); }));
          },
          py::arg("bytes"));
}

void register_runs(SessionClass& session) {
  session.def("infer", &infer, py::arg("feeds"), py::arg("mode"), py::arg("out_array"))
      .def("infer_many", &infer_many, py::arg("sets"), py::arg("mode"), py::arg("returns"))
      .def("run", &run, py::arg("feeds"))
      .def("iterate", &iterate, py::arg("feeds"), py::arg("mode"), py::arg("chain"), py::arg("times"))
      .def("real_sizes", &real_sizes)
      .def("exec_times", &exec_times, py::arg("since"))
      .def(
          "append_times",
          [](Session& self, const Session& other, std::uint64_t since) { raise_if_error(self.append_times(other, since)); },
          py::arg("other"), py::arg("since"))
      .def("clear_exec_times", [](Session& self) { raise_if_error(self.exec_times().clear()); })
      .def(
          "to_device",
          [](const Session& self, PyTensor& tensor) {
            raise_if_error(self.check_process());
            move(&tensor, [&](session::Tensor* moved) { return moved->to_device(self.device()); });
          },
          py::arg("tensor"))
      .def_property("loop", &Session::loop, &Session::set_loop)
      .def("cancel", [](Session& self) { return value_or_raise(self.cancel()); })
      .def("check_process", [](const Session& self) { raise_if_error(self.check_process()); })
      .def("close",
           [](Session& self) {
             without_gil([&] {
               self.close();
               return 0;
             });
           })
      .def_property_readonly("closed", &Session::closed);
}

}  // namespace

void register_session(py::module_& module) {
  SessionClass session(module, "Session");
  session.def(py::init(&open), py::arg("model"), py::arg("device_id"), py::arg("loop"), py::arg("options"), py::arg("runtime"));
  register_descriptions(session);
  register_shapes(session);
  register_runs(session);
  register_iteration(module);
  py::class_<FeedRule, std::shared_ptr<FeedRule>>(module, "FeedRule")
      .def(py::init<const py::list&, const py::list&>(), py::arg("inputs"), py::arg("overridable"))
      .def(
          "plain",
          [](const FeedRule& self, py::handle feeds) { return PyList_CheckExact(feeds.ptr()) && self.plain(feeds.ptr()); },
          py::arg("feeds"))
      .def("notes", &FeedRule::notes, py::arg("feeds"))
      .def("tell_again", &FeedRule::tell_again);
  module.def("memory_times", &memory_times, py::arg("direction"));
  module.def("clear_memory_times", [] {
    raise_if_error(session::memory_times().to_device.clear());
    raise_if_error(session::memory_times().to_host.clear());
  });
}

}  // namespace ais::bind
