// The Python bindings of inference: a packed network, and batches of sequences that it continues.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "inference/batch.h"
#include "require.h"
#include "threads/release_gil.h"

namespace nb = nanobind;

namespace charloom::inference {
namespace {

template <class Number, class... Shape>
using Array = nb::ndarray<Number, Shape..., nb::c_contig, nb::device::cpu>;
using Array1D = Array<const float, nb::ndim<1>>;
using Array2D = Array<const float, nb::ndim<2>>;
using CellName = std::pair<std::string, std::string>;  // and its variant
using LayerArrays = std::tuple<std::optional<Array2D>, Array2D, Array2D, std::optional<Array1D>>;

Precision precision_named(const std::string& name) {
    if (name == "fp32") return Precision::fp32;
    if (name == "bf16") return Precision::bf16;
    require(name == "int8", "precision must be fp32, bf16 or int8");
    return Precision::int8;
}

LayerParameters layer_of(const LayerArrays& arrays, int gates, int hidden) {
    const auto& [below, recurrent, table, hidden_bias] = arrays;
    size_t rows = size_t(gates) * hidden;
    require(recurrent.shape(0) == rows && recurrent.shape(1) == size_t(hidden), "recurrent weights must be [G*H, H]");
    require(!below || below->shape(0) == rows, "weights below must be [G*H, X]");
    require(table.shape(1) == rows, "tables must be [1 or V, G*H]");
    require(!hidden_bias || hidden_bias->shape(0) == size_t(hidden), "the hidden bias must be [H]");
    return {
        below ? below->data() : nullptr,  below ? static_cast<int>(below->shape(1)) : 0, recurrent.data(), table.data(),
        static_cast<int>(table.shape(0)), hidden_bias ? hidden_bias->data() : nullptr};
}

Parameters checked(const CellName& cell, const std::vector<LayerArrays>& layers, Array2D head, Array1D head_bias,
                   const std::optional<Array2D>& features, int reset_id) {
    Parameters from{cell_named(cell.first, cell.second),
                    static_cast<int>(head.shape(1)),
                    static_cast<int>(head.shape(0)),
                    {},
                    head.data(),
                    head_bias.data(),
                    features ? features->data() : nullptr,
                    reset_id};
    require(reset_id >= -1 && reset_id < from.vocabulary_size, "reset_id must be an id or -1");
    require(!layers.empty(), "there must be a layer");
    require(head_bias.shape(0) == head.shape(0), "the head's bias must be [V]");
    require(!features || features->shape(0) == head.shape(0), "features must be [V, E]");
    for (const auto& arrays : layers) {
        from.layers.push_back(layer_of(arrays, gates_of(from.cell), from.hidden));
        const LayerParameters& layer = from.layers.back();
        bool first = from.layers.size() == 1;
        require(layer.table_rows == 1 || (first && layer.table_rows == from.vocabulary_size),
                "tables must be [1 or V, G*H]");
        require((layer.below != nullptr) == (!first || features.has_value()),
                "a layer reads the one below, or features");
        require(!layer.below || layer.columns == (first ? static_cast<int>(features->shape(1)) : from.hidden),
                "weights below must be as wide as what they read");
        require((layer.hidden_bias != nullptr) == (from.cell == Cell::gru), "a gru's n gate has a hidden bias");
    }
    return from;
}

void make_network(PackedNetwork* made, const CellName& cell, const std::string& precision, bool tiles,
                  const std::vector<LayerArrays>& layers, Array2D head, Array1D head_bias,
                  std::optional<Array2D> features, int reset_id) {
    Parameters from = checked(cell, layers, head, head_bias, features, reset_id);
    Precision format = precision_named(precision);
    require(format != Precision::int8 || from.cell != Cell::relu, "relu has no bound that 8 bits could be scaled to");
    ReleaseGil others_may_run;
    new (made) PackedNetwork(from, format, tiles);
}

// Every array is checked here, because the code below does not check its pointers.
class CheckedBatch {
public:
    CheckedBatch(const PackedNetwork& network, int threads) : network_(network), threads_(threads), batch_(network) {
        require(threads > 0, "threads must be above 0");
    }

    int size() const { return batch_.size(); }

    void join(Row row, Array2D h, Array2D c, Array<const int64_t, nb::ndim<1>> recent) {
        require_state(h, c);
        require_id(row.token);
        const SamplingParameters& sampling = row.sampling;
        for (int id : sampling.suppressed) require_id(id);
        require(sampling.separator < network_.vocabulary_size, "separator must be an id or -1");
        require(sampling.repetition_window >= 0 && sampling.ngram_window >= 0 && sampling.no_repeat_ngram_size >= 0,
                "windows and sizes must be 0 or more");
        row.history = History(sampling, network_.vocabulary_size);
        for (size_t n = 0; n < recent.shape(0); n++) require_id(recent(n)), row.history.push(int(recent(n)));
        batch_.join(std::move(row), h.data(), c.data());
    }

    void leave(int row) {
        require_row(row);
        batch_.leave(row);
    }

    void copy_state(int row, Array<float, nb::ndim<2>> h, Array<float, nb::ndim<2>> c) const {
        require_row(row);
        require_state(h, c);
        batch_.copy_state(row, h.data(), c.data());
    }

