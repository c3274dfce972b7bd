/* SPDX-License-Identifier: Apache-2.0
 *
 * postgres.c - database.h over PostgreSQL. The one file that includes libpq-fe.h.
 *
 * Design:  each statement is prepared once a connection, with the types of its parameters,
 *          which go in binary; answers come as text, a row at a time, so that the memory of
 *          a long one is that of a row. When another statement runs in between, the rows that
 *          are left are kept until they are asked for. What statement_send gives goes into a
 *          pipeline that is waited for by the next call that needs an answer, or after
 *          MAX_PENDING.
 * Durable: synchronous_commit is turned on where it is off. COMMIT counts when the server
 *          answers "COMMIT": it says "ROLLBACK" when the transaction had failed.
 * Lost connections: an error until the transaction is rolled back; the next begin, or the
 *          next statement outside a transaction, connects anew and prepares anew.
 * Secrets: messages of libpq pass through one place, where the password is taken out. Of
 *          errors about data (class 22) only the code is told: their text quotes the data.
 *          A stranger's statement is told more, but not what its values were: preparing it
 *          looks at no row, and of what running it says the quotes are left out.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "store/database/driver.h"

#define MAX_PARAMETERS 64
#define MAX_PENDING 1000
#define MAX_OPTIONS 64
#define LONGEST_STATEMENT_MS 600000
#define MAX_STATEMENT_BYTES ((size_t)1 << 30) /* of decoded bytes of a row */

/* Of pg_type.dat: fixed for ever. */
enum type_id {
    TYPE_ANY = 0,
    TYPE_BOOL = 16,
    TYPE_BYTEA = 17,
    TYPE_INT8 = 20,
    TYPE_INT2 = 21,
    TYPE_INT4 = 23,
    TYPE_TEXT = 25,
    TYPE_OID = 26,
    TYPE_FLOAT4 = 700,
    TYPE_FLOAT8 = 701,
    TYPE_NUMERIC = 1700
};

struct parameter {
    Oid type;          /* TYPE_ANY: NULL */
    struct view value; /* of numbers: in number */
    char number[8];    /* big-endian */
};

struct postgres_statement;

struct postgres {
    struct database base;
    PGconn *connection;
    PQconninfoOption *options;            /* of the URL */
    int64_t generation;                   /* of the connection */
    int64_t n_prepared;                   /* names of prepared statements */
    int n_pending;                        /* statements in the pipeline */
    struct postgres_statement *streaming; /* whose rows are on the wire */
    int64_t timeout_ns;
};

struct postgres_statement {
    struct statement base;
    char *sql;
    int n_parameters;
    struct parameter parameters[MAX_PARAMETERS];
    Oid types[MAX_PARAMETERS]; /* as prepared */
    int64_t generation;        /* of the connection that it is prepared on; 0: none */
    char name[24];
    PGresult *description; /* names of the columns */
    bool is_running;
    PGresult *row;   /* the row that step gave, or NULL */
    PGresult **kept; /* rows that were read for another statement's sake */
    size_t n_kept, at_kept, cap_kept;
    bool was_refused; /* no memory to keep them */
    int64_t n_changed;
    struct buffer decoded; /* bytes of the row's columns, one after the other */
    struct {
        int column;
        size_t at, n_bytes;
    } pieces[8];
    size_t n_pieces;
};

static const struct driver driver;

static struct postgres *of(struct database *db) {
    return (struct postgres *)db;
}

static struct postgres_statement *stmt(struct statement *st) {
    return (struct postgres_statement *)st;
}

static const char *option_of(const PQconninfoOption *options, const char *keyword) {
    for (const PQconninfoOption *o = options; o && o->keyword; o++) {
        if (strcmp(o->keyword, keyword) == 0 && o->val && o->val[0])
            return o->val;
    }
    return NULL;
}

/* ---- Errors ---- */

static bool is_lost(const struct postgres *p) {
    return !p->connection || PQstatus(p->connection) != CONNECTION_OK;
}

