/* SPDX-License-Identifier: Apache-2.0
 *
 * privacy_data.h - what privacy.c and privacy_mask.c share.
 */
#ifndef VIGIL_CLIENT_SELECT_PRIVACY_DATA_H
#define VIGIL_CLIENT_SELECT_PRIVACY_DATA_H

#include <stdint.h>

#include "base/sha256.h"
#include "client/select/privacy.h"

struct privacy {
    enum store_mode mode;
    uint8_t key[SHA256_BYTES];
};

#endif
