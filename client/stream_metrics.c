/* SPDX-License-Identifier: Apache-2.0 */
#include "client/stream_metrics.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"

static const double BOUNDS[STREAM_METRICS_BUCKETS - 1] = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30};

static int64_t value(const _Atomic int64_t *counter) {
    return atomic_load_explicit((_Atomic int64_t *)counter, memory_order_relaxed);
}

void stream_metrics_commit(struct stream_metrics *m, int64_t spent_ns,
                           const struct store_taken *taken) {
    int i = 0;
    while (i < STREAM_METRICS_BUCKETS - 1 && (double)spent_ns * 1e-9 > BOUNDS[i])
        i++;
    atomic_fetch_add(&m->commits[i], 1);
    atomic_fetch_add(&m->commit_ns, spent_ns);
    atomic_fetch_add(&m->n_batches, 1);
    atomic_fetch_add(&m->n_stored, taken->n_posts);
    atomic_fetch_add(&m->n_newer, taken->n_newer);
    atomic_fetch_add(&m->n_again, taken->n_again);
    atomic_fetch_add(&m->n_refused, taken->n_refused);
}

/* The page as it is written; the first error stays. */
struct page {
    struct buffer *out;
    enum status status;
    struct error *err;
};

static void head(struct page *p, const char *name, const char *type, const char *help) {
    if (p->status == STATUS_OK)
        p->status = buffer_printf(p->out, p->err, "# HELP %s %s\n# TYPE %s %s\n", name,
                                  help, name, type);
}

/* labels: with their braces, or "". */
static void sample(struct page *p, const char *name, const char *labels, int64_t n) {
    if (p->status == STATUS_OK)
        p->status =
            buffer_printf(p->out, p->err, "%s%s %" PRId64 "\n", name, labels, n);
}

static void labelled(struct page *p, const char *name, const char *label,
                     const char *is, int64_t n) {
    char labels[96];
    snprintf(labels, sizeof labels, "{%s=\"%s\"}", label, is);
    sample(p, name, labels, n);
}

static void seconds(struct page *p, const char *name, int64_t ns) {
    if (p->status == STATUS_OK)
        p->status = buffer_printf(p->out, p->err, "%s %.3f\n", name, (double)ns * 1e-9);
}

static void counter(struct page *p, const char *name, const char *help,
                    const _Atomic int64_t *n) {
    head(p, name, "counter", help);
    sample(p, name, "", value(n));
}

static void gauge(struct page *p, const char *name, const char *help, int64_t n) {
    head(p, name, "gauge", help);
    sample(p, name, "", n);
}

static void write_posts(struct page *p, const struct stream_metrics *m) {
    static const struct {
        enum store_fold fold;
        const char *name;
    } folds[] = {{STORE_REPOST, "repost"},
                 {STORE_QUOTE, "quote"},
                 {STORE_DUPLICATE, "duplicate"}};
    counter(p, "vigil_stream_lines_total", "Lines that the source handed over.",
            &m->n_lines);
    counter(p, "vigil_stream_line_bytes_total", "Bytes of these lines.", &m->n_bytes);
    counter(p, "vigil_stream_posts_kept_total", "Lines of which something is kept.",
            &m->n_kept);
    head(p, "vigil_stream_posts_dropped_total", "counter",
         "Lines of which nothing is kept, by why.");
    for (int i = SELECT_KEPT + 1; i < N_SELECT_DROPS; i++)
        labelled(p, "vigil_stream_posts_dropped_total", "reason",
                 select_drop_name((enum select_drop)i), value(&m->n_dropped[i]));
    head(p, "vigil_stream_posts_folded_total", "counter",
         "Posts that count on another one, by why.");
    for (size_t i = 0; i < sizeof folds / sizeof *folds; i++)
        labelled(p, "vigil_stream_posts_folded_total", "kind", folds[i].name,
                 value(&m->n_folded[folds[i].fold]));
    counter(p, "vigil_stream_deletes_total", "Posts that were withdrawn.",
            &m->n_deletes);
    counter(p, "vigil_stream_dead_letters_total", "Lines that could not be read.",
            &m->n_dead);
    counter(p, "vigil_stream_posts_stored_total", "Posts that were new to the store.",
            &m->n_stored);
    counter(p, "vigil_stream_posts_newer_total",
            "Newer versions of posts in the store.", &m->n_newer);
    counter(p, "vigil_stream_posts_again_total", "Posts that the store had already.",
            &m->n_again);
    counter(p, "vigil_stream_posts_refused_total", "Posts whose key was erased before.",
            &m->n_refused);
}

