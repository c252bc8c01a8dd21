// The Python bindings of training: a network with its buffers, and the optimizer.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "products/bf16.h"
#include "require.h"
#include "threads/release_gil.h"
#include "training/network.h"
#include "training/optimizer.h"
#include "training/weight_drop.h"

namespace nb = nanobind;

namespace charloom {

namespace {

using Array = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Nats = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Levels = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Arrays = std::vector<Array>;
using Shape = std::vector<size_t>;

bool has_shape(const Array& array, const Shape& shape) {
    if (array.ndim() != shape.size()) return false;
    for (size_t axis = 0; axis < shape.size(); axis++)
        if (array.shape(axis) != shape[axis]) return false;
    return true;
}

bool have_shapes(const Arrays& arrays, const std::vector<Shape>& shapes) {
    return std::equal(arrays.begin(), arrays.end(), shapes.begin(), shapes.end(), has_shape);
}

std::vector<float*> pointers(const Arrays& arrays) {
    std::vector<float*> found;
    for (const Array& array : arrays) found.push_back(array.data());
    return found;
}

Input input_named(const std::string& name) {
    if (name == "onehot") return Input::ONEHOT;
    if (name == "embedding") return Input::EMBEDDING;
    require(name == "scalar", "input must be onehot, embedding or scalar");
    return Input::SCALAR;
}

// The C++ form of charloom.architecture.Architecture.
Architecture architecture_of(nb::handle python) {
    auto name_of = [&](const char* name) { return nb::cast<std::string>(python.attr(name)); };
    auto size_of = [&](const char* name) { return nb::cast<int>(python.attr(name)); };
    Architecture a{cell_named(name_of("cell"), name_of("variant")),
                   size_of("layers"),
                   size_of("hidden"),
                   size_of("vocabulary_size"),
                   input_named(name_of("input")),
                   size_of("input_size")};
    require(a.layers > 0 && a.hidden > 0 && a.vocabulary_size > 0 && a.input_size > 0, "all sizes must be above 0");
    require(a.input != Input::ONEHOT || a.input_size == a.vocabulary_size, "input_size must be V for onehot");
    require(a.input != Input::SCALAR || a.input_size == 1, "input_size must be 1 for scalar");
    return a;
}

// The shape of every parameter, in the order of `Architecture.shapes`.
std::vector<Shape> parameter_shapes(const Architecture& a) {
    size_t units = a.hidden, rows = gates_of(a.cell) * units, vocabulary_size = a.vocabulary_size,
           input_size = a.input_size;
    std::vector<Shape> shapes;
    if (a.has_table()) shapes.push_back({vocabulary_size, input_size});
    for (int n = 0; n < a.layers; n++)
        shapes.insert(shapes.end(), {{rows, n ? units : input_size}, {rows, units}, {rows}, {rows}});
    shapes.insert(shapes.end(), {{vocabulary_size, units}, {vocabulary_size}});
    return shapes;
}

// tiles: whether AMX multiplies, if this processor has it.
std::unique_ptr<TrainingNetwork> open_network(const Architecture& a, const std::string& precision,
                                              [[maybe_unused]] bool tiles, int threads) {
    if (precision == "fp32") return std::make_unique<TypedTrainingNetwork<SinglePrecision>>(a, threads);
#if defined(__AVX512BF16__)
#if defined(__AMX_BF16__)
    if (precision == "bf16" && tiles) return std::make_unique<TypedTrainingNetwork<TileProduct>>(a, threads);
#endif
    if (precision == "bf16") return std::make_unique<TypedTrainingNetwork<DotProduct>>(a, threads);
#endif
    throw std::invalid_argument("these kernels have no precision " + precision);
}

// The arrays of a batch, as Python passes them. state, state_after: [h], or for an LSTM [h, c]. An empty state is zero.
struct BatchArrays {
    Ids inputs, targets;
    Arrays state, state_after;
    Nats nats;
    Flags correct;
    Arrays masks;
    bool locked;
};

State pointers_of(const Arrays& state) {
    return {state.size() > 0 ? state[0].data() : nullptr, state.size() > 1 ? state[1].data() : nullptr};
}

// The network that Python holds. It checks every array, because the kernels do not check their pointers.
class CheckedTrainingNetwork {
public:
    CheckedTrainingNetwork(nb::handle architecture, const std::string& precision, bool tiles, int threads)
        : a_(architecture_of(architecture)), shapes_(parameter_shapes(a_)) {
        require(threads > 0, "threads must be above 0");
        network_ = open_network(a_, precision, tiles, threads);
    }