/* libpq's message as one line, without the password. */
static void clean(const struct postgres *p, const char *message, char *out,
                  size_t cap_bytes) {
    const char *secret = option_of(p->options, "password");
    size_t n_secret = secret ? strlen(secret) : 0, n = 0;
    while (*message && n + 4 < cap_bytes) {
        if (n_secret && strncmp(message, secret, n_secret) == 0) {
            memcpy(out + n, "***", 3);
            n += 3;
            message += n_secret;
            continue;
        }
        out[n++] = iscntrl((unsigned char)*message) ? ' ' : *message;
        message++;
    }
    while (n > 0 && out[n - 1] == ' ')
        n--;
    out[n] = 0;
}

static enum status lost(const struct postgres *p, struct error *err) {
    char says[200];
    clean(p, p->connection ? PQerrorMessage(p->connection) : "", says, sizeof says);
    return error_set(err, STATUS_IO, "%s: lost the connection: %s", p->base.name, says);
}

static const struct {
    const char *code; /* SQLSTATE, or its start; the longest first */
    enum status status;
    const char *says; /* NULL: what the server says */
} states[] = {
    {"57014", STATUS_TIMEOUT, "the statement took too long"},
    {"55P03", STATUS_BUSY, "another program has the rows locked"},
    {"53100", STATUS_IO, "no space left on the server"},
    {"53200", STATUS_NO_MEMORY, "the server has no memory left"},
    {"42501", STATUS_UNSUPPORTED, NULL},
    {"25006", STATUS_UNSUPPORTED, "only reading is possible here"},
    {"3D000", STATUS_NOT_FOUND, NULL},
    {"08", STATUS_IO, "lost the connection"},
    {"57", STATUS_IO, "the server is stopping"},
    {"58", STATUS_IO, NULL},
    {"40", STATUS_BUSY, NULL},
    {"53", STATUS_BUSY, NULL},
    {"22", STATUS_INVALID, "a value that its column or function cannot take"},
    {"", STATUS_INVALID, NULL},
};

/* A result that is an error; of a connection that is gone as well. */
static enum status fail_at(const struct postgres *p, const PGresult *result,
                           bool is_running, struct error *err) {
    const char *code = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    if (!code)
        return is_lost(p)
                   ? lost(p, err)
                   : error_set(err, STATUS_NO_MEMORY,
                               "%s: libpq gave no answer: no memory", p->base.name);
    if (strcmp(code, "25006") == 0 && p->base.mode != DATABASE_READ)
        return error_set(err, STATUS_INTERNAL,
                         "%s: a statement that writes, outside a transaction",
                         p->base.name);
    size_t i = 0;
    while (strncmp(code, states[i].code, strlen(states[i].code)) != 0)
        i++;
    char says[200];
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    clean(p, message ? message : "", says, sizeof says);
    bool is_told = !states[i].says ||
                   (p->base.mode == DATABASE_READ && strncmp(code, "22", 2) == 0);
    if (is_running && p->base.mode == DATABASE_READ) {
        size_t n = strcspn(says, "\":'");
        if (says[n])
            snprintf(says + n, sizeof says - n, "…");
    }
    return error_set(err, states[i].status, "%s: %s (%s)", p->base.name,
                     is_told ? says : states[i].says, code);
}

static enum status fail(const struct postgres *p, const PGresult *result,
                        struct error *err) {
    return fail_at(p, result, false, err);
}

static bool is_error(const PGresult *result) {
    switch (PQresultStatus(result)) {
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
    case PGRES_SINGLE_TUPLE:
    case PGRES_EMPTY_QUERY:
        return false;
    default:
        return true;
    }
}

/* ---- Connecting ---- */

static void ignore_notice(void *context, const PGresult *result) {
    (void)context;
    (void)result;
}

static enum status set_timeout(struct postgres *p, struct error *err) {
    char text[64];
    int64_t ms = p->timeout_ns ? p->timeout_ns / 1000000 + 1 : LONGEST_STATEMENT_MS;
    snprintf(text, sizeof text, "SET statement_timeout = %" PRId64, ms);
    PGresult *r = PQexec(p->connection, text);
    enum status status = is_error(r) ? fail(p, r, err) : STATUS_OK;
    PQclear(r);
    return status;
}

