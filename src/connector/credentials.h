/*-------------------------------------------------------------------------
 *
 * credentials.h
 *	  Where the keys for AWS come from, and that they are good when they are used.
 *
 * Fixed keys, a role assumed with other credentials, or what the machine has:
 * the first that is there of web identity (EKS), container (ECS, EKS Pod
 * Identity) and instance (EC2, IMDSv2 only).  What the environment names is
 * used; if it fails, the next one is not tried instead.
 *
 * Credentials are shared by all that sign with them: whoever asks first after
 * it is time begins the one refresh.  They are renewed well before they end
 * and used meanwhile.  Nothing here waits; an answer wakes whoever listens to
 * the HTTP client.  Everything lies in secret memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_CREDENTIALS_H
#define KDA_CREDENTIALS_H

#include "postgres.h"
#include "connector/http.h"
#include "connector/sigv4.h"

typedef enum KdaKeysState
{
	KDA_KEYS_READY,
	KDA_KEYS_COMING,			/* ask again after the HTTP client's next wake-up */
	KDA_KEYS_NONE				/* there was an error; it is tried again, after a pause */
} KdaKeysState;

typedef struct KdaRole
{
	const char *arn;
	const char *external_id;	/* NULL: none */
	const char *session_name;
} KdaRole;

typedef struct KdaCredentials KdaCredentials;

/* All three: NULL when there is no memory. */
extern KdaCredentials *kda_credentials_fixed(const KdaAwsKeys *keys);

/* base goes over to the new one, also if that cannot be made. */
extern KdaCredentials *kda_credentials_role(KdaHttp *http, KdaCredentials *base, const KdaRole *role,
											const KdaEndpoint *sts, const char *region, int retry_max_ms);

/* Reads the process's environment, which is the server's. */
extern KdaCredentials *kda_credentials_machine(KdaHttp *http, const char *region, int retry_max_ms);

/* NULL does nothing. */
extern void kda_credentials_free(KdaCredentials *credentials);

/* The keys, with pointers that are good until anything is asked again. */
extern KdaKeysState kda_credentials_keys(KdaCredentials *credentials, KdaAwsKeys *keys);

/*
 * A service says that these keys have ended.  True: there are or will be
 * others.
 */
extern bool kda_credentials_refuse(KdaCredentials *credentials, const char *access_key_id);

/* Why there are none; "" if nothing was wrong.  No secrets. */
extern const char *kda_credentials_error(const KdaCredentials *credentials);

#endif							/* KDA_CREDENTIALS_H */
