/*-------------------------------------------------------------------------
 *
 * kinesis_put.c
 *	  Writes requests of PutRecords and reads their answers.
 *
 * Everything goes straight into the body; nothing is allocated per record.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kinesis_put.h"

#include <openssl/evp.h>
#include <string.h>

#define PIECE		3072		/* bytes encoded at once; a multiple of 3, so that pieces make one whole */

/*---- requests */

static void
add_base64(KdaText *to, const char *bytes, size_t len)
{
	unsigned char piece[PIECE / 3 * 4 + 1];

	while (len > 0)
	{
		size_t		n = Min(len, PIECE);

		kda_text_add(to, piece, EVP_EncodeBlock(piece, (const unsigned char *) bytes, (int) n));
		bytes += n;
		len -= n;
	}
}

/* As a JSON string. */
static void
add_string(KdaText *to, const char *s, size_t len)
{
	const char *end = s + len;

	kda_text_addc(to, '"');
	while (s < end)
	{
		const char *from = s;

		while (s < end && *s != '"' && *s != '\\' && (unsigned char) *s >= ' ')
			s++;
		kda_text_add(to, from, s - from);
		if (s < end)
			kda_text_addf(to, "\\u%04x", (unsigned char) *s++);
	}
	kda_text_addc(to, '"');
}

void
kda_kinesis_member(KdaText *to, const char *name)
{
	add_string(to, name, strlen(name));
	kda_text_addc(to, ':');
}

static size_t
count_space(const char *s, size_t len)
{
	size_t		n = 0;

	while (n < len && (s[n] == ' ' || s[n] == '\t' || s[n] == '\n' || s[n] == '\r'))
		n++;
	return n;
}

/* Starts a record with its number if it is an object; gives the bytes of the value that this stands for. */
static size_t
begin_object(KdaKinesisPut *put, const KdaKinesisRecord *r)
{
	size_t		at = count_space(r->value, r->len);

	if (put->member == NULL || at == r->len || r->value[at] != '{')
		return 0;
	at++;
	kda_text_addf(&put->head, "{%s" INT64_FORMAT, put->member, r->number);
	at += count_space(r->value + at, r->len - at);
	if (at < r->len && r->value[at] != '}')
		kda_text_addc(&put->head, ',');
	return at;
}

static void
add_data(KdaKinesisPut *put, const KdaKinesisRecord *r)
{
	KdaText    *head = &put->head;
	size_t		at;

	kda_text_reset(head);
	at = begin_object(put, r);
	/* what is encoded apart has to be a multiple of three */
	while (head->len % 3 != 0 && at < r->len && !head->failed)
		kda_text_addc(head, r->value[at++]);
	add_base64(put->body, kda_text_str(head), head->len);
	add_base64(put->body, r->value + at, r->len - at);
	put->body->failed |= head->failed;
}

void
kda_kinesis_put_begin(KdaKinesisPut *put)
{
	put->head.plain = true;
	kda_text_adds(put->body, strncmp(put->stream, "arn:", 4) == 0 ? "{\"StreamARN\":" : "{\"StreamName\":");
	add_string(put->body, put->stream, strlen(put->stream));
	kda_text_adds(put->body, ",\"Records\":[");
}

void
kda_kinesis_put_add(KdaKinesisPut *put, const KdaKinesisRecord *r)
{
	if (put->n++ > 0)
		kda_text_addc(put->body, ',');
	kda_text_adds(put->body, "{\"Data\":\"");
	add_data(put, r);
	kda_text_adds(put->body, "\",\"PartitionKey\":");
	if (r->key)
		add_string(put->body, r->key, r->key_len);
	else
		kda_text_addf(put->body, "\"" INT64_FORMAT "\"", r->number);
	if (r->hash_key)
	{
		kda_text_adds(put->body, ",\"ExplicitHashKey\":");
		add_string(put->body, r->hash_key, strlen(r->hash_key));
	}
	kda_text_addc(put->body, '}');
}

void
kda_kinesis_put_end(KdaKinesisPut *put)
{
	kda_text_adds(put->body, "]}");
	kda_text_free(&put->head);
}

static size_t
count_digits(int64 number)
{
	size_t		n = 1;

	while ((number /= 10) > 0)
		n++;
	return n;
}