static enum status set_up(struct postgres *p, struct error *err) {
    static const char always[] =
        "SET bytea_output = hex; SET standard_conforming_strings = on;"
        "SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = '10min';"
        "SET extra_float_digits = 1; SET datestyle = 'ISO'; SET timezone = 'UTC';"
        /* What writes begins a transaction that says so. */
        "SET default_transaction_read_only = on;"
        "SELECT current_setting('server_encoding'), current_setting('fsync'),"
        " set_config('synchronous_commit',"
        "  CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
        "   ELSE current_setting('synchronous_commit') END, false)";
    PQsetErrorVerbosity(p->connection, PQERRORS_TERSE);
    PQsetNoticeReceiver(p->connection, ignore_notice, NULL);
    PGresult *r = PQexec(p->connection, always);
    enum status status = STATUS_OK;
    if (PQresultStatus(r) != PGRES_TUPLES_OK)
        status = fail(p, r, err);
    else if (strcmp(PQgetvalue(r, 0, 0), "UTF8") != 0)
        status =
            error_set(err, STATUS_UNSUPPORTED, "%s has the encoding %s, expected UTF8",
                      p->base.name, PQgetvalue(r, 0, 0));
    else if (strcmp(PQgetvalue(r, 0, 1), "on") != 0 && p->generation == 1 &&
             p->base.mode == DATABASE_CREATE)
        log_message(LOG_LEVEL_WARNING, "store_unsafe",
                    "%s runs with fsync = off: what is stored is lost with the power",
                    p->base.name);
    PQclear(r);
    return status ? status : set_timeout(p, err);
}

/* What the URL does not say. */
static const struct {
    const char *keyword, *value;
} usual[] = {
    {"connect_timeout", "10"},     {"application_name", "vigil"},
    {"keepalives", "1"},           {"keepalives_idle", "30"},
    {"keepalives_interval", "10"}, {"keepalives_count", "3"},
    {"tcp_user_timeout", "60000"}, {"target_session_attrs", "read-write"},
};

static enum status connect_first(struct postgres *p, struct error *err) {
    const char *keywords[MAX_OPTIONS + 1], *values[MAX_OPTIONS + 1];
    size_t n = 0;
    for (const PQconninfoOption *o = p->options; o->keyword; o++) {
        if (o->val && o->val[0] && strcmp(o->keyword, "client_encoding") != 0 &&
            n < MAX_OPTIONS - 1 - sizeof usual / sizeof *usual) {
            keywords[n] = o->keyword;
            values[n++] = o->val;
        }
    }
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        bool is_reader = p->base.mode == DATABASE_READ;
        const char *given = option_of(p->options, usual[i].keyword);
        /* libpq's own default shows as given. */
        if (i + 1 == sizeof usual / sizeof *usual)
            given = is_reader || (given && strcmp(given, "any") != 0) ? given : NULL;
        if (given || (is_reader && i + 1 == sizeof usual / sizeof *usual))
            continue;
        keywords[n] = usual[i].keyword;
        values[n++] = usual[i].value;
    }
    keywords[n] = "client_encoding";
    values[n++] = "UTF8";
    keywords[n] = values[n] = NULL;
    p->connection = PQconnectdbParams(keywords, values, 0);
    if (!p->connection)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a connection");
    return STATUS_OK;
}

static enum status connect_now(struct postgres *p, struct error *err) {
    enum status status = STATUS_OK;
    p->n_pending = 0;
    p->streaming = NULL;
    if (p->connection)
        PQreset(p->connection);
    else
        status = connect_first(p, err);
    if (status)
        return status;
    p->generation++;
    if (PQstatus(p->connection) != CONNECTION_OK) {
        char says[220];
        clean(p, PQerrorMessage(p->connection), says, sizeof says);
        return error_set(err, STATUS_IO, "cannot connect to %s: %s", p->base.name,
                         says);
    }
    return set_up(p, err);
}

/* ---- What is on the wire ---- */

static void drop_rows(struct postgres_statement *st) {
    while (st->at_kept < st->n_kept)
        PQclear(st->kept[st->at_kept++]);
    st->n_kept = st->at_kept = 0;
    PQclear(st->row);
    st->row = NULL;
}

static bool keep(struct postgres_statement *st, PGresult *result) {
    if (st->n_kept == st->cap_kept) {
        size_t cap = st->cap_kept ? st->cap_kept * 2 : 64, n_bytes;
        if (!size_multiply(cap, sizeof(PGresult *), &n_bytes))
            return false;
        PGresult **more = realloc(st->kept, n_bytes);
        if (!more)
            return false;
        st->kept = more;
        st->cap_kept = cap;
    }
    st->kept[st->n_kept++] = result;
    return true;
}

