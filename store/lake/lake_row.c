/* SPDX-License-Identifier: Apache-2.0
 *
 * lake_row.c - a line of a lake file.
 *
 * The first twelve columns are those that the AWS reference pipeline's Lambda writes, by
 * name, order and type of value, so that what was built on its table goes on working:
 * timestamps as it writes them ("2026-11-02 06:04:23", UTC), US states by their whole name,
 * drugs joined by ", ", ae_type "UNDOCUMENTED" where nothing adverse was found.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "store/lake/lake.h"

#define MENTION_HIVE                                                                   \
    "array<struct<type:string,text:string,drug:string,begin_cp:bigint,end_cp:bigint,"  \
    "score:double>>"
#define MENTION_DUCKDB                                                                 \
    "STRUCT(\"type\" VARCHAR, \"text\" VARCHAR, drug VARCHAR, begin_cp BIGINT, "       \
    "end_cp BIGINT, score DOUBLE)[]"
#define MENTION_TRINO                                                                  \
    "array(row(type varchar, text varchar, drug varchar, begin_cp bigint, "            \
    "end_cp bigint, score double))"
#define MENTION_CLICKHOUSE                                                             \
    "Array(Tuple(type String, text String, drug String, begin_cp Int64, end_cp "       \
    "Int64, "                                                                          \
    "score Float64))"

#define TEXT "string", "VARCHAR", "varchar", "String"
#define WHOLE "bigint", "BIGINT", "bigint", "Int64"
#define REAL "double", "DOUBLE", "double", "Float64"

const struct lake_column lake_columns[] = {
    {"id", TEXT, "the source's id of the post, or its keyed hash"},
    {"text", TEXT, "the post, contact data masked unless kept in full"},
    {"pred_label", TEXT, "Adverse_Event or Not_AE"},
    {"pred_prob", REAL, "probability of Adverse_Event"},
    {"user_id", TEXT, "the author, as a keyed hash"},
    {"timestamp", TEXT, "when it was posted, UTC"},
    {"user_city", TEXT, ""},
    {"user_state", TEXT, "of the USA, its whole name"},
    {"user_location", TEXT, "what the author wrote, where no city or state was found"},
    {"drug_mentions", TEXT, "watched drugs, joined by a comma and a space"},
    {"ae_type", TEXT, "the likeliest event, or UNDOCUMENTED"},
    {"icd_codes", "array<string>", "VARCHAR[]", "array(varchar)", "Array(String)",
     "ICD-10-CM"},
    {"key", TEXT, "source:id, unique"},
    {"version", WHOLE, "of the post; the larger is the newer"},
    {"lang", TEXT, "BCP 47"},
    {"country", TEXT, "ISO 3166"},
    {"state", TEXT, "ISO 3166-2"},
    {"url", TEXT, ""},
    {"received_at", TEXT, "when it came in, UTC"},
    {"classified_at", TEXT, "when the result came, UTC"},
    {"model_name", TEXT, ""},
    {"model_sha256", TEXT, "which weights said so"},
    {"dtype", TEXT, "in which precision"},
    {"threshold", REAL, "from which probability on the label is Adverse_Event"},
    {"band", TEXT, "positive, review or negative"},
    {"n_reposts", WHOLE, ""},
    {"n_quotes", WHOLE, ""},
    {"n_duplicates", WHOLE, "posts with nearly the same text"},
    {"mentions", MENTION_HIVE, MENTION_DUCKDB, MENTION_TRINO, MENTION_CLICKHOUSE,
     "drugs and events in the text, in code points"},
};
const size_t lake_n_columns = sizeof lake_columns / sizeof *lake_columns;

static const struct {
    char code[3];
    const char *name;
} states[] = {
    {"AL", "Alabama"},        {"AK", "Alaska"},        {"AZ", "Arizona"},
    {"AR", "Arkansas"},       {"CA", "California"},    {"CO", "Colorado"},
    {"CT", "Connecticut"},    {"DE", "Delaware"},      {"DC", "District of Columbia"},
    {"FL", "Florida"},        {"GA", "Georgia"},       {"HI", "Hawaii"},
    {"ID", "Idaho"},          {"IL", "Illinois"},      {"IN", "Indiana"},
    {"IA", "Iowa"},           {"KS", "Kansas"},        {"KY", "Kentucky"},
    {"LA", "Louisiana"},      {"ME", "Maine"},         {"MD", "Maryland"},
    {"MA", "Massachusetts"},  {"MI", "Michigan"},      {"MN", "Minnesota"},
    {"MS", "Mississippi"},    {"MO", "Missouri"},      {"MT", "Montana"},
    {"NE", "Nebraska"},       {"NV", "Nevada"},        {"NH", "New Hampshire"},
    {"NJ", "New Jersey"},     {"NM", "New Mexico"},    {"NY", "New York"},
    {"NC", "North Carolina"}, {"ND", "North Dakota"},  {"OH", "Ohio"},
    {"OK", "Oklahoma"},       {"OR", "Oregon"},        {"PA", "Pennsylvania"},
    {"PR", "Puerto Rico"},    {"RI", "Rhode Island"},  {"SC", "South Carolina"},
    {"SD", "South Dakota"},   {"TN", "Tennessee"},     {"TX", "Texas"},
    {"UT", "Utah"},           {"VT", "Vermont"},       {"VA", "Virginia"},
    {"WA", "Washington"},     {"WV", "West Virginia"}, {"WI", "Wisconsin"},
    {"WY", "Wyoming"},
};

/* "US-TX" -> "Texas"; empty for what is no state of the USA. */
static struct view state_name(struct view state) {
    if (state.n_bytes != 5 || !view_starts_with(state, VIEW("US-")))
        return VIEW("");
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (memcmp(states[i].code, state.data + 3, 2) == 0)
            return view_of_string(states[i].name);
    return VIEW("");
}

