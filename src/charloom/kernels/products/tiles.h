// AMX's tiles: eight registers with 16 rows of 64 bytes.

#pragma once

#if defined(__AMX_TILE__)

#include <immintrin.h>

#include <cstdint>

namespace charloom {

// Sets the shapes of a thread's tiles: 0 to 5 have `rows` rows, 6 and 7 have 16. Without shapes, a tile instruction is
// an error. While they are set, a context switch of the thread saves more state.
class Tiles {
public:
    explicit Tiles(int rows) {
        Shapes shapes;
        for (int tile = 0; tile < 8; tile++) {
            shapes.bytes[tile] = 64;
            shapes.rows[tile] = tile < 6 ? rows : 16;
        }
        asm volatile("" ::"r"(&shapes) : "memory");  // GCC 12 would remove the stores: it does not see them read
        _tile_loadconfig(&shapes);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;

private:
    struct alignas(64) Shapes {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    };
};

}  // namespace charloom

#endif
