/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_url.c - see queue_url.h.
 */
#include "store/queue/queue_url.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/view.h"

#define DEFAULT_STREAM "VIGIL"
#define DEFAULT_AGE_NS (30 * 86400 * CLOCK_NS_PER_SECOND)

static enum status bad(struct error *err, const char *what) {
    return error_set(err, STATUS_INVALID,
                     "queue URL: %s; expected nats://host:port[,host:port…][/STREAM]"
                     "[?option=value…]",
                     what);
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum status decode(struct view from, char *out, size_t cap_bytes,
                          struct error *err) {
    size_t n = 0;
    for (size_t i = 0; i < from.n_bytes; i++) {
        char c = from.data[i];
        if (c == '%') {
            bool is_there = from.n_bytes - i > 2;
            int high = is_there ? hex_value(from.data[i + 1]) : -1;
            int low = is_there ? hex_value(from.data[i + 2]) : -1;
            if (high < 0 || low < 0)
                return bad(err, "a '%' without two hex digits behind it");
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0' || n + 1 >= cap_bytes)
            return bad(err, "a part is too long or holds a NUL");
        out[n++] = c;
    }
    out[n] = '\0';
    return STATUS_OK;
}

bool queue_url_is_name(const char *name, size_t n_bytes) {
    if (n_bytes == 0 || n_bytes >= QUEUE_URL_STREAM_BYTES)
        return false;
    for (size_t i = 0; i < n_bytes; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != '-')
            return false;
    return true;
}

/* host, host:port, [v6] or [v6]:port. */
static enum status split_address(struct view v, const char *default_port,
                                 char host[256], char port[6], struct error *err) {
    size_t begin = 0, end = v.n_bytes, after = v.n_bytes;
    if (v.n_bytes > 0 && v.data[0] == '[') {
        const char *close = memchr(v.data, ']', v.n_bytes);
        if (!close)
            return bad(err, "an address without its ']'");
        begin = 1;
        end = (size_t)(close - v.data);
        after = end + 1;
    } else {
        const char *colon = memchr(v.data, ':', v.n_bytes);
        if (colon)
            end = after = (size_t)(colon - v.data);
    }
    if (end <= begin || end - begin >= 256)
        return bad(err, "a server without a host");
    for (size_t i = begin; i < end; i++)
        if (!isalnum((unsigned char)v.data[i]) && !strchr("-._:%", v.data[i]))
            return bad(err, "a host with characters that no host has");
    memcpy(host, v.data + begin, end - begin);
    host[end - begin] = '\0';
    struct view number = view_of_string(default_port);
    if (after < v.n_bytes && v.data[after] == ':')
        number = view_of(v.data + after + 1, v.n_bytes - after - 1);
    else if (after < v.n_bytes)
        return bad(err, "something behind an address");
    bool is_number = number.n_bytes > 0 && number.n_bytes <= 5;
    for (size_t i = 0; i < number.n_bytes && is_number; i++)
        is_number = number.data[i] >= '0' && number.data[i] <= '9';
    if (is_number) {
        memcpy(port, number.data, number.n_bytes);
        port[number.n_bytes] = '\0';
        long value = strtol(port, NULL, 10);
        is_number = value > 0 && value <= 65535;
    }
    return is_number ? STATUS_OK : bad(err, "a port that is not 1 to 65535");
}

static enum status read_servers(struct view v, struct queue_url *out,
                                struct error *err) {
    for (size_t at = 0; at <= v.n_bytes;) {
        const char *comma =
            at < v.n_bytes ? memchr(v.data + at, ',', v.n_bytes - at) : NULL;
        size_t end = comma ? (size_t)(comma - v.data) : v.n_bytes;
        if (out->n_servers == QUEUE_URL_SERVERS)
            return bad(err, "more than 16 servers");
        size_t i = out->n_servers++;
        char *host = out->servers[i].host, *port = out->servers[i].port;
        enum status status = split_address(view_of(v.data + at, end - at),
                                           QUEUE_URL_PORT, host, port, err);
        if (status != STATUS_OK)
            return status;
        bool is_v6 = strchr(host, ':') != NULL;
        snprintf(out->servers[i].url, sizeof out->servers[i].url,
                 is_v6 ? "nats://[%s]:%s" : "nats://%s:%s", host, port);
        at = end + 1;
    }
    return STATUS_OK;
}

static bool read_integer(const char *text, const char *units, int64_t max, int64_t *out,
                         char *unit) {
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9' || strlen(text) > 18)
        return false;
    *out = strtoll(text, &end, 10);
    *unit = *end;
    if (*end && (!strchr(units, *end) || end[1]))
        return false;
    return *out <= max;
}

static enum status read_age(const char *text, int64_t *out, struct error *err) {
    int64_t n = 0;
    char unit = 0;
    if (!read_integer(text, "smhd", INT64_C(36500) * 86400, &n, &unit))
        return bad(err, "age is not like 30d, 12h, 90m, 60s");
    int64_t seconds = unit == 'd' ? 86400 : unit == 'h' ? 3600 : unit == 'm' ? 60 : 1;
    if (n > INT64_C(36500) * 86400 / seconds)
        return bad(err, "age is more than 100 years");
    *out = n * seconds * CLOCK_NS_PER_SECOND;
    return STATUS_OK;
}

static enum status read_option(const char *name, const char *value,
                               struct queue_url *out, struct error *err) {
    int64_t n = 0;
    char unit = 0;
    if (strcmp(name, "replicas") == 0) {
        if (!read_integer(value, "", 5, &n, &unit) || n < 1)
            return bad(err, "replicas is not 1 to 5");
        out->n_replicas = (int32_t)n;
        return STATUS_OK;
    }
    if (strcmp(name, "age") == 0)
        return read_age(value, &out->age_ns, err);
    if (strcmp(name, "max_bytes") == 0) {
        if (!read_integer(value, "", INT64_MAX, &n, &unit) || n < 1)
            return bad(err, "max_bytes is no positive number");
        out->max_bytes = n;
        return STATUS_OK;
    }
    if (strcmp(name, "creds") == 0 || strcmp(name, "ca") == 0) {
        char *path = name[1] == 'r' ? out->creds : out->ca;
        snprintf(path, QUEUE_URL_PATH_BYTES, "%s", value);
        return path[0] ? STATUS_OK : bad(err, "creds and ca name a file");
    }
    if (strcmp(name, "monitor") == 0)
        return split_address(view_of_string(value), "8222", out->monitor_host,
                             out->monitor_port, err);
    return bad(err,
               "an option that is not replicas, age, max_bytes, creds, ca, monitor");
}

static enum status read_options(struct view v, struct queue_url *out,
                                struct error *err) {
    char name[16], value[QUEUE_URL_PATH_BYTES];
    for (size_t at = 0; at < v.n_bytes;) {
        const char *and = memchr(v.data + at, '&', v.n_bytes - at);
        size_t end = and? (size_t)(and-v.data) : v.n_bytes;
        const char *equals = memchr(v.data + at, '=', end - at);
        if (!equals)
            return bad(err, "an option without a value");
        size_t middle = (size_t)(equals - v.data);
        enum status status =
            decode(view_of(v.data + at, middle - at), name, sizeof name, err);
        if (status == STATUS_OK)
            status = decode(view_of(v.data + middle + 1, end - middle - 1), value,
                            sizeof value, err);
        if (status == STATUS_OK)
            status = read_option(name, value, out, err);
        if (status != STATUS_OK)
            return status;
        at = end + 1;
    }
    return STATUS_OK;
}

/* user:password, user:, or a token alone. */
static enum status read_secrets(struct view v, struct queue_url *out,
                                struct error *err) {
    const char *colon = v.n_bytes > 0 ? memchr(v.data, ':', v.n_bytes) : NULL;
    if (!colon)
        return decode(v, out->token, sizeof out->token, err);
    size_t n = (size_t)(colon - v.data);
    enum status status = decode(view_of(v.data, n), out->user, sizeof out->user, err);
    return status == STATUS_OK ? decode(view_of(colon + 1, v.n_bytes - n - 1),
                                        out->password, sizeof out->password, err)
                               : status;
}

static void make_name(struct queue_url *out) {
    size_t n = (size_t)snprintf(out->name, sizeof out->name, "%s",
                                out->is_tls ? "tls://" : "nats://");
    for (size_t i = 0; i < out->n_servers && n < sizeof out->name; i++)
        n += (size_t)snprintf(out->name + n, sizeof out->name - n, "%s%s",
                              i > 0 ? "," : "", out->servers[i].url + 7);
    if (n < sizeof out->name)
        snprintf(out->name + n, sizeof out->name - n, "/%s", out->stream);
}

enum status queue_url_parse(const char *text, struct queue_url *out,
                            struct error *err) {
    *out = (struct queue_url){.age_ns = DEFAULT_AGE_NS};
    snprintf(out->stream, sizeof out->stream, "%s", DEFAULT_STREAM);
    struct view rest = view_of_string(text);
    if (rest.n_bytes >= QUEUE_URL_BYTES)
        return bad(err, "longer than 2047 bytes");
    out->is_tls = view_starts_with(rest, VIEW("tls://"));
    if (!out->is_tls && !view_starts_with(rest, VIEW("nats://")))
        return bad(err, "it begins with neither nats:// nor tls://");
    size_t n_scheme = out->is_tls ? 6 : 7;
    rest = view_of(rest.data + n_scheme, rest.n_bytes - n_scheme);

