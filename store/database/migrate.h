/* SPDX-License-Identifier: Apache-2.0
 *
 * migrate.h - the tables of a store, brought to what this program knows.
 *
 * Each step is a file of schema/, that the assembler puts into the program; steps are never
 * changed once they were published, only added. Table `meta` says which were done
 * ("schema_version") and on which boot of the machine the leases were given ("boot_id").
 * All steps that are missing are one transaction, and one process at a time does them: under
 * the lock file, or an advisory lock of PostgreSQL.
 */
#ifndef VIGIL_STORE_DATABASE_MIGRATE_H
#define VIGIL_STORE_DATABASE_MIGRATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "store/database/database.h"

/* The newest schema that this program knows. */
int64_t migrate_latest(void);

/* Makes or renews the tables. STATUS_UNSUPPORTED when they are newer than the program. */
enum status migrate_database(struct database *db, struct error *err);
/* The same to a list of steps of one's own: steps[0] makes version 1. */
enum status migrate_to(struct database *db, const char *const *steps, size_t n,
                       struct error *err);
/* Whether the tables are those that the program knows: STATUS_UNSUPPORTED when they are older
 * or newer, STATUS_INVALID when this is no store. */
enum status migrate_check(struct database *db, struct error *err);

/* SQLite: ends the leases and waits of the queue when the machine was started anew since they
 * were given, for its clock began anew too. Elsewhere a no-op. */
enum status migrate_boot(struct database *db, struct error *err);

#endif
