/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_request.c - a body in each dialect: read, tokenized, answered (by an engine that makes
 * its numbers up), written. Whatever goes out is JSON that reads back; whatever is refused
 * says why.
 *
 * Input: a byte for dialect and media type, then the body. Run in the root of the tree.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/dialect.h"

#define MODEL "tests/data/models/binary-f32"
#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition))                                                              \
            __builtin_trap();                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static const struct call_limits LIMITS = {
    .max_text_bytes = 300,
    .max_inputs = 8,
    .json = {
        .max_bytes = 1 << 16, .max_depth = 32, .max_values = 128, .max_key_bytes = 64}};

static struct bundle bundle;
static struct engine engine;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    static const char *const TAGS[] = {"O", "B-ADE", "I-ADE"};
    static char tag_labels[3][MODEL_MAX_LABEL_BYTES];
    CHECK(tokenizer_open("tests/data/models", &bundle.tokenizer, NULL) == STATUS_OK);
    CHECK(model_config_read(MODEL, &bundle.config, NULL) == STATUS_OK);
    for (size_t i = 0; i < 3; i++)
        memcpy(tag_labels[i], TAGS[i], strlen(TAGS[i]));
    bundle.config.tag_labels = tag_labels;
    bundle.config.n_tag_labels = 3;
    engine.info.dtype = "made up";
    bundle.engine = bundle.engines[0] = &engine;
    bundle.n_engines = 1;
    bundle.positive_label = 1;
    memcpy(bundle.name, "fuzz", 4);
    return 0;
}

static size_t n_reserved;

static bool reserve(void *context, size_t n_bytes) {
    (void)context;
    n_reserved += n_bytes;
    return n_reserved <= 1 << 20;
}

/* Numbers that depend on the tokens alone. */
static void compute(struct call *c) {
    for (int32_t i = 0; i < c->job.n_sequences; i++) {
        const struct sequence *s = &c->job.sequences[i];
        CHECK(s->n_tokens >= 1 && s->n_tokens <= bundle.config.max_positions);
        for (int32_t k = 0; k < bundle.config.n_labels; k++)
            s->logits[k] = (float)((s->ids[s->n_tokens / 2] * (k + 3)) % 17) - 8.0F;
        for (int32_t t = 0; s->tags && t < s->n_tokens; t++)
            for (int32_t k = 0; k < 3; k++)
                s->tags[3 * t + k] = (float)((s->ids[t] * (k + 5)) % 13) - 6.0F;
    }
}

static void check_fault(const struct fault *f) {
    CHECK(f->kind > FAULT_NONE && f->kind < FAULT_KINDS && strlen(f->message) > 0);
}

static void check_json(const char *text, size_t n_bytes) {
    const struct json_limits limits = {.max_bytes = 1 << 24,
                                       .max_depth = 8,
                                       .max_values = 1 << 20,
                                       .max_key_bytes = 256};
    json_t *root = NULL;
    CHECK(json_parse(text, n_bytes, &limits, &root, NULL) == STATUS_OK);
    json_decref(root);
}

static void check_reply(const struct call *c, const struct buffer *reply) {
    if (!c->is_lines) {
        check_json(reply->data, reply->n_bytes);
        return;
    }
    size_t n_lines = 0;
    for (const char *at = reply->data, *end = at + reply->n_bytes; at < end;
         n_lines++) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        CHECK(line_end != NULL);
        check_json(at, (size_t)(line_end - at));
        at = line_end + 1;
    }
    CHECK(n_lines == c->n_texts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    static const struct dialect *const DIALECTS[] = {
        &dialect_native, &dialect_sagemaker, &dialect_tei, &dialect_huggingface,
        &dialect_tokenize};
    if (n_bytes < 1)
        return 0;
    const struct dialect *dialect = DIALECTS[data[0] % 5];
    enum media_type type = (enum media_type)(data[0] / 5 % 3);
    if (!(dialect->media_types & 1u << type))
        type = MEDIA_JSON;
    struct call c;
    struct fault f = {0};
    struct buffer reply = {.max_bytes = 1 << 24};
    /* A block of its own, so that a read past the body's end is seen. */
    char *body = malloc(n_bytes - 1 ? n_bytes - 1 : 1);
    CHECK(body != NULL);
    memcpy(body, data + 1, n_bytes - 1);
    n_reserved = 0;
    call_open(&c, &LIMITS);
    bool is_ok = dialect->read(&c, type, body, n_bytes - 1, &f);
    if (is_ok && dialect == &dialect_tokenize) {
        c.job.bundle = &bundle;
        c.is_list = true;
    } else if (is_ok) {
        is_ok = call_prepare(&c, &bundle, reserve, NULL, &f);
        if (is_ok) {
            compute(&c);
            is_ok = call_answer(&c, &f);
        }
    }
    if (is_ok) {
        CHECK(c.n_texts >= 1 && c.n_texts <= LIMITS.max_inputs);
        CHECK(dialect->write(&c, &reply, NULL) == STATUS_OK);
        check_reply(&c, &reply);
    } else {
        check_fault(&f);
    }
    buffer_free(&reply);
    call_free(&c);
    free(body);
    return 0;
}