size_t
kda_kinesis_size(const KdaKinesisRecord *r, const char *member)
{
	size_t		digits = count_digits(r->number);

	return r->len + (member && r->len > 0 && r->value[0] == '{' ? strlen(member) + digits + 1 : 0) + (r->key ? r->key_len : digits);
}

/*---- answers */

typedef struct Results
{
	int			n;
	bool	   *failed;
	KdaAwsError *error;

	int			seen;
	int			nfailed;
	KdaText text;
} Results;

/* A field that is there and not null. */
static bool
has_field(Results *r, const char *element, size_t len, const char *name)
{
	return kda_aws_json_field(element, len, name, &r->text) && strcmp(kda_text_str(&r->text), "null") != 0;
}

/* Copies what fits, in ASCII. */
static void
copy_words(char *to, size_t size, const char *from)
{
	size_t		i;

	for (i = 0; i + 1 < size && from[i]; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[i] = '\0';
}

static bool
take_result(void *arg, const char *element, size_t len)
{
	Results    *r = arg;
	KdaAwsError *e = r->error;
	bool		fails;

	if (r->seen == r->n)
	{
		r->seen++;				/* more than have been asked */
		return false;
	}
	fails = has_field(r, element, len, "ErrorCode");
	if (fails && r->nfailed == 0)
	{
		copy_words(e->code, sizeof(e->code), kda_text_str(&r->text));
		e->trouble = strcmp(e->code, "ProvisionedThroughputExceededException") == 0 ? KDA_AWS_THROTTLED : KDA_AWS_AGAIN;
		snprintf(e->message, sizeof(e->message), "%s", e->code);
		if (has_field(r, element, len, "ErrorMessage"))
		{
			size_t		n = strlen(e->message);

			if (n + 3 < sizeof(e->message))
			{
				strcpy(e->message + n, ": ");
				copy_words(e->message + n + 2, sizeof(e->message) - n - 2, kda_text_str(&r->text));
			}
		}
	}
	else if (!fails && !has_field(r, element, len, "SequenceNumber"))
	{
		/* said to be neither put nor failed: once more is the safe side */
		fails = true;
		if (r->nfailed == 0)
		{
			e->trouble = KDA_AWS_AGAIN;
			snprintf(e->message, sizeof(e->message), "the answer does not say whether a record was put");
		}
	}
	r->failed[r->seen++] = fails;
	r->nfailed += fails;
	return true;
}

int
kda_kinesis_put_results(const KdaText *answer, int n, bool *failed, KdaAwsError *error)
{
	Results		r = {n, failed, error};
	bool		read;

	memset(error, 0, sizeof(KdaAwsError));
	read = kda_aws_json_each(kda_text_str(answer), answer->len, "Records", take_result, &r);
	kda_text_free(&r.text);
	if (read && r.seen == n)
		return r.nfailed;
	memset(error, 0, sizeof(KdaAwsError));
	error->trouble = KDA_AWS_AGAIN;
	snprintf(error->message, sizeof(error->message), "the answer to PutRecords does not have a result for each of %d records", n);
	return -1;
}

/* As in "... at 'records.3.member.data' failed to satisfy constraint ...", which counts from 1. */
int
kda_kinesis_put_blamed(const char *message, int n)
{
	const char *p = strstr(message, "records.");
	int			i = 0;

	if (p == NULL)
		return -1;
	for (p += strlen("records."); *p >= '0' && *p <= '9' && i <= n; p++)
		i = i * 10 + (*p - '0');
	return i >= 1 && i <= n && strncmp(p, ".member", 7) == 0 ? i - 1 : -1;
}

/*
 * Names and ARNs are checked when a sink is opened, so what fails validation is
 * a record's.  Texts of ValidationException quote keys, which may say anything;
 * those of InvalidArgumentException quote only what has been validated.
 */
bool
kda_kinesis_put_is_of_record(const KdaAwsError *error)
{
	if (error->trouble != KDA_AWS_REFUSED)
		return false;
	if (strcmp(error->code, "InvalidArgumentException") == 0)
		return strstr(error->message, "StreamARN") == NULL && strstr(error->message, "StreamName") == NULL;
	return error->status == 413 || strcmp(error->code, "ValidationException") == 0 ||
		strcmp(error->code, "SerializationException") == 0;
}