/* One object under way: the first error stays. */
struct writer {
    struct buffer *out;
    struct error *err;
    enum status status;
    bool has_field;
};

static void put(struct writer *w, const char *text) {
    if (w->status == STATUS_OK)
        w->status = buffer_append(w->out, text, strlen(text), w->err);
}

static void put_string(struct writer *w, struct view value) {
    if (w->status == STATUS_OK)
        w->status = json_append_string(w->out, value.data ? value.data : "",
                                       value.n_bytes, w->err);
}

static void name_of(struct writer *w, const char *name) {
    put(w, w->has_field ? ",\"" : "{\"");
    put(w, name);
    put(w, "\":");
    w->has_field = true;
}

static void text_field(struct writer *w, const char *name, struct view value) {
    name_of(w, name);
    put_string(w, value);
}

static void whole_field(struct writer *w, const char *name, int64_t value) {
    name_of(w, name);
    if (w->status == STATUS_OK)
        w->status = buffer_printf(w->out, w->err, "%" PRId64, value);
}

static void real_field(struct writer *w, const char *name, double value) {
    name_of(w, name);
    if (w->status == STATUS_OK)
        w->status = json_append_float(w->out, (float)value, w->err);
}

/* "2026-11-02 06:04:23", with milliseconds where there are any; empty when unknown. */
static void time_field(struct writer *w, const char *name, int64_t wall_ns) {
    char text[CLOCK_UTC_BYTES];
    struct view v = VIEW("");
    if (wall_ns > 0) {
        clock_format_utc(wall_ns, text);
        text[10] = ' ';
        text[strlen(text) - 1] = '\0';
        char *point = strchr(text, '.');
        if (point && strcmp(point, ".000") == 0)
            *point = '\0';
        v = view_of_string(text);
    }
    text_field(w, name, v);
}