static void write_store(struct page *p, const struct stream_metrics *m) {
    int64_t n = 0;
    char bound[32];
    gauge(p, "vigil_stream_spool_lines", "Raw lines in the store that wait to be read.",
          value(&m->n_spooled));
    gauge(p, "vigil_stream_buffered_lines", "Lines read and not yet stored.",
          value(&m->n_buffered));
    head(p, "vigil_stream_commit_seconds", "histogram",
         "Time of a transaction, from its first write to its end.");
    for (int i = 0; i < STREAM_METRICS_BUCKETS; i++) {
        n += value(&m->commits[i]);
        if (i < STREAM_METRICS_BUCKETS - 1)
            snprintf(bound, sizeof bound, "%g", BOUNDS[i]);
        labelled(p, "vigil_stream_commit_seconds_bucket", "le",
                 i < STREAM_METRICS_BUCKETS - 1 ? bound : "+Inf", n);
    }
    seconds(p, "vigil_stream_commit_seconds_sum", value(&m->commit_ns));
    sample(p, "vigil_stream_commit_seconds_count", "", n);
    counter(p, "vigil_stream_store_errors_total",
            "Transactions that the store did not take; each is tried again.",
            &m->n_store_errors);
    counter(p, "vigil_stream_queue_errors_total",
            "Batches that the queue did not take; each is tried again.",
            &m->n_queue_errors);
    gauge(p, "vigil_stream_store_up",
          "1 unless the store took nothing when last asked.",
          !atomic_load((_Atomic int *)&m->store_is_down));
    gauge(p, "vigil_stream_queue_up",
          "1 unless the queue took nothing when last asked.",
          !atomic_load((_Atomic int *)&m->queue_is_down));
}

static void age(struct page *p, const char *name, const char *help, int64_t then_ns,
                int64_t now_ns) {
    if (then_ns == 0)
        return; /* never: there is no age */
    head(p, name, "gauge", help);
    seconds(p, name, now_ns > then_ns ? now_ns - then_ns : 0);
}

static void write_source(struct page *p, const struct source_state *s) {
    int64_t now = clock_now_ns(), until = value(&s->wait_until_ns);
    int phase = atomic_load((_Atomic int *)&s->phase);
    head(p, "vigil_stream_source_phase", "gauge", "What the source is doing: 1.");
    for (int i = 0; i < N_SOURCE_PHASES; i++)
        labelled(p, "vigil_stream_source_phase", "phase",
                 source_phase_name((enum source_phase)i), i == phase);
    head(p, "vigil_stream_wait_seconds", "gauge",
         "Until the source tries again; 0 when it does not wait.");
    seconds(p, "vigil_stream_wait_seconds", until > now ? until - now : 0);
    age(p, "vigil_stream_last_byte_age_seconds",
        "Since any byte came from the source, keep-alives too.",
        value(&s->last_byte_ns), now);
    age(p, "vigil_stream_last_post_age_seconds", "Since a post came from the source.",
        value(&s->last_post_ns), now);
    counter(p, "vigil_stream_source_bytes_total", "Bytes that the source has received.",
            &s->n_bytes);
    counter(p, "vigil_stream_connects_total", "Connections that the source has made.",
            &s->n_connects);
    counter(p, "vigil_stream_disconnects_total", "Connections that it has lost.",
            &s->n_disconnects);
    counter(p, "vigil_stream_source_errors_total", "What went wrong in the source.",
            &s->n_errors);
}

enum status stream_metrics_write(const struct stream_metrics *m,
                                 const struct source_state *state, const char *kind,
                                 const char *name, struct buffer *out,
                                 struct error *err) {
    struct page p = {.out = out, .err = err};
    head(&p, "vigil_stream_info", "gauge", "Which source this is.");
    if (p.status == STATUS_OK)
        p.status = buffer_printf(
            out, err,
            "vigil_stream_info{kind=\"%s\",source=\"%s\",version=\"" VIGIL_VERSION
            "\"} 1\n",
            kind, name);
    write_posts(&p, m);
    write_store(&p, m);
    if (state)
        write_source(&p, state);
    return p.status;
}
