// What Python sees of training: a network with its workspace, and the optimizer.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
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
using Levels = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using MaybeArray = std::optional<Array>;
using Shape = std::vector<size_t>;

bool has_shape(const Array& array, const Shape& shape) {
    if (array.ndim() != shape.size()) return false;
    for (size_t axis = 0; axis < shape.size(); axis++)
        if (array.shape(axis) != shape[axis]) return false;
    return true;
}

bool have_shapes(const std::vector<Array>& arrays, const std::vector<Shape>& shapes) {
    return std::equal(arrays.begin(), arrays.end(), shapes.begin(), shapes.end(), has_shape);
}

std::vector<float*> pointers(const std::vector<Array>& arrays) {
    std::vector<float*> found;
    for (const Array& array : arrays) found.push_back(array.data());
    return found;
}

float* pointer(const MaybeArray& array) { return array ? array->data() : nullptr; }

int gates_of(const std::string& cell) {
    if (cell == "lstm") return 4;
    if (cell == "gru") return 3;
    require(cell == "rnn", "cell must be lstm, gru or rnn");
    return 1;
}

Input input_named(const std::string& name) {
    if (name == "onehot") return Input::ONEHOT;
    if (name == "embedding") return Input::EMBEDDING;
    require(name == "scalar", "input must be onehot, embedding or scalar");
    return Input::SCALAR;
}

// Of every parameter, in the order of `architecture.shapes`.
std::vector<Shape> parameter_shapes(const Architecture& a) {
    size_t units = a.hidden, rows = gates_of(a.cell) * units, vocabulary_size = a.vocabulary_size,
           entering = a.embedding;
    std::vector<Shape> shapes;
    if (a.has_table()) shapes.push_back({vocabulary_size, entering});
    for (int n = 0; n < a.layers; n++)
        shapes.insert(shapes.end(), {{rows, n ? units : entering}, {rows, units}, {rows}, {rows}});
    shapes.insert(shapes.end(), {{vocabulary_size, units}, {vocabulary_size}});
    return shapes;
}

Architecture checked(const Architecture& a) {
    require(a.layers > 0 && a.hidden > 0 && a.vocabulary_size > 0 && a.embedding > 0, "all sizes must be above 0");
    require(a.input != Input::ONEHOT || a.embedding == a.vocabulary_size, "input_size must be V for onehot");
    require(a.input != Input::SCALAR || a.embedding == 1, "input_size must be 1 for scalar");
    return a;
}

// tiles: whether AMX multiplies, where this processor has it.
std::unique_ptr<Network> open_network(const Architecture& a, const std::string& precision, [[maybe_unused]] bool tiles,
                                      int threads) {
    if (precision == "fp32") return std::make_unique<NetworkOf<SinglePrecision>>(a, threads);
#if defined(__AVX512BF16__)
#if defined(__AMX_BF16__)
    if (precision == "bf16" && tiles) return std::make_unique<NetworkOf<TileProduct>>(a, threads);
#endif
    if (precision == "bf16") return std::make_unique<NetworkOf<DotProduct>>(a, threads);
#endif
    throw std::invalid_argument("these kernels have no precision " + precision);
}

// The network that Python holds. Every array is checked here: what is below trusts its pointers.
class Trainer {
public:
    Trainer(std::string cell, std::string nonlinearity, int layers, int hidden, int vocabulary_size, std::string input,
            int input_size, std::string precision, bool tiles, int threads)
        : a_(checked({cell, nonlinearity, layers, hidden, vocabulary_size, input_named(input), input_size})),
          shapes_(parameter_shapes(a_)) {
        require(threads > 0, "threads must be above 0");
        network_ = open_network(a_, precision, tiles, threads);
    }

    std::pair<double, int64_t> forward(const std::vector<Array>& parameters, Ids inputs, Ids targets, MaybeArray h,
                                       MaybeArray c, const std::vector<Array>& masks, bool locked, Array h_after,
                                       MaybeArray c_after, float scale) {
        size_t texts = inputs.shape(0), steps = inputs.shape(1);
        state_ = {size_t(a_.layers), texts, size_t(a_.hidden)};
        differentiable_ = false;
        require(have_shapes(parameters, shapes_), "parameters must have the shapes of the architecture");
        require(texts && steps, "a batch must have a text and a step");
        require(targets.shape(0) == texts && targets.shape(1) == steps, "targets must be [B, T], as inputs");
        check_ids(inputs.data(), inputs.size(), 0);
        check_ids(targets.data(), targets.size(), INT32_MIN);
        check_state(h, c);
        require(has_shape(h_after, state_) && is_state(c_after, a_.cell == "lstm"),
                "the state after must be [L, B, H]");
        require(masks.empty() || have_shapes(masks, mask_shapes(targets, locked)), "masks must fit the batch");
        Batch batch{int(texts), int(steps), inputs.data(), targets.data(), pointer(h),
                    pointer(c), {},         locked,        h_after.data(), pointer(c_after)};
        for (const Array& mask : masks) batch.masks.push_back(mask.data());
        auto found = pointers(parameters);
        held_ = {parameters, masks};
        ReleaseGil here;
        Score score = network_->forward({found.begin(), found.end()}, batch, scale);
        differentiable_ = scale != 0;
        return {score.nats, score.correct};
    }

