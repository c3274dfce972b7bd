/* SPDX-License-Identifier: Apache-2.0 */
#include "store/actor.h"

#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

void actor_name(const char *given, char out[ACTOR_BYTES]) {
    char memory[4096];
    struct passwd user, *found = NULL;
    if (given)
        snprintf(out, ACTOR_BYTES, "%s", given);
    else if (getpwuid_r(geteuid(), &user, memory, sizeof memory, &found) == 0 && found)
        snprintf(out, ACTOR_BYTES, "%s", found->pw_name);
    else
        snprintf(out, ACTOR_BYTES, "uid:%lu", (unsigned long)geteuid());
}
