/* SPDX-License-Identifier: Apache-2.0
 *
 * connections_tls.c - the same as recv in connections.c, for what comes out of TLS.
 */
#include <dlfcn.h>
#include <gnutls/gnutls.h>

#include "server/connections_table.h"

typedef ssize_t record_recv(gnutls_session_t session, void *out, size_t cap_bytes);

/* GnuTLS's own, behind the one below. Set before the first connection. */
static record_recv *library_recv;

enum status connections_open_tls(struct error *err) {
    void *symbol = dlsym(RTLD_NEXT, "gnutls_record_recv");
    if (!symbol)
        return error_set(err, STATUS_UNSUPPORTED, "no gnutls_record_recv in GnuTLS");
    __builtin_memcpy(&library_recv, &symbol, sizeof library_recv);
    return STATUS_OK;
}

static ssize_t tls_read(void *context, void *out, size_t cap_bytes) {
    return library_recv(context, out, cap_bytes);
}

static void tls_write(void *context, const void *data, size_t n_bytes) {
    (void)gnutls_record_send(context, data, n_bytes);
}

/* In place of GnuTLS's: see connections.h. */
__attribute__((visibility("default"))) ssize_t
gnutls_record_recv(gnutls_session_t session, void *out, size_t cap_bytes) {
    struct connection *c = connection_of(gnutls_transport_get_int(session));
    if (!c || !c->is_tls)
        return library_recv(session, out, cap_bytes);
    struct channel channel = {session, tls_read, tls_write};
    return connection_read(c, &channel, out, cap_bytes);
}