/* The drugs of a post, from its JSON: each once, in their order. */
static void drugs_field(struct writer *w, struct view drugs) {
    static const struct json_limits limits = {
        .max_bytes = 1 << 20, .max_depth = 4, .max_values = 20000, .max_key_bytes = 64};
    json_t *list = NULL;
    char joined[1024] = "";
    size_t n = 0;
    if (drugs.n_bytes)
        (void)json_parse(drugs.data, drugs.n_bytes, &limits, &list, NULL);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *drug =
            json_string_value(json_object_get(json_array_get(list, i), "drug"));
        bool is_new = drug != NULL;
        for (size_t k = 0; is_new && k < i; k++) {
            const char *before =
                json_string_value(json_object_get(json_array_get(list, k), "drug"));
            is_new = !before || strcmp(before, drug) != 0;
        }
        if (!is_new || n + strlen(drug) + 3 > sizeof joined)
            continue;
        int added =
            snprintf(joined + n, sizeof joined - n, "%s%s", n ? ", " : "", drug);
        n += added > 0 ? (size_t)added : 0;
    }
    json_decref(list);
    text_field(w, "drug_mentions", view_of(joined, n));
}

/* The event with the highest score, as the AWS reference pipeline picks it. */
static struct view likeliest_event(const struct lake_row *row) {
    const struct lake_mention *best = NULL;
    for (size_t i = 0; i < row->n_mentions; i++)
        if (view_equal(row->mentions[i].type, VIEW("ADE")) &&
            (!best || row->mentions[i].score > best->score))
            best = &row->mentions[i];
    if (!view_equal(row->label, VIEW("Adverse_Event")))
        return VIEW("UNDOCUMENTED");
    return best ? best->text : VIEW("");
}

static void mentions_field(struct writer *w, const struct lake_row *row) {
    name_of(w, "mentions");
    put(w, "[");
    for (size_t i = 0; i < row->n_mentions; i++) {
        const struct lake_mention *m = &row->mentions[i];
        struct writer inner = {w->out, w->err, w->status, false};
        put(&inner, i ? "," : "");
        text_field(&inner, "type", m->type);
        text_field(&inner, "text", m->text);
        text_field(&inner, "drug", m->drug);
        whole_field(&inner, "begin_cp", m->begin);
        whole_field(&inner, "end_cp", m->end);
        real_field(&inner, "score", m->score);
        put(&inner, "}");
        w->status = inner.status;
    }
    put(w, "]");
}

enum status lake_row_write(const struct lake_row *row, struct buffer *out,
                           struct error *err) {
    struct writer w = {out, err, STATUS_OK, false};
    struct view id = row->key;
    if (view_starts_with(id, row->source) && id.n_bytes > row->source.n_bytes)
        id = view_of(id.data + row->source.n_bytes + 1,
                     id.n_bytes - row->source.n_bytes - 1);
    bool is_placed = row->city.n_bytes || row->state.n_bytes;
    text_field(&w, "id", id);
    text_field(&w, "text", row->text);
    text_field(&w, "pred_label", row->label);
    real_field(&w, "pred_prob", row->probability);
    text_field(&w, "user_id", row->author);
    time_field(&w, "timestamp", row->posted_ns ? row->posted_ns : row->received_ns);
    text_field(&w, "user_city", row->city);
    text_field(&w, "user_state", state_name(row->state));
    text_field(&w, "user_location", is_placed ? VIEW("") : row->place);
    drugs_field(&w, row->drugs);
    text_field(&w, "ae_type", likeliest_event(row));
    name_of(&w, "icd_codes");
    put(&w, "[]");
    text_field(&w, "key", row->key);
    whole_field(&w, "version", row->version);
    text_field(&w, "lang", row->lang);
    text_field(&w, "country", row->country);
    text_field(&w, "state", row->state);
    text_field(&w, "url", row->url);
    time_field(&w, "received_at", row->received_ns);
    time_field(&w, "classified_at", row->created_ns);
    text_field(&w, "model_name", row->model_name);
    text_field(&w, "model_sha256", row->model_sha256);
    text_field(&w, "dtype", row->dtype);
    real_field(&w, "threshold", row->threshold);
    text_field(&w, "band", row->band);
    whole_field(&w, "n_reposts", row->n_reposts);
    whole_field(&w, "n_quotes", row->n_quotes);
    whole_field(&w, "n_duplicates", row->n_duplicates);
    mentions_field(&w, row);
    put(&w, "}\n");
    return w.status;
}
