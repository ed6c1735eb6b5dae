// The only place where a status code becomes a Python class.
#include "bind/bind.hpp"

namespace ais::bind {
namespace {

const char* class_name(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return "ConfigError";
    case Code::kFeedMismatch:
      return "FeedError";
    case Code::kUnavailable:
      return "DeviceUnavailable";
    case Code::kModelLoad:
      return "ModelLoadError";
    case Code::kUnsupported:
      return "UnsupportedError";
    case Code::kOutOfMemory:
    case Code::kNoRoom:
      return "DeviceMemoryError";
    case Code::kExecution:
      return "InferenceError";
    case Code::kCancelled:
      return "InferenceCancelled";
    case Code::kDeviceLost:
      return "DeviceLost";
    case Code::kClosed:
    case Code::kForkedChild:
      return "SessionClosed";
    case Code::kTimeout:
      return "TaskTimeout";
    case Code::kCorrupt:
    case Code::kSystem:
      return "TransportError";
    case Code::kOk:
      break;
  }
  return "AisBenchError";
}

}  // namespace

void raise_if_error(const Status& status) {
  if (status.ok()) return;
  py::object type =
      in_python([&] { return py::object(py::module_::import("ais_bench.errors").attr(class_name(status.code()))); });
  // A vendor's text may contain bytes that are not UTF-8. The message must arrive nevertheless.
  PyObject* text = PyUnicode_DecodeUTF8(status.message().data(), static_cast<Py_ssize_t>(status.message().size()), "replace");
  if (text == nullptr) throw py::error_already_set();
  py::object error = in_python([&] { return type(py::reinterpret_steal<py::object>(text)); });
  if (py::hasattr(type, "code")) error.attr("code") = status.vendor_code();
  PyErr_SetObject(type.ptr(), error.ptr());
  throw py::error_already_set();
}

void register_errors(py::module_& module) {
  // For the test that passes every code through the switch above.
  module.def("_status_codes", [] {
    py::dict codes;
#define AIS_CODE(name, when) codes[#name] = static_cast<int>(Code::k##name);
    AIS_STATUS_CODES(AIS_CODE)
#undef AIS_CODE
    return codes;
  });
  module.def("_raise_status",
             [](int code, const std::string& message) { raise_if_error(Status(static_cast<Code>(code), message, 7)); });
}

}  // namespace ais::bind