/* Takes the rows that another statement has not asked for yet off the wire. */
static void make_room(struct postgres *p) {
    struct postgres_statement *st = p->streaming;
    if (!st)
        return;
    for (PGresult *r; (r = PQgetResult(p->connection));) {
        if (!keep(st, r)) {
            st->was_refused = true;
            PQclear(r);
        }
    }
    p->streaming = NULL;
}

/* Waits for all of the pipeline; the first error of it. */
static enum status flush(struct postgres *p, struct error *err) {
    if (p->n_pending == 0)
        return STATUS_OK;
    p->n_pending = 0;
    enum status status = STATUS_OK;
    if (!PQpipelineSync(p->connection))
        return lost(p, err);
    for (bool is_done = false; !is_done;) {
        PGresult *r = PQgetResult(p->connection);
        if (!r) { /* the end of one statement's */
            if (is_lost(p))
                return status ? status : lost(p, err);
            continue;
        }
        is_done = PQresultStatus(r) == PGRES_PIPELINE_SYNC;
        if (!is_done && !status && is_error(r))
            status = fail(p, r, err);
        PQclear(r);
    }
    if (!PQexitPipelineMode(p->connection) && !status)
        status = lost(p, err);
    return status;
}

/* A command without parameters and rows; *tag, if any, gets its command tag. */
static enum status command(struct postgres *p, const char *sql, char *tag,
                           size_t cap_tag, struct error *err) {
    make_room(p);
    enum status status = flush(p, err);
    if (status)
        return status;
    PGresult *r = PQexec(p->connection, sql);
    if (is_error(r))
        status = fail(p, r, err);
    else if (tag)
        snprintf(tag, cap_tag, "%s", PQcmdStatus(r));
    PQclear(r);
    return status;
}

/* ---- Transactions ---- */

static enum status begin(struct database *db, struct error *err) {
    struct postgres *p = of(db);
    const char *sql = db->mode == DATABASE_READ
                          ? "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
                          : "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    enum status status = is_lost(p) ? STATUS_IO : command(p, sql, NULL, 0, err);
    if (!status || !is_lost(p))
        return status;
    status = connect_now(p, err);
    return status ? status : command(p, sql, NULL, 0, err);
}

static enum status commit(struct database *db, struct error *err) {
    char tag[16] = "";
    enum status status = command(of(db), "COMMIT", tag, sizeof tag, err);
    if (!status && strcmp(tag, "COMMIT") != 0)
        status = error_set(err, STATUS_INTERNAL,
                           "%s: a transaction that had failed was to be committed",
                           db->name);
    return status;
}

static void rollback(struct database *db) {
    struct postgres *p = of(db);
    make_room(p);
    flush(p, NULL);
    if (!is_lost(p) && PQtransactionStatus(p->connection) != PQTRANS_IDLE)
        PQclear(PQexec(p->connection, "ROLLBACK"));
}

static enum status run(struct database *db, const char *sql, struct error *err) {
    return command(of(db), sql, NULL, 0, err);
}

static enum status checkpoint(struct database *db, bool rewrites, struct error *err) {
    (void)db;
    (void)rewrites;
    (void)err;
    return STATUS_OK;
}

static enum status limit(struct database *db, int64_t timeout_ns, int64_t max_bytes,
                         struct error *err) {
    struct postgres *p = of(db);
    (void)max_bytes;
    p->timeout_ns = timeout_ns;
    make_room(p);
    enum status status = is_lost(p) ? connect_now(p, err) : flush(p, err);
    return status ? status : set_timeout(p, err);
}

/* ---- Statements ---- */

/* The largest n of $n outside of strings and names. */
static int count_parameters(const char *sql) {
    int most = 0;
    for (char quote = 0; *sql; sql++) {
        if (quote) {
            quote = *sql == quote ? 0 : quote;
        } else if (*sql == '\'' || *sql == '"') {
            quote = *sql;
        } else if (*sql == '$') {
            int n = 0;
            while (isdigit((unsigned char)sql[1]) && n <= MAX_PARAMETERS)
                n = n * 10 + (*++sql - '0');
            most = n > most ? n : most;
        }
    }
    return most;
}

