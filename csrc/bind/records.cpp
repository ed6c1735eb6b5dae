// Fields found by their descriptors, and the bookkeeping of one reply.
#include "bind/records.hpp"

#include <structmember.h>

#include <iterator>
#include <string>
#include <utility>

#include "bind/bind.hpp"

namespace ais::bind {
namespace {

py::object to_int(std::int64_t value) {
  PyObject* made = PyLong_FromLongLong(value);
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

py::object flag(bool value) { return py::reinterpret_borrow<py::object>(value ? Py_True : Py_False); }

// As ais_bench.pool.task.Details has it.
py::object to_tuple(const Details& details) {
  const shm::TaskTimes& times = details.times;
  const std::int64_t numbers[] = {details.picked_ns, details.done_ns,  times.queued,     times.copy_in,    times.execute,
                                  times.copy_out,    times.end_to_end, times.preprocess, times.postprocess};
  py::tuple tuple(std::size(numbers));
  for (std::size_t i = 0; i < std::size(numbers); ++i) tuple[i] = to_int(numbers[i]);
  return std::move(tuple);
}

void append(py::handle deque, py::handle item) { deque.attr("append")(item); }

}  // namespace

Slot::Slot(py::handle type, const char* name) {
  const py::object descriptor = type.attr(name);
  if (Py_TYPE(descriptor.ptr()) == &PyMemberDescr_Type) {
    const PyMemberDef* member = reinterpret_cast<PyMemberDescrObject*>(descriptor.ptr())->d_member;
    if (member->type == T_OBJECT_EX) {
      offset_ = member->offset;
      return;
    }
  }
  throw py::type_error(py::str(type).cast<std::string>() + " has no slot named " + name);
}

std::int64_t Slot::number(py::handle object) const {
  const std::int64_t value = PyLong_AsLongLong(*place(object));
  if (value == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return value;
}

void Slot::add(py::handle object, std::int64_t more) const { set(object, to_int(number(object) + more)); }

Records::Records(py::handle task, py::handle waiter, py::handle worker, py::handle account)
    : types_{py::reinterpret_borrow<py::object>(task), py::reinterpret_borrow<py::object>(waiter),
             py::reinterpret_borrow<py::object>(worker), py::reinterpret_borrow<py::object>(account)},
      task_{{task, "done"},          {task, "outputs"}, {task, "error"},  {task, "feeds"},  {task, "answer_kind"},
            {task, "end_to_end_ns"}, {task, "worker"},  {task, "ran_on"}, {task, "waiter"}, {task, "future"},
            {task, "mode"},          {task, "kind"},    {task, "option"}, {task, "sent"},   {task, "taken"},
            {task, "detailed"},      {task, "details"}},
      waiter_{{waiter, "finished"}, {waiter, "asleep"}},
      worker_{{worker, "device"},  {worker, "load"}, {worker, "answered"}, {worker, "alone"},
              {worker, "cost_ns"}, {worker, "lost"}, {worker, "faults"}},
      account_{{account, "outstanding"}, {account, "futures"}} {}

void Records::check(py::handle object, py::handle type) {
  if (PyObject_TypeCheck(object.ptr(), reinterpret_cast<PyTypeObject*>(type.ptr())) == 0) {
    throw py::type_error("a " + py::str(type).cast<std::string>() + " is wanted, not " + py::repr(object).cast<std::string>());
  }
}

std::int64_t Records::number(const Slot& field, py::handle task) const {
  check(task, types_.task);
  return field.number(task);
}

void Records::book_sent(py::handle task) const {
  task_.sent.set(task, flag(true));
  task_.taken.set(task, flag(true));
  task_.feeds.set(task, py::none());
}

void Records::book_answer(py::handle worker, std::int64_t cost_ns, py::object lost) const {
  check(worker, types_.worker);
  worker_.load.add(worker, -1);
  worker_.answered.add(worker, 1);
  worker_.faults.set(worker, to_int(0));
  worker_.alone.set(worker, flag(false));
  worker_.cost_ns.set(worker, to_int(cost_ns));
  if (lost) worker_.lost.set(worker, std::move(lost));
}

void Records::book_fault(py::handle task, py::handle worker, py::object feeds, py::object error, py::handle faulted) const {
  check(task, types_.task);
  check(worker, types_.worker);
  worker_.load.add(worker, -1);
  worker_.alone.set(worker, flag(false));
  worker_.faults.add(worker, 1);
  task_.worker.set(task, py::none());
  task_.ran_on.set(task, py::reinterpret_borrow<py::object>(worker_.device.get(worker)));
  if (task_.done.is_true(task)) return;
  task_.sent.set(task, flag(false));
  task_.feeds.set(task, std::move(feeds));
  task_.error.set(task, std::move(error));
  append(faulted, task);
}

void Records::finish(py::handle task, py::handle worker, py::handle account, py::object outputs, py::object error, int kind,
                     const Details& details, py::handle resolved, py::handle sleepers) const {
  check(task, types_.task);
  check(account, types_.account);
  task_.worker.set(task, py::none());
  task_.ran_on.set(task, py::reinterpret_borrow<py::object>(worker_.device.get(worker)));
  if (task_.done.is_true(task)) return;
  task_.outputs.set(task, std::move(outputs));
  task_.error.set(task, std::move(error));
  task_.answer_kind.set(task, to_int(kind));
  task_.end_to_end_ns.set(task, to_int(details.times.end_to_end));
  if (task_.detailed.is_true(task)) task_.details.set(task, to_tuple(details));
  task_.feeds.set(task, py::none());
  task_.done.set(task, flag(true));
  account_.outstanding.add(account, -1);
  if (!task_.future.get(task).is_none()) {
    account_.futures.add(account, -1);
    append(resolved, task);
  }
  const py::handle waiter = task_.waiter.get(task);
  check(waiter, types_.waiter);
  waiter_.finished.add(waiter, 1);
  if (waiter_.asleep.is_true(waiter)) append(sleepers, waiter);
}

void register_records(py::module_& module) {
  py::class_<Records>(module, "Records")
      .def(py::init<py::handle, py::handle, py::handle, py::handle>(), py::arg("task"), py::arg("waiter"), py::arg("worker"),
           py::arg("account"));
}

}  // namespace ais::bind
