// The gradient of a weight matrix: the sum over the rows of all panels of d[n] x[k].
//
// The rows of a panel are far from those of the next one. So some panels are packed first: their rows follow one
// another, and are used many times while they are in a core's own cache.

#pragma once

#include "buffer.h"
#include "products/panels.h"

namespace charloom {

// to[n][k] = Σ d[n] x[k], for the blocks in the ranges. A block of d has DEPTH rows of the result; to(block) is the
// address of the first. A strip of x has STRIP columns of the result. `Outer` multiplies blocks and strips:
//
//   BLOCKS, STRIPS, PANELS      how many are packed together: they and their sums fit the second-level cache
//   PACKED_D, PACKED_X, SUMS    numbers of a packed block, of a packed strip, and of their product
//   pack_d, pack_x              pack some blocks, or strips, of `count` panels from panel m on
//   accumulate                  adds the product of a block and a strip; fresh: the sums start here
//   unpack                      copies a product to the result
template <class Outer, class View, class Rows>
void packed_outer(View d, Range ds, View x, Range xs, int panels, Heights heights, Buffer<float>& scratch, Rows&& to,
                  int stride) {
    using Number = typename Outer::Number;
    constexpr size_t SUMS = size_t(Outer::BLOCKS) * Outer::STRIPS * Outer::SUMS;
    constexpr size_t D = size_t(Outer::BLOCKS) * Outer::PACKED_D, X = size_t(Outer::STRIPS) * Outer::PACKED_X;
    scratch.reserve(SUMS + (D + X) * sizeof(Number) / sizeof(float));
    Number *packed_d = reinterpret_cast<Number*>(scratch + SUMS), *packed_x = packed_d + D;
    if (panels == 0) std::memset(scratch, 0, SUMS * sizeof(float));  // otherwise the first products start the sums
    Range strips{xs.first * Outer::DEPTH / Outer::STRIP, xs.last * Outer::DEPTH / Outer::STRIP};
    for (int d0 = ds.first; d0 < ds.last; d0 += Outer::BLOCKS)
        for (int x0 = strips.first; x0 < strips.last; x0 += Outer::STRIPS) {
            Range of_d{d0, std::min(d0 + Outer::BLOCKS, ds.last)};
            Range of_x{x0, std::min(x0 + Outer::STRIPS, strips.last)};
            auto each_product = [&](auto&& work) {
                for (int n = 0; n < of_d.count(); n++)
                    for (int k = 0; k < of_x.count(); k++)
                        work(n, k, scratch + size_t(n * Outer::STRIPS + k) * Outer::SUMS);
            };
            for (int m = 0; m < panels; m += Outer::PANELS) {
                int count = std::min(Outer::PANELS, panels - m);
                Outer::pack_d(d, of_d, m, count, heights, packed_d);
                int depth = Outer::pack_x(x, of_x, m, count, heights, packed_x);
                each_product([&](int n, int k, float* sums) {
                    Outer::accumulate(packed_d + n * Outer::PACKED_D, packed_x + k * Outer::PACKED_X, depth, sums,
                                      m == 0);
                });
            }
            each_product([&](int n, int k, const float* sums) {
                Outer::unpack(sums, to(d0 + n) + size_t(x0 + k) * Outer::STRIP, stride);
            });
        }
}

}  // namespace charloom