/* A stranger's statement begins with a word that reads. */
static bool only_reads(const char *sql) {
    static const char *const first[] = {"SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN"};
    for (;;) {
        while (isspace((unsigned char)*sql) || *sql == '(')
            sql++;
        const char *end = NULL;
        if (strncmp(sql, "--", 2) == 0)
            sql += strcspn(sql, "\n");
        else if (strncmp(sql, "/*", 2) == 0 && (end = strstr(sql + 2, "*/")))
            sql = end + 2;
        else
            break;
    }
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        size_t n = strlen(first[i]);
        if (strncasecmp(sql, first[i], n) == 0 && !isalnum((unsigned char)sql[n]) &&
            sql[n] != '_')
            return true;
    }
    return false;
}

/* On this connection, for the types that are bound now. */
static enum status make_ready(struct postgres *p, struct postgres_statement *st,
                              struct error *err) {
    bool is_ready = st->generation == p->generation;
    for (int i = 0; i < st->n_parameters; i++) {
        Oid type = st->parameters[i].type;
        if (type != TYPE_ANY && st->types[i] != type) {
            st->types[i] = type;
            is_ready = false;
        }
    }
    if (is_ready)
        return STATUS_OK;
    enum status status = flush(p, err);
    if (status)
        return status;
    char old[sizeof st->name + 16] = "";
    if (st->generation == p->generation)
        snprintf(old, sizeof old, "DEALLOCATE %s", st->name);
    snprintf(st->name, sizeof st->name, "v%" PRId64, ++p->n_prepared);
    st->generation = 0;
    PGresult *r =
        PQprepare(p->connection, st->name, st->sql, st->n_parameters, st->types);
    if (is_error(r))
        status = fail(p, r, err);
    PQclear(r);
    if (status)
        return status;
    st->generation = p->generation;
    return old[0] ? command(p, old, NULL, 0, err) : STATUS_OK;
}

static void describe(struct postgres *p, struct postgres_statement *st) {
    make_room(p);
    if (st->description || make_ready(p, st, NULL) || flush(p, NULL))
        return;
    st->description = PQdescribePrepared(p->connection, st->name);
    if (is_error(st->description)) {
        PQclear(st->description);
        st->description = NULL;
    }
}

static void forget(struct statement *base) {
    struct postgres_statement *st = stmt(base);
    drop_rows(st);
    PQclear(st->description);
    free(st->kept);
    free(st->sql);
    buffer_free(&st->decoded);
    free(st);
}

static enum status prepare(struct database *db, const char *sql, struct statement **out,
                           struct error *err) {
    struct postgres *p = of(db);
    int n = count_parameters(sql);
    if (n > MAX_PARAMETERS)
        return error_set(err, STATUS_LIMIT,
                         "%s: a statement has more than %d parameters", db->name,
                         MAX_PARAMETERS);
    if (db->mode == DATABASE_READ && !only_reads(sql))
        return error_set(err, STATUS_UNSUPPORTED, "%s: only reading is possible here",
                         db->name);
    struct postgres_statement *st = calloc(1, sizeof *st);
    if (!st || !(st->sql = strdup(sql))) {
        free(st);
        return error_set(err, STATUS_NO_MEMORY, "no memory for a statement");
    }
    st->n_parameters = n;
    st->decoded.max_bytes = MAX_STATEMENT_BYTES;
    enum status status = STATUS_OK;
    /* Its mistakes show at once, where the types of parameters are not waited for. */
    for (int tries = 0; n == 0 && !db->is_begun && tries < 2; tries++) {
        make_room(p);
        status = is_lost(p) ? connect_now(p, err) : STATUS_OK;
        bool was_there = !status;
        if (!status)
            status = make_ready(p, st, err);
        if (!status || !was_there || !is_lost(p))
            break;
    }
    if (status)
        forget(&st->base);
    else
        *out = &st->base;
    return status;
}

static struct parameter *parameter(struct statement *st, int n, Oid type) {
    if (n < 1 || n > stmt(st)->n_parameters)
        return NULL;
    struct parameter *p = &stmt(st)->parameters[n - 1];
    p->type = type;
    return p;
}

static void put_number(struct parameter *p, uint64_t value) {
    for (size_t i = 0; i < 8; i++)
        p->number[i] = (char)(unsigned char)(value >> (56 - 8 * i));
    p->value = view_of(p->number, 8);
}