    void forward(const Arrays& parameters, const BatchArrays& arrays, bool save) {
        differentiable_ = false;
        require(have_shapes(parameters, shapes_), "parameters must have the shapes of the architecture");
        Batch batch = checked(arrays);
        auto found = pointers(parameters);
        held_ = {parameters, arrays.masks};
        ReleaseGil here;
        network_->forward({found.begin(), found.end()}, batch, save);
        differentiable_ = save;
    }

    // An empty d_state is zero. With an empty d_before, that gradient is not returned.
    void backward(const Arrays& gradients, const Arrays& d_state, const Arrays& d_before) {
        require(differentiable_, "a forward pass that saves must come first");
        require(have_shapes(gradients, shapes_), "gradients must have the shapes of the architecture");
        require(d_state.empty() || is_state(d_state), STATE_RULE);
        require(d_before.empty() || is_state(d_before), STATE_RULE);
        auto found = pointers(gradients);
        ReleaseGil here;
        network_->backward(found, pointers_of(d_state), pointers_of(d_before));
    }

private:
    static constexpr const char* STATE_RULE = "a state must be [h], and [h, c] of an lstm, each of shape [L, B, H]";

    Batch checked(const BatchArrays& arrays) {
        const Ids &inputs = arrays.inputs, &targets = arrays.targets;
        size_t sequences = inputs.shape(0), steps = inputs.shape(1);
        state_ = {size_t(a_.layers), sequences, size_t(a_.hidden)};
        require(sequences && steps, "a batch must have a sequence and a step");
        require(targets.shape(0) == sequences && targets.shape(1) == steps, "targets must be [B, T], as inputs");
        check_ids(inputs.data(), inputs.size(), 0);
        check_ids(targets.data(), targets.size(), INT32_MIN);
        require(arrays.state.empty() || is_state(arrays.state), STATE_RULE);
        require(is_state(arrays.state_after), STATE_RULE);
        size_t count =
            std::count_if(targets.data(), targets.data() + targets.size(), [](int32_t id) { return id >= 0; });
        require(arrays.nats.size() == count && arrays.correct.size() == count, "nats and correct must be [N]");
        require(arrays.masks.empty() || have_shapes(arrays.masks, mask_shapes(steps, count, arrays.locked)),
                "masks must fit the batch");
        auto masks = pointers(arrays.masks);
        return {int(sequences),
                int(steps),
                inputs.data(),
                targets.data(),
                pointers_of(arrays.state),
                pointers_of(arrays.state_after),
                arrays.nats.data(),
                arrays.correct.data(),
                {masks.begin(), masks.end()},
                arrays.locked};
    }

    void check_ids(const int32_t* ids, size_t count, int32_t least) const {
        for (size_t n = 0; n < count; n++)
            if (ids[n] < least || ids[n] >= a_.vocabulary_size)
                throw std::out_of_range("an id must be at least 0 and below the vocabulary size");
    }

    bool is_state(const Arrays& state) const {
        return have_shapes(state, std::vector<Shape>(carried_by(a_.cell) == Carried::c ? 2 : 1, state_));
    }

    std::vector<Shape> mask_shapes(size_t steps, size_t count, bool locked) const {
        size_t sequences = state_[1], units = a_.hidden;
        std::vector<Shape> shapes(a_.layers, {locked ? 1 : steps, sequences, units});
        shapes.back() = {locked ? sequences : count, units};
        return shapes;
    }

