// The entry point of one module: `_portable`, `_avx2`, `_avxvnni`, `_avx512` or `_neon`.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "cpu.h"

namespace nb = nanobind;

namespace charloom {

void bind_threads(nb::module_& module);    // threads/module.cpp
void bind_training(nb::module_& module);   // training/module.cpp
void bind_inference(nb::module_& module);  // inference/module.cpp

}  // namespace charloom

NB_MODULE(CHARLOOM_MODULE, module) {
    nb::set_leak_warnings(false);  // a model that exists until the interpreter ends is not a leak
    module.attr("LANES") = CHARLOOM_LANES;
    module.attr("FLAGS") = CHARLOOM_FLAGS;  // the compiler's flags, for programs that are compared with these kernels
    module.def("cpu_features", &charloom::cpu_features, "The features of this processor that variants may need.");
    charloom::bind_threads(module);
    charloom::bind_training(module);
    charloom::bind_inference(module);
}
