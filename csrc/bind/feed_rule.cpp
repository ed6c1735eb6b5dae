// The notes about feeds, see feed_rule.hpp.
#include "bind/feed_rule.hpp"

#include <utility>

#include "bind/arrays.hpp"
#include "bind/bind.hpp"

namespace ais::bind {
namespace {

// Returns whether an item has numpy's own class. Elements of a derived class may mean something else, as in a masked array.
bool is_plain_array(py::handle item) { return Py_TYPE(item.ptr()) == py::detail::npy_api::get().PyArray_Type_; }

device::TensorDesc described(const py::tuple& parts) {
  device::TensorDesc desc;
  desc.name = parts[0].cast<std::string>();
  desc.dtype = static_cast<DType>(parts[1].cast<int>());
  desc.shape = parts[3].cast<Shape>();
  desc.bytes = parts[4].cast<std::size_t>();
  desc.ranked = !desc.shape.empty() || desc.bytes != 0;
  desc.optional = parts[6].cast<bool>();
  return desc;
}

}  // namespace

FeedRule::FeedRule(const py::list& inputs, const py::list& overridable) {
  for (const py::handle& input : inputs) info_.inputs.push_back(described(input.cast<py::tuple>()));
  for (const py::handle& constant : overridable) info_.overridable.push_back(described(constant.cast<py::tuple>()));
}

bool FeedRule::plain(PyObject* given) const {
  if (static_cast<std::size_t>(PyList_GET_SIZE(given)) != info_.inputs.size()) return false;
  for (std::size_t i = 0; i < info_.inputs.size(); ++i) {
    const py::handle item = PyList_GET_ITEM(given, static_cast<Py_ssize_t>(i));
    const device::TensorDesc& desc = info_.inputs[i];
    if (!is_plain_array(item)) return false;
    const auto array = py::reinterpret_borrow<py::array>(item);
    if (array_type(array) != desc.dtype) return false;
    if (desc.open() && desc.ranked && static_cast<std::size_t>(array.ndim()) != desc.shape.size()) return false;
  }
  return true;
}

std::vector<std::string> FeedRule::notes(const py::object& given) {
  const auto items = given.cast<py::sequence>();
  const std::size_t inputs = info_.inputs.size();
  if (items.size() != inputs && items.size() != inputs + info_.overridable.size())
    raise_if_error(session::wrong_count(info_, items.size()));
  std::vector<TensorView> views(items.size());
  for (std::size_t i = 0; i < views.size(); ++i) {
    const py::object item = items[i];
    if (is_plain_array(item)) {  // only its type and shape are needed, so a strided view is not copied
      views[i] = describe_array(py::reinterpret_borrow<py::array>(item));
      if (!views[i].absent()) continue;
    }
    Feeds keep;
    keep.packed.reserve(1);
    views[i] = to_feed(item, nullptr, &info_.fed(i), &keep).view;
  }
  std::vector<std::string> texts;
  std::vector<session::Note> notes;
  const auto shapes = session::fit_all(info_, session::Mode::kShape, nullptr, views, &notes);
  if (!shapes.ok()) return texts;
  for (const session::Note& note : notes) {
    const TensorView& view = views[note.input];
    if (!noted_.emplace(note.input, note.kind, view.dtype, view.shape.size()).second) continue;
    texts.push_back(note_text(note, info_.fed(note.input), view, shapes.value()[note.input]));
  }
  return texts;
}

}  // namespace ais::bind
