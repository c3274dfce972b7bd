/* SPDX-License-Identifier: Apache-2.0
 *
 * html.h - the words of a post that came as HTML (Mastodon): tags taken out, paragraphs and
 * <br> as line breaks, entities read, white space folded. One pass; nothing is executed,
 * looked up or loaded.
 *
 * A link is written as the address that the reader would copy: Mastodon hides parts of it
 * ("https://", the end of a long one) in spans of class `invisible`, which are kept, so that
 * a link is still known as one. A paragraph of class `quote-inline` (the link to what is
 * quoted, for those who cannot show quotes) and the insides of script and style are left
 * out.
 */
#ifndef VIGIL_CLIENT_NET_HTML_H
#define VIGIL_CLIENT_NET_HTML_H

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"

/* Plain text in the arena, never longer than the HTML. Invalid UTF-8 stays as it is.
 * STATUS_NO_MEMORY. */
enum status html_to_text(struct view html, struct arena *arena, struct view *out,
                         struct error *err);

#endif
