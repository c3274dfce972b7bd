/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_classifier.c - the bytes of a server's answer. What is taken for an answer holds what
 * was asked for: a result for each text, shares from 0 to 1, offsets within the text.
 *
 * Input: a byte (how many texts; bit 7: GET /info instead; bit 6: entities), then the body.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/worker/classifier.h"
#include "client/worker/outcome.h"

#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition))                                                              \
            __builtin_trap();                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static const struct view TEXTS[] = {
    {"Z\xC3\xA9 rash", 8}, {"x", 1}, {"\xFF\x80 bad", 6}, {"", 0}};
static const int64_t POINTS[] = {7, 1, 6, 0}; /* at most */
static const struct outcome_rules RULES = {"Adverse_Event", 0.6, 0.4};

static bool is_share(double x) {
    return x >= 0 && x <= 1;
}

static void check_result(const struct classifier_answer *a, size_t i,
                         bool wants_entities, struct arena *arena) {
    const struct classifier_result *r = &a->results[i];
    const struct store_claim claim = {
        .tries = 1,
        .text = TEXTS[i],
        .drugs = VIEW("[{\"drug\":\"d\",\"name\":\"n\",\"begin\":0,\"end\":3}]")};
    struct store_outcome o;
    CHECK(outcome_of_result(&RULES, &claim, a, r, arena, &o, NULL) == STATUS_OK);
    if (r->error_type) {
        CHECK(o.kind != STORE_DONE && strlen(o.reason) > 0);
        return;
    }
    CHECK(o.kind == STORE_DONE && o.label && o.label[0]);
    CHECK(is_share(o.probability) && is_share(o.score));
    CHECK(r->n_tokens >= 0 && r->n_windows >= 1);
    CHECK(wants_entities || r->n_mentions == 0);
    for (size_t k = 0; k < o.n_mentions; k++) {
        const struct store_mention *m = &o.mentions[k];
        CHECK(m->type[0] && is_share(m->score));
        CHECK(m->begin >= 0 && m->begin < m->end && m->end <= POINTS[i]);
    }
}

static void read_answer(const char *body, size_t n_bytes, size_t n,
                        bool wants_entities) {
    struct arena arena = {.max_bytes = (size_t)64 << 20};
    struct classifier_answer a = {0};
    struct error err = {0};
    enum status status = classifier_read(body, n_bytes, "Adverse_Event", wants_entities,
                                         TEXTS, n, &arena, &a, &err);
    if (status == STATUS_OK) {
        CHECK(a.model[0] && a.dtype[0] && strlen(a.sha256) == STORE_SHA256_HEX);
        for (size_t i = 0; i < n; i++)
            check_result(&a, i, wants_entities, &arena);
    } else {
        CHECK(err.status == status && err.message[0]);
    }
    arena_free(&arena);
}

static void read_info(const char *body, size_t n_bytes) {
    struct classifier_info info = {0};
    struct error err = {0};
    if (classifier_read_info(body, n_bytes, "Adverse_Event", &info, &err) ==
        STATUS_OK) {
        CHECK(info.max_texts > 0 && info.max_body_bytes > 0);
        CHECK(!info.is_ready || strlen(info.sha256) == STORE_SHA256_HEX);
    } else {
        CHECK(err.message[0]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes < 1)
        return 0;
    /* A block of its own, so that a read past the body's end is seen. */
    char *body = malloc(n_bytes - 1 ? n_bytes - 1 : 1);
    CHECK(body != NULL);
    memcpy(body, data + 1, n_bytes - 1);
    if (data[0] & 0x80)
        read_info(body, n_bytes - 1);
    else
        read_answer(body, n_bytes - 1, 1 + data[0] % 4, data[0] & 0x40);
    free(body);
    return 0;
}