    enum status status = STATUS_OK;
    const char *mark = memchr(rest.data, '?', rest.n_bytes);
    if (mark) {
        size_t n = (size_t)(mark - rest.data);
        status = read_options(view_of(mark + 1, rest.n_bytes - n - 1), out, err);
        rest.n_bytes = n;
    }
    /* A password may hold whatever but a '/' and '?', which are written %2f and %3f. */
    const char *slash = memchr(rest.data, '/', rest.n_bytes);
    if (status == STATUS_OK && slash) {
        size_t n = (size_t)(slash - rest.data), n_name = rest.n_bytes - n - 1;
        rest.n_bytes = n;
        if (n_name > 0 && !queue_url_is_name(slash + 1, n_name))
            return bad(err, "a stream's name is 1 to 32 letters, digits, '_' and '-'");
        if (n_name > 0)
            snprintf(out->stream, sizeof out->stream, "%.*s", (int)n_name, slash + 1);
    }
    const char *at = memrchr(rest.data, '@', rest.n_bytes);
    if (status == STATUS_OK && at) {
        size_t n = (size_t)(at - rest.data);
        status = read_secrets(view_of(rest.data, n), out, err);
        rest = view_of(at + 1, rest.n_bytes - n - 1);
    }
    if (status == STATUS_OK)
        status = read_servers(rest, out, err);
    if (status == STATUS_OK)
        make_name(out);
    return status;
}
