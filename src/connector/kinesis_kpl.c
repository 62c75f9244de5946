/*-------------------------------------------------------------------------
 *
 * kinesis_kpl.c
 *	  Takes aggregates of the Kinesis Producer Library apart.
 *
 * Two passes over the message: the first one checks all of it and gathers the
 * tables of keys, so that the second one can give records one by one.
 *
 *		AggregatedRecord: 1 partition_key_table, 2 explicit_hash_key_table
 *			(strings), 3 records
 *		Record: 1 partition_key_index, 2 explicit_hash_key_index (optional),
 *			3 data, 4 tags (not used)
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kinesis_kpl.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define MD5_LEN		16

static const uint8 magic[4] = {0xF3, 0x89, 0x9A, 0xC2};

/* A field of a protobuf message. */
typedef struct Field
{
	uint32		number;
	uint64		value;			/* of a number */
	const uint8 *p;				/* of bytes; NULL: it is a number */
	size_t		len;
} Field;

static inline bool
take_varint(const uint8 **p, const uint8 *end, uint64 *value)
{
	*value = 0;
	for (int shift = 0; shift < 64 && *p < end; shift += 7)
	{
		uint8		b = *(*p)++;

		*value |= (uint64) (b & 0x7F) << shift;
		if (b < 0x80)
			return true;
	}
	return false;
}

/* False: not well-formed. */
static inline bool
take_field(const uint8 **p, const uint8 *end, Field *field)
{
	uint64		tag;

	if (!take_varint(p, end, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF)
		return false;
	field->number = (uint32) (tag >> 3);
	field->p = NULL;
	field->len = 0;
	switch (tag & 7)
	{
		case 0:
			return take_varint(p, end, &field->value);
		case 1:
		case 5:
			{
				size_t		size = (tag & 7) == 1 ? 8 : 4;

				if ((size_t) (end - *p) < size)
					return false;
				*p += size;
				field->number = 0;	/* none of those that we take */
				return true;
			}
		case 2:
			{
				uint64		len;

				if (!take_varint(p, end, &len) || len > (uint64) (end - *p))
					return false;
				field->p = *p;
				field->len = (size_t) len;
				*p += len;
				return true;
			}
	}
	return false;
}

typedef struct Record
{
	uint64		key;
	uint64		hash;
	const uint8 *data;
	size_t		len;
	bool		has_key;
	bool		has_hash;
} Record;

static inline bool
take_record(const Field *field, Record *record)
{
	const uint8 *p = field->p;
	const uint8 *end = p + field->len;
	Field		f;

	memset(record, 0, sizeof(Record));
	while (p < end)
	{
		if (!take_field(&p, end, &f))
			return false;
		if (f.number == 3 && f.p)
		{
			record->data = f.p;
			record->len = f.len;
		}
		else if (f.number == 1 && !f.p)
		{
			record->key = f.value;
			record->has_key = true;
		}
		else if (f.number == 2 && !f.p)
		{
			record->hash = f.value;
			record->has_hash = true;
		}
	}
	return record->has_key && record->data;
}

bool
kda_kpl_hash_key(const char *text, size_t len, KdaHashKey *key)
{
	*key = 0;
	if (len == 0 || len > 39)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		KdaHashKey	before = *key;

		if (text[i] < '0' || text[i] > '9')
			return false;
		*key = *key * 10 + (text[i] - '0');
		if (*key / 10 != before)
			return false;
	}
	return true;
}

static bool
md5(const void *data, size_t len, uint8 *out)
{
	unsigned int n = 0;

	return EVP_Digest(data, len, out, &n, EVP_md5(), NULL) == 1 && n == MD5_LEN;
}

/* Where a record with that key goes: an explicit hash key says so, else it is the partition key's MD5. */
static bool
hash_of(KdaKplKey *key, bool explicit)
{
	uint8		digest[MD5_LEN];

	if (key->hashed)
		return true;
	if (explicit)
	{
		if (!kda_kpl_hash_key(key->p, key->len, &key->hash))
			return false;
	}
	else
	{
		if (!md5(key->p, key->len, digest))
			return false;
		key->hash = 0;
		for (int i = 0; i < MD5_LEN; i++)
			key->hash = key->hash << 8 | digest[i];
	}
	return key->hashed = true;
}

