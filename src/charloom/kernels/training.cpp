// What Python sees of training: a network with its workspace, and the optimizer.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dropping.h"
#include "network.h"
#include "optimizer.h"
#include "product_bf16.h"
#include "released.h"

namespace nb = nanobind;

namespace charloom {

namespace {

using Array = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Levels = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using MaybeArray = std::optional<Array>;

std::vector<float*> pointers(const std::vector<Array>& arrays) {
    std::vector<float*> found;
    for (const Array& array : arrays) found.push_back(array.data());
    return found;
}

float* pointer(const MaybeArray& array) { return array ? array->data() : nullptr; }

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

// The network that Python holds.
class Trainer {
public:
    Trainer(std::string cell, std::string nonlinearity, int layers, int hidden, int symbols, std::string input,
            int input_size, std::string precision, bool tiles, int threads)
        : network_(open_network({cell, nonlinearity, layers, hidden, symbols,
                                 input == "onehot"      ? Input::ONEHOT
                                 : input == "embedding" ? Input::EMBEDDING
                                                        : Input::SCALAR,
                                 input_size},
                                precision, tiles, threads)) {}

    std::pair<double, int64_t> forward(const std::vector<Array>& parameters, Ids inputs, Ids targets, MaybeArray h,
                                       MaybeArray c, const std::vector<Array>& masks, bool locked, Array h_after,
                                       MaybeArray c_after, float scale) {
        Batch batch{int(inputs.shape(0)),
                    int(inputs.shape(1)),
                    inputs.data(),
                    targets.data(),
                    pointer(h),
                    pointer(c),
                    {},
                    locked,
                    h_after.data(),
                    pointer(c_after)};
        for (const Array& mask : masks) batch.masks.push_back(mask.data());
        auto found = pointers(parameters);
        Released here;
        Score score = network_->forward({found.begin(), found.end()}, batch, scale);
        return {score.nats, score.correct};
    }

    void backward(const std::vector<Array>& gradients, MaybeArray d_h, MaybeArray d_c, MaybeArray d_h_before,
                  MaybeArray d_c_before) {
        auto found = pointers(gradients);
        Released here;
        network_->backward(found, pointer(d_h), pointer(d_c), pointer(d_h_before), pointer(d_c_before));
    }

private:
    std::unique_ptr<Network> network_;
};

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
             "nonlinearity"_a, "layers"_a, "hidden"_a, "symbols"_a, "input"_a, "input_size"_a, "precision"_a, "tiles"_a,
             "threads"_a)
        .def("forward", &Trainer::forward, "parameters"_a, "inputs"_a, "targets"_a, "h"_a.none(), "c"_a.none(),
             "masks"_a, "locked"_a, "h_after"_a, "c_after"_a.none(), "scale"_a)
        .def("backward", &Trainer::backward, "gradients"_a, "d_h"_a.none(), "d_c"_a.none(), "d_h_before"_a.none(),
             "d_c_before"_a.none());
    module.def(
        "adam",
        [](const std::vector<Array>& parameters, const std::vector<Array>& gradients, const std::vector<Array>& means,
           const std::vector<Array>& squares, const std::vector<float>& decays, float rate, float rate_of_decay,
           float beta1, float beta2, float epsilon, bool decoupled, int threads) {
            std::vector<Updated> all;
            for (size_t n = 0; n < parameters.size(); n++)
                all.push_back({parameters[n].data(), gradients[n].data(), means[n].data(), squares[n].data(),
                               parameters[n].size(), decays[n]});
            Released here;
            adam(all, {rate, rate_of_decay, beta1, beta2, epsilon, decoupled}, threads);
        },
        "parameters"_a, "gradients"_a, "means"_a, "squares"_a, "decays"_a, "rate"_a, "rate_of_decay"_a, "beta1"_a,
        "beta2"_a, "epsilon"_a, "decoupled"_a, "threads"_a);
    module.def(
        "clip",
        [](const std::vector<Array>& gradients, float by_value, float by_norm, int threads) {
            std::vector<Span> all;
            for (const Array& gradient : gradients) all.push_back({gradient.data(), gradient.size()});
            Released here;
            return clip(all, by_value, by_norm, threads);
        },
        "gradients"_a, "by_value"_a, "by_norm"_a, "threads"_a,
        "Clips in place, by value where that is above 0, then to a norm where that is; returns the norm before.");
    module.def(
        "drop",
        [](Array values, Levels levels, int kept, Array out, int threads) {
            Released here;
            drop({values.data(), values.size()}, levels.data(), kept, out.data(), threads);
        },
        "values"_a, "levels"_a, "kept"_a, "out"_a, "threads"_a,
        "The values whose level lies below `kept`, scaled up so that their mean stays; 0 for the others.");
}

}  // namespace charloom
