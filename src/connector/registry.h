/*-------------------------------------------------------------------------
 *
 * registry.h
 *	  A schema registry that speaks Confluent's REST API: the schemas that
 *	  records were written with, by their numbers, and numbers for schemas.
 *
 * Nothing waits: a question is begun, and after each wake-up of the HTTP client
 * its answer may be there.  A registry that is down, or refuses us, is asked
 * again with pauses until it answers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_REGISTRY_H
#define KDA_REGISTRY_H

#include "kda_stream.h"
#include "foreign/foreign.h"
#include "format/schemas.h"

#define KDA_REGISTRY_TYPE	"schema_registry"	/* of CREATE SERVER */

typedef struct KdaRegistry KdaRegistry;
typedef struct KdaRegistryQuestion KdaRegistryQuestion;

/*---- options; ereport what is wrong with them */
extern void kda_registry_check_server(const ForeignServer *server);
extern void kda_registry_check_user_mapping(const ForeignServer *server, List *given, List *all);

/*
 * The server of that name, which the user must have USAGE on, with his mapping
 * or that of PUBLIC.  In a transaction; ereports.  Belongs to
 * CurrentMemoryContext: with that it ends, and so does what is under way.
 */
extern KdaRegistry *kda_registry_open(const char *name, Oid userid, int wake_fd);
extern Oid	kda_registry_server(const KdaRegistry *registry);

/* Which schema has the number?  In memory of the registry. */
extern KdaRegistryQuestion *kda_registry_ask(KdaRegistry *registry, const KdaSchemaId *id);
/* Which number has the schema under that subject?  It gets one, if the registry lets us. */
extern KdaRegistryQuestion *kda_registry_register(KdaRegistry *registry, const char *subject, const char *schema);

/* Goes on with it; true once the answer is there. */
extern bool kda_registry_done(KdaRegistryQuestion *question);
/* Then: the schema's text, or NULL with *why: there is none, or none of Avro's. */
extern const char *kda_registry_schema(const KdaRegistryQuestion *question, Size *len, const char **why);
/* ... or its number; false: the registry will not have it, *why. */
extern bool kda_registry_id(const KdaRegistryQuestion *question, KdaSchemaId *id, const char **why);
extern void kda_registry_forget(KdaRegistryQuestion *question);

/* Why the last attempt has not been answered, "" if it has; printable, never a secret. */
extern const char *kda_registry_trouble(const KdaRegistryQuestion *question);

#endif							/* KDA_REGISTRY_H */
