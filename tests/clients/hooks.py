# SPDX-License-Identifier: Apache-2.0
"""For schemathesis: how bodies of lines are written."""
import json

import schemathesis


@schemathesis.serializer("application/jsonlines", "application/x-ndjson")
def lines(_context, value):
    each = value if isinstance(value, list) and value else [value]
    return "\n".join(json.dumps(line) for line in each).encode()
