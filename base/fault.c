/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

static const struct {
    int code;
    const char *type, *reason;
} kinds[FAULT_KINDS] = {
    [FAULT_NONE] = {200, "none", "OK"},
    [FAULT_MALFORMED] = {400, "malformed", "Bad Request"},
    [FAULT_UNAUTHORIZED] = {401, "unauthorized", "Unauthorized"},
    [FAULT_NOT_FOUND] = {404, "not_found", "Not Found"},
    [FAULT_METHOD] = {405, "method_not_allowed", "Method Not Allowed"},
    [FAULT_SLOW_CLIENT] = {408, "slow_client", "Request Timeout"},
    [FAULT_LENGTH_REQUIRED] = {411, "length_required", "Length Required"},
    [FAULT_TOO_LARGE] = {413, "too_large", "Content Too Large"},
    [FAULT_URI_TOO_LONG] = {414, "uri_too_long", "URI Too Long"},
    [FAULT_MEDIA_TYPE] = {415, "unsupported_media_type", "Unsupported Media Type"},
    [FAULT_UNUSABLE] = {422, "unusable", "Unprocessable Content"},
    [FAULT_OVERLOADED] = {429, "overloaded", "Too Many Requests"},
    [FAULT_HEADERS_TOO_LARGE] = {431, "headers_too_large",
                                 "Request Header Fields Too Large"},
    [FAULT_NOT_READY] = {503, "not_ready", "Service Unavailable"},
    [FAULT_TIMEOUT] = {503, "timeout", "Service Unavailable"},
    [FAULT_ENGINE] = {503, "engine_failed", "Service Unavailable"},
    [FAULT_CLIENT_GONE] = {499, "client_gone", "Client Closed Request"},
    [FAULT_INTERNAL] = {500, "internal", "Internal Server Error"},
};

bool fault_set(struct fault *f, enum fault_kind kind, const char *format, ...) {
    va_list arguments;
    f->kind = kind;
    va_start(arguments, format);
    vsnprintf(f->message, sizeof f->message, format, arguments);
    va_end(arguments);
    return false;
}

int fault_code(enum fault_kind kind) {
    return kinds[kind].code;
}

const char *fault_type(enum fault_kind kind) {
    return kinds[kind].type;
}

const char *fault_reason(enum fault_kind kind) {
    return kinds[kind].reason;
}

enum status fault_write_members(const struct fault *f, struct buffer *out,
                                struct error *err) {
    enum status status = buffer_printf(out, err, "\"error\":");
    if (status == STATUS_OK)
        status = json_append_string(out, f->message, strlen(f->message), err);
    return status == STATUS_OK
               ? buffer_printf(out, err, ",\"error_type\":\"%s\"", fault_type(f->kind))
               : status;
}

enum status fault_write(const struct fault *f, struct buffer *out, struct error *err) {
    enum status status = buffer_append(out, "{", 1, err);
    if (status == STATUS_OK)
        status = fault_write_members(f, out, err);
    return status == STATUS_OK ? buffer_append(out, "}", 1, err) : status;
}
