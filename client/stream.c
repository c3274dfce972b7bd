/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.c - vigil-stream: opens what the pipeline (intake.h) needs, watches it, says at the
 * end what it did.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "client/intake/intake.h"
#include "client/net/listener.h"
#include "client/select/fold.h"
#include "client/select/privacy.h"
#include "client/select/select.h"
#include "client/select/watch_list.h"
#include "client/stream_metrics.h"
#include "client/stream_table.h"
#include "store/queue/queue.h"
#include "store/store.h"

#define TICK_NS (CLOCK_NS_PER_SECOND / 10)
#define RETENTION_NS (3600 * CLOCK_NS_PER_SECOND)
#define NS_PER_DAY (24 * 3600 * CLOCK_NS_PER_SECOND)
#define PUBLISH_NS (5 * CLOCK_NS_PER_SECOND)
#define REMEMBERED_POSTS ((size_t)1 << 18)
#define METRICS_BYTES ((size_t)64 << 10)
#define MAX_NAME 32

struct run {
    struct stream_table options;
    const struct source_kind *kind;
    const char *name, *target;
    enum store_mode mode;
    char key_path[FILE_PATH_BYTES];
    char cursor[SOURCE_CURSOR_BYTES];

    struct watch_list *watch_list;
    struct privacy *privacy;
    struct selection *selection;
    struct fold *fold;
    struct store *store;
    struct queue *queue;
    struct source *source;
    struct intake *intake;
    struct listener *listener;
    struct listener_route routes[2]; /* as long as the listener */
    struct stream_metrics metrics;
    struct progress progress;
    int64_t erased_ns, tidied_ns;
};

/* Written to by the signal handler, read by the source. */
static volatile sig_atomic_t wake_fd = -1, has_signal;

/* The first signal ends the reading, the second has its usual effect, whichever it is. */
static void on_signal(int number) {
    static const struct sigaction usual = {.sa_handler = SIG_DFL};
    int kept = errno;
    (void)number;
    has_signal = 1;
    sigaction(SIGINT, &usual, NULL);
    sigaction(SIGTERM, &usual, NULL);
    if (eventfd_write((int)wake_fd, 1) != 0) {
        /* It is full: somebody was here before. */
    }
    errno = kept;
}

static enum status open_wake_fd(struct error *err) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0 || sigaction(SIGPIPE, &ignore, NULL) != 0)
        return error_set(err, STATUS_IO, "cannot prepare for signals: %s",
                         strerror(errno));
    return STATUS_OK;
}

/* Before this a signal ends the program, wherever it waits: there is nothing to store. */
static enum status catch_signals(struct error *err) {
    struct sigaction stop = {.sa_handler = on_signal};
    if (sigaction(SIGINT, &stop, NULL) != 0 || sigaction(SIGTERM, &stop, NULL) != 0)
        return error_set(err, STATUS_IO, "cannot prepare for signals: %s",
                         strerror(errno));
    return STATUS_OK;
}

/* ---- what the pipeline asks of the store ---- */

static enum status take_in(void *context, const struct store_take_in *what,
                           struct store_taken *taken, struct error *err) {
    return store_take_in(((struct run *)context)->store, what, taken, err);
}

static enum status spooled(void *context, const char *source, int64_t after,
                           struct arena *arena, struct store_raw *out, size_t cap,
                           size_t *n, struct error *err) {
    return store_spooled(((struct run *)context)->store, source, after, arena, out, cap,
                         n, err);
}

/* What was erased is not handed out again. */
static enum status publish(void *context, const struct store_item *items, size_t n,
                           struct error *err) {
    struct run *r = context;
    struct store_item *kept = calloc(n, sizeof *kept);
    bool *is_gone = calloc(n, sizeof *is_gone);
    size_t n_kept = 0;
    enum status status = kept && is_gone ? store_gone(r->store, items, n, is_gone, err)
                                         : error_set(err, STATUS_NO_MEMORY,
                                                     "no memory for %zu posts", n);
    for (size_t i = 0; status == STATUS_OK && i < n; i++)
        if (!is_gone[i])
            kept[n_kept++] = items[i];
    if (status == STATUS_OK && n_kept > 0)
        status = queue_publish(r->queue, kept, n_kept, err);
    free(kept);
    free(is_gone);
    return status;
}

/* A dry run: everything is taken, nothing is kept. */
static enum status take_nothing(void *context, const struct store_take_in *what,
                                struct store_taken *taken, struct error *err) {
    (void)context;
    (void)what;
    (void)taken;
    (void)err;
    return STATUS_OK;
}