static bool bind_integer(struct statement *st, int n, int64_t value) {
    struct parameter *p = parameter(st, n, TYPE_INT8);
    if (p)
        put_number(p, (uint64_t)value);
    return p != NULL;
}

static bool bind_real(struct statement *st, int n, double value) {
    struct parameter *p = isfinite(value) ? parameter(st, n, TYPE_FLOAT8) : NULL;
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (p)
        put_number(p, bits);
    return p != NULL;
}

static bool bind_view(struct statement *st, int n, Oid type, struct view value) {
    struct parameter *p = value.n_bytes <= INT32_MAX ? parameter(st, n, type) : NULL;
    if (p)
        p->value = value.n_bytes ? value : VIEW("");
    return p != NULL;
}

static bool bind_text(struct statement *st, int n, struct view value) {
    return bind_view(st, n, TYPE_TEXT, value);
}

static bool bind_bytes(struct statement *st, int n, struct view value) {
    return bind_view(st, n, TYPE_BYTEA, value);
}

static bool bind_null(struct statement *st, int n) {
    return parameter(st, n, TYPE_ANY) != NULL;
}

static bool dispatch(struct postgres *p, const struct postgres_statement *st) {
    const char *values[MAX_PARAMETERS];
    int lengths[MAX_PARAMETERS], formats[MAX_PARAMETERS];
    for (int i = 0; i < st->n_parameters; i++) {
        const struct parameter *from = &st->parameters[i];
        values[i] = from->type == TYPE_ANY ? NULL : from->value.data;
        lengths[i] = (int)from->value.n_bytes;
        formats[i] = 1;
    }
    return PQsendQueryPrepared(p->connection, st->name, st->n_parameters, values,
                               lengths, formats, 0);
}

/* Sends it, its rows to come one by one. */
static enum status start(struct postgres *p, struct postgres_statement *st,
                         struct error *err) {
    bool may_connect = !p->base.is_begun;
    for (;;) {
        make_room(p);
        enum status status = STATUS_OK;
        if (is_lost(p))
            status = may_connect ? connect_now(p, err) : lost(p, err);
        bool is_new = is_lost(p);
        if (!status)
            status = flush(p, err);
        if (!status)
            status = make_ready(p, st, err);
        if (!status && !dispatch(p, st))
            status = lost(p, err);
        if (!status) {
            PQsetSingleRowMode(p->connection);
            p->streaming = st;
            st->is_running = true;
            return STATUS_OK;
        }
        if (!may_connect || !is_lost(p) || is_new)
            return status;
        may_connect = false; /* once */
        status = connect_now(p, err);
        if (status)
            return status;
    }
}

static PGresult *next_result(struct postgres *p, struct postgres_statement *st) {
    if (st->at_kept < st->n_kept)
        return st->kept[st->at_kept++];
    return p->streaming == st ? PQgetResult(p->connection) : NULL;
}

/* For all bytes of the row at once, so that views of some stay when others come; and when the
 * row comes, since getting a column cannot fail. */
static bool make_space(struct postgres_statement *st) {
    static const char zeros[4096];
    size_t whole = 0;
    for (int i = 0; i < PQnfields(st->row); i++)
        if (PQftype(st->row, i) == TYPE_BYTEA)
            whole += (size_t)PQgetlength(st->row, 0, i) / 2;
    while (st->decoded.cap_bytes < whole) {
        if (buffer_append(&st->decoded, zeros, sizeof zeros, NULL))
            return false;
    }
    buffer_clear(&st->decoded);
    return true;
}

static enum status step(struct statement *base, bool *has_row, struct error *err) {
    struct postgres_statement *st = stmt(base);
    struct postgres *p = of(base->db);
    PQclear(st->row);
    st->row = NULL;
    buffer_clear(&st->decoded);
    st->n_pieces = 0;
    for (int tries = 0;; tries++) {
        bool is_first = !st->is_running;
        enum status status = is_first ? start(p, st, err) : STATUS_OK;
        if (status)
            return status;
        PGresult *r = next_result(p, st);
        if (r && PQresultStatus(r) == PGRES_SINGLE_TUPLE) {
            st->row = r;
            *has_row = make_space(st);
            return *has_row ? STATUS_OK
                            : error_set(err, STATUS_NO_MEMORY, "%s: no memory for rows",
                                        p->base.name);
        }
        if (!r || is_error(r)) {
            status = st->was_refused ? error_set(err, STATUS_NO_MEMORY,
                                                 "%s: no memory for rows", p->base.name)
                                     : fail_at(p, r, true, err);
        } else if (strncmp(PQcmdStatus(r), "SELECT", 6) != 0) {
            st->n_changed = strtoll(PQcmdTuples(r), NULL, 10);
        }
        PQclear(r);
        if (p->streaming == st) {
            while ((r = PQgetResult(p->connection)))
                PQclear(r);
            p->streaming = NULL;
        }
        /* A connection that was found dead, by a statement that only reads. */
        if (status && is_first && is_lost(p) && !p->base.is_begun && tries == 0) {
            st->is_running = false;
            continue;
        }
        return status;
    }
}