    void backward(const std::vector<Array>& gradients, MaybeArray d_h, MaybeArray d_c, MaybeArray d_h_before,
                  MaybeArray d_c_before) {
        require(differentiable_, "a forward pass with a scale must come first");
        require(have_shapes(gradients, shapes_), "gradients must have the shapes of the architecture");
        check_state(d_h, d_c);
        check_state(d_h_before, d_c_before);
        auto found = pointers(gradients);
        ReleaseGil here;
        network_->backward(found, pointer(d_h), pointer(d_c), pointer(d_h_before), pointer(d_c_before));
    }

private:
    void check_ids(const int32_t* ids, size_t count, int32_t least) const {
        for (size_t n = 0; n < count; n++)
            if (ids[n] < least || ids[n] >= a_.vocabulary_size)
                throw std::out_of_range("an id must be at least 0 and below the vocabulary size");
    }

    bool is_state(const MaybeArray& array, bool there) const {
        return bool(array) == there && (!there || has_shape(*array, state_));
    }

    void check_state(const MaybeArray& h, const MaybeArray& c) const {
        require(is_state(h, bool(h)) && is_state(c, h && a_.cell == "lstm"), "h, and c of an lstm, must be [L, B, H]");
    }

    std::vector<Shape> mask_shapes(const Ids& targets, bool locked) const {
        size_t texts = targets.shape(0), steps = targets.shape(1), units = a_.hidden;
        size_t count =
            std::count_if(targets.data(), targets.data() + targets.size(), [](int32_t id) { return id >= 0; });
        std::vector<Shape> shapes(a_.layers, {locked ? 1 : steps, texts, units});
        shapes.back() = {locked ? texts : count, units};
        return shapes;
    }

    const Architecture a_;
    const std::vector<Shape> shapes_;
    std::unique_ptr<Network> network_;
    Shape state_;                                             // [L, B, H] of the last forward pass
    bool differentiable_ = false;                             // whether the backward pass may follow
    std::pair<std::vector<Array>, std::vector<Array>> held_;  // what the backward pass reads again
};

bool all_alike(const std::vector<Array>& arrays, std::initializer_list<const std::vector<Array>*> others) {
    auto alike = [](const Array& one, const Array& other) { return one.size() == other.size(); };
    return std::all_of(others.begin(), others.end(), [&](const std::vector<Array>* other) {
        return std::equal(arrays.begin(), arrays.end(), other->begin(), other->end(), alike);
    });
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
    nb::class_<Trainer>(module, "Trainer",
                        "A network's workspace: see charloom.engines.bptt.native, which is what should be called.")
        .def(nb::init<std::string, std::string, int, int, int, std::string, int, std::string, bool, int>(), "cell"_a,
             "nonlinearity"_a, "layers"_a, "hidden"_a, "vocabulary_size"_a, "input"_a, "input_size"_a, "precision"_a,
             "tiles"_a, "threads"_a)
        .def("forward", &Trainer::forward, "parameters"_a, "inputs"_a, "targets"_a, "h"_a.none(), "c"_a.none(),
             "masks"_a, "locked"_a, "h_after"_a, "c_after"_a.none(), "scale"_a)
        .def("backward", &Trainer::backward, "gradients"_a, "d_h"_a.none(), "d_c"_a.none(), "d_h_before"_a.none(),
             "d_c_before"_a.none());
    module.def(
        "adam",
        [](const std::vector<Array>& parameters, const std::vector<Array>& gradients, const std::vector<Array>& means,
           const std::vector<Array>& squares, const std::vector<float>& decays, float rate, float rate_of_decay,
           float beta1, float beta2, float epsilon, bool decoupled, int threads) {
            require(all_alike(parameters, {&gradients, &means, &squares}) && decays.size() == parameters.size() &&
                        threads > 0,
                    "each parameter must have a gradient, a mean, a square of its size, and a decay; threads must be "
                    "above 0");
            std::vector<Updated> all;
            for (size_t n = 0; n < parameters.size(); n++)
                all.push_back({parameters[n].data(), gradients[n].data(), means[n].data(), squares[n].data(),
                               parameters[n].size(), decays[n]});
            ReleaseGil here;
            adam(all, {rate, rate_of_decay, beta1, beta2, epsilon, decoupled}, threads);
        },
        "parameters"_a, "gradients"_a, "means"_a, "squares"_a, "decays"_a, "rate"_a, "rate_of_decay"_a, "beta1"_a,
        "beta2"_a, "epsilon"_a, "decoupled"_a, "threads"_a);
    module.def(
        "clip",
        [](const std::vector<Array>& gradients, float by_value, float by_norm, int threads) {
            require(threads > 0, "threads must be above 0");
            std::vector<Span> all;
            for (const Array& gradient : gradients) all.push_back({gradient.data(), gradient.size()});
            ReleaseGil here;
            return clip(all, by_value, by_norm, threads);
        },
        "gradients"_a, "by_value"_a, "by_norm"_a, "threads"_a,
        "Clips in place, by value where that is above 0, then to a norm where that is; returns the norm before.");
    module.def(
        "drop",
        [](Array values, Levels levels, int kept, Array out, int threads) {
            require(levels.size() == values.size() && out.size() == values.size() && kept > 0 && threads > 0,
                    "levels and out must be of the values' size, some must be kept, and threads be above 0");
            ReleaseGil here;
            drop({values.data(), values.size()}, levels.data(), kept, out.data(), threads);
        },
        "values"_a, "levels"_a, "kept"_a, "out"_a, "threads"_a,
        "The values whose level lies below `kept`, scaled up so that their mean stays; 0 for the others.");
}

}  // namespace charloom
