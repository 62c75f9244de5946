/*-------------------------------------------------------------------------
 *
 * kafka_conf.c
 *	  librdkafka's configuration, for sources and sinks.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_conf.h"

#include "commands/defrem.h"
#include "connector/kafka.h"
#include "connector/kafka_token.h"

#define SCRAM_FIXED		0x020601ff	/* it used to repeat its nonce, which brokers refuse since CVE-2024-56128 */

void
kda_kafka_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		why[512];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
	{
		rd_kafka_conf_destroy(conf);
		/* the library's message may hold the value, which may be a secret */
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for property \"%s\"", name)));
	}
}

static void
set_all(rd_kafka_conf_t *conf, List *options, bool producer)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		/* Amazon's mechanism is the standard's with tokens of its own */
		if (strncmp(def->defname, "sasl.mechanism", 14) == 0 && strcmp(defGetString(def), KDA_MSK_IAM) == 0)
		{
			kda_kafka_conf_set(conf, "security.protocol", "SASL_SSL");
			kda_kafka_conf_set(conf, "sasl.mechanisms", "OAUTHBEARER");
		}
		else if (kda_kafka_property_fits(def->defname, producer))
			kda_kafka_conf_set(conf, def->defname, defGetString(def));
	}
}

rd_kafka_conf_t *
kda_kafka_conf_new(List *server_options, List *user_options, bool producer)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	kda_kafka_conf_set(conf, "socket.nagle.disable", "true");
	if (!producer)
		kda_kafka_conf_set(conf, "isolation.level", "read_committed");
	set_all(conf, server_options, producer);
	set_all(conf, user_options, producer);
	/* a topic is made by people */
	kda_kafka_conf_set(conf, "allow.auto.create.topics", "false");
	kda_kafka_conf_set(conf, "topic.metadata.refresh.interval.ms", "10000");
	return conf;
}

void
kda_kafka_conf_set_number(rd_kafka_conf_t *conf, const char *name, Size number)
{
	char		text[32];

	snprintf(text, sizeof(text), "%zu", Min(number, (Size) PG_INT32_MAX));
	rd_kafka_conf_set(conf, name, text, NULL, 0);
}

void
kda_kafka_copy_reason(char *to, Size size, int err, const char *reason)
{
	char	   *counts;

	strlcpy(to, reason, size);
	/* "(after 5ms in state CONNECT, 3 identical error(s) suppressed)": never twice the same */
	if ((counts = strstr(to, " (after ")) != NULL)
		*counts = '\0';
	if (err == RD_KAFKA_RESP_ERR__AUTHENTICATION && strstr(reason, "SCRAM") && rd_kafka_version() < SCRAM_FIXED)
	{
		Size		len = strlen(to);

		snprintf(to + len, size - len,
				 " (or librdkafka %s is too old: before 2.6.1 it cannot do SCRAM with Kafka 3.7.2, 3.8.1, 3.9 and later)",
				 rd_kafka_version_str());
	}
}
