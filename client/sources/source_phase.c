/* SPDX-License-Identifier: Apache-2.0
 *
 * source_phase.c - the names of what a source is doing.
 */
#include "client/sources/source.h"

const char *source_phase_name(enum source_phase phase) {
    switch (phase) {
    case SOURCE_STARTING:
        return "starting";
    case SOURCE_CONNECTING:
        return "connecting";
    case SOURCE_STREAMING:
        return "streaming";
    case SOURCE_WAITING:
        return "waiting";
    case SOURCE_TOO_MANY_CONNECTIONS:
        return "too_many_connections";
    case SOURCE_PAUSED:
        return "paused";
    case SOURCE_ENDED:
        return "ended";
    case N_SOURCE_PHASES:
        break;
    }
    return "unknown";
}