/* Counts fields and finds mistakes. */
static bool
count(KdaKpl *kpl)
{
	const uint8 *p = kpl->p;
	Field		f;

	while (p < kpl->end)
	{
		if (!take_field(&p, kpl->end, &f))
			return false;
		if (f.number >= 1 && f.number <= 3 && f.p == NULL)
			return false;
		kpl->nkeys += f.number == 1;
		kpl->nhashes += f.number == 2;
		kpl->n += f.number == 3;
		if (kpl->nkeys > KDA_KPL_MAX_RECORDS || kpl->nhashes > KDA_KPL_MAX_RECORDS || kpl->n > KDA_KPL_MAX_RECORDS)
			return false;
	}
	return true;
}

static void
gather_keys(KdaKpl *kpl)
{
	const uint8 *p = kpl->p;
	KdaKplKey  *key = kpl->keys;
	KdaKplKey  *hash = kpl->keys + kpl->nkeys;
	Field		f;

	while (p < kpl->end && take_field(&p, kpl->end, &f))
		if (f.number == 1 || f.number == 2)
		{
			KdaKplKey  *k = f.number == 1 ? key++ : hash++;

			k->p = (const char *) f.p;
			k->len = (uint32) f.len;
		}
}

/* All records: do they name keys that there are, and are they this shard's? */
static KdaKplKind
check(KdaKpl *kpl, KdaHashKey from, KdaHashKey to)
{
	const uint8 *p = kpl->p;
	Field		f;

	while (p < kpl->end && take_field(&p, kpl->end, &f))
	{
		Record		record;
		KdaKplKey  *key;

		if (f.number != 3)
			continue;
		if (!take_record(&f, &record) || record.key >= kpl->nkeys || (record.has_hash && record.hash >= kpl->nhashes))
			return KDA_KPL_PLAIN;
		key = record.has_hash ? &kpl->keys[kpl->nkeys + record.hash] : &kpl->keys[record.key];
		if (!hash_of(key, record.has_hash))
			return KDA_KPL_PLAIN;
		if (key->hash < from || key->hash > to)
			return KDA_KPL_ELSEWHERE;
	}
	return KDA_KPL_AGGREGATE;
}

KdaKplKind
kda_kpl_begin(KdaKpl *kpl, const char *data, size_t len, KdaHashKey from, KdaHashKey to)
{
	uint8		digest[MD5_LEN];
	KdaKplKind	kind;

	memset(kpl, 0, sizeof(KdaKpl));
	if (len < sizeof(magic) + MD5_LEN || memcmp(data, magic, sizeof(magic)) != 0)
		return KDA_KPL_PLAIN;
	kpl->p = (const uint8 *) data + sizeof(magic);
	kpl->end = (const uint8 *) data + len - MD5_LEN;
	if (!md5(kpl->p, kpl->end - kpl->p, digest) || memcmp(digest, kpl->end, MD5_LEN) != 0 || !count(kpl))
		return KDA_KPL_PLAIN;
	kpl->keys = calloc(kpl->nkeys + kpl->nhashes + 1, sizeof(KdaKplKey));
	if (kpl->keys == NULL)
		return KDA_KPL_NO_MEMORY;
	gather_keys(kpl);
	kind = check(kpl, from, to);
	if (kind != KDA_KPL_AGGREGATE)
		kda_kpl_free(kpl);
	return kind;
}

bool
kda_kpl_next(KdaKpl *kpl, const char **data, size_t *len, const char **key, size_t *key_len)
{
	Field		f;
	Record		record;

	while (kpl->p < kpl->end && take_field(&kpl->p, kpl->end, &f))
	{
		if (f.number != 3)
			continue;
		(void) take_record(&f, &record);
		*data = (const char *) record.data;
		*len = record.len;
		*key = kpl->keys[record.key].p;
		*key_len = kpl->keys[record.key].len;
		kpl->next++;
		return true;
	}
	return false;
}

void
kda_kpl_free(KdaKpl *kpl)
{
	free(kpl->keys);
	kpl->keys = NULL;
	kpl->p = kpl->end = NULL;
}
