/* SPDX-License-Identifier: Apache-2.0
 *
 * warp.cc - shuffles and votes, computed once for all lanes by the last that comes.
 */
#include "tests/cuda/emulation/block.h"

struct shuffle {
    enum emulation_op op;
    int operand, width;
    uint64_t value, result;
};

/* Which lane this one reads. */
UNCHECKED static int source(const struct shuffle *s, int lane) {
    int base = lane & ~(s->width - 1), end = base + s->width, from = lane;
    if (s->op == EMULATION_SHFL)
        return base | (s->operand & (s->width - 1));
    if (s->op == EMULATION_SHFL_XOR)
        from = lane ^ s->operand;
    else if (s->op == EMULATION_SHFL_UP)
        return lane - s->operand >= base ? lane - s->operand : lane;
    else
        return lane + s->operand < end ? lane + s->operand : lane;
    return from < end ? from : lane; /* xor may read earlier segments */
}

UNCHECKED static void shuffle_all(void *const *arguments, unsigned mask) {
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        struct shuffle *s = (struct shuffle *)arguments[lane];
        int from = source(s, lane);
        if (from < 0 || from >= LANES || !(mask >> from & 1))
            emulation_fail("%s: lane %d reads lane %d, which mask 0x%08x does not name",
                           op_name(s->op), lane, from, mask);
        s->result = ((const struct shuffle *)arguments[from])->value;
    }
}

UNCHECKED uint64_t emulation_shuffle(enum emulation_op op, unsigned mask,
                                     uint64_t value, int operand, int width,
                                     const char *file, int line) {
    if (width < 1 || width > LANES || (width & (width - 1)) != 0)
        emulation_fail("%s: width %d is no power of two up to 32", op_name(op), width);
    struct shuffle s = {op, operand, width, value, 0};
    emulation_collective(op, mask, &s, shuffle_all, file, line);
    return s.result;
}

struct vote {
    int predicate;
    unsigned result;
};

UNCHECKED static void vote_all(void *const *arguments, unsigned mask) {
    unsigned ballot = 0;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        if (((const struct vote *)arguments[lane])->predicate)
            ballot |= 1u << lane;
    }
    for (unsigned rest = mask; rest; rest &= rest - 1)
        ((struct vote *)arguments[__builtin_ctz(rest)])->result = ballot;
}

UNCHECKED unsigned emulation_vote(unsigned mask, int predicate, const char *file,
                                  int line) {
    struct vote v = {predicate, 0};
    emulation_collective(EMULATION_VOTE, mask, &v, vote_all, file, line);
    return v.result;
}