static enum status finish(struct statement *base, int64_t *n_changed,
                          struct error *err) {
    bool has_row = true;
    enum status status = STATUS_OK;
    while (!status && has_row) {
        has_row = false;
        status = step(base, &has_row, err);
    }
    *n_changed = stmt(base)->n_changed;
    return status;
}

static enum status send_later(struct statement *base, struct error *err) {
    struct postgres_statement *st = stmt(base);
    struct postgres *p = of(base->db);
    int64_t n;
    if (!p->base.is_begun)
        return finish(base, &n, err);
    if (is_lost(p))
        return lost(p, err);
    make_room(p);
    enum status status = make_ready(p, st, err);
    if (status)
        return status;
    if (p->n_pending == 0 && !PQenterPipelineMode(p->connection))
        return lost(p, err);
    p->n_pending++;
    if (!dispatch(p, st))
        return lost(p, err);
    return p->n_pending < MAX_PENDING ? STATUS_OK : flush(p, err);
}

static void reset(struct statement *base) {
    struct postgres_statement *st = stmt(base);
    struct postgres *p = of(base->db);
    if (p->streaming == st) {
        PGcancel *cancel = p->base.is_begun ? NULL : PQgetCancel(p->connection);
        char ignored[64];
        if (cancel) /* what is left may be long */
            PQcancel(cancel, ignored, sizeof ignored);
        PQfreeCancel(cancel);
        for (PGresult *r; (r = PQgetResult(p->connection));)
            PQclear(r);
        p->streaming = NULL;
    }
    drop_rows(st);
    buffer_clear(&st->decoded);
    for (int i = 0; i < st->n_parameters; i++)
        st->parameters[i].type = TYPE_ANY;
    st->n_pieces = 0;
    st->n_changed = 0;
    st->is_running = st->was_refused = false;
}

/* ---- Columns ---- */

static bool has(struct postgres_statement *st, int column) {
    return st->row && column >= 0 && column < PQnfields(st->row) &&
           !PQgetisnull(st->row, 0, column);
}

static int64_t get_integer(struct statement *base, int column) {
    struct postgres_statement *st = stmt(base);
    if (!has(st, column))
        return 0;
    const char *value = PQgetvalue(st->row, 0, column);
    if (PQftype(st->row, column) == TYPE_BOOL)
        return value[0] == 't';
    return strtoll(value, NULL, 10);
}

static double get_real(struct statement *base, int column) {
    struct postgres_statement *st = stmt(base);
    return has(st, column) ? strtod(PQgetvalue(st->row, 0, column), NULL) : 0;
}

static int digit(char c) {
    return c >= 'a' ? c - 'a' + 10 : c - '0';
}

/* "\x00ff…", as bytes; decoded once a row as long as pieces has room. */
static struct view get_bytes(struct postgres_statement *st, int column) {
    for (size_t i = 0; i < st->n_pieces; i++) {
        if (st->pieces[i].column == column)
            return view_of(st->decoded.data + st->pieces[i].at, st->pieces[i].n_bytes);
    }
    const char *text = PQgetvalue(st->row, 0, column);
    size_t n = (size_t)PQgetlength(st->row, 0, column), at = st->decoded.n_bytes;
    if (n < 2 || st->n_pieces == sizeof st->pieces / sizeof *st->pieces)
        return VIEW("");
    n = (n - 2) / 2;
    if (at + n > st->decoded.cap_bytes) /* never: step has made space */
        return VIEW("");
    char *out = st->decoded.data + at;
    for (size_t i = 0; i < n; i++)
        out[i] = (char)(digit(text[2 + 2 * i]) << 4 | digit(text[3 + 2 * i]));
    st->decoded.n_bytes += n;
    st->pieces[st->n_pieces].column = column;
    st->pieces[st->n_pieces].at = at;
    st->pieces[st->n_pieces++].n_bytes = n;
    return view_of(out, n);
}