static enum status spooled_nothing(void *context, const char *source, int64_t after,
                                   struct arena *arena, struct store_raw *out,
                                   size_t cap, size_t *n, struct error *err) {
    (void)context;
    (void)source;
    (void)after;
    (void)arena;
    (void)out;
    (void)cap;
    (void)err;
    *n = 0;
    return STATUS_OK;
}

/* ---- opening ---- */

static bool is_source_name(const char *name) {
    size_t n = 0;
    for (; name[n]; n++)
        if (!isalnum((unsigned char)name[n]) && !strchr("._-", name[n]))
            return false;
    return n > 0 && n <= MAX_NAME;
}

/* X: "you may not derive, infer or store a user's health"; aggregates without identifiers
 * are allowed. */
static void choose_mode(struct run *r) {
    const char *mode = r->options.mode;
    bool is_x = r->kind == &source_x;
    if (!mode)
        mode = is_x ? "aggregate" : "pseudonymous";
    r->mode = strcmp(mode, "full") == 0        ? STORE_FULL
              : strcmp(mode, "aggregate") == 0 ? STORE_AGGREGATE
                                               : STORE_PSEUDONYMOUS;
    if (!is_x || (r->options.is_quiet && r->mode == STORE_AGGREGATE))
        return;
    if (r->mode == STORE_AGGREGATE)
        fputs("vigil stream: X's developer terms forbid storing health information "
              "about its users: posts are kept until their result is there, then only "
              "counts (--mode aggregate)\n",
              stderr);
    else
        fprintf(stderr,
                "vigil stream: warning: --mode %s keeps posts of X's users, whose "
                "health X's developer terms forbid to store; use --mode aggregate "
                "unless you have X's written permission\n",
                mode);
}

static enum status open_privacy(struct run *r, struct error *err) {
    const struct stream_table *o = &r->options;
    enum status status = STATUS_OK;
    if (o->key_file)
        snprintf(r->key_path, sizeof r->key_path, "%s", o->key_file);
    else
        status = privacy_key_path(o->store, r->key_path, sizeof r->key_path, err);
    if (status != STATUS_OK)
        return status;
    if (!o->is_dry_run || file_exists(r->key_path))
        return privacy_open(r->key_path, true, r->mode, &r->privacy, err);
    /* A key that nothing is kept under. */
    char directory[] = "/tmp/vigil-dry-run-XXXXXX";
    if (!mkdtemp(directory))
        return error_set(err, STATUS_IO, "cannot make a directory in /tmp: %s",
                         strerror(errno));
    snprintf(r->key_path, sizeof r->key_path, "%s/key", directory);
    status = privacy_open(r->key_path, true, r->mode, &r->privacy, err);
    unlink(r->key_path);
    rmdir(directory);
    return status;
}

static enum status open_source(struct run *r, struct error *err);

/* A missing file or token is told before a store and a key are made. Not of a pipe, which
 * closing would end, nor of a port, which somebody may find open. */
static enum status try_source(struct run *r, struct error *err) {
    if (r->kind == &source_stdin || r->kind == &source_push)
        return STATUS_OK;
    enum status status = open_source(r, err);
    if (status == STATUS_OK)
        r->kind->close(r->source);
    r->source = NULL;
    return status;
}

static enum status open_selection(struct run *r, struct error *err) {
    const struct stream_table *o = &r->options;
    bool has_list = !o->watch_list || strcmp(o->watch_list, "none") != 0;
    enum status status = STATUS_OK;
    if (has_list)
        status =
            watch_list_open(o->watch_list, o->matches_substrings, &r->watch_list, err);
    if (status == STATUS_OK)
        status = try_source(r, err);
    if (status == STATUS_OK)
        status = open_privacy(r, err);
    const struct select_options select = {.watch_list = r->watch_list,
                                          .languages = o->languages,
                                          .detects_language = o->detects_language,
                                          .privacy = r->privacy,
                                          .source = r->name};
    if (status == STATUS_OK)
        status = select_open(&select, &r->selection, err);
    const struct fold_options fold = {.n_remembered = REMEMBERED_POSTS};
    if (status == STATUS_OK && o->folds)
        status = fold_open(&fold, &r->fold, err);
    return status;
}

static enum status remember(void *context, struct view key, uint64_t fingerprint,
                            int64_t posted_ns, struct error *err) {
    return fold_remember(((struct run *)context)->fold, key, fingerprint, posted_ns,
                         err);
}

