/* SPDX-License-Identifier: Apache-2.0
 *
 * copy_async.cc - cp.async: copies that are on their way until their thread waits.
 *
 * On a device the bytes may land any time from the copy to the wait. Here they land at the
 * last moment: when the wait makes their group complete, and are read then. So a missing
 * wait, a wait for too few groups, and a source that changes meanwhile all show.
 */
#include <string.h>

#include "kernels/cuda/tensor_core.cuh"

#include "tests/cuda/emulation/block.h"

enum { MAX_COPIES = 256, MAX_GROUPS = 64 }; /* on their way, of one thread */

uint16_t copies_begun[MAX_THREADS], copies_grouped[MAX_THREADS];

struct copies {
    unsigned first_copy, first_group; /* of the rings */
    struct {
        void *to;
        const void *from;
    } ring[MAX_COPIES];
    uint16_t groups[MAX_GROUPS]; /* copies in each */
    uint16_t n_open;             /* copies since the last commit */
};

static struct copies all_copies[MAX_THREADS];

void copy_async(void *shared, const void *global) {
    int thread = running_index();
    struct copies *c = &all_copies[thread];
    if ((uintptr_t)shared % 16 != 0 || (uintptr_t)global % 16 != 0)
        emulation_fail("cp.async from %p to %p: not 16-byte aligned", global, shared);
    if (!is_in_shared_memory(shared, 16))
        emulation_fail("cp.async to %p: outside the block's shared memory", shared);
    if (!is_on_device(global, 16, block.device))
        emulation_fail("cp.async from %p: 16 bytes there are not the device's", global);
    if (copies_begun[thread] == MAX_COPIES)
        emulation_fail("more than %d copies on their way", MAX_COPIES);
    unsigned at = (c->first_copy + copies_begun[thread]++) % MAX_COPIES;
    c->ring[at].to = shared;
    c->ring[at].from = global;
    c->n_open++;
}

void copy_async_commit() {
    int thread = running_index();
    struct copies *c = &all_copies[thread];
    if (copies_grouped[thread] == MAX_GROUPS)
        emulation_fail("more than %d groups of copies on their way", MAX_GROUPS);
    c->groups[(c->first_group + copies_grouped[thread]++) % MAX_GROUPS] = c->n_open;
    c->n_open = 0;
}

void emulation_copy_async_wait(int n_groups) {
    int thread = running_index();
    struct copies *c = &all_copies[thread];
    while (copies_grouped[thread] > n_groups) {
        int n = c->groups[c->first_group % MAX_GROUPS];
        for (int i = 0; i < n; i++) {
            unsigned at = c->first_copy++ % MAX_COPIES;
            memcpy(c->ring[at].to, c->ring[at].from, 16);
        }
        copies_begun[thread] = (uint16_t)(copies_begun[thread] - n);
        copies_grouped[thread]--;
        c->first_group++;
    }
}