static struct view get_text(struct statement *base, int column) {
    struct postgres_statement *st = stmt(base);
    if (!has(st, column))
        return VIEW("");
    if (PQftype(st->row, column) == TYPE_BYTEA)
        return get_bytes(st, column);
    return view_of(PQgetvalue(st->row, 0, column),
                   (size_t)PQgetlength(st->row, 0, column));
}

static enum statement_type type(struct statement *base, int column) {
    struct postgres_statement *st = stmt(base);
    if (!has(st, column))
        return STATEMENT_NULL;
    const char *value = PQgetvalue(st->row, 0, column);
    switch ((enum type_id)PQftype(st->row, column)) {
    case TYPE_BOOL:
    case TYPE_INT2:
    case TYPE_INT4:
    case TYPE_INT8:
    case TYPE_OID:
        return STATEMENT_INTEGER;
    case TYPE_NUMERIC: /* the sum of bigints is one */
        return strlen(value) < 19 && value[strspn(value, "-0123456789")] == 0
                   ? STATEMENT_INTEGER
                   : STATEMENT_REAL;
    case TYPE_FLOAT4:
    case TYPE_FLOAT8:
        return STATEMENT_REAL;
    case TYPE_BYTEA:
        return STATEMENT_BYTES;
    default:
        return STATEMENT_TEXT;
    }
}

/* What knows the columns: the row that step gave, so that those behind it stay on the wire. */
static const PGresult *shape_of(struct statement *st) {
    if (stmt(st)->row)
        return stmt(st)->row;
    describe(of(st->db), stmt(st));
    return stmt(st)->description;
}

static int n_columns(struct statement *st) {
    const PGresult *shape = shape_of(st);
    return shape ? PQnfields(shape) : 0;
}

static const char *column_name(struct statement *st, int column) {
    const PGresult *shape = shape_of(st);
    const char *name = shape ? PQfname(shape, column) : NULL;
    return name ? name : "";
}

/* ---- Opening ---- */

static void close_postgres(struct database *db) {
    struct postgres *p = of(db);
    database_forget(db);
    PQfinish(p->connection);
    PQconninfoFree(p->options);
    free(p);
}

enum status postgres_open(const char *url, enum database_mode mode,
                          struct database **out, struct error *err) {
    struct postgres *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(err, STATUS_NO_MEMORY, "no memory for a database");
    p->base = (struct database){.driver = &driver, .mode = mode};
    char *message = NULL;
    p->options = PQconninfoParse(url, &message);
    PQfreemem(message); /* may quote the password */
    enum status status = STATUS_OK;
    if (!p->options) {
        status = error_set(err, STATUS_INVALID,
                           "the store's URL cannot be read, expected "
                           "postgres://user:password@host:port/database");
    } else {
        const char *host = option_of(p->options, "host");
        const char *port = option_of(p->options, "port");
        const char *name = option_of(p->options, "dbname");
        struct buffer text = {.max_bytes = 4096};
        status = buffer_printf(&text, err, "postgres://%s%s%s/%s", host ? host : "",
                               port ? ":" : "", port ? port : "", name ? name : "");
        p->base.name = text.data;
    }
    if (!status)
        status = connect_now(p, err);
    if (status) {
        close_postgres(&p->base);
        return status;
    }
    *out = &p->base;
    return STATUS_OK;
}

static const struct driver driver = {
    .kind = DATABASE_POSTGRES,
    .close = close_postgres,
    .begin = begin,
    .commit = commit,
    .rollback = rollback,
    .run = run,
    .checkpoint = checkpoint,
    .limit = limit,
    .prepare = prepare,
    .forget = forget,
    .integer = bind_integer,
    .real = bind_real,
    .text = bind_text,
    .bytes = bind_bytes,
    .null = bind_null,
    .step = step,
    .finish = finish,
    .send = send_later,
    .reset = reset,
    .get_integer = get_integer,
    .get_real = get_real,
    .get_text = get_text,
    .type = type,
    .n_columns = n_columns,
    .column_name = column_name,
};