    int decode(Array<int64_t, nb::ndim<2>> tokens, double seconds, std::optional<Array<double, nb::ndim<3>>> logprobs,
               std::optional<Array<int32_t, nb::ndim<3>>> top_ids) {
        Call call{.steps = static_cast<int>(tokens.shape(1)), .generated = tokens.data()};
        require(tokens.shape(0) == size_t(size()), "tokens must be [B, S]");
        require(logprobs.has_value() == top_ids.has_value(), "logprobs and top_ids must be given together");
        if (logprobs) {
            size_t top = top_ids->shape(2);
            require(logprobs->shape(2) == top + 1 && top <= size_t(network_.vocabulary_size),
                    "logprobs must be [B, S, 1 + N]");
            for (int row = 0; row < size(); row++)
                require(batch_.row(row).logprobs <= static_cast<int>(top), "N must be what each row asks for or more");
            for (size_t axis : {0, 1})
                require(logprobs->shape(axis) == tokens.shape(axis) && top_ids->shape(axis) == tokens.shape(axis),
                        "logprobs must be [B, S, 1 + N], top_ids [B, S, N]");
            call.logprobs = logprobs->data(), call.top_ids = top_ids->data(), call.top = static_cast<int>(top);
        }
        return run(call, seconds);
    }

    int read(Array<const int64_t, nb::ndim<2>> ids, std::optional<Array<float, nb::ndim<3>>> logits, double seconds) {
        Call call{.steps = static_cast<int>(ids.shape(1)), .given = ids.data()};
        require(ids.shape(0) == size_t(size()), "ids must be [B, S]");
        for (size_t n = 0; n < ids.size(); n++) require_id(ids.data()[n]);
        if (logits) {
            require(logits->shape(0) == ids.shape(0) && logits->shape(1) == ids.shape(1) &&
                        logits->shape(2) == size_t(network_.vocabulary_size),
                    "logits must be [B, S, V]");
            call.logits = logits->data();
        }
        return run(call, seconds);
    }

private:
    int run(const Call& call, double seconds) {
        ReleaseGil others_may_run;
        return batch_.run(call, threads_, seconds);
    }

    void require_id(int64_t id) const { require(id >= 0 && id < network_.vocabulary_size, "ids must be in [0, V)"); }
    void require_row(int row) const { require(row >= 0 && row < size(), "a row must be in [0, B)"); }

    template <class State>
    void require_state(const State& h, const State& c) const {
        auto fits = [&](const State& part) {
            return part.shape(0) == network_.layers.size() && part.shape(1) == size_t(network_.hidden);
        };
        require(fits(h), "h must be [L, H]");
        require(carried_by(network_.cell) != Carried::c || fits(c), "c must be [L, H]");
    }

    const PackedNetwork& network_;
    const int threads_;
    DecodingBatch batch_;
};

// For tests: one choice, with a given random number.
int choose(Array1D logits, const SamplingParameters& sampling, std::vector<int> recent, int last, double uniform) {
    int vocabulary_size = static_cast<int>(logits.shape(0)), padded = padded_width(vocabulary_size);
    std::vector<float> copy(padded, -std::numeric_limits<float>::infinity());
    std::copy_n(logits.data(), vocabulary_size, copy.begin());
    History history(sampling, vocabulary_size);
    for (int token : recent) history.push(token);
    return Sampler(vocabulary_size, padded).choose(copy.data(), sampling, history, last, uniform);
}

}  // namespace
}  // namespace charloom::inference

namespace charloom {

void bind_inference(nb::module_& module) {
    using namespace nb::literals;
    using namespace inference;
    nb::class_<PackedNetwork>(module, "PackedNetwork")
        .def("__init__", &make_network, "cell"_a, "precision"_a, "tiles"_a, "layers"_a, "head"_a, "head_bias"_a,
             "features"_a.none(), "reset_id"_a = -1);
    nb::class_<SamplingParameters>(module, "SamplingParameters")
        .def(nb::init<>())
        .def_rw("temperature", &SamplingParameters::temperature)
        .def_rw("top_k", &SamplingParameters::top_k)
        .def_rw("top_p", &SamplingParameters::top_p)
        .def_rw("min_log_p", &SamplingParameters::min_log_p)
        .def_rw("greedy", &SamplingParameters::greedy)
        .def_rw("repetition_penalty", &SamplingParameters::repetition_penalty)
        .def_rw("no_repeat_ngram_size", &SamplingParameters::no_repeat_ngram_size)
        .def_rw("repetition_window", &SamplingParameters::repetition_window)
        .def_rw("ngram_window", &SamplingParameters::ngram_window)
        .def_rw("suppressed", &SamplingParameters::suppressed)
        .def_rw("separator", &SamplingParameters::separator);
    nb::class_<Row>(module, "Row")
        .def(nb::init<>())
        .def_rw("sampling", &Row::sampling)
        .def_rw("seed", &Row::seed)
        .def_rw("index", &Row::index)
        .def_rw("position", &Row::position)
        .def_rw("token", &Row::token)
        .def_rw("logprobs", &Row::logprobs);
    nb::class_<CheckedBatch>(module, "DecodingBatch", "Call it through charloom.inference.native_backend.")
        .def(nb::init<const PackedNetwork&, int>(), "network"_a, "threads"_a, nb::keep_alive<1, 2>())
        .def("join", &CheckedBatch::join, "row"_a, "h"_a, "c"_a, "recent"_a)
        .def("leave", &CheckedBatch::leave, "row"_a)
        .def("copy_state", &CheckedBatch::copy_state, "row"_a, "h"_a, "c"_a)
        .def("decode", &CheckedBatch::decode, "tokens"_a, "seconds"_a, "logprobs"_a.none(), "top_ids"_a.none())
        .def("read", &CheckedBatch::read, "ids"_a, "logits"_a.none(), "seconds"_a);
    module.def("choose", &choose, "logits"_a, "sampling"_a, "recent"_a, "last"_a, "uniform"_a);
    module.def("uniform", &uniform, "seed"_a, "index"_a, "position"_a);
}

}  // namespace charloom
