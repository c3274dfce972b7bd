/* SPDX-License-Identifier: Apache-2.0
 *
 * info.c - what the server says of itself: GET / and GET /info.
 */
#include <string.h>

#include "server/routes.h"
#include "server/service.h"

enum status service_write_index(struct service *s, struct buffer *out,
                                struct error *err) {
    (void)s;
    enum status status = buffer_printf(out, err,
                                       "{\"service\":\"vigil\",\"version\":\"%s\","
                                       "\"routes\":[",
                                       VIGIL_VERSION);
    for (int i = 0; i < ROUTE_NONE && status == STATUS_OK; i++)
        status = buffer_printf(out, err, "%s\"%s %s\"", i ? "," : "",
                               route_is_post((enum route)i) ? "POST" : "GET",
                               route_name((enum route)i));
    if (status == STATUS_OK)
        status = buffer_printf(out, err, ",\"POST /endpoints/{name}/invocations\"");
    return status == STATUS_OK
               ? buffer_printf(out, err, "],\"docs\":\"/openapi.json\"}")
               : status;
}

static enum status write_labels(const char (*labels)[MODEL_MAX_LABEL_BYTES], int32_t n,
                                struct buffer *out, struct error *err) {
    enum status status = buffer_append(out, "[", 1, err);
    for (int32_t i = 0; i < n && status == STATUS_OK; i++) {
        if (i)
            status = buffer_append(out, ",", 1, err);
        if (status == STATUS_OK)
            status = json_append_string(out, labels[i], strlen(labels[i]), err);
    }
    return status == STATUS_OK ? buffer_append(out, "]", 1, err) : status;
}

static enum status write_model(const struct bundle *bundle, struct buffer *out,
                               struct error *err) {
    const struct model_config *config = &bundle->config;
    enum status status = buffer_printf(out, err, ",\"model\":{\"name\":");
    if (status == STATUS_OK)
        status = json_append_string(out, bundle->name, strlen(bundle->name), err);
    if (status == STATUS_OK)
        status = buffer_printf(
            out, err,
            ",\"sha256\":\"%s\",\"dtype\":\"%s\",\"max_tokens\":%d,\"parameters\":%zu,"
            "\"layers\":%d,\"width\":%d,\"heads\":%d,\"vocabulary\":%d,\"labels\":",
            bundle->sha256, bundle->engine->info.dtype, config->max_positions,
            bundle->n_parameters, config->n_layers, config->dim, config->n_heads,
            config->vocab_size);
    if (status == STATUS_OK)
        status = write_labels((const char(*)[MODEL_MAX_LABEL_BYTES])config->labels,
                              config->n_labels, out, err);
    if (status == STATUS_OK)
        status = buffer_printf(out, err, ",\"tag_labels\":");
    if (status == STATUS_OK)
        status = write_labels((const char(*)[MODEL_MAX_LABEL_BYTES])config->tag_labels,
                              config->n_tag_labels, out, err);
    return status == STATUS_OK ? buffer_append(out, "}", 1, err) : status;
}

/* The first engine, and the list of all. */
static enum status write_engine(const struct bundle *bundle, struct buffer *out,
                                struct error *err) {
    const struct engine_info *e = &bundle->engine->info;
    enum status status = buffer_printf(
        out, err,
        ",\"engine\":{\"device\":\"%s\",\"isa\":\"%s\",\"threads\":%d,"
        "\"max_batch_tokens\":%d,\"memory_bytes\":%zu,\"devices\":[",
        e->device, e->isa, e->n_threads, e->max_tokens, bundle_engine_bytes(bundle));
    for (int32_t i = 0; i < bundle->n_engines && status == STATUS_OK; i++) {
        e = &bundle->engines[i]->info;
        status = buffer_printf(
            out, err, "%s{\"device\":\"%s\",\"isa\":\"%s\",\"memory_bytes\":%zu}",
            i ? "," : "", e->device, e->isa, e->n_bytes);
    }
    return status == STATUS_OK ? buffer_append(out, "]}", 2, err) : status;
}

enum status service_write_info(struct service *s, struct buffer *out,
                               struct error *err) {
    const struct service_options *options = service_options(s);
    struct served *served = service_acquire(s);
    enum status status = buffer_printf(
        out, err, "{\"service\":\"vigil\",\"version\":\"%s\",\"ready\":%s",
        VIGIL_VERSION, service_is_ready(s) ? "true" : "false");
    if (status == STATUS_OK && served)
        status = write_model(served->bundle, out, err);
    if (status == STATUS_OK && served)
        status = write_engine(served->bundle, out, err);
    if (status == STATUS_OK)
        status = buffer_printf(
            out, err,
            ",\"limits\":{\"body_bytes\":%zu,\"inputs\":%zu,\"text_bytes\":%zu,"
            "\"json_depth\":%zu,\"queue_requests\":%d,\"memory_bytes\":%zu,"
            "\"timeout_seconds\":%.9g}}",
            options->limits.json.max_bytes, options->limits.max_inputs,
            options->limits.max_text_bytes, options->limits.json.max_depth,
            options->batcher.max_jobs, options->max_memory_bytes,
            (double)options->timeout_ns * 1e-9);
    service_release(served);
    return status;
}
