/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_url.h - where a queue is, from its URL, with the secrets apart.
 *
 *   nats://[user[:password]@|token@]host[:port][,host[:port]…][/STREAM][?option=value[&…]]
 *
 * tls:// instead of nats:// demands TLS. User, password, token and values of options may be
 * percent-encoded. Options:
 *   replicas=N   copies of each stream that is made, 1 to 5; as many nodes must be there
 *   age=30d      how long messages are kept (s, m, h, d); 0: for ever
 *   max_bytes=N  of a stream; a full one takes nothing more until old messages age out
 *   creds=FILE   credentials (JWT and seed) as the operator's tools write them
 *   ca=FILE      certificates to trust, for tls://
 *   monitor=HOST:PORT  the HTTP monitoring port of a node, for `vigil doctor`
 */
#ifndef VIGIL_STORE_QUEUE_QUEUE_URL_H
#define VIGIL_STORE_QUEUE_QUEUE_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define QUEUE_URL_BYTES 2048
#define QUEUE_URL_SERVERS 16
#define QUEUE_URL_SERVER_BYTES 280
#define QUEUE_URL_STREAM_BYTES 33 /* 32 and a NUL */
#define QUEUE_URL_SECRET_BYTES 512
#define QUEUE_URL_PATH_BYTES 512
#define QUEUE_URL_PORT "4222"

struct queue_url {
    struct {
        char host[256]; /* without the brackets of IPv6 */
        char port[6];
        char url[QUEUE_URL_SERVER_BYTES]; /* nats://host:port */
    } servers[QUEUE_URL_SERVERS];
    size_t n_servers;
    bool is_tls;
    char user[QUEUE_URL_SECRET_BYTES], password[QUEUE_URL_SECRET_BYTES];
    char token[QUEUE_URL_SECRET_BYTES];
    char stream[QUEUE_URL_STREAM_BYTES];
    int32_t n_replicas; /* 0: not said */
    int64_t age_ns, max_bytes;
    char creds[QUEUE_URL_PATH_BYTES], ca[QUEUE_URL_PATH_BYTES];
    char monitor_host[256], monitor_port[6];
    char name[QUEUE_URL_BYTES]; /* to show: scheme, servers and stream alone */
};

/* STATUS_INVALID says what is wrong, without any part that may be a secret. */
enum status queue_url_parse(const char *text, struct queue_url *out, struct error *err);

/* Whether a name can be a stream or a durable consumer: 1 to 32 letters, digits, '_', '-'. */
bool queue_url_is_name(const char *name, size_t n_bytes);

#endif
