/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/buckets.h"

#include <stddef.h>

static int32_t next_bucket(int32_t rows) {
    static const int32_t small[] = {16, 32, 48, 64, 96, 128, 192, 256, 384, 512};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (small[i] > rows)
            return small[i];
    return rows + (rows < 2048   ? 128
                   : rows < 4096 ? 256
                                 : (rows / 16 + 255) / 256 * 256);
}

void buckets_init(struct buckets *b, int32_t max_rows) {
    b->n = 0;
    for (int32_t rows = 0; rows < max_rows && b->n < BUCKETS_MAX;)
        b->rows[b->n++] = rows = next_bucket(rows);
}

int32_t buckets_find(const struct buckets *b, int32_t n_rows) {
    int32_t low = 0, high = b->n - 1;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (b->rows[middle] < n_rows)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
