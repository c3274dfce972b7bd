/* SPDX-License-Identifier: Apache-2.0
 *
 * actor.h - who is at the keyboard, for the audit.
 */
#ifndef VIGIL_STORE_ACTOR_H
#define VIGIL_STORE_ACTOR_H

#define ACTOR_BYTES 128

/* given, or else the name of the user that the process runs as, or "uid:N". */
void actor_name(const char *given, char out[ACTOR_BYTES]);

#endif
