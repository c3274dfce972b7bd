/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_nats.c - see queue.h: opening and closing; the clock's and the errors' helpers. */
#include "store/queue/queue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "store/queue/queue_nats.h"

#define OPEN_NS (30 * SECOND)
#define NOBODY_NS (5 * SECOND) /* that answers for JetStream: there is none */
#define CONNECT_MS 2000
#define REQUEST_MS 2000 /* what takes longer is asked for again */
#define PUBLISH_NS (60 * SECOND)
#define DUPLICATES_NS (120 * SECOND)
#define RECONNECT_BYTES (64 << 20)

void queue_nats_nap(int64_t ns) {
    struct timespec t = {.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND};
    while (ns > 0 && nanosleep(&t, &t) != 0 && errno == EINTR)
        continue;
}

/* The library's text of a status is a constant; what nats_GetLastError adds may quote what
 * came over the wire and is left out. */
enum status queue_nats_error(struct error *err, const struct queue *q, natsStatus s,
                             jsErrCode code, const char *what) {
    enum status status = s == NATS_TIMEOUT || s == NATS_NO_RESPONDERS ? STATUS_TIMEOUT
                         : s == NATS_NO_MEMORY                        ? STATUS_NO_MEMORY
                         : s == NATS_NOT_FOUND                        ? STATUS_NOT_FOUND
                                                                      : STATUS_IO;
    if (code != 0)
        return error_set(err, status, "queue %s: %s: %s (JetStream error %d)",
                         q->url.name, what, natsStatus_GetText(s), (int)code);
    return error_set(err, status, "queue %s: %s: %s", q->url.name, what,
                     natsStatus_GetText(s));
}

enum status queue_nats_no_memory(struct error *err, const struct queue *q) {
    return error_set(err, STATUS_NO_MEMORY, "queue %s: out of memory", q->url.name);
}

bool queue_nats_is_closed(const struct queue *q) {
    return natsConnection_IsClosed(q->connection);
}

bool queue_is_connected(const struct queue *q) {
    return natsConnection_Status(q->connection) == NATS_CONN_STATUS_CONNECTED;
}

const char *queue_name(const struct queue *q) {
    return q->url.name;
}

/* ---- opening ---- */

static void on_disconnected(natsConnection *nc, void *closure) {
    (void)nc;
    const struct queue *q = closure;
    log_message(LOG_LEVEL_WARNING, "queue", "%s: connection lost", q->url.name);
}

static void on_reconnected(natsConnection *nc, void *closure) {
    (void)nc;
    struct queue *q = closure;
    atomic_fetch_add(&q->n_reconnects, 1);
    log_message(LOG_LEVEL_INFO, "queue", "%s: connected again", q->url.name);
}

static void on_closed(natsConnection *nc, void *closure) {
    (void)nc;
    struct queue *q = closure;
    atomic_store(&q->is_closed, true);
}

/* The library would write to stderr by itself. */
static void on_error(natsConnection *nc, natsSubscription *sub, natsStatus s,
                     void *closure) {
    (void)nc, (void)sub;
    const struct queue *q = closure;
    log_message(LOG_LEVEL_WARNING, "queue", "%s: %s", q->url.name,
                natsStatus_GetText(s));
}

static natsStatus set_options(struct queue *q, natsOptions *o) {
    const struct queue_url *u = &q->url;
    const char *servers[QUEUE_URL_SERVERS];
    for (size_t i = 0; i < u->n_servers; i++)
        servers[i] = u->servers[i].url;
    natsStatus s = natsOptions_SetServers(o, servers, (int)u->n_servers);
    if (s == NATS_OK && u->user[0])
        s = natsOptions_SetUserInfo(o, u->user, u->password);
    if (s == NATS_OK && u->token[0])
        s = natsOptions_SetToken(o, u->token);
    if (s == NATS_OK && u->creds[0])
        s = natsOptions_SetUserCredentialsFromFiles(o, u->creds, NULL);
    if (s == NATS_OK && u->is_tls)
        s = natsOptions_SetSecure(o, true);
    if (s == NATS_OK && u->is_tls && u->ca[0])
        s = natsOptions_LoadCATrustedCertificates(o, u->ca);
    if (s == NATS_OK)
        s = natsOptions_SetName(o, "vigil");
    if (s == NATS_OK)
        s = natsOptions_SetTimeout(o, CONNECT_MS);
    if (s == NATS_OK)
        s = natsOptions_SetMaxReconnect(o, -1);
    if (s == NATS_OK)
        s = natsOptions_SetReconnectWait(o, 200);
    if (s == NATS_OK)
        s = natsOptions_SetReconnectJitter(o, 200, 1000);
    if (s == NATS_OK)
        s = natsOptions_SetReconnectBufSize(o, RECONNECT_BYTES);
    if (s == NATS_OK) /* a node that hangs is left after 4 to 6 s */
        s = natsOptions_SetPingInterval(o, 2000);
    if (s == NATS_OK)
        s = natsOptions_SetMaxPingsOut(o, 2);
    if (s == NATS_OK)
        s = natsOptions_SetFailRequestsOnDisconnect(o, true);
    if (s == NATS_OK)
        s = natsOptions_SetDisconnectedCB(o, on_disconnected, q);
    if (s == NATS_OK)
        s = natsOptions_SetReconnectedCB(o, on_reconnected, q);
    if (s == NATS_OK)
        s = natsOptions_SetClosedCB(o, on_closed, q);
    return s == NATS_OK ? natsOptions_SetErrorHandler(o, on_error, q) : s;
}