/* Forgets what is too old. A failure is tried again an hour later. */
static void erase_old(struct run *r) {
    struct error err;
    struct store_erased erased;
    struct log_line line;
    if (r->options.retention_days == 0)
        return;
    const struct store_erase what = {
        .source = r->name,
        .older_than_ns = clock_wall_ns() - r->options.retention_days * NS_PER_DAY,
        .actor = "vigil stream",
        .is_quick = true};
    enum status status = store_erase(r->store, &what, &erased, &err);
    log_begin(&line, status == STATUS_OK ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR,
              "retention");
    log_integer(&line, "days", r->options.retention_days);
    if (status == STATUS_OK)
        log_integer(&line, "posts", erased.n_posts);
    else
        log_string(&line, "error", err.message);
    log_end(&line);
}

static void tidy(struct run *r) {
    struct error err;
    struct log_line line;
    int64_t n = 0;
    enum status status =
        store_tidy(r->store, clock_wall_ns() - STORE_EARLY_NS, &n, &err);
    if (status == STATUS_OK && n == 0)
        return;
    log_begin(&line, status == STATUS_OK ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
              "tidied");
    log_integer(&line, "entries", n);
    if (status != STATUS_OK)
        log_string(&line, "error", err.message);
    log_end(&line);
}

/* Whatever of it is due. */
static void forget(struct run *r) {
    int64_t now_ns = clock_now_ns();
    if (!r->store)
        return;
    if (!r->erased_ns || now_ns - r->erased_ns >= RETENTION_NS) {
        r->erased_ns = now_ns;
        erase_old(r);
    }
    if (!r->tidied_ns || now_ns - r->tidied_ns >= NS_PER_DAY) {
        r->tidied_ns = now_ns;
        tidy(r);
    }
}

static enum status open_store(struct run *r, struct error *err) {
    const struct stream_table *o = &r->options;
    if (o->is_dry_run)
        return STATUS_OK;
    enum status status = store_open(o->store, DATABASE_CREATE, &r->store, err);
    const struct queue_options queue = {.url = o->queue, .publish_wait_ns = PUBLISH_NS};
    if (status == STATUS_OK && o->queue)
        status = queue_open(&queue, &r->queue, err);
    if (status != STATUS_OK)
        return status;
    forget(r);
    status = store_cursor(r->store, r->name, r->cursor, sizeof r->cursor, err);
    if (status == STATUS_NOT_FOUND || o->from_start) {
        r->cursor[0] = '\0';
        status = STATUS_OK;
    }
    if (status == STATUS_OK && r->fold)
        status = store_recent(r->store, REMEMBERED_POSTS, remember, r, err);
    return status;
}

static enum status open_source(struct run *r, struct error *err) {
    struct stream_table *o = &r->options;
    o->settings.watch_list = r->watch_list;
    o->settings.languages =
        o->languages && strcmp(o->languages, "any") != 0 ? o->languages : NULL;
    if (o->settings.ca_file && access(o->settings.ca_file, R_OK) != 0)
        return error_set(err, STATUS_IO, "cannot open %s: %s", o->settings.ca_file,
                         strerror(errno));
    uint64_t seed = (uint64_t)o->seed;
    if (seed == 0 && getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint64_t)clock_now_ns();
    const struct source_options source = {.name = r->name,
                                          .target = r->target,
                                          .cursor = r->cursor[0] ? r->cursor : NULL,
                                          .wake_fd = (int)wake_fd,
                                          .seed = seed,
                                          .settings = &o->settings};
    return r->kind->open(&source, &r->source, err);
}

/* ---- /metrics, /health ---- */

static void answer_metrics(void *context, const struct listener_request *request,
                           struct listener_answer *answer) {
    struct run *r = context;
    (void)request;
    answer->content_type = "text/plain; version=0.0.4; charset=utf-8";
    if (stream_metrics_write(&r->metrics, r->kind->state(r->source), r->kind->name,
                             r->name, &answer->body, NULL) != STATUS_OK)
        listener_refuse(answer, FAULT_INTERNAL, "no memory for the metrics");
}

static void answer_health(void *context, const struct listener_request *request,
                          struct listener_answer *answer) {
    struct run *r = context;
    bool has_store = !atomic_load(&r->metrics.store_is_down);
    bool has_queue = !atomic_load(&r->metrics.queue_is_down);
    int phase = atomic_load(&r->kind->state(r->source)->phase);
    (void)request;
    answer->code = has_store && has_queue ? 200 : 503;
    buffer_printf(&answer->body, NULL,
                  "{\"status\":\"%s\",\"source\":\"%s\",\"phase\":\"%s\","
                  "\"store\":\"%s\",\"queue\":\"%s\"}\n",
                  answer->code == 200 ? "ok" : "waiting", r->name,
                  source_phase_name((enum source_phase)phase),
                  has_store ? "up" : "down",
                  !r->queue   ? "none"
                  : has_queue ? "up"
                              : "down");
}

