/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_store.c - the store and the queue, when they are named: whole, of this version, not
 * falling behind, as durable as they look.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "server/doctor.h"
#include "store/queue/queue.h"
#include "store/store.h"

#define DETAIL_BYTES 768
#define LATE_NS (600 * CLOCK_NS_PER_SECOND)
#define LARGE_LOG_BYTES (INT64_C(256) << 20)
/* From this version on SQLite's write-ahead log needs nobody to take turns. */
#define SAFE_SQLITE 3051003

static void say(struct doctor *d, enum finding finding, const char *what,
                const struct error *err, const char *advice) {
    d->report(d, finding, what, err->message, advice);
}

/* The first column of the first row, as text. */
static enum status ask(struct database *db, const char *sql, char *out,
                       size_t cap_bytes, struct error *err) {
    struct statement *st = NULL;
    bool has_row = false;
    out[0] = '\0';
    enum status status = database_prepare(db, sql, &st, err);
    if (status == STATUS_OK)
        status = statement_step(st, &has_row, err);
    if (status == STATUS_OK && has_row) {
        struct view v = statement_get_text(st, 0);
        snprintf(out, cap_bytes, "%.*s", (int)v.n_bytes, v.data ? v.data : "");
    }
    if (st)
        statement_reset(st);
    return status;
}

static void check_sqlite(struct doctor *d, struct database *db) {
    char version[64], detail[DETAIL_BYTES], log[FILE_PATH_BYTES];
    struct error err = {0};
    struct stat info;
    if (ask(db, "SELECT sqlite_version()", version, sizeof version, &err) !=
        STATUS_OK) {
        say(d, FINDING_FAIL, "store", &err, "look at the file, or restore a backup");
        return;
    }
    char *rest = NULL;
    long number = strtol(version, &rest, 10) * 1000000;
    if (*rest == '.')
        number += strtol(rest + 1, &rest, 10) * 1000;
    if (*rest == '.')
        number += strtol(rest + 1, &rest, 10);
    snprintf(detail, sizeof detail, "SQLite %s%s", version,
             number >= SAFE_SQLITE
                 ? ""
                 : ", whose log two writers at once can damage; Vigil's take turns");
    d->report(d, number >= SAFE_SQLITE ? FINDING_OK : FINDING_WARN, "store library",
              detail,
              number >= SAFE_SQLITE
                  ? NULL
                  : "let no other program write to the store (reading is safe)");
    if (ask(db, "SELECT quick_check FROM pragma_quick_check", detail, sizeof detail,
            &err) != STATUS_OK)
        say(d, FINDING_FAIL, "store check", &err, "restore a backup");
    else if (strcmp(detail, "ok") != 0)
        d->report(d, FINDING_FAIL, "store check", detail, "restore a backup");
    else
        d->report(d, FINDING_OK, "store check", "every page is whole", NULL);
    snprintf(log, sizeof log, "%.1900s-wal", database_name(db));
    if (stat(log, &info) == 0 && info.st_size > LARGE_LOG_BYTES) {
        snprintf(detail, sizeof detail, "%.500s has grown to %lld MB", log,
                 (long long)info.st_size >> 20);
        d->report(d, FINDING_WARN, "store log", detail,
                  "a reader has been open for long: end it, and the log shrinks");
    }
}

static void check_work(struct doctor *d, struct store *s) {
    char detail[DETAIL_BYTES];
    struct store_lag lag = {0};
    struct error err = {0};
    if (store_lag(s, &lag, &err) != STATUS_OK) {
        say(d, FINDING_FAIL, "work", &err, NULL);
        return;
    }
    int64_t late_ns = lag.oldest_ns ? clock_wall_ns() - lag.oldest_ns : 0;
    snprintf(detail, sizeof detail,
             "%" PRId64 " posts wait, %" PRId64 " are being classified, %" PRId64
             " raw lines wait; the oldest for %" PRId64 " s",
             lag.n_waiting, lag.n_claimed, lag.n_raw,
             late_ns > 0 ? late_ns / CLOCK_NS_PER_SECOND : 0);
    d->report(d, late_ns > LATE_NS ? FINDING_WARN : FINDING_OK, "work", detail,
              late_ns > LATE_NS ? "start vigil enrich, or more of them" : NULL);
    snprintf(detail, sizeof detail, "%" PRId64, lag.n_dead);
    d->report(d, lag.n_dead ? FINDING_WARN : FINDING_OK, "dead letters", detail,
              lag.n_dead ? "vigil dlq list says why; retry or drop them" : NULL);
}

static void check_audit(struct doctor *d, struct store *s) {
    char detail[DETAIL_BYTES];
    struct error err = {0};
    int64_t n = 0;
    if (store_audit_check(s, &n, &err) != STATUS_OK) {
        say(d, FINDING_FAIL, "audit", &err,
            "somebody changed the record of who did what: find out who");
        return;
    }
    snprintf(detail, sizeof detail, "%" PRId64 " entries, each of which holds", n);
    d->report(d, FINDING_OK, "audit", detail, NULL);
}

void doctor_check_store(struct doctor *d) {
    char version[128];
    struct store *s = NULL;
    struct error err = {0};
    if (!d->store)
        return;
    if (store_open(d->store, DATABASE_READ, &s, &err) != STATUS_OK) {
        say(d, FINDING_FAIL, "store", &err,
            "vigil stream and vigil enrich make one; --store names another");
        return;
    }
    struct database *db = store_database(s);
    d->report(d, FINDING_OK, "store", database_name(db), NULL);
    if (database_kind(db) == DATABASE_SQLITE)
        check_sqlite(d, db);
    else if (ask(db, "SELECT version()", version, sizeof version, &err) == STATUS_OK)
        d->report(d, FINDING_OK, "store library", version, NULL);
    check_work(d, s);
    check_audit(d, s);
    store_close(s);
}

void doctor_check_queue(struct doctor *d) {
    char detail[DETAIL_BYTES];
    struct queue_facts facts = {0};
    struct error err = {0};
    if (!d->queue)
        return;
    if (queue_check(d->queue, &facts, &err) != STATUS_OK) {
        say(d, FINDING_FAIL, "queue", &err, "start nats-server with JetStream (-js)");
        return;
    }
    snprintf(detail, sizeof detail, "nats-server %s, %s, %s", facts.version,
             facts.is_cluster ? "a cluster" : "alone",
             facts.has_jetstream ? "with JetStream" : "without JetStream");
    d->report(d, facts.has_jetstream ? FINDING_OK : FINDING_FAIL, "queue", detail,
              facts.has_jetstream ? NULL : "start it with JetStream (-js)");
    if (facts.warning[0])
        d->report(d, FINDING_WARN, "queue durability", facts.warning,
                  "use 2.10.23 or newer with jetstream { sync_interval: always }");
}