static bool is_credentials(natsStatus s) {
    return s == NATS_CONNECTION_AUTH_FAILED || s == NATS_SSL_ERROR ||
           s == NATS_SECURE_CONNECTION_WANTED || s == NATS_SECURE_CONNECTION_REQUIRED ||
           s == NATS_NOT_PERMITTED;
}

static enum status connect_to(struct queue *q, int64_t deadline_ns, struct error *err) {
    natsOptions *o = NULL;
    jsOptions js_options;
    natsStatus s = natsOptions_Create(&o);
    if (s == NATS_OK)
        s = set_options(q, o);
    if (s != NATS_OK) {
        natsOptions_Destroy(o);
        return queue_nats_error(err, q, s, 0, "cannot use the URL's options");
    }
    for (;;) {
        s = natsConnection_Connect(&q->connection, o);
        if (s == NATS_OK || is_credentials(s) || clock_now_ns() >= deadline_ns)
            break;
        queue_nats_nap(200 * MS);
    }
    natsOptions_Destroy(o);
    if (s != NATS_OK)
        return queue_nats_error(err, q, s, 0, "cannot connect");
    s = jsOptions_Init(&js_options);
    js_options.Wait = REQUEST_MS;
    if (s == NATS_OK)
        s = natsConnection_JetStream(&q->js, q->connection, &js_options);
    return s == NATS_OK ? STATUS_OK
                        : queue_nats_error(err, q, s, 0, "cannot use JetStream");
}

/* The answers of a cluster that is starting, or between two leaders. */
static bool is_passing(natsStatus s, jsErrCode code) {
    return s == NATS_TIMEOUT || s == NATS_NO_RESPONDERS ||
           s == NATS_CONNECTION_DISCONNECTED || code == JSClusterNotAvailErr ||
           code == JSClusterNoPeersErr || code == JSClusterNotLeaderErr ||
           code == JSClusterIncompleteErr || code == JSInsufficientResourcesErr ||
           code == JSStreamOfflineErr || code == JSConsumerOfflineErr ||
           code == JSRaftGeneralErr;
}

static enum status stream_failed(struct queue *q, const char *name, natsStatus s,
                                 jsErrCode code, struct error *err) {
    char what[128];
    if (code == JSNotEnabledErr || code == JSNotEnabledForAccountErr ||
        s == NATS_NO_RESPONDERS)
        return error_set(err, STATUS_UNSUPPORTED,
                         "queue %s: no JetStream there: expected a nats-server with "
                         "jetstream in its configuration",
                         q->url.name);
    if (code == JSClusterNoPeersErr || code == JSStreamReplicasNotSupportedErr)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "queue %s: fewer nodes are up than stream %s shall have copies; "
            "expected replicas=N in the URL, or more nodes",
            q->url.name, name);
    snprintf(what, sizeof what, "cannot make stream %s", name);
    return queue_nats_error(err, q, s, code, what);
}

static enum status make_stream(struct queue *q, const char *name, const char *subject,
                               jsRetentionPolicy retention, int64_t deadline_ns,
                               struct error *err) {
    jsErrCode code = 0;
    natsStatus s = NATS_OK;
    int64_t n_replicas = q->n_replicas > 0 ? q->n_replicas : 3;
    int64_t nobody_ns = clock_now_ns() + NOBODY_NS;
    for (;;) {
        jsStreamInfo *info = NULL;
        s = js_GetStreamInfo(&info, q->js, name, NULL, &code);
        if (s == NATS_OK) {
            if (q->n_replicas > 0 && info->Config->Replicas != q->n_replicas)
                log_message(LOG_LEVEL_WARNING, "queue",
                            "%s: stream %s has %" PRId64 " copies, not %" PRId32,
                            q->url.name, name, info->Config->Replicas, q->n_replicas);
            jsStreamInfo_Destroy(info);
            return STATUS_OK;
        }
        if (code == JSStreamNotFoundErr || s == NATS_NOT_FOUND) {
            jsStreamConfig c;
            jsStreamConfig_Init(&c);
            c.Name = name;
            c.Subjects = &subject;
            c.SubjectsLen = 1;
            c.Retention = retention;
            c.Storage = js_FileStorage;
            c.Discard = js_DiscardNew;
            c.MaxAge = q->url.age_ns;
            c.MaxBytes = q->url.max_bytes > 0 ? q->url.max_bytes : -1;
            c.Replicas = n_replicas;
            c.Duplicates = q->url.age_ns > 0
                               ? queue_nats_least(DUPLICATES_NS, q->url.age_ns)
                               : DUPLICATES_NS;
            code = 0;
            s = js_AddStream(NULL, q->js, &c, NULL, &code);
            if (s == NATS_OK)
                return STATUS_OK;
            if (code == JSStreamReplicasNotSupportedErr && q->n_replicas <= 0 &&
                n_replicas > 1) {
                n_replicas = 1; /* a server by itself */
                continue;
            }
            if (code == JSStreamNameExistErr)
                return STATUS_OK;
        }
        int64_t end_ns = s == NATS_NO_RESPONDERS ? nobody_ns : deadline_ns;
        if (!is_passing(s, code) || clock_now_ns() >= end_ns)
            return stream_failed(q, name, s, code, err);
        queue_nats_nap(200 * MS);
    }
}