static enum status open_listener(struct run *r, struct error *err) {
    r->routes[0] = (struct listener_route){"GET", "/metrics", true, answer_metrics, r};
    r->routes[1] = (struct listener_route){"GET", "/health", false, answer_health, r};
    const struct listener_options options = {.address = r->options.metrics,
                                             .keys = r->options.metrics_keys,
                                             .max_body_bytes = METRICS_BYTES,
                                             .routes = r->routes,
                                             .n_routes =
                                                 sizeof r->routes / sizeof *r->routes};
    if (!r->options.metrics)
        return STATUS_OK;
    if (listener_open(&options, &r->listener, err) != STATUS_OK)
        return error_prefix(err, "--metrics");
    log_message(LOG_LEVEL_INFO, "metrics", "on port %d", listener_port(r->listener));
    return STATUS_OK;
}

static enum status open_intake(struct run *r, struct error *err) {
    const struct stream_table *o = &r->options;
    const struct intake_options options = {
        .source = {r->kind, r->source},
        .name = r->name,
        .store = {.context = r,
                  .take_in = o->is_dry_run ? take_nothing : take_in,
                  .spooled = o->is_dry_run ? spooled_nothing : spooled,
                  .publish = r->queue ? publish : NULL},
        .selection = r->selection,
        .fold = r->fold,
        .mode = r->mode,
        .metrics = &r->metrics,
        .n_parsers = (int32_t)o->n_parsers};
    return intake_open(&options, &r->intake, err);
}

static void close_all(struct run *r) {
    intake_close(r->intake);
    listener_close(r->listener);
    if (r->source)
        r->kind->close(r->source);
    queue_close(r->queue);
    store_close(r->store);
    fold_close(r->fold);
    select_close(r->selection);
    privacy_close(r->privacy);
    watch_list_close(r->watch_list);
}

/* ---- running ---- */

static void show_progress(struct run *r) {
    const struct source_state *state = r->kind->state(r->source);
    int64_t lines = atomic_load(&r->metrics.n_lines);
    int64_t bytes = atomic_load((_Atomic int64_t *)&state->n_bytes);
    int64_t size = atomic_load((_Atomic int64_t *)&state->n_total_bytes);
    double total = 0;
    if (size > 0 && bytes > 0 && !r->options.settings.follows)
        total = (double)lines * (double)size / (double)bytes;
    progress_update(&r->progress, lines, (int64_t)total);
}

static enum status watch(struct run *r, struct error *err) {
    enum status status = STATUS_TIMEOUT;
    bool has_bar = !r->options.is_quiet;
    if (has_bar)
        progress_begin(&r->progress, "stream", "posts", 0);
    while (status == STATUS_TIMEOUT) {
        status = intake_wait(r->intake, clock_now_ns() + TICK_NS, err);
        if (has_bar)
            show_progress(r);
        if (has_signal)
            intake_stop(r->intake);
        else
            forget(r);
    }
    if (has_bar)
        progress_end(&r->progress);
    return status;
}

static int64_t n_dropped(const struct stream_metrics *m) {
    int64_t n = 0;
    for (int i = SELECT_KEPT + 1; i < N_SELECT_DROPS; i++)
        n += atomic_load((_Atomic int64_t *)&m->n_dropped[i]);
    return n;
}

static int64_t n_folded(const struct stream_metrics *m) {
    int64_t n = 0;
    for (int i = STORE_NO_FOLD + 1; i < STREAM_METRICS_FOLDS; i++)
        n += atomic_load((_Atomic int64_t *)&m->n_folded[i]);
    return n;
}

static void print_summary(struct run *r, double seconds) {
    struct stream_metrics *m = &r->metrics;
    int64_t lines = atomic_load(&m->n_lines);
    const char *separator = "";
    fprintf(stderr, "%" PRId64 " lines, %" PRId64 " kept, %" PRId64 " dropped", lines,
            atomic_load(&m->n_kept), n_dropped(m));
    for (int i = SELECT_KEPT + 1; i < N_SELECT_DROPS; i++) {
        int64_t n = atomic_load(&m->n_dropped[i]);
        if (n == 0)
            continue;
        fprintf(stderr, "%s%s %" PRId64, *separator ? separator : " (",
                select_drop_name((enum select_drop)i), n);
        separator = ", ";
    }
    fprintf(stderr,
            "%s, %" PRId64 " folded, %" PRId64 " dead, %" PRId64 " again, %.1f s, "
            "%.0f/s\n",
            *separator ? ")" : "", n_folded(m), atomic_load(&m->n_dead),
            atomic_load(&m->n_again), seconds, (double)lines / seconds);
}

