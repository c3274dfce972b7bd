/* SPDX-License-Identifier: Apache-2.0
 *
 * macros.h - what cppcheck must know of headers that it does not read.
 */
#define json_array_foreach(array, i, value)                                            \
    for (i = 0; i < json_array_size(array) && (value = json_array_get(array, i)); i++)
#define json_object_foreach(object, key, value)                                        \
    for (void *it = json_object_iter(object);                                          \
         it && (key = json_object_iter_key(it)) &&                                     \
         (value = json_object_iter_value(it));                                         \
         it = json_object_iter_next(object, it))
#define json_object_keylen_foreach(object, key, n_key, value)                          \
    for (void *it = json_object_iter(object);                                          \
         it && (key = json_object_iter_key(it)) &&                                     \
         ((n_key) = json_object_iter_key_len(it), value = json_object_iter_value(it)); \
         it = json_object_iter_next(object, it))