static enum status make_streams(struct queue *q, int64_t deadline_ns,
                                struct error *err) {
    char posts[128], dead[128], spent[128];
    snprintf(posts, sizeof posts, "%s.>", q->prefix);
    snprintf(dead, sizeof dead, "%s.>", q->dead_prefix);
    snprintf(spent, sizeof spent, "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.%s.>",
             q->url.stream);
    enum status status =
        make_stream(q, q->url.stream, posts, js_LimitsPolicy, deadline_ns, err);
    if (status == STATUS_OK)
        status =
            make_stream(q, q->dead_stream, dead, js_LimitsPolicy, deadline_ns, err);
    return status == STATUS_OK ? make_stream(q, q->spent_stream, spent,
                                             js_WorkQueuePolicy, deadline_ns, err)
                               : status;
}

enum status queue_open(const struct queue_options *options, struct queue **out,
                       struct error *err) {
    const char *consumer = options->consumer ? options->consumer : "enrich";
    *out = NULL;
    if (!queue_url_is_name(consumer, strlen(consumer)))
        return error_set(
            err, STATUS_INVALID,
            "queue: a consumer's name is 1 to 32 letters, digits, '_', '-'");
    struct queue *q = calloc(1, sizeof *q);
    if (!q)
        return error_set(err, STATUS_NO_MEMORY, "queue: out of memory");
    enum status status = queue_url_parse(options->url, &q->url, err);
    if (status != STATUS_OK) {
        free(q);
        return status;
    }
    pthread_mutex_init(&q->lock, NULL);
    snprintf(q->consumer, sizeof q->consumer, "%s", consumer);
    snprintf(q->dead_stream, sizeof q->dead_stream, "%s_DLQ", q->url.stream);
    snprintf(q->spent_stream, sizeof q->spent_stream, "%s_SPENT", q->url.stream);
    snprintf(q->prefix, sizeof q->prefix, "%s.posts", q->url.stream);
    snprintf(q->dead_prefix, sizeof q->dead_prefix, "%s.posts", q->dead_stream);
    q->since_ns = options->since_ns;
    q->ack_wait_ns =
        options->ack_wait_ns > 0 ? options->ack_wait_ns : QUEUE_NATS_ACK_WAIT_NS;
    q->publish_wait_ns =
        options->publish_wait_ns > 0 ? options->publish_wait_ns : PUBLISH_NS;
    q->n_replicas = options->n_replicas > 0 ? options->n_replicas : q->url.n_replicas;

    int64_t deadline_ns = clock_now_ns() + OPEN_NS;
    status = connect_to(q, deadline_ns, err);
    if (status == STATUS_OK)
        status = make_streams(q, deadline_ns, err);
    if (status != STATUS_OK) {
        queue_close(q);
        return status;
    }
    *out = q;
    return STATUS_OK;
}

void queue_close(struct queue *q) {
    if (!q)
        return;
    if (q->connection) {
        natsConnection_FlushTimeout(q->connection, 1000); /* what was not confirmed */
        natsConnection_Close(q->connection);
        for (int i = 0; i < 500 && !atomic_load(&q->is_closed); i++)
            queue_nats_nap(10 * MS); /* the last callback that uses q */
    }
    queue_nats_lane_close(q->sweep_lane);
    for (struct lane *lane = q->idle, *next; lane; lane = next) {
        next = lane->next;
        queue_nats_lane_close(lane);
    }
    for (struct queue_message *m = q->newest, *older; m; m = older) {
        older = m->older;
        natsMsg_Destroy(m->message); /* never settled: it comes again, to another */
        free(m);
    }
    jsCtx_Destroy(q->js);
    natsConnection_Destroy(q->connection);
    pthread_mutex_destroy(&q->lock);
    free(q);
}
