/* SPDX-License-Identifier: Apache-2.0
 *
 * routes.h - which paths and methods there are.
 */
#ifndef VIGIL_SERVER_ROUTES_H
#define VIGIL_SERVER_ROUTES_H

#include <stdbool.h>

#include "base/fault.h"

enum route {
    ROUTE_CLASSIFY,    /* POST /v1/classify */
    ROUTE_INVOCATIONS, /* POST /invocations, /endpoints/{name}/invocations */
    ROUTE_PREDICT,     /* POST /predict */
    ROUTE_PIPELINE,    /* POST / */
    ROUTE_TOKENIZE,    /* POST /tokenize */
    ROUTE_INDEX,       /* GET / */
    ROUTE_PING,
    ROUTE_HEALTH,
    ROUTE_READY,
    ROUTE_INFO,
    ROUTE_METRICS,
    ROUTE_OPENAPI,
    ROUTE_NONE, /* a path or method that there is not: for the metrics */
    ROUTE_COUNT
};

/* "/v1/classify": a constant, for logs and metrics. */
const char *route_name(enum route route);
/* "POST", "GET" (HEAD too), "other": with the name it is one route alone. */
const char *route_method(enum route route);
/* Answered without a key, and before the model is loaded. */
bool route_is_open(enum route route);
/* Takes a body. */
bool route_is_post(enum route route);

/* Finds the route. On failure f says why (FAULT_NOT_FOUND, FAULT_METHOD), and *allow is the
 * value of the Allow header of a 405. HEAD finds what GET does. */
enum route route_find(const char *method, const char *path, struct fault *f,
                      const char **allow);

#endif
