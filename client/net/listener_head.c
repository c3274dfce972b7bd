/* SPDX-License-Identifier: Apache-2.0 */
#include "client/net/listener_head.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

/* The bytes up to a byte, and *rest behind it; all of them when it is not there. */
static struct view take_until(struct view *rest, char end) {
    const char *at = rest->n_bytes ? memchr(rest->data, end, rest->n_bytes) : NULL;
    struct view first = *rest;
    if (!at) {
        *rest = (struct view){NULL, 0};
        return first;
    }
    first.n_bytes = (size_t)(at - rest->data);
    *rest = view_of(at + 1, rest->n_bytes - first.n_bytes - 1);
    return first;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

static struct view trim(struct view v) {
    while (v.n_bytes && is_blank(v.data[0]))
        v = view_of(v.data + 1, v.n_bytes - 1);
    while (v.n_bytes && is_blank(v.data[v.n_bytes - 1]))
        v.n_bytes--;
    return v;
}

static bool is_word(struct view v, const char *word) {
    return v.n_bytes == strlen(word) && strncasecmp(v.data, word, v.n_bytes) == 0;
}

static void read_connection(struct view value, struct listener_head *out) {
    while (value.n_bytes) {
        struct view word = trim(take_until(&value, ','));
        if (is_word(word, "close"))
            out->keeps_alive = false;
    }
}

static void set_once(struct view *to, struct view value) {
    if (to->n_bytes == 0)
        *to = value;
}

static void read_field(struct view name, struct view value, struct listener_head *out) {
    if (is_word(name, "content-type"))
        set_once(&out->content_type, value);
    else if (is_word(name, "authorization"))
        set_once(&out->authorization, value);
    else if (is_word(name, "x-api-key"))
        set_once(&out->api_key, value);
    else if (is_word(name, "connection"))
        read_connection(value, out);
    else if (is_word(name, "expect") && is_word(value, "100-continue"))
        out->expects_continue = true;
    else if (is_word(name, "expect"))
        out->expects_otherwise = true;
}

void listener_head_read(struct view head, struct listener_head *out) {
    *out = (struct listener_head){0};
    struct view line = trim(take_until(&head, '\n'));
    if (line.n_bytes == 0)
        line = trim(take_until(&head, '\n'));
    out->method = take_until(&line, ' ');
    out->query = take_until(&line, ' ');
    out->path = take_until(&out->query, '?');
    /* Of HTTP/1.0 a connection ends with its answer, whatever is said. */
    out->keeps_alive = is_word(line, "HTTP/1.1");
    while (head.n_bytes) {
        struct view value = take_until(&head, '\n');
        struct view name = take_until(&value, ':');
        read_field(name, trim(value), out);
    }
}

static bool is_loopback_address(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
    }
    struct sockaddr_in6 v6;
    memcpy(&v6, address, sizeof v6);
    return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

static bool read_port(const char *text, in_port_t *out) {
    unsigned port = 0;
    size_t n = 0;
    for (; text[n] >= '0' && text[n] <= '9' && n < 5; n++)
        port = port * 10 + (unsigned)(text[n] - '0');
    *out = htons((uint16_t)port);
    return n > 0 && text[n] == '\0' && port <= 65535;
}

enum status listener_address(const char *text, struct sockaddr_storage *out,
                             socklen_t *n_bytes, bool *is_loopback, struct error *err) {
    char host[64];
    const char *colon = strrchr(text, ':');
    size_t n_host = colon ? (size_t)(colon - text) : sizeof host;
    in_port_t port;
    *out = (struct sockaddr_storage){0};
    bool is_good = n_host < sizeof host && read_port(colon + 1, &port);
    if (is_good && n_host >= 2 && text[0] == '[' && text[n_host - 1] == ']') {
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port};
        memcpy(host, text + 1, n_host - 2);
        host[n_host - 2] = '\0';
        is_good = inet_pton(AF_INET6, host, &v6.sin6_addr) == 1;
        memcpy(out, &v6, sizeof v6);
        *n_bytes = sizeof v6;
    } else if (is_good) {
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = port};
        memcpy(host, text, n_host);
        host[n_host] = '\0';
        const char *name =
            n_host == 0 || strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
        is_good = inet_pton(AF_INET, name, &v4.sin_addr) == 1;
        memcpy(out, &v4, sizeof v4);
        *n_bytes = sizeof v4;
    }
    if (!is_good)
        return error_set(err, STATUS_INVALID,
                         "cannot listen on \"%s\": expected an address and a port, as "
                         "127.0.0.1:9100 or [::1]:9100",
                         text);
    *is_loopback = is_loopback_address(out);
    return STATUS_OK;
}
