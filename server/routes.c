/* SPDX-License-Identifier: Apache-2.0 */
#include "server/routes.h"

#include <string.h>

#define ENDPOINTS "/endpoints/"
#define INVOCATIONS "/invocations"
#define MAX_NAME_BYTES 63

static const struct {
    const char *path;
    bool is_post, is_open;
} TABLE[ROUTE_COUNT] = {
    [ROUTE_CLASSIFY] = {"/v1/classify", true, false},
    [ROUTE_INVOCATIONS] = {INVOCATIONS, true, false},
    [ROUTE_PREDICT] = {"/predict", true, false},
    [ROUTE_PIPELINE] = {"/", true, false},
    [ROUTE_TOKENIZE] = {"/tokenize", true, false},
    [ROUTE_INDEX] = {"/", false, false},
    [ROUTE_PING] = {"/ping", false, true},
    [ROUTE_HEALTH] = {"/health", false, true},
    [ROUTE_READY] = {"/ready", false, true},
    [ROUTE_INFO] = {"/info", false, false},
    [ROUTE_METRICS] = {"/metrics", false, false},
    [ROUTE_OPENAPI] = {"/openapi.json", false, false},
    [ROUTE_NONE] = {"other", false, true},
};

const char *route_name(enum route route) {
    return TABLE[route].path;
}

const char *route_method(enum route route) {
    return route == ROUTE_NONE ? "other" : TABLE[route].is_post ? "POST" : "GET";
}

bool route_is_open(enum route route) {
    return TABLE[route].is_open;
}

bool route_is_post(enum route route) {
    return TABLE[route].is_post;
}

/* /endpoints/{name}/invocations, as SageMaker's runtime has it, with a name that SageMaker
 * would take. Which one it is makes no difference. */
static bool is_endpoint(const char *path) {
    static const char LETTERS[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-";
    if (strncmp(path, ENDPOINTS, sizeof ENDPOINTS - 1) != 0)
        return false;
    const char *name = path + sizeof ENDPOINTS - 1;
    size_t n = strspn(name, LETTERS);
    return n > 0 && n <= MAX_NAME_BYTES && name[0] != '-' &&
           strcmp(name + n, INVOCATIONS) == 0;
}

enum route route_find(const char *method, const char *path, struct fault *f,
                      const char **allow) {
    bool is_post = strcmp(method, "POST") == 0;
    bool is_get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    bool has_get = false, has_post = false;
    if (is_endpoint(path))
        path = INVOCATIONS;
    for (int i = 0; i < ROUTE_NONE; i++) {
        if (strcmp(path, TABLE[i].path) != 0)
            continue;
        if (TABLE[i].is_post ? is_post : is_get)
            return (enum route)i;
        *(TABLE[i].is_post ? &has_post : &has_get) = true;
    }
    *allow = has_get && has_post ? "GET, HEAD, POST" : has_post ? "POST" : "GET, HEAD";
    if (has_get || has_post)
        fault_set(f, FAULT_METHOD, "this path takes %s", *allow);
    else
        fault_set(f, FAULT_NOT_FOUND, "no such path; GET / lists those that there are");
    return ROUTE_NONE;
}