    const Architecture a_;
    const std::vector<Shape> shapes_;
    std::unique_ptr<TrainingNetwork> network_;
    Shape state_;                     // [L, B, H] of the last forward pass
    bool differentiable_ = false;     // whether the backward pass may follow
    std::pair<Arrays, Arrays> held_;  // arrays that the backward pass also reads
};

// A parameter, its gradient, Adam's mean and square, and the weight decay.
using AdamTuple = std::tuple<Array, Array, Array, Array, float>;

void adam_checked(const std::vector<AdamTuple>& tuples, const Clipping& clipping, const AdamStep& step, int threads) {
    require(threads > 0, "threads must be above 0");
    std::vector<AdamArrays> all;
    for (const auto& [parameter, gradient, mean, square, decay] : tuples) {
        size_t size = parameter.size();
        require(gradient.size() == size && mean.size() == size && square.size() == size,
                "a gradient, a mean and a square must have the size of their parameter");
        all.push_back({parameter.data(), gradient.data(), mean.data(), square.data(), size, decay});
    }
    ReleaseGil here;
    adam(all, clipping, step, threads);
}

// A parameter, its gradient, the velocity or an empty array, and the weight decay.
using SgdTuple = std::tuple<Array, Array, Array, float>;

void sgd_checked(const std::vector<SgdTuple>& tuples, const Clipping& clipping, const SgdStep& step, int threads) {
    require(threads > 0, "threads must be above 0");
    std::vector<SgdArrays> all;
    for (const auto& [parameter, gradient, velocity, decay] : tuples) {
        size_t size = parameter.size(), of_velocity = velocity.size();
        require(gradient.size() == size && (of_velocity == size || of_velocity == 0),
                "a gradient and a velocity must have the size of their parameter");
        all.push_back({parameter.data(), gradient.data(), of_velocity ? velocity.data() : nullptr, size, decay});
    }
    ReleaseGil here;
    sgd(all, clipping, step, threads);
}

std::vector<Span> spans(const Arrays& arrays) {
    std::vector<Span> found;
    for (const Array& array : arrays) found.push_back({array.data(), array.size()});
    return found;
}

std::vector<std::string> precisions() {
#if defined(__AVX512BF16__)
    return {"fp32", "bf16"};
#else
    return {"fp32"};
#endif
}

}  // namespace

void bind_training(nb::module_& module) {
    using namespace nb::literals;
    module.def("precisions", precisions, "The number formats of products that these kernels have.");
    nb::class_<BatchArrays>(
        module, "BatchArrays",
        "A batch: ids [B, T], states ([h] or [h, c], each [L, B, H]), the results of N targets, and "
        "dropout's masks.")
        .def(nb::init<Ids, Ids, Arrays, Arrays, Nats, Flags, Arrays, bool>(), "inputs"_a, "targets"_a, "state"_a,
             "state_after"_a, "nats"_a, "correct"_a, "masks"_a, "locked"_a);
    nb::class_<CheckedTrainingNetwork>(module, "TrainingNetwork",
                                       "A network with its buffers. Call it through charloom.engines.native.")
        .def(nb::init<nb::handle, const std::string&, bool, int>(), "architecture"_a, "precision"_a, "tiles"_a,
             "threads"_a)
        .def("forward", &CheckedTrainingNetwork::forward, "parameters"_a, "batch"_a, "save"_a)
        .def("backward", &CheckedTrainingNetwork::backward, "gradients"_a, "d_state"_a, "d_before"_a);
    nb::class_<AdamStep>(module, "AdamStep",
                         "rate and epsilon include Adam's bias corrections; decay_rate is the plain learning rate.")
        .def(nb::init<float, float, float, float, float, bool>(), "rate"_a, "decay_rate"_a, "beta1"_a, "beta2"_a,
             "epsilon"_a, "decoupled"_a);
    module.def("adam", adam_checked, "arrays"_a, "clipping"_a, "step"_a, "threads"_a,
               "arrays: for each parameter (parameter, sums, mean, square, weight decay).");
    nb::class_<SgdStep>(module, "SgdStep", "The numbers of a step of gradient descent; momentum may be 0.")
        .def(nb::init<float, float, bool>(), "rate"_a, "momentum"_a, "nesterov"_a);
    module.def("sgd", sgd_checked, "arrays"_a, "clipping"_a, "step"_a, "threads"_a,
               "arrays: for each parameter (parameter, sums, velocity, weight decay); velocity may be empty.");
    nb::class_<Clipping>(module, "Clipping", "From sums over targets to their clipped mean. `clipping` makes it.");
    module.def(
        "clipping",
        [](const Arrays& sums, float count, float by_value, float by_norm, int threads) {
            require(count > 0 && threads > 0, "count and threads must be above 0");
            auto all = spans(sums);
            ReleaseGil here;
            return clipping(all, count, by_value, by_norm, threads);
        },
        "sums"_a, "count"_a, "by_value"_a, "by_norm"_a, "threads"_a,
        "From sums over `count` targets to their mean, clipped by value if `by_value` is above 0, then by norm if "
        "`by_norm` is above 0.");
    module.def(
        "clip",
        [](const Arrays& sums, const Clipping& clipping, int threads) {
            require(threads > 0, "threads must be above 0");
            auto all = spans(sums);
            ReleaseGil here;
            clip(all, clipping, threads);
        },
        "sums"_a, "clipping"_a, "threads"_a, "Replaces the sums by their clipped mean.");
    module.def(
        "drop",
        [](Array values, Levels levels, int kept, Array out, int threads) {
            require(levels.size() == values.size() && out.size() == values.size() && kept > 0 && threads > 0,
                    "levels and out must be of the values' size, some must be kept, and threads be above 0");
            ReleaseGil here;
            drop({values.data(), values.size()}, levels.data(), kept, out.data(), threads);
        },
        "values"_a, "levels"_a, "kept"_a, "out"_a, "threads"_a,
        "Values whose level is below `kept`, scaled up so that the mean does not change; 0 for the others.");
}

}  // namespace charloom
