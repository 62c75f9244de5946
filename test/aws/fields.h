/*-------------------------------------------------------------------------
 *
 * fields.h
 *	  How the tests' Python and these programs talk: a line of fields, bytes in
 *	  hex with a dot before, a lone "-" for none.  And how they wait: for a byte in
 *	  a pipe, as a worker does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_TEST_FIELDS_H
#define KDA_TEST_FIELDS_H

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "connector/secret.h"

/* Memory of exactly its size, so that the sanitizer sees one byte read too far. */
static inline char *
decode_field(const char *hex, size_t *len)
{
	char	   *out;

	*len = 0;
	if (*hex == '-')
		return NULL;
	hex++;
	*len = strlen(hex) / 2;
	out = malloc(*len + 1);
	for (size_t i = 0; i < *len; i++)
	{
		unsigned int byte;

		sscanf(hex + 2 * i, "%2x", &byte);
		out[i] = (char) byte;
	}
	out[*len] = '\0';
	return out;
}

static inline void
show_field(const char *data, size_t len, char end)
{
	putchar('.');
	for (size_t i = 0; i < len; i++)
		printf("%02x", (unsigned char) data[i]);
	putchar(end);
}

static inline void
show_text(const KdaText *text, char end)
{
	show_field(kda_text_str(text), text->len, end);
}

/* Both ends do not block. */
static inline void
make_pipe(int fds[2])
{
	if (pipe(fds) != 0)
		abort();
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
}

static inline void
await_byte(int fd)
{
	struct pollfd poll_fd = {fd, POLLIN, 0};
	char		bytes[256];

	if (poll(&poll_fd, 1, 60000) <= 0)
		abort();
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
}

#endif							/* KDA_TEST_FIELDS_H */
