/* SPDX-License-Identifier: Apache-2.0 */
#include "client/worker/outcome.h"

#include <string.h>

#include "base/clock.h"
#include "base/json.h"

static const struct json_limits DRUGS_LIMITS = {.max_bytes = (size_t)1 << 20,
                                                .max_depth = 3,
                                                .max_values = 20000,
                                                .max_key_bytes = 64};

int64_t outcome_delay_ns(int32_t tries) {
    static const int64_t SECONDS[] = {1, 5, 30, 120};
    const int32_t n = sizeof SECONDS / sizeof *SECONDS;
    int32_t at = tries < 1 ? 0 : tries > n ? n - 1 : tries - 1;
    return SECONDS[at] * CLOCK_NS_PER_SECOND;
}

/* The name in the watch list of the drug that lies over [begin, end), or NULL. */
static const json_t *drug_at(const json_t *drugs, int64_t begin, int64_t end) {
    for (size_t i = 0; i < json_array_size(drugs); i++) {
        const json_t *drug = json_array_get(drugs, i);
        const json_t *from = json_object_get(drug, "begin"),
                     *to = json_object_get(drug, "end"),
                     *name = json_object_get(drug, "drug");
        if (json_is_integer(from) && json_is_integer(to) && json_is_string(name) &&
            json_integer_value(from) < end && json_integer_value(to) > begin)
            return name;
    }
    return NULL;
}

/* Copies the mentions, and names the drugs among them as the watch list does. */
static enum status name_drugs(const struct store_claim *claim, struct arena *arena,
                              struct store_outcome *out, struct error *err) {
    json_t *drugs = NULL;
    bool has_drug = false;
    for (size_t i = 0; i < out->n_mentions; i++)
        has_drug |= strcmp(out->mentions[i].type, "DRUG") == 0;
    if (!has_drug || claim->drugs.n_bytes == 0)
        return STATUS_OK;
    enum status status = json_parse(claim->drugs.data, claim->drugs.n_bytes,
                                    &DRUGS_LIMITS, &drugs, NULL);
    if (status == STATUS_NO_MEMORY)
        return error_set(err, status, "no memory for the names of drugs");
    if (status != STATUS_OK)
        return STATUS_OK; /* another program's; the model's own words are there anyway */
    struct store_mention *named = arena_take(arena, out->n_mentions * sizeof *named);
    status = named
                 ? STATUS_OK
                 : error_set(err, STATUS_NO_MEMORY, "no memory for the names of drugs");
    if (named)
        memcpy(named, out->mentions, out->n_mentions * sizeof *named);
    for (size_t i = 0; i < out->n_mentions && status == STATUS_OK; i++) {
        const json_t *name = strcmp(named[i].type, "DRUG") == 0
                                 ? drug_at(drugs, named[i].begin, named[i].end)
                                 : NULL;
        if (name)
            status = arena_copy(
                arena, view_of(json_string_value(name), json_string_length(name)),
                &named[i].drug, err);
    }
    if (status == STATUS_OK)
        out->mentions = named;
    json_decref(drugs);
    return status;
}

/* A text that is refused alone: what the text is will not change, what the server lacks may. */
static void refused_alone(const struct store_claim *claim, const char *type,
                          struct arena *arena, struct store_outcome *out) {
    static const char *const PASSING[] = {"internal", "overloaded", "timeout",
                                          "not_ready", "engine_failed"};
    struct view reason = {0};
    bool passes = false;
    for (size_t i = 0; i < sizeof PASSING / sizeof *PASSING; i++)
        passes |= strcmp(type, PASSING[i]) == 0;
    if (arena_printf(arena, &reason, NULL, "server: this text: %s", type) != STATUS_OK)
        reason = VIEW("server: this text");
    *out =
        (struct store_outcome){.claim = claim,
                               .kind = passes ? STORE_RETRY : STORE_GIVE_UP,
                               .delay_ns = passes ? outcome_delay_ns(claim->tries) : 0,
                               .reason = reason.data};
}

enum status outcome_of_result(const struct outcome_rules *rules,
                              const struct store_claim *claim,
                              const struct classifier_answer *answer,
                              const struct classifier_result *result,
                              struct arena *arena, struct store_outcome *out,
                              struct error *err) {
    if (result->error_type) {
        refused_alone(claim, result->error_type, arena, out);
        return STATUS_OK;
    }
    double p = result->probability;
    bool is_positive = p >= rules->threshold;
    *out =
        (struct store_outcome){.claim = claim,
                               .kind = STORE_DONE,
                               .model_name = answer->model,
                               .model_sha256 = answer->sha256,
                               .dtype = answer->dtype,
                               .label = is_positive ? rules->positive : result->label,
                               .score = is_positive ? p : result->label_probability,
                               .probability = p,
                               .threshold = rules->threshold,
                               .band = is_positive               ? "positive"
                                       : p >= rules->review_from ? "review"
                                                                 : "negative",
                               .n_tokens = result->n_tokens,
                               .n_windows = result->n_windows,
                               .is_truncated = result->is_truncated,
                               .mentions = result->mentions,
                               .n_mentions = result->n_mentions};
    return name_drugs(claim, arena, out, err);
}

void outcome_of_end(enum part_end end, const struct store_claim *claim,
                    const char *reason, struct store_outcome *out) {
    *out =
        (struct store_outcome){.claim = claim, .kind = STORE_RELEASE, .reason = reason};
    if (end == PART_RETRY) {
        out->kind = STORE_RETRY;
        out->delay_ns = outcome_delay_ns(claim->tries);
    } else if (end == PART_GIVE_UP) {
        out->kind = STORE_GIVE_UP;
    }
}