static void print_json(struct run *r, double seconds) {
    struct stream_metrics *m = &r->metrics;
    printf("{\"source\":\"%s\",\"lines\":%" PRId64 ",\"bytes\":%" PRId64
           ",\"kept\":%" PRId64 ",\"dropped\":{",
           r->name, atomic_load(&m->n_lines), atomic_load(&m->n_bytes),
           atomic_load(&m->n_kept));
    for (int i = SELECT_KEPT + 1; i < N_SELECT_DROPS; i++)
        printf("%s\"%s\":%" PRId64, i > SELECT_KEPT + 1 ? "," : "",
               select_drop_name((enum select_drop)i), atomic_load(&m->n_dropped[i]));
    printf("},\"folded\":%" PRId64 ",\"deletes\":%" PRId64 ",\"dead\":%" PRId64
           ",\"stored\":%" PRId64 ",\"newer\":%" PRId64 ",\"again\":%" PRId64
           ",\"refused\":%" PRId64 ",\"batches\":%" PRId64 ",\"seconds\":%.3f}\n",
           n_folded(m), atomic_load(&m->n_deletes), atomic_load(&m->n_dead),
           atomic_load(&m->n_stored), atomic_load(&m->n_newer),
           atomic_load(&m->n_again), atomic_load(&m->n_refused),
           atomic_load(&m->n_batches), seconds);
}

/* Who sends would be told that the posts are kept; X counts each one, and its rules are set. */
static bool may_be_dry(const struct source_kind *kind) {
    return kind != &source_push && kind != &source_x;
}

static int stream(struct run *r, struct error *err) {
    int64_t start = clock_now_ns();
    choose_mode(r);
    enum status status = open_wake_fd(err);
    if (status == STATUS_OK)
        status = open_selection(r, err);
    if (status == STATUS_OK)
        status = open_store(r, err);
    if (status == STATUS_OK)
        status = catch_signals(err);
    if (status == STATUS_OK)
        status = open_source(r, err);
    if (status == STATUS_OK)
        status = open_listener(r, err);
    if (status == STATUS_OK)
        status = open_intake(r, err);
    if (status == STATUS_OK) {
        status = watch(r, err);
        double seconds = (double)(clock_now_ns() - start + 1) / 1e9;
        if (!r->options.is_quiet)
            print_summary(r, seconds);
        if (r->options.wants_json)
            print_json(r, seconds);
    }
    close_all(r);
    if (status == STATUS_OK && fflush(stdout) != 0)
        status =
            error_set(err, STATUS_IO, "cannot write the summary: %s", strerror(errno));
    if (status != STATUS_OK)
        fprintf(stderr, "vigil stream: %s\n", err->message);
    return status == STATUS_OK ? EXIT_OK : EXIT_FAILED;
}

int main(int argc, char **argv) {
    static struct run run;
    struct error err = {0};
    int n_arguments, code;
    options_parse(&stream_table, argc, argv, &run.options, &n_arguments, &code);
    if (code >= 0)
        return code;
    log_configure(log_level_of(run.options.log_level),
                  log_format_of(run.options.log_format), 2);
    /* Posts and keys are in memory: neither a core file nor a debugger shall have them. */
    (void)prctl(PR_SET_DUMPABLE, 0);
    if (source_find(argv[1], &run.kind, &run.target, &err) != STATUS_OK) {
        fprintf(stderr, "vigil stream: %s\n", err.message);
        return EXIT_USAGE;
    }
    run.name = run.options.name ? run.options.name : run.kind->default_name;
    if (!is_source_name(run.name)) {
        fprintf(stderr,
                "vigil stream: --name \"%.40s\": expected letters, digits, '.', '_', "
                "'-', at most %d\n",
                run.name, MAX_NAME);
        return EXIT_USAGE;
    }
    if (run.options.is_dry_run && !may_be_dry(run.kind)) {
        fprintf(
            stderr,
            "vigil stream: --dry-run: %s: has effects elsewhere; expected a file, a "
            "directory, -, jetstream: or mastodon:\n",
            run.kind->name);
        return EXIT_USAGE;
    }
    return stream(&run, &err);
}
