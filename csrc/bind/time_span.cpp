// _native.TimeSpan: a float that is also the pair (start, end).
//
// It uses CPython's API directly: for numpy and torch a Python class that can be indexed is a sequence, so a list of times
// would become a table of pairs. This class can be indexed, but is not a sequence.
#include "bind/time_span.hpp"

#include "base/tuning.hpp"

namespace ais::bind {
namespace {

struct TimeSpan {
  PyFloatObject number;
  double start;
  double end;
};

TimeSpan* as_span(PyObject* object) { return reinterpret_cast<TimeSpan*>(object); }

PyObject* make(PyTypeObject* type, double start, double end) {
  const py::object difference = py::reinterpret_steal<py::object>(PyFloat_FromDouble(end - start));
  if (!difference) return nullptr;
  const py::object arguments = py::reinterpret_steal<py::object>(PyTuple_Pack(1, difference.ptr()));
  if (!arguments) return nullptr;
  PyObject* const made = PyFloat_Type.tp_new(type, arguments.ptr(), nullptr);
  if (made == nullptr) return nullptr;
  as_span(made)->start = start;
  as_span(made)->end = end;
  return made;
}

// TimeSpan(start, end). With one number, as `statistics` makes a mean: the span from 0.
PyObject* span_new(PyTypeObject* type, PyObject* arguments, PyObject* named) {
  static const char* names[] = {"start", "end", nullptr};
  PyObject* start = nullptr;
  PyObject* end = Py_None;
  if (!PyArg_ParseTupleAndKeywords(arguments, named, "O|O", const_cast<char**>(names), &start, &end)) return nullptr;
  const double first = PyFloat_AsDouble(start);
  if (first == -1.0 && PyErr_Occurred() != nullptr) return nullptr;
  if (end == Py_None) return make(type, 0.0, first);
  const double last = PyFloat_AsDouble(end);
  if (last == -1.0 && PyErr_Occurred() != nullptr) return nullptr;
  return make(type, first, last);
}

PyObject* pair_of(PyObject* self) { return Py_BuildValue("(dd)", as_span(self)->start, as_span(self)->end); }

PyObject* span_iter(PyObject* self) {
  const py::object pair = py::reinterpret_steal<py::object>(pair_of(self));
  return pair ? PyObject_GetIter(pair.ptr()) : nullptr;
}

PyObject* span_item(PyObject* self, PyObject* index) {
  const py::object pair = py::reinterpret_steal<py::object>(pair_of(self));
  return pair ? PyObject_GetItem(pair.ptr(), index) : nullptr;
}

Py_ssize_t span_length(PyObject*) { return 2; }

PyObject* span_reduce(PyObject* self, PyObject*) {
  return Py_BuildValue("(O(dd))", reinterpret_cast<PyObject*>(Py_TYPE(self)), as_span(self)->start, as_span(self)->end);
}

template <double TimeSpan::* kField>
PyObject* span_field(PyObject* self, void*) {
  return PyFloat_FromDouble(as_span(self)->*kField);
}

PyTypeObject* g_type = nullptr;

}  // namespace

void register_time_span(py::module_& module) {
  static PyMethodDef methods[] = {{"__reduce__", span_reduce, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
  static PyGetSetDef fields[] = {{"start", span_field<&TimeSpan::start>, nullptr, nullptr, nullptr},
                                 {"end", span_field<&TimeSpan::end>, nullptr, nullptr, nullptr},
                                 {nullptr, nullptr, nullptr, nullptr, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(span_new)},
                                {Py_tp_iter, reinterpret_cast<void*>(span_iter)},
                                {Py_mp_subscript, reinterpret_cast<void*>(span_item)},
                                {Py_mp_length, reinterpret_cast<void*>(span_length)},
                                {Py_tp_methods, methods},
                                {Py_tp_getset, fields},
                                {0, nullptr}};
  static PyType_Spec spec = {"ais_bench.one_device.times.TimeSpan", sizeof(TimeSpan), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
  const py::object bases = py::make_tuple(py::handle(reinterpret_cast<PyObject*>(&PyFloat_Type)));
  py::object type = py::reinterpret_steal<py::object>(PyType_FromSpecWithBases(&spec, bases.ptr()));
  if (!type) throw py::error_already_set();
  g_type = reinterpret_cast<PyTypeObject*>(type.ptr());
  module.attr("TimeSpan") = type;
  module.attr("TIMES_KEPT") = tuning::kTimesKept;
  type.release();  // it is never destroyed
}

py::object time_span(double start_ms, double end_ms) {
  PyObject* const made = make(g_type, start_ms, end_ms);
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

}  // namespace ais::bind
