/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum status error_set(struct error *err, enum status status, const char *format, ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        err->status = status;
    }
    return status;
}

enum status error_prefix(struct error *err, const char *format, ...) {
    char tail[ERROR_MESSAGE_BYTES];
    if (!err)
        return STATUS_INTERNAL;
    memcpy(tail, err->message, sizeof tail);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->message)
        snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", tail);
    return err->status;
}

const char *status_name(enum status status) {
    switch (status) {
    case STATUS_OK:
        return "ok";
    case STATUS_INVALID:
        return "invalid";
    case STATUS_NOT_FOUND:
        return "not_found";
    case STATUS_UNSUPPORTED:
        return "unsupported";
    case STATUS_LIMIT:
        return "limit";
    case STATUS_NO_MEMORY:
        return "no_memory";
    case STATUS_IO:
        return "io";
    case STATUS_BUSY:
        return "busy";
    case STATUS_TIMEOUT:
        return "timeout";
    case STATUS_CANCELLED:
        return "cancelled";
    case STATUS_INTERNAL:
        return "internal";
    case STATUS_DEVICE:
        return "device";
    }
    return "unknown";
}
