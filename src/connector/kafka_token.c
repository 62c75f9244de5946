/*-------------------------------------------------------------------------
 *
 * kafka_token.c
 *	  Tokens for Amazon MSK with IAM.
 *
 * A token is the base64url of a URL that asks service kafka-cluster for the
 * action Connect, signed as any presigned URL of AWS's.  The broker sends it to
 * AWS, which answers who it is that has signed.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_token.h"

#define USER_AGENT	"kda_stream"

KdaKafkaToken *
kda_kafka_token_new(void)
{
	KdaKafkaToken *token = kda_secret_calloc(1, sizeof(KdaKafkaToken));

	if (token)
		pthread_mutex_init(&token->mutex, NULL);
	return token;
}

void
kda_kafka_token_free(KdaKafkaToken *token)
{
	if (token == NULL)
		return;
	kda_text_free(&token->text);
	pthread_mutex_destroy(&token->mutex);
	kda_secret_free(token);
}

/* RFC 4648, the alphabet for URLs, without padding. */
static void
add_base64url(KdaText *to, const char *bytes, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	for (size_t i = 0; i < len; i += 3)
	{
		int			n = Min(len - i, 3);
		uint32		group = (uint32) (unsigned char) bytes[i] << 16;

		if (n > 1)
			group |= (uint32) (unsigned char) bytes[i + 1] << 8;
		if (n > 2)
			group |= (unsigned char) bytes[i + 2];
		for (int d = 0; d <= n; d++)
			kda_text_addc(to, digits[(group >> (18 - 6 * d)) & 63]);
	}
}

bool
kda_kafka_token_make(KdaKafkaToken *token, const char *region, const KdaAwsKeys *keys, int64 unix_seconds)
{
	char		host[100];
	KdaHeader	header = {"host", host};
	KdaSigv4Request request = {
		.method = "GET",
		.path = "/",
		.query = "Action=kafka-cluster%3AConnect",
		.headers = &header,
		.nheaders = 1,
		.region = region,
		.service = "kafka-cluster",
	};
	KdaSigv4	signature = {0};
	KdaText		url = {0};
	KdaText		text = {0};
	bool		fine;

	snprintf(host, sizeof(host), "kafka.%s.amazonaws.com", region);
	fine = kda_sigv4_presign(&request, keys, unix_seconds, KDA_MSK_TOKEN_S, &signature);
	if (fine)
	{
		kda_text_addf(&url, "https://%s/?", host);
		kda_text_add(&url, kda_text_str(&signature.query), signature.query.len);
		/* not signed */
		kda_text_adds(&url, "&User-Agent=" USER_AGENT);
		add_base64url(&text, kda_text_str(&url), url.len);
		fine = !url.failed && !text.failed;
	}
	kda_sigv4_free(&signature);
	kda_text_free(&url);
	if (!fine)
	{
		kda_text_free(&text);
		return false;
	}
	pthread_mutex_lock(&token->mutex);
	kda_text_free(&token->text);
	token->text = text;
	token->expires_ms = (unix_seconds + KDA_MSK_TOKEN_S) * 1000;
	token->serial++;
	token->error[0] = '\0';
	pthread_mutex_unlock(&token->mutex);
	return true;
}

void
kda_kafka_token_fail(KdaKafkaToken *token, const char *error)
{
	pthread_mutex_lock(&token->mutex);
	strlcpy(token->error, error, sizeof(token->error));
	pthread_mutex_unlock(&token->mutex);
}

void
kda_kafka_token_error(KdaKafkaToken *token, char *error, Size size)
{
	pthread_mutex_lock(&token->mutex);
	/* with one that is still good nothing is wrong yet */
	strlcpy(error, token->text.len == 0 || token->expires_ms < (int64) time(NULL) * 1000 ? token->error : "", size);
	pthread_mutex_unlock(&token->mutex);
}

void
kda_kafka_token_apply(KdaKafkaToken *token, rd_kafka_t *rk, uint64 *serial)
{
	char		why[256];

	if (token == NULL || rk == NULL)
		return;
	pthread_mutex_lock(&token->mutex);
	if (token->serial != *serial && token->text.len > 0)
	{
		/* the library's message could hold the token: it is not shown */
		if (rd_kafka_oauthbearer_set_token(rk, token->text.data, token->expires_ms, "kda_stream", NULL, 0, why, sizeof(why)) == RD_KAFKA_RESP_ERR_NO_ERROR)
			*serial = token->serial;
		explicit_bzero(why, sizeof(why));
	}
	pthread_mutex_unlock(&token->mutex);
}
